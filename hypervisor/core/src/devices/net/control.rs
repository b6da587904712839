//! The control queue (section 5.1.6.5): commands, each answered with a byte.

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::net::control::{ERR, MQ, MQ_VQ_PAIRS_SET, OK};
use chiton_shared::virtio::ring::Chain;

use super::super::DeviceError;
use super::super::buffers::{Cursor, Windows};

/// A command, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Use so many pairs of queues.
    SetPairs(u16),
    /// Any other, or one that is too short or too long.
    Unknown,
}

/// Reads the command in a chain.
///
/// # Errors
///
/// [`DeviceError::Buffer`] if it is outside of memory.
pub(super) fn read<'m>(
    chain: &Chain,
    memory: &'m (dyn GuestMemory + 'm),
    windows: &mut Windows<'m>,
) -> Result<Command, DeviceError> {
    let mut bytes = [0; 4];
    Cursor::default().gather(chain.readable(), memory, bytes.len(), windows)?;
    let complete = windows.read(&mut bytes) == bytes.len() && chain.readable_bytes() == bytes.len() as u64;
    Ok(match bytes {
        [MQ, MQ_VQ_PAIRS_SET, low, high] if complete => Command::SetPairs(u16::from_le_bytes([low, high])),
        _ => Command::Unknown,
    })
}

/// Answers a command, whether it was carried out.
///
/// # Errors
///
/// [`DeviceError::NoRoom`] if there is no byte for it.
pub(super) fn answer<'m>(
    chain: &Chain,
    done: bool,
    memory: &'m (dyn GuestMemory + 'm),
    windows: &mut Windows<'m>,
) -> Result<(), DeviceError> {
    Cursor::default().gather(chain.writable(), memory, 1, windows)?;
    match windows.write(&[if done { OK } else { ERR }]) {
        1 => Ok(()),
        _ => Err(DeviceError::NoRoom { head: chain.head() }),
    }
}
