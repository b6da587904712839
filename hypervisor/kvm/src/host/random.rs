//! The kernel's random bytes, for the entropy device.

use chiton_core::devices::entropy::{Source, SourceError};
use chiton_shared::memory::Window;

/// `getrandom`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelRandom;

impl Source for KernelRandom {
    fn fill(&mut self, to: Window<'_>) -> Result<(), SourceError> {
        let mut done = 0;
        let mut bytes = [0; 256];
        while done < to.len() {
            let len = (to.len() - done).min(bytes.len());
            random(&mut bytes[..len]).map_err(|_| SourceError)?;
            to.write(done, &bytes[..len]);
            done += len;
        }
        Ok(())
    }
}

/// Fills `bytes`, which are at most 256, with random bytes.
pub(crate) fn random(bytes: &mut [u8]) -> rustix::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
