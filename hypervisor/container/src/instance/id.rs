//! What an instance is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::InstanceError;

/// The identity of an instance: 32 random bytes, written in 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// How many digits.
    const DIGITS: usize = 64;
    /// How many of them are shown where people read.
    const SHORT: usize = 12;

    /// One that nobody has.
    ///
    /// # Errors
    ///
    /// [`InstanceError::System`] if the kernel has no random bytes.
    pub fn random() -> Result<Self, InstanceError> {
        let mut bytes = [0_u8; Self::DIGITS / 2];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(InstanceError::system("get random bytes"))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same in 44 letters. What a link says is kept with its inode only as far as 59 bytes: a longer one takes
    /// a block of the disk, and to give that back can be to wait for the disk.
    pub(super) fn packed(&self) -> String {
        let value = |digits: &[u8]| digits.iter().fold(0, |value, digit| value << 4 | hex(*digit));
        let two = |digits| [value(digits) >> 6, value(digits) & 63].map(|letter| LETTERS[letter] as char);
        self.0.as_bytes().chunks(3).flat_map(two).collect()
    }

    /// The one that [`packed`](Self::packed) wrote.
    pub(super) fn unpacked(text: &str) -> Option<Self> {
        let mut digits = String::new();
        for two in text.as_bytes().chunks_exact(2) {
            let [high, low] = [two[0], two[1]].map(|letter| LETTERS.iter().position(|known| *known == letter));
            // The last letters have the digit that is left over.
            let width = (Self::DIGITS - digits.len().min(Self::DIGITS)).min(3);
            digits += &format!("{:0width$x}", high? << 6 | low?);
        }
        digits.parse().ok()
    }

    /// The first twelve digits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..Self::SHORT]
    }
}

/// The digits of base 64.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> usize {
    char::from(digit).to_digit(16).unwrap_or_default() as usize
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Id {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::DIGITS && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InstanceError::NotFound(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Id {
    type Error = InstanceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

/// The name of an instance, which one at a time has. It is also a host name and the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longer is no host name.
    const MAX: usize = 63;

    /// This name.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Name`].
    pub fn new(text: &str) -> Result<Self, InstanceError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= Self::MAX && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InstanceError::Name(text.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = InstanceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_a_link_that_needs_no_block() {
        for id in [Id::random().unwrap(), Id("0".repeat(64)), Id("f".repeat(64))] {
            assert_eq!(id.packed().len(), 44);
            assert_eq!(Id::unpacked(&id.packed()), Some(id));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_link_is_an_id_or_none(text in "[A-Za-z0-9_/.ä-]{0,100}") {
            let id = Id::unpacked(&text);
            proptest::prop_assert!(id.is_none_or(|id| id.as_str().parse::<Id>().is_ok()));
        }
    }

    #[test]
    fn names_are_those_of_hosts_and_files() {
        for good in ["web", "a", "0", "db-1.example_x", &"n".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "ä", "a\n", &"n".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_64_digits_and_no_two_are_the_same() {
        let (a, b) = (Id::random().unwrap(), Id::random().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<Id>().unwrap(), a);
        assert!(a.as_str().starts_with(a.short()));
        for bad in ["", "../../etc", &"g".repeat(64), &"A".repeat(64), &"0".repeat(63)] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
    }
}
