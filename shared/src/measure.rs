//! What a measuring guest prints: one record a line, exact, for a program to read.
//!
//! ```text
//! @measure 1 tsc_khz=2445405 ring=3 processors=1
//! @begin cpuid repeat=0
//! @samples 17002 17010x3 17344
//! @end cpuid operations=1 warmup=100 count=5 sum=85376
//! @skip vmcall it needs ring 0
//! @done
//! ```
//!
//! Samples are ticks of the time-stamp counter, sorted, and equal ones counted, so that nothing is lost and
//! little is printed. Count and sum say whether a line is missing. A case that was begun and has no end is the one
//! in which the guest hung or was killed. Lines that do not begin with [`MARK`] are no records: text of the guest,
//! or of whoever else writes to the same console.
//!
//! Whoever reads has a guest at the other end: [`Record::parse`] believes nothing, and allocates nothing.

use core::fmt;

/// Ports and addresses that cases use, where no machine has a device. A host that measures puts there what the
/// case is about; on any other machine a write is lost and a read gives all ones.
pub mod place {
    use crate::{doorbell, map};

    /// Nothing is here: the answer comes from the host's program.
    pub const NONE: usize = 15;
    /// An eventfd, whatever is written.
    pub const WILDCARD: usize = 14;
    /// An eventfd, for the value [`DATA`] alone.
    pub const DATAMATCH: usize = 13;
    /// Writes are collected by the kernel, for later.
    pub const COALESCED: usize = 12;
    /// The host answers with the time-stamps of its end: see [`Stamps`].
    pub const STAMPS: usize = 11;
    /// An eventfd, at which a thread of the host waits; it counts in [`Stamps::rung`].
    pub const LISTENER: usize = 10;
    /// The host raises an interrupt by an eventfd, on its way out of this one.
    pub const INTERRUPT: usize = 9;

    /// The host protects all pages that were written from being written again, until they are.
    pub const PROTECT: usize = 8;

    /// The vector of [`INTERRUPT`], and of all interrupts that cases wait for.
    pub const VECTOR: u8 = 0xb0;
    /// What [`DATAMATCH`] is for.
    pub const DATA: u32 = 1;

    /// The port of a place.
    #[must_use]
    pub const fn port(place: usize) -> u16 {
        doorbell::kick(place)
    }

    /// The address of a place.
    #[must_use]
    pub const fn address(place: usize) -> u64 {
        map::device_registers(place)
    }

    /// What the host leaves in the text of processor 0's mailbox, in ticks of its time-stamp counter.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Stamps {
        /// When the exit came to the host's kernel; 0 if nobody has looked.
        pub exited: u64,
        /// When it was back in its program.
        pub left: u64,
        /// When it was about to enter the guest again.
        pub entered: u64,
        /// How often a thread has heard of [`LISTENER`].
        pub rung: u64,
    }
}

/// With what every record begins.
pub const MARK: char = '@';
/// The version of this form. Readers refuse another one.
pub const VERSION: u32 = 1;
/// How long the name of a case may be, in bytes.
pub const NAME_MAX: usize = 48;
/// How many distinct values a line of samples has at the most.
pub const PAIRS_MAX: usize = 48;
/// How long the reason of a case that was skipped may be, in bytes.
pub const REASON_MAX: usize = 400;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first: the form's version, and where the guest runs.
    Start(Start),
    /// A case begins, for the time `repeat` (from 0).
    Begin {
        /// The case.
        case: &'a str,
        /// Which of its repeats.
        repeat: u32,
    },
    /// Some of its samples; later lines have greater ones.
    Samples(Samples<'a>),
    /// The case is over.
    End {
        /// The case.
        case: &'a str,
        /// How many operations each sample is the time of, 1 or more.
        operations: u32,
        /// How many samples came before, and were thrown away.
        warm_up: u32,
        /// How many samples it had.
        count: u64,
        /// Their sum, in ticks.
        sum: u64,
    },
    /// The guest does not run a case.
    Skip {
        /// The case.
        case: &'a str,
        /// Why, in words.
        reason: &'a str,
    },
    /// The last: nothing is missing.
    Done,
}

/// Where the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Ticks of the time-stamp counter in a millisecond, as the host told the guest.
    pub tsc_khz: u64,
    /// The ring, 0 or 3.
    pub ring: u8,
    /// How many processors there are.
    pub processors: u32,
}

/// The samples of one line: ascending values, and how often each came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples<'a> {
    /// To be printed: sorted, as they were measured.
    Sorted(&'a [u64]),
    /// As read, and found well formed.
    Text(&'a str),
}

impl<'a> Samples<'a> {
    /// Values and counts, in ascending order.
    pub fn pairs(self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let (mut sorted, mut text) = match self {
            Self::Sorted(values) => (values, ""),
            Self::Text(text) => (&[][..], text),
        };
        core::iter::from_fn(move || {
            if let Some(&value) = sorted.first() {
                let count = sorted.iter().take_while(|other| **other == value).count();
                sorted = &sorted[count..];
                return Some((value, count as u64));
            }
            let word;
            (word, text) = text.split_once(' ').unwrap_or((text, ""));
            pair(word)
        })
    }

    /// Samples in lines of their own: sorted ones, cut so that no line is too long.
    pub fn lines(mut sorted: &'a [u64]) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let mut length = 0;
            for (_, count) in Samples::Sorted(sorted).pairs().take(PAIRS_MAX) {
                length += count as usize;
            }
            let line;
            (line, sorted) = sorted.split_at(length);
            (!line.is_empty()).then_some(Self::Sorted(line))
        })
    }
}

/// `VALUE` or `VALUExCOUNT`.
fn pair(word: &str) -> Option<(u64, u64)> {
    let (value, count) = match word.split_once('x') {
        Some((value, count)) => (value, number(count)?),
        None => (word, 1),
    };
    Some((number(value)?, count))
}

/// Decimal digits and nothing else, unlike `parse`, which takes a sign.
fn number<T: core::str::FromStr>(word: &str) -> Option<T> {
    word.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| word.parse().ok())
        .flatten()
}

/// Why a line that begins like a record is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is of another version.
    #[error(
        "the guest's records are of version {0}, and this program reads version {VERSION}: build both from the same release"
    )]
    Version(u32),
    /// It is none of the forms.
    #[error("this is no record of a measuring guest")]
    Form,
    /// The name of a case is none.
    #[error("the name of a case is not 1 to {NAME_MAX} lower-case letters, digits, `_`, `-`, `+` and `.`")]
    Name,
    /// Samples are not ascending, or more than a line has.
    #[error("samples have to be ascending, each with a count, and at most {PAIRS_MAX} in a line")]
    Samples,
}

impl<'a> Record<'a> {
    /// Reads a line without its end. `None` if it is no record at all.
    ///
    /// # Errors
    ///
    /// [`RecordError`], for a line that begins like a record.
    pub fn parse(line: &'a str) -> Result<Option<Self>, RecordError> {
        let Some(record) = line.strip_prefix(MARK) else {
            return Ok(None);
        };
        let (word, rest) = record.split_once(' ').unwrap_or((record, ""));
        Ok(Some(match word {
            "measure" => Self::Start(start(rest)?),
            "begin" => {
                let mut words = rest.split(' ');
                let case = name(words.next())?;
                let repeat = field(words.next(), "repeat=")?;
                end(words)?;
                Self::Begin { case, repeat }
            }
            "samples" => Self::Samples(samples(rest)?),
            "end" => {
                let mut words = rest.split(' ');
                let case = name(words.next())?;
                let operations = field(words.next(), "operations=")?;
                let warm_up = field(words.next(), "warmup=")?;
                let count = field(words.next(), "count=")?;
                let sum = field(words.next(), "sum=")?;
                end(words)?;
                if operations == 0 {
                    return Err(RecordError::Form);
                }
                Self::End {
                    case,
                    operations,
                    warm_up,
                    count,
                    sum,
                }
            }
            "skip" => {
                let (case, reason) = rest.split_once(' ').ok_or(RecordError::Form)?;
                if reason.is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
                    return Err(RecordError::Form);
                }
                Self::Skip {
                    case: name(Some(case))?,
                    reason,
                }
            }
            "done" if rest.is_empty() => Self::Done,
            _ => return Err(RecordError::Form),
        }))
    }
}

fn start(rest: &str) -> Result<Start, RecordError> {
    let mut words = rest.split(' ');
    match words.next().and_then(number).ok_or(RecordError::Form)? {
        VERSION => {}
        other => return Err(RecordError::Version(other)),
    }
    let start = Start {
        tsc_khz: field(words.next(), "tsc_khz=")?,
        ring: field(words.next(), "ring=")?,
        processors: field(words.next(), "processors=")?,
    };
    end(words)?;
    Ok(start)
}

fn field<T: core::str::FromStr>(word: Option<&str>, key: &str) -> Result<T, RecordError> {
    word.and_then(|word| word.strip_prefix(key))
        .and_then(number)
        .ok_or(RecordError::Form)
}

fn end<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<(), RecordError> {
    words.next().map_or(Ok(()), |_| Err(RecordError::Form))
}

/// The name of a case, if it is one.
fn name(word: Option<&str>) -> Result<&str, RecordError> {
    word.filter(|name| is_name(name)).ok_or(RecordError::Name)
}

/// Whether this can be the name of a case.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-+.".contains(&byte))
}

fn samples(text: &str) -> Result<Samples<'_>, RecordError> {
    let mut least = 0;
    for (index, word) in text.split(' ').enumerate() {
        let (value, count) = pair(word).ok_or(RecordError::Samples)?;
        if count == 0 || index == PAIRS_MAX || (index > 0 && value <= least) {
            return Err(RecordError::Samples);
        }
        least = value;
    }
    Ok(Samples::Text(text))
}

impl fmt::Display for Record<'_> {
    /// The line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_char(f, MARK)?;
        match self {
            Self::Start(start) => write!(
                f,
                "measure {VERSION} tsc_khz={} ring={} processors={}",
                start.tsc_khz, start.ring, start.processors
            ),
            Self::Begin { case, repeat } => write!(f, "begin {case} repeat={repeat}"),
            Self::Samples(samples) => {
                f.write_str("samples")?;
                samples.pairs().try_for_each(|(value, count)| match count {
                    1 => write!(f, " {value}"),
                    _ => write!(f, " {value}x{count}"),
                })
            }
            Self::End {
                case,
                operations,
                warm_up,
                count,
                sum,
            } => write!(
                f,
                "end {case} operations={operations} warmup={warm_up} count={count} sum={sum}"
            ),
            Self::Skip { case, reason } => write!(f, "skip {case} {reason}"),
            Self::Done => f.write_str("done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a line says, with samples as pairs.
    fn read(line: &str) -> Result<Option<Record<'_>>, RecordError> {
        Record::parse(line)
    }

    #[test]
    fn the_records_of_the_manual_are_read_and_written_as_they_are() {
        for line in [
            "@measure 1 tsc_khz=2445405 ring=3 processors=1",
            "@begin cpuid repeat=0",
            "@samples 17002 17010x3 17344",
            "@end cpuid operations=1 warmup=100 count=5 sum=85376",
            "@skip vmcall it needs ring 0",
            "@done",
        ] {
            assert_eq!(read(line).unwrap().unwrap().to_string(), line);
        }
    }

    #[test]
    fn other_text_is_no_record() {
        for line in ["", "hello", " @done", "measure 1"] {
            assert_eq!(read(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        assert_eq!(read("@measure 2 anything at all"), Err(RecordError::Version(2)));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for line in [
            "@",
            "@nothing",
            "@done now",
            "@measure",
            "@measure 1",
            "@measure 1 tsc_khz=1 ring=3 processors=1 more",
            "@measure 1 tsc_khz=-1 ring=3 processors=1",
            "@begin cpuid",
            "@begin cpuid repeat=+1",
            "@begin cpuid repeat=0 more",
            "@begin CPUID repeat=0",
            "@begin  repeat=0",
            "@end cpuid operations=0 warmup=0 count=1 sum=1",
            "@end cpuid count=1 sum=1 operations=1 warmup=0",
            "@samples",
            "@samples ",
            "@samples 1 1",
            "@samples 2 1",
            "@samples 1x0",
            "@samples 1x",
            "@samples x1",
            "@samples 1  2",
            "@samples 18446744073709551616",
            "@end cpuid count=1",
            "@skip vmcall",
            "@skip vmcall ",
            "@skip vmcall a\u{7}b",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let long = format!("@begin {} repeat=0", "a".repeat(NAME_MAX + 1));
        assert_eq!(read(&long), Err(RecordError::Name));
        let many: String = (0..=PAIRS_MAX).map(|value| format!(" {value}")).collect();
        assert_eq!(read(&format!("@samples{many}")), Err(RecordError::Samples));
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in "@?(measure|begin|samples|end|skip)? ?.{0,80}") {
            if let Ok(Some(record)) = read(&line) {
                // What is understood is printed so that it is understood alike.
                let again = record.to_string();
                prop_assert_eq!(Record::parse(&again).unwrap().unwrap().to_string(), again);
            }
        }

        #[test]
        fn samples_come_out_as_they_went_in(mut values in prop::collection::vec(0_u64..200, 0..400)) {
            values.sort_unstable();
            let lines: Vec<_> = Samples::lines(&values).map(|line| Record::Samples(line).to_string()).collect();
            let mut back = Vec::new();
            for line in &lines {
                let Ok(Some(Record::Samples(samples))) = Record::parse(line) else { panic!("{line}") };
                prop_assert!(samples.pairs().count() <= PAIRS_MAX);
                back.extend(samples.pairs().flat_map(|(value, count)| (0..count).map(move |_| value)));
            }
            prop_assert_eq!(back, values);
        }
    }
}
