//! The kernel's own count of exits, which includes those that never reach this process.
//!
//! Source: "KVM_GET_STATS_FD", section 4.133 of the kernel's KVM API documentation.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use kvm_ioctls::VcpuFd;

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;

/// Bits 0 to 3 of a descriptor's flags: the type. Cumulative is 0.
const TYPE_MASK: u32 = 0xf;
/// Bits 4 to 7: the unit. None, that is a plain count, is 0.
const UNIT_MASK: u32 = 0xf0;

/// Longest name and most statistics a sane kernel has; more is taken for nonsense.
const SANE: usize = 4096;

/// One of the kernel's statistics of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelStat {
    /// The kernel's name for it.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// The statistics of a vCPU, to be read as often as one likes.
#[derive(Debug)]
pub struct KernelStats(File);

impl KernelStats {
    /// Those of this vCPU.
    ///
    /// # Errors
    ///
    /// Where the kernel (before 5.14) has none.
    pub fn open(vcpu: &VcpuFd) -> io::Result<Self> {
        open(vcpu).map(Self)
    }

    /// The counts that are not zero.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or are nonsense.
    pub fn read(&self) -> io::Result<Vec<KernelStat>> {
        parse(|buffer, offset| self.0.read_exact_at(buffer, offset))
    }
}

/// Reads the counts of a vCPU that are not zero; empty where the kernel (before 5.14) has none.
pub(crate) fn read(vcpu: &VcpuFd) -> Vec<KernelStat> {
    KernelStats::open(vcpu)
        .and_then(|stats| stats.read())
        .unwrap_or_default()
}

fn open(vcpu: &VcpuFd) -> io::Result<File> {
    // SAFETY: the call takes no argument and returns a new descriptor or an error.
    let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn parse(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Vec<KernelStat>> {
    let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
    let mut header = [0; 24];
    read(&mut header, 0)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (name_size, count, descriptors, data) = (word(4) as usize, word(8) as usize, word(16), word(20));
    if name_size > SANE || count > SANE {
        return Err(nonsense());
    }
    let mut table = vec![0; count * (16 + name_size)];
    read(&mut table, u64::from(descriptors))?;
    let mut stats = Vec::new();
    for entry in table.chunks_exact(16 + name_size) {
        let (fixed, name) = entry.split_at(16);
        let flags = u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]);
        let offset = u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
        if flags & (TYPE_MASK | UNIT_MASK) != 0 {
            continue;
        }
        let mut value = [0; 8];
        read(&mut value, u64::from(data) + u64::from(offset))?;
        let count = u64::from_le_bytes(value);
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        if count > 0 {
            stats.push(KernelStat {
                name: String::from_utf8_lossy(name).into_owned(),
                count,
            });
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(flags: u32, value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0u32, 8, 1, 24, 24, 48] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(flags.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(b"exits\0\0\0");
        bytes.extend(value.to_le_bytes());
        bytes
    }

    fn read_from(bytes: &[u8]) -> io::Result<Vec<KernelStat>> {
        parse(|buffer, offset| {
            let from = bytes.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    #[test]
    fn a_count_is_read_by_its_descriptor() {
        assert_eq!(
            read_from(&file(0, 7)).unwrap(),
            [KernelStat {
                name: "exits".into(),
                count: 7
            }]
        );
    }

    #[test]
    fn gauges_times_and_zeros_are_left_out() {
        for bytes in [file(1, 7), file(0x20, 7), file(0, 0)] {
            assert!(read_from(&bytes).unwrap().is_empty());
        }
    }

    #[test]
    fn a_header_full_of_nonsense_is_an_error() {
        assert!(read_from(&[0xff; 64]).is_err());
        assert!(read_from(&[]).is_err());
    }
}
