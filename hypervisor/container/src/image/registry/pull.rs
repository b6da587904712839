//! From a registry into the store.

use std::io::{self, Read};

use super::super::progress::{Progress, Watched};
use super::super::spec::{self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, Index, MANIFEST, Manifest};
use super::super::store::{Image, Store};
use super::super::{Digest, Error, Reference, Result};
use super::auth::Access;
use super::client::Client;
use super::http::{Body, Incoming, Request};

/// How often a download that breaks off is taken up again.
const ATTEMPTS: u32 = 5;

/// Brings an image, of an index the one for this machine. What is there already is not fetched.
///
/// # Errors
///
/// If the registry cannot be reached, refuses, has no such image, or anything is not what its digest
/// says; or if the image cannot be stored.
pub fn pull(store: &Store, name: &Reference, access: &Access, progress: &dyn Progress) -> Result<Image> {
    let client = Client::new(access, name, "pull")?;
    let wanted = name.digest().map_or_else(
        || name.tag().unwrap_or_default().to_owned(),
        |digest| digest.to_string(),
    );
    let (mut descriptor, mut bytes) = manifest(&client, &wanted)?;
    if spec::is_index(&descriptor.media_type) {
        let index = Index::parse(&name.to_string(), &bytes)?;
        let chosen = index
            .choose()
            .ok_or_else(|| client.error(format!("{name} has no image for linux/amd64")))?;
        (descriptor, bytes) = manifest(&client, &chosen.digest.to_string())?;
    }
    let manifest = Manifest::parse(&name.to_string(), &bytes)?;
    store.limits().admit(&name.to_string(), &manifest)?;
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if store.has_blob(blob)? {
            continue;
        }
        let download = Download {
            client: &client,
            blob,
            offset: 0,
            body: None,
            attempts: 0,
        };
        store.put_blob(
            blob,
            &mut Watched::new(download, progress, &blob.digest.short(), blob.size),
        )?;
    }
    let stored = store.put_bytes(&descriptor.media_type, &bytes)?;
    store.add(Some(name), &stored)
}

/// A manifest or index, by tag or digest.
fn manifest(client: &Client<'_>, wanted: &str) -> Result<(Descriptor, Vec<u8>)> {
    let url = client.url(&format!("manifests/{wanted}"))?;
    let request = Request {
        method: "GET",
        url: url.clone(),
        headers: vec![("Accept", [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", "))],
        body: Body::Empty,
    };
    let response = client.expect(request, &[200])?;
    let stated = response.header("docker-content-digest").map(str::to_owned);
    let content_type = response.header("content-type").unwrap_or_default().to_owned();
    let bytes = response.document(&url)?;
    let found = Digest::of(&bytes);
    // Both what was asked for, and what the registry says it sent.
    for wanted in [Some(wanted.to_owned()), stated].into_iter().flatten() {
        if let Ok(wanted) = wanted.parse::<Digest>()
            && wanted != found
        {
            let what = format!("the manifest from {}", url.authority);
            return Err(Error::Mismatch { what, wanted, found });
        }
    }
    // The document itself knows better than the header, which may be a plain JSON's.
    let own = serde_json::from_slice::<Kind>(&bytes)
        .ok()
        .and_then(|kind| kind.media_type);
    let media_type = own.unwrap_or_else(|| content_type.split(';').next().unwrap_or_default().trim().to_owned());
    Ok((Descriptor::of(&media_type, &bytes), bytes))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

/// A blob that is fetched, and taken up where it broke off.
struct Download<'a> {
    client: &'a Client<'a>,
    blob: &'a Descriptor,
    offset: u64,
    body: Option<Incoming>,
    attempts: u32,
}

impl Download<'_> {
    fn open(&self) -> Result<Incoming> {
        let mut headers = Vec::new();
        if self.offset > 0 {
            headers.push(("Range", format!("bytes={}-", self.offset)));
        }
        let request = Request {
            method: "GET",
            url: self.client.url(&format!("blobs/{}", self.blob.digest))?,
            headers,
            body: Body::Empty,
        };
        let response = self.client.expect(request, &[200, 206])?;
        // A server that knows no ranges sends it from the start.
        let skip = if response.status == 200 { self.offset } else { 0 };
        let mut body = response.into_body();
        let skipped = io::copy(&mut (&mut body).take(skip), &mut io::sink());
        match skipped {
            Ok(count) if count == skip => Ok(body),
            _ => Err(self.client.error("a blob became shorter meanwhile")),
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open()?,
            };
            let more = self.offset < self.blob.size;
            match body.read(buffer) {
                Ok(0) if more && self.attempts < ATTEMPTS => self.attempts += 1,
                Err(_) if more && self.attempts < ATTEMPTS => self.attempts += 1,
                Ok(count) => {
                    self.offset += count as u64;
                    self.body = Some(body);
                    return Ok(count);
                }
                Err(error) => return Err(self.client.error(format!("blob {}: {error}", self.blob.digest)).into()),
            }
        }
    }
}
