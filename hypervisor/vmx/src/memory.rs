//! Guest memory: EPT, made on demand.

use chiton_core::paging::{Change, Ept};
use chiton_core::physical::GuestRam;
use chiton_core::space::{Demand, Space};

use crate::enable::Processor;
use crate::{Error, Options, invalidate};

/// Memory of which nothing is mapped yet.
pub(crate) fn new(processor: &Processor, ram: GuestRam, options: &Options) -> Result<Space<Ept>, Error> {
    let capabilities = &processor.capabilities;
    let mut format = Ept::new(capabilities.ept_vpid.0, capabilities.processor.physical_bits.into())?;
    if options.virtualization_exceptions.is_some() {
        format = format.suppressing_ve();
    }
    let space = Space::new(processor.physical, format, ram, options.largest_page)?;
    // What an earlier root at the same address has left is remembered under the same EPTP.
    invalidate::ept(capabilities, space.table.pointer())?;
    Ok(space.with_types(processor.mtrrs.clone()))
}

/// Maps the memory at a guest-physical address, if it is memory and not mapped.
pub(crate) fn demand(space: &mut Space<Ept>, processor: &Processor, address: u64) -> Result<Demand, Error> {
    let mut outcome = Ok(());
    let forget = |eptp| outcome = invalidate::ept(&processor.capabilities, eptp);
    let demand = space.demand(address, forget)?;
    outcome.map(|()| demand)
}

/// Ends a change of EPT: has this processor forget what the change asks to forget.
pub(crate) fn settle(change: Change<'_, '_, Ept>, processor: &Processor) -> Result<(), Error> {
    let mut outcome = Ok(());
    change.settle(|eptp| outcome = invalidate::ept(&processor.capabilities, eptp))?;
    outcome
}
