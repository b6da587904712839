//! Landlock: a second wall, which holds even where a path leads out of the root.
//!
//! It knows nothing of namespaces: a file that is not below the jail's root directory is refused,
//! however it was reached, and so is every change of mounts.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use super::error::{Failure, Step};

/// What is asked for, where the kernel has it.
const NEWEST: ABI = ABI::V6;

/// How much of Landlock holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Enforced {
    /// It was turned off.
    Off,
    /// The kernel has none.
    Nothing,
    /// The kernel has an older one, which restricts less: Linux before 6.12.
    Partly,
    /// All of it.
    Fully,
}

impl Enforced {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Off, Self::Nothing, Self::Partly, Self::Fully]
            .into_iter()
            .find(|enforced| *enforced as u8 == byte)
    }
}

/// Whether there is Landlock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Landlock {
    /// Not at all.
    Off,
    /// As much as the kernel has; [`Jailed::landlock`](super::Jailed::landlock) says how much that was.
    #[default]
    WhereKnown,
    /// All of it, or there is no jail.
    Required,
}

/// Restricts this thread, and those it starts, to files below `/`.
pub(super) fn restrict(wish: Landlock) -> Result<Enforced, Failure> {
    if wish == Landlock::Off {
        return Ok(Enforced::Off);
    }
    let status = rules(wish).map_err(|reason| Failure::refused(Step::Landlock, reason))?;
    Ok(match status {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Nothing,
    })
}

fn rules(wish: Landlock) -> Result<RulesetStatus, String> {
    let all = AccessFs::from_all(NEWEST);
    // No device is made, and none is controlled but those in /dev. What was opened before is free.
    let devices = AccessFs::MakeBlock | AccessFs::MakeChar;
    let anywhere = all & !(devices | AccessFs::IoctlDev);
    let level = match wish {
        Landlock::Required => CompatLevel::HardRequirement,
        Landlock::Off | Landlock::WhereKnown => CompatLevel::BestEffort,
    };
    let words = |error: &dyn std::error::Error| error.to_string();
    let mut ruleset = Ruleset::default()
        .set_compatibility(level)
        .handle_access(all)
        .map_err(|error| words(&error))?
        .scope(Scope::from_all(NEWEST))
        .map_err(|error| words(&error))?
        .create()
        .map_err(|error| words(&error))?;
    for (path, access) in [("/", anywhere), ("/dev", anywhere | AccessFs::IoctlDev)] {
        // A jail need not have a /dev.
        let Ok(directory) = PathFd::new(path) else { continue };
        ruleset = ruleset
            .add_rule(PathBeneath::new(directory, access))
            .map_err(|error| words(&error))?;
    }
    Ok(ruleset.restrict_self().map_err(|error| words(&error))?.ruleset)
}
