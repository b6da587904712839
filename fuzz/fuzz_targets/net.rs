//! The network device against a driver that breaks every rule, on a link of any moods.
#![no_main]

use chiton_core::devices::net::Status;
use chiton_core::devices::{Limits, Link, Net, Rate, Received, Sent};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::{
    ETHERNET, F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_USO4, F_HOST_TSO4, F_HOST_USO, Header, MAX_FRAME, flags, gso,
};
use libfuzzer_sys::fuzz_target;

/// A link whose answers follow from a number.
struct Moody {
    mood: u64,
    offloads: u64,
    agreed: u64,
    pairs: u16,
    in_use: u16,
}

impl Moody {
    fn mood(&mut self) -> u64 {
        self.mood = self.mood.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.mood >> 40
    }
}

impl Link for Moody {
    fn mac(&self) -> [u8; 6] {
        [2; 6]
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn offloads(&self) -> u64 {
        self.offloads
    }

    fn set_offloads(&mut self, features: u64) {
        assert_eq!(features & !self.offloads, 0);
        self.agreed = features;
    }

    fn status(&mut self) -> Status {
        match self.mood() % 16 {
            0 => Status::Down,
            1 if self.mood().is_multiple_of(8) => Status::Gone,
            _ => Status::Up,
        }
    }

    fn pairs(&self) -> u16 {
        self.pairs
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        assert!((1..=self.pairs).contains(&pairs));
        let agrees = !self.mood().is_multiple_of(8);
        if agrees || pairs == 1 {
            self.in_use = pairs;
        }
        agrees
    }

    fn watch(&mut self, pair: usize, _wanted: bool) {
        assert!(pair < usize::from(self.pairs));
    }

    fn receive(&mut self, pair: usize, header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        assert!(pair < usize::from(self.in_use));
        assert!(to.iter().all(|window| !window.is_empty()));
        let room: usize = to.iter().map(Window::len).sum();
        for window in to {
            window.write(0, b"x");
        }
        header.fill(0xFF);
        match self.mood() % 8 {
            0..3 => Received::Empty,
            3 => Received::TooLong,
            4 if self.mood().is_multiple_of(8) => Received::Gone,
            _ => Received::Frame(self.mood() as usize % (room + 1)),
        }
    }

    fn send(&mut self, pair: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        assert!(pair < usize::from(self.in_use));
        assert!(frame.iter().all(|window| !window.is_empty()));
        let len: usize = frame.iter().map(Window::len).sum();
        assert!((ETHERNET..=MAX_FRAME).contains(&len));
        let header = Header::from_bytes(header);
        if header.flags != 0 {
            assert!(header.flags == flags::NEEDS_CSUM && self.agreed & F_CSUM != 0);
            assert!(usize::from(header.csum_start) + usize::from(header.csum_offset) + 2 <= len);
        }
        let segments = match header.gso_type {
            gso::NONE => 0,
            gso::TCPV4 => F_HOST_TSO4,
            gso::UDP_L4 => F_HOST_USO,
            other => panic!("type {other} was never offered"),
        };
        assert!(segments == 0 || self.agreed & segments != 0 && header.flags != 0 && header.gso_size > 0);
        assert!(usize::from(header.hdr_len) <= len);
        match self.mood() % 16 {
            0 => Sent::Dropped,
            1 if self.mood().is_multiple_of(8) => Sent::Gone,
            _ => Sent::Done,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let mood = script.u16();
    let all = F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_USO4 | F_HOST_TSO4 | F_HOST_USO;
    let link = Moody {
        mood: mood.into(),
        offloads: if mood & 1 == 0 { all } else { 0 },
        agreed: 0,
        pairs: 1 + (mood >> 1) % 3,
        in_use: 1,
    };
    let limits = Limits {
        ops: if mood & 0x100 == 0 { None } else { Rate::new(1, 5) },
        bytes: if mood & 0x200 == 0 {
            None
        } else {
            Rate::new(1 << 10, 1 << 17)
        },
    };
    let guest = Guest::new(Net::new(link).limited(limits, || 0), image);
    guest.play(script);
});
