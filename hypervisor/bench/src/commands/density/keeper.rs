//! Who removes all instances, when the program that started them has ended, however it did.
//!
//! It is a process of its own, in a process group of its own, so that no key of a terminal and no kill of the other
//! one ends it. It waits for the end of its input, which is a pipe that the other holds.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use chiton_bench::{
    Result,
    host::{Left, Processes},
    run::write,
    trial::{self, Chiton, TrialError, answer},
};
use rustix::process::{Pid, Signal, kill_process};

/// How long processes that are told to end may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried until what goes wrong is the end of it.
const ROUNDS: u32 = 5;
/// So many instances are named on a command line.
const AT_A_TIME: usize = 100;

/// The keeper, as the program that measures has it.
#[derive(Debug)]
pub(super) struct Keeper(Option<Child>);

impl Keeper {
    /// Starts it.
    pub(super) fn begin(chiton: &Chiton, place: &Path) -> trial::Result<Self> {
        let own = std::env::current_exe().map_err(TrialError::system("find this program"))?;
        let mut command = Command::new(&own);
        command.arg("density-keeper").arg("--chiton").arg(chiton.program());
        command.arg("--place").arg(place).arg("--home").arg(chiton.home());
        command.process_group(0);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self(Some(child.map_err(TrialError::start(&command))?)))
    }

    /// Has it remove all; what it could not.
    pub(super) fn end(mut self) -> trial::Result<Left> {
        let failed = "hear what is left of the instances";
        let Some(child) = self.0.take() else {
            return Err(TrialError::Found("the keeper is gone".into()));
        };
        // Its input ends by this.
        let output = child.wait_with_output().map_err(TrialError::system(failed))?;
        if !output.status.success() {
            return Err(TrialError::Found(format!(
                "the instances were not all removed ({})",
                output.status
            )));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| TrialError::Found(format!("cannot {failed}: {error}")))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            // It says itself what goes wrong.
            let _ = child.wait_with_output();
        }
    }
}

/// Remove all instances of a home when the input ends; of no use to anybody but `density`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeeperArgs {
    #[arg(long)]
    chiton: PathBuf,
    #[arg(long)]
    home: PathBuf,
    /// The folder that goes with them.
    #[arg(long)]
    place: PathBuf,
}

/// Waits, removes, and tells what is left.
pub(crate) fn keep(args: &KeeperArgs) -> Result<ExitCode> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(TrialError::system("read the input"))?;
    let chiton = Chiton::find(Some(&args.chiton), args.home.clone())?;
    let mut ids = Vec::new();
    // One may just be being started: who starts it may live a little longer.
    for round in 1.. {
        let found = instances(&chiton)?;
        if found.is_empty() && Processes::of(chiton.home())?.instances.is_empty() {
            break;
        }
        // One that cannot be removed must not keep the others.
        let removed = remove(&chiton, &found);
        ids.extend(found);
        let ended = end_processes(&chiton);
        if round >= ROUNDS {
            removed.and(ended)?;
        }
    }
    if args.place.exists() {
        fs::remove_dir_all(&args.place).map_err(TrialError::file("remove", &args.place))?;
    }
    let left = Left::of(chiton.home(), &ids)?;
    write("-".as_ref(), &serde_json::json!(left).to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The IDs of those there are.
fn instances(chiton: &Chiton) -> trial::Result<Vec<String>> {
    if !chiton.home().exists() {
        return Ok(Vec::new());
    }
    let said = answer(&mut chiton.command(&["ps", "--all", "--quiet", "--no-trunc"]))?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Two at a time, since most of it is to wait for the kernel.
fn remove(chiton: &Chiton, ids: &[String]) -> trial::Result<()> {
    let remove = |ids: &[String]| {
        let mut words = vec!["rm", "--force"];
        words.extend(ids.iter().map(String::as_str));
        answer(&mut chiton.command(&words)).map(drop)
    };
    for both in ids.chunks(2 * AT_A_TIME) {
        let (one, other) = both.split_at(both.len().min(AT_A_TIME));
        thread::scope(|scope| {
            let one = scope.spawn(|| remove(one));
            let second = if other.is_empty() { Ok(()) } else { remove(other) };
            let first = one
                .join()
                .unwrap_or_else(|_| Err(TrialError::Found("a thread panicked".into())));
            first.and(second)
        })?;
    }
    Ok(())
}

/// Waits until the processes have ended, and kills those that do not.
fn end_processes(chiton: &Chiton) -> trial::Result<()> {
    let began = Instant::now();
    loop {
        let left = Processes::of(chiton.home())?;
        if left.instances.is_empty() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            for pid in left.all() {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                // It may have ended meanwhile.
                let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            }
            return Err(TrialError::Found(format!(
                "{} processes of instances did not end within {PATIENCE:?}, and were killed",
                left.all().count()
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
