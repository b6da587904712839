//! Small guests that show what a backend does for one, whichever it is: each runs on VMX and on SVM. What
//! only one of them has is shown by examples of its own, on the same [`stage`].
//!
//! The guests are a few instructions of 32-bit code. They run in protected mode without paging: so their
//! linear addresses are guest-physical, and every page that is spoken of is one of the second level. They
//! talk by `out`, and end by `hlt`.
//!
//! Each example says what happens, checks it, and has a [`Verdict`].

pub mod fpu;
pub mod nmi;
pub mod stage;
pub mod timer;

use core::fmt;

/// How an example went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was seen is what the manual says.
    AsTheManualSays,
    /// It is not.
    Otherwise,
    /// This processor does not have it.
    Skipped(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsTheManualSays => f.write_str("as the manual says"),
            Self::Otherwise => f.write_str("NOT as the manual says"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl Verdict {
    /// Whether something was seen that the manual does not say.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Otherwise)
    }

    /// Of an example that was not skipped.
    #[must_use]
    pub const fn of(good: bool) -> Self {
        if good { Self::AsTheManualSays } else { Self::Otherwise }
    }
}

/// Says a line. Whoever listens does not fail.
#[macro_export]
macro_rules! say {
    ($words:expr, $($line:tt)*) => {
        let _ = core::fmt::Write::write_fmt($words, format_args!("{}\n", format_args!($($line)*)));
    };
}
