//! What this machine's KVM is, and what it can do.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use chiton_shared::interrupts::Idle;
use kvm_ioctls::{Cap, Kvm};

use crate::Error;

/// Where KVM is.
pub const DEV_KVM: &str = "/dev/kvm";

/// What a thread of a running machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// It runs a processor, and works on a device when that is quicker than to have another thread do so.
    Processor = 1,
    /// It is the device loop.
    Devices = 2,
    /// It serves disks and folders.
    Io = 4,
}

const P: u8 = Role::Processor as u8;
const D: u8 = Role::Devices as u8;
/// Nobody, once threads have begun with their roles.
const START: u8 = 0;

/// The requests that running a machine makes of KVM, of TAP devices and of terminals (`ioctl(2)`), once
/// everything is open, each with the [roles](Role) that make it: for filters of system calls, which try them in this
/// order.
pub const REQUESTS: &[(u8, u32)] = &[
    // The loop.
    (P, 0xAE80), // KVM_RUN
    // Console: its size, with each write.
    (P | D, 0x5413), // TIOCGWINSZ
    // Every machine, before it runs.
    (START, 0xAE01), // KVM_CREATE_VM
    (START, 0xAE04), // KVM_GET_VCPU_MMAP_SIZE
    (START, 0xAEA3), // KVM_GET_TSC_KHZ
    // Processors: the guest starts those beyond the first.
    (P, 0xAE41),      // KVM_CREATE_VCPU
    (P, 0x4008_AE90), // KVM_SET_CPUID2
    (P, 0x4188_AEA7), // KVM_SET_XCRS
    // Queues.
    (P, 0x4040_AE79), // KVM_IOEVENTFD
    // Where the guest was at its end.
    (P, 0x8090_AE81), // KVM_GET_REGS
    // Interrupts.
    (START, 0xAE03),      // KVM_CHECK_EXTENSION
    (START, 0x4068_AEA3), // KVM_ENABLE_CAP
    (START, 0x4008_AE6A), // KVM_SET_GSI_ROUTING
    (START, 0x4020_AE76), // KVM_IRQFD
    (P, 0x8138_AE83),     // KVM_GET_SREGS
    (P, 0x4138_AE84),     // KVM_SET_SREGS
    (P, 0x8400_AE8E),     // KVM_GET_LAPIC
    (P, 0x4400_AE8F),     // KVM_SET_LAPIC
    (P, 0x4004_AE99),     // KVM_SET_MP_STATE
    (P, 0x4020_AEA5),     // KVM_SIGNAL_MSI
    // The table of exits.
    (P, 0xAECE), // KVM_GET_STATS_FD
    // Snapshots: the state of processors, by themselves.
    (P, 0x8040_AE9F), // KVM_GET_VCPU_EVENTS
    (P, 0x9000_AEA4), // KVM_GET_XSAVE
    (P, 0x8188_AEA6), // KVM_GET_XCRS
    (P, 0x8080_AEA1), // KVM_GET_DEBUGREGS
    (P, 0x8004_AE98), // KVM_GET_MP_STATE
    (P, 0xC008_AE88), // KVM_GET_MSRS
    // Snapshots: what has changed since the last, by the device loop.
    (D, 0x4020_AE46), // KVM_SET_USER_MEMORY_REGION
    (D, 0x4010_AE42), // KVM_GET_DIRTY_LOG
    // Going on from one.
    (START, 0x5000_AEA5), // KVM_SET_XSAVE
    (START, 0x4080_AEA2), // KVM_SET_DEBUGREGS
    (START, 0x4008_AE89), // KVM_SET_MSRS
    // Networks: offloads and queues as the guest's driver chooses, the link's state.
    (P | D, 0x4004_54D0), // TUNSETOFFLOAD
    (P | D, 0x4004_54D9), // TUNSETQUEUE
    (P | D, 0x8004_54D2), // TUNGETIFF
    (P | D, 0x8913),      // SIOCGIFFLAGS
    // Connections of vsock, ports and control.
    (P | D, 0x5421), // FIONBIO
];

/// Who runs guest code under this KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmKind {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// No hardware at all: ring 3 runs natively, ring 0 is interpreted.
    Software,
}

impl KvmKind {
    /// Finds out, by the modules that are loaded and the processor's flags.
    #[must_use]
    pub fn detect() -> Self {
        /// A jail has neither `/sys` nor `/proc/cpuinfo`: who makes one asks before.
        static KIND: OnceLock<KvmKind> = OnceLock::new();
        *KIND.get_or_init(Self::look)
    }

    fn look() -> Self {
        Self::from_facts(|module| Path::new("/sys/module").join(module).exists(), cpu_flags)
    }

    /// The flags are asked for only if modules do not tell: the kernel takes its time to write them down.
    fn from_facts(loaded: impl Fn(&str) -> bool, flags: impl FnOnce() -> String) -> Self {
        let (intel, amd) = (loaded("kvm_intel"), loaded("kvm_amd"));
        let software = loaded("kvm_pvm");
        if software && !intel && !amd {
            return Self::Software;
        }
        let flags = flags();
        let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
        if intel && has("vmx") {
            Self::Vmx
        } else if amd && has("svm") {
            Self::Svm
        } else if software {
            Self::Software
        } else if has("vmx") {
            Self::Vmx
        } else if has("svm") {
            Self::Svm
        } else {
            Self::Software
        }
    }

    /// Whether ring 0 runs at hardware speed, SSE included.
    #[must_use]
    pub const fn runs_ring_0(self) -> bool {
        !matches!(self, Self::Software)
    }

    /// How a processor of a guest with interrupts waits. Where `hlt` in ring 0 is interpreted, an
    /// interrupt does not end it reliably.
    #[must_use]
    pub const fn idle(self) -> Idle {
        if self.runs_ring_0() { Idle::Halt } else { Idle::Doorbell }
    }

    /// In words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Vmx => "hardware KVM on Intel VMX",
            Self::Svm => "hardware KVM on AMD SVM",
            Self::Software => "software KVM (ring 3 native, ring 0 interpreted)",
        }
    }
}

/// What of a KVM interrupts take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptSupport {
    /// A local APIC in the kernel, without the rest of an interrupt controller.
    pub irqchip: bool,
    /// Descriptors that raise interrupts, by messages to a local APIC.
    pub irqfd: bool,
    /// Local APICs in x2APIC mode.
    pub x2apic: bool,
    /// A timer that waits for a value of the time-stamp counter.
    pub tsc_deadline: bool,
}

impl InterruptSupport {
    /// Asks KVM.
    #[must_use]
    pub fn of(kvm: &Kvm) -> Self {
        let has = |cap| kvm.check_extension_int(cap) > 0;
        Self {
            irqchip: has(Cap::SplitIrqchip),
            irqfd: has(Cap::Irqfd) && has(Cap::IrqRouting),
            x2apic: has(Cap::X2ApicApi),
            tsc_deadline: has(Cap::TscDeadlineTimer),
        }
    }

    /// The first that is not there.
    #[must_use]
    pub const fn missing(self) -> Option<&'static str> {
        match self {
            Self { irqchip: false, .. } => Some("a split interrupt controller (KVM_CAP_SPLIT_IRQCHIP)"),
            Self { irqfd: false, .. } => Some("interrupts by descriptors (KVM_CAP_IRQFD)"),
            Self { x2apic: false, .. } => Some("x2APIC (KVM_CAP_X2APIC_API)"),
            Self {
                tsc_deadline: false, ..
            } => Some("the TSC-deadline timer (KVM_CAP_TSC_DEADLINE_TIMER)"),
            _ => None,
        }
    }
}

/// Finds out what is looked for once, in files: the kind of KVM, and where the kernel has its clock (before Linux 6.4 by
/// `/proc/self/auxv`). For a process that will be able to open nothing more.
pub fn look_ahead() {
    let _ = (KvmKind::detect(), crate::clock::now());
}

/// The processor's flags, as `/proc/cpuinfo` lists them for the first processor.
#[must_use]
pub fn cpu_flags() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("flags"));
    line.and_then(|line| line.split_once(':'))
        .map(|(_, flags)| flags.trim().to_owned())
        .unwrap_or_default()
}

/// Opens KVM and checks that it is one Chiton can use.
///
/// # Errors
///
/// [`Error::NoKvm`], [`Error::KvmPermission`], [`Error::KvmOpen`], [`Error::KvmVersion`],
/// [`Error::KvmCapability`].
pub fn open_kvm(path: &Path) -> Result<Kvm, Error> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| open_error(path, source))?;
    let kvm = kvm_from(file);
    let version = kvm.get_api_version();
    if version == -1 {
        let source = std::io::Error::from_raw_os_error(libc::ENOTTY);
        return Err(Error::KvmOpen {
            path: path.to_owned(),
            source,
        });
    }
    if version != 12 {
        return Err(Error::KvmVersion(version));
    }
    for (cap, name) in [
        (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    ] {
        if kvm.check_extension_int(cap) <= 0 {
            return Err(Error::KvmCapability(name));
        }
    }
    Ok(kvm)
}

fn open_error(path: &Path, source: std::io::Error) -> Error {
    let path = PathBuf::from(path);
    match source.kind() {
        ErrorKind::NotFound => Error::NoKvm(path),
        ErrorKind::PermissionDenied => Error::KvmPermission(path),
        _ if source.raw_os_error() == Some(libc::ENODEV) || source.raw_os_error() == Some(libc::ENXIO) => {
            Error::NoKvm(path)
        }
        _ => Error::KvmOpen { path, source },
    }
}

fn kvm_from(file: File) -> Kvm {
    // SAFETY: the descriptor is open and owned by nobody else; `Kvm` closes it.
    unsafe { Kvm::from_raw_fd(file.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_modules_and_flags() {
        let kind = |modules: &[&str], flags: &str| KvmKind::from_facts(|m| modules.contains(&m), || flags.to_owned());
        assert_eq!(kind(&["kvm_intel"], "fpu vmx sse"), KvmKind::Vmx);
        assert_eq!(kind(&["kvm_amd"], "svm"), KvmKind::Svm);
        assert_eq!(kind(&["kvm_pvm"], "fpu"), KvmKind::Software);
        assert_eq!(kind(&[], "fpu svm"), KvmKind::Svm, "built into the kernel");
        assert_eq!(kind(&[], "fpu"), KvmKind::Software);
    }

    #[test]
    fn the_first_part_of_interrupts_that_is_missing_is_named() {
        let all = InterruptSupport {
            irqchip: true,
            irqfd: true,
            x2apic: true,
            tsc_deadline: true,
        };
        assert_eq!(all.missing(), None);
        let without = |change: fn(&mut InterruptSupport)| {
            let mut support = all;
            change(&mut support);
            support.missing().unwrap_or_default()
        };
        assert!(without(|s| s.irqchip = false).contains("SPLIT_IRQCHIP"));
        assert!(without(|s| s.irqfd = false).contains("IRQFD"));
        assert!(without(|s| s.x2apic = false).contains("x2APIC"));
        assert!(without(|s| s.tsc_deadline = false).contains("TSC_DEADLINE"));
    }

    #[test]
    fn only_hardware_halts() {
        assert_eq!([KvmKind::Vmx, KvmKind::Svm].map(KvmKind::idle), [Idle::Halt; 2]);
        assert_eq!(KvmKind::Software.idle(), Idle::Doorbell);
    }

    #[test]
    fn a_missing_device_is_told_with_what_to_do() {
        let error = open_kvm(Path::new("/nonexistent/kvm")).unwrap_err();
        assert!(error.to_string().contains("does not exist: load the module"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_kvm_is_refused() {
        let error = open_kvm(Path::new("/dev/null")).unwrap_err();
        assert!(error.to_string().starts_with("/dev/null cannot be used"), "{error}");
    }
}
