//! From the boot loader's jump to the machine's end.
//!
//! | file | what it is |
//! |---|---|
//! | `uart`, `serial` | a serial port; COM1, which is the guest's console |
//! | `debug` | port 0xE9, which is for the hypervisor's own words |
//! | `memory` | the machine's memory: the heap, pages, guest memory |
//! | `descriptors`, `fault` | GDT, TSS and IDT, and what a fault of the hypervisor itself says |
//! | `nmi` | NMIs of the machine, which are counted |
//! | `interrupts` | the controllers that would interrupt a guest, silenced; what comes for all that is counted |
//! | `smp` | the other processors: found, started, given work |
//! | `stacks` | the stacks of processors, and what is below them: nothing |
//! | `sleep` | how a processor waits |
//! | `time`, `random` | the time-stamp counter, the date, random bytes |
//! | `backend` | VMX or SVM |
//! | `board`, `console`, `disk`, `balloon` | core's devices, and what is behind them here |
//! | `line` | a second serial port, which leads to sockets and a network |
//! | `processors` | the processors of a guest beyond its first |
//! | `guest` | one guest, from its file to its end |
//! | `end` | how the machine is switched off, and with which status |

mod backend;
mod balloon;
mod board;
mod console;
mod debug;
mod descriptors;
mod disk;
mod end;
mod fault;
mod guest;
mod interrupts;
mod line;
mod memory;
mod nmi;
mod processors;
mod random;
mod serial;
mod sleep;
mod smp;
mod stacks;
mod time;
mod uart;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::asm;
use core::error::Error;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::Optional;
use bootloader_api::{BootInfo, entry_point};
use chiton_bare::command::{self, Command, CommandError};
use chiton_bare::ramdisk::{Ramdisk, RamdiskError, Sum};
use chiton_core::machine::status;

use backend::{Backend, With};
use debug::say;
use memory::Memory;
use processors::Processors;
use random::Random;
use smp::{Team, Work};

/// What we ask of the boot loader: a stack that is deep enough for the loader and for reports, and
/// all memory mapped.
static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 256 << 10;
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

entry_point!(start, config = &CONFIG);

fn start(info: &'static mut BootInfo) -> ! {
    // Before anything is written to a variable: the boot loader has mapped those where it has loaded the file.
    let kernel = kernel(info);
    time::note_begin();
    descriptors::load();
    stacks::note_first(info);
    interrupts::silence();
    let emulated = debug::is_there();
    serial::init(emulated);
    if !emulated {
        debug::use_serial();
    }
    match run(info, kernel, emulated) {
        Ok(status) => end::end(status),
        Err(error) => {
            say!("error: {error}");
            end::end(status::FAILED)
        }
    }
}

/// Runs what the ramdisk says; returns the status of the first guest that has another than 0.
fn run(info: &'static BootInfo, kernel: Option<Sum>, emulated: bool) -> Result<u8, Box<dyn Error>> {
    let memory: &'static Memory = Box::leak(Box::new(Memory::of(info)?));
    // Where there is no memory for it, the first one is gone on with.
    if let Some(stack) = stacks::map_for_faults(memory, 0) {
        descriptors::load_anew(stack);
    }
    say!("chiton: {} on bare metal with {memory}", env!("CARGO_PKG_VERSION"));
    time::init(emulated)?;
    if !Random::of_processor().is_good() {
        say!("warning: this processor has no RDRAND: a guest's random numbers can be guessed");
    }
    let ramdisk = Ramdisk::open(ramdisk(info)?)?;
    if let Some(kernel) = kernel {
        ramdisk.check_kernel(kernel)?;
    }
    let commands = command::parse(ramdisk.file("command")?.ok_or(CommandError::Missing)?)?;
    let all = Box::leak(Box::new(All {
        info,
        memory,
        ramdisk,
        commands,
        first: AtomicU8::new(0),
    }));
    Ok(backend::with(memory, &*all)?)
}

/// What the kernel's file comes to, as the boot loader has loaded it; `None` if it has not mapped memory, which is the
/// end in any case.
fn kernel(info: &BootInfo) -> Option<Sum> {
    let Optional::Some(offset) = info.physical_memory_offset else {
        return None;
    };
    // SAFETY: the boot loader has mapped all memory at the offset, for ever, the file too. What it has mapped of it as
    // the variables of this program is written by nobody until this is over.
    let file =
        unsafe { core::slice::from_raw_parts((offset + info.kernel_addr) as *const u8, info.kernel_len as usize) };
    Some(Sum::of(file))
}

/// Where the boot loader has put the ramdisk.
fn ramdisk(info: &'static BootInfo) -> Result<&'static [u8], RamdiskError> {
    let Optional::Some(start) = info.ramdisk_addr else {
        return Err(RamdiskError::Missing);
    };
    // SAFETY: the boot loader has mapped so many bytes there, for ever, and nobody writes to them.
    Ok(unsafe { core::slice::from_raw_parts(start as *const u8, info.ramdisk_len as usize) })
}

/// All guests.
struct All {
    info: &'static BootInfo,
    memory: &'static Memory,
    ramdisk: Ramdisk<'static>,
    commands: Vec<Command>,
    /// The status of the first guest that has another than 0.
    first: AtomicU8,
}

impl All {
    /// Runs those of a processor, one after the other.
    fn run_on<B: Backend>(&self, backend: &B, crew: Crew, processor: usize) {
        for command in self.commands.iter().filter(|command| command.on == processor) {
            let outcome = match command.example() {
                Some(name) => example(backend, crew, name, command.memory).map(|status| (status, 0)),
                None => guest::run(backend, crew, &self.ramdisk, command)
                    .map(|outcome| (outcome.status, outcome.sent))
                    .map_err(Into::into),
            };
            let (status, sent) = match outcome {
                Ok(outcome) => outcome,
                Err(error) => {
                    say!("error: {error}");
                    (status::FAILED, 0)
                }
            };
            // Whoever started several needs to know which said what.
            if self.commands.len() > 1 {
                say!("chiton: guest={} status={status} console={sent}", command.guest);
            }
            let _ = self
                .first
                .compare_exchange(0, status, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The highest processor that a guest is to run on.
    fn last(&self) -> usize {
        self.commands.iter().map(|command| command.on).max().unwrap_or(0)
    }
}

/// What every guest may use of the machine.
#[derive(Clone, Copy)]
struct Crew {
    memory: &'static Memory,
    team: &'static Team<Job>,
}

/// What a processor beyond the first does.
enum Job {
    /// The guests of this processor.
    Guests(&'static All, Crew, usize),
    /// One of the processors of a guest, by its number there.
    Processor(Arc<Processors>, u32),
}

impl Work for Job {
    fn run<B: Backend>(self, backend: &B) {
        match self {
            Self::Guests(all, crew, processor) => all.run_on(backend, crew, processor),
            Self::Processor(processors, number) => Processors::serve(&processors, backend, number),
        }
    }
}

impl With for &'static All {
    type Output = u8;

    fn with<B: Backend>(self, backend: &B) -> u8 {
        let crew = Crew {
            memory: self.memory,
            team: Box::leak(Box::new(Team::start(self.info, self.memory))),
        };
        for processor in 1..=self.last() {
            // Others are left to the guests that run beside.
            if !self.commands.iter().any(|command| command.on == processor) {
                continue;
            }
            if !crew.team.give(processor, Job::Guests(self, crew, processor)) {
                let count = crew.team.count();
                say!("error: a guest is to run on processor {processor}, and this machine has {count} in use: see on=");
                self.first.store(status::FAILED, Ordering::Relaxed);
                break;
            }
        }
        self.run_on(backend, crew, 0);
        crew.team.wait();
        nmi::say_count();
        interrupts::say_count();
        self.first.load(Ordering::Relaxed)
    }
}

/// Examples that are none of a backend's: the hypervisor itself uses its stacks up, and says so; meets a machine check,
/// as if the machine had one; sends NMIs to its first processor, and an interrupt that nobody asked for.
const USE_UP: &str = "stack-overflow";
const MACHINE_CHECK: &str = "machine-check";
const MACHINE_NMI: &str = "machine-nmi";

/// Runs an example of the backend instead of a guest; returns the status for it.
fn example<B: Backend>(backend: &B, crew: Crew, name: &str, bytes: u64) -> Result<u8, Box<dyn Error>> {
    let went_well = match name {
        USE_UP => stacks::use_up_both(),
        // SAFETY: INT n (SDM volume 2A; APM volume 3) goes where the gate leads: the handler of machine checks says
        // what there is to say, and ends the machine.
        MACHINE_CHECK => unsafe { asm!("int 18", options(noreturn)) },
        MACHINE_NMI => nmi::send_to_first(crew.team) && interrupts::send_to_first(crew.team),
        _ => crew.memory.lend(bytes, |ram| backend.example(name, ram))??,
    };
    Ok(if went_well { 0 } else { status::FAILED })
}

/// A fault of ours, not of the guest: it says where, and ends the machine.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("error: the hypervisor panicked: {info}");
    end::end(status::FAILED)
}
