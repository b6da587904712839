//! The timer of the local APIC (SDM volume 3A, section 12.5.4): it waits for a deadline of the
//! time-stamp counter, or counts down, once or again and again.
//!
//! | bits 18:17 of its entry | mode | set by |
//! |---|---|---|
//! | 00 | one-shot | initial count, divide configuration |
//! | 01 | periodic | the same |
//! | 10 | TSC-deadline | IA32_TSC_DEADLINE |
//! | 11 | reserved: it never comes | |
//!
//! Its clock, which the divide configuration divides, is the machine's time-stamp counter. That is not
//! written down anywhere; a system measures it, on this APIC as on any other.
//!
//! When it is due stands with the [`Bus`](super::Bus), in ticks of the machine's counter; here is all
//! else.

use chiton_shared::interrupts::TIMER;

use super::MASKED;

/// Of its entry: what it waits for.
const MODE: u32 = 0b11 << 17;
const ONE_SHOT: u32 = 0b00 << 17;
const PERIODIC: u32 = 0b01 << 17;
const TSC_DEADLINE: u32 = 0b10 << 17;

/// The shortest period, in ticks of the machine's counter: a quarter of a millisecond at 2 GHz. One that is shorter than
/// an exit would leave the guest no time between two interrupts.
const SHORTEST_PERIOD: u64 = 500_000;

/// The timer.
#[derive(Debug)]
pub(super) struct Timer {
    /// Its entry of the local vector table.
    entry: u32,
    /// What it was set to, in ticks of the guest's own counter; 0 for nothing.
    deadline: u64,
    /// How far the guest's counter is ahead of the machine's.
    offset: u64,
    initial: u32,
    /// The divide-configuration register.
    divide: u32,
}

impl Timer {
    pub(super) const fn new() -> Self {
        Self {
            entry: TSC_DEADLINE | TIMER as u32,
            deadline: 0,
            offset: 0,
            initial: 0,
            divide: 0,
        }
    }

    /// Its entry of the local vector table.
    pub(super) const fn entry(&self) -> u32 {
        self.entry
    }

    /// The vector of its interrupt, unless it is masked.
    pub(super) const fn vector(&self) -> Option<u8> {
        if self.entry & MASKED == 0 {
            Some(self.entry as u8)
        } else {
            None
        }
    }

    pub(super) const fn mask(&mut self) {
        self.entry |= MASKED;
    }

    /// The initial-count register.
    pub(super) const fn initial(&self) -> u32 {
        self.initial
    }

    /// The divide-configuration register.
    pub(super) const fn divide(&self) -> u32 {
        self.divide
    }

    const fn counts(&self) -> bool {
        matches!(self.entry & MODE, ONE_SHOT | PERIODIC)
    }

    /// How often the clock is halved: bits 3, 1 and 0 of the divide configuration, where 0 is by 2 and
    /// 111 is by 1 (SDM volume 3A, figure 12-10).
    const fn shift(&self) -> u32 {
        ((self.divide >> 1 & 0b100 | self.divide & 0b11) + 1) & 0b111
    }

    const fn period(&self) -> u64 {
        let period = (self.initial as u64) << self.shift();
        if period < SHORTEST_PERIOD {
            SHORTEST_PERIOD
        } else {
            period
        }
    }

    /// It has come, being due then, and it is `now`. When it is due next; several that were missed are
    /// one.
    pub(super) const fn come(&mut self, due: u64, now: u64) -> Option<u64> {
        self.deadline = 0;
        if self.entry & MODE != PERIODIC {
            return None;
        }
        let period = self.period();
        let missed = now.saturating_sub(due) / period;
        Some(due.saturating_add((missed + 1).saturating_mul(period)))
    }

    /// Changes its entry. Whether that disarms it: a change between deadlines and counting does (SDM
    /// volume 3A, section 12.5.4.1).
    pub(super) const fn set_entry(&mut self, entry: u32) -> bool {
        let counted = self.counts();
        let before = self.entry & MODE;
        self.entry = entry;
        let disarmed = entry & MODE != before && !(counted && self.counts());
        if disarmed {
            self.deadline = 0;
            self.initial = 0;
        }
        disarmed
    }

    /// Sets a deadline, 0 for none: when it is due, if it heeds deadlines.
    pub(super) const fn set_deadline(&mut self, deadline: u64, now: u64) -> Option<Option<u64>> {
        if self.entry & MODE != TSC_DEADLINE {
            return None;
        }
        self.deadline = deadline;
        Some(self.deadline_due(now))
    }

    /// The guest's counter is so far ahead from now on: when its deadline is due, if there is one.
    pub(super) const fn set_offset(&mut self, offset: u64, now: u64) -> Option<u64> {
        self.offset = offset;
        self.deadline_due(now)
    }

    /// The deadline is the guest's, and compared with the guest's counter: one in its past is due at once,
    /// however far the counter was set.
    const fn deadline_due(&self, now: u64) -> Option<u64> {
        if self.deadline == 0 {
            return None;
        }
        let left = self.deadline.saturating_sub(now.wrapping_add(self.offset));
        Some(now.saturating_add(left))
    }

    /// What it is set to; 0 when that has come, which it may have without anybody having looked.
    pub(super) const fn deadline(&self, due: Option<u64>, now: u64) -> u64 {
        match due {
            Some(due) if due > now => self.deadline,
            _ => 0,
        }
    }

    /// Begins to count, 0 to stop: when it is due, if it counts at all.
    pub(super) const fn set_initial(&mut self, count: u32, now: u64) -> Option<Option<u64>> {
        if !self.counts() {
            return None;
        }
        self.initial = count;
        Some(match count {
            0 => None,
            _ if self.entry & MODE == PERIODIC => Some(now.saturating_add(self.period())),
            _ => Some(now.saturating_add((count as u64) << self.shift())),
        })
    }

    /// Divides its clock otherwise: when it is due then, if it was counting.
    pub(super) const fn set_divide(&mut self, divide: u32, due: Option<u64>, now: u64) -> Option<u64> {
        let left = self.count(due, now);
        self.divide = divide;
        if left == 0 {
            return None;
        }
        Some(now.saturating_add((left as u64) << self.shift()))
    }

    /// The current-count register.
    pub(super) const fn count(&self, due: Option<u64>, now: u64) -> u32 {
        match due {
            Some(due) if self.counts() => {
                let left = if due <= now && self.entry & MODE == PERIODIC {
                    self.period() - (now - due) % self.period()
                } else {
                    due.saturating_sub(now)
                };
                let count = left >> self.shift();
                // A period that was too short is longer than what was asked for.
                if count > self.initial as u64 {
                    self.initial
                } else {
                    count as u32
                }
            }
            _ => 0,
        }
    }
}
