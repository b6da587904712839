//! `chiton logs`: what an instance wrote.

use std::error::Error;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::time::{Duration, SystemTime};

use chiton_container::instance::{Line, Stream, Watch};
use clap::Args;

/// How long to wait at the most before looking whether the instance still lives: its supervisor may have
/// been killed.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Go on until the instance ends.
    #[arg(short, long)]
    follow: bool,

    /// Only the last so many lines.
    #[arg(short = 'n', long, value_name = "LINES", value_parser = lines)]
    tail: Option<usize>,

    /// With the time of each line.
    #[arg(short, long)]
    timestamps: bool,

    /// Only what is younger: a time like 10m, or a moment like 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,

    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,
}

fn lines(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no number of lines: write 20"))
}

/// A moment, or how long it is ago.
pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(moment) = humantime::parse_rfc3339_weak(text) {
        return Ok(moment);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no time: write 10m, 2h or 2026-01-31T12:00:00Z"))?;
    SystemTime::now()
        .checked_sub(ago)
        .ok_or_else(|| format!("`{text}` ago there were no clocks"))
}

pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let instance = super::open()?.find(&options.target)?;
    let watch = options.follow.then(|| Watch::new(&[instance.dir()])).transpose()?;
    let mut log = instance.log()?;
    if let Some(count) = options.tail {
        for line in log.last(count)? {
            if !print(options, &line)? {
                return Ok(());
            }
        }
    }
    loop {
        // Asked before the last look: what is written before the end is seen.
        let ended = !instance.is_live();
        while let Some(line) = log.next_line()? {
            if !print(options, &line)? {
                return Ok(());
            }
        }
        match &watch {
            Some(watch) if !ended => watch.wait(LOOK)?,
            _ => return Ok(()),
        }
    }
}

/// Prints a line to where it was written to; whether anybody reads.
fn print(options: &Options, line: &Line) -> Result<bool, Box<dyn Error>> {
    if options.since.is_some_and(|since| line.time.system_time() < since) {
        return Ok(true);
    }
    let time = if options.timestamps {
        format!("{} ", line.time)
    } else {
        String::new()
    };
    let text = time + &line.log;
    let result = match line.stream {
        Stream::Stdout => stdout().write_all(text.as_bytes()),
        Stream::Stderr => stderr().write_all(text.as_bytes()),
    };
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}
