//! The entropy device against a driver that breaks every rule.
#![no_main]

use chiton_core::devices::{Entropy, Source, SourceError};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::memory::Window;
use libfuzzer_sys::fuzz_target;

/// A source that runs dry after so many calls.
struct Dry(u16);

impl Source for Dry {
    fn fill(&mut self, to: Window<'_>) -> Result<(), SourceError> {
        assert!((1..=4096).contains(&to.len()));
        to.write(0, &vec![0xE7; to.len()]);
        self.0 = self.0.checked_sub(1).ok_or(SourceError)?;
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let guest = Guest::new(Entropy::new(Dry(script.u16())), image);
    guest.play(script);
});
