//! The 9P device against a driver that breaks every rule.
#![no_main]

use chiton_core::devices::p9::{Access, P9, Tree};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::virtio::p9::{Attributes, Entry, Errno, MAX_MESSAGE, Qid, Statistics, check_name};
use libfuzzer_sys::fuzz_target;

/// A folder without end, which fails now and then, and checks what it is asked for. A place is its
/// depth; those of odd depth are files.
struct Picky {
    calls: u32,
    fails_every: u32,
}

impl Picky {
    fn answer<R>(&mut self, answer: R) -> Result<R, Errno> {
        self.calls += 1;
        if self.calls.is_multiple_of(self.fails_every) {
            Err(Errno::IO)
        } else {
            Ok(answer)
        }
    }

    fn below(&mut self, depth: u64, name: &[u8]) -> Result<u64, Errno> {
        assert_eq!(check_name(name), Ok(()));
        self.answer(depth + 1)
    }
}

impl Tree for Picky {
    type Node = u64;
    type Open = u64;

    fn root(&mut self) -> Result<u64, Errno> {
        self.answer(0)
    }

    fn again(&mut self, node: &u64) -> Result<u64, Errno> {
        self.answer(*node)
    }

    fn child(&mut self, directory: &u64, name: &[u8]) -> Result<u64, Errno> {
        self.below(*directory, name)
    }

    fn attributes(&mut self, node: &u64) -> Result<Attributes, Errno> {
        self.answer(Attributes {
            size: *node,
            ..Attributes::default()
        })
    }

    fn open(&mut self, node: &u64, access: Access) -> Result<u64, Errno> {
        assert!(access.read || access.write);
        self.answer(*node)
    }

    fn create(&mut self, directory: &u64, name: &[u8], _: Access, _: bool, mode: u32) -> Result<(u64, u64), Errno> {
        assert_eq!(mode & !0o777, 0);
        let node = self.below(*directory, name)?;
        Ok((node, node))
    }

    fn read_at(&mut self, _: &u64, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        assert!(to.len() < MAX_MESSAGE && offset + to.len() as u64 <= i64::MAX as u64);
        to.fill(0x5A);
        self.answer(to.len())
    }

    fn write_at(&mut self, _: &u64, offset: u64, from: &[u8]) -> Result<usize, Errno> {
        assert!(from.len() < MAX_MESSAGE && offset + from.len() as u64 <= i64::MAX as u64);
        self.answer(from.len())
    }

    fn list(&mut self, _: &u64, offset: u64, take: &mut dyn FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
        for i in offset % 100..100 {
            let entry = Entry {
                qid: Qid::default(),
                next: i + 1,
                kind: Entry::FILE,
                name: &[b'x'; 100][..=i as usize],
            };
            if !take(&entry) {
                break;
            }
        }
        self.answer(())
    }

    fn make_directory(&mut self, directory: &u64, name: &[u8], mode: u32) -> Result<u64, Errno> {
        assert_eq!(mode & !0o777, 0);
        self.below(*directory, name)
    }

    fn remove(&mut self, directory: &u64, name: &[u8], _: bool) -> Result<(), Errno> {
        self.below(*directory, name).map(|_| ())
    }

    fn rename(&mut self, from: &u64, name: &[u8], to: &u64, new_name: &[u8]) -> Result<(), Errno> {
        self.below(*from, name)?;
        self.below(*to, new_name).map(|_| ())
    }

    fn resize(&mut self, _: &u64, size: u64) -> Result<(), Errno> {
        assert!(i64::try_from(size).is_ok());
        self.answer(())
    }

    fn sync(&mut self, _: &u64) -> Result<(), Errno> {
        self.answer(())
    }

    fn statistics(&mut self, _: &u64) -> Result<Statistics, Errno> {
        self.answer(Statistics::default())
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let tree = Picky {
        calls: 0,
        fails_every: 1 + u32::from(script.u8()),
    };
    let guest = Guest::new(P9::new(tree, b"fuzz"), image);
    guest.play(script);
});
