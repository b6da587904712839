//! Connections.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::super::{Error, Result};
use super::url::Url;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a peer may say nothing.
const SILENCE: Duration = Duration::from_secs(120);

/// Both directions of a connection.
pub(super) trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

/// Connects to where an address points.
pub(super) fn connect(url: &Url) -> Result<Box<dyn Connection>> {
    let failed = |why: &dyn std::fmt::Display| Error::Registry {
        host: url.authority.clone(),
        why: format!("cannot connect: {why}"),
    };
    if url.tls && !cfg!(feature = "tls") {
        return Err(failed(
            &"this chiton was built without TLS: build it with `--features tls`, or bring the image by \
                             `skopeo copy` and `chiton image import`",
        ));
    }
    let stream = tcp(url).map_err(|error| {
        failed(&format_args!(
            "{error}: see that the name and the port are right, and that a registry runs there"
        ))
    })?;
    if !url.tls {
        return Ok(Box::new(stream));
    }
    #[cfg(feature = "tls")]
    return tls::wrap(url, stream).map_err(|error| failed(&error));
    #[cfg(not(feature = "tls"))]
    Err(failed(&"TLS is not built in"))
}

fn tcp(url: &Url) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in url.host_port().to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SILENCE))?;
                stream.set_write_timeout(Some(SILENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(feature = "tls")]
mod tls {
    use std::fs;
    use std::net::TcpStream;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::super::super::Error;
    use super::{Connection, Result, Url};

    /// Where distributions keep the certificates they trust; $SSL_CERT_FILE comes before.
    const BUNDLES: [&str; 3] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];

    /// TLS 1.3 over a connection.
    pub(super) fn wrap(url: &Url, stream: TcpStream) -> Result<Box<dyn Connection>> {
        let wrong = |why: &dyn std::fmt::Display| Error::document(&url.authority, why);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots()?)
            .with_no_client_auth();
        let name = ServerName::try_from(url.host_port().0.to_owned()).map_err(|error| wrong(&error))?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| wrong(&error))?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }

    fn roots() -> Result<RootCertStore> {
        let named = std::env::var("SSL_CERT_FILE").ok();
        let pem = named
            .iter()
            .map(String::as_str)
            .chain(BUNDLES)
            .find_map(|path| fs::read(path).ok());
        let pem = pem.ok_or_else(|| {
            Error::document(
                BUNDLES[0],
                "no certificates to trust: install ca-certificates, or set SSL_CERT_FILE",
            )
        })?;
        let mut roots = RootCertStore::empty();
        // Some bundles hold a certificate that nobody can read.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        Ok(roots)
    }
}
