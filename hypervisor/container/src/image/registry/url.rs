//! Addresses: as much of RFC 3986 as registries use.

use std::fmt;

use super::super::{Error, Result};

/// `http[s]://host[:port]/path?query`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// Host and port as they were written.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::document(
                format!("address `{}`", text.chars().take(200).collect::<String>()),
                "it is no http address",
            )
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        // What is put into a request must not end a line in it.
        let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !clean(authority) || !clean(&path) {
            return Err(wrong());
        }
        Ok(Self {
            tls,
            authority: authority.to_owned(),
            path,
        })
    }

    /// What a `Location` means, that was an answer to this address.
    pub(super) fn join(&self, location: &str) -> Result<Self> {
        if location.contains("://") {
            return Self::parse(location);
        }
        let scheme = if self.tls { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let folder = self
            .path
            .split('?')
            .next()
            .and_then(|path| path.rsplit_once('/'))
            .map_or("", |(folder, _)| folder);
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            format!("{folder}/{location}")
        };
        Self::parse(&format!("{scheme}://{}{path}", self.authority))
    }

    /// With one more `key=value` behind it.
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path += key;
        self.path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.path.push(byte.into());
            } else {
                self.path += &format!("%{byte:02X}");
            }
        }
        self
    }

    /// Host and port to connect to.
    pub(super) fn host_port(&self) -> (&str, u16) {
        let default = if self.tls { 443 } else { 80 };
        let (host, port) = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
            _ => (self.authority.as_str(), default),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    /// Whether it is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let (host, _) = self.host_port();
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_absolute_or_relative() {
        let from = Url::parse("http://a:1/v2/x/blobs/uploads/?y").unwrap();
        for (location, whole) in [
            ("https://b/c?d", "https://b/c?d"),
            ("//b/c", "http://b/c"),
            ("/c?d", "http://a:1/c?d"),
            ("u1", "http://a:1/v2/x/blobs/uploads/u1"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), whole);
        }
    }

    #[test]
    fn what_would_end_a_line_or_is_no_http_is_refused() {
        for text in [
            "",
            "a",
            "ftp://a/",
            "http://",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://u:p@a/",
            "file:///etc/passwd",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_ports_and_queries() {
        assert_eq!(Url::parse("https://a").unwrap().host_port(), ("a", 443));
        assert_eq!(Url::parse("http://[::1]:5/").unwrap().host_port(), ("::1", 5));
        assert_eq!(Url::parse("http://[::1]/").unwrap().host_port(), ("::1", 80));
        assert!(Url::parse("http://127.0.0.9:1/").unwrap().is_loopback());
        assert!(!Url::parse("http://127.0.0.1.evil.org/").unwrap().is_loopback());
        assert_eq!(
            Url::parse("http://a/b?c=d").unwrap().with("e", "f:g/ h").path,
            "/b?c=d&e=f%3Ag%2F%20h"
        );
    }
}
