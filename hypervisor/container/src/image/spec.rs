//! The documents of the OCI image specification 1.1, as far as they are used here.
//!
//! These few structures instead of the crate `oci-spec`: that brings 50 kB more of program, and is
//! stricter than images in the wild, whose writers put `null` where a list is empty. Documents are
//! kept in the store byte for byte as they came, so nothing is lost that is not named here.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, Error, Limits, Result};

/// An image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer as it is.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer in gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer in zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's manifest, version 2 schema 2: the same fields as [`MANIFEST`].
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// In the index of a layout: the name of an image (annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// On a manifest, and a label of its configuration: the image's entrypoint is a Chiton guest.
pub const GUEST: &str = "org.chiton.guest";

/// Names with values.
pub type Annotations = BTreeMap<String, String>;

/// Takes `null` for nothing.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Points at a blob (descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Of the blob's bytes.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// What else is said of it.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// What machine it is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Of a blob with this digest and size.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
        }
    }

    /// The name it has in the index of a layout.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// A kind of machine (image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go spells it: `amd64`.
    pub architecture: String,
    /// As Go spells it: `linux`.
    pub os: String,
}

/// A list of manifests (image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`INDEX`], where it is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What is listed.
    #[serde(default, deserialize_with = "or_null")]
    pub manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX.to_owned()),
            manifests: Vec::new(),
        }
    }
}

/// What an image is made of (manifest.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// [`MANIFEST`] or [`DOCKER_MANIFEST`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    #[serde(default, deserialize_with = "or_null")]
    pub layers: Vec<Descriptor>,
    /// What else is said of it.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
}

/// How an image is to be run, and what its layers unpack to (config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// As Go spells it.
    #[serde(default)]
    pub architecture: String,
    /// As Go spells it.
    #[serde(default)]
    pub os: String,
    /// How it is run.
    #[serde(default, deserialize_with = "or_null")]
    pub config: Execution,
    /// The layers, unpacked.
    pub rootfs: RootFs,
    /// How it came to be.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

/// How an image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `user[:group]`, by name or number.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `KEY=VALUE`.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments, unless others are given.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// What else is said of it.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "Annotations::is_empty")]
    pub labels: Annotations,
}

/// The layers of an image, unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's archive, unpacked; the lowest first.
    #[serde(default, deserialize_with = "or_null")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "or_null", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Manifest {
    /// Reads and checks one.
    ///
    /// # Errors
    ///
    /// If it is no JSON, of another version, an index or has too many layers.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        let this: Self = parse(what, bytes)?;
        check_version(what, this.schema_version)?;
        if this.layers.len() > Limits::LAYERS {
            let why = format!(
                "{} layers are more than the {} that can be mounted",
                this.layers.len(),
                Limits::LAYERS
            );
            return Err(Error::document(what, why));
        }
        Ok(this)
    }
}

impl Config {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// If it is no JSON, or has no layers field.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        parse(what, bytes)
    }
}

impl Index {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// If it is no JSON, or of another version.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        let this: Self = parse(what, bytes)?;
        check_version(what, this.schema_version)?;
        Ok(this)
    }

    /// The one for this machine: `linux/amd64`, or the only one there is.
    #[must_use]
    pub fn choose(&self) -> Option<&Descriptor> {
        let ours = |one: &&Descriptor| {
            let platform = one.platform.as_ref();
            platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == "amd64")
        };
        match &self.manifests[..] {
            [only] => Some(only),
            all => all.iter().find(ours),
        }
    }
}

fn check_version(what: &str, version: u32) -> Result<()> {
    if version == 2 {
        return Ok(());
    }
    Err(Error::document(
        what,
        format!("schemaVersion {version} is not supported, only 2"),
    ))
}

/// Whether a media type is an index's.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Reads a document.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    if bytes.len() as u64 > Limits::DOCUMENT {
        return Err(Error::document(
            what,
            format!("{} bytes are more than a document may have, 4 MiB", bytes.len()),
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| Error::document(what, error))
}

/// Writes a document.
pub(super) fn to_json<T: Serialize>(what: &str, document: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::document(what, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_stands_for_nothing() {
        let text = br#"{"architecture":"amd64","os":"linux","config":null,
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = Config::parse("test", text).unwrap();
        assert_eq!(config.config, Execution::default());
        assert!(config.rootfs.diff_ids.is_empty());
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Entrypoint":null,"Labels":null},
            "rootfs":{"type":"layers"}}"#;
        assert_eq!(Config::parse("test", text).unwrap().config, Execution::default());
    }

    #[test]
    fn documents_that_cannot_be_are_refused() {
        let digest = Digest::of(b"");
        let layer = format!(r#"{{"mediaType":"x","digest":"{digest}","size":1}}"#);
        let many = vec![layer.as_str(); 501].join(",");
        for (text, words) in [
            ("".into(), "EOF"),
            (format!(r#"{{"schemaVersion":1,"config":{layer}}}"#), "schemaVersion 1"),
            (
                format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{many}]}}"#),
                "501 layers",
            ),
            (
                r#"{"schemaVersion":2,"config":{"digest":"sha256:12","size":1}}"#.into(),
                "no digest",
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":-1}}}}"#),
                "-1",
            ),
            (format!(r#"{{"x":{}"#, "[".repeat(100_000)), "EOF"),
            (" ".repeat(5 << 20), "4 MiB"),
        ] {
            let error = Manifest::parse("test", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_index_is_asked_for_this_machine() {
        let of = |arch: &str, byte: u8| {
            let platform = Platform {
                architecture: arch.into(),
                os: "linux".into(),
            };
            Descriptor {
                platform: Some(platform),
                ..Descriptor::of(MANIFEST, &[byte])
            }
        };
        let index = |manifests| Index {
            manifests,
            ..Index::default()
        };
        assert_eq!(
            index(vec![of("arm64", 1), of("amd64", 2)]).choose(),
            Some(&of("amd64", 2))
        );
        assert_eq!(index(vec![of("arm64", 1)]).choose(), Some(&of("arm64", 1)));
        assert_eq!(index(vec![of("arm64", 1), of("arm", 2)]).choose(), None);
        assert_eq!(index(vec![]).choose(), None);
    }
}
