//! Model-specific registers that the VMCS has no field for, and that VM entries and exits exchange
//! by lists in memory (SDM volume 3C, sections 26.7.2 and 26.8.2).
//!
//! ```text
//!   one page:   0  guest's values    VM entry loads them, a VM exit stores them back
//!            2048  host's values     a VM exit loads them
//! ```
//!
//! Each register in the lists makes every entry and exit dearer. `swapgs` changes the first without
//! an exit, so it is always there; the others join when the guest first writes one of them.

use chiton_core::physical::{Pages, Physical};
use chiton_core::vmx::{NoSuchField, VmcsWrite, fields};

use crate::{Error, msr};

/// The registers: IA32_KERNEL_GS_BASE, IA32_STAR, IA32_LSTAR, IA32_FMASK (SDM volume 4, table 2-2).
const REGISTERS: [u32; 4] = [0xc000_0102, 0xc000_0081, 0xc000_0082, 0xc000_0084];
/// Size of an entry of a list: number, reserved, value (SDM volume 3C, section 26.7.2).
const ENTRY: usize = 16;
/// Where the host's values are.
const HOST: usize = 2048;

/// The lists of a guest.
pub(crate) struct MsrLists {
    page: Pages,
    count: u32,
}

impl MsrLists {
    /// The guest's values are zero, as after a reset.
    pub(crate) fn new(physical: &'static dyn Physical) -> Result<Self, Error> {
        let page = Pages::one(physical, "the MSR lists")?;
        for (index, register) in REGISTERS.into_iter().enumerate() {
            // SAFETY: RDMSR (SDM volume 2B) raises #GP where there is no such register; every processor in 64-bit mode
            // has these (volume 4, table 2-2).
            let hosts = unsafe { msr::read(register) };
            page.write_u32(index * ENTRY, register);
            page.write_u32(HOST + index * ENTRY, register);
            page.write_u64(HOST + index * ENTRY + 8, hosts);
        }
        Ok(Self { page, count: 1 })
    }

    /// Tells the VMCS of them.
    pub(crate) fn write(&self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        let address = self.page.address();
        vmcs.set(fields::ENTRY_MSR_LOAD_ADDRESS, address)?;
        vmcs.set(fields::EXIT_MSR_STORE_ADDRESS, address)?;
        vmcs.set(fields::EXIT_MSR_LOAD_ADDRESS, address + HOST as u64)?;
        vmcs.set(fields::ENTRY_MSR_LOAD_COUNT, self.count)?;
        vmcs.set(fields::EXIT_MSR_STORE_COUNT, self.count)?;
        vmcs.set(fields::EXIT_MSR_LOAD_COUNT, self.count)
    }

    /// The guest's value of a register; `None` if it is not one of these.
    pub(crate) fn get(&self, register: u32) -> Option<u64> {
        let index = REGISTERS.iter().position(|r| *r == register)?;
        Some(self.page.read_u64(index * ENTRY + 8))
    }

    /// Changes the guest's value of a register; `None` if it is not one of these. The VMCS has to
    /// be told of more of them when this returns true.
    pub(crate) fn set(&mut self, register: u32, value: u64) -> Option<bool> {
        let index = REGISTERS.iter().position(|r| *r == register)?;
        self.page.write_u64(index * ENTRY + 8, value);
        let more = index > 0 && self.count == 1;
        if more {
            self.count = REGISTERS.len() as u32;
        }
        Some(more)
    }
}
