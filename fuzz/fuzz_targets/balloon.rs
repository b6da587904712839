//! The balloon device against a driver that breaks every rule.
#![no_main]

use chiton_core::devices::{Balloon, Pages, PagesError};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

/// Fills what is released with zeros, and fails now and then.
struct Zeros(u16);

impl Pages for Zeros {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        assert!(!pages.is_empty() && pages.len().is_multiple_of(4096));
        pages.write(0, &vec![0; pages.len()]);
        self.0 = self.0.checked_sub(1).ok_or(PagesError)?;
        Ok(())
    }

    fn target(&self) -> u32 {
        16
    }

    fn wants_statistics(&mut self) -> bool {
        self.0.is_multiple_of(2)
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let guest = Guest::new(Balloon::new(Zeros(script.u16())), image);
    guest.play(script);
});
