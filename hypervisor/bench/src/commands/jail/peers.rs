//! What others take for an ordinary process, from one root.

use std::path::Path;

use chiton_bench::{
    peers::{
        namespaces,
        oci::{self, Bundle, WithoutUnified},
        payload::SAID,
    },
    trial::{Program, TrialError, find},
};

/// The name of crun in the table.
pub(super) const CRUN: &str = "crun run /bin/hello";
/// The name of what is to be taken off crun's time.
pub(super) const WAY: &str = "  of it at most, nsenter";

/// Those that are installed and work; and why the others are missing.
pub(super) fn installed(bundle: &Bundle, beside: Option<&WithoutUnified>) -> (Vec<Program>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (name, program) in [
        (CRUN, "crun"),
        ("runc run /bin/hello", "runc"),
        ("bubblewrap /bin/hello", "bwrap"),
    ] {
        let path = find(program).ok_or_else(|| TrialError::Missing(format!("{program} is not installed")));
        let made = path.and_then(|path| {
            let command = if program == "bwrap" {
                namespaces::bubblewrap(&path, bundle)
            } else {
                let beside = beside.filter(|_| program == "crun");
                oci::runtime(&path, bundle, beside)?
            };
            // One that does not work here must not end the measurement.
            let mut program = Program::new(name, command);
            program.try_out(SAID).map(|_| program)
        });
        match made {
            Ok(program) => {
                found.push(program);
                if let Some(beside) = beside.filter(|_| name == CRUN) {
                    found.push(Program::new(WAY, beside.enter(&bundle.program())));
                }
            }
            Err(why) => missing.push(format!("{name}: not measured: {why}")),
        }
    }
    (found, missing)
}

/// `unshare` of the eight namespaces, and the same program.
pub(super) fn unshare(bundle: &Bundle) -> std::process::Command {
    namespaces::unshare(Path::new("unshare"), bundle)
}
