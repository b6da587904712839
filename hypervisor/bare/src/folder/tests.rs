use std::collections::BTreeMap;

use proptest::prelude::*;
use tar::EntryType;

use super::*;

const READ: Access = Access {
    read: true,
    write: false,
    truncate: false,
};

/// An archive of files and, where the path ends with `/`, directories.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let kind = match path.strip_suffix('/') {
            Some(_) => EntryType::Directory,
            None => EntryType::Regular,
        };
        append(&mut builder, path, kind, content);
    }
    builder.into_inner().unwrap()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    // The builder itself puts no `..` into a header.
    header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

/// The place at a path.
fn find(folder: &mut MemoryFolder<'_>, path: &str) -> Result<Node, Errno> {
    let mut at = folder.root()?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = folder.child(&at, name.as_bytes())?;
    }
    Ok(at)
}

/// What is in a directory, asked for so many entries at a time.
fn list(folder: &mut MemoryFolder<'_>, path: &str, at_a_time: usize) -> Vec<(String, u8)> {
    let directory = find(folder, path).unwrap();
    let open = folder.open(&directory, READ).unwrap();
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let (before, from) = (found.len(), offset);
        let take = &mut |entry: &Entry<'_>| {
            if found.len() - before == at_a_time {
                return false;
            }
            found.push((String::from_utf8_lossy(entry.name).into_owned(), entry.kind));
            offset = entry.next;
            true
        };
        folder.list(&open, from, take).unwrap();
        if found.len() == before {
            return found;
        }
    }
}

/// All of a file, read so many bytes at a time.
fn read(folder: &mut MemoryFolder<'_>, path: &str, at_a_time: usize) -> Result<Vec<u8>, Errno> {
    let file = find(folder, path)?;
    let open = folder.open(&file, READ)?;
    let (mut all, mut piece) = (Vec::new(), vec![0; at_a_time]);
    loop {
        let len = folder.read_at(&open, all.len() as u64, &mut piece)?;
        if len == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&piece[..len]);
    }
}

#[test]
fn files_are_found_listed_and_read() {
    let bytes = archive(&[("b", b"bb"), ("sub/", b""), ("a", b""), ("sub/c", b"ccc")]);
    let folder = &mut MemoryFolder::open("folders/src", &bytes, None).unwrap();
    assert_eq!(folder.name(), "src");
    let words = |text: &str, kind| (text.to_owned(), kind);
    assert_eq!(
        list(folder, "", 2),
        [
            words("b", Entry::FILE),
            words("sub", Entry::DIRECTORY),
            words("a", Entry::FILE)
        ]
    );
    assert_eq!(list(folder, "sub", 9), [words("c", Entry::FILE)]);
    assert_eq!(read(folder, "b", 1), Ok(b"bb".to_vec()));
    assert_eq!(read(folder, "sub/c", 9), Ok(b"ccc".to_vec()));
    assert_eq!(read(folder, "a", 9), Ok(Vec::new()));
    assert_eq!(read(folder, "sub", 9), Err(Errno::ISDIR));
    assert_eq!(find(folder, "sub/d").unwrap_err(), Errno::NOENT);
    assert_eq!(find(folder, "b/c").unwrap_err(), Errno::NOTDIR);
    let file = find(folder, "sub/c").unwrap();
    let attributes = folder.attributes(&file).unwrap();
    assert_eq!((attributes.mode, attributes.size, attributes.blocks), (0o10_0640, 3, 1));
    assert_eq!(attributes.modified, [1_700_000_000, 0]);
    let open = folder.open(&file, READ).unwrap();
    assert_eq!(folder.read_at(&open, u64::MAX, &mut [0; 4]), Ok(0));
    assert_eq!(folder.statistics(&file).unwrap().files, [5, 0]);
}

#[test]
fn what_is_neither_file_nor_directory_is_seen_and_not_opened() {
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, "link", EntryType::Symlink, b"");
    append(&mut builder, "pipe", EntryType::Fifo, b"");
    let bytes = builder.into_inner().unwrap();
    let folder = &mut MemoryFolder::open("x", &bytes, None).unwrap();
    assert_eq!(
        list(folder, "", 9),
        [("link".to_owned(), Entry::LINK), ("pipe".to_owned(), 1)]
    );
    assert_eq!(read(folder, "link", 9), Err(Errno::LOOP));
    assert_eq!(read(folder, "pipe", 9), Err(Errno::NXIO));
    assert_eq!(find(folder, "link/x").unwrap_err(), Errno::NOTDIR);
}

#[test]
fn a_folder_to_be_read_is_not_changed() {
    let bytes = archive(&[("a", b"a"), ("sub/", b"")]);
    let folder = &mut MemoryFolder::open("x", &bytes, None).unwrap();
    let (root, file) = (folder.root().unwrap(), find(folder, "a").unwrap());
    let write = Access { write: true, ..READ };
    let truncate = Access { truncate: true, ..READ };
    assert_eq!(folder.open(&file, write).unwrap_err(), Errno::ROFS);
    assert_eq!(folder.open(&file, truncate).unwrap_err(), Errno::ROFS);
    assert_eq!(
        folder.create(&root, b"new", write, false, 0o600).unwrap_err(),
        Errno::ROFS
    );
    assert_eq!(folder.make_directory(&root, b"new", 0o700).unwrap_err(), Errno::ROFS);
    assert_eq!(folder.remove(&root, b"a", false), Err(Errno::ROFS));
    assert_eq!(folder.rename(&root, b"a", &root, b"b"), Err(Errno::ROFS));
    assert_eq!(folder.resize(&file, 0), Err(Errno::ROFS));
    let open = folder.open(&file, READ).unwrap();
    assert_eq!(folder.write_at(&open, 0, b"x"), Err(Errno::BADF));
    assert_eq!(folder.sync(&open), Ok(()));
    assert_eq!(read(folder, "a", 9), Ok(b"a".to_vec()));
    assert!(!folder.written().load(Ordering::Relaxed));
}

/// A folder to be written to, with room for so many pages; what is changed is of the second 1 800 000 000.
fn writable(archive: &[u8], pages: usize) -> (MemoryFolder<'_>, Arc<Room>) {
    let room = Arc::new(Room::new(pages * PAGE));
    let writing = Writing {
        room: Arc::clone(&room),
        now: || [1_800_000_000, 5],
    };
    (MemoryFolder::open("x", archive, Some(writing)).unwrap(), room)
}

const NEW: Access = Access {
    read: true,
    write: true,
    truncate: true,
};

#[test]
fn what_is_written_has_its_time_and_mode_and_the_archive_stays() {
    let bytes = archive(&[("a", b"aaa"), ("sub/", b"")]);
    let before = bytes.clone();
    let (mut folder, _) = writable(&bytes, 9);
    let folder = &mut folder;
    let written = folder.written();
    let root = folder.root().unwrap();
    let (node, open) = folder.create(&root, b"new", NEW, true, 0o640).unwrap();
    assert!(written.load(Ordering::Relaxed));
    assert_eq!(folder.write_at(&open, 2, b"x"), Ok(1));
    assert_eq!(read(folder, "new", 9), Ok(b"\0\0x".to_vec()));
    let attributes = folder.attributes(&node).unwrap();
    assert_eq!((attributes.mode, attributes.size), (0o10_0640, 3));
    assert_eq!(attributes.modified, [1_800_000_000, 5]);
    assert_eq!(folder.attributes(&root).unwrap().modified, [1_800_000_000, 5]);
    let (_, open) = folder
        .create(&root, b"a", Access { truncate: false, ..NEW }, false, 0)
        .unwrap();
    assert_eq!(folder.write_at(&open, 1, b"b"), Ok(1));
    assert_eq!(read(folder, "a", 2), Ok(b"aba".to_vec()));
    // What is made comes behind what was there.
    let names: Vec<_> = list(folder, "", 9).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "sub", "new"]);
    assert_eq!(bytes, before);
}

#[test]
fn a_listing_goes_on_where_it_was_when_what_it_has_told_is_removed() {
    let bytes = archive(&[("a", b""), ("b", b""), ("c", b"")]);
    let (mut folder, _) = writable(&bytes, 9);
    let root = folder.root().unwrap();
    let open = folder.open(&root, READ).unwrap();
    let mut first = |offset: u64| {
        let mut found = None;
        let take = &mut |entry: &Entry<'_>| {
            found = Some((entry.name.to_vec(), entry.next));
            false
        };
        folder.list(&open, offset, take).unwrap();
        let (name, next) = found?;
        folder.remove(&root, &name, false).unwrap();
        Some((name, next))
    };
    let (mut names, mut offset) = (Vec::new(), 0);
    while let Some((name, next)) = first(offset) {
        names.extend(name);
        offset = next;
    }
    assert_eq!(names, b"abc");
}

#[test]
fn what_is_removed_stays_for_who_holds_it_and_then_gives_its_room_back() {
    let (mut folder, room) = writable(&[0; 1024], 3);
    let root = folder.root().unwrap();
    let (node, open) = folder.create(&root, b"a", NEW, true, 0o600).unwrap();
    assert_eq!(folder.write_at(&open, 0, &[1; PAGE]), Ok(PAGE));
    assert_eq!(room.left(), 1);
    folder.remove(&root, b"a", false).unwrap();
    assert_eq!(folder.child(&root, b"a").unwrap_err(), Errno::NOENT);
    assert_eq!(folder.attributes(&node).unwrap().links, 0);
    assert_eq!(folder.read_at(&open, 0, &mut [0; 9]), Ok(9));
    assert_eq!(folder.write_at(&open, PAGE as u64, b"x"), Ok(1));
    assert_eq!(folder.make_directory(&root, b"b", 0o700).unwrap_err(), Errno::NOSPC);
    drop((node, open));
    let files = folder.statistics(&root).unwrap().files;
    assert_eq!((files, room.left()), ([MAX_ENTRIES as u64 + 1, MAX_ENTRIES as u64], 3));
    // Another has its number now, and nothing of it.
    let (node, _) = folder.create(&root, b"b", NEW, true, 0o600).unwrap();
    assert_eq!(folder.attributes(&node).unwrap().size, 0);
}

#[test]
fn a_full_room_and_too_many_places_are_no_space() {
    let (mut folder, room) = writable(&[0; 1024], 3);
    let root = folder.root().unwrap();
    let (node, open) = folder.create(&root, b"a", NEW, true, 0o600).unwrap();
    assert_eq!(folder.write_at(&open, 0, &[1; 3 * PAGE]), Ok(2 * PAGE));
    assert_eq!(folder.write_at(&open, 2 * PAGE as u64, &[1]), Err(Errno::NOSPC));
    assert_eq!(folder.create(&root, b"b", NEW, true, 0).unwrap_err(), Errno::NOSPC);
    assert_eq!(folder.statistics(&root).unwrap().blocks, [1, 0, 0]);
    folder.resize(&node, 0).unwrap();
    assert_eq!(room.left(), 2);
    let (mut folder, _) = writable(&[0; 1024], 2 * MAX_ENTRIES);
    for number in 0..MAX_ENTRIES {
        folder.make_directory(&root, number.to_string().as_bytes(), 0).unwrap();
    }
    assert_eq!(folder.make_directory(&root, b"new", 0).unwrap_err(), Errno::NOSPC);
    assert_eq!(folder.make_directory(&root, b"0", 0).unwrap_err(), Errno::EXIST);
}

#[test]
fn what_has_no_place_of_its_own_is_refused() {
    for entries in [
        &["a", "a"][..],
        &["sub/a", "sub/"],
        &["a", "a/b"],
        &["../a"],
        &["sub/", "sub/../a"],
        &["./"],
        &["/a"],
        &["/"],
        &["sub/", "sub//a"],
    ] {
        let bytes = archive(&entries.iter().map(|path| (*path, &b""[..])).collect::<Vec<_>>());
        let error = MemoryFolder::open("folders/x", &bytes, None).unwrap_err();
        assert!(matches!(error, FolderError::Place { .. }), "{entries:?}: {error}");
        assert!(error.to_string().contains("make the image again"), "{error}");
    }
}

#[test]
fn a_folder_without_a_good_name_or_with_too_much_in_it_is_refused() {
    let none = archive(&[]);
    for file in ["", "folders/", &"n".repeat(MAX_TAG + 1)] {
        assert_eq!(
            MemoryFolder::open(file, &none, None).unwrap_err(),
            FolderError::Name(file.into())
        );
    }
    assert!(matches!(
        MemoryFolder::open("x", &none[..100], None),
        Err(FolderError::Archive { .. })
    ));
    let names: Vec<_> = (0..=MAX_ENTRIES).map(|number| number.to_string()).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(MemoryFolder::open("x", &archive(&entries[1..]), None).is_ok());
    let error = MemoryFolder::open("x", &archive(&entries), None).unwrap_err();
    assert_eq!(error, FolderError::TooMany("x".into()));
}

proptest! {
    /// Whatever files there are: each is found, with its content, and nothing else is, however it is asked for.
    #[test]
    fn a_folder_is_what_was_put_into_it(
        paths in proptest::collection::vec(proptest::collection::vec("[a-c]", 1..4), 0..24),
        content in proptest::collection::vec(any::<u8>(), 1..40),
        at_a_time in 1_usize..9,
    ) {
        // A path that goes on from a file, or that there is already, is left out.
        let mut expected: BTreeMap<String, Option<&[u8]>> = BTreeMap::new();
        let mut entries = Vec::new();
        for path in &paths {
            let (name, directories) = path.split_last().unwrap();
            let mut at = String::new();
            let mut good = true;
            for directory in directories {
                at += &format!("{directory}/");
                let key = at.trim_end_matches('/').to_owned();
                match expected.get(&key) {
                    Some(None) => {}
                    Some(Some(_)) => good = false,
                    None => {
                        expected.insert(key, None);
                        entries.push((at.clone(), &[][..]));
                    }
                }
                if !good {
                    break;
                }
            }
            at += name;
            if good && !expected.contains_key(&at) {
                let content = &content[..entries.len().min(content.len())];
                expected.insert(at.clone(), Some(content));
                entries.push((at, content));
            }
        }
        let bytes = archive(&entries.iter().map(|(path, content)| (path.as_str(), *content)).collect::<Vec<_>>());
        let folder = &mut MemoryFolder::open("x", &bytes, None).unwrap();
        let mut found = BTreeMap::new();
        let mut to_do = vec![String::new()];
        while let Some(directory) = to_do.pop() {
            for (name, kind) in list(folder, &directory, at_a_time) {
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                let content = (kind == Entry::FILE).then(|| read(folder, &path, at_a_time).unwrap());
                if content.is_none() {
                    to_do.push(path.clone());
                }
                prop_assert!(found.insert(path, content).is_none());
            }
        }
        let expected: BTreeMap<_, _> = expected.into_iter().map(|(path, c)| (path, c.map(<[u8]>::to_vec))).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_change_of_an_archive_is_answered(at in 0_usize..3000, with: u8) {
        let mut bytes = archive(&[("sub/", b""), ("sub/a", b"a")]);
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(mut folder) = MemoryFolder::open("x", &bytes, None) {
            let _ = read(&mut folder, "sub/a", 3);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = MemoryFolder::open("x", &bytes, None);
    }
}
