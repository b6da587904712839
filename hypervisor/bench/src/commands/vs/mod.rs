//! `chiton bench vs`: Chiton beside its peers, in turn, as ratios.

mod show;

use std::{path::PathBuf, process::ExitCode};

use chiton_bench::{
    Result,
    output::Output,
    peers::{Bed, PEERS, Peer, Ready},
    run::{Case, Kind, Machine, Run, Samples, Unit, write},
    trial::{self, Interrupt, Place, Programs, interleaved},
};

/// Chiton beside other programs that jail a process or run a machine, whichever are installed and work: all in turn, from
/// exec to exit.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each is run.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,

    /// A folder where peers are looked for before PATH.
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,

    /// Only those whose names have this in them, and Chiton. May be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    #[command(flatten)]
    programs: Programs,

    #[command(flatten)]
    output: Output,
}

/// Into so many repeats the runs are divided.
const REPEATS: usize = 6;

/// Measures and shows.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let place = Place::below(&std::env::temp_dir())?;
    let chiton = args.programs.chiton(place.path().join("home"))?;
    let guest = args.programs.guest("hello")?;
    let bed = Bed::new(&chiton, &guest, place.path(), args.peers.as_deref())?;
    let mut run = Run::begin(Kind::Vs, Machine::Kvm, 1);
    let live = args.output.live(PEERS.len())?;

    let wanted = PEERS.iter().filter(|peer| is_wanted(peer, &args.only));
    let (mut found, mut programs, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for peer in wanted {
        live.begin(&format!("trying {}", peer.name));
        let made = ready(peer, &bed);
        interrupt.check()?;
        match made {
            Ok(Ready {
                version, program, note, ..
            }) => {
                let mut notes = vec![version, program.line()];
                notes.extend(note);
                found.push((peer, notes));
                programs.push(program);
            }
            Err(error) => missing.push(Case::skipped(
                peer.name,
                peer.group,
                peer.what,
                Unit::Nanoseconds,
                &error.to_string(),
            )),
        }
    }
    let all = interleaved(&mut programs, args.runs as usize, &interrupt, &live)?;
    drop(live);
    for ((peer, notes), times) in found.into_iter().zip(all) {
        let repeats = Samples::repeats(&times, REPEATS)?;
        let mut case = Case::measured(peer.name, peer.group, peer.what, Unit::Nanoseconds, repeats);
        notes.into_iter().for_each(|note| case.note(note));
        run.cases.push(case);
    }
    run.cases.extend(missing);
    if !args.output.is_quiet() {
        write("-".as_ref(), &show::all(&run))?;
    }
    args.output.write(&run)?;
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(peer: &Peer, only: &[String]) -> bool {
    let named = |text: &String| peer.name.to_lowercase().contains(&text.to_lowercase());
    only.is_empty() || peer.name == peer.against || only.iter().any(named)
}

/// A peer that has just done what it is to do.
fn ready(peer: &Peer, bed: &Bed<'_>) -> trial::Result<Ready> {
    let mut ready = (peer.prepare)(bed)?;
    ready.program.try_out(ready.expected)?;
    Ok(ready)
}
