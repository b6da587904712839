//! What KVM this machine has.

use std::{fs, io};

const DEVICE: &str = "/dev/kvm";

/// Whether guests can run right here; if not, why.
pub(crate) fn usable() -> Result<(), String> {
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => format!("there is no {DEVICE}"),
            io::ErrorKind::PermissionDenied => {
                format!("no permission on {DEVICE}; to change that: sudo usermod -aG kvm $USER, then log in again")
            }
            _ => format!("{DEVICE} cannot be opened: {error}"),
        }),
    }
}

/// The kind of KVM, by its kernel module.
#[must_use]
pub(crate) fn kind() -> &'static str {
    let loaded = |module: &str| fs::exists(format!("/sys/module/{module}")).unwrap_or(false);
    if loaded("kvm_intel") {
        "VMX"
    } else if loaded("kvm_amd") {
        "SVM"
    } else if loaded("kvm_pvm") {
        "PVM, in software"
    } else {
        "unknown kind"
    }
}

/// Whether a machine under this KVM can have a KVM of its own, in hardware.
#[must_use]
pub(crate) fn nests() -> bool {
    usable().is_ok()
        && ["kvm_intel", "kvm_amd"].iter().any(|module| {
            let nested = fs::read_to_string(format!("/sys/module/{module}/parameters/nested"));
            nested.is_ok_and(|nested| matches!(nested.trim(), "Y" | "1"))
        })
}
