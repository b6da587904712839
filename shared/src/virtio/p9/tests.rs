//! What one side writes the other reads.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const CASES: u32 = 512;

fn requests<'a>(n: u32, long: u64, name: &'a [u8], data: &'a [u8]) -> Vec<Request<'a>> {
    let names = Names::new(&[name, b"x", name]).unwrap();
    let to = SetAttributes {
        valid: n,
        mode: 1,
        uid: 2,
        gid: 3,
        size: long,
        times: [4, 5, 6, 7],
    };
    vec![
        Request::Version {
            msize: n,
            version: name,
        },
        Request::Attach {
            fid: n,
            afid: 1,
            user: name,
            tree: b"",
            uid: 7,
        },
        Request::Flush { old_tag: n as u16 },
        Request::Walk {
            fid: n,
            new_fid: 3,
            names,
        },
        Request::Walk {
            fid: n,
            new_fid: 3,
            names: Names::new(&[]).unwrap(),
        },
        Request::Open { fid: n, flags: 4 },
        Request::Create {
            fid: n,
            name,
            flags: 2,
            mode: 3,
            gid: 4,
        },
        Request::Read {
            fid: n,
            offset: long,
            count: 5,
        },
        Request::Write {
            fid: n,
            offset: long,
            data,
        },
        Request::Attributes { fid: n, mask: long },
        Request::SetAttributes { fid: n, to },
        Request::ReadDirectory {
            fid: n,
            offset: long,
            count: 6,
        },
        Request::MakeDirectory {
            fid: n,
            name,
            mode: 1,
            gid: 2,
        },
        Request::Remove { fid: n, name, flags: 3 },
        Request::Rename {
            fid: n,
            name,
            new_fid: 1,
            new_name: b"new",
        },
        Request::Sync { fid: n, data_only: 1 },
        Request::Clunk { fid: n },
        Request::Statistics { fid: n },
    ]
}

fn answers<'a>(n: u32, long: u64, name: &'a [u8], data: &'a [u8]) -> Vec<Answer<'a>> {
    let qid = Qid {
        kind: Qid::DIRECTORY,
        version: n,
        path: long,
    };
    let mut qids = Qids::default();
    (0..3).for_each(|_| qids.push(qid));
    let attributes = Attributes {
        qid,
        mode: n,
        uid: 1,
        gid: 2,
        links: 3,
        size: long,
        block_size: 4,
        blocks: 5,
        accessed: [6, 7],
        modified: [8, 9],
        changed: [10, 11],
    };
    let statistics = Statistics {
        kind: n,
        block_size: 1,
        blocks: [2, 3, 4],
        files: [5, 6],
        id: long,
        name_len: 255,
    };
    vec![
        Answer::Error(Errno(n)),
        Answer::Version {
            msize: n,
            version: name,
        },
        Answer::Attach(qid),
        Answer::Flush,
        Answer::Walk(qids),
        Answer::Open { qid, unit: n },
        Answer::Create { qid, unit: n },
        Answer::Read(data),
        Answer::Write(n),
        Answer::Attributes(attributes),
        Answer::SetAttributes,
        Answer::ReadDirectory(data),
        Answer::MakeDirectory(qid),
        Answer::Remove,
        Answer::Rename,
        Answer::Sync,
        Answer::Clunk,
        Answer::Statistics(statistics),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn messages_read_back_and_none_that_is_cut_or_longer_does(
        (n, long, tag) in any::<(u32, u64, u16)>(),
        name in proptest::collection::vec(any::<u8>(), 0..300),
        data in proptest::collection::vec(any::<u8>(), 0..300),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut buffer = [0; 2048];
        for request in requests(n, long, &name, &data) {
            let len = request.encode(tag, &mut buffer).unwrap();
            prop_assert_eq!(Request::decode(&buffer[..len]), (tag, Ok(request)));
            let at = cut.index(len);
            prop_assert_eq!(Request::decode(&buffer[..at]).1, Err(Refused::Malformed));
            prop_assert_eq!(Request::decode(&buffer[..=len]).1, Err(Refused::Malformed));
            prop_assert!(request.encode(tag, &mut [0; 2048][..at]).is_none());
            // A message that says that it is shorter than its fields.
            buffer[..4].copy_from_slice(&(at as u32).to_le_bytes());
            prop_assert!(Request::decode(&buffer[..at]).1 != Ok(request));
        }
        for answer in answers(n, long, &name, &data) {
            let len = answer.encode(tag, &mut buffer).unwrap();
            prop_assert_eq!(Answer::decode(&buffer[..len]), Some((tag, answer)));
            prop_assert!(Answer::decode(&buffer[..cut.index(len)]).is_none());
            prop_assert!(answer.encode(tag, &mut [0; 2048][..cut.index(len)]).is_none());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), sized in any::<bool>()) {
        if sized && bytes.len() >= 4 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
        let _ = Request::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let mut reader = Reader::new(&bytes);
        while Entry::read(&mut reader).is_some() {}
    }
}

#[test]
fn messages_are_laid_out_as_the_protocol_says() {
    let mut buffer = [0; 64];
    let request = Request::Version {
        msize: 0x1_0000,
        version: VERSION,
    };
    let len = request.encode(NO_TAG, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"\x15\0\0\0\x64\xff\xff\0\0\x01\0\x08\x009P2000.L");
    let qid = Qid {
        kind: Qid::DIRECTORY,
        version: 0,
        path: 2,
    };
    let len = Answer::Attach(qid).encode(1, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"\x14\0\0\0\x69\x01\0\x80\0\0\0\0\x02\0\0\0\0\0\0\0");
    let attributes = Answer::Attributes(Attributes::default());
    assert_eq!(attributes.encode(1, &mut [0; 256]), Some(HEAD + 153));
    let write = Request::Write {
        fid: 0,
        offset: 0,
        data: b"",
    };
    assert_eq!(write.encode(1, &mut [0; 256]), Some(DATA_HEAD));
}

#[test]
fn entries_follow_one_another() {
    let mut buffer = [0; 256];
    let entry = |name| Entry {
        qid: Qid::default(),
        next: 9,
        kind: Entry::FILE,
        name,
    };
    let first = entry(b"a".as_slice()).write(&mut buffer).unwrap();
    let both = first + entry(b"bc").write(&mut buffer[first..]).unwrap();
    let mut reader = Reader::new(&buffer[..both]);
    assert_eq!(Entry::read(&mut reader), Some(entry(b"a")));
    assert_eq!(Entry::read(&mut reader), Some(entry(b"bc")));
    assert_eq!(Entry::read(&mut reader), None);
    assert!(entry(b"abc").write(&mut buffer[..first + 1]).is_none());
}

#[test]
fn more_names_than_a_walk_has_are_refused() {
    let mut buffer = [0; 256];
    let names = Names::new(&[b"a".as_slice(); MAX_NAMES]).unwrap();
    let len = Request::Walk {
        fid: 0,
        new_fid: 1,
        names,
    }
    .encode(1, &mut buffer)
    .unwrap();
    assert!(Request::decode(&buffer[..len]).1.is_ok());
    buffer[15] += 1;
    buffer[len..len + 3].copy_from_slice(b"\x01\0a");
    buffer[..4].copy_from_slice(&(len as u32 + 3).to_le_bytes());
    assert_eq!(Request::decode(&buffer[..len + 3]).1, Err(Refused::Malformed));
    assert!(Names::new(&[b"a".as_slice(); MAX_NAMES + 1]).is_none());
}

#[test]
fn names_and_tags() {
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
        assert_eq!(check_name(name), Err(Errno::INVAL));
    }
    assert_eq!(check_name(&[b'a'; 256]), Err(Errno::NAMETOOLONG));
    assert_eq!(check_name(b"..."), Ok(()));
    let (bytes, len) = config(b"src");
    assert_eq!(tag(&bytes[..len]), Some(&b"src"[..]));
    assert_eq!(tag(&bytes[..len - 1]), None);
    assert_eq!(config(&[b'x'; 99]).1, 2 + MAX_TAG);
}
