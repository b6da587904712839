//! A VMCS in words, by group: every field that the processor has, and what its bits mean where they
//! have names.

use alloc::string::{String, ToString};
use core::fmt::{self, Write as _};

use super::controls::Group;
use super::event::Event;
use super::field::{AnyField, Kind};
use super::fields::{self, *};
use super::instruction_error::InstructionError;
use super::report::{Report, activity_name};
use super::{VmcsFields, VmcsRead};
use crate::explain::Exception;
use crate::paging::MemoryType;

/// The groups, in the order in which they are shown, with their titles.
const GROUPS: [(Kind, &str); 4] = [
    (Kind::Information, "exit information (read-only)"),
    (Kind::Control, "controls"),
    (Kind::Guest, "guest state"),
    (Kind::Host, "host state"),
];

/// The segment registers, by the part of their fields' names that is theirs.
const SEGMENTS: [&str; 8] = ["CS", "SS", "DS", "ES", "FS", "GS", "LDTR", "TR"];
/// What a segment register has, by the last part of the fields' names.
const PARTS: [&str; 4] = ["selector", "base", "limit", "access rights"];

/// A VMCS, to be told.
#[derive(Clone, Copy)]
pub struct Dump<'a>(pub &'a dyn VmcsRead);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Reading a field that is not there is an error of its own, whose number would be shown.
        let error = self.0.read(VM_INSTRUCTION_ERROR.encoding());
        for (kind, title) in GROUPS {
            writeln!(f, "VMCS: {title}")?;
            for field in fields::all().filter(|field| field.encoding.kind() == kind && segment(*field).is_none()) {
                let value = if field == VM_INSTRUCTION_ERROR.any() {
                    error
                } else {
                    self.0.read(field.encoding)
                };
                if let Some(value) = value {
                    self.row(f, field, value)?;
                }
            }
            if kind == Kind::Guest {
                self.segments(f)?;
            }
        }
        Ok(())
    }
}

impl Dump<'_> {
    /// A field with its encoding, name, value, and words.
    fn row(&self, f: &mut fmt::Formatter<'_>, field: AnyField, value: u64) -> fmt::Result {
        let digits = field.encoding.size().digits();
        let words = self.words(field, value);
        let number = field.encoding.number();
        // Values stand one below the other at their last digit.
        write!(f, "  {number:04x}  {:<56}{:pad$}", field.name, "", pad = 16 - digits)?;
        writeln!(
            f,
            "{value:0digits$x}{}{words}",
            if words.is_empty() { "" } else { "  " }
        )
    }

    /// The segment registers as a table.
    fn segments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "        {:<6}{:<10}{:<18}{:<10}{:<8}meaning",
            "guest", "selector", "base", "limit", "rights"
        )?;
        for name in SEGMENTS {
            let part = |part: &str| {
                let field = fields::all().find(|field| segment(*field) == Some((name, part)));
                field.and_then(|field| self.0.read(field.encoding)).unwrap_or(0)
            };
            let [selector, base, limit, rights] = PARTS.map(part);
            let meaning = rights_words(rights, matches!(name, "LDTR" | "TR"));
            writeln!(
                f,
                "        {name:<6}{selector:04x}      {base:016x}  {limit:08x}  {rights:05x}   {meaning}"
            )?;
        }
        Ok(())
    }

    /// What a value means, where more is to be said than the number.
    fn words(&self, field: AnyField, value: u64) -> String {
        let is = |other: AnyField| field == other;
        let low = (value & 0xffff_ffff) as u32;
        if let Some(group) = Group::ALL.into_iter().find(|group| group.field() == field) {
            return names(group, value);
        }
        let event = |code: u32| Event(low).with(code).to_string();
        if is(ENTRY_INTERRUPTION_INFORMATION.any()) {
            event(self.0.get(ENTRY_EXCEPTION_ERROR_CODE))
        } else if is(EXIT_INTERRUPTION_INFORMATION.any()) {
            event(self.0.get(EXIT_INTERRUPTION_ERROR_CODE))
        } else if is(IDT_VECTORING_INFORMATION.any()) {
            event(self.0.get(IDT_VECTORING_ERROR_CODE))
        } else if is(EXIT_REASON.any()) {
            Report(self.0).reason().to_string()
        } else if is(EXIT_QUALIFICATION.any()) {
            Report(self.0).qualification().to_string()
        } else if is(VM_INSTRUCTION_ERROR.any()) && low != 0 {
            InstructionError(low).to_string()
        } else if is(EXCEPTION_BITMAP.any()) {
            exceptions(low)
        } else if is(EPT_POINTER.any()) && value != 0 {
            eptp(value)
        } else if is(GUEST_INTERRUPTIBILITY_STATE.any()) && low != 0 {
            blocked(low)
        } else if is(GUEST_ACTIVITY_STATE.any()) {
            activity_name(low).to_string()
        } else if is(VMCS_LINK_POINTER.any()) && value == u64::MAX {
            "none".to_string()
        } else {
            String::new()
        }
    }
}

/// The segment register of a guest field and what of it the field is, if it is one of a segment.
fn segment(field: AnyField) -> Option<(&'static str, &'static str)> {
    let (register, part) = field.name.strip_prefix("guest ")?.split_once(' ')?;
    let register = SEGMENTS.into_iter().find(|name| *name == register)?;
    Some((register, PARTS.into_iter().find(|name| *name == part)?))
}

/// The names of the controls of a group that are 1.
fn names(group: Group, value: u64) -> String {
    let on = group.controls().iter().filter(|control| value >> control.bit & 1 != 0);
    joined(on.map(|control| control.name))
}

/// Words with commas between.
fn joined(words: impl Iterator<Item = &'static str>) -> String {
    let mut all = String::new();
    for word in words {
        // Writing to a string does not fail.
        let _ = write!(all, "{}{word}", if all.is_empty() { "" } else { ", " });
    }
    all
}

/// The exceptions that exit.
fn exceptions(bitmap: u32) -> String {
    let on = (0..32).filter(|vector| bitmap >> vector & 1 != 0);
    joined(on.map(|vector| Exception(vector).names().0))
}

/// The EPTP but for the address (SDM volume 3C, table 26-9).
fn eptp(value: u64) -> String {
    let memory_type = MemoryType::of((value & 7) as u8).map_or_else(|| "reserved".to_string(), |kind| kind.to_string());
    let levels = (value >> 3 & 7) + 1;
    let flags = if value >> 6 & 1 != 0 { "with" } else { "without" };
    alloc::format!("tables {memory_type}, {levels} levels, {flags} accessed and dirty flags")
}

/// What the interruptibility state says (SDM volume 3C, table 26-3).
fn blocked(state: u32) -> String {
    const BITS: [&str; 5] = ["by STI", "by MOV SS", "by SMI", "by NMI", "enclave interruption"];
    let on = BITS.into_iter().enumerate().filter(|(bit, _)| state >> bit & 1 != 0);
    joined(on.map(|(_, words)| words))
}

/// Access rights in words (SDM volume 3C, table 26-2).
fn rights_words(rights: u64, system: bool) -> String {
    let bit = |bit: u32| rights >> bit & 1 != 0;
    if bit(16) {
        return "unusable".to_string();
    }
    let kind = match (system, rights & 0xf) {
        (true, 2) => "LDT",
        (true, 3) => "16-bit TSS, busy",
        (true, 11) => "TSS, busy",
        (true, _) => "system segment of another type",
        (false, kind) => match (kind & 8 != 0, kind & 4 != 0, kind & 2 != 0) {
            (true, false, true) => "code, readable",
            (true, false, false) => "code, execute-only",
            (true, true, true) => "conforming code, readable",
            (true, true, false) => "conforming code, execute-only",
            (false, false, true) => "data, writable",
            (false, false, false) => "data, read-only",
            (false, true, true) => "expand-down data, writable",
            (false, true, false) => "expand-down data, read-only",
        },
    };
    let width = match (system, bit(13), bit(14)) {
        (true, ..) => "",
        (_, true, _) => ", 64-bit",
        (_, _, true) => ", 32-bit",
        _ => ", 16-bit",
    };
    let present = if bit(7) { "" } else { ", not present" };
    let mut words = kind.to_string();
    // Writing to a string does not fail.
    let _ = write!(words, "{width}, level {}{present}", rights >> 5 & 3);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::PlainVmcs;
    use crate::vmx::check::sample;

    #[test]
    fn every_field_is_shown_once_with_its_value() {
        let vmcs = sample::vmcs();
        let dump = Dump(&vmcs).to_string();
        for field in fields::all().filter(|field| segment(*field).is_none()) {
            let row = format!("  {:04x}  {} ", field.encoding.number(), field.name);
            assert_eq!(dump.matches(&row).count(), 1, "{field}");
        }
        assert_eq!(
            dump.lines().count(),
            fields::all().count() - 8 * 4 + GROUPS.len() + SEGMENTS.len() + 1
        );
    }

    #[test]
    fn bits_and_events_are_told_by_name() {
        let vmcs = sample::vmcs()
            .with(EXIT_REASON, 10)
            .with(EXIT_INTERRUPTION_INFORMATION, 0x8000_0202)
            .with(VM_INSTRUCTION_ERROR, 7);
        let dump = Dump(&vmcs).to_string();
        for line in [
            "VMCS: guest state\n",
            "  4402  exit reason                                                     0000000a  CPUID\n",
            "  4400  VM-instruction error                                            00000007  VM entry with invalid control \
             field(s) (VM-instruction error 7)\n",
            "  401e  secondary processor-based VM-execution controls                 000000a2  enable EPT, enable VPID, \
             unrestricted guest\n",
            "  4404  VM-exit interruption information                                80000202  non-maskable interrupt (NMI)\n",
            "  681e  guest RIP                                               0000000000200000\n",
            "  2800  VMCS link pointer                                       ffffffffffffffff  none\n",
            "        CS    0008      0000000000000000  ffffffff  0a09b   code, readable, 64-bit, level 0\n",
            "        SS    0000      0000000000000000  00000000  10000   unusable\n",
            "        TR    0020      0000000000000000  00000067  0008b   TSS, busy, level 0\n",
        ] {
            assert!(dump.contains(line), "{line}\n{dump}");
        }
    }

    /// A VMCS without the field "MSR data", which notes that it was asked for it, as a processor does.
    struct Noting(core::cell::Cell<u64>);

    impl VmcsRead for Noting {
        fn read(&self, encoding: crate::vmx::field::Encoding) -> Option<u64> {
            if encoding == VM_INSTRUCTION_ERROR.encoding() {
                return Some(self.0.get());
            }
            let known = encoding != MSR_DATA.encoding();
            if !known {
                self.0.set(12);
            }
            known.then_some(0)
        }
    }

    #[test]
    fn the_last_error_is_that_from_before_the_dump() {
        let dump = Dump(&Noting(7.into())).to_string();
        assert!(
            dump.contains("(VM-instruction error 7)") && !dump.contains("error 12"),
            "{dump}"
        );
        assert!(!dump.contains("MSR data"));
    }

    #[test]
    fn what_exits_and_what_is_blocked_is_told_by_name() {
        let vmcs = sample::vmcs()
            .with(EXCEPTION_BITMAP, 0x6_0002)
            .with(EPT_POINTER, 0x415_305e)
            .with(GUEST_INTERRUPTIBILITY_STATE, 0b1001);
        let dump = Dump(&vmcs).to_string();
        for end in [
            "00060002  #DB, #AC, #MC\n",
            "000000000415305e  tables WB, 4 levels, with accessed and dirty flags\n",
            "00000009  by STI, by NMI\n",
        ] {
            assert!(dump.contains(end), "{end}\n{dump}");
        }
    }

    #[test]
    fn an_empty_vmcs_is_told_too() {
        assert!(Dump(&PlainVmcs::default()).to_string().contains("guest RIP"));
    }
}
