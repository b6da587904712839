//! What surrounds a processor: memory, doorbells, and a line to whoever measures.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chiton_core::machine::{Board, End, Machine};
use chiton_core::vcpu::{Registers, SystemRegisters, Vcpu};
use chiton_kvm::KernelStats;
use chiton_shared::doorbell::{LogLevel, MAILBOX_TEXT_OFFSET};
use chiton_shared::map;
use chiton_shared::measure::place;
use chiton_shared::memory::GuestMemory;

use super::host::{Host, pin};
use super::seen::Before;
use super::vcpu::LabVcpu;
use crate::exits::ExitsError;

/// How long a wait sleeps before the guest looks again; none is measured.
const NAP: Duration = Duration::from_micros(200);

/// Entry and argument of a processor that is started.
type Begin = (u64, u64);

/// What all processors share.
pub(super) struct Shared {
    host: Arc<Host>,
    states: Vec<(Registers, SystemRegisters)>,
    started: Mutex<Vec<Option<SyncSender<Begin>>>>,
    begun: Instant,
}

/// The board as one processor sees it.
pub(super) struct LabBoard {
    shared: Arc<Shared>,
    mailbox: u64,
    stats: Option<KernelStats>,
    before: Option<Before>,
}

impl LabBoard {
    /// That of the first processor; the others begin with these registers.
    pub(super) fn first(
        host: Arc<Host>,
        states: Vec<(Registers, SystemRegisters)>,
        stats: Option<KernelStats>,
    ) -> Self {
        let started = Mutex::new(states.iter().map(|_| None).collect());
        Self {
            shared: Arc::new(Shared {
                host,
                states,
                started,
                begun: Instant::now(),
            }),
            mailbox: map::MAILBOX,
            stats,
            before: None,
        }
    }

    /// Where a processor is to begin, as the guest has left it in that processor's mailbox.
    fn begin_of(&self, index: usize) -> Option<Begin> {
        let mailbox = self.shared.states.get(index)?.1.gs.base;
        let window = self.shared.host.ram.window(mailbox + MAILBOX_TEXT_OFFSET as u64, 16)?;
        let word = |at| {
            let mut bytes = [0; 8];
            window.read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        Some((word(0), word(8)))
    }
}

impl Board for LabBoard {
    fn memory(&self) -> &dyn GuestMemory {
        self.shared.host.ram.as_ref()
    }

    fn mailbox(&self) -> u64 {
        self.mailbox
    }

    fn start(&mut self, processor: u32) {
        let index = processor.wrapping_sub(1) as usize;
        let Some(begin) = self.begin_of(index) else { return };
        let mut started = self.shared.started.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = started.get_mut(index) else { return };
        let next = place.get_or_insert_with(|| {
            let (next, starts) = sync_channel(1);
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || {
                if let Err(error) = run_another(&shared, processor, &starts) {
                    say(&format!("!processor {processor}: {error}"));
                }
            });
            next
        });
        // A guest that starts a processor twice at once has it started once.
        let _ = next.try_send(begin);
    }

    fn wake(&mut self, _processor: u32) {}

    fn mmio_read(&mut self, _address: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&mut self, _address: u64, _data: &[u8]) {}

    fn kick(&mut self, device: usize) {
        match device {
            place::INTERRUPT => self.shared.host.interrupt(),
            place::PROTECT => self.shared.host.protect(),
            _ => {}
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        thread::sleep(timeout.map_or(NAP, |timeout| timeout.min(NAP)));
    }

    fn log(&mut self, _level: LogLevel, text: &str) {
        say(text);
        if text.starts_with("@begin") {
            self.before = Some(Before::now(self.stats.as_ref()));
        } else if text.starts_with("@end") {
            if let Some(before) = self.before.take() {
                say(&before.until_now(self.stats.as_ref()));
            }
        } else if let Some(before) = &mut self.before {
            before.lines += 1;
        }
    }

    fn drain(&mut self) {}

    fn stopped(&self) -> bool {
        false
    }

    fn now_ns(&self) -> u64 {
        self.shared.begun.elapsed().as_nanos() as u64
    }
}

/// A line for whoever measures. If nobody listens any more, this process is of no use.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Runs a processor beyond the first, from each start to its parking.
fn run_another(shared: &Arc<Shared>, number: u32, starts: &Receiver<Begin>) -> Result<(), ExitsError> {
    pin(number as usize);
    let (mut registers, system) = shared.states[number as usize - 1];
    let fd = shared.host.vcpu(number)?;
    let vcpu = LabVcpu::new(fd, shared.host.apic_base(number), Arc::clone(&shared.host.ram))?;
    let board = LabBoard {
        shared: Arc::clone(shared),
        mailbox: system.gs.base,
        stats: None,
        before: None,
    };
    let mut machine = Machine::new(vcpu, board);
    while let Ok(begin) = starts.recv() {
        (registers.rip, registers.rdi) = begin;
        machine.vcpu.set_registers(&registers, &system)?;
        let end = machine.run()?;
        if end != End::Parked {
            say(&format!("!processor {number} ended: {end:?}"));
            break;
        }
    }
    Ok(())
}
