//! The processors beyond the first: found, started, and given work.
//!
//! ```text
//!   first processor                           another
//!     MADT: who is there?
//!     trampoline ─▶ page below 1 MiB
//!     INIT, 10 ms, start-up, 200 us ────────▶ real mode … 64-bit mode ─▶ begin
//!     waits                                   control registers, GDT, TSS, IDT, stack, APIC
//!       ◀──────────────────────────────────── ready; VMX or SVM on
//!     give(work) ── interrupt ──────────────▶ hlt ends: does it, then says so
//! ```
//!
//! They are started one after the other, so that the page is one processor's at a time. A processor
//! that does not answer could still come to it later; so after it no other is started.

mod trampoline;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::asm;
use core::time::Duration;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegionKind, Optional};
use chiton_bare::acpi::{self, AcpiError};
use chiton_bare::command::MAX_PROCESSORS as MAX;
use chiton_bare::low;
use chiton_core::local_apic::{LocalApic, Message};
use chiton_core::physical::Physical;
use spin::Mutex;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::control::{Cr0, Cr3, Cr4};

use super::backend::{self, Backend, With};
use super::debug::say;
use super::descriptors;
use super::fault::LOOK_UP;
use super::memory::Memory;
use super::{sleep, stacks, time};
use trampoline::{Begin, Trampoline};

/// What has to pass between INIT and start-up, and after start-up until it may be repeated (SDM volume
/// 3A, section 10.4.4.1).
const AFTER_INIT: Duration = Duration::from_millis(10);
const AFTER_START_UP: Duration = Duration::from_micros(200);
/// How often the first processor looks whether all are done, which nobody tells it.
const LOOK: Duration = Duration::from_millis(1);
/// How long a processor may take to come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why other processors are not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SmpError {
    /// The firmware tells nothing.
    #[error("the boot loader has found no tables of the firmware (ACPI)")]
    NoAcpi,
    /// The tables are not to be believed.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// No pages are free where a processor can begin.
    #[error(
        "fewer than {} pages below 1 MiB are free, where they would begin",
        trampoline::PAGES
    )]
    NoLowPages,
    /// No memory is left.
    #[error("no memory is left for their tables and stacks")]
    NoMemory,
    /// It did not come.
    #[error("the processor with APIC identity {0} does not answer: no other is started")]
    Silent(u32),
}

/// What a processor does when it is given it.
pub(super) trait Work: Send {
    /// Does it, with the processor's own backend.
    fn run<B: Backend>(self, backend: &B);
}

/// Where a processor is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has been told to start.
    Started,
    /// It waits for work.
    Idle,
    /// It works.
    Busy,
    /// It has no VMX or SVM, and does nothing; the words say why.
    Useless(String),
}

/// A processor beyond the first.
struct Member<W> {
    /// Of its local APIC.
    identity: u32,
    memory: &'static Memory,
    /// CR0, CR3 and CR4, as on the first processor.
    control: [u64; 3],
    /// Where its stack for faults ends.
    fault_stack: VirtAddr,
    state: Mutex<State>,
    work: Mutex<Option<W>>,
}

/// All processors beyond the first that are ready. Their number in it is one less than their own.
pub(super) struct Team<W: 'static> {
    /// The local APIC of whoever uses this.
    apic: &'static LocalApic,
    /// The identity of the first processor's.
    first: u32,
    members: Vec<&'static Member<W>>,
}

impl<W: Work + 'static> Team<W> {
    /// Starts all processors that there are. What goes wrong is said, and the machine goes on with
    /// those it has.
    pub(super) fn start(info: &BootInfo, memory: &'static Memory) -> Self {
        let apic = sleep::switch_on(memory);
        let mut team = Self {
            apic,
            first: apic.identity(),
            members: Vec::new(),
        };
        if let Err(error) = team.start_all(info, memory) {
            say!("warning: other processors are not used: {error}");
        }
        if !team.members.is_empty() {
            say!("chiton: {} processors", team.count());
        }
        team
    }

    /// How many there are, the first included.
    pub(super) fn count(&self) -> usize {
        1 + self.members.len()
    }

    fn start_all(&mut self, info: &BootInfo, memory: &'static Memory) -> Result<(), SmpError> {
        let all = identities(info, memory)?;
        let others: Vec<u32> = all.into_iter().filter(|identity| *identity != self.first).collect();
        if others.is_empty() {
            return Ok(());
        }
        if others.len() >= MAX {
            say!("warning: of {} processors {MAX} are used", others.len() + 1);
        }
        let count = others.len().min(MAX - 1);
        // Before the trampoline, which begins with a copy of the tables' root.
        let map = |number: usize| Some((stacks::map(memory, number)?, stacks::map_for_faults(memory, number)?));
        let all_stacks: Option<Vec<_>> = (1..=count).map(map).collect();
        let all_stacks = all_stacks.ok_or(SmpError::NoMemory)?;
        let trampoline = Trampoline::new(memory, low_pages(info).ok_or(SmpError::NoLowPages)?);
        for (identity, (stack, fault_stack)) in others.into_iter().zip(all_stacks) {
            let member: &'static Member<W> = Box::leak(Box::new(Member {
                identity,
                memory,
                control: control_registers(),
                fault_stack,
                state: Mutex::new(State::Started),
                work: Mutex::new(None),
            }));
            let page = trampoline.prepare(&Begin {
                stack: stack.as_mut_ptr(),
                entry: begin::<W>,
                argument: core::ptr::from_ref(member) as u64,
            });
            match member.start(self.apic, page) {
                State::Started => return Err(SmpError::Silent(identity)),
                State::Useless(why) => say!("warning: the processor with APIC identity {identity} is not used: {why}"),
                State::Idle | State::Busy => self.members.push(member),
            }
        }
        Ok(())
    }

    /// Gives a processor work, when it is done with what it has. Whether there is such a processor:
    /// number 1 is the second.
    pub(super) fn give(&self, number: usize, work: W) -> bool {
        let Some(member) = number.checked_sub(1).and_then(|index| self.members.get(index)) else {
            return false;
        };
        while *member.state.lock() != State::Idle {
            pause();
        }
        *member.state.lock() = State::Busy;
        *member.work.lock() = Some(work);
        self.look_up(number);
        true
    }

    /// Interrupts a processor, unless it is the one that calls this: it looks for work, or at its guest.
    pub(super) fn look_up(&self, number: usize) {
        let identity = match number.checked_sub(1) {
            None => Some(self.first),
            Some(index) => self.members.get(index).map(|member| member.identity),
        };
        let apic = self.apic;
        if let Some(identity) = identity.filter(|identity| *identity != apic.identity()) {
            // SAFETY: the command has the other take it by its IDT (SDM volume 3A, figure 12-12); every processor has a
            // handler for it, which returns.
            let _ = unsafe { apic.send(identity, Message::Interrupt(LOOK_UP)) };
        }
    }

    /// Sends the first processor an NMI or an interrupt, unless it is the one that calls this. Whether it was sent.
    pub(super) fn send_to_first(&self, message: Message) -> bool {
        let handled = matches!(message, Message::Nmi | Message::Interrupt(32..));
        // SAFETY: the other takes an NMI whether or not its interrupts are on (SDM volume 3A, section 7.7), and what is no
        // exception when they are; every processor has a handler for either, which returns.
        handled && self.first != self.apic.identity() && unsafe { self.apic.send(self.first, message) }
    }

    /// Waits until all are done.
    pub(super) fn wait(&self) {
        for member in &self.members {
            while *member.state.lock() == State::Busy {
                sleep::doze_until(time::ticks().saturating_add(time::in_ticks(LOOK)));
            }
        }
    }
}

impl<W: Work + 'static> Member<W> {
    /// Starts the processor at a page, and waits until it has come (SDM volume 3A, section 10.4.4.1).
    fn start(&self, apic: &LocalApic, page: u8) -> State {
        // SAFETY: INIT resets the processor, which then waits for a start-up message (SDM volume 3A, section 10.4.4).
        // It does nothing yet, or what the firmware has it do, which is to wait.
        let stopped = unsafe { apic.send(self.identity, Message::Init) };
        time::sleep(AFTER_INIT);
        for _ in 0..2 {
            // SAFETY: the processor begins in real mode at the page (SDM volume 3A, section 10.4.4.1), which has the
            // trampoline's code. One that has begun takes no second message.
            let sent = stopped && unsafe { apic.send(self.identity, Message::StartUp(page)) };
            if !sent {
                break;
            }
            time::sleep(AFTER_START_UP);
        }
        let until = time::ticks().saturating_add(time::in_ticks(PATIENCE));
        loop {
            let state = self.state.lock().clone();
            if state != State::Started || time::ticks() >= until {
                return state;
            }
            pause();
        }
    }

    /// What it was given, when it is.
    fn next(&self) -> W {
        loop {
            if let Some(work) = self.work.lock().take() {
                return work;
            }
            sleep::doze();
        }
    }
}

/// Between two looks at what another processor has under its lock. Locks are not fair: without a pause it may
/// never get its own.
pub(super) fn pause() {
    for _ in 0..100 {
        core::hint::spin_loop();
    }
}

/// The first function of a processor.
extern "sysv64" fn begin<W: Work + 'static>(member: u64) -> ! {
    // SAFETY: `start_all` gives the address of a member, which is kept for ever.
    let member = unsafe { &*(member as *const Member<W>) };
    let [cr0, cr3, cr4] = member.control;
    // SAFETY: MOV to control registers (SDM volume 2B) raises #GP for bits that the processor has not, and CR3 changes
    // what is mapped: these are the first processor's, with the same code and data, and this stack, where they are.
    // Interrupts are off.
    unsafe {
        Cr0::write_raw(cr0);
        Cr4::write_raw(cr4);
        asm!("mov cr3, {}", in(reg) cr3, options(nostack, preserves_flags));
    }
    descriptors::load_anew(member.fault_stack);
    sleep::switch_on(member.memory);
    let refused = backend::with(member.memory, Serve(member));
    let why = refused.unwrap_or_else(|refused| refused.to_string());
    *member.state.lock() = State::Useless(why);
    loop {
        interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Works for ever.
struct Serve<W: 'static>(&'static Member<W>);

impl<W: Work + 'static> With for Serve<W> {
    type Output = String;

    fn with<B: Backend>(self, backend: &B) -> String {
        loop {
            *self.0.state.lock() = State::Idle;
            self.0.next().run(backend);
        }
    }
}

/// CR0, CR3 and CR4 of this processor.
fn control_registers() -> [u64; 3] {
    let (tables, flags) = Cr3::read_raw();
    [
        Cr0::read_raw(),
        tables.start_address().as_u64() | u64::from(flags),
        Cr4::read_raw(),
    ]
}

/// The identities of all processors.
fn identities(info: &BootInfo, memory: &Memory) -> Result<Vec<u32>, SmpError> {
    let Optional::Some(rsdp) = info.rsdp_addr else {
        return Err(SmpError::NoAcpi);
    };
    let end = info.memory_regions.iter().map(|region| region.end).max();
    // The boot loader maps this much at least, for the registers of devices.
    let end = end.unwrap_or(0).max(1 << 32);
    let read = |address: u64, bytes: &mut [u8]| {
        let fits = address.checked_add(bytes.len() as u64).is_some_and(|last| last <= end);
        if fits {
            // SAFETY: the boot loader has mapped all up to there. A table that leads to what is no
            // memory is read as whatever is there.
            unsafe {
                memory
                    .pointer(address)
                    .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
            }
        }
        fits
    };
    Ok(acpi::processors(rsdp, &read)?)
}

/// Pages below 1 MiB that nobody uses: the boot loader takes none there, and leaves them for this.
fn low_pages(info: &BootInfo) -> Option<[u64; trampoline::PAGES]> {
    let usable = info
        .memory_regions
        .iter()
        .filter(|region| region.kind == MemoryRegionKind::Usable);
    low::pages(usable.map(|region| region.start..region.end))
}
