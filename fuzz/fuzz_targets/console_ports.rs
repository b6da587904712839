//! The console with further ports against a driver that breaks every rule.
#![no_main]

use chiton_core::devices::console::{Console, Input, Output, Port};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

/// A port whose answers follow from a number.
struct Moody {
    state: u64,
    open: bool,
}

impl Moody {
    const fn new(state: u64) -> Self {
        Self { state, open: true }
    }

    fn mood(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.state >> 40
    }
}

fn total(windows: &[Window<'_>]) -> usize {
    assert!(!windows.is_empty() && windows.iter().all(|w| !w.is_empty()));
    windows.iter().map(Window::len).sum()
}

impl Port for Moody {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        let room = total(to);
        for window in to {
            window.write(0, b"x");
        }
        self.open = !self.mood().is_multiple_of(8);
        match self.mood() % 2 {
            0 => Input::Empty,
            _ => Input::Bytes(1 + self.mood() as usize % room),
        }
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let given = total(from);
        match self.mood() % 4 {
            0 => Output::Full,
            _ => Output::Bytes(1 + self.mood() as usize % given),
        }
    }

    fn emergency(&mut self, _byte: u8) {}

    fn size(&self) -> (u16, u16) {
        (self.state as u16, 25)
    }

    fn is_open(&self) -> bool {
        self.open
    }

    fn let_in(&mut self) {
        self.open = self.mood().is_multiple_of(2);
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let port = |state| Box::new(Moody::new(state)) as Box<dyn Port>;
    let ports = [
        ("one".to_owned(), port(script.u16().into())),
        ("two".to_owned(), port(script.u16().into())),
    ];
    let console = Console::new(Moody::new(script.u16().into())).with_ports(ports);
    let guest = Guest::new(console, image);
    guest.play(script);
});
