//! What a processor with VMX is shown to do, by examples that run in a guest's place.

use super::{LIMIT, disagreements};
use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    error::{Error, Result},
};

/// The comparison with the entry checker first.
const EXAMPLES: [&str; 12] = [
    "prove",
    "page-log",
    "eptp-switching",
    "ve",
    "hook",
    "tsc",
    "fpu",
    "virtual-apic",
    "nmi",
    "timer",
    "report",
    "mtf",
];

/// Those of SVM: the comparison with its checker, and what any backend does.
const ON_SVM: [&str; 4] = ["prove", "fpu", "nmi", "timer"];

/// What each ends with.
const VERDICTS: [&str; 2] = [SHOWN, ": skipped: "];
const SHOWN: &str = ": as the manual says";
/// What no processor of Bochs does, though one says that it can.
const NOWHERE: &str = "mtf";
/// What is said on a model that has TSC scaling.
const OF_SKYLAKE_X: &str = "with the multiplier 1/2 it reads ";

/// Runs all of them on every processor of Bochs, and those of SVM.
pub(super) fn run() -> Result<()> {
    shown(&ON_SVM, Emulated::Qemu(Processor::Svm))?;
    let mut words = Vec::new();
    for model in [Model::Haswell, Model::SkylakeX, Model::Tigerlake] {
        let said = shown(&EXAMPLES, Emulated::Bochs(model))?;
        if model == Model::SkylakeX && !said.iter().any(|line| line.starts_with(OF_SKYLAKE_X)) {
            return Err(Error::Found(format!("the example tsc has slowed no time on {model:?}")));
        }
        words.extend(said);
    }
    let is_shown = |example: &&str| words.contains(&format!("{example}{SHOWN}"));
    match EXAMPLES
        .iter()
        .find(|example| **example != NOWHERE && !is_shown(example))
    {
        Some(example) => Err(Error::Found(format!("the example {example} was skipped everywhere"))),
        None => Ok(()),
    }
}

/// Runs examples, each of which says by itself whether it went as it should, in one boot. Returns all that was said.
fn shown(examples: &[&str], machine: Emulated) -> Result<Vec<String>> {
    let machine = bare::examples(examples, machine)?;
    let named = machine.named().to_owned();
    let mut words = Vec::new();
    let status = machine.run(Some(LIMIT), Input::Nothing, std::io::sink(), |line| {
        words.push(line.to_owned())
    })?;
    for example in examples {
        let mut of_it = words.iter().filter(|line| line.starts_with(&format!("{example}: ")));
        let last = of_it.next_back().map_or("", String::as_str);
        eprintln!("  {named}: {last}");
    }
    let verdicts = words
        .iter()
        .filter(|line| VERDICTS.iter().any(|verdict| line.contains(verdict)));
    if status == 0 && verdicts.count() == examples.len() {
        disagreements::compare(&named, &words)?;
        return Ok(words);
    }
    Err(Error::Found(format!(
        "examples in {named} ended with status {status}:\n{}",
        words[words.len().saturating_sub(60)..].join("\n")
    )))
}
