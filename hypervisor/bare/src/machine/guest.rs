//! One guest, from its file to its end.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;

use chiton_bare::command::Command;
use chiton_bare::ramdisk::{Ramdisk, RamdiskError};
use chiton_core::apic::{Bus, GuestApic};
use chiton_core::boot::{BootError, Options, World};
use chiton_core::cpuid::GuestCpuid;
use chiton_core::devices::Preset;
use chiton_core::exits::ExitTable;
use chiton_core::explain::{self, Backend as Who, Ended, View};
use chiton_core::loader::{Image, LoadError};
use chiton_core::machine::{End, Machine, status};
use chiton_core::physical::GuestRam;
use chiton_core::vcpu::Vcpu;
use chiton_shared::interrupts::Idle;
use chiton_shared::manifest::Feature;
use chiton_shared::map;

use super::Crew;
use super::backend::{Backend, Refused, Report};
use super::board::{BareBoard, DeviceError, Mainboard};
use super::debug::say;
use super::memory::MemoryError;
use super::processors::{Last, Processors};
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
    #[error("the guest needs a network: give it one that a line leads to (--net tap=NAME)")]
    NetRequired,
    /// It is to have more processors than there are.
    #[error(
        "the guest is to have {wanted} processors, from the machine's number {on} on, and {there} are in use: give it fewer with cpus="
    )]
    NoProcessors {
        /// How many it is to have.
        wanted: u32,
        /// The first of them.
        on: usize,
        /// How many there are.
        there: usize,
    },
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
    crew: Crew,
    ramdisk: &Ramdisk<'static>,
    command: &Command,
) -> Result<Outcome, GuestError> {
    let there = crew.team.count();
    if command.on + command.cpus as usize > there {
        let (wanted, on) = (command.cpus, command.on);
        return Err(GuestError::NoProcessors { wanted, on, there });
    }
    let file = ramdisk
        .file(&format!("guests/{}", command.guest))?
        .ok_or_else(|| no_guest(ramdisk, command))?;
    let image = Image::parse(file)?;
    check_needs(&image, command)?;
    crew.memory.lend(command.memory, |ram| {
        with_memory(backend, ram, crew, ramdisk, command, &image)
    })?
}

fn with_memory<B: Backend>(
    backend: &B,
    ram: GuestRam,
    crew: Crew,
    ramdisk: &Ramdisk<'static>,
    command: &Command,
    image: &Image<'static>,
) -> Result<Outcome, GuestError> {
    let name = &command.guest;
    let (team, on) = (crew.team, command.on);
    let interrupt = move |processor: u32| team.look_up(on + processor as usize);
    let bus = asks_for_interrupts(image).then(|| Arc::new(Bus::new(command.cpus, Box::new(interrupt))));
    let (main, preset) = Mainboard::new(
        ram,
        command,
        ramdisk,
        crew.memory.room(),
        bus.clone(),
        Box::new(interrupt),
    )?;
    if image.manifest().required.contains(Feature::NET) && !main.has_network() {
        return Err(GuestError::NetRequired);
    }
    let main = Arc::new(main);
    let world = world(image, command, main.environment(), &preset)?;
    world.write_to(&ram)?;
    let failed = |why: &dyn ToString| GuestError::Failed {
        backend: B::NAME,
        why: why.to_string(),
    };
    let apic = bus.map(|bus| GuestApic::new(0, bus));
    let mut vcpu = backend.vcpu(ram, &command.show, image.symbols(), apic, main.given_back(0))?;
    if command.show.controls {
        say!("{}", backend.controls(&vcpu));
    }
    vcpu.set_registers(&world.registers, &world.system)
        .map_err(|error| failed(&error))?;
    let (show, states) = (command.show.clone(), world.processor_registers());
    let processors = Processors::new(Arc::clone(&main), crew, command.on, show, image.symbols(), states);
    let processors = Arc::new(processors);
    let board = BareBoard::new(Arc::clone(&main), Arc::clone(&processors), 0, map::MAILBOX);
    let mut machine = Machine::new(vcpu, board);
    machine.timed = command.show.exits;
    time::note_guest();
    let end = machine.run();
    // Whatever it was: the others run in memory that is given back.
    let others = processors.end();
    let mut all =
        Vec::from([Last::of(end.map_err(|error| failed(&error))?, &mut machine).map_err(|error| failed(&error))?]);
    for other in others {
        all.push(other.map_err(|error| failed(&error))?);
    }
    let exits = all.iter().fold(ExitTable::new(), |mut sum, last| {
        sum.merge(&last.exits);
        sum
    });
    // The one that ended it, if it was another than the first.
    let decided = |last: &&Last| !matches!(last.end, End::Stopped | End::Parked);
    let last = all.iter().find(decided).unwrap_or(&all[0]);

    let symbols = image.symbols();
    let view = View::new(&world, &symbols, &ram);
    let who = Who {
        name: B::NAME,
        why: &last.why,
    };
    let (status, words) = match view.ended(&last.end, &last.registers, who) {
        Some(Ended::Exit(code)) => (code as u8, String::new()),
        Some(Ended::Panic { message, place }) => (status::PANIC, explain::panicked(name, &message, &place)),
        Some(Ended::Fault { report }) => (status::FAULT, explain::met_a_fault(name, &report)),
        None => {
            let limit = command.timeout.unwrap_or_default();
            (
                status::TIMEOUT,
                explain::out_of_time(name, limit, &view.place(&last.registers)),
            )
        }
    };
    let mut text = words;
    if main.failures() > 0 {
        text += &explain::requests_failed(name, main.failures());
    }
    if command.show.exits {
        text += &format!("\n{exits}\n");
        for last in &all {
            if all.len() > 1 {
                text += &format!("\nprocessor {}", last.number);
            }
            text += &format!("\n{}\n", last.counts);
        }
    }
    if command.show.control_structure {
        text += &format!("\n{}\n", machine.vcpu.control_structure());
    }
    for address in &command.show.walk {
        text += &format!("\n{}\n", machine.vcpu.walk(*address));
    }
    for checked in all.iter().filter_map(|last| last.checked.as_ref()) {
        say!("{checked}");
    }
    if let Some(seen) = main.balloon() {
        say!("{seen}");
    }
    for file in main.written() {
        say!("warning: what {name} has written to {file} was kept in memory, and is lost now");
    }
    if !text.is_empty() {
        say!("{}", text.trim_end_matches('\n'));
    }
    Ok(Outcome {
        status,
        sent: main.sent(),
    })
}

/// Whether the manifest has interrupts in it, be it as a need or as a use.
fn asks_for_interrupts(image: &Image<'_>) -> bool {
    let manifest = image.manifest();
    manifest.required.union(manifest.optional).contains(Feature::INTERRUPTS)
}

/// The guest's world, with the clock and the seed.
fn world<'g>(
    image: &Image<'g>,
    command: &Command,
    outside: &[String],
    preset: &Preset,
) -> Result<World<'g>, GuestError> {
    let mut args = Vec::from([command.guest.clone()]);
    args.extend(command.args.iter().cloned());
    let env: Vec<_> = command.env.iter().chain(outside).cloned().collect();
    let options = Options {
        ring: command.ring,
        args: &args,
        env: &env,
        devices: &preset.devices,
        queues: &preset.queues,
        log_level: Some(command.log),
        xsave: GuestCpuid::of(__cpuid_count).avx(),
        processors: command.cpus,
        interrupts: asks_for_interrupts(image).then_some(Idle::Halt),
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
