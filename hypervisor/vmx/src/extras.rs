//! What a vCPU can do beyond running a guest, for whoever asks.

use alloc::vec::Vec;

use chiton_core::paging::{Ept, Page, Rights, Size, Table};
use chiton_core::space::Demand;
use chiton_core::vmx::controls::{primary, secondary};
use chiton_core::vmx::{VmcsFields, VmcsWrite, fields};

use crate::hook::Hook;
use crate::views::Views;
use crate::{Error, VmxVcpu, memory};

impl VmxVcpu {
    /// The pages that the guest has written to since it was last asked, by guest-physical address;
    /// none without [`page_log`](crate::Options::page_log).
    ///
    /// # Errors
    ///
    /// When the VMCS cannot be read.
    pub fn written_pages(&mut self) -> Result<Vec<u64>, Error> {
        self.vmcs.make_current()?;
        let Some(log) = &mut self.page_log else {
            return Ok(Vec::new());
        };
        log.drain(&mut self.vmcs)?;
        Ok(log.take())
    }

    /// What the guest reads as its TSC: the machine's, times `multiplier` with 48 bits behind the
    /// point, and `offset`. Where the processor has no scaling, the multiplier is 1.
    ///
    /// # Errors
    ///
    /// When the VMCS cannot be written.
    pub fn set_tsc(&mut self, multiplier: u64, offset: u64) -> Result<(), Error> {
        self.vmcs.make_current()?;
        self.vmcs.set(fields::TSC_OFFSET, offset)?;
        if self.processor.capabilities.secondary.may & secondary::USE_TSC_SCALING != 0 {
            let controls = self.vmcs.get(fields::SECONDARY_CONTROLS) | secondary::USE_TSC_SCALING as u32;
            self.vmcs.set(fields::SECONDARY_CONTROLS, controls)?;
            self.vmcs.set(fields::TSC_MULTIPLIER, multiplier)?;
        }
        Ok(())
    }

    /// Whether each instruction of the guest exits when it is done, where the processor can.
    ///
    /// # Errors
    ///
    /// When the VMCS cannot be written.
    pub fn step_by_step(&mut self, yes: bool) -> Result<(), Error> {
        const FLAG: u32 = primary::MONITOR_TRAP_FLAG as u32;
        self.vmcs.make_current()?;
        if self.processor.capabilities.primary.may & u64::from(FLAG) != 0 {
            let controls = self.vmcs.get(fields::PRIMARY_CONTROLS) & !FLAG;
            self.vmcs
                .set(fields::PRIMARY_CONTROLS, if yes { controls | FLAG } else { controls })?;
        }
        Ok(())
    }

    /// Has the page at this guest-physical address run as it is now, but for `patch` at its
    /// beginning, and read as the guest has written it.
    ///
    /// # Errors
    ///
    /// When there is no page for the copy, or EPT cannot be changed.
    pub fn hook(&mut self, page: u64, patch: &[u8]) -> Result<(), Error> {
        let hook = Hook::new(&self.processor, &self.space, page, patch)?;
        hook.turn(&mut self.space, &self.processor, false)?;
        self.hook = Some(hook);
        Ok(())
    }

    /// Maps the first `len` bytes of guest memory now.
    pub(crate) fn map_all(&mut self, len: u64) -> Result<(), Error> {
        let mut address = 0;
        while address < len {
            if memory::demand(&mut self.space, &self.processor, address)? == Demand::Nowhere {
                break;
            }
            address += Size::Small.bytes();
        }
        Ok(())
    }

    /// Maps the page of guest memory at this address by an entry that no processor takes.
    pub(crate) fn misconfigure(&mut self, page: u64) -> Result<(), Error> {
        memory::demand(&mut self.space, &self.processor, page)?;
        let change = self.space.table.misconfigure(page, Size::Small.bytes(), true);
        memory::settle(change, &self.processor)
    }

    /// Another view of guest memory: tables of its own, which map the first `len` bytes as the
    /// guest's own do.
    pub(crate) fn view(&self, len: u64) -> Result<Table<'static, Ept>, Error> {
        let mut table = Table::new(self.processor.physical, *self.space.table.format())?;
        if let Some(host) = self.space.host(0) {
            let page = Page {
                host,
                size: Size::Small,
                rights: Rights::ALL,
                memory_type: self.space.memory_type(host),
            };
            // No processor has this root in mind yet.
            table.map(0, len, page).settle(|_| ())?;
        }
        Ok(table)
    }

    /// From now on violations in a range are the guest's own, and nothing is mapped there.
    pub(crate) fn give_violations_to_guest(&mut self, address: u64, len: u64) -> Result<(), Error> {
        memory::settle(self.space.table.unmap(address, len), &self.processor)?;
        memory::settle(self.space.table.convert(address, len, true), &self.processor)
    }

    /// The views that the guest may change among by VMFUNC, as EPTPs; it is in the first.
    pub(crate) fn offer_views(&mut self, eptps: &[u64]) -> Result<(), Error> {
        self.vmcs.make_current()?;
        let views = Views::new(self.processor.physical, eptps)?;
        views.write(&mut self.vmcs)?;
        for eptp in eptps {
            crate::invalidate::ept(&self.processor.capabilities, *eptp)?;
        }
        self.views = Some(views);
        Ok(())
    }
}
