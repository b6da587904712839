//! Guests that run at once, each on a processor of its own: what each says, and how it ends.

use std::{path::Path, sync::Mutex};

use super::{End, LIMIT, MACHINES, Shared, hosted, run_of, timeless};
use crate::{
    bare::{self, Hardware, Input},
    error::{Error, Result},
    paths,
};

/// How many there are.
const PROCESSORS: usize = 2;

/// Runs `hello` on each processor of a machine with two; returns what is wrong.
pub(super) fn run(chiton: &Path) -> Result<Vec<String>> {
    let expected = hosted(chiton, &run_of(&["hello"]))?;
    let path = paths::guests().join("hello");
    let content = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let lines = (0..PROCESSORS).flat_map(|on| ["guest=hello".into(), format!("on={on}"), String::new()]);
    let lines: Vec<String> = lines.collect();
    let ramdisk = bare::ramdisk_with(&[("guests/hello".into(), content)], Some(&lines))?;
    let image = bare::image_of("together", Some(&ramdisk))?;
    let hardware = Hardware {
        processors: PROCESSORS as u32,
        ..Hardware::default()
    };
    let mut found = Vec::new();
    for machine in MACHINES {
        let machine = machine.boot_with(&image, hardware)?;
        let named = machine.named().to_owned();
        let console = Mutex::new(Vec::new());
        let mut ends = Vec::new();
        let mut told = Vec::new();
        let status = machine.run(Some(LIMIT), Input::Nothing, Shared(&console), |line| {
            match End::parse(line) {
                Some(end) => ends.push(end.status),
                None => told.push(line.to_owned()),
            }
        })?;
        eprintln!("  {PROCESSORS} guests at once in {named}");
        let console = String::from_utf8_lossy(&console.into_inner().unwrap_or_default()).into_owned();
        for processor in 0..PROCESSORS {
            let prefix = format!("{processor}|");
            let said = console
                .split_inclusive('\n')
                .filter_map(|line| line.strip_prefix(&prefix));
            let said = timeless(&said.collect::<String>());
            if said != expected.said {
                found.push(format!(
                    "processor {processor} of {named} says {said:?}, of {console:?}"
                ));
            }
        }
        let brought_up = told
            .iter()
            .any(|line| *line == format!("chiton: {PROCESSORS} processors"));
        if (status, &ends[..], brought_up) != (0, &[0; PROCESSORS], true) {
            found.push(format!(
                "{named} ends with {status}, its guests with {ends:?}: {told:?}"
            ));
        }
    }
    Ok(found)
}
