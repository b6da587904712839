//! Which call a filter killed a process for: the kernel's audit log tells.

use std::fmt;
use std::fs::File;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kernel_log;

/// How long a record is waited for: it is written by a thread of the kernel's, after the death, when its turn comes.
const PATIENCE: Duration = Duration::from_secs(3);
/// `AUDIT_ARCH_X86_64`, to which the numbers belong that have names here.
const X86_64: u32 = 0xC000_003E;
/// The names of calls by number, from 0 to 334, and behind an empty line from 424 on (`asm/unistd_64.h`).
const NAMES: &str = include_str!("names.txt");
/// The number of the first name behind the empty line.
const NEW: usize = 424;

/// A call for which a filter killed a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name of the thread that made it.
    pub thread: String,
    /// Its number.
    pub call: usize,
    /// The table that the number is of: an `AUDIT_ARCH_` of `linux/audit.h`.
    pub architecture: u32,
}

impl Refused {
    /// For which call a process was killed that the host numbers so; `None` if the log has nothing of it, or may not
    /// be read, or goes elsewhere, as it does where an audit daemon runs.
    #[must_use]
    pub fn find(process: u32) -> Option<Self> {
        let mut log = kernel_log::open()?;
        let end = Instant::now() + PATIENCE;
        let mut found = None;
        loop {
            kernel_log::each(&mut log, |text| found = parse(text, process).or(found.take()));
            if found.is_some() || !has_more(&log, end.saturating_duration_since(Instant::now())) {
                return found;
            }
        }
    }

    /// The name of the call, if it is of this architecture and known here.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        let (old, new) = NAMES.split_once("\n\n")?;
        let mut names = match self.call.checked_sub(NEW) {
            Some(index) => new.split_whitespace().skip(index),
            None => old.split_whitespace().skip(self.call),
        };
        names.next().filter(|_| self.architecture == X86_64)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its thread {:?} made the system call ", self.thread)?;
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.call),
            None if self.architecture == X86_64 => write!(f, "{}", self.call),
            None => write!(f, "{} of another architecture ({:#x})", self.call, self.architecture),
        }
    }
}

/// Waits for a record; whether one came.
fn has_more(log: &File, left: Duration) -> bool {
    let left = Timespec {
        tv_sec: 0,
        tv_nsec: left.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(log, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0)
}

/// `audit: type=1326 audit(…): auid=… uid=… gid=… ses=… pid=… comm=… exe=… sig=31 arch=… syscall=… compat=… ip=… code=…`,
/// where a name with odd letters is in hexadecimal digits without quotes.
fn parse(text: &str, process: u32) -> Option<Refused> {
    let record = text.strip_prefix("audit: type=1326 ")?;
    let (front, rest) = record.split_once(" pid=")?;
    // Nothing before this is anybody's choice.
    if front.contains('"') || rest.split(' ').next()? != process.to_string() {
        return None;
    }
    // The path of the program is its maker's choice: what stands behind it is read from the back.
    let value = |key: &str| rest.rsplit_once(key)?.1.split(' ').next();
    let thread = rest.split_once(" comm=")?.1;
    let thread = match thread.strip_prefix('"') {
        Some(name) => name.split('"').next()?.to_owned(),
        None => unhex(thread.split(' ').next()?)?,
    };
    (value(" sig=")? == "31").then_some(())?;
    Some(Refused {
        thread: thread.chars().filter(|c| !c.is_control()).take(16).collect(),
        call: value(" syscall=")?.parse().ok()?,
        architecture: u32::from_str_radix(value(" arch=")?, 16).ok()?,
    })
}

fn unhex(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    Some(String::from_utf8_lossy(&bytes.collect::<Option<Vec<_>>>()?).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(name: &str, rest: &str) -> String {
        format!(
            "audit: type=1326 audit(1795655562.753:204): auid=4294967295 uid=0 gid=0 ses=1 pid=1196 comm={name} \
             exe=\"/a\" {rest} compat=0 ip=0x7fe1a6719829 code=0x80000000"
        )
    }

    #[test]
    fn a_record_names_thread_and_call() {
        let socket = "sig=31 arch=c000003e syscall=41";
        let refused = parse(&record("\"io\"", socket), 1196).unwrap();
        assert_eq!(
            refused.to_string(),
            "its thread \"io\" made the system call socket (41)"
        );
        let refused = parse(&record("70726F636573736F722031", socket), 1196).unwrap();
        assert_eq!(refused.thread, "processor 1");
        assert_eq!(parse(&record("\"io\"", socket), 119), None);
        assert_eq!(parse(&record("\"io\"", "sig=0 arch=c000003e syscall=41"), 1196), None);
    }

    #[test]
    fn names_are_those_of_the_kernels_table() {
        let name = |call: i64, architecture| {
            let call = call as usize;
            let thread = String::new();
            Refused {
                thread,
                call,
                architecture,
            }
            .name()
        };
        for (call, is) in [
            (libc::SYS_read, "read"),
            (libc::SYS_ioctl, "ioctl"),
            (libc::SYS_execve, "execve"),
            (libc::SYS_openat2, "openat2"),
            (libc::SYS_statx, "statx"),
            (libc::SYS_rseq, "rseq"),
            (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
            (libc::SYS_landlock_restrict_self, "landlock_restrict_self"),
            (libc::SYS_mseal - 1, "lsm_list_modules"),
        ] {
            assert_eq!(name(call, X86_64), Some(is));
        }
        for call in [335, 423, 9999] {
            assert_eq!(name(call, X86_64), None);
        }
        assert_eq!(name(libc::SYS_read, 0x4000_0003), None);
    }

    proptest! {
        #[test]
        fn any_record_is_taken_without_a_panic(text in "[ -~]{0,200}") {
            let _ = parse(&text, 1);
            let _ = parse(&format!("audit: type=1326 a pid=1 comm={text} sig=31 arch=1 syscall=1"), 1);
        }
    }
}
