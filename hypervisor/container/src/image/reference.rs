//! Names of images, as users of docker write them.
//!
//! ```text
//! [registry[:port]/]repository[:tag][@digest]       hello  →  docker.io/library/hello:latest
//! ```

use std::fmt;
use std::str::FromStr;

use super::{Digest, Error, Result};

/// The registry of names that give none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that give neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// The longest name without tag and digest, as in `distribution/reference`.
const MAX_NAME: usize = 255;
/// The longest tag (distribution specification 1.1, Pulling manifests).
const MAX_TAG: usize = 128;

/// The full name of an image.
///
/// ```
/// use chiton_container::image::Reference;
///
/// let name: Reference = "hello".parse()?;
/// assert_eq!(name.to_string(), "docker.io/library/hello:latest");
/// assert_eq!(name.familiar(), "hello:latest");
/// # Ok::<(), chiton_container::image::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port of the registry.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none where only a digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, where one was given.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The shortest name that means the same.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        // A part that is left out must not make another part look like it.
        let means_this = |name: &&str| name.parse::<Self>().is_ok_and(|read| read == *self);
        let shorter = ["docker.io/library/", "docker.io/"];
        let mut shorter = shorter.iter().filter_map(|prefix| full.strip_prefix(prefix));
        shorter.find(means_this).unwrap_or(&full).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why| Error::Name {
            text: text.chars().take(100).collect(),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon behind the last slash is a tag's, before it a port's.
        let name_at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[name_at..].find(':') {
            Some(colon) => (&rest[..name_at + colon], Some(&rest[name_at + colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag is 1 to 128 letters, digits, `_`, `.` and `-`, and does not begin with `.` or `-`",
            ));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((host, repository)) if is_host_like(host) => (host, repository.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        if !is_host(registry) {
            return Err(wrong("the registry is no host name or address, with or without a port"));
        }
        if path.is_empty() {
            return Err(wrong("it is empty"));
        }
        if !repository.split('/').all(is_component) {
            return Err(wrong(
                "a repository is lower-case letters and digits, with single `.`, `_` or `-` between, in parts with `/` between",
            ));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(wrong("it is longer than 255 bytes"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: if registry == DEFAULT_REGISTRY && !repository.contains('/') {
                format!("library/{repository}")
            } else {
                repository
            },
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Whether the first part of a name is a registry rather than a part of the repository.
fn is_host_like(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    good && port.is_none_or(|port| {
        port.parse::<u16>()
            .is_ok_and(|_| port.bytes().all(|b| b.is_ascii_digit()))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    (1..=MAX_TAG).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    plain(first)
        && plain(last)
        && part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn what_is_left_out_is_filled_in_as_docker_does() {
        let digest = Digest::of(b"");
        for (text, whole) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:1.2-a_B", "docker.io/library/hello:1.2-a_B"),
            ("a/b", "docker.io/a/b:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/library/hello", "docker.io/library/hello:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:2", "localhost:5000/x/y:2"),
            ("quay.io/a/b/c__d--e", "quay.io/a/b/c__d--e:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ] {
            assert_eq!(full(text), whole);
        }
        assert_eq!(full(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
        assert_eq!(
            full(&format!("a:1@{digest}")),
            format!("docker.io/library/a:1@{digest}")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a/".repeat(150) + "a";
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a:.x",
            "a:-x",
            "a b",
            "a@",
            "a@sha256:12",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "../a",
            "a/../b",
            "x.y:port/a",
            "x.y:99999/a",
            "x.y:+80/a",
            "a:b:c",
            "[::1/a",
            "é",
            "a\n",
            "-x.y/a",
            "x..y/a",
            &long,
            &tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn short_names_are_short() {
        let odd = ["library/a/b:1", "docker.io/a.b/c:1", "docker.io/localhost/c:1"];
        for text in ["hello:latest", "a/b:1", "quay.io/a:x", "localhost:1/library/a:x"]
            .into_iter()
            .chain(odd)
        {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_refused_and_a_name_reads_back(text in "[a-zA-Z0-9:/@._\\[\\]é-]{0,40}") {
            if let Ok(name) = text.parse::<Reference>() {
                prop_assert_eq!(&name.to_string().parse::<Reference>().unwrap(), &name);
                prop_assert_eq!(&name.familiar().parse::<Reference>().unwrap(), &name);
            }
        }
    }
}
