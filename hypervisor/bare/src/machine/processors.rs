//! The processors of a guest beyond its first: each runs on a processor of the machine for itself.
//!
//! ```text
//!   processor 0 of the guest         out START ──▶ Processors::start ──▶ a job for that of the machine
//!   processor n                      ... runs ... out PARK ──▶ sleeps until its next start
//!   any of them ends the guest ──▶ the others are interrupted ──▶ Processors::end collects them
//! ```
//!
//! All share the guest's memory. Second-level tables are each one's own: what one maps, the other
//! maps when it comes to it, and nothing has to be invalidated on a processor but the one that
//! changes its tables.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_bare::command::Show;
use chiton_core::apic::GuestApic;
use chiton_core::exits::ExitTable;
use chiton_core::loader::Symbols;
use chiton_core::machine::{End, Machine};
use chiton_core::vcpu::{Registers, SystemRegisters, Vcpu};
use chiton_shared::doorbell::MAILBOX_TEXT_OFFSET;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;
use spin::Mutex;

use super::Crew;
use super::Job;
use super::backend::{Backend, Report};
use super::board::{BareBoard, Mainboard};
use super::debug::say;
use super::sleep;
use super::smp::pause;

/// The processors of a guest beyond its first.
pub(super) struct Processors {
    main: Arc<Mainboard>,
    crew: Crew,
    /// The machine's processor that is the guest's first; the others follow.
    on: usize,
    show: Show,
    symbols: Symbols<'static>,
    others: Vec<Other>,
}

/// A processor beyond the first.
struct Other {
    registers: Registers,
    system: SystemRegisters,
    /// It has a processor of the machine.
    has_one: AtomicBool,
    /// Where it begins next.
    begin: Mutex<Option<(u64, u64)>>,
    /// What is left of it, when it has come to its end.
    last: Mutex<Option<Result<Last, String>>>,
}

/// What is left of a processor.
pub(super) struct Last {
    /// Which it is, of the guest.
    pub(super) number: u32,
    /// How the guest ended there.
    pub(super) end: End,
    /// Where it was.
    pub(super) registers: Registers,
    /// Why the backend could not go on, if so.
    pub(super) why: String,
    /// What was checked before its entries, for people.
    pub(super) checked: Option<String>,
    /// Its exits, for the run loop.
    pub(super) exits: ExitTable,
    /// Its exits, as the backend has counted them.
    pub(super) counts: String,
}

impl Last {
    /// Takes stock of a processor that has come to its end.
    pub(super) fn of<V: Report>(end: End, machine: &mut Machine<V, BareBoard>) -> Result<Self, V::Error> {
        Ok(Self {
            number: machine.board.number(),
            end,
            registers: machine.vcpu.registers()?,
            why: machine.vcpu.why(),
            checked: machine.vcpu.checked(),
            exits: machine.exits.table(),
            counts: machine.vcpu.counts(),
        })
    }
}

impl Processors {
    /// Those with these registers before they are started.
    pub(super) fn new(
        main: Arc<Mainboard>,
        crew: Crew,
        on: usize,
        show: Show,
        symbols: Symbols<'static>,
        states: impl Iterator<Item = (Registers, SystemRegisters)>,
    ) -> Self {
        let others = states.map(|(registers, system)| Other {
            registers,
            system,
            has_one: AtomicBool::new(false),
            begin: Mutex::new(None),
            last: Mutex::new(None),
        });
        Self {
            main,
            crew,
            on,
            show,
            symbols,
            others: others.collect(),
        }
    }

    /// Processor `number`, if it is one beyond the first.
    fn other(&self, number: u32) -> Option<&Other> {
        self.others.get(number.checked_sub(1)? as usize)
    }

    /// The guest rang [`START`](chiton_shared::doorbell::START).
    pub(super) fn start(this: &Arc<Self>, number: u32) {
        let Some(other) = this.other(number) else {
            say!("warning: processor {number} was not started: there is none of this number, or it is the first");
            return;
        };
        let Some(begin) = this.left_in_mailbox(other) else {
            say!("warning: processor {number} was not started: its mailbox is not in memory");
            return;
        };
        if this.main.is_over() {
            return;
        }
        *other.begin.lock() = Some(begin);
        let place = this.on + number as usize;
        if other.has_one.swap(true, Ordering::SeqCst) {
            this.crew.team.look_up(place);
        } else {
            // It exists, which was looked at before the guest began.
            let _ = this.crew.team.give(place, Job::Processor(Arc::clone(this), number));
        }
    }

    /// Entry and argument that the guest has left in a mailbox.
    fn left_in_mailbox(&self, other: &Other) -> Option<(u64, u64)> {
        let window = self.main.memory.window(mailbox(&other.system), map::PAGE as usize)?;
        let mut words = [[0; 8]; 2];
        for (n, word) in words.iter_mut().enumerate() {
            window.read(MAILBOX_TEXT_OFFSET + n * 8, word);
        }
        let [entry, argument] = words.map(u64::from_le_bytes);
        Some((entry, argument))
    }

    /// Runs processor `number` on that of the machine that calls this, until the guest's end.
    pub(super) fn serve<B: Backend>(this: &Arc<Self>, backend: &B, number: u32) {
        let Some(other) = this.other(number) else { return };
        let last = this.run(this, backend, number, other);
        if !matches!(
            &last,
            Ok(Last {
                end: End::Parked | End::Stopped,
                ..
            })
        ) {
            this.main.end();
            this.look_up_all();
        }
        *other.last.lock() = Some(last);
    }

    fn run<B: Backend>(&self, this: &Arc<Self>, backend: &B, number: u32, other: &Other) -> Result<Last, String> {
        let bus = self.main.bus.as_ref();
        let apic = bus.map(|bus| GuestApic::new(number, Arc::clone(bus)));
        let given_back = self.main.given_back(number);
        let vcpu = backend.vcpu(self.main.memory, &self.show, self.symbols.clone(), apic, given_back);
        let vcpu = vcpu.map_err(|refused| refused.to_string())?;
        let (main, this) = (Arc::clone(&self.main), Arc::clone(this));
        let mut machine = Machine::new(vcpu, BareBoard::new(main, this, number, mailbox(&other.system)));
        machine.timed = self.show.exits;
        let mut end = End::Parked;
        while let Some((entry, argument)) = self.next(other) {
            let registers = Registers {
                rip: entry,
                rdi: argument,
                ..other.registers
            };
            let set = machine.vcpu.set_registers(&registers, &other.system);
            set.map_err(|error| error.to_string())?;
            end = machine.run().map_err(|error| error.to_string())?;
            if end != End::Parked {
                break;
            }
        }
        Last::of(end, &mut machine).map_err(|error| error.to_string())
    }

    /// Where a processor that is parked begins, when it is started; `None` at the guest's end.
    fn next(&self, other: &Other) -> Option<(u64, u64)> {
        loop {
            if self.main.is_over() {
                return None;
            }
            if let Some(begin) = other.begin.lock().take() {
                return Some(begin);
            }
            sleep::doze();
        }
    }

    /// Has every processor look whether the guest is over.
    fn look_up_all(&self) {
        for place in self.on..=self.on + self.others.len() {
            self.crew.team.look_up(place);
        }
    }

    /// The guest is over: waits for all to end, and tells what is left of each that was started.
    pub(super) fn end(&self) -> Vec<Result<Last, String>> {
        self.main.end();
        self.look_up_all();
        let mut all = Vec::new();
        let has_one = |other: &&Other| other.has_one.load(Ordering::SeqCst);
        // One that is waited for may have been about to start another, so that all are looked at again after it.
        while let Some(other) = self.others.iter().find(has_one) {
            all.push(loop {
                if let Some(last) = other.last.lock().take() {
                    break last;
                }
                pause();
            });
            other.has_one.store(false, Ordering::SeqCst);
        }
        all
    }
}

/// The mailbox of a processor.
const fn mailbox(system: &SystemRegisters) -> u64 {
    system.gs.base
}
