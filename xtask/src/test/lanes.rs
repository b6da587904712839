//! Several steps: those that build into folders of their own beside the others.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use super::{Args, Step, outcome::Report};
use crate::paths;

/// What runs behind the other steps, in this order: Miri and Loom use one processor of those that builds, waiting
/// tests and emulators leave; fuzzing uses all, and so fills the end. Cargo locks the folder that it builds into, so
/// that two of the other steps would only wait for each other.
const BEHIND: [Step; 3] = [Step::Miri, Step::Loom, Step::Fuzz];
/// What runs beside the step before it: both wait for an emulator, which keeps one processor busy, and what they need
/// of the folder that all build into was built by then.
const BESIDE: (Step, Step) = (Step::Qemu, Step::Bare);

/// Runs the steps, each in a process of its own, and tells of each in the order that was asked for.
pub(super) fn run(steps: &[Step], args: &Args) -> Vec<Report> {
    thread::scope(|scope| {
        let is_behind = |step: &Step| BEHIND.contains(step);
        let behind = scope.spawn(move || {
            let chosen = BEHIND.into_iter().filter(|step| steps.contains(step));
            chosen
                .map(|step| (step, silently(step, args, true)))
                .collect::<Vec<_>>()
        });
        let (first, second) = BESIDE;
        let both = [first, second].iter().all(|step| steps.contains(step));
        let mut all = Vec::new();
        for &step in steps.iter().filter(|step| !is_behind(step)) {
            if both && step == second {
                continue;
            }
            let beside = (both && step == first).then(|| scope.spawn(move || silently(second, args, false)));
            heading(step);
            all.push((step, openly(step, args)));
            if let Some(beside) = beside {
                all.push((second, told(second, beside.join().expect("it does not panic"))));
            }
        }
        let behind = behind.join().expect("it does not panic");
        all.extend(behind.into_iter().map(|(step, outcome)| (step, told(step, outcome))));
        let of = |step: &Step| all.iter().find(|(of, _)| of == step).map(|(_, report)| report.clone());
        steps.iter().filter_map(of).collect()
    })
}

/// Tells what a step has said meanwhile.
fn told(step: Step, (report, output): (Report, Vec<u8>)) -> Report {
    heading(step);
    // There is nobody to tell of an output that cannot be written.
    let _ = io::stderr().write_all(&output);
    report
}

fn heading(step: Step) {
    let name = step.name();
    eprintln!("\n── {name} {}", "─".repeat(70 - name.len()));
}

/// With its output in plain sight.
fn openly(step: Step, args: &Args) -> Report {
    let program = std::env::current_exe().map(Command::new);
    reported(step, args, program, |command| command.status().map(drop))
}

/// With its output kept; behind whatever else wants a processor, if `nicely`.
fn silently(step: Step, args: &Args, nicely: bool) -> (Report, Vec<u8>) {
    let mut output = Vec::new();
    let program = std::env::current_exe().map(|program| {
        if !nicely {
            return Command::new(program);
        }
        let mut nice = Command::new("nice");
        nice.arg(program);
        nice
    });
    let report = reported(step, args, program, |command| {
        let (mut reader, writer) = io::pipe()?;
        let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        // The command still holds the pipe's write end; without this the reader waits for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        reader.read_to_end(&mut output)?;
        child.wait().map(drop)
    });
    (report, output)
}

/// Runs `program` as the step's process, and reads what it left; a process that leaves nothing has failed.
fn reported(
    step: Step,
    args: &Args,
    program: io::Result<Command>,
    run: impl FnOnce(&mut Command) -> io::Result<()>,
) -> Report {
    let start = Instant::now();
    let folder = paths::target().join("steps");
    let left = folder.join(step.name());
    let try_it = || {
        fs::create_dir_all(&folder)?;
        // Of a run that was interrupted: whoever cannot remove it would take it for this one's.
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut command = program?;
        command.args(["test", "--only", &step.name(), "--fuzz-seconds"]);
        command.arg(args.fuzz_seconds.to_string());
        command.arg("--outcome").arg(&left).stdin(Stdio::null());
        run(&mut command)
    };
    if let Err(error) = try_it() {
        eprintln!("error: cannot run the step {}: {error}", step.name());
        return Report::failed(start.elapsed());
    }
    Report::take(&left).unwrap_or_else(|| Report::failed(start.elapsed()))
}
