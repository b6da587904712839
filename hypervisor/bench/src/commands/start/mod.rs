//! `chiton bench start`: percentiles of a start, and where its time goes.

mod show;
mod variants;
mod warm;

use std::process::ExitCode;

use chiton_bench::{
    Result,
    environment::Meanwhile,
    output::{Live, Output},
    run::{Case, Disturbed, Kind, Machine, PHASE, Run, Samples, Unit, write},
    timeline::{Recorder, Waterfall},
    trial::{self, Interrupt, Place, Programs},
};
use variants::{Bed, VARIANTS, Variant};

/// From exec to the end of the guest hello, phase by phase: without a jail, in a jail, from an image; from a snapshot;
/// and a call of a warm pool.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each kind of start is measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,

    #[command(flatten)]
    programs: Programs,

    #[command(flatten)]
    output: Output,
}

/// How many rounds get warm.
const WARM: u32 = 3;

/// Into so many repeats the runs are divided.
const REPEATS: usize = 6;

/// One kind of start, and what was seen of it.
#[derive(Debug)]
struct Measured {
    variant: &'static Variant,
    /// Or why there is nothing.
    starts: std::result::Result<Vec<Start>, String>,
}

/// One start, and what disturbed it.
type Start = (Waterfall, Disturbed);

/// Measures and shows.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let place = Place::below(&std::env::temp_dir())?;
    let chiton = args.programs.chiton(place.path().join("home"))?;
    let guest = args.programs.guest("hello")?;
    let mut run = Run::begin(Kind::Start, Machine::Kvm, 1);
    let live = args.output.live(args.runs as usize)?;
    let measured = measure(&Bed { chiton, guest, place }, args.runs, &interrupt, &live)?;
    drop(live);
    for measured in &measured {
        run.cases.extend(cases(measured)?);
    }
    if !args.output.is_quiet() {
        write("-".as_ref(), &show::all(&run))?;
    }
    args.output.write(&run)?;
    Ok(ExitCode::SUCCESS)
}

/// All kinds in turn.
fn measure(bed: &Bed, runs: u32, interrupt: &Interrupt, live: &Live) -> trial::Result<Vec<Measured>> {
    let mut recorder = Recorder::new()?;
    let mut all = Vec::new();
    for variant in VARIANTS {
        let made = (variant.prepare)(bed);
        interrupt.check()?;
        // One that does not work here must not end the measurement.
        let (way, starts) = match made {
            Ok(way) => (Some(way), Ok(Vec::new())),
            Err(error) => (None, Err(error.to_string())),
        };
        all.push((way, Measured { variant, starts }));
    }
    for round in 0..runs + WARM {
        live.part(round as usize, (runs + WARM) as usize, "rounds");
        for (way, measured) in &mut all {
            if let (Some(way), Ok(starts)) = (way, &mut measured.starts) {
                let meanwhile = Meanwhile::begin();
                let waterfall = way(&mut recorder);
                let disturbed = meanwhile.so_far();
                interrupt.check()?;
                let waterfall = waterfall?;
                if round >= WARM {
                    starts.push((waterfall, disturbed));
                }
            }
        }
    }
    Ok(all.into_iter().map(|(_, measured)| measured).collect())
}

/// The whole of a kind of start, and each of its phases.
fn cases(measured: &Measured) -> Result<Vec<Case>> {
    let Variant { name: group, what, .. } = measured.variant;
    let starts = match &measured.starts {
        Ok(starts) => starts,
        Err(reason) => {
            let skipped = Case::skipped(show::WHOLE, group, what, Unit::Nanoseconds, reason);
            return Ok(vec![skipped]);
        }
    };
    let case = |name: &str, what: &str, of: &dyn Fn(&Waterfall) -> Option<u64>| -> Result<Case> {
        let values = starts
            .iter()
            .filter_map(|(start, disturbed)| Some((of(start)?, *disturbed)));
        let repeats = Samples::disturbed_repeats(&values.collect::<Vec<_>>(), REPEATS)?;
        Ok(Case::measured(name, group, what, Unit::Nanoseconds, repeats))
    };
    let mut cases = vec![case(show::WHOLE, what, &|start| Some(start.total()))?];
    if starts.iter().any(|(start, _)| start.to_first_instruction().is_some()) {
        let first = "from before exec to the guest's first instruction";
        cases.push(case(show::FIRST, first, &Waterfall::to_first_instruction)?);
    }
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in starts.iter().flat_map(|(start, _)| &start.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let of = |start: &Waterfall| {
            start
                .phases
                .iter()
                .find(|(phase, _)| phase == name)
                .map(|(_, took)| *took)
        };
        cases.push(case(&format!("{}{name}", PHASE), &what_of(name), &of)?);
    }
    Ok(cases)
}

/// A phase in one sentence.
fn what_of(phase: &str) -> String {
    let known = PHASES.iter().find(|(name, _)| *name == phase);
    known.map_or_else(|| format!("the phase {phase}"), |(_, what)| (*what).to_owned())
}

/// The phases that `chiton` marks, and what goes on in each.
const PHASES: &[(&str, &str)] = &[
    ("exec", "from before fork and exec to the first line of main"),
    ("options, sweep", "read options, look for what the dead have left"),
    ("make record", "give the instance an ID, a name and a folder"),
    ("begin record", "claim the instance, open its log"),
    (
        "begin cgroups",
        "find the hierarchies; lock and make a control group of cgroup v2",
    ),
    ("network", "join the bridge, make a TAP device"),
    ("open guest", "read the guest or look up the layers of its image"),
    ("open devices", "plan the root, open KVM, listen for control"),
    (
        "clone",
        "compile the filter, clone3 into new user and process namespaces",
    ),
    (
        "namespaces",
        "make the others; set names, clocks and the loopback interface",
    ),
    (
        "map ids",
        "wait for the supervisor, which makes the cgroups of v1, leases a range of ids, and maps it and the owners of layers",
    ),
    ("enter cgroups", "write into tasks of cgroup v1"),
    (
        "mount root",
        "become root of the jail; overlay or a folder, /proc, volumes",
    ),
    ("pivot root", "pivot_root, and the old root detached"),
    ("drop privileges", "environment, capabilities, limits"),
    ("Landlock", "rules for the root"),
    ("filter", "close descriptors, install the filter of system calls"),
    ("options", "options, guest file and devices, opened"),
    ("options (2)", "streams and folders, in the jail"),
    ("devices", "build the devices of the guest"),
    (
        "start thread",
        "start the thread that prepares memory, and later serves devices",
    ),
    ("open KVM", "open /dev/kvm, where that is not done yet"),
    ("create VM", "KVM_CREATE_VM"),
    ("create vCPU", "KVM_CREATE_VCPU"),
    (
        "prepare memory",
        "wait for the other thread: the guest's file checked, its world written",
    ),
    ("attach memory", "KVM_SET_USER_MEMORY_REGION"),
    ("set vCPU", "CPUID, clock, registers"),
    ("device loop", "build the hub of the devices, hand it to its thread"),
    ("guest", "the guest runs"),
    ("end", "collect what there is to tell"),
    (
        "process ends",
        "the kernel takes down machine and jail; the rest of the output is taken",
    ),
    ("remove cgroups", "remove the control groups"),
    ("end record", "write down the end, or remove the instance"),
    ("request in", "the request is copied into the guest, with a new seed"),
    ("run", "KVM_RUN: entry, guest, exit"),
    ("reply out", "the reply is checked and copied"),
    ("reset", "memory, registers and devices are put back"),
    ("pool", "a machine is taken from the pool, and given back"),
    (
        "exit",
        "the kernel takes down the process that was started, and this program hears of it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(starts: std::result::Result<Vec<Start>, String>) -> Measured {
        Measured {
            variant: &VARIANTS[0],
            starts,
        }
    }

    #[test]
    fn a_kind_of_start_has_a_case_for_the_whole_and_for_each_phase() {
        let start = |exec, loop_| {
            let phases = vec![("exec".into(), exec), ("device loop".into(), loop_), ("exit".into(), 3)];
            let disturbed = Disturbed {
                steal: Some(1),
                migrations: Some(2),
            };
            (Waterfall { phases }, disturbed)
        };
        let cases = cases(&measured(Ok((0..20).map(|n| start(10 + n, 5)).collect()))).unwrap();
        let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(
            names,
            [
                show::WHOLE,
                show::FIRST,
                "phase: exec",
                "phase: device loop",
                "phase: exit"
            ]
        );
        assert_eq!(cases[0].repeats().len(), REPEATS);
        assert_eq!((cases[0].repeats()[0].min, cases[1].repeats()[5].max), (18, 34));
        // Four of the starts are in the first of the repeats of each case, or three.
        for case in &cases {
            let first = &case.repeats()[0];
            assert_eq!(
                (first.steal, first.migrations),
                (Some(first.count), Some(2 * first.count))
            );
        }
        let shown = show::group(&cases.iter().collect::<Vec<_>>());
        assert!(shown.lines().any(|line| line.starts_with("device loop ")), "{shown}");
    }

    #[test]
    fn a_kind_that_does_not_work_is_skipped_with_the_reason() {
        let cases = cases(&measured(Err("there is none".into()))).unwrap();
        assert_eq!(cases.len(), 1);
        assert!(show::group(&[&cases[0]]).contains("skipped: there is none"));
    }
}
