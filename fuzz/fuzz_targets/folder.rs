//! A folder on the boot image's ramdisk: an archive that may be damaged anywhere, in which a guest finds its way, and
//! to which it writes what the bytes from the last to the first say.
#![no_main]

use std::sync::Arc;

use chiton_bare::folder::{MAX_ENTRIES, MemoryFolder, Room, Writing};
use chiton_core::devices::p9::{Access, Tree};
use chiton_fuzz::script::Script;
use chiton_shared::virtio::p9::{Entry, Errno, check_name};
use libfuzzer_sys::fuzz_target;

const READ: Access = Access {
    read: true,
    write: false,
    truncate: false,
};
/// The most that is asked.
const STEPS: usize = 200;

/// Looks at all that there is; returns how much that is.
fn look(folder: &mut MemoryFolder<'_>) -> usize {
    let mut to_do = vec![folder.root().expect("there is one")];
    let mut found = 0;
    let mut piece = [0; 600];
    while let Some(directory) = to_do.pop() {
        let open = folder.open(&directory, READ).expect("a directory");
        let mut names = Vec::new();
        let take = &mut |entry: &Entry<'_>| {
            names.push((entry.name.to_vec(), entry.kind));
            true
        };
        folder.list(&open, 0, take).expect("a directory");
        for (name, kind) in names {
            assert_eq!(check_name(&name), Ok(()));
            // No place is in two directories, so this ends.
            found += 1;
            assert!(found <= MAX_ENTRIES);
            let node = folder.child(&directory, &name).expect("what was listed is there");
            let size = folder.attributes(&node).expect("it is there").size;
            match folder.open(&node, READ) {
                Ok(_) if kind == Entry::DIRECTORY => to_do.push(node),
                Ok(open) => {
                    let len = folder.read_at(&open, 1, &mut piece).expect("a file");
                    assert_eq!(len as u64, size.saturating_sub(1).min(piece.len() as u64));
                }
                Err(errno) => assert!(errno == Errno::LOOP || errno == Errno::NXIO),
            }
        }
    }
    found
}

/// Asks for whatever the script says, of places that were found before.
fn play(folder: &mut MemoryFolder<'_>, mut script: Script<'_>) {
    let mut nodes = vec![folder.root().expect("there is one")];
    let mut open = Vec::new();
    for _ in 0..STEPS {
        if script.is_empty() {
            return;
        }
        let (what, of, to) = (script.u8(), usize::from(script.u8()), usize::from(script.u8()));
        let names = [[b'a' + script.u8() % 4], [b'a' + script.u8() % 4]];
        let [name, new_name] = [&names[0], &names[1]];
        let access = Access {
            read: what & 0x20 == 0,
            write: what & 0x40 != 0,
            truncate: what & 0x80 != 0,
        };
        let (at, node) = (of % nodes.len(), &nodes[of % nodes.len()]);
        let other = &nodes[to % nodes.len()];
        match what % 12 {
            0 => nodes.extend(folder.child(node, name)),
            1 => open.extend(folder.open(node, access)),
            2 => {
                if let Ok((node, new)) = folder.create(node, name, access, to & 1 != 0, 0o600) {
                    nodes.push(node);
                    open.push(new);
                }
            }
            3 => nodes.extend(folder.make_directory(node, name, 0o700)),
            4 => drop(folder.remove(node, name, to & 1 != 0)),
            5 => drop(folder.rename(node, name, other, new_name)),
            6 => drop(folder.resize(node, script.u64() >> (to % 64))),
            7 | 8 if !open.is_empty() => {
                let bytes = vec![script.u8(); usize::from(script.u16())];
                // As the device has it: an offset from which a file's size does not overflow.
                let offset = (script.u64() >> 1 >> (to % 63)).min(i64::MAX as u64 - bytes.len() as u64);
                if let Ok(written) = folder.write_at(&open[of % open.len()], offset, &bytes) {
                    assert!(written <= bytes.len());
                }
            }
            9 if at > 0 => drop(nodes.swap_remove(at)),
            10 if !open.is_empty() => drop(open.swap_remove(of % open.len())),
            _ => drop(folder.attributes(node).expect("who holds a place has it")),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(mut folder) = MemoryFolder::open("folders/x", data, None) else {
        return;
    };
    let count = look(&mut folder);
    let root = folder.root().expect("there is one");
    assert_eq!(folder.make_directory(&root, b"a", 0).err(), Some(Errno::ROFS));

    let room = Arc::new(Room::new(256 << 10));
    let writing = Writing {
        room: Arc::clone(&room),
        now: || [1, 2],
    };
    let mut folder = MemoryFolder::open("folders/x", data, Some(writing)).expect("it was one");
    assert_eq!(look(&mut folder), count);
    let bytes: Vec<u8> = data.iter().rev().copied().collect();
    play(&mut folder, Script::new(&bytes));
    let count = look(&mut folder);
    // Nobody holds anything now.
    let root = folder.root().expect("there is one");
    let [all, free] = folder.statistics(&root).expect("it can tell").files;
    assert_eq!(all - free, count as u64 + 1);
    drop(folder);
    assert_eq!(Arc::strong_count(&room), 1, "all of the room has been given back");
});
