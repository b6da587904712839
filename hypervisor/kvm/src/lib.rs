//! Runs a Chiton guest under KVM.
//!
//! ```text
//!  Guest ──run──▶ instance ──┬─ KvmVcpu   KVM_RUN, registers in the shared page
//!                            ├─ Ram       guest memory (vm-memory)
//!                            ├─ HubBoard  the board of chiton-core's run loop
//!                            └─ Hub       devices and the thread that serves them
//!                                 └─ host::{console, disk, folder, random, tap, vsock}
//! ```
//!
//! # Example
//!
//! ```no_run
//! use chiton_kvm::{Console, Ending, Guest};
//!
//! # fn main() -> Result<(), chiton_kvm::Error> {
//! let (console, output) = Console::captured();
//! let outcome = Guest::open("target/guests/hello")?.arg("world").console(console).run()?;
//! assert_eq!(outcome.ending, Ending::Exit(0));
//! println!("the guest said: {}", output.text());
//! println!("{}", outcome.exits);
//! # Ok(())
//! # }
//! ```

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod arguments;
mod board;
mod clock;
pub mod control;
mod cpuid;
mod devices;
mod emulated;
mod error;
mod guest;
pub mod host;
mod hub;
mod instance;
mod interrupts;
mod kernel_stats;
mod log;
mod news;
mod outcome;
pub mod platform;
pub mod pool;
mod prepare;
mod processors;
mod ram;
mod signal;
pub mod snapshot;
pub mod state;
mod timeline;
mod vcpu;

pub use chiton_core::devices::block::MAX_QUEUES as MAX_DISK_QUEUES;
pub use chiton_core::devices::{Limits, Rate};
pub use control::{Control, ControlError, ControlSocket, ControlSocketError, NamelessControl};
pub use error::Error;
pub use guest::{DEFAULT_MEMORY, Guest};
pub use host::console::{Captured, Console};
pub use host::disk::{Disk, DiskOpenError, DiskOptions, SerialError, try_io_uring};
pub use host::folder::{Folder, FolderOpenError};
pub use host::ports::{ConsolePort, PortOpenError};
pub use host::socket_file::SocketFile;
pub use host::tap::{MAX_QUEUES as MAX_NET_QUEUES, Net, NetOpenError};
pub use host::vsock::{Connector, Vsock, VsockError};
pub use kernel_stats::{KernelStat, KernelStats};
pub use kvm_ioctls::Kvm;
pub use outcome::{Ending, Outcome};
pub use pool::{CallError, Pool, PoolError, PoolOptions, Reply};
pub use ram::Ram;
pub use signal::hold_end_signals;
pub use snapshot::{Snapshot, SnapshotError};
pub use timeline::Timeline;
pub use vcpu::KvmVcpu;
