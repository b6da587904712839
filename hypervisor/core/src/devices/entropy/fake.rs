//! A source that counts instead of rolling dice.

use chiton_shared::memory::Window;

use super::{Source, SourceError};

/// Gives 1, 2, 3 … and fails when told to.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) last: u8,
    pub(crate) fails: bool,
}

impl Source for Counting {
    fn fill(&mut self, to: Window<'_>) -> Result<(), SourceError> {
        if self.fails {
            return Err(SourceError);
        }
        let mut bytes = vec![0; to.len()];
        for byte in &mut bytes {
            self.last = self.last.wrapping_add(1);
            *byte = self.last;
        }
        to.write(0, &bytes);
        Ok(())
    }
}
