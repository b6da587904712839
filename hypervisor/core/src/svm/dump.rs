//! A VMCB for people: every field that is not zero, with what its bits say.

use alloc::format;
use alloc::string::String;
use core::fmt;

use super::event::Event;
use super::exit::{Code, exception_name};
use super::field::{AnyField, SAVE_AREA};
use super::information::Information;
use super::intercept::{vector3, vector4, vector5};
use super::{VmcbFields, VmcbRead, fields};

/// A VMCB, field by field.
pub struct Dump<'a>(pub &'a dyn VmcbRead);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VMCB, control area (APM volume 2, table B-1)")?;
        table(f, self.0, fields::CONTROL_AREA)?;
        f.write_str("\nVMCB, state-save area (table B-2)")?;
        table(f, self.0, fields::STATE_SAVE_AREA)?;
        f.write_str("\nwhat is zero is left out")
    }
}

fn table(f: &mut fmt::Formatter<'_>, vmcb: &dyn VmcbRead, table: &[AnyField]) -> fmt::Result {
    for field in table {
        let value = vmcb.read(field.offset, field.bytes);
        if value == 0 && field.offset != fields::EXITCODE.offset() {
            continue;
        }
        let digits = usize::from(field.bytes) * 2;
        // Offsets in the save area are counted from its beginning, as in the manual.
        let offset = field.offset % SAVE_AREA;
        write!(f, "\n  {offset:#05x} {:<28} {value:0digits$x}", field.name)?;
        words(f, vmcb, field, value)?;
    }
    Ok(())
}

/// What a value says, where it is no plain number.
fn words(f: &mut fmt::Formatter<'_>, vmcb: &dyn VmcbRead, field: &AnyField, value: u64) -> fmt::Result {
    let is = |offset: u16| field.offset == offset;
    if is(fields::EXITCODE.offset()) {
        return write!(f, "  {}", Code::of(value));
    }
    if is(fields::EXITINFO1.offset()) {
        return write!(f, "  {}", Information(vmcb));
    }
    if is(fields::EVENTINJ.offset()) || is(fields::EXITINTINFO.offset()) {
        return write!(f, "  {}", Event(value));
    }
    // Reads in the lower half, writes in the upper; for exceptions a bit for each vector.
    let set = || (0..32_u8).filter(move |bit| value >> bit & 1 != 0);
    for (vector, register) in [(fields::INTERCEPT_CR, "CR"), (fields::INTERCEPT_DR, "DR")] {
        if is(vector.offset()) && value == u32::MAX.into() {
            return write!(f, "  every access to {register}s");
        }
        if is(vector.offset()) {
            let words = set().map(|bit| (if bit < 16 { "reads" } else { "writes" }, bit & 15));
            return list(f, words.map(|(what, number)| format!("{what} of {register}{number}")));
        }
    }
    if is(fields::INTERCEPT_EXCEPTIONS.offset()) {
        return list(
            f,
            set().map(|vector| exception_name(vector).map_or_else(|| format!("{vector}"), String::from)),
        );
    }
    for (vector, names) in [
        (fields::INTERCEPT_3, vector3::ALL),
        (fields::INTERCEPT_4, vector4::ALL),
        (fields::INTERCEPT_5, vector5::ALL),
    ] {
        if is(vector.offset()) {
            let set = names.iter().filter(|(bit, _)| vmcb.get(vector) & bit != 0);
            return list(f, set.map(|(_, name)| name));
        }
    }
    Ok(())
}

fn list(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    let mut before = "  ";
    for word in words {
        write!(f, "{before}{word}")?;
        before = ", ";
    }
    Ok(())
}
