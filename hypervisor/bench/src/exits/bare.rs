//! Records that a machine without this program has printed: bare VMX, bare SVM, or KVM somewhere else.

use std::path::Path;

use super::ExitsError;
use super::catalogue::{Entry, Needs, of_guest};
use super::convert;
use super::records::Records;
use crate::run::{Calibration, Case, Outcome};
use crate::{Error, Result};

/// How many bytes of a file are read.
const MAX_FILE: usize = 64 << 20;

/// The cases of a file of records, with these notes made of the first that was measured: they are of all.
///
/// # Errors
///
/// If the file cannot be read, or is not what a measuring guest prints.
pub fn read(path: &Path, entries: &[&'static Entry], notes: &[String]) -> Result<(Calibration, Vec<Case>)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    if bytes.len() > MAX_FILE {
        return Err(Error::Large {
            path: path.into(),
            limit: MAX_FILE as u64,
        });
    }
    // What is no text is no record either.
    let records = Records::read(&String::from_utf8_lossy(&bytes)).map_err(|source| ExitsError::Records {
        from: path.display().to_string(),
        source,
    })?;
    let (calibration, mut cases) = cases(&records, entries)?;
    let measured = cases.iter_mut().find_map(|case| match &mut case.outcome {
        Outcome::Measured(measured) => Some(measured),
        Outcome::Skipped { .. } => None,
    });
    if let Some(measured) = measured {
        measured.notes.extend_from_slice(notes);
    }
    Ok((calibration, cases))
}

/// The cases of records.
fn cases(records: &Records, entries: &[&'static Entry]) -> Result<(Calibration, Vec<Case>)> {
    let nothing = |why: &str| ExitsError::Nothing(why.into());
    let start = records.start.ok_or_else(|| nothing("the guest did not begin"))?;
    let null = convert::null_ticks(records)
        .ok_or_else(|| nothing("the records have no case `null`, which says what the clock takes"))?;
    let cases: Result<Vec<_>> = entries
        .iter()
        .map(|entry| match records.get(of_guest(entry.name)) {
            _ if records.open() == Some(of_guest(entry.name)) => Ok(convert::skipped(
                entry,
                "the records end in the middle of it: the guest was lost there",
            )),
            // These are cases of the same guest in other machines, which this one was not.
            _ if elsewhere(entry) => Ok(convert::skipped(entry, "it is a case of KVM alone")),
            Some(recorded) => convert::case(entry, recorded, null, &[]),
            None if records.done => Ok(convert::skipped(entry, "it was not among the cases that the guest ran")),
            None => Ok(convert::skipped(entry, "the records end before it")),
        })
        .collect();
    let calibration = Calibration {
        tsc_hz: start.tsc_khz.saturating_mul(1000),
        null_ticks: null,
    };
    Ok((calibration, cases?))
}

/// Whether a case is of a machine that only KVM makes.
fn elsewhere(entry: &Entry) -> bool {
    match entry.needs {
        Needs::Host | Needs::Never | Needs::WalkLarge => true,
        // A kick is one wherever there is a device.
        Needs::Hosted => of_guest(entry.name) != entry.name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::CASES;
    use super::*;

    const RECORDS: &str = "@measure 1 tsc_khz=1000 ring=0 processors=1\n\
        @begin null repeat=0\n@samples 10\n@end null operations=1 warmup=0 count=1 sum=10\n\
        @begin cpuid repeat=0\n@samples 110\n@end cpuid operations=1 warmup=0 count=1 sum=110\n\
        @skip vmcall it hangs\n@begin wbinvd repeat=0\n@samples 1\n";

    #[test]
    fn each_case_is_measured_or_has_its_reason() {
        let entries: Vec<_> = CASES.iter().collect();
        let (calibration, cases) = cases(&Records::read(RECORDS).unwrap(), &entries).unwrap();
        assert_eq!((calibration.tsc_hz, calibration.null_ticks), (1_000_000, 10));
        assert_eq!(cases.len(), CASES.len());
        let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
        assert_eq!(case("cpuid").repeats()[0].values, [(100, 1)]);
        let reason = |name| format!("{:?}", case(name).outcome);
        assert!(reason("vmcall").contains("it hangs"));
        assert!(reason("wbinvd").contains("was lost there"));
        assert!(reason("invd").contains("end before it"));
        assert!(reason("ioctl_floor").contains("KVM alone"));
    }

    #[test]
    fn records_without_the_empty_case_are_refused() {
        let text = RECORDS.replace("null", "nil");
        let refused = cases(&Records::read(&text).unwrap(), &[]).unwrap_err();
        assert!(refused.to_string().contains("no case `null`"), "{refused}");
    }
}
