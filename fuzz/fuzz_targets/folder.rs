//! A folder on the boot image's ramdisk: an archive that may be damaged anywhere, in which a guest finds its way.
#![no_main]

use chiton_bare::folder::{MAX_ENTRIES, MemoryFolder};
use chiton_core::devices::p9::{Access, Tree};
use chiton_shared::virtio::p9::{Entry, Errno, check_name};
use libfuzzer_sys::fuzz_target;

const READ: Access = Access {
    read: true,
    write: false,
    truncate: false,
};

fuzz_target!(|data: &[u8]| {
    let Ok(mut folder) = MemoryFolder::open("folders/x", data) else {
        return;
    };
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
            assert_eq!(folder.resize(&node, 0), Err(Errno::ROFS));
        }
    }
});
