//! The entry checker: every rule of the SDM's chapter "VM entries", and which of them a VMCS breaks.
//!
//! When a VM entry fails, the processor says "invalid control field(s)" (VM-instruction error 7), "invalid
//! host-state field(s)" (8), or exits with reason 33, "invalid guest state", and names no field. [`check`]
//! evaluates what the processor has evaluated and names each field, its value, the rule that it breaks
//! and the section of the SDM that has the rule:
//!
//! ```
//! use chiton_core::vmx::{Capabilities, PlainVmcs, check::{NoMemory, check}, fields::*};
//!
//! let vmcs = PlainVmcs::default().with(HOST_CS_SELECTOR, 0x0b);
//! let broken = check(&vmcs, &Capabilities::default(), &NoMemory);
//! let words = broken.iter().map(ToString::to_string).find(|words| words.contains("host CS")).unwrap();
//! assert_eq!(
//!     words,
//!     "host CS selector is 0xb: the requested privilege level (bits 1:0) and the table indicator (bit 2) \
//!      are 0 (SDM volume 3C, section 28.2.3)"
//! );
//! ```
//!
//! A rule is a value: a name, words, and a function that looks at the fields. The rules of a section
//! stand together in a file, in the order of the SDM:
//!
//! | file | section | failure |
//! |---|---|---|
//! | [`controls`] | 28.2.1, VMX controls | VM-instruction error 7 |
//! | [`host`] | 28.2.2 to 28.2.4, host state and address-space size | VM-instruction error 8 |
//! | [`guest`] | 28.3.1, guest state, with the PDPTEs | exit 33 |
//! | [`msrs`] | 28.4, the MSR-load area | exit 34 |
//!
//! What depends on more than the VMCS, the capabilities and memory is not here: the state of the VMCS (clear or
//! launched), blocking by MOV SS of the hypervisor itself, SMM, and whether Intel PT is tracing.

pub mod cases;
pub mod controls;
mod entry;
pub mod guest;
pub mod host;
pub mod msrs;
#[cfg(test)]
pub(crate) mod sample;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;

pub use entry::Entry;

use super::field::AnyField;
use super::instruction_error::InstructionError;
use super::{Capabilities, VmcsRead};

/// Physical memory, as the processor reads it at a VM entry.
pub trait PhysicalRead {
    /// Eight bytes at an address that is a multiple of eight; `None` where no memory is, or it cannot be
    /// read. Rules that need the bytes then hold.
    fn read_physical(&self, address: u64) -> Option<u64>;
}

/// No memory at all: rules about what memory holds are not evaluated.
#[derive(Clone, Copy, Debug)]
pub struct NoMemory;

impl PhysicalRead for NoMemory {
    fn read_physical(&self, _: u64) -> Option<u64> {
        None
    }
}

impl<F: Fn(u64) -> Option<u64>> PhysicalRead for F {
    fn read_physical(&self, address: u64) -> Option<u64> {
        self(address)
    }
}

/// What a VM entry comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// VM-instruction error 7: invalid control fields.
    InvalidControls,
    /// VM-instruction error 8: invalid host-state fields.
    InvalidHost,
    /// Exit 33: invalid guest state.
    InvalidGuest,
    /// Exit 34: an MSR of the MSR-load area.
    InvalidMsr,
    /// The guest runs.
    Entered,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidControls => write!(f, "{}", InstructionError::INVALID_CONTROLS),
            Self::InvalidHost => write!(f, "{}", InstructionError::INVALID_HOST_STATE),
            Self::InvalidGuest => f.write_str("VM-entry failure due to invalid guest state (exit 33)"),
            Self::InvalidMsr => f.write_str("VM-entry failure due to MSR loading (exit 34)"),
            Self::Entered => f.write_str("the guest is entered"),
        }
    }
}

/// One rule of the SDM.
#[derive(Clone, Copy)]
pub struct Rule {
    /// A short name.
    pub name: &'static str,
    /// What has to be, in words.
    pub words: &'static str,
    /// Looks at the fields.
    look: fn(&Entry<'_>, &mut Broken<'_>),
}

impl Rule {
    /// A rule.
    const fn new(name: &'static str, words: &'static str, look: fn(&Entry<'_>, &mut Broken<'_>)) -> Self {
        Self { name, words, look }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The rules of one section.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its number in volume 3C.
    pub number: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What an entry comes to that breaks one of them.
    pub outcome: Outcome,
    /// Its rules.
    pub rules: &'static [Rule],
}

/// All sections, in the order in which a processor looks at them: controls and host state in any
/// order, then guest state, then MSRs.
pub const SECTIONS: [&Section; 13] = [
    &controls::EXECUTION,
    &controls::EXIT,
    &controls::ENTRY,
    &host::REGISTERS,
    &host::SEGMENTS,
    &host::ADDRESS_SPACE,
    &guest::REGISTERS,
    &guest::SEGMENTS,
    &guest::TABLES,
    &guest::POINTERS,
    &guest::ACTIVITY,
    &guest::PDPTES,
    &msrs::LOADING,
];

/// How many rules there are.
#[must_use]
pub fn rules() -> usize {
    SECTIONS.iter().map(|section| section.rules.len()).sum()
}

/// Collects the fields that break one rule.
pub struct Broken<'a> {
    /// Where they go.
    violations: &'a mut Vec<Violation>,
    /// Of which section.
    section: &'static Section,
    /// The rule.
    rule: &'static Rule,
    /// The entry.
    entry: &'a Entry<'a>,
}

impl Broken<'_> {
    /// The field breaks the rule, when `wrong`.
    fn when(&mut self, wrong: bool, field: impl Into<AnyField>) {
        if wrong {
            let field = field.into();
            let value = self.entry.raw(field);
            self.value(field, value);
        }
    }

    /// A value breaks the rule that is not in the field, but where the field leads.
    fn value(&mut self, field: impl Into<AnyField>, value: u64) {
        let Self { section, rule, .. } = *self;
        self.violations.push(Violation {
            field: field.into(),
            value,
            rule,
            section,
        });
    }
}

/// A rule that is broken, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Violation {
    /// The field.
    pub field: AnyField,
    /// Its value, or the one that it leads to.
    pub value: u64,
    /// The rule.
    pub rule: &'static Rule,
    /// Where the rule stands.
    pub section: &'static Section,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            value,
            rule,
            section,
        } = self;
        write!(
            f,
            "{field} is {value:#x}: {} (SDM volume 3C, section {})",
            rule.words, section.number
        )
    }
}

/// Evaluates every rule: what is broken, in the order of the SDM. Nothing broken means that the guest
/// is entered.
#[must_use]
pub fn check(vmcs: &dyn VmcsRead, capabilities: &Capabilities, memory: &dyn PhysicalRead) -> Vec<Violation> {
    let entry = Entry {
        vmcs,
        capabilities,
        memory,
    };
    let mut violations = Vec::new();
    for section in SECTIONS {
        for rule in section.rules {
            (rule.look)(
                &entry,
                &mut Broken {
                    violations: &mut violations,
                    section,
                    rule,
                    entry: &entry,
                },
            );
        }
    }
    violations
}

/// What a processor says of an entry that breaks these rules.
#[must_use]
pub fn outcome(violations: &[Violation]) -> Outcome {
    violations
        .iter()
        .map(|violation| violation.section.outcome)
        .min()
        .unwrap_or(Outcome::Entered)
}

/// What `--check` and a failed entry print: each broken rule, or that none is.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a>(pub &'a [Violation]);

impl fmt::Display for Findings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = rules();
        match self.0 {
            [] => return writeln!(f, "entry check: all {rules} rules hold"),
            [_] => writeln!(f, "entry check: one of {rules} rules is broken; {}", outcome(self.0))?,
            many => {
                let names: BTreeSet<&str> = many.iter().map(|violation| violation.rule.name).collect();
                let (fields, broken) = (many.len(), names.len());
                writeln!(
                    f,
                    "entry check: {fields} fields break {broken} of {rules} rules; {}",
                    outcome(many)
                )?;
            }
        }
        for violation in self.0 {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
