//! The socket device against a driver that breaks every rule, on a host of any moods.
#![no_main]

use std::collections::BTreeSet;

use chiton_core::devices::vsock::{Event, MAX_CONNECTIONS, Refused, Socket, Sockets, Vsock};
use chiton_core::devices::{Input, Output};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

/// Sockets whose answers follow from a number.
struct Moody {
    state: u64,
    open: BTreeSet<Socket>,
    made: u64,
}

impl Moody {
    fn mood(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.state >> 40
    }

    fn make(&mut self) -> Socket {
        self.made += 1;
        let socket = Socket(self.made);
        self.open.insert(socket);
        assert!(self.open.len() <= MAX_CONNECTIONS + 1);
        socket
    }

    fn check(&self, socket: Socket) {
        assert!(self.open.contains(&socket), "a socket that is closed");
    }
}

impl Sockets for Moody {
    fn next_event(&mut self) -> Option<Event> {
        match self.mood() % 8 {
            0 => Some(Event::Asked {
                socket: self.make(),
                port: (self.mood() % 4) as u32,
            }),
            // Maybe of a socket that is closed, as an old event may be.
            1 | 2 => Some(Event::Ready(Socket(self.mood() % (self.made + 1)))),
            _ => None,
        }
    }

    fn connect(&mut self, port: u32) -> Result<Socket, Refused> {
        if port.is_multiple_of(2) {
            Ok(self.make())
        } else {
            Err(Refused)
        }
    }

    fn accepted(&mut self, socket: Socket, _port: u32) {
        self.check(socket);
    }

    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input {
        self.check(socket);
        assert!(!to.is_empty() && to.iter().all(|w| !w.is_empty()));
        let room: usize = to.iter().map(Window::len).sum();
        for window in to {
            window.write(0, b"x");
        }
        match self.mood() % 4 {
            0 => Input::Empty,
            1 if self.mood().is_multiple_of(4) => Input::End,
            1 => Input::Bytes(room),
            _ => Input::Bytes(1 + self.mood() as usize % room),
        }
    }

    fn write(&mut self, socket: Socket, from: &[u8]) -> Output {
        self.check(socket);
        assert!(!from.is_empty());
        match self.mood() % 4 {
            0 => Output::Full,
            1 if self.mood().is_multiple_of(8) => Output::Closed,
            1 => Output::Bytes(from.len()),
            _ => Output::Bytes(1 + self.mood() as usize % from.len()),
        }
    }

    fn finish(&mut self, socket: Socket) {
        self.check(socket);
    }

    fn close(&mut self, socket: Socket) {
        assert!(self.open.remove(&socket), "closed twice");
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let moody = Moody {
        state: script.u16().into(),
        open: BTreeSet::new(),
        made: 0,
    };
    // The context ID is small, so that the fuzzer comes upon it.
    let guest = Guest::new(Vsock::new(3, moody), image);
    guest.play(script);
});
