//! One guest, from its file to its end.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;

use chiton_bare::command::Command;
use chiton_bare::ramdisk::{Ramdisk, RamdiskError};
use chiton_core::boot::{BootError, Options, World};
use chiton_core::cpuid::GuestCpuid;
use chiton_core::devices::Preset;
use chiton_core::explain::{self, Backend as Who, Ended, View};
use chiton_core::loader::{Image, LoadError};
use chiton_core::machine::{Machine, status};
use chiton_core::physical::GuestRam;
use chiton_core::vcpu::Vcpu;
use chiton_shared::manifest::Feature;

use super::backend::{Backend, Refused, Report};
use super::board::{BareBoard, DeviceError};
use super::debug::say;
use super::memory::{Memory, MemoryError};
use super::random::Random;
use super::time;

/// Why a guest could not be started, or not be run further.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuestError {
    /// There is no such guest.
    #[error("the ramdisk has no guest {name:?}; {there}")]
    NoGuest {
        /// What was asked for.
        name: String,
        /// Which there are, in words.
        there: String,
    },
    /// Its file is damaged.
    #[error(transparent)]
    Ramdisk(#[from] RamdiskError),
    /// The file is not one this hypervisor can run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The guest's world cannot be built.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The machine has not so much memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its devices cannot be made.
    #[error(transparent)]
    Devices(#[from] DeviceError),
    /// It requires a disk and has none.
    #[error("the guest needs a disk: add a line disk=FILE, a file of the ramdisk")]
    DiskRequired,
    /// It requires a network.
    #[error("the guest needs a network, and there is none on bare metal: run it under KVM with `chiton run`")]
    NetRequired,
    /// It requires interrupts.
    #[error("the guest needs interrupts, and there are none on bare metal: run it under KVM with `chiton run`")]
    InterruptsRequired,
    /// The processor has no random bytes for it.
    #[error("this processor's source of random bytes (RDRAND) does not answer")]
    NoEntropy,
    /// The backend does not run it.
    #[error(transparent)]
    Backend(#[from] Refused),
    /// The backend failed.
    #[error("{backend} failed: {why}")]
    Failed {
        /// Which.
        backend: &'static str,
        /// Why.
        why: String,
    },
}

/// What is left of a guest.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The status for a shell.
    pub(super) status: u8,
    /// How many bytes its console has sent.
    pub(super) sent: u64,
}

/// Runs a guest to its end, and says of it what is asked for.
///
/// # Errors
///
/// If it cannot be started, or the backend fails.
pub(super) fn run<B: Backend>(
    backend: &B,
    memory: &Memory,
    ramdisk: &Ramdisk<'static>,
    command: &Command,
) -> Result<Outcome, GuestError> {
    let file = ramdisk
        .file(&format!("guests/{}", command.guest))?
        .ok_or_else(|| no_guest(ramdisk, command))?;
    let image = Image::parse(file)?;
    check_needs(&image, command)?;
    memory.lend(command.memory, |ram| {
        with_memory(backend, ram, ramdisk, command, &image)
    })?
}

fn with_memory<B: Backend>(
    backend: &B,
    ram: GuestRam,
    ramdisk: &Ramdisk<'_>,
    command: &Command,
    image: &Image<'static>,
) -> Result<Outcome, GuestError> {
    let name = &command.guest;
    let (board, preset) = BareBoard::new(ram, command, ramdisk)?;
    let world = world(image, command, &preset)?;
    world.write_to(&ram)?;
    let failed = |why: &dyn ToString| GuestError::Failed {
        backend: B::NAME,
        why: why.to_string(),
    };
    let mut vcpu = backend.vcpu(ram, &command.show, image.symbols())?;
    if command.show.controls {
        say!("{}", backend.controls(&vcpu));
    }
    vcpu.set_registers(&world.registers, &world.system)
        .map_err(|error| failed(&error))?;
    let mut machine = Machine::new(vcpu, board);
    machine.timed = command.show.exits;
    if let Some(limit) = command.timeout {
        machine.board.limit(limit);
    }
    let end = machine.run().map_err(|error| failed(&error))?;
    let registers = machine.vcpu.registers().map_err(|error| failed(&error))?;

    let symbols = image.symbols();
    let view = View::new(&world, &symbols, &ram);
    let who = Who {
        name: B::NAME,
        why: &machine.vcpu.why(),
    };
    let (status, words) = match view.ended(&end, &registers, who) {
        Some(Ended::Exit(code)) => (code as u8, String::new()),
        Some(Ended::Panic { message, place }) => (status::PANIC, explain::panicked(name, &message, &place)),
        Some(Ended::Fault { report }) => (status::FAULT, explain::met_a_fault(name, &report)),
        None => {
            let limit = command.timeout.unwrap_or_default();
            (
                status::TIMEOUT,
                explain::out_of_time(name, limit, &view.place(&registers)),
            )
        }
    };
    let mut text = words;
    if machine.board.failures() > 0 {
        text += &explain::requests_failed(name, machine.board.failures());
    }
    if command.show.exits {
        text += &format!("\n{}\n\n{}\n", machine.exits.table(), machine.vcpu.counts());
    }
    if command.show.control_structure {
        text += &format!("\n{}\n", machine.vcpu.control_structure());
    }
    for address in &command.show.walk {
        text += &format!("\n{}\n", machine.vcpu.walk(*address));
    }
    for disk in machine.board.written() {
        say!("warning: what {name} has written to {disk} was kept in memory, and is lost now");
    }
    if !text.is_empty() {
        say!("{}", text.trim_end_matches('\n'));
    }
    Ok(Outcome {
        status,
        sent: machine.board.sent(),
    })
}

/// The guest's world, with the clock and the seed.
fn world<'g>(image: &Image<'g>, command: &Command, preset: &Preset) -> Result<World<'g>, GuestError> {
    let mut args = Vec::from([command.guest.clone()]);
    args.extend(command.args.iter().cloned());
    let options = Options {
        ring: command.ring,
        args: &args,
        env: &command.env,
        devices: &preset.devices,
        queues: &preset.queues,
        log_level: Some(command.log),
        xsave: GuestCpuid::of(__cpuid_count).avx(),
        ..Options::new(command.memory)
    };
    let mut world = World::build(image, &options)?;
    let random = Random::of_processor();
    random
        .bytes(&mut world.boot_page.seed)
        .map_err(|_| GuestError::NoEntropy)?;
    world.boot_page.tsc_khz = time::tsc_khz();
    world.boot_page.wall_clock_ns = time::wall_clock_ns();
    Ok(world)
}

/// Refuses what the manifest requires and this machine does not have.
fn check_needs(image: &Image<'_>, command: &Command) -> Result<(), GuestError> {
    let required = image.manifest().required;
    if required.contains(Feature::BLOCK) && command.disks.is_empty() {
        return Err(GuestError::DiskRequired);
    }
    if required.contains(Feature::NET) {
        return Err(GuestError::NetRequired);
    }
    if required.contains(Feature::INTERRUPTS) {
        return Err(GuestError::InterruptsRequired);
    }
    Ok(())
}

fn no_guest(ramdisk: &Ramdisk<'_>, command: &Command) -> GuestError {
    let names = ramdisk.files().filter_map(|file| file.name.strip_prefix(b"guests/"));
    let names: Vec<_> = names.map(String::from_utf8_lossy).collect();
    GuestError::NoGuest {
        name: command.guest.clone(),
        there: if names.is_empty() {
            "it has none at all".into()
        } else {
            format!("there are {}", names.join(", "))
        },
    }
}
