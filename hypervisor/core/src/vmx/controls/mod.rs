//! Choosing a setting of the controls that the processor takes (SDM volume 3D, sections A.2 to A.5).
//!
//! For each group somebody says what has to be on, what would be nice, and what has to be off. The
//! capability MSRs say which bits must be 1 and which may. What comes out is a [`Choice`], which prints
//! as a table, or a [`Refused`], which names the bit and the section.

mod bits;

use core::fmt;

pub use bits::{Control, entry, exit, pin, primary, secondary, secondary_exit, tertiary};

use super::capability::{Allowed, Capabilities};
use super::field::AnyField;
use super::fields;

/// A group of controls: what one field of the VMCS holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the groups' own names")]
pub enum Group {
    Pin,
    Primary,
    Secondary,
    Tertiary,
    Exit,
    SecondaryExit,
    Entry,
}

impl Group {
    /// All groups, in the order in which they are chosen.
    pub const ALL: [Self; 7] = [
        Self::Pin,
        Self::Primary,
        Self::Secondary,
        Self::Tertiary,
        Self::Exit,
        Self::SecondaryExit,
        Self::Entry,
    ];

    /// The field that holds it.
    #[must_use]
    pub const fn field(self) -> AnyField {
        match self {
            Self::Pin => fields::PIN_BASED_CONTROLS.any(),
            Self::Primary => fields::PRIMARY_CONTROLS.any(),
            Self::Secondary => fields::SECONDARY_CONTROLS.any(),
            Self::Tertiary => fields::TERTIARY_CONTROLS.any(),
            Self::Exit => fields::EXIT_CONTROLS.any(),
            Self::SecondaryExit => fields::SECONDARY_EXIT_CONTROLS.any(),
            Self::Entry => fields::ENTRY_CONTROLS.any(),
        }
    }

    /// Its controls that have names.
    #[must_use]
    pub const fn controls(self) -> &'static [Control] {
        match self {
            Self::Pin => pin::ALL,
            Self::Primary => primary::ALL,
            Self::Secondary => secondary::ALL,
            Self::Tertiary => tertiary::ALL,
            Self::Exit => exit::ALL,
            Self::SecondaryExit => secondary_exit::ALL,
            Self::Entry => entry::ALL,
        }
    }

    /// Where the SDM describes it (volume 3C).
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Pin => "26.6.1",
            Self::Primary | Self::Secondary | Self::Tertiary => "26.6.2",
            Self::Exit | Self::SecondaryExit => "26.7.1",
            Self::Entry => "26.8.1",
        }
    }

    /// The settings that the processor takes.
    #[must_use]
    pub const fn allowed(self, capabilities: &Capabilities) -> Allowed {
        match self {
            Self::Pin => capabilities.pin,
            Self::Primary => capabilities.primary,
            Self::Secondary => capabilities.secondary,
            Self::Tertiary => capabilities.tertiary,
            Self::Exit => capabilities.exit,
            Self::SecondaryExit => capabilities.secondary_exit,
            Self::Entry => capabilities.entry,
        }
    }

    /// The name of a bit, if it has one.
    #[must_use]
    pub fn name(self, bit: u32) -> Option<&'static str> {
        self.controls()
            .iter()
            .find(|control| control.bit == bit)
            .map(|control| control.name)
    }
}

/// What somebody wants of one group of controls. Bits of none of these sets are as the processor
/// likes them: 0 where it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Has to be 1; without it nothing works.
    pub required: u64,
    /// 1 where the processor can.
    pub optional: u64,
    /// Has to be 0.
    pub unwanted: u64,
}

impl Wanted {
    /// Nothing is wanted, and nothing refused.
    pub const NOTHING: Self = Self {
        required: 0,
        optional: 0,
        unwanted: 0,
    };

    /// Chooses a setting that the processor takes.
    ///
    /// # Errors
    ///
    /// When a required bit cannot be 1, or an unwanted one cannot be 0: the lowest such bit.
    pub fn choose(self, group: Group, capabilities: &Capabilities) -> Result<Choice, Refused> {
        let allowed = group.allowed(capabilities);
        let refused = |bits: u64, on| Refused {
            group,
            bit: bits.trailing_zeros(),
            on,
        };
        let missing = self.required & !allowed.may;
        if missing != 0 {
            return Err(refused(missing, true));
        }
        let stuck = self.unwanted & allowed.must;
        if stuck != 0 {
            return Err(refused(stuck, false));
        }
        let chosen = allowed.must | self.required | self.optional & allowed.may & !self.unwanted;
        Ok(Choice {
            group,
            wanted: self,
            allowed,
            chosen,
        })
    }
}

/// A setting of one group that the processor takes, and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The group.
    pub group: Group,
    /// What was wanted.
    pub wanted: Wanted,
    /// What the processor allows.
    pub allowed: Allowed,
    /// The setting for the field.
    pub chosen: u64,
}

impl Choice {
    /// The setting, for a field of 32 bits.
    ///
    /// The groups with such a field have no capability above bit 31, so nothing is lost.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "see above")]
    pub const fn low(self) -> u32 {
        self.chosen as u32
    }

    /// Whether all of these bits are 1.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.chosen & bits == bits
    }
}

impl fmt::Display for Choice {
    /// A line for the group, then one for each bit that is wanted, allowed or chosen: what was wanted
    /// of it, which values it may have, which it has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            wanted,
            allowed,
            chosen,
        } = *self;
        writeln!(
            f,
            "{} = {chosen:#x} (SDM volume 3C, section {})",
            group.field(),
            group.section()
        )?;
        writeln!(f, "  bit  {:<40}{:<10}{:<9}chosen", "control", "wanted", "allowed")?;
        let shown = wanted.required | wanted.optional | wanted.unwanted | allowed.may | allowed.must;
        for bit in (0..u64::BITS).filter(|bit| shown >> bit & 1 != 0) {
            let has = |set: u64| set >> bit & 1 != 0;
            let want = match (has(wanted.required), has(wanted.unwanted), has(wanted.optional)) {
                (true, ..) => "required",
                (_, true, _) => "off",
                (.., true) => "if can",
                _ => "-",
            };
            let may = match (has(allowed.must), has(allowed.may)) {
                (true, _) => "1",
                (_, true) => "0 or 1",
                _ => "0",
            };
            let name = group.name(bit).unwrap_or("(reserved)");
            writeln!(f, "  {bit:>3}  {name:<40}{want:<10}{may:<9}{}", u8::from(has(chosen)))?;
        }
        Ok(())
    }
}

/// A control that the processor does not let be as it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The group.
    pub group: Group,
    /// The bit.
    pub bit: u32,
    /// Whether it had to be 1.
    pub on: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, bit, on } = *self;
        write!(
            f,
            "this processor {} \"{}\", bit {bit} of the {} (SDM volume 3C, section {}); {}",
            if on { "does not offer" } else { "cannot turn off" },
            group.name(bit).unwrap_or("a reserved control"),
            group.field(),
            group.section(),
            if on { "it is needed" } else { "it has to be off" },
        )
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests;
