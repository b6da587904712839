//! Guest memory: EPT, made on demand.

use chiton_core::paging::{Change, Ept, Size};
use chiton_core::physical::GuestRam;
use chiton_core::space::{Demand, Space};

use crate::enable::Processor;
use crate::{Error, Options, invalidate};

/// A small page, in bytes.
const PAGE: usize = Size::Small.bytes() as usize;

/// Memory of which nothing is mapped yet, or what [`Options::misconfigure`] asks for.
pub(crate) fn new(processor: &Processor, ram: GuestRam, options: &Options) -> Result<Space<Ept>, Error> {
    let capabilities = &processor.capabilities;
    let mut format = Ept::new(capabilities.ept_vpid.0, capabilities.processor.physical_bits.into())?;
    if options.virtualization_exceptions.is_some() {
        format = format.suppressing_ve();
    }
    if !options.accessed_dirty {
        format = format.without_accessed_dirty();
    }
    let largest = if options.misconfigure {
        Size::Small
    } else {
        options.largest_page
    };
    let space = Space::new(processor.physical, format, ram, largest)?;
    // What an earlier root at the same address has left is remembered under the same EPTP.
    invalidate::ept(capabilities, space.table.pointer())?;
    let mut space = space
        .with_types(processor.mtrrs.clone())
        .with_given_back(options.given_back.clone());
    if options.misconfigure {
        misconfigure(&mut space, processor)?;
    }
    Ok(space)
}

/// Maps all memory, by entries that no processor takes.
fn misconfigure(space: &mut Space<Ept>, processor: &Processor) -> Result<(), Error> {
    for piece in space.ram.pieces() {
        for address in (piece.guest..piece.guest + piece.bytes).step_by(PAGE) {
            demand(space, processor, address)?;
        }
        settle(space.table.misconfigure(piece.guest, piece.bytes, true), processor)?;
    }
    Ok(())
}

/// Mends the entry of memory at a guest-physical address, if it is one that was misconfigured; tells whether it was.
pub(crate) fn mend(space: &mut Space<Ept>, processor: &Processor, address: u64) -> Result<bool, Error> {
    if space.host(address).is_none() || space.table.path(address).broken().is_none() {
        return Ok(false);
    }
    let page = address - address % PAGE as u64;
    settle(space.table.misconfigure(page, PAGE as u64, false), processor)?;
    Ok(true)
}

/// Maps the memory at a guest-physical address, if it is memory and not mapped.
pub(crate) fn demand(space: &mut Space<Ept>, processor: &Processor, address: u64) -> Result<Demand, Error> {
    let mut outcome = Ok(());
    let forget = |eptp| outcome = invalidate::ept(&processor.capabilities, eptp);
    let demand = space.demand(address, forget)?;
    outcome.map(|()| demand)
}

/// Takes out of EPT what the guest has given back.
pub(crate) fn take_out(space: &mut Space<Ept>, processor: &Processor) -> Result<(), Error> {
    let mut outcome = Ok(());
    space.take_out(|eptp| {
        if outcome.is_ok() {
            outcome = invalidate::ept(&processor.capabilities, eptp);
        }
    });
    outcome
}

/// Ends a change of EPT: has this processor forget what the change asks to forget.
pub(crate) fn settle(change: Change<'_, '_, Ept>, processor: &Processor) -> Result<(), Error> {
    let mut outcome = Ok(());
    change.settle(|eptp| outcome = invalidate::ept(&processor.capabilities, eptp))?;
    outcome
}
