//! The processors beyond the first: a thread and a vCPU for each that the guest starts.
//!
//! ```text
//!  processor 0        out START ──▶ Processors::start ──▶ new thread, or one that parks
//!  processor n        ... runs ... out PARK ──▶ waits for its next start
//!  any of them ends the guest ──▶ all others are interrupted ──▶ Processors::end collects them
//! ```
//!
//! A guest that starts none pays for none: no vCPU, no thread.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use chiton_core::exits::ExitTable;
use chiton_core::machine::{End, Machine};
use chiton_core::vcpu::{Registers, SystemRegisters, Vcpu};
use chiton_shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use kvm_ioctls::VcpuFd;

use crate::Error;
use crate::board::{HubBoard, Mainboard};
use crate::cpuid::GuestCpuid;
use crate::hub::StopReason;
use crate::interrupts;
use crate::kernel_stats::{self, KernelStat};
use crate::signal::VcpuThread;
use crate::vcpu::KvmVcpu;

/// Stack of a processor's thread, in bytes.
const STACK: usize = 256 << 10;

/// The processors beyond the first.
pub(crate) struct Processors {
    /// Registers of each before it is started.
    states: Vec<(Registers, SystemRegisters)>,
    cpuid: GuestCpuid,
    interrupts: bool,
    timed: bool,
    threads: Mutex<Vec<Option<Started>>>,
}

/// A processor that has been started.
struct Started {
    /// Where it begins when it has parked.
    next: SyncSender<(u64, u64)>,
    thread: JoinHandle<Result<Last, Error>>,
}

/// What is left of a processor.
pub(crate) struct Last {
    /// Which it was.
    pub(crate) number: u32,
    /// How the guest ended there.
    pub(crate) end: End,
    /// Where it was.
    pub(crate) registers: Registers,
    /// Why KVM could not go on, if it could not.
    pub(crate) broken: Option<String>,
    pub(crate) exits: ExitTable,
    pub(crate) kernel: Vec<KernelStat>,
}

impl Last {
    /// Takes stock of a processor that has come to its end.
    pub(crate) fn of(number: u32, end: End, machine: &mut Machine<KvmVcpu, HubBoard>) -> Result<Self, Error> {
        let broken = matches!(end, End::Broken(_)).then(|| machine.vcpu.why_broken().to_string());
        let kernel = if machine.timed {
            kernel_stats::read(machine.vcpu.fd())
        } else {
            Vec::new()
        };
        Ok(Self {
            number,
            end,
            registers: machine.vcpu.registers()?,
            broken,
            exits: machine.exits.table(),
            kernel,
        })
    }

    /// The exits of all processors together.
    pub(crate) fn exits(all: &[Self]) -> ExitTable {
        let mut sum = ExitTable::new();
        for last in all {
            sum.merge(&last.exits);
        }
        sum
    }

    /// The kernel's counts of all processors together.
    pub(crate) fn kernel(all: &[Self]) -> Vec<KernelStat> {
        let mut sum: Vec<KernelStat> = Vec::new();
        for stat in all.iter().flat_map(|last| &last.kernel) {
            match sum.iter_mut().find(|s| s.name == stat.name) {
                Some(s) => s.count += stat.count,
                None => sum.push(stat.clone()),
            }
        }
        sum
    }
}

impl Processors {
    pub(crate) fn new(
        states: Vec<(Registers, SystemRegisters)>,
        cpuid: GuestCpuid,
        interrupts: bool,
        timed: bool,
    ) -> Self {
        let threads = Mutex::new(states.iter().map(|_| None).collect());
        Self {
            states,
            cpuid,
            interrupts,
            timed,
            threads,
        }
    }

    /// How many there are, the first included.
    pub(crate) fn count(&self) -> u32 {
        1 + self.states.len() as u32
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Option<Started>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest rang [`START`](chiton_shared::doorbell::START).
    pub(crate) fn start(self: &Arc<Self>, main: &Arc<Mainboard>, number: u32) {
        if let Err(why) = self.try_start(main, number) {
            main.hub
                .log(&format!("warning: processor {number} was not started: {why}"));
        }
    }

    fn try_start(self: &Arc<Self>, main: &Arc<Mainboard>, number: u32) -> Result<(), String> {
        let index = number.wrapping_sub(1) as usize;
        let state = self
            .states
            .get(index)
            .ok_or("there is none of this number, or it is the first")?;
        let begin = begin(main, mailbox(state)).ok_or("its mailbox is not in memory")?;
        let mut threads = self.threads();
        if main.hub.stopped() {
            return Ok(());
        }
        if let Some(Some(started)) = threads.get(index) {
            // Before it can park again.
            main.hub.begins();
            return started.next.try_send(begin).map_err(|error| {
                main.hub.parks();
                match error {
                    TrySendError::Full(_) => "it is to start again already".into(),
                    TrySendError::Disconnected(_) => "it has ended".into(),
                }
            });
        }
        let (next, starts) = sync_channel(1);
        next.try_send(begin).map_err(|error| error.to_string())?;
        let thread = self.spawn(main, number, starts, None);
        let thread = thread.map_err(|error| error.to_string())?;
        if let Some(place) = threads.get_mut(index) {
            *place = Some(Started { next, thread });
        }
        Ok(())
    }

    /// Has a processor go on that was running when a snapshot was taken.
    pub(crate) fn resume(self: &Arc<Self>, main: &Arc<Mainboard>, number: u32, vcpu: KvmVcpu) -> Result<(), Error> {
        let failed = Error::system::<std::io::Error>("start the thread of a processor");
        let mut threads = self.threads();
        let place = threads.get_mut((number as usize).wrapping_sub(1)).ok_or(Error::Died)?;
        let (next, starts) = sync_channel(1);
        let thread = self.spawn(main, number, starts, Some(vcpu)).map_err(failed)?;
        *place = Some(Started { next, thread });
        Ok(())
    }

    /// The thread of a processor that is to start, or of one that goes on.
    fn spawn(
        self: &Arc<Self>,
        main: &Arc<Mainboard>,
        number: u32,
        starts: Receiver<(u64, u64)>,
        ready: Option<KvmVcpu>,
    ) -> std::io::Result<JoinHandle<Result<Last, Error>>> {
        let (processors, board) = (Arc::clone(self), Arc::clone(main));
        let thread = Builder::new().name(format!("processor {number}")).stack_size(STACK);
        main.hub.begins();
        let thread = thread.spawn(move || {
            let last = processors.run(&board, number, &starts, ready);
            if !matches!(
                &last,
                Ok(Last {
                    end: End::Parked | End::Stopped,
                    ..
                })
            ) {
                board.hub.stop(StopReason::Processor);
            }
            last
        });
        if thread.is_err() {
            main.hub.parks();
        }
        thread
    }

    /// Runs a processor, from each start to its parking, until the guest ends.
    fn run(
        self: Arc<Self>,
        main: &Arc<Mainboard>,
        number: u32,
        starts: &Receiver<(u64, u64)>,
        ready: Option<KvmVcpu>,
    ) -> Result<Last, Error> {
        let (mut registers, system) = self.states[number as usize - 1];
        let goes_on = ready.is_some();
        let vcpu = match ready {
            Some(vcpu) => vcpu,
            None => {
                let fd = main
                    .vm
                    .create_vcpu(number.into())
                    .map_err(Error::kvm("KVM_CREATE_VCPU"))?;
                make_vcpu(fd, number, &self.cpuid, self.interrupts)?
            }
        };
        let board = HubBoard::new(
            Arc::clone(main),
            Arc::clone(&self),
            number,
            mailbox(&(registers, system)),
        );
        let mut machine = Machine::new(vcpu, board);
        machine.timed = self.timed;
        let byte = machine.vcpu.immediate_exit();
        // SAFETY: the byte is in the vCPU's shared page, which `machine` owns; being declared later,
        // `registered` is dropped earlier, on this thread.
        let registered = unsafe { VcpuThread::register(byte) }.map_err(Error::system("sigaction"))?;
        main.hub
            .add_vcpu(registered.handle(), number, Arc::clone(&machine.exits));
        let mut end = End::Parked;
        if goes_on {
            end = main.hub.run(number, &mut machine)?;
            if end != End::Parked {
                return Last::of(number, end, &mut machine);
            }
            main.hub.parks();
        }
        while let Ok((entry, argument)) = starts.recv() {
            if main.hub.stopped() {
                break;
            }
            (registers.rip, registers.rdi) = (entry, argument);
            machine.vcpu.set_registers(&registers, &system)?;
            end = main.hub.run(number, &mut machine)?;
            if end != End::Parked {
                break;
            }
            main.hub.parks();
        }
        Last::of(number, end, &mut machine)
    }

    /// Waits for all to end, once the guest has; the one that ended it first if that was one of them.
    pub(crate) fn end(&self) -> Result<Vec<Last>, Error> {
        let threads: Vec<_> = self.threads().iter_mut().filter_map(Option::take).collect();
        let (next, threads): (Vec<_>, Vec<_>) = threads.into_iter().map(|s| (s.next, s.thread)).unzip();
        drop(next);
        let ends = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::Died)?);
        ends.collect()
    }
}

/// Makes a processor of what KVM has made.
pub(crate) fn make_vcpu(fd: VcpuFd, number: u32, cpuid: &GuestCpuid, interrupts: bool) -> Result<KvmVcpu, Error> {
    if !interrupts {
        cpuid.give_to(&fd)?;
        return Ok(KvmVcpu::new(fd, 0));
    }
    cpuid.give_with_apic(&fd, number)?;
    interrupts::prepare(&fd, number)?;
    Ok(KvmVcpu::new(fd, interrupts::apic_base(number)))
}

/// The mailbox of the processor with these registers.
const fn mailbox(state: &(Registers, SystemRegisters)) -> u64 {
    state.1.gs.base
}

/// Entry and argument that the guest has left in a mailbox.
fn begin(main: &Mainboard, mailbox: u64) -> Option<(u64, u64)> {
    let window = main.hub.ram.window(mailbox, map::PAGE as usize)?;
    let mut bytes = [0; 16];
    window.read(MAILBOX_TEXT_OFFSET, &mut bytes);
    let word = |at: usize| {
        bytes[at..at + 8]
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    Some((word(0), word(8)))
}
