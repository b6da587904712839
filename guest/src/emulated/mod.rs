//! Drivers for the emulated devices, which have registers where virtio has rings: to see what each
//! access to a register costs. Programs with work to do use [`block`](crate::block) and
//! [`net`](crate::net).
//!
//! ```no_run
//! use chiton_guest::emulated::{Disk, Method};
//!
//! # fn main() -> Result<(), chiton_guest::emulated::Error> {
//! let mut disk = Disk::open()?;
//! let mut sector = [0; 512];
//! disk.read(Method::ProgrammedIo, 0, &mut sector)?; // some 270 exits
//! disk.read(Method::BusMaster, 0, &mut sector)?; // 14
//! # Ok(())
//! # }
//! ```

mod disk;
mod nic;

use core::sync::atomic::{AtomicBool, Ordering};

use chiton_shared::boot::DeviceEntry;
use chiton_shared::virtio::block::SECTOR;

use crate::boot;

pub use disk::{Disk, Method};
pub use nic::Nic;

/// Why an emulated device does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("there is no emulated {0}; start the guest with --emulated-{0}")]
    Missing(&'static str),
    /// It is open, or was.
    #[error("the emulated {0} has been opened before; open it once and pass it on")]
    Opened(&'static str),
    /// A length that is not a whole number of sectors, or more than a command can have.
    #[error("emulated disk: {0} bytes are not between 1 and 256 whole sectors of {SECTOR} bytes")]
    Length(usize),
    /// A sector beyond what the address has bits for.
    #[error("emulated disk: sector {0} does not fit into 28 bits")]
    Address(u64),
    /// The disk ended a command in an error.
    #[error("emulated disk: command {command:#04x} failed with status {status:#04x} and error {error:#04x}")]
    Failed {
        /// The command.
        command: u8,
        /// The Status register.
        status: u8,
        /// The Error register.
        error: u8,
    },
    /// The disk is not in the state it should be in.
    #[error("emulated disk: status {0:#04x} is not what a driver may expect here")]
    Status(u8),
    /// Memory beyond 4 GiB, where the bus master does not reach.
    #[error("emulated disk: the buffer is beyond 4 GiB, where the device's 32-bit addresses do not reach")]
    Buffer,
    /// A frame that does not fit.
    #[error("emulated network: a frame of {0} bytes is not between 14 and 1518")]
    Frame(usize),
    /// The device gave back a descriptor that makes no sense.
    #[error("emulated network: the device received a frame of {0} bytes into a buffer that has less")]
    Received(u16),
}

/// A block of registers, each access to which is an exit.
#[derive(Debug)]
struct Registers(u64);

impl Registers {
    /// The registers of the device with this ID, which is opened once.
    fn open(id: u32, name: &'static str, opened: &AtomicBool) -> Result<Self, Error> {
        let entry: &DeviceEntry = boot::devices(id).next().ok_or(Error::Missing(name))?;
        if opened.swap(true, Ordering::Relaxed) {
            return Err(Error::Opened(name));
        }
        Ok(Self(entry.registers))
    }

    /// Reads a register of `T`'s width at an offset of the contract.
    fn read<T>(&self, offset: u64) -> T {
        // SAFETY: register blocks are mapped by the contract, and offsets of `shared` lie within and
        // are aligned. What a device does to memory meanwhile it does to memory that was given to it.
        unsafe { ((self.0 + offset) as *const T).read_volatile() }
    }

    /// Writes a register of `T`'s width at an offset of the contract.
    fn write<T>(&self, offset: u64, value: T) {
        // What was written to memory before is for the device to read, and what is read afterwards
        // the device may have written.
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: as in `read`.
        unsafe { ((self.0 + offset) as *mut T).write_volatile(value) };
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}
