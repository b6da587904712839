use std::path::PathBuf;

use super::records::RecordsError;

/// Why exits cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ExitsError {
    /// KVM, or what this project makes of it.
    #[error(transparent)]
    Kvm(#[from] chiton_kvm::Error),
    /// A call of KVM that only measuring makes.
    #[error("KVM refuses {call}: {source}")]
    Call {
        /// Its name in the kernel's documentation.
        call: &'static str,
        /// What the kernel says.
        source: kvm_ioctls::Error,
    },
    /// The operating system.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The guest's file is none.
    #[error("the guest {path} cannot be run: {why}")]
    Guest {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What a guest has printed is not what it prints.
    #[error("{from}: {source}")]
    Records {
        /// Which guest or file.
        from: String,
        /// What is wrong.
        source: RecordsError,
    },
    /// There is no such case.
    #[error("there is no case {0:?}: `chiton bench exits --list` lists them")]
    NoCase(String),
    /// No case was measured.
    #[error("nothing was measured: {0}")]
    Nothing(String),
}

impl ExitsError {
    /// For the results of KVM's calls.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Call { call, source }
    }

    /// For the results of the system's calls.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
