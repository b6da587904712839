//! Who we are: what `docker login` wrote, and what a registry asks for (RFC 7235, 7617, 6750, and
//! distribution's token specification).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::super::error::Doing;
use super::super::reference::DEFAULT_REGISTRY;
use super::super::spec;
use super::super::{Error, Result};
use super::url::Url;

/// Under which name `docker login` keeps the credentials of the default registry.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// How registries may be talked to, and as whom.
#[derive(Clone, Default)]
pub struct Access {
    insecure: bool,
    /// `user:password` in base64, by registry.
    credentials: BTreeMap<String, String>,
}

impl std::fmt::Debug for Access {
    /// Without the passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registries: Vec<_> = self.credentials.keys().collect();
        f.debug_struct("Access")
            .field("insecure", &self.insecure)
            .field("registries", &registries)
            .finish()
    }
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize)]
struct AuthEntry {
    auth: Option<String>,
}

impl Access {
    /// With the credentials of a file as `docker login` writes it: the one given, or
    /// `$REGISTRY_AUTH_FILE`, or `~/.docker/config.json`, if it is there. `insecure` allows
    /// talking to other machines without encryption.
    ///
    /// # Errors
    ///
    /// If the file that is given, or named in the environment, cannot be read, or any is no JSON.
    pub fn new(insecure: bool, file: Option<&Path>) -> Result<Self> {
        let var = |name| std::env::var_os(name).map(PathBuf::from);
        let given = file.map(Path::to_owned).or_else(|| var("REGISTRY_AUTH_FILE"));
        let must_be = given.is_some();
        let path = given.or_else(|| var("HOME").map(|home| home.join(".docker/config.json")));
        let mut credentials = BTreeMap::new();
        if let Some(path) = path {
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be => b"{}".to_vec(),
                read => read.at("read", &path)?,
            };
            let file: AuthFile = spec::parse(&path.to_string_lossy(), &bytes)?;
            for (name, entry) in file.auths {
                if let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) {
                    credentials.insert(name, auth);
                }
            }
        }
        Ok(Self { insecure, credentials })
    }

    /// Without credentials.
    #[must_use]
    pub const fn anonymous(insecure: bool) -> Self {
        Self {
            insecure,
            credentials: BTreeMap::new(),
        }
    }

    /// Where the registry of this name is.
    pub(super) fn base(&self, registry: &str) -> Result<Url> {
        let host = if registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            registry
        };
        let mut url = Url::parse(&format!("https://{host}/"))?;
        url.tls = !(url.is_loopback() || self.insecure);
        Ok(url)
    }

    /// Whether something may be asked there, and what is asked be seen on the way.
    pub(super) fn check(&self, url: &Url) -> Result<()> {
        if url.tls || self.insecure || url.is_loopback() {
            return Ok(());
        }
        Err(Error::Registry {
            host: url.authority.clone(),
            why: "it is another machine, reached without encryption: --insecure allows that".into(),
        })
    }

    /// `user:password` in base64.
    pub(super) fn credentials(&self, registry: &str) -> Option<&str> {
        let key = if registry == DEFAULT_REGISTRY {
            DOCKER_KEY
        } else {
            registry
        };
        let found = self.credentials.get(key).or_else(|| self.credentials.get(registry));
        found
            .or_else(|| self.credentials.get(&format!("https://{registry}")))
            .map(String::as_str)
    }
}

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads a `WWW-Authenticate`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = BTreeMap::new();
        let mut rest = rest.trim();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            fields.insert(key.trim_matches([',', ' ']).to_ascii_lowercase(), value.to_owned());
            rest = next.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer {
            realm: fields.remove("realm")?,
            service: fields.remove("service"),
            scope: fields.remove("scope"),
        })
    }
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    pub(super) fn into_text(self) -> Option<String> {
        self.token.or(self.access_token).filter(|token| !token.is_empty())
    }
}

/// Whether this is `user:password` in base64.
pub(super) fn is_credentials(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        let text = r#"Bearer realm="https://a/token",service="reg",scope="repository:x:pull,push""#;
        assert_eq!(
            Challenge::parse(text),
            bearer("https://a/token", Some("reg"), Some("repository:x:pull,push"))
        );
        assert_eq!(
            Challenge::parse("bearer Realm=http://a, service=b"),
            bearer("http://a", Some("b"), None)
        );
        for text in [
            "",
            "Bearer",
            "Bearer service=\"x\"",
            "Digest realm=\"x\"",
            "Bearer realm=\"x",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }

    #[test]
    fn other_machines_are_not_talked_to_in_the_open() {
        let access = Access::anonymous(false);
        assert!(access.base("quay.io").unwrap().tls);
        assert_eq!(access.base("docker.io").unwrap().authority, "registry-1.docker.io");
        assert!(!access.base("localhost:5000").unwrap().tls);
        assert!(access.check(&Url::parse("http://quay.io/").unwrap()).is_err());
        let insecure = Access::anonymous(true);
        assert!(insecure.check(&Url::parse("http://quay.io/").unwrap()).is_ok());
        assert!(!insecure.base("quay.io").unwrap().tls);
    }
}
