//! One machine on KVM for the guest `vmexit`, with all that its cases need of a host and a guest of the library
//! does not have: ioeventfds without devices, coalesced I/O, the whole interrupt controller, time-stamps of the
//! exits, and pages of every size.
//!
//! ```text
//!   vcpu    KVM_RUN, and when it came back      tables  the region for page walks
//!   board   doorbells; lines of the log go out  host    eventfds, coalesced zones, interrupts
//!   trace   when an exit came to the kernel
//! ```
//!
//! It is a process of its own, so that whatever happens in it, this machine can be ended: see [`suite`](super::suite).

mod board;
mod host;
pub(crate) mod seen;
mod tables;
pub(crate) mod trace;
mod vcpu;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use chiton_core::boot::{Options, World};
use chiton_core::explain::{Backend, Ended, View};
use chiton_core::loader::Image;
use chiton_core::machine::Machine;
use chiton_core::vcpu::Vcpu;
use chiton_kvm::{Console, Ending, Guest, KernelStats, Ram, platform};
use chiton_shared::boot::BootPage;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::manifest::Ring;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use super::ExitsError;
use board::LabBoard;
pub(crate) use host::{pin, processors};

use host::Host;
use tables::Walks;
use trace::Trace;
use vcpu::LabVcpu;

/// Memory of the guest itself, in bytes.
const MEMORY: u64 = 64 << 20;

/// What kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Setup {
    /// The ring of the guest.
    #[arg(long, default_value_t = 0)]
    pub ring: u8,
    /// How many processors.
    #[arg(long, default_value_t = 1)]
    pub processors: u32,
    /// With the interrupt controller of KVM.
    #[arg(long)]
    pub interrupts: bool,
    /// With a region for page walks.
    #[arg(long)]
    pub walks: bool,
    /// A machine of the library, with its devices, and none of the rest.
    #[arg(long)]
    pub hosted: bool,
    /// The kernel traces its exits.
    #[arg(long)]
    pub traced: bool,
    /// The region is in large pages of the host.
    #[arg(long)]
    pub large: bool,
}

/// Runs the guest in this file with these arguments; each line that it says goes to standard output. Returns its
/// end in words, unless that is the usual one.
///
/// # Errors
///
/// If it cannot be started.
pub fn run(setup: Setup, path: &Path, mut args: Vec<String>) -> Result<Option<String>, ExitsError> {
    pin(0);
    let ring = if setup.ring == 3 { Ring::User } else { Ring::Kernel };
    if setup.hosted {
        return hosted(ring, path, args);
    }
    let file = Guest::read_file(path)?;
    let refused = |why: &dyn ToString| ExitsError::Guest {
        path: path.into(),
        why: why.to_string(),
    };
    let image = Image::parse(&file).map_err(|error| refused(&error))?;
    let kvm = platform::open_kvm(Path::new(platform::DEV_KVM))?;
    let tables = Walks::behind(MEMORY);
    let ram = Arc::new(Ram::new(tables.end())?);
    let host = Arc::new(Host::new(&kvm, Arc::clone(&ram), setup.interrupts)?);
    if setup.walks {
        args.extend(tables.arguments(host.has_pages_of_1g()));
    }
    if setup.interrupts {
        args.push(format!("apic={}", tables.apic()));
    }
    args.push("places=1".into());
    args.push(format!("readonly={}", tables.read_only()));
    args.insert(0, "vmexit".into());
    let options = Options {
        processors: setup.processors,
        ring: Some(ring),
        args: &args,
        log_level: Some(LogLevel::Info),
        ..Options::new(MEMORY)
    };
    let mut world = World::build(&image, &options).map_err(|error| refused(&error))?;
    world.write_to(ram.as_ref()).map_err(|error| refused(&error))?;
    tables.write_to(ram.as_ref(), world.system.cr3, setup.large);

    let fd = host.vcpu(0)?;
    world.boot_page.tsc_khz = fd.get_tsc_khz().map_err(ExitsError::call("KVM_GET_TSC_KHZ"))?.into();
    if let Some(page) = ram.window(map::BOOT_PAGE, BootPage::SIZE) {
        page.write(0, world.boot_page.as_bytes());
    }
    let stats = KernelStats::open(&fd).ok();
    let mut vcpu = LabVcpu::new(fd, host.apic_base(0), Arc::clone(&ram))?;
    vcpu.trace = setup.traced.then(Trace::begin).transpose()?;
    vcpu.set_registers(&world.registers, &world.system)?;
    let states = world.processor_registers().collect();
    let board = LabBoard::first(host, states, stats);
    let mut machine = Machine::new(vcpu, board);
    let end = machine.run()?;

    let registers = machine.vcpu.registers()?;
    let symbols = image.symbols();
    let why = machine.vcpu.why_broken().to_string();
    let who = Backend { name: "KVM", why: &why };
    Ok(
        match View::new(&world, &symbols, ram.as_ref()).ended(&end, &registers, who) {
            Some(Ended::Exit(0)) => None,
            Some(Ended::Exit(code)) => Some(format!("the guest ended with code {code}")),
            Some(Ended::Panic { message, .. }) => Some(format!("the guest panicked: {message}")),
            Some(Ended::Fault { report }) => Some(report),
            None => Some("the guest was stopped".into()),
        },
    )
}

/// The same guest as anybody's: by the library, with a console and an entropy device.
fn hosted(ring: Ring, path: &Path, args: Vec<String>) -> Result<Option<String>, ExitsError> {
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    let output = output.map_err(ExitsError::system("duplicate standard output"))?;
    let mut guest = Guest::open(path)?
        .ring(ring)
        .memory(MEMORY)
        .console(Console::files(None, output));
    for arg in args {
        guest = guest.arg(arg);
    }
    Ok(match guest.run()?.ending {
        Ending::Exit(0) => None,
        Ending::Exit(code) => Some(format!("the guest ended with code {code}")),
        Ending::Fault { report } => Some(report),
        other => Some(format!("the guest ended: {other:?}")),
    })
}
