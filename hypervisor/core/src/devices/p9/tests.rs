//! A driver's requests, good and bad.

use std::vec::Vec;

use chiton_shared::virtio::p9::{
    Answer, Entry, Errno, MAX_MESSAGE, MIN_MESSAGE, NO_FID, Names, REMOVE_DIRECTORY, Reader, Request, SET_SIZE,
    SetAttributes, VERSION, open,
};
use chiton_shared::virtio::ring::Buffer;
use proptest::prelude::*;

use super::fake::FakeTree;
use super::fids::MAX_FIDS;
use super::*;
use crate::devices::testing::{BUFFERS, Memory, Rig, config};

const READ: u32 = 1;

fn tree() -> FakeTree {
    FakeTree::new(&[("/a", Some(b"hello")), ("/d", None), ("/d/b", Some(b"bee"))])
}

struct Driver<'m> {
    rig: Rig<'m>,
}

/// Where requests and answers are.
const REQUEST: u64 = BUFFERS;
const ANSWER: u64 = BUFFERS + 0x3000;

impl<'m> Driver<'m> {
    fn new(memory: &'m Memory, tree: FakeTree) -> Self {
        Self {
            rig: Rig::new(memory, P9::new(tree, b"name")),
        }
    }

    /// With a session and fid 0.
    fn ready(memory: &'m Memory, tree: FakeTree) -> Self {
        let mut driver = Self::new(memory, tree);
        let msize = 0x3000;
        let version = driver.ask(&Request::Version {
            msize,
            version: VERSION,
        });
        assert_eq!(
            Answer::decode(&version),
            Some((
                9,
                Answer::Version {
                    msize,
                    version: VERSION
                }
            ))
        );
        let attach = driver.ask(&attach(0));
        assert!(matches!(Answer::decode(&attach), Some((9, Answer::Attach(_)))));
        driver
    }

    /// The answer's bytes.
    fn ask(&mut self, request: &Request<'_>) -> Vec<u8> {
        let mut bytes = vec![0; 0x3000];
        let len = request.encode(9, &mut bytes).unwrap();
        self.send(&bytes[..len], 0x3000)
    }

    fn send(&mut self, request: &[u8], room: u32) -> Vec<u8> {
        self.rig.memory.write(REQUEST, request);
        let buffers = [
            Buffer::readable(REQUEST, request.len() as u32),
            Buffer::writable(ANSWER, room),
        ];
        let _ = self.rig.submit(0, &buffers);
        let len = self.rig.take(0).expect("an answer");
        self.rig.memory.read(ANSWER, len as usize)
    }

    /// Asks for what has to succeed.
    fn done(&mut self, request: &Request<'_>) {
        assert_eq!(self.error(request), None, "{request:?}");
    }

    fn error(&mut self, request: &Request<'_>) -> Option<Errno> {
        let answer = self.ask(request);
        match Answer::decode(&answer).expect("an answer") {
            (9, Answer::Error(errno)) => Some(errno),
            (9, answer) => {
                assert_eq!(answer.kind(), request.kind() + 1);
                None
            }
            (tag, answer) => panic!("{tag}: {answer:?}"),
        }
    }

    fn walk(&mut self, new_fid: u32, names: &[&[u8]]) -> Option<Errno> {
        let names = Names::new(names).unwrap();
        self.error(&Request::Walk { fid: 0, new_fid, names })
    }
}

fn attach(fid: u32) -> Request<'static> {
    Request::Attach {
        fid,
        afid: NO_FID,
        user: b"me",
        tree: b"",
        uid: 0,
    }
}

#[test]
fn a_file_is_found_read_written_and_cut() {
    let (memory, tree) = (Memory::new(), tree());
    let mut driver = Driver::ready(&memory, tree.clone());
    assert_eq!(driver.walk(READ, &[b"d", b"b"]), None);
    let flags = open::READ_WRITE;
    driver.done(&Request::Open { fid: READ, flags });
    let read = |offset, count| Request::Read {
        fid: READ,
        offset,
        count,
    };
    let answer = driver.ask(&read(1, 100));
    assert_eq!(Answer::decode(&answer), Some((9, Answer::Read(b"ee"))));
    let answer = driver.ask(&read(0, 1));
    assert_eq!(Answer::decode(&answer), Some((9, Answer::Read(b"b"))));
    let answer = driver.ask(&read(9, u32::MAX));
    assert_eq!(Answer::decode(&answer), Some((9, Answer::Read(b""))));
    let (fid, data) = (READ, b"at");
    driver.done(&Request::Write { fid, offset: 1, data });
    assert_eq!(tree.files()[&b"/d/b"[..]].as_deref(), Some(&b"bat"[..]));
    let to = SetAttributes {
        valid: SET_SIZE,
        size: 1,
        ..SetAttributes::default()
    };
    driver.done(&Request::SetAttributes { fid, to });
    assert_eq!(tree.files()[&b"/d/b"[..]].as_deref(), Some(&b"b"[..]));
    driver.done(&Request::Sync { fid, data_only: 0 });
    driver.done(&Request::Attributes { fid, mask: 0 });
    driver.done(&Request::Statistics { fid });
    driver.done(&Request::Flush { old_tag: 3 });
    driver.done(&Request::Clunk { fid });
    assert_eq!(driver.error(&read(0, 1)), Some(Errno::BADF));
}

#[test]
fn files_and_directories_are_made_moved_and_removed() {
    let (memory, tree) = (Memory::new(), tree());
    let mut driver = Driver::ready(&memory, tree.clone());
    let make = Request::MakeDirectory {
        fid: 0,
        name: b"n",
        mode: 0o7777,
        gid: 0,
    };
    driver.done(&make);
    assert_eq!(driver.error(&make), Some(Errno::EXIST));
    assert_eq!(driver.walk(1, &[b"n"]), None);
    let create = |flags| Request::Create {
        fid: 1,
        name: b"f",
        flags,
        mode: 0o7777,
        gid: 0,
    };
    driver.done(&create(open::READ_WRITE));
    // The fid is the open file now.
    assert_eq!(driver.error(&create(0)), Some(Errno::BADF));
    driver.done(&Request::Clunk { fid: 1 });
    assert_eq!(driver.walk(1, &[b"n"]), None);
    assert_eq!(driver.error(&create(open::EXCLUSIVE)), Some(Errno::EXIST));
    driver.done(&Request::Rename {
        fid: 1,
        name: b"f",
        new_fid: 0,
        new_name: b"g",
    });
    assert!(tree.files().contains_key(&b"/g"[..]));
    let remove = |name, flags| Request::Remove { fid: 0, name, flags };
    driver.done(&remove(b"g", 0));
    assert_eq!(driver.error(&remove(b"n", 0)), Some(Errno::ISDIR));
    driver.done(&remove(b"n", REMOVE_DIRECTORY));
    assert_eq!(driver.error(&remove(b"n", 1)), Some(Errno::INVAL));
    assert_eq!(tree.files().len(), 4);
}

#[test]
fn a_list_goes_on_where_it_stopped() {
    let memory = Memory::new();
    let mut driver = Driver::ready(&memory, tree());
    assert_eq!(driver.walk(1, &[]), None);
    driver.done(&Request::Open { fid: 1, flags: 0 });
    let (mut offset, mut names) = (0, Vec::new());
    loop {
        // Room for one entry.
        let answer = driver.ask(&Request::ReadDirectory {
            fid: 1,
            offset,
            count: 30,
        });
        let Some((_, Answer::ReadDirectory(list))) = Answer::decode(&answer) else {
            panic!("{answer:x?}");
        };
        let Some(entry) = Entry::read(&mut Reader::new(list)) else {
            break;
        };
        offset = entry.next;
        names.push(entry.name.to_vec());
    }
    assert_eq!(names, [b"a", b"d"]);
    let small = Request::ReadDirectory {
        fid: 1,
        offset: 0,
        count: 9,
    };
    assert_eq!(driver.error(&small), Some(Errno::INVAL));
}

#[test]
fn names_that_are_paths_are_refused_everywhere() {
    let memory = Memory::new();
    let mut driver = Driver::ready(&memory, tree());
    for name in [&b""[..], b".", b"..", b"d/b", b"/", b"a\0"] {
        assert_eq!(driver.walk(1, &[name]), Some(Errno::INVAL));
        let (fid, flags, mode, gid) = (0, 0, 0, 0);
        let bad = Some(Errno::INVAL);
        assert_eq!(
            driver.error(&Request::Create {
                fid,
                name,
                flags,
                mode,
                gid
            }),
            bad
        );
        assert_eq!(driver.error(&Request::MakeDirectory { fid, name, mode, gid }), bad);
        assert_eq!(driver.error(&Request::Remove { fid, name, flags }), bad);
        let (new_fid, new_name) = (0, b"a".as_slice());
        assert_eq!(
            driver.error(&Request::Rename {
                fid,
                name,
                new_fid,
                new_name
            }),
            bad
        );
        let (name, new_name) = (new_name, name);
        assert_eq!(
            driver.error(&Request::Rename {
                fid,
                name,
                new_fid,
                new_name
            }),
            bad
        );
    }
    assert_eq!(driver.walk(1, &[&[b'x'; 256]]), Some(Errno::NAMETOOLONG));
    // A walk that stops on its way makes no fid.
    assert_eq!(driver.walk(1, &[b"d", b".."]), None);
    assert_eq!(driver.error(&Request::Clunk { fid: 1 }), Some(Errno::BADF));
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn fids_are_bounded_and_known() {
    let memory = Memory::new();
    let mut driver = Driver::ready(&memory, tree());
    for fid in 1..MAX_FIDS as u32 {
        assert_eq!(driver.walk(fid, &[]), None);
    }
    assert_eq!(driver.walk(1000, &[]), Some(Errno::MFILE));
    assert_eq!(driver.walk(1, &[]), Some(Errno::EXIST));
    assert_eq!(driver.walk(NO_FID, &[]), Some(Errno::BADF));
    assert_eq!(driver.error(&Request::Clunk { fid: 2000 }), Some(Errno::BADF));
    assert_eq!(
        driver.error(&Request::Read {
            fid: 0,
            offset: 0,
            count: 1
        }),
        Some(Errno::BADF)
    );
    // A new session forgets them all.
    driver.done(&Request::Version {
        msize: u32::MAX,
        version: VERSION,
    });
    driver.done(&attach(1));
}

#[test]
fn a_session_begins_with_a_version() {
    let memory = Memory::new();
    let mut driver = Driver::new(&memory, tree());
    assert_eq!(driver.error(&attach(0)), Some(Errno::PROTO));
    let version = |msize, version| Request::Version { msize, version };
    let small = version(MIN_MESSAGE as u32 - 1, VERSION);
    assert_eq!(driver.error(&small), Some(Errno::MSGSIZE));
    let unknown = driver.ask(&version(8192, b"9P2000.u"));
    let expected = Answer::Version {
        msize: 8192,
        version: b"unknown",
    };
    assert_eq!(Answer::decode(&unknown), Some((9, expected)));
    assert_eq!(driver.error(&attach(0)), Some(Errno::PROTO));
    let large = driver.ask(&version(u32::MAX, VERSION));
    let expected = Answer::Version {
        msize: MAX_MESSAGE as u32,
        version: VERSION,
    };
    assert_eq!(Answer::decode(&large), Some((9, expected)));
    let mut with_user = attach(0);
    if let Request::Attach { afid, .. } = &mut with_user {
        *afid = 3;
    }
    assert_eq!(driver.error(&with_user), Some(Errno::OPNOTSUPP));
}

#[test]
fn messages_that_are_none_get_an_error_and_their_tag() {
    let memory = Memory::new();
    let mut driver = Driver::ready(&memory, tree());
    let mut error = |bytes: &[u8]| {
        let answer = driver.send(bytes, 11);
        match Answer::decode(&answer) {
            Some((tag, Answer::Error(errno))) => (tag, errno),
            other => panic!("{other:?}"),
        }
    };
    // Tauth, and a number that nobody knows.
    assert_eq!(error(b"\x07\0\0\0\x66\x05\0"), (5, Errno::OPNOTSUPP));
    assert_eq!(error(b"\x07\0\0\0\xff\x05\0"), (5, Errno::OPNOTSUPP));
    assert_eq!(error(b"\x07\0\0\0\x78\x05\0"), (5, Errno::INVAL));
    assert_eq!(error(b"\xff\xff\xff\xff\x78\x05\0"), (5, Errno::INVAL));
    assert_eq!(error(b"\x0b\0"), (u16::MAX, Errno::INVAL));
    // The answer to this has no room.
    assert_eq!(
        error(b"\x13\0\0\0\x18\x05\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (5, Errno::MSGSIZE)
    );
}

#[test]
fn an_answer_without_room_stops_the_device() {
    let memory = Memory::new();
    let mut driver = Driver::ready(&memory, tree());
    let _ = driver
        .rig
        .submit(0, &[Buffer::readable(REQUEST, 7), Buffer::writable(ANSWER, 10)]);
    assert!(driver.rig.transport.broken().is_some());
}

#[test]
fn the_configuration_is_the_name() {
    let memory = Memory::new();
    let driver = Driver::new(&memory, tree());
    assert_eq!(
        chiton_shared::virtio::p9::tag(&driver.rig.entry.config),
        Some(&b"name"[..])
    );
    assert_eq!(driver.rig.entry.features & F_MOUNT_TAG, F_MOUNT_TAG);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_message_has_an_answer(
        messages in prop::collection::vec((any::<u8>(), prop::collection::vec(0..20u8, 0..60), 11..200u32), 1..8)
    ) {
        let memory = Memory::new();
        let mut driver = Driver::ready(&memory, tree());
        for (kind, fields, room) in messages {
            let len = 7 + fields.len() as u8;
            let message = [&[len, 0, 0, 0, kind, 9, 0], fields.as_slice()].concat();
            let answer = driver.send(&message, room);
            prop_assert!(Answer::decode(&answer).is_some());
        }
    }
}
