//! What can go wrong on this side of the guest.

use std::io;
use std::path::PathBuf;

/// Why a guest could not be started, or could not be run further.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error(
        "{0} does not exist: load the module (modprobe kvm_intel or kvm_amd), enable virtualization in the firmware, \
         or use `cargo xtask run --in qemu`; `chiton doctor` says more"
    )]
    NoKvm(PathBuf),
    /// It may not be opened.
    #[error("no permission to open {0}: add yourself to its group (sudo usermod -aG kvm $USER, then log in again)")]
    KvmPermission(PathBuf),
    /// It is there and does not work.
    #[error("{path} cannot be used: {source}")]
    KvmOpen {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its interface is not version 12.
    #[error("KVM's API version is {0}, not 12")]
    KvmVersion(i32),
    /// It lacks a capability.
    #[error("this kernel's KVM lacks {0}: use Linux 5.10 or later")]
    KvmCapability(&'static str),
    /// A KVM call failed.
    #[error("KVM: {call} failed: {source}")]
    Kvm {
        /// Its name.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// KVM does not take a value for a register of the processor.
    #[error("KVM: KVM_SET_MSRS refused the value of register {0:#x}")]
    Register(u32),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The guest file cannot be read.
    #[error("cannot read the guest {path}: {source}")]
    Guest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest file is not one this hypervisor can run.
    #[error(transparent)]
    Load(#[from] chiton_core::loader::LoadError),
    /// The guest's world cannot be built.
    #[error(transparent)]
    Boot(#[from] chiton_core::boot::BootError),
    /// The guest requires a disk and there is none.
    #[error("the guest needs a disk: add --disk PATH")]
    DiskRequired,
    /// The guest requires a network and there is none.
    #[error("the guest needs a network: add --net tap=NAME, or in a jail --network bridge")]
    NetRequired,
    /// The guest requires interrupts, and this machine's KVM cannot give them.
    #[error("the guest needs interrupts, and this machine's KVM lacks {0}: see `chiton doctor`")]
    InterruptsRequired(&'static str),
    /// The guest uses SSE in ring 0, which this machine's KVM cannot run.
    #[error(
        "the guest uses SSE registers, which this machine's KVM (a software KVM) cannot run in ring 0: \
         use --ring 3, or build the guest for x86_64-unknown-none"
    )]
    SseInRing0,
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] crate::host::disk::DiskOpenError),
    /// A network interface cannot be used.
    #[error(transparent)]
    Net(#[from] crate::host::tap::NetOpenError),
    /// There cannot be a socket device.
    #[error(transparent)]
    Vsock(#[from] crate::host::vsock::VsockError),
    /// There cannot be a control socket.
    #[error(transparent)]
    Control(#[from] crate::control::ControlSocketError),
    /// There cannot be a console port.
    #[error(transparent)]
    Port(#[from] crate::host::ports::PortOpenError),
    /// Two console ports have the same name.
    #[error("two ports are called {0}, and the guest could not tell them apart: rename one")]
    PortTwice(String),
    /// More console ports than the device has.
    #[error("{0} ports are too many: the most is {max}", max = chiton_core::devices::console::MAX_PORTS)]
    TooManyPorts(usize),
    /// A folder cannot be used.
    #[error(transparent)]
    Folder(#[from] crate::host::folder::FolderOpenError),
    /// Two folders have the same name.
    #[error("two folders are called {0}, and the guest could not tell them apart: rename one")]
    FolderTwice(String),
    /// Guest memory cannot be had.
    #[error("cannot reserve {mib} MiB of guest memory: {reason}")]
    Memory {
        /// How much.
        mib: u64,
        /// Why not.
        reason: String,
    },
    /// The second thread of the start is gone without a word.
    #[error("the thread that prepares guest memory died; please report this")]
    Died,
    /// More devices than the guest-physical map has room for.
    #[error("{0} devices are too many: the most is {max}", max = chiton_shared::map::DEVICE_MAX)]
    TooManyDevices(usize),
    /// An emulated device with rate limits.
    #[error("an emulated device has no rate limits: leave ops= and bytes= out, or use --disk or --net")]
    EmulatedLimits,
    /// An emulated network interface with an IP address.
    #[error("an emulated network interface has no IP address: leave ip= and gateway= out, or use --net")]
    EmulatedAddress,
    /// Nothing goes on from a snapshot.
    #[error("the snapshot {path} cannot be used: {source}")]
    Snapshot {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: crate::snapshot::SnapshotError,
    },
    /// The snapshot does not go with what else is given.
    #[error("the snapshot cannot be used: {0}")]
    Resume(#[from] crate::snapshot::SnapshotError),
    /// A device could not be put in place.
    #[error(transparent)]
    Preset(#[from] chiton_core::devices::PresetError),
    /// A device did not take the state that one like it had.
    #[error(transparent)]
    State(#[from] chiton_core::state::StateError),
}

impl Error {
    pub(crate) fn kvm(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |errno| Self::Kvm {
            call,
            source: errno.into(),
        }
    }

    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
