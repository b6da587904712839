//! Random bytes: RDRAND, or the time-stamp counter where the processor has none.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use chiton_core::devices::entropy::{Source, SourceError};
use chiton_shared::memory::Window;

use super::time;

/// How often RDRAND is asked again, as its manual says (SDM volume 1, section 7.3.17.1).
const RETRIES: u32 = 10;

/// The processor's own source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random {
    has_rdrand: bool,
}

impl Random {
    /// What this processor has.
    pub(super) fn of_processor() -> Self {
        Self {
            has_rdrand: __cpuid(1).ecx & 1 << 30 != 0,
        }
    }

    /// Whether its bytes are fit for keys.
    pub(super) const fn is_good(self) -> bool {
        self.has_rdrand
    }

    /// Fills the bytes, or says that it cannot.
    pub(super) fn bytes(self, bytes: &mut [u8]) -> Result<(), SourceError> {
        for piece in bytes.chunks_mut(8) {
            let word = if self.has_rdrand { rdrand()? } else { jitter() };
            piece.copy_from_slice(&word.to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

impl Source for Random {
    fn fill(&mut self, to: Window<'_>) -> Result<(), SourceError> {
        let mut bytes = [0; 256];
        let mut done = 0;
        while done < to.len() {
            let len = (to.len() - done).min(bytes.len());
            self.bytes(&mut bytes[..len])?;
            to.write(done, &bytes[..len]);
            done += len;
        }
        Ok(())
    }
}

fn rdrand() -> Result<u64, SourceError> {
    for _ in 0..RETRIES {
        let (word, good): (u64, u8);
        // SAFETY: RDRAND (SDM volume 2B; APM volume 3) is undefined where CPUID does not have it, and the processor has
        // it; it changes a register and the flags alone.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) good, options(nomem, nostack)) };
        if good != 0 {
            return Ok(word);
        }
    }
    Err(SourceError)
}

/// A word that differs each time, and that nobody should make a key of: the low bits of the counter,
/// mixed as SplitMix64 does.
fn jitter() -> u64 {
    let mut word = time::ticks();
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
