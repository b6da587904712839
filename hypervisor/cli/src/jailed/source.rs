//! What is to run: a guest's file, or an image.

use std::error::Error;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chiton_container::image::store::Unpacked;
use chiton_container::image::{Image as StoredImage, Store};
use chiton_core::boot::{Options, World};
use chiton_core::loader::Image;
use chiton_kvm::{Guest, Snapshot};
use chiton_shared::manifest::Feature;

use super::options::Misplaced;
use crate::home::home;
use crate::image::Bars;
use crate::options::RunOptions;
use crate::run::open_snapshot;

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// An option in the place of a guest.
    #[error("{0} is no option of `chiton run`: see `chiton run --help`, or write ./{0} if it is a guest's name")]
    Option(String),
    /// A file, where it has to be an image.
    #[error("{0} is a file, and --process runs the program of an image: bring one in with `chiton image import`")]
    NoImage(String),
    /// There is neither a file nor an image.
    #[error("there is neither a file {0} nor an image of that name: `chiton image ls` lists images")]
    Nothing(String),
    /// The image has no command.
    #[error("the image {0} does not say what to run: write a command behind its name")]
    NoCommand(String),
    /// The image is not one of ours.
    #[error("the image {0} is none of a guest: to run its program as an ordinary process in a jail, add --process")]
    NoGuest(String),
}

/// What is to run.
#[derive(Debug)]
pub(super) enum Source {
    /// A guest that goes on from a snapshot.
    Snapshot { path: PathBuf, verify: bool },
    /// A guest in a file of the host.
    File { path: PathBuf, args: Vec<String> },
    /// An image, whose program is a guest or a process.
    Image {
        store: Store,
        image: Box<StoredImage>,
        args: Vec<String>,
    },
}

impl Source {
    /// What is asked for.
    pub(super) fn of(options: &RunOptions, digest: Option<&str>) -> Result<Self, Box<dyn Error>> {
        options.check_from()?;
        match &options.from {
            Some(path) => Ok(Self::Snapshot {
                path: path.clone(),
                verify: options.verify,
            }),
            None => Self::find(&options.guest, options.jail.process, digest),
        }
    }

    /// What the first of these words names, and the others are the arguments of. With a digest, it is an image
    /// that this name meant when the digest was taken.
    fn find(words: &[String], process: bool, digest: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let (name, args) = words.split_first().ok_or_else(|| SourceError::Nothing(String::new()))?;
        let args = args.to_vec();
        if name.starts_with('-') {
            return Err(SourceError::Option(name.clone()).into());
        }
        let path = Path::new(name);
        if !process && digest.is_none() && (name.contains('/') && path.exists() || path.is_file()) {
            return Ok(Self::File {
                path: path.to_owned(),
                args,
            });
        }
        let root = home().join("images");
        let store = root.exists().then(|| Store::open(root)).transpose()?;
        let found = store.and_then(|store| {
            let image = match digest {
                None => store.image(name),
                Some(digest) => store.image_by_digest(digest),
            };
            Some((image.ok()?, store))
        });
        let (image, store) = found.ok_or_else(|| {
            if process && path.is_file() {
                SourceError::NoImage(name.clone())
            } else {
                SourceError::Nothing(name.clone())
            }
        })?;
        let command = image.command(&args);
        let Some(program) = command.first() else {
            return Err(SourceError::NoCommand(name.clone()).into());
        };
        if !process && !image.is_guest() && !has_guest(&store, &image, program)? {
            return Err(SourceError::NoGuest(name.clone()).into());
        }
        Ok(Self::Image {
            store,
            image: Box::new(image),
            args,
        })
    }

    /// Finds out whether a guest in a file can be run, as far as its file tells.
    pub(super) fn check(&self, options: &RunOptions) -> Result<(), Box<dyn Error>> {
        if let Self::Snapshot { path, .. } = self {
            Snapshot::open(path)?;
        }
        if let Self::File { path, .. } = self {
            let plan = Options {
                processors: options.cpus(),
                ring: options.ring.map(Into::into),
                ..Options::new(options.memory())
            };
            let file = Guest::read_file(path)?;
            let image = Image::parse(&file)?;
            World::build(&image, &plan)?;
            let required = image.manifest().required;
            if required.contains(Feature::BLOCK) && options.disk.is_empty() {
                return Err(chiton_kvm::Error::DiskRequired.into());
            }
            if required.contains(Feature::NET) && options.net.is_empty() && !options.jail.has_address() {
                return Err(chiton_kvm::Error::NetRequired.into());
            }
        }
        Ok(())
    }

    /// Refuses options of the jail that do not go together, or with what is to run.
    pub(super) fn check_jail(&self, options: &RunOptions) -> Result<(), Misplaced> {
        let is_image = matches!(self, Self::Image { .. });
        options.jail.check_shared(is_image, !options.folder.is_empty())?;
        options.jail.check_network()
    }

    pub(super) fn image_name(&self) -> Option<String> {
        match self {
            Self::File { .. } | Self::Snapshot { .. } => None,
            Self::Image { image, .. } => Some(image.label()),
        }
    }

    pub(super) fn image_digest(&self) -> Option<String> {
        match self {
            Self::File { .. } | Self::Snapshot { .. } => None,
            Self::Image { image, .. } => Some(image.digest().to_string()),
        }
    }

    /// What the guest is called where it is spoken of.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Snapshot { path, .. } => {
                path.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::Image { image, .. } => image.label(),
        }
    }

    /// What is to be said where files of an ordinary user's image do not show their owners.
    pub(super) fn lack_of_owners(&self) -> Result<Option<String>, Box<dyn Error>> {
        let Self::Image { store, image, .. } = self else {
            return Ok(None);
        };
        if rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let lost = store.again().unpacked(image, &Bars::default())?.lost_owners()?;
        Ok((lost > 0).then(|| {
            format!(
                "chiton: {lost} files of {} show root instead of their owners, since they were unpacked without \
                 newuidmap, newgidmap and lines of this user in /etc/subuid and /etc/subgid",
                image.label()
            )
        }))
    }

    /// Everything of it that is outside the jail, ready to be taken in.
    pub(super) fn open(&self) -> Result<Opened, Box<dyn Error>> {
        match self {
            Self::File { path, args } => Ok(Opened::Bytes {
                name: self.name(),
                bytes: Guest::read_file(path)?,
                args: args.clone(),
            }),
            Self::Snapshot { path, verify } => {
                let snapshot = open_snapshot(path, *verify)?;
                Ok(Opened::Snapshot(Arc::new(snapshot)))
            }
            Self::Image { store, image, args } => {
                let unpacked = store.again().unpacked(image, &Bars::default())?;
                Ok(Opened::Image {
                    unpacked,
                    command: image.command(args),
                    env: image.config.config.env.clone(),
                    directory: image.config.config.working_dir.clone(),
                    user: image.config.config.user.clone(),
                })
            }
        }
    }
}

/// Whether the program of an image without our label is a guest all the same: an image that somebody else's tool has made
/// of one.
fn has_guest(store: &Store, image: &StoredImage, program: &str) -> Result<bool, Box<dyn Error>> {
    /// More than any guest has, in bytes.
    const MOST: u64 = 256 << 20;
    let unpacked = store.again().unpacked(image, &Bars::default())?;
    let file = unpacked.file(program, MOST)?;
    Ok(file.is_some_and(|bytes| Image::parse(&bytes).is_ok()))
}

/// A source that is ready.
#[derive(Debug)]
pub(super) enum Opened {
    /// A guest's file as it was read.
    Bytes {
        name: String,
        bytes: Vec<u8>,
        args: Vec<String>,
    },
    /// A snapshot, checked.
    Snapshot(Arc<Snapshot>),
    /// An image, unpacked.
    Image {
        unpacked: Unpacked,
        command: Vec<String>,
        env: Vec<String>,
        directory: String,
        user: String,
    },
}

impl Opened {
    /// The files that the guest's host goes on reading.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Snapshot(snapshot) => snapshot.files().map(|file| file.as_raw_fd()).collect(),
            Self::Bytes { .. } | Self::Image { .. } => Vec::new(),
        }
    }

    /// The layers of the root, lowest first.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        match self {
            Self::Bytes { .. } | Self::Snapshot(_) => Vec::new(),
            Self::Image { unpacked, .. } => unpacked.layers().iter().rev().cloned().collect(),
        }
    }
}
