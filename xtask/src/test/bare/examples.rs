//! What a processor with VMX is shown to do, by examples that run in a guest's place.

use super::LIMIT;
use crate::{
    bare::{self, Emulated, Input, Model, Processor},
    error::{Error, Result},
};

/// The comparison with the entry checker first.
const EXAMPLES: [&str; 7] = ["prove", "page-log", "eptp-switching", "ve", "hook", "tsc", "mtf"];

/// Runs all of them on every processor of Bochs, and the comparison on SVM too.
pub(super) fn run() -> Result<()> {
    shown("prove", Emulated::Qemu(Processor::Svm))?;
    for model in [Model::Haswell, Model::SkylakeX, Model::Tigerlake] {
        for example in EXAMPLES {
            shown(example, Emulated::Bochs(model))?;
        }
    }
    Ok(())
}

/// Runs an example, which says by itself whether it went as it should.
fn shown(example: &str, machine: Emulated) -> Result<()> {
    let machine = bare::example(example, machine)?;
    let named = machine.named().to_owned();
    let mut words = Vec::new();
    let status = machine.run(Some(LIMIT), Input::Nothing, std::io::sink(), |line| {
        words.push(line.to_owned())
    })?;
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
