//! Records that a machine without this program has printed: bare VMX, bare SVM, or KVM somewhere else.

use std::path::{Path, PathBuf};

use super::ExitsError;
use super::catalogue::{Entry, Needs, of_guest};
use super::convert;
use super::records::Records;
use crate::run::{Calibration, Case, Outcome};
use crate::{Error, Result};

/// How many bytes of a file are read.
const MAX_FILE: usize = 64 << 20;
/// Why a case was not recorded that takes a hypervisor which is told to be different.
const OF_EPT: &str = "no hypervisor below these guests was told to do it: bare VMX alone has EPT, and does \
                      (`cargo xtask bench exits-bare`)";

/// The cases of files of records, each of one guest of the same machine, with these notes made of the first that was
/// measured: they are of all. The first file has the clock, and says of a case that is in none of them why.
///
/// # Errors
///
/// If a file cannot be read, or is not what a measuring guest prints.
pub fn read(paths: &[PathBuf], entries: &[&'static Entry], notes: &[String]) -> Result<(Calibration, Vec<Case>)> {
    let all: Result<Vec<_>> = paths.iter().map(|path| records(path)).collect();
    let mut merged: Option<(Calibration, Vec<Case>)> = None;
    for records in &all? {
        let (calibration, of_it) = cases(records, entries)?;
        let Some((_, merged)) = &mut merged else {
            merged = Some((calibration, of_it));
            continue;
        };
        for (case, new) in merged.iter_mut().zip(of_it) {
            if is_about(records, &new.name) {
                *case = new;
            }
        }
    }
    let nothing = || ExitsError::Nothing("no file of records was named".into());
    let (calibration, mut cases) = merged.ok_or_else(nothing)?;
    let measured = cases.iter_mut().find_map(|case| match &mut case.outcome {
        Outcome::Measured(measured) => Some(measured),
        Outcome::Skipped { .. } => None,
    });
    if let Some(measured) = measured {
        measured.notes.extend_from_slice(notes);
    }
    Ok((calibration, cases))
}

/// Whether records say something of a case, be it that the guest was lost there.
fn is_about(records: &Records, name: &str) -> bool {
    records.get(name).is_some() || records.open() == Some(name)
}

/// The records of a file.
fn records(path: &Path) -> Result<Records> {
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
    let read = Records::read(&String::from_utf8_lossy(&bytes)).map_err(|source| ExitsError::Records {
        from: path.display().to_string(),
        source,
    })?;
    Ok(read)
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
            None if matches!(entry.needs, Needs::Bare(_)) => Ok(convert::skipped(entry, OF_EPT)),
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
        Needs::Host | Needs::WalkLarge => true,
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
    fn files_of_several_guests_of_a_machine_are_one_run_and_each_has_its_own_clock() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let variant = "@measure 1 tsc_khz=1000 ring=0 processors=1\n\
            @begin null repeat=0\n@samples 30\n@end null operations=1 warmup=0 count=1 sum=30\n\
            @begin first_touch_without_ad repeat=0\n@samples 530\n\
            @end first_touch_without_ad operations=1 warmup=0 count=1 sum=530\n\
            @begin first_touch_misconfigured repeat=0\n";
        let paths = [write("a", RECORDS), write("b", variant)];
        let entries: Vec<_> = CASES.iter().collect();
        let (calibration, cases) = read(&paths, &entries, &["emulated".into()]).unwrap();
        assert_eq!(calibration.null_ticks, 10);
        let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
        assert_eq!(case("cpuid").repeats()[0].values, [(100, 1)]);
        assert_eq!(case("first_touch_without_ad").repeats()[0].values, [(500, 1)]);
        let reason = |name| format!("{:?}", case(name).outcome);
        assert!(reason("first_touch_misconfigured").contains("was lost there"));
        assert!(reason("walk_heap_cold_without_ad").contains("bare VMX alone has EPT"));
        assert!(reason("vmcall").contains("it hangs"));
    }

    #[test]
    fn records_without_the_empty_case_are_refused() {
        let text = RECORDS.replace("null", "nil");
        let refused = cases(&Records::read(&text).unwrap(), &[]).unwrap_err();
        assert!(refused.to_string().contains("no case `null`"), "{refused}");
    }
}
