//! The local APIC that a guest's processor has on bare metal, in x2APIC mode (SDM volume 3A, chapter
//! 12). Under KVM the kernel has it.
//!
//! ```text
//!   queue of a device ──┐
//!   ICR of a processor ─┼─▶ Bus: requests ─▶ IRR ─┐ above PPR?
//!   the timer ──────────┘    (any processor)      ├─────────▶ next entry delivers it: ISR
//!                            TPR, ISR ─▶ PPR ─────┘                       EOI: ISR ─▶ gone
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `bus` | what others do to a processor: requests, from any processor of the machine |
//! | `registers` | RDMSR and WRMSR of the guest |
//! | `timer` | its three modes |
//! | `page` | the same where the processor keeps registers for the guest, and delivers by itself |
//!
//! What only its own processor touches is in [`GuestApic`]. It is as a guest of KVM here finds it: in
//! x2APIC mode, switched on, the timer waiting for a deadline; it may have it count instead. Its identity is the processor's number.

mod bus;
pub mod page;
mod registers;
#[cfg(test)]
mod tests;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;

use chiton_shared::interrupts::SPURIOUS;

pub use bus::{Bus, Waker};
pub use registers::Refused;
use timer::Timer;

/// Of the spurious-vector register: the APIC is on.
const SOFTWARE_ENABLED: u32 = 1 << 8;
/// Of an entry of the local vector table: no interrupt.
const MASKED: u32 = 1 << 16;
/// A bit for each vector.
pub(crate) type Vectors = [u32; 8];

/// The local APIC of one of a guest's processors.
#[derive(Debug)]
pub struct GuestApic {
    number: u32,
    bus: Arc<Bus>,
    /// Interrupts whose handlers run: the in-service register.
    in_service: Vectors,
    /// The task-priority register.
    task_priority: u8,
    spurious: u32,
    timer: Timer,
    /// The entries of thermal sensor, performance counters, LINT0, LINT1 and error: kept, and never
    /// used, as nothing is connected.
    others: [u32; 5],
    command: u64,
    error: u32,
    /// Errors since the error register was written last.
    errors: u32,
}

/// What a processor is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// This one, as soon as it takes interrupts.
    Deliver(u8),
    /// This one, as soon as the guest lowers its task priority, which it may do without an exit.
    Held(u8),
}

impl GuestApic {
    /// The local APIC of processor `number`, ready for use.
    #[must_use]
    pub const fn new(number: u32, bus: Arc<Bus>) -> Self {
        Self {
            number,
            bus,
            in_service: [0; 8],
            task_priority: 0,
            spurious: SOFTWARE_ENABLED | SPURIOUS as u32,
            timer: Timer::new(),
            others: [MASKED; 5],
            command: 0,
            error: 0,
            errors: 0,
        }
    }

    /// That of a guest's only processor, which nobody has to wake.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(0, Arc::new(Bus::new(1, Box::new(|_| ()))))
    }

    /// The number of its processor.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// What the processor is to be given at this time of the machine's counter.
    pub fn pending(&mut self, now: u64) -> Pending {
        self.expire(now);
        match self.bus.highest(self.number) {
            // What waits for the end of another interrupt is looked at again when that comes.
            Some(vector) if self.is_on() && class(vector) > class(highest(&self.in_service).unwrap_or(0)) => {
                if class(vector) > class(self.task_priority) {
                    Pending::Deliver(vector)
                } else {
                    Pending::Held(vector)
                }
            }
            _ => Pending::Nothing,
        }
    }

    /// The timer comes, if it is due.
    fn expire(&mut self, now: u64) {
        let due = self.bus.due(self.number);
        if due != 0 && due <= now {
            let next = self.timer.come(due, now);
            self.set_due(next);
            if let Some(vector) = self.timer.vector() {
                self.request(vector);
            }
        }
    }

    fn set_due(&self, due: Option<u64>) {
        // The machine's 0 would be none.
        self.bus.set_due(self.number, due.map_or(0, |due| due.max(1)));
    }

    /// The processor has taken this interrupt.
    pub fn accept(&mut self, vector: u8) {
        self.bus.withdraw(self.number, vector);
        set(&mut self.in_service, vector);
    }

    /// When the timer is due, by the machine's counter.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        Some(self.bus.due(self.number)).filter(|due| *due != 0)
    }

    /// The guest's counter is so far ahead of the machine's, which is at `now`, from now on; a deadline
    /// is one of the guest's.
    pub fn set_offset(&mut self, offset: u64, now: u64) {
        self.expire(now);
        if let Some(due) = self.timer.set_offset(offset, now) {
            self.set_due(Some(due));
        }
    }

    /// Whether the processor is to be given an NMI, another's doing.
    #[must_use]
    pub fn has_nmi(&self) -> bool {
        self.bus.has_nmi(self.number)
    }

    /// The processor has taken the NMI.
    pub fn accept_nmi(&self) {
        self.bus.accept_nmi(self.number);
    }

    /// The task priority, as CR8 has it.
    #[must_use]
    pub const fn task_priority(&self) -> u8 {
        self.task_priority
    }

    /// Changes the task priority, as the guest has done by CR8.
    pub const fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority;
    }

    /// Whether it is switched on, as by the spurious-vector register.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.spurious & SOFTWARE_ENABLED != 0
    }

    /// The priority of what the processor does (SDM volume 3A, section 12.8.3.1).
    fn processor_priority(&self) -> u8 {
        let serviced = highest(&self.in_service).unwrap_or(0);
        if class(self.task_priority) >= class(serviced) {
            self.task_priority
        } else {
            serviced & 0xf0
        }
    }

    /// The handler of the most important interrupt is done.
    fn end_of_interrupt(&mut self) {
        if let Some(vector) = highest(&self.in_service) {
            self.in_service[usize::from(vector / 32)] &= !(1 << (vector % 32));
        }
    }

    /// An interrupt of its own, which vectors below 16 cannot be.
    fn request(&mut self, vector: u8) {
        /// Of the error register: received illegal vector.
        const RECEIVED_ILLEGAL: u32 = 1 << 6;
        if vector < 16 {
            self.errors |= RECEIVED_ILLEGAL;
        } else {
            self.bus.request(self.number, vector);
        }
    }
}

/// The upper four bits of a vector or priority, by which interrupts are compared.
const fn class(vector: u8) -> u8 {
    vector >> 4
}

/// The highest vector that is set.
fn highest(vectors: &Vectors) -> Option<u8> {
    let at = vectors.iter().rposition(|word| *word != 0)?;
    Some((at as u32 * 32 + vectors[at].ilog2()) as u8)
}

const fn set(vectors: &mut Vectors, vector: u8) {
    vectors[vector as usize / 32] |= 1 << (vector % 32);
}
