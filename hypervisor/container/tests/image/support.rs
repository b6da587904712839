//! What the tests of images need: folders, archives and layouts made by code.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chiton_container::image::layer::{Owners, Skipped, unpack_archive};
use chiton_container::image::progress::Quiet;
use chiton_container::image::spec::{self, Config, Descriptor, Index, Manifest, RootFs};
use chiton_container::image::{Digest, Image, Limits, Result, Store, archive};
use tar::{EntryType, Header};

/// A folder that goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("chiton-image-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Whether this is root; if not, says why the test skips.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root may do this");
    }
    root
}

pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CHITON_STRICT").is_none(), "{why}");
    println!("SKIPPED: {why}");
}

/// Runs a program that must be there and succeed; none if it is not there.
pub(crate) fn tool(program: &str, args: &[&str]) -> Option<String> {
    let output: Output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(_) => {
            skip(&format!("{program} is not installed"));
            return None;
        }
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

/// Waits until it is so. A child that another test starts has the locks of this process until it runs its program, so
/// that what has just been let go of may be held for a moment longer.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::yield_now();
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// An archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An entry exactly as said, however wrong.
    pub(crate) fn raw(
        mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        content: &[u8],
        change: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(b'0', path.as_bytes(), b"", content, |_| ())
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", b"", |_| ())
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), b"", |_| ())
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), b"", |_| ())
    }

    /// Extended headers for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..)
                .find(|length| *length == rest + length.to_string().len())
                .unwrap();
            bytes.extend(format!("{length} {key}=").bytes());
            bytes.extend(*value);
            bytes.push(b'\n');
        }
        self.raw(b'x', b"PaxHeaders", b"", &bytes, |_| ())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Unpacks an archive into a folder.
pub(crate) fn unpack(bytes: &[u8], top: &Path, limits: Limits) -> Result<Skipped> {
    unpack_archive(&mut &bytes[..], "test", top, limits, Owners::ours())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a test says of a file: everything that a layer keeps.
pub(crate) fn listing(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    list(top, Path::new(""), &mut all);
    all
}

fn list(top: &Path, below: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(top.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let full = top.join(&path);
        let found = fs::symlink_metadata(&full).unwrap();
        let content = if found.is_file() {
            Digest::of(&fs::read(&full).unwrap()).short()
        } else if found.is_symlink() {
            format!("{:?}", fs::read_link(&full).unwrap())
        } else {
            String::new()
        };
        let mut attributes = Vec::new();
        if found.is_file() || found.is_dir() {
            for name in ["user.a", "user.b", "trusted.overlay.opaque", "user.overlay.opaque"] {
                let mut value = [0; 100];
                if let Ok(length) = rustix::fs::lgetxattr(&full, name, &mut value[..]) {
                    attributes.push((name, value[..length].to_vec()));
                }
            }
        }
        let size = if found.is_file() { found.size() } else { 0 };
        let (uid, gid, mode, device) = (found.uid(), found.gid(), found.mode(), found.rdev());
        let time = (found.mtime(), found.mtime_nsec());
        let line = format!("{mode:o} {uid}:{gid} {size} {device} {time:?} {content} {attributes:?}");
        all.insert(path.clone(), line);
        if found.is_dir() {
            list(top, &path, all);
        }
    }
}

/// Whiteouts have no time and no mode in an archive.
pub(crate) fn comparable(top: &Path) -> Vec<(PathBuf, String)> {
    listing(top)
        .into_iter()
        .map(|(path, line)| {
            let whiteout = line.starts_with("20");
            (path, if whiteout { "whiteout".into() } else { line })
        })
        .collect()
}

/// An OCI layout, made by code.
pub(crate) struct Layout {
    pub(crate) path: PathBuf,
    pub(crate) layers: Vec<Descriptor>,
}

impl Layout {
    /// An image of these layers, which are stored as they are; their diff-ids are given.
    pub(crate) fn new(path: PathBuf, name: &str, layers: &[(Vec<u8>, Digest)]) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let put = |kind: &str, bytes: &[u8]| {
            let blob = Descriptor::of(kind, bytes);
            fs::write(path.join("blobs/sha256").join(blob.digest.hex()), bytes).unwrap();
            blob
        };
        let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let layers: Vec<_> = layers.iter().map(|(bytes, _)| put(spec::LAYER_GZIP, bytes)).collect();
        let config = Config {
            architecture: "amd64".into(),
            os: "linux".into(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids,
            },
            ..Config::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(spec::MANIFEST.into()),
            config: put(spec::CONFIG, &serde_json::to_vec(&config).unwrap()),
            layers: layers.clone(),
            annotations: BTreeMap::new(),
        };
        let mut entry = put(spec::MANIFEST, &serde_json::to_vec(&manifest).unwrap());
        entry.annotations.insert(spec::REF_NAME.into(), name.into());
        let index = Index {
            manifests: vec![entry],
            ..Index::default()
        };
        fs::write(path.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        Self { path, layers }
    }

    /// One whose layers are these archives, in gzip.
    pub(crate) fn of(path: PathBuf, name: &str, archives: &[Vec<u8>]) -> Self {
        let layers: Vec<_> = archives.iter().map(|bytes| (gzip(bytes), Digest::of(bytes))).collect();
        Self::new(path, name, &layers)
    }

    pub(crate) fn blob(&self, blob: &Descriptor) -> PathBuf {
        self.path.join("blobs/sha256").join(blob.digest.hex())
    }

    pub(crate) fn import(&self, store: &Store) -> Result<Vec<Image>> {
        archive::import(store, &self.path, None, &Quiet)
    }
}

/// Nothing is wrong in the store, and nothing is left in `tmp` but what live sessions have.
pub(crate) fn assert_whole(store: &Path) {
    let opened = Store::open(store).unwrap();
    let report = opened.verify().unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    drop(opened);
    let left: Vec<_> = fs::read_dir(store.join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What is in the store's folder of this name.
pub(crate) fn names(store: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(store.join(folder)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| String::from_utf8_lossy(entry.unwrap().file_name().as_bytes()).into_owned())
        .collect();
    names.sort();
    names
}
