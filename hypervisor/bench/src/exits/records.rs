//! Puts the lines of a measuring guest together, and believes none of them.

use chiton_shared::measure::{Record, RecordError, Start};

/// The most cases of one guest.
const MAX_CASES: usize = 512;
/// The most repeats of a case.
const MAX_REPEATS: usize = 1000;
/// The most distinct values of a repeat.
const MAX_VALUES: usize = 200_000;

/// What a guest has printed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Where it ran, once it has said so.
    pub start: Option<Start>,
    /// The cases that it has spoken of, in order.
    pub cases: Vec<Recorded>,
    /// Whether it came to its end.
    pub done: bool,
    open: Option<Open>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its name.
    pub name: String,
    /// How many operations a sample has.
    pub operations: u32,
    /// The repeats that came to their end.
    pub repeats: Vec<Repeat>,
    /// Why it was skipped, if it was.
    pub skipped: Option<String>,
}

/// One repeat of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeat {
    /// Ascending values in ticks, and how often each came.
    pub values: Vec<(u64, u64)>,
    /// How many operations there were, those before the first sample included.
    pub rounds: u64,
    /// What the host has seen meanwhile.
    pub seen: Seen,
}

/// What a host has seen during one repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long processors waited for the host's host, in nanoseconds.
    pub steal: Option<u64>,
    /// How often the thread moved to another processor.
    pub migrations: Option<u64>,
    /// How many exits the processor made, by the kernel's count.
    pub exits: Option<u64>,
}

/// A repeat that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    case: String,
    values: Vec<(u64, u64)>,
}

/// What a line has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing, or a part of something.
    Nothing,
    /// It is text, and no record.
    Text,
    /// A repeat has begun.
    Begun,
    /// A repeat is over.
    Ended,
    /// A case was skipped.
    Skipped,
    /// The guest is done.
    Done,
}

/// Why lines are not what a measuring guest prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// A line is malformed.
    #[error("line {line}: {source}")]
    Record {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        source: RecordError,
    },
    /// A line comes out of turn.
    #[error("line {line}: {what}")]
    Turn {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Samples are missing, or too many.
    #[error("line {line}: the case {case} says that it has {said}, and {found} came: lines are missing")]
    Missing {
        /// Which, from 1.
        line: usize,
        /// The case.
        case: String,
        /// What its end says.
        said: String,
        /// What came.
        found: String,
    },
    /// There are no records at all.
    #[error("there is no record of a measuring guest (lines that begin with `@`)")]
    None,
}

impl Records {
    /// Reads all lines of a text, as a bare machine prints it.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    pub fn read(text: &str) -> Result<Self, RecordsError> {
        let mut records = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            records.take(number, line.trim_end_matches('\r'))?;
        }
        if records.start.is_none() {
            return Err(RecordsError::None);
        }
        Ok(records)
    }

    /// Takes one line, of this number.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    pub fn take(&mut self, number: usize, line: &str) -> Result<News, RecordsError> {
        let turn = |what| RecordsError::Turn { line: number, what };
        let record = Record::parse(line).map_err(|source| RecordsError::Record { line: number, source })?;
        let Some(record) = record else { return Ok(News::Text) };
        if !matches!(record, Record::Start(_)) && self.start.is_none() {
            return Err(turn("it comes before the guest has said where it runs"));
        }
        match record {
            Record::Start(start) => {
                if self.start.replace(start).is_some() {
                    return Err(turn("the guest begins twice"));
                }
                Ok(News::Nothing)
            }
            Record::Begin { case, repeat } => {
                if self.open.is_some() {
                    return Err(turn("a case begins in another one"));
                }
                let there = self.cases.iter().find(|other| other.name == case);
                if there.map_or(0, |case| case.repeats.len()) != repeat as usize || repeat as usize >= MAX_REPEATS {
                    return Err(turn("repeats of a case are not in order"));
                }
                self.open = Some(Open {
                    case: case.into(),
                    values: Vec::new(),
                });
                Ok(News::Begun)
            }
            Record::Samples(samples) => {
                let open = self.open.as_mut().ok_or_else(|| turn("samples belong to no case"))?;
                for (value, count) in samples.pairs() {
                    match open.values.last_mut() {
                        Some(last) if last.0 > value => return Err(turn("samples are not ascending")),
                        Some(last) if last.0 == value => last.1 = last.1.saturating_add(count),
                        _ => open.values.push((value, count)),
                    }
                }
                if open.values.len() > MAX_VALUES {
                    return Err(turn("a case has too many samples"));
                }
                Ok(News::Nothing)
            }
            Record::End {
                case,
                operations,
                warm_up,
                count,
                sum,
            } => {
                let open = self.open.take().filter(|open| open.case == case);
                let open = open.ok_or_else(|| turn("a case ends that has not begun"))?;
                check(number, &open, count, sum)?;
                let recorded = self.case(number, case)?;
                recorded.operations = operations;
                recorded.repeats.push(Repeat {
                    values: open.values,
                    rounds: count.saturating_add(warm_up.into()).saturating_mul(operations.into()),
                    seen: Seen::default(),
                });
                Ok(News::Ended)
            }
            Record::Skip { case, reason } => {
                if self.open.take().is_some_and(|open| open.case != case) {
                    return Err(turn("a case is skipped in another one"));
                }
                self.case(number, case)?.skipped = Some(reason.into());
                Ok(News::Skipped)
            }
            Record::Done => {
                if self.open.is_some() {
                    return Err(turn("the guest is done in the middle of a case"));
                }
                self.done = true;
                Ok(News::Done)
            }
        }
    }

    /// The case that has begun and has not ended.
    #[must_use]
    pub fn open(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.case.as_str())
    }

    /// What was recorded of a case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Recorded> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// The repeat that has just ended.
    pub fn last_repeat(&mut self) -> Option<&mut Repeat> {
        self.cases.last_mut()?.repeats.last_mut()
    }

    fn case(&mut self, line: usize, name: &str) -> Result<&mut Recorded, RecordsError> {
        let place = match self.cases.iter().position(|case| case.name == name) {
            Some(place) => place,
            None if self.cases.len() >= MAX_CASES => {
                let what = "there are too many cases";
                return Err(RecordsError::Turn { line, what });
            }
            None => {
                self.cases.push(Recorded {
                    name: name.into(),
                    operations: 1,
                    repeats: Vec::new(),
                    skipped: None,
                });
                self.cases.len() - 1
            }
        };
        Ok(&mut self.cases[place])
    }
}

/// Whether what came is what the end of a case says.
fn check(line: usize, open: &Open, count: u64, sum: u64) -> Result<(), RecordsError> {
    let found = open.values.iter().fold((0_u64, 0_u128), |(all, sum), (value, count)| {
        (
            all.saturating_add(*count),
            sum + u128::from(*value) * u128::from(*count),
        )
    });
    if found != (count, u128::from(sum)) || count == 0 {
        let words = |count, sum: u128| format!("{count} samples of {sum} ticks together");
        return Err(RecordsError::Missing {
            line,
            case: open.case.clone(),
            said: words(count, sum.into()),
            found: words(found.0, found.1),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
