//! A guest and files to an image. The same input gives the same digest: no time, no owner and no
//! order of the host's gets in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::error::Doing;
use super::spec::{self, Annotations, Config, Execution, GUEST, History, Manifest, RootFs};
use super::store::{Image, Store};
use super::{Error, Hashing, Progress, Reference, Result};

/// The folder of an image that its guest is in.
const GUEST_FOLDER: &str = "guest";

/// What an image is made of.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The guest: an ELF file.
    pub guest: PathBuf,
    /// Files and folders of the host, and where they are in the image.
    pub files: Vec<(PathBuf, String)>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    /// Who its program is, where that is run as a process: `user[:group]`.
    pub user: String,
    /// Arguments of the guest, unless others are given when it is run.
    pub args: Vec<String>,
    /// What else is said of it.
    pub labels: Annotations,
}

/// What stands under one path of the image.
enum Content {
    Folder,
    File { path: PathBuf, mode: u32, size: u64 },
    Link(Vec<u8>),
}

/// Builds an image of one layer, and gives it a name.
///
/// # Errors
///
/// If the guest is no ELF file, a file cannot be read, two have the same path, or the image cannot
/// be stored.
pub fn build(store: &Store, recipe: &Recipe, name: &Reference, progress: &dyn Progress) -> Result<Image> {
    let guest = guest_path(&recipe.guest)?;
    let mut tree = BTreeMap::new();
    add(&mut tree, &recipe.guest, &guest)?;
    if let Some(Content::File { mode, .. }) = tree.get_mut(&guest) {
        *mode = 0o755;
    }
    for (from, to) in &recipe.files {
        let to = super::layer::clean(to).map_err(|why| Error::document(format!("`{to}`"), why))?;
        add(&mut tree, from, &to)?;
    }
    let total = tree
        .values()
        .map(|content| {
            if let Content::File { size, .. } = content {
                *size
            } else {
                0
            }
        })
        .sum();
    let step = progress.begin("building", Some(total));
    let mut archive = Hashing::new(GzEncoder::new(store.new_blob()?, Compression::default()));
    for (path, content) in &tree {
        write(&mut archive, path, content)?;
        if let Content::File { size, .. } = content {
            step.advance(*size);
        }
    }
    archive.write_all(&[0; 1024]).doing(|| "write the layer".into())?;
    let (encoder, diff_id, _) = archive.finish();
    let layer = encoder
        .finish()
        .doing(|| "write the layer".into())?
        .finish(spec::LAYER_GZIP)?;

    let mut labels = recipe.labels.clone();
    labels.insert(GUEST.to_owned(), "1".to_owned());
    let config = Config {
        created: None,
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: Execution {
            user: recipe.user.clone(),
            env: recipe.env.clone(),
            entrypoint: vec![format!("/{guest}")],
            cmd: recipe.args.clone(),
            working_dir: "/".to_owned(),
            labels,
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![diff_id],
        },
        history: vec![History {
            created_by: Some(format!("chiton image build --guest {guest}")),
            ..History::default()
        }],
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(spec::MANIFEST.to_owned()),
        config: store.put_bytes(spec::CONFIG, &spec::to_json("configuration", &config)?)?,
        layers: vec![layer],
        annotations: Annotations::from([(GUEST.to_owned(), "1".to_owned())]),
    };
    let manifest = store.put_bytes(spec::MANIFEST, &spec::to_json("manifest", &manifest)?)?;
    store.add(Some(name), &manifest)
}

/// Where the guest is in the image.
fn guest_path(host: &Path) -> Result<String> {
    let mut magic = [0; 4];
    let read = File::open(host).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => read.at("read", host)?,
    }
    if magic != *b"\x7fELF" {
        return Err(Error::document(host.display(), "it is not an ELF file, so no guest"));
    }
    let name = host.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::document(host.display(), "a guest's file needs a name in UTF-8"))?;
    Ok(format!("{GUEST_FOLDER}/{name}"))
}

/// Adds a file, a link or a whole folder of the host, and the folders above it.
fn add(tree: &mut BTreeMap<String, Content>, from: &Path, to: &str) -> Result<()> {
    let found = fs::symlink_metadata(from).at("look at", from)?;
    let twice = || Error::document(format!("`/{to}`"), "two files would have this path in the image");
    for (slash, _) in to.match_indices('/') {
        match tree.entry(to[..slash].to_owned()).or_insert(Content::Folder) {
            Content::Folder => {}
            _ => return Err(twice()),
        }
    }
    let content = if found.is_dir() {
        let names: io::Result<Vec<_>> = fs::read_dir(from)
            .at("read", from)?
            .map(|entry| Ok(entry?.file_name()))
            .collect();
        for name in names.at("read", from)? {
            let path = from.join(&name);
            let name = name
                .to_str()
                .ok_or_else(|| Error::document(path.display(), "files of an image need names in UTF-8"))?;
            let inner = if to.is_empty() {
                name.to_owned()
            } else {
                format!("{to}/{name}")
            };
            add(tree, &path, &inner)?;
        }
        Content::Folder
    } else if found.is_symlink() {
        Content::Link(fs::read_link(from).at("read", from)?.as_os_str().as_bytes().to_vec())
    } else if found.is_file() {
        Content::File {
            path: from.to_owned(),
            // Whether it can be run is all that counts of the host's mode.
            mode: if found.permissions().mode() & 0o111 == 0 {
                0o644
            } else {
                0o755
            },
            size: found.len(),
        }
    } else {
        return Err(Error::document(
            from.display(),
            "only files, folders and links can be put into an image",
        ));
    };
    if to.is_empty() {
        return if matches!(content, Content::Folder) {
            Ok(())
        } else {
            Err(Error::document(from.display(), "a file cannot be the root of an image"))
        };
    }
    match (tree.get(to), &content) {
        (None, _) => drop(tree.insert(to.to_owned(), content)),
        (Some(Content::Folder), Content::Folder) => {}
        _ => return Err(twice()),
    }
    Ok(())
}

fn write(to: &mut impl Write, path: &str, content: &Content) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(&mut *to);
    let result = match content {
        Content::Folder => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            builder.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, path, std::ffi::OsStr::from_bytes(target))
        }
        Content::File { path: host, mode, size } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(*size);
            let file = File::open(host).at("open", host)?;
            let mut file = Exactly {
                inner: file.take(*size),
                left: *size,
            };
            builder.append_data(&mut header, path, &mut file)
        }
    };
    result.doing(|| format!("put `{path}` into the image"))?;
    // Else it would write the archive's end.
    std::mem::forget(builder);
    Ok(())
}

/// Fails where a file became shorter, whose size stands in the header already.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left -= count as u64;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it became shorter meanwhile"));
        }
        Ok(count)
    }
}
