//! Out of the store to a registry.

use std::io::{self, Read};
use std::rc::Rc;

use super::super::progress::{Progress, Step};
use super::super::spec::{Descriptor, MANIFEST};
use super::super::store::{Image, Store};
use super::super::{Digest, Error, Reference, Result};
use super::auth::Access;
use super::client::Client;
use super::http::{Body, Request, Response};

/// Sends an image to a registry, under this name. Blobs that are there already are not sent.
///
/// # Errors
///
/// If a blob is damaged, the registry cannot be reached or refuses, or says that it got something
/// else than was sent.
pub fn push(store: &Store, image: &Image, name: &Reference, access: &Access, progress: &dyn Progress) -> Result<()> {
    let client = Client::new(access, name, "pull,push")?;
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        if !has(&client, blob)? {
            // Nobody else's store gets what is damaged.
            store.check_blob(blob)?;
            upload(store, &client, blob, progress)?;
        }
    }
    let bytes = store.document(&image.descriptor)?;
    let digest = image.digest();
    let tag = name.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let media_type = image.manifest.media_type.as_deref().unwrap_or(MANIFEST);
    let request = Request {
        method: "PUT",
        url: client.url(&format!("manifests/{tag}"))?,
        headers: vec![("Content-Type", media_type.to_owned())],
        body: Body::Bytes(&bytes),
    };
    let response = client.expect(request, &[200, 201, 202])?;
    same_digest(&response, "the manifest", digest)
}

/// Whether the registry says that it has what was sent.
fn same_digest(response: &Response, what: &str, wanted: Digest) -> Result<()> {
    match response.header("docker-content-digest").map(str::parse::<Digest>) {
        Some(Ok(found)) if found != wanted => Err(Error::Mismatch {
            what: format!("{what} that the registry got"),
            wanted,
            found,
        }),
        _ => Ok(()),
    }
}

fn has(client: &Client<'_>, blob: &Descriptor) -> Result<bool> {
    let request = Request {
        method: "HEAD",
        url: client.url(&format!("blobs/{}", blob.digest))?,
        headers: Vec::new(),
        body: Body::Empty,
    };
    Ok(client.expect(request, &[200, 404])?.status == 200)
}

/// Two requests: one for a place, one with all of the blob (distribution specification 1.1, Pushing a
/// blob monolithically).
fn upload(store: &Store, client: &Client<'_>, blob: &Descriptor, progress: &dyn Progress) -> Result<()> {
    let begin = Request {
        method: "POST",
        url: client.url("blobs/uploads/")?,
        headers: Vec::new(),
        body: Body::Empty,
    };
    let url = begin.url.clone();
    let response = client.expect(begin, &[202])?;
    let place = response
        .header("location")
        .ok_or_else(|| client.error("it gives no place for a blob"))?;
    let place = url.join(place)?.with("digest", &blob.digest.to_string());
    let step = Rc::new(progress.begin(&blob.digest.short(), Some(blob.size)));
    let open = || -> Result<Box<dyn Read>> {
        let file = store.open_blob(blob)?;
        let step = Rc::clone(&step);
        Ok(Box::new(Sent { file, step }))
    };
    let request = Request {
        method: "PUT",
        url: place,
        headers: vec![("Content-Type", "application/octet-stream".to_owned())],
        body: Body::Stream(&open, blob.size),
    };
    let response = client.expect(request, &[201, 202, 204])?;
    same_digest(&response, "the blob", blob.digest)
}

/// Tells how much was sent.
struct Sent {
    file: std::fs::File,
    step: Rc<Box<dyn Step>>,
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.step.advance(count as u64);
        Ok(count)
    }
}
