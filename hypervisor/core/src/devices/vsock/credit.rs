//! Credit: who may send how much (virtio 1.3 section 5.10.6.3).
//!
//! Each side tells how much room it has (`buf_alloc`) and how much it has passed on (`fwd_cnt`).
//! What was sent and not passed on is in flight, and may not exceed the room.

use chiton_shared::virtio::vsock::Header;

/// The most room a guest is believed to have, in bytes. Far below 2^31, so that counters modulo
/// 2^32 can be compared.
const MAX_ROOM: u32 = 1 << 30;

/// The guest claims to have passed on what it was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lie;

/// How much may be sent to the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToGuest {
    sent: u32,
    passed_on: u32,
    room: u32,
}

impl ToGuest {
    pub(super) const fn new() -> Self {
        Self {
            sent: 0,
            passed_on: 0,
            room: 0,
        }
    }

    /// Reads what a packet of the guest says.
    pub(super) fn hear(&mut self, header: &Header) -> Result<(), Lie> {
        self.room = header.buf_alloc.min(MAX_ROOM);
        let in_flight = self.sent.wrapping_sub(header.fwd_cnt);
        if in_flight > u32::MAX / 2 {
            return Err(Lie);
        }
        // A driver with several threads may send an older count after a newer one.
        if in_flight <= self.in_flight() {
            self.passed_on = header.fwd_cnt;
        }
        Ok(())
    }

    const fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.passed_on)
    }

    /// How many bytes may be sent now.
    pub(super) const fn available(&self) -> usize {
        self.room.saturating_sub(self.in_flight()) as usize
    }

    pub(super) const fn sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }
}

/// What came from the guest, and how much of it was passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromGuest {
    passed_on: u32,
    told: u32,
}

impl FromGuest {
    pub(super) const fn new() -> Self {
        Self { passed_on: 0, told: 0 }
    }

    pub(super) const fn pass_on(&mut self, bytes: u32) {
        self.passed_on = self.passed_on.wrapping_add(bytes);
    }

    /// The count for a packet that is about to go out.
    pub(super) const fn tell(&mut self) -> u32 {
        self.told = self.passed_on;
        self.told
    }

    /// How many bytes were passed on that the guest has not been told of.
    pub(super) const fn untold(&self) -> u32 {
        self.passed_on.wrapping_sub(self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header {
            buf_alloc,
            fwd_cnt,
            ..Header::default()
        }
    }

    #[test]
    fn what_is_in_flight_uses_up_room() {
        let mut credit = ToGuest::new();
        assert_eq!(credit.available(), 0);
        credit.hear(&says(100, 0)).unwrap();
        credit.sent(60);
        assert_eq!(credit.available(), 40);
        credit.hear(&says(100, 50)).unwrap();
        assert_eq!(credit.available(), 90);
        credit.hear(&says(5, 50)).unwrap();
        assert_eq!(credit.available(), 0);
    }

    #[test]
    fn counters_go_round() {
        let mut credit = ToGuest {
            sent: u32::MAX - 1,
            passed_on: u32::MAX - 1,
            room: 0,
        };
        credit.hear(&says(100, u32::MAX - 1)).unwrap();
        credit.sent(10);
        assert_eq!(credit.available(), 90);
        credit.hear(&says(100, 8)).unwrap();
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn who_has_passed_on_what_was_not_sent_lies() {
        let mut credit = ToGuest::new();
        credit.hear(&says(u32::MAX, 0)).unwrap();
        assert_eq!(credit.available(), MAX_ROOM as usize);
        credit.sent(10);
        assert_eq!(credit.hear(&says(100, 11)), Err(Lie));
        // An older count is no lie, and takes nothing back.
        credit.hear(&says(100, 10)).unwrap();
        credit.hear(&says(100, 4)).unwrap();
        assert_eq!(credit.available(), 100);
    }

    #[test]
    fn what_is_passed_on_is_told_once() {
        let mut credit = FromGuest::new();
        credit.pass_on(7);
        assert_eq!((credit.untold(), credit.tell(), credit.untold()), (7, 7, 0));
    }
}
