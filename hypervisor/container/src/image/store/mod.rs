//! The store: an OCI image layout (image-layout.md), and its layers unpacked beside it.
//!
//! ```text
//! oci-layout, index.json     which images there are, by name
//! blobs/sha256/…             manifests, configurations, layers as they came
//! layers/<diff-id>/fs        a layer unpacked, as overlayfs wants it; record.json says what it holds
//! tmp/<session>/             what is being written; its flock tells that the writer lives
//! lock                       flock: whoever changes the index, or begins or ends a session
//! use                        flock: shared by whoever adds blobs, exclusive for whoever removes some
//! ```
//!
//! Everything comes to be in `tmp`, is synced, and is renamed to where it belongs, its folder synced
//! after. So a process that dies leaves nothing but a folder in `tmp`, which the next command removes.

mod blob;
mod collect;
mod index;
mod layers;
mod session;
mod tree;
mod verify;

use std::cell::OnceCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

pub use collect::Freed;
pub use layers::Unpacked;
pub use verify::Report;

use super::error::Doing;
use super::spec::{Config, Descriptor, Manifest};
use super::{Digest, Error, Limits, Reference, Result};
pub(super) use blob::check;
use session::Session;
pub(super) use tree::{Found, open_folder, open_top, walk};

/// What `oci-layout` says.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A store of images. Any number of processes may use one at once.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    session: OnceCell<Session>,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name; none where another image took it over.
    pub name: Option<Reference>,
    /// Points at its manifest.
    pub descriptor: Descriptor,
    /// What it is made of.
    pub manifest: Manifest,
    /// How it is run.
    pub config: Config,
}

impl Image {
    /// The digest of its manifest, by which it is known everywhere.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Bytes of its layers as they came, together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.manifest
            .layers
            .iter()
            .fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    /// Whether its entrypoint is a Chiton guest.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        let says = |notes: &super::spec::Annotations| notes.contains_key(super::spec::GUEST);
        says(&self.manifest.annotations) || says(&self.config.config.labels)
    }

    /// What is run: entrypoint, then the arguments given, or else those of the image.
    #[must_use]
    pub fn command(&self, args: &[String]) -> Vec<String> {
        let args = if args.is_empty() { &self.config.config.cmd } else { args };
        self.config.config.entrypoint.iter().chain(args).cloned().collect()
    }

    /// What to call it: its name or its digest.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.familiar(),
            None => self.digest().to_string(),
        }
    }
}

impl Store {
    /// Opens a store, makes it if there is none, and removes what dead writers left.
    ///
    /// A store that cannot be written is opened too, if it is there.
    ///
    /// # Errors
    ///
    /// If it can neither be found nor made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self {
            root: root.into(),
            limits: Limits::default(),
            session: OnceCell::new(),
        };
        if !store.root.join("oci-layout").exists() {
            store.make()?;
        }
        store.sweep()?;
        Ok(store)
    }

    /// The same store for another task, whose own unfinished files go with it.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            root: self.root.clone(),
            limits: self.limits,
            session: OnceCell::new(),
        }
    }

    /// With other limits for what is unpacked.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What an image may ask for.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Only its owner gets in: what images hold may be set-user-id, and other users could run it.
    fn make(&self) -> Result<()> {
        let folders = ["blobs/sha256", "layers", "tmp"];
        for folder in folders.map(|name| self.root.join(name)) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.at("make folder", &folder)?;
        }
        // Sessions begin under the lock too.
        self.session()?;
        {
            let _lock = self.lock()?;
            if self.read_index()?.is_none() {
                self.write_index(&super::spec::Index::default())?;
            }
        }
        self.place("oci-layout", LAYOUT)
    }

    /// Writes a small file of the store's own: all of it or nothing.
    fn place(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.session()?.path(name);
        let target = self.root.join(name);
        let written = fs::write(&temporary, bytes).and_then(|()| File::open(&temporary)?.sync_all());
        written.at("write", &temporary)?;
        fs::rename(&temporary, &target).at("write", &target)?;
        sync_folder(&self.root)
    }

    /// Waits for the right to change the index, and to begin and end sessions.
    fn lock(&self) -> Result<File> {
        let file = self.lock_file("lock")?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).at("lock", &self.root)?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        // Not truncated: it is empty, and others hold it.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).at("open", &path)
    }

    /// Removes what dead writers left. What cannot be removed, in a store that is not ours to write, stays.
    fn sweep(&self) -> Result<()> {
        let waiting = match fs::read_dir(self.root.join("tmp")) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => false,
        };
        if !waiting {
            return Ok(());
        }
        match self.lock().and_then(|_lock| session::sweep(&self.root.join("tmp"))) {
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Where this process writes what is not finished.
    fn session(&self) -> Result<&Session> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let session = {
            let _lock = self.lock()?;
            Session::begin(&self.root.join("tmp"), self.lock_file("use")?)?
        };
        Ok(self.session.get_or_init(|| session))
    }
}

/// Makes a rename in this folder outlast a power cut.
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).at("sync", path)
}
