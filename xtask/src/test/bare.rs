//! The same guest files under KVM, on bare VMX and on bare SVM: what they say, how they end, and in which
//! words that is told.

use std::{io::Write, path::Path, process::Stdio, sync::Mutex, time::Duration};

use crate::{
    bare::{self, Model, Place},
    build,
    error::{Error, Result},
    guests, kvm, paths,
};

/// How long a machine may take for all of them.
const LIMIT: Duration = Duration::from_secs(120);

/// Guests and their arguments. None of them asks what only one of the machines has.
const RUNS: [&[&str]; 12] = [
    &["hello"],
    &["compute", "1"],
    &["exits", "100"],
    &["spec"],
    &["cat"],
    &["fault", "null-read"],
    &["fault", "write-text"],
    &["fault", "stack-overflow"],
    &["fault", "divide"],
    &["fault", "undefined"],
    &["fault", "privileged"],
    &["fault", "panic"],
];

/// What the processor is shown to do: the comparison with the entry checker first.
const EXAMPLES: [&str; 7] = ["prove", "page-log", "eptp-switching", "ve", "hook", "tsc", "mtf"];

/// What is left of one guest.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    status: i32,
    /// Its console.
    said: String,
    /// What the hypervisor says of its end.
    told: String,
}

/// Compares each guest on each machine with KVM.
pub(super) fn run() -> Result<String> {
    kvm::usable().map_err(|why| Error::Missing(format!("nothing to compare bare metal with: {why}")))?;
    let chiton = build::chiton()?;
    guests::build(&guests::all()?)?;
    let hosted: Vec<_> = RUNS.iter().map(|run| hosted(&chiton, run)).collect::<Result<_>>()?;
    let mut differences = Vec::new();
    for place in [Place::Bochs, Place::Qemu] {
        let (named, lefts) = on(place)?;
        eprintln!("  {} guests in {named}", lefts.len());
        if lefts.len() != RUNS.len() {
            return Err(Error::Found(format!(
                "{named} ran {} guests of {}",
                lefts.len(),
                RUNS.len()
            )));
        }
        for ((run, here), there) in RUNS.iter().zip(&hosted).zip(&lefts) {
            if here != there {
                differences.push(format!(
                    "`{}` in {named}: {there:#?}\nunder KVM: {here:#?}",
                    run.join(" ")
                ));
            }
        }
    }
    for model in [Model::Haswell, Model::SkylakeX, Model::Tigerlake] {
        for example in EXAMPLES {
            shown(example, model)?;
        }
    }
    if differences.is_empty() {
        Ok(format!("{} guests on 3 machines", RUNS.len()))
    } else {
        Err(Error::Found(differences.join("\n")))
    }
}

/// Runs an example, which says by itself whether it went as it should.
fn shown(example: &str, model: Model) -> Result<()> {
    let machine = bare::example(example, model)?;
    let named = machine.named().to_owned();
    let mut words = Vec::new();
    let status = machine.run(Some(LIMIT), std::io::sink(), |line| words.push(line.to_owned()))?;
    let last = words.last().cloned().unwrap_or_default();
    if status != 0 {
        return Err(Error::Found(format!(
            "example {example} in {named} ended with status {status}:\n{}",
            words[words.len().saturating_sub(20)..].join("\n")
        )));
    }
    eprintln!("  {named}: {last}");
    Ok(())
}

/// Under KVM.
fn hosted(chiton: &Path, run: &[&str]) -> Result<Left> {
    let mut command = build::without_jail(chiton);
    command.arg("run").arg(paths::guests().join(run[0])).args(&run[1..]);
    let output = command.stdin(Stdio::null()).output().map_err(|source| Error::Start {
        program: chiton.display().to_string(),
        source,
    })?;
    let told = String::from_utf8_lossy(&output.stderr).replace("chiton: ", "");
    Ok(Left {
        status: output.status.code().unwrap_or(-1),
        said: timeless(&String::from_utf8_lossy(&output.stdout)),
        told: comparable(&told),
    })
}

/// On bare metal, all in one boot: what the machine is, and what is left of each guest.
fn on(place: Place) -> Result<(String, Vec<Left>)> {
    let machine = bare::several(place, &RUNS)?;
    let named = machine.named().to_owned();
    let console = Mutex::new(Vec::new());
    let (mut lefts, mut told) = (Vec::new(), String::new());
    let mut ends = Vec::new();
    machine.run(Some(LIMIT), Shared(&console), |line| {
        if let Some(end) = End::parse(line) {
            ends.push((end, std::mem::take(&mut told)));
        } else if !line.contains(" on bare metal with ") {
            told += line.strip_prefix("chiton: ").unwrap_or(line);
            told.push('\n');
        }
    })?;
    let console = console.into_inner().unwrap_or_default();
    let mut at = 0;
    for (end, told) in ends {
        let bytes = console.get(at..at + end.console).ok_or_else(|| {
            Error::Found(format!(
                "the console of {named} has {} bytes, and the guests sent more",
                console.len()
            ))
        })?;
        at += end.console;
        lefts.push(Left {
            status: end.status,
            said: timeless(&String::from_utf8_lossy(bytes)),
            told: comparable(&told),
        });
    }
    if at != console.len() {
        return Err(Error::Found(format!(
            "the console of {named} has {} bytes, and the guests sent {at}",
            console.len()
        )));
    }
    Ok((named, lefts))
}

/// `chiton: guest=NAME status=N console=BYTES`, which ends each guest of several.
struct End {
    status: i32,
    console: usize,
}

impl End {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("chiton: guest=")?.split(' ').skip(1);
        Some(Self {
            status: words.next()?.strip_prefix("status=")?.parse().ok()?,
            console: words.next()?.strip_prefix("console=")?.parse().ok()?,
        })
    }
}

/// A text with its times taken out: numbers before `us` and `ns`.
fn timeless(text: &str) -> String {
    let words = text.split_inclusive([' ', '\n', ',']).collect::<Vec<_>>();
    let unit =
        |word: Option<&&str>| word.is_some_and(|word| matches!(word.trim_end_matches([' ', '\n', ',']), "us" | "ns"));
    (0..words.len())
        .map(|at| if unit(words.get(at + 1)) { "N " } else { words[at] })
        .collect()
}

/// Of what is told of a guest's end: all but the values of registers, in which a time may be, and the place in
/// the library where a panic leaves the guest, which for KVM is behind the doorbell's instruction.
fn comparable(told: &str) -> String {
    let lines = told.lines().filter(|line| {
        let first = line.split_whitespace().next();
        !matches!(first, Some("rax" | "rsi" | "r8" | "r12" | "rip")) && !line.contains("panic::report+")
    });
    lines.flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Where the console is collected while the machine runs.
struct Shared<'a>(&'a Mutex<Vec<u8>>);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut all) = self.0.lock() {
            all.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_out_and_nothing_else() {
        assert_eq!(
            timeless("iteration 1: 60 ns, checksum 23\nbest of 1: 7 ns\n"),
            "iteration 1: N ns, checksum 23\nbest of 1: N ns\n"
        );
    }

    #[test]
    fn registers_are_left_out() {
        assert_eq!(
            comparable("  at x\n    rax 0 rbx 1\n     r8 1\n  backtrace\n"),
            "  at x\n  backtrace\n"
        );
    }

    #[test]
    fn an_end_is_read() {
        let end = End::parse("chiton: guest=hello status=102 console=77").unwrap();
        assert_eq!((end.status, end.console), (102, 77));
        assert!(End::parse("chiton: end status=0").is_none());
    }
}
