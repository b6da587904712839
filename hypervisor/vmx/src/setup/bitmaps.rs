//! Which ports and model-specific registers exit (SDM volume 3C, sections 26.6.4 and 26.6.9).

use chiton_core::physical::{NoPage, Pages, Physical};
use chiton_core::vmx::{NoSuchField, VmcsWrite, fields};

use crate::{Error, msr};

/// Registers that are the guest's own: the VMCS has them, so each side finds its own.
const GUESTS_OWN: [u32; 5] = [
    msr::FS_BASE,
    msr::GS_BASE,
    msr::SYSENTER_CS,
    msr::SYSENTER_ESP,
    msr::SYSENTER_EIP,
];

/// The bitmaps of a guest: a bit that is set exits.
pub(crate) struct Bitmaps {
    ports: [Pages; 2],
    registers: Pages,
}

impl Bitmaps {
    /// Every port exits, and every register but the guest's own.
    pub(crate) fn new(physical: &'static dyn Physical) -> Result<Self, Error> {
        let filled = |what| {
            let page = Pages::one(physical, what)?;
            page.fill(0xff);
            Ok::<_, NoPage>(page)
        };
        let ports = || filled("the I/O bitmaps");
        let bitmaps = Self {
            ports: [ports()?, ports()?],
            registers: filled("the MSR bitmap")?,
        };
        for register in GUESTS_OWN {
            for kind in [Self::READ, Self::WRITE] {
                bitmaps.set(kind, register, false);
            }
        }
        Ok(bitmaps)
    }

    /// Accesses of one kind: the page holds four parts of 1024 bytes, reads of the low registers, of the
    /// high ones, writes of the low, of the high.
    pub(crate) const READ: usize = 0;
    /// The other kind.
    pub(crate) const WRITE: usize = 2;

    /// Whether accesses of a kind to a register exit.
    pub(crate) fn set(&self, kind: usize, register: u32, exits: bool) {
        let part = kind + usize::from(register >= 0xc000_0000);
        let number = (register & 0x1fff) as usize;
        let offset = part * 1024 + number / 64 * 8;
        let (word, bit) = (self.registers.read_u64(offset), 1 << (number % 64));
        let after = if exits { word | bit } else { word & !bit };
        self.registers.write_u64(offset, after);
    }

    pub(crate) fn write(&self, vmcs: &mut impl VmcsWrite) -> Result<(), NoSuchField> {
        vmcs.set(fields::IO_BITMAP_A, self.ports[0].address())?;
        vmcs.set(fields::IO_BITMAP_B, self.ports[1].address())?;
        vmcs.set(fields::MSR_BITMAPS, self.registers.address())
    }
}
