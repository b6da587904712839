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

    /// The first twelve digits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..Self::SHORT]
    }
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
