//! A folder in memory answers whatever is asked of it as a folder of the host does, and is in the end the same.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chiton_bare::folder::{MemoryFolder, Room, Writing};
use chiton_core::devices::p9::{Access, Tree};
use chiton_kvm::Folder;
use chiton_shared::virtio::p9::{Entry, Errno, Qid};
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

/// What is there at first: files have a text, directories a path that ends with `/`.
const FIRST: [(&str, &str); 5] = [("a", "some text"), ("d/", ""), ("d/b", "more"), ("d/e/", ""), ("l", "")];
/// The names that are asked for.
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"l"];

/// Something to ask; places and what is open are those found before, by numbers.
#[derive(Clone, Debug)]
enum Ask {
    Child(usize, usize),
    Open(usize, Access),
    Create(usize, usize, Access, bool),
    Read(usize, u64, usize),
    Write(usize, u64, usize),
    List(usize),
    MakeDirectory(usize, usize),
    Remove(usize, usize, bool),
    Rename(usize, usize, usize, usize),
    Resize(usize, u64),
    Attributes(usize),
    Forget(usize),
    Close(usize),
}

fn asks() -> impl Strategy<Value = Ask> {
    let (at, name) = (0..99_usize, 0..NAMES.len());
    let access = (0..3, any::<bool>()).prop_map(|(way, truncate)| Access {
        read: way != 1,
        write: way != 0,
        truncate,
    });
    let (offset, len) = (0..9000_u64, 0..6000_usize);
    prop_oneof![
        5 => (at.clone(), name.clone()).prop_map(|(at, name)| Ask::Child(at, name)),
        3 => (at.clone(), access.clone()).prop_map(|(at, access)| Ask::Open(at, access)),
        3 => (at.clone(), name.clone(), access, any::<bool>())
            .prop_map(|(at, name, access, exclusive)| Ask::Create(at, name, access, exclusive)),
        2 => (at.clone(), offset.clone(), len.clone()).prop_map(|(at, offset, len)| Ask::Read(at, offset, len)),
        3 => (at.clone(), offset.clone(), len).prop_map(|(at, offset, len)| Ask::Write(at, offset, len)),
        1 => at.clone().prop_map(Ask::List),
        2 => (at.clone(), name.clone()).prop_map(|(at, name)| Ask::MakeDirectory(at, name)),
        2 => (at.clone(), name.clone(), any::<bool>()).prop_map(|(at, name, kind)| Ask::Remove(at, name, kind)),
        4 => (at.clone(), name.clone(), at.clone(), name).prop_map(|(a, n, b, m)| Ask::Rename(a, n, b, m)),
        1 => (at.clone(), offset).prop_map(|(at, size)| Ask::Resize(at, size)),
        1 => at.clone().prop_map(Ask::Attributes),
        1 => at.clone().prop_map(Ask::Forget),
        1 => at.prop_map(Ask::Close),
    ]
}

/// A folder, and what was found in it.
struct Asked<T: Tree> {
    tree: T,
    nodes: Vec<T::Node>,
    open: Vec<T::Open>,
}

/// An answer as both can give it.
fn told(answer: Result<impl Debug, Errno>) -> String {
    format!("{answer:?}")
}

impl<T: Tree> Asked<T> {
    fn new(mut tree: T) -> Self {
        let root = tree.root().unwrap();
        Self {
            tree,
            nodes: vec![root],
            open: Vec::new(),
        }
    }

    fn answer(&mut self, ask: &Ask) -> String {
        let Self { tree, nodes, open } = self;
        let node = |at: usize| at % nodes.len();
        let opened = |at: usize| at.checked_rem(open.len());
        match *ask {
            Ask::Child(at, name) => told(tree.child(&nodes[node(at)], NAMES[name]).map(|node| nodes.push(node))),
            Ask::Open(at, access) => told(tree.open(&nodes[node(at)], access).map(|new| open.push(new))),
            Ask::Create(at, name, access, exclusive) => {
                let made = tree.create(&nodes[node(at)], NAMES[name], access, exclusive, 0o700);
                told(made.map(|(node, new)| {
                    nodes.push(node);
                    open.push(new);
                }))
            }
            Ask::Read(at, offset, len) => {
                let Some(at) = opened(at) else { return String::new() };
                let mut bytes = vec![0; len];
                let read = tree.read_at(&open[at], offset, &mut bytes);
                told(read.map(|len| bytes[..len].to_vec()))
            }
            Ask::Write(at, offset, len) => {
                let Some(at) = opened(at) else { return String::new() };
                let bytes: Vec<_> = (0..len).map(|i| (i as u64 + offset) as u8 | 1).collect();
                told(tree.write_at(&open[at], offset, &bytes))
            }
            Ask::List(at) => {
                let Some(at) = opened(at) else { return String::new() };
                let mut names = BTreeMap::new();
                let mut take = |entry: &Entry<'_>| names.insert(entry.name.to_vec(), entry.kind).is_none();
                let listed = tree.list(&open[at], 0, &mut take);
                told(listed.map(|()| names))
            }
            Ask::MakeDirectory(at, name) => {
                let made = tree.make_directory(&nodes[node(at)], NAMES[name], 0o700);
                told(made.map(|node| nodes.push(node)))
            }
            Ask::Remove(at, name, is_directory) => told(tree.remove(&nodes[node(at)], NAMES[name], is_directory)),
            Ask::Rename(from, name, to, new_name) => {
                let (from, to) = (&nodes[node(from)], &nodes[node(to)]);
                told(tree.rename(from, NAMES[name], to, NAMES[new_name]))
            }
            Ask::Resize(at, size) => told(tree.resize(&nodes[node(at)], size)),
            Ask::Attributes(at) => {
                let found = tree.attributes(&nodes[node(at)]);
                told(found.map(|found| {
                    let is_file = found.qid.kind == Qid::FILE;
                    (found.qid.kind, is_file.then_some((found.size, found.links)))
                }))
            }
            Ask::Forget(at) => {
                // The folder itself stays.
                if nodes.len() > 1 {
                    nodes.swap_remove(1 + at % (nodes.len() - 1));
                }
                String::new()
            }
            Ask::Close(at) => {
                if let Some(at) = opened(at) {
                    open.swap_remove(at);
                }
                String::new()
            }
        }
    }

    /// All that is there: each path, and what a file holds.
    fn all(&mut self) -> BTreeMap<String, Vec<u8>> {
        const READ: Access = Access {
            read: true,
            write: false,
            truncate: false,
        };
        let tree = &mut self.tree;
        let mut found = BTreeMap::new();
        let mut to_do = vec![(String::new(), tree.root().unwrap())];
        while let Some((path, directory)) = to_do.pop() {
            let open = tree.open(&directory, READ).unwrap();
            let mut entries = Vec::new();
            let take = &mut |entry: &Entry<'_>| {
                entries.push((entry.name.to_vec(), entry.kind));
                true
            };
            tree.list(&open, 0, take).unwrap();
            for (name, kind) in entries {
                let node = tree.child(&directory, &name).unwrap();
                let path = format!("{path}/{}", String::from_utf8_lossy(&name));
                let mut content = Vec::new();
                if kind == Entry::FILE {
                    content.resize(tree.attributes(&node).unwrap().size as usize, 0);
                    let open = tree.open(&node, READ).unwrap();
                    assert_eq!(tree.read_at(&open, 0, &mut content), Ok(content.len()));
                }
                assert!(found.insert(format!("{path} {kind}"), content).is_none());
                if kind == Entry::DIRECTORY {
                    to_do.push((path, node));
                }
            }
        }
        found
    }
}

/// A directory of the host, which is gone with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("chiton-like-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        for (name, text) in FIRST {
            match name.strip_suffix('/') {
                Some(name) => fs::create_dir(path.join(name)).unwrap(),
                None if name == "l" => symlink("a", path.join(name)).unwrap(),
                None => fs::write(path.join(name), text).unwrap(),
            }
        }
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The same in an archive.
fn archive() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, text) in FIRST {
        let mut header = Header::new_ustar();
        header.set_entry_type(match name {
            "l" => EntryType::Symlink,
            _ if name.ends_with('/') => EntryType::Directory,
            _ => EntryType::Regular,
        });
        header.set_mode(0o700);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Asks both the same.
fn compare(asks: &[Ask]) {
    let (place, archive) = (Place::new(), archive());
    let writing = Writing {
        room: Arc::new(Room::new(64 << 20)),
        now: || [0; 2],
    };
    let memory = MemoryFolder::open("folders/x", &archive, Some(writing)).unwrap();
    let mut memory = Asked::new(memory);
    let mut host = Asked::new(Folder::open(place.path(), true).unwrap());
    for (number, ask) in asks.iter().enumerate() {
        let (here, there) = (memory.answer(ask), host.answer(ask));
        assert_eq!(here, there, "in memory, and on the host: {number}, {ask:?}");
    }
    assert_eq!(memory.all(), host.all());
}

/// What a guest is likely to do wrong, or to rely on.
#[test]
fn the_rules_of_names_are_the_hosts() {
    let any = Access {
        read: true,
        write: true,
        truncate: false,
    };
    // Places: 0 the folder, 1 d, 2 d/e, 3 a.
    let found = [Ask::Child(0, 3), Ask::Child(1, 4), Ask::Child(0, 0)];
    let rest = [
        // A directory into itself, onto itself, below itself, over what it is in.
        Ask::Rename(0, 3, 1, 2),
        Ask::Rename(0, 3, 2, 2),
        Ask::Rename(0, 3, 0, 3),
        Ask::Rename(1, 4, 0, 3),
        Ask::Rename(1, 1, 0, 3),
        // Over another kind, over one that is not empty, and from and to what is no directory.
        Ask::Rename(0, 0, 0, 3),
        Ask::Rename(0, 3, 0, 0),
        Ask::Rename(0, 0, 3, 0),
        Ask::Rename(3, 0, 0, 0),
        // What is open stays when its name goes to another, and when it goes.
        Ask::Open(3, any),
        Ask::Rename(1, 1, 0, 0),
        Ask::Read(0, 0, 99),
        Ask::Write(0, 5000, 9),
        Ask::Attributes(3),
        Ask::Remove(0, 0, false),
        // Removed by the wrong name, not empty, and then worked in.
        Ask::Remove(0, 3, false),
        Ask::Remove(0, 3, true),
        Ask::Remove(1, 4, true),
        Ask::Remove(0, 3, true),
        Ask::Create(1, 0, any, true),
        Ask::MakeDirectory(1, 0),
        Ask::Child(1, 0),
        Ask::Open(1, Access { write: false, ..any }),
        Ask::List(1),
        Ask::Rename(0, 5, 1, 0),
        Ask::Rename(1, 5, 0, 0),
    ];
    compare(&[&found[..], &rest[..]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_is_asked_is_answered_as_by_the_host(asks in proptest::collection::vec(asks(), 1..80)) {
        compare(&asks);
    }
}
