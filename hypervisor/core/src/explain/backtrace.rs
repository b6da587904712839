//! Who called whom, by frame pointers.
//!
//! Guests are compiled so that each function begins with `push rbp; mov rbp, rsp`. So `[rbp]` is
//! the caller's `rbp` and `[rbp + 8]` the address it returns to (System V x86_64 ABI, section
//! 3.2.2). The chain must lead upwards, which bounds it by the size of the stack.

use alloc::vec::Vec;
use core::fmt;

use super::{Location, View};
use crate::boot::Place;

/// The most frames that are followed; recursion makes many.
const MOST_FOLLOWED: usize = 100_000;
/// The most lines that are kept.
const MOST_KEPT: usize = 40;

/// One line of a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where the processor is, or the caller will go on.
    pub location: Location<'a>,
    /// How many frames in a row are like this one: more than one in recursion.
    pub times: usize,
}

/// Who called whom, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backtrace<'a> {
    /// The lines.
    pub frames: Vec<Frame<'a>>,
    /// Whether there was more than was kept.
    pub cut: bool,
}

impl<'v> Backtrace<'v> {
    /// Follows the frames of a stopped guest.
    pub(super) fn new(view: &View<'v>, rip: u64, rsp: u64, rbp: u64) -> Self {
        let mut trace = Self::default();
        let here = view.locate(rip);
        trace.push(here);
        if let Some(caller) = frameless_caller(view, &here, rsp) {
            trace.push_return(view, caller);
        }
        let mut frame = rbp;
        for _ in 0..MOST_FOLLOWED {
            if !frame.is_multiple_of(8) || view.world.describe(frame) != Place::Stack {
                return trace;
            }
            let (Some(above), Some(caller)) = (view.read_u64(frame), view.read_u64(frame.wrapping_add(8))) else {
                return trace;
            };
            if caller == 0 {
                return trace;
            }
            trace.push_return(view, caller);
            if above <= frame || trace.cut {
                return trace;
            }
            frame = above;
        }
        trace.cut = true;
        trace
    }

    /// A caller: the call is before the address it returns to, which may be another function's.
    fn push_return(&mut self, view: &View<'v>, address: u64) {
        let call = view.locate(address.wrapping_sub(1));
        self.push(Location { address, ..call });
    }

    fn push(&mut self, location: Location<'v>) {
        let full = self.frames.len() == MOST_KEPT;
        match self.frames.last_mut() {
            Some(last) if last.location == location => last.times += 1,
            _ if full => self.cut = true,
            _ => self.frames.push(Frame { location, times: 1 }),
        }
    }
}

/// The caller of a function that has not made its frame yet, or of something that is no function.
fn frameless_caller(view: &View<'_>, here: &Location<'_>, rsp: u64) -> Option<u64> {
    let on_stack = |address| view.world.describe(address) == Place::Stack;
    let is_code = |address: &u64| view.world.describe(*address) == Place::Text;
    let pushed = match here.symbol {
        // Jumped to where no code is: `call` has pushed the return address and nothing else.
        None if view.world.describe(here.address) != Place::Text => 0,
        // Before `push rbp`, or right behind it: one byte.
        Some(symbol) if here.address == symbol.address => 0,
        Some(symbol) if here.address == symbol.address + 1 => 8,
        _ => return None,
    };
    let place = rsp.wrapping_add(pushed);
    if !on_stack(place) {
        return None;
    }
    view.read_u64(place).filter(is_code)
}

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = 0;
        for (i, frame) in self.frames.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let Frame { location, times } = frame;
            write!(f, "{number:>6}  {:#012x}", location.address)?;
            if location.symbol.is_some() {
                write!(f, "  {location}")?;
            }
            if *times > 1 {
                write!(f, "  ({times} times in a row)")?;
            }
            number += times;
        }
        if self.cut {
            f.write_str("\n        and more")
        } else {
            Ok(())
        }
    }
}
