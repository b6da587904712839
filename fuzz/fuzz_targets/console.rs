//! The console against a driver that breaks every rule, on a port of any moods.
#![no_main]

use chiton_core::devices::{Console, Input, Output, Port};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

/// A port whose answers follow from a number.
struct Moody(u64);

impl Moody {
    fn mood(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 40
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
        match self.mood() % 4 {
            0 => Input::Empty,
            1 if self.mood().is_multiple_of(8) => Input::End,
            1 => Input::Bytes(room),
            _ => Input::Bytes(1 + self.mood() as usize % room),
        }
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let given = total(from);
        match self.mood() % 4 {
            0 => Output::Full,
            1 if self.mood().is_multiple_of(8) => Output::Closed,
            1 => Output::Bytes(given),
            _ => Output::Bytes(1 + self.mood() as usize % given),
        }
    }

    fn emergency(&mut self, _byte: u8) {}

    fn size(&self) -> (u16, u16) {
        (80, 25)
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let guest = Guest::new(Console::new(Moody(script.u16().into())), image);
    guest.play(script);
});
