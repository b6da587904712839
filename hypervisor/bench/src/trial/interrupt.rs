use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Result, TrialError};

/// Whether a signal has asked for the end: SIGINT, SIGTERM or SIGHUP, of which none ends this process at once any
/// more, so that what it has made can be taken away.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// If the system has no handler for us.
    pub fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(TrialError::system("handle signals"))?;
        }
        Ok(Self(flag))
    }

    /// Goes on only if nobody has asked for the end.
    ///
    /// # Errors
    ///
    /// [`TrialError::Interrupted`] if somebody has.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(TrialError::Interrupted);
        }
        Ok(())
    }
}
