//! Registries (OCI distribution specification 1.1).
//!
//! | file | what |
//! |---|---|
//! | `url` | addresses |
//! | `transport` | connections: TCP, and TLS with the feature `tls` |
//! | `http` | HTTP/1.1 (RFC 9112), one request a connection |
//! | `auth` | who we are: Basic and Bearer |
//! | `client` | requests to one repository |
//! | `pull`, `push` | images |
//!
//! The client is ours because of its size: the ones that there are as crates take more room than
//! everything else of images together.

mod auth;
mod client;
mod http;
mod pull;
mod push;
mod transport;
mod url;

pub use auth::Access;
pub use pull::pull;
pub use push::push;
