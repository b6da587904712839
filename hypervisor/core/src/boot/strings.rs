//! Arguments and environment.

use alloc::string::String;
use alloc::vec::Vec;

use chiton_shared::boot::Strings;
use chiton_shared::map;

use super::BootError;

/// Size of the area, in bytes.
const ROOM: usize = (map::BOOT_STRINGS_END - map::BOOT_STRINGS) as usize;

/// The strings that the boot page points to.
#[derive(Clone, Debug)]
pub(super) struct StringArea {
    /// Each ended by a NUL, as they are to lie from [`map::BOOT_STRINGS`] on.
    pub(super) bytes: Vec<u8>,
    pub(super) args: Strings,
    pub(super) env: Strings,
}

impl StringArea {
    pub(super) fn new(args: &[String], env: &[String]) -> Result<Self, BootError> {
        let needs = args
            .iter()
            .chain(env)
            .map(|s| s.len().saturating_add(1))
            .fold(0, usize::saturating_add);
        if needs > ROOM {
            return Err(BootError::StringsTooLong { needs, room: ROOM });
        }
        let named = |variable: &&String| variable.find('=').is_none_or(|at| at == 0);
        if let Some(variable) = env.iter().find(named) {
            return Err(BootError::Environment(variable.clone()));
        }
        let mut bytes = Vec::with_capacity(needs);
        let args = append(&mut bytes, "argument", args)?;
        let env = append(&mut bytes, "environment variable", env)?;
        Ok(Self { bytes, args, env })
    }
}

fn append(bytes: &mut Vec<u8>, what: &'static str, strings: &[String]) -> Result<Strings, BootError> {
    let before = bytes.len();
    for (index, string) in strings.iter().enumerate() {
        if string.contains('\0') {
            return Err(BootError::Nul { what, index });
        }
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
    }
    // Both fit: the area is smaller than 64 KiB.
    let (len, count) = ((bytes.len() - before) as u32, strings.len() as u32);
    Ok(Strings {
        start: map::BOOT_STRINGS + before as u64,
        len,
        count,
    })
}
