//! The suite of exits with real guests, on this machine's KVM.

// Clippy knows tests by an attribute that what helps them does not have.
#![allow(clippy::unwrap_used)]

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use chiton_bench::run::{Case, Kind, Machine, Outcome, Run, Unit};

/// The guest, if there are one and a KVM; if not, says so, for a test to skip itself.
fn guest() -> Option<PathBuf> {
    let folder = std::env::var_os("CHITON_GUESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"),
        PathBuf::from,
    );
    let guest = folder.join("vmexit");
    for (what, there) in [
        (guest.display().to_string(), guest.is_file()),
        (
            "/dev/kvm".into(),
            fs::File::options().read(true).write(true).open("/dev/kvm").is_ok(),
        ),
    ] {
        if !there {
            assert!(std::env::var_os("CHITON_STRICT").is_none(), "{what} is required here");
            println!("SKIPPED: {what} is not there");
            return None;
        }
    }
    Some(guest)
}

fn bench(arguments: &[&str], guest: &Path) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_chiton-bench"));
    // A guest that the machine has no time for has not hung.
    let patience = ["--patience", "600", "--vmexit"];
    bench.args(arguments).args(patience).arg(guest).output().unwrap()
}

fn case<'r>(run: &'r Run, name: &str) -> &'r Case {
    run.cases.iter().find(|case| case.name == name).unwrap()
}

#[test]
fn exits_are_measured_and_written_as_the_schema_has_it() {
    let Some(guest) = guest() else { return };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("exits.json");
    let output = bench(
        &[
            "exits",
            "cpuid",
            "outl",
            "cr3_write",
            "ioctl_floor",
            "hosted_outl",
            "--samples",
            "20",
            "--repeats",
            "3",
            "--warm-up",
            "5",
            "--json",
            json.to_str().unwrap(),
        ],
        &guest,
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = Run::read(&json).unwrap();
    assert_eq!((run.kind, run.machine, run.level), (Kind::Exits, Machine::Kvm, 1));
    assert!(run.calibration.as_ref().unwrap().tsc_hz > 100_000_000);
    let names: Vec<_> = run.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["cpuid", "cr3_write", "outl", "hosted_outl", "ioctl_floor"]);
    for case in &run.cases {
        assert_eq!(case.unit, Unit::Ticks);
        let counts: Vec<_> = case.repeats().iter().map(|samples| samples.count).collect();
        // As many as there are to be even where time is up.
        assert_eq!(counts, [20; 3], "{}", case.name);
    }
    // An OUT that the host's program takes is an exit, of which the kernel counts few more than there were; on a busy machine
    // more, since each time that the processor is taken away is one: then another run.
    let counted = |run: &Run| match &case(run, "outl").outcome {
        Outcome::Measured(measured) => measured.per_operation_exits,
        _ => None,
    };
    let Some(first) = counted(&run) else { return };
    let again = std::iter::repeat_with(|| {
        let sizes = ["exits", "outl", "--samples", "20", "--repeats", "3", "--json"];
        let output = bench(&[&sizes[..], &[json.to_str().unwrap()]].concat(), &guest);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        counted(&Run::read(&json).unwrap()).unwrap()
    });
    let mut looks = std::iter::once(first).chain(again.take(30));
    assert!(looks.any(|exits| (1.0..1.5).contains(&exits)), "at first {first}");
}

#[test]
fn a_round_trip_is_cut_by_the_stamp_of_the_kernel_and_no_trace_is_left() {
    let Some(guest) = guest() else { return };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("phases.json");
    let sizes = ["--samples", "40", "--repeats", "2", "--json", json.to_str().unwrap()];
    let cases = ["exits", "phase_to_kernel", "phase_to_program", "phase_out"];
    let instances = Path::new("/sys/kernel/tracing/instances");
    // Of those that have ended; a bench that was killed has left one for good.
    let left = || -> Vec<_> {
        let all = fs::read_dir(instances).into_iter().flatten().flatten();
        let names = all.map(|entry| entry.file_name());
        let left = names.filter(|name| {
            let process = name.to_str().and_then(|name| name.strip_prefix("chiton-bench-"));
            process.is_some_and(|process| !Path::new("/proc").join(process).exists())
        });
        left.collect()
    };
    let before = left();
    let output = bench(&[&cases[..], &sizes].concat(), &guest);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = Run::read(&json).unwrap();
    // Whoever may make one here has to get figures.
    let own = instances.join(format!("chiton-test-{}", std::process::id()));
    if fs::create_dir(&own).is_err() {
        let reason = format!("{:?}", case(&run, "phase_to_kernel").outcome);
        assert!(reason.contains("tracefs"), "{reason}");
        println!("SKIPPED: no tracefs here");
        return;
    }
    fs::remove_dir(&own).unwrap();
    let least = |name: &str| case(&run, name).repeats()[0].min;
    let (to_kernel, to_program) = (least("phase_to_kernel"), least("phase_to_program"));
    assert!(to_kernel > 0 && to_program > 0, "{to_kernel} {to_program}");
    assert!(to_kernel < least("phase_out"), "{to_kernel}");
    // One that goes at this moment may have been there when the folder was read.
    let is_new = |name: &OsString| !before.contains(name) && instances.join(name).exists();
    let new: Vec<_> = left().into_iter().filter(is_new).collect();
    assert!(new.is_empty(), "{new:?}");
}

#[test]
fn calls_of_kvm_alone_are_measured_without_any_guest() {
    let Some(_) = guest() else { return };
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("host.json");
    let sizes = ["--samples", "20", "--repeats", "1", "--json", json.to_str().unwrap()];
    let cases = ["exits", "ioctl_floor", "ioctl_run_immediate"];
    let output = bench(&[&cases[..], &sizes].concat(), Path::new("/nonexistent"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = Run::read(&json).unwrap();
    assert!(run.calibration.as_ref().unwrap().null_ticks > 0);
    for name in &cases[1..] {
        assert_eq!(case(&run, name).repeats()[0].count, 20, "{name}");
    }
}

#[test]
fn a_guest_that_is_none_is_a_reason_and_no_measurement() {
    let Some(_) = guest() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vmexit");
    fs::write(&file, "no guest at all").unwrap();
    let output = bench(&["exits", "cpuid"], &file);
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("nothing was measured") && said.contains("cannot be run"),
        "{said}"
    );
}

#[test]
fn a_case_that_is_none_is_refused_by_its_name() {
    let output = bench(&["exits", "cpuidd"], Path::new("/nonexistent"));
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no case \"cpuidd\""), "{said}");
}

#[test]
fn levels_are_laid_side_by_side() {
    let Some(guest) = guest() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [native, inner] = ["native.json", "guest.json"].map(|name| folder.path().join(name));
    let output = bench(
        &[
            "nested",
            "--samples",
            "20",
            "--repeats",
            "1",
            "--warm-up",
            "2",
            "--native",
            native.to_str().unwrap(),
            "--guest",
            inner.to_str().unwrap(),
        ],
        &guest,
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let cpuid = table.lines().find(|line| line.starts_with("Instruction")).unwrap();
    let levels: Vec<_> = cpuid.split_whitespace().skip(1).take(3).collect();
    assert!(levels[1].ends_with('x') && levels[2] == "-", "{table}");
    // What was measured here as a machine inside gives the level below.
    let files = [
        "--inner-native",
        native.to_str().unwrap(),
        "--inner-guest",
        inner.to_str().unwrap(),
    ];
    let sizes = ["nested", "--samples", "20", "--repeats", "1"];
    let output = bench(&[&sizes[..], &files].concat(), &guest);
    let table = String::from_utf8(output.stdout).unwrap();
    let cpuid = table.lines().find(|line| line.starts_with("Instruction")).unwrap();
    assert!(cpuid.split_whitespace().nth(3).unwrap().ends_with('x'), "{table}");
    let (native, inner) = (Run::read(&native).unwrap(), Run::read(&inner).unwrap());
    assert_eq!((native.machine, native.level), (Machine::Native, 0));
    assert_eq!((inner.machine, inner.level), (Machine::Kvm, 1));
}

#[test]
fn records_from_elsewhere_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    let json = folder.path().join("vmx.json");
    let arguments = [
        "exits",
        "--machine",
        "vmx",
        "--records",
        records.to_str().unwrap(),
        "--note",
        "emulated",
        "--json",
        json.to_str().unwrap(),
    ];
    let guest = Path::new("/nonexistent");
    fs::write(&records, "hello\n").unwrap();
    let refused = bench(&arguments, guest);
    assert_eq!(refused.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no record of a measuring guest"));
    assert!(!json.exists());
    fs::write(
        &records,
        "@measure 1 tsc_khz=1000 ring=0 processors=1\n\
         @begin null repeat=0\n@samples 7\n@end null operations=1 warmup=0 count=1 sum=7\n\
         @begin cpuid repeat=0\n@samples 107x3\n@end cpuid operations=1 warmup=0 count=3 sum=321\n@done\n",
    )
    .unwrap();
    let output = bench(&arguments, guest);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = Run::read(&json).unwrap();
    assert_eq!(run.machine, Machine::Vmx);
    assert_eq!(case(&run, "cpuid").repeats()[0].values, [(100, 3)]);
    assert!(matches!(case(&run, "wbinvd").outcome, Outcome::Skipped { .. }));
}
