//! The keys that let go of a console: which they are, and where they are among what is typed.

use std::str::FromStr;
use std::sync::Arc;

use rustix::termios::{InputModes, SpecialCodeIndex, Termios};

/// What a terminal does at a key instead of giving it (termios(3)).
const SPECIAL: [SpecialCodeIndex; 12] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
];

/// One key after the other, as the bytes that a terminal gives; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys(Arc<[u8]>);

impl Keys {
    /// Has a terminal give them, each as it is, and at once with the last.
    pub(super) fn free(&self, modes: &mut Termios) {
        for index in SPECIAL {
            if self.0.contains(&modes.special_codes[index]) {
                // No key at all.
                modes.special_codes[index] = 0;
            }
        }
        // Else one of them would still hold the output, and the other not let it go.
        if [SpecialCodeIndex::VSTART, SpecialCodeIndex::VSTOP]
            .iter()
            .any(|index| modes.special_codes[*index] == 0)
        {
            modes.input_modes.remove(InputModes::IXON);
        }
        if let Some(last) = self.0.last() {
            modes.special_codes[SpecialCodeIndex::VEOL] = *last;
        }
    }
}

/// As docker reads `--detach-keys`.
impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = |name: &str| match name.as_bytes() {
            // What Enter gives is a new line: the terminal makes it one.
            b"ctrl-m" => Some(b'\n'),
            [b'c', b't', b'r', b'l', b'-', key @ (b'a'..=b'z' | b'['..=b'_')] => Some(key & 0x1f),
            b"DEL" => Some(0x7f),
            [key @ b' '..=b'~'] => Some(*key),
            _ => None,
        };
        let keys = text.split(',').map(|name| {
            key(name).ok_or_else(|| {
                format!(
                    "`{name}` is no key: write a character of ASCII, DEL, or ctrl- and one of a to z, [, \\, ], ^ and _, with \
                     commas between, as ctrl-p,ctrl-q"
                )
            })
        });
        keys.collect::<Result<_, _>>().map(Self)
    }
}

/// Finds the keys among what is typed.
pub(super) struct Finder {
    keys: Keys,
    /// So many of them were typed last.
    begun: usize,
}

impl Finder {
    pub(super) fn new(keys: &Keys) -> Self {
        Self {
            keys: keys.clone(),
            begun: 0,
        }
    }

    /// What is not part of them, and whether they were there. Some of them alone are as good as any other key, once
    /// another follows.
    pub(super) fn sift(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut rest = Vec::with_capacity(typed.len() + self.begun);
        for byte in typed {
            let mut held = keys[..self.begun].to_vec();
            held.push(*byte);
            let mut others = 0;
            while !keys.starts_with(&held[others..]) {
                others += 1;
            }
            rest.extend(held.drain(..others));
            self.begun = held.len();
            if self.begun == keys.len() {
                self.begun = 0;
                return (rest, true);
            }
        }
        (rest, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Keys {
        text.parse().unwrap()
    }

    #[test]
    fn the_keys_are_found_however_they_come_and_nothing_else_is_lost() {
        let sift_for = |text: &str, pieces: &[&[u8]]| {
            let mut finder = Finder::new(&keys(text));
            let mut all = Vec::new();
            for piece in pieces {
                let (bytes, ends) = finder.sift(piece);
                all.extend(bytes);
                if ends {
                    return (all, true);
                }
            }
            (all, false)
        };
        let sift = |pieces: &[&[u8]]| sift_for("ctrl-p,ctrl-q", pieces);
        assert_eq!(sift(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(sift(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(sift(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(sift(&[b"a\x10", b"b\x11\n"]), (b"a\x10b\x11\n".to_vec(), false));
        assert_eq!(sift_for("ctrl-]", &[b"a\x1d"]), (b"a".to_vec(), true));
        assert_eq!(sift_for("x,x,y", &[b"xx", b"xxzxx", b"y"]), (b"xxxxz".to_vec(), true));
    }

    #[test]
    fn keys_are_written_as_for_docker() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[0x10, 0x11][..]),
            ("a", b"a"),
            ("ctrl-\\,ctrl-_,DEL,~", &[0x1c, 0x1f, 0x7f, b'~']),
            ("ctrl-m", b"\n"),
        ] {
            assert_eq!(keys(text), Keys(bytes.into()), "{text}");
        }
        for (text, name) in [
            ("", ""),
            ("ctrl-p,", ""),
            ("ctrl-é", "ctrl-é"),
            ("ctrl-p,ctrl-A", "ctrl-A"),
            ("ctrl-@", "ctrl-@"),
            ("ctrl-p ctrl-q", "ctrl-p ctrl-q"),
            ("^P", "^P"),
            ("  ", "  "),
            ("é", "é"),
        ] {
            let said = text.parse::<Keys>().unwrap_err();
            assert!(said.starts_with(&format!("`{name}` is no key: write")), "{said}");
        }
    }
}
