//! The driver against devices that answer well, badly and not at all.

use std::cell::RefCell;
use std::rc::Rc;

use chiton_shared::memory::GuestMemory;
use chiton_shared::virtio::p9::{Answer, Attributes, Errno, Qid, Qids, Request, VERSION};

use super::*;
use crate::testing::{Machine, bytes};

/// A device that answers each request as the test says; sessions begin by themselves.
fn machine(answer: impl Fn(&Request<'_>) -> Answer<'static> + 'static) -> Machine {
    raw(move |tag, request| {
        let answer = match request {
            Request::Version { msize, .. } => Answer::Version {
                msize: *msize,
                version: VERSION,
            },
            Request::Attach { .. } => Answer::Attach(Qid::default()),
            request => answer(request),
        };
        let mut bytes = vec![0; 1 << 16];
        let len = answer.encode(tag, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    })
}

/// A device that answers with these bytes.
fn raw(answer: impl Fn(u16, &Request<'_>) -> Vec<u8> + 'static) -> Machine {
    Machine::new(8, move |chain, memory| {
        let message = bytes(&chain.readable()[0]);
        let (tag, request) = Request::decode(&message);
        let answer = answer(tag, &request.expect("a request"));
        let room = chain.writable()[0];
        memory.window(room.address, answer.len())?.write(0, &answer);
        Some(answer.len() as u32)
    })
}

fn walk(found: usize) -> Answer<'static> {
    let mut qids = Qids::default();
    (0..found).for_each(|_| qids.push(Qid::default()));
    Answer::Walk(qids)
}

fn metadata(machine: &Machine, path: &str) -> Result<Metadata, Reason> {
    let mut client = Client::new(machine.queue())?;
    let path = Path::new(path).unwrap();
    client.metadata(&path).map_err(|error| {
        assert_eq!(error.path, path.text);
        error.reason
    })
}

#[test]
fn a_call_is_one_message_there_and_back_and_fids_are_forgotten() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&asked);
    let machine = machine(move |request| {
        seen.borrow_mut().push(request.kind());
        match request {
            Request::Walk { names, .. } => walk(names.as_slice().len()),
            Request::Attributes { .. } => Answer::Attributes(Attributes {
                mode: 0o100_644,
                size: 7,
                modified: [2, 3],
                ..Attributes::default()
            }),
            _ => Answer::Clunk,
        }
    });
    let expected = Metadata {
        kind: Kind::File,
        len: 7,
        permissions: 0o644,
        modified_ns: 2_000_000_003,
    };
    assert_eq!(metadata(&machine, "f/a/b"), Ok(expected));
    use chiton_shared::virtio::p9::kind::{TCLUNK, TGETATTR, TWALK};
    assert_eq!(*asked.borrow(), [TWALK, TGETATTR, TCLUNK]);
    assert_eq!((machine.kicks(), machine.waits()), (0, 5));
}

#[test]
fn the_hosts_reason_is_told() {
    for (errno, reason) in [
        (Errno::NOENT, Reason::NotFound),
        (Errno::ROFS, Reason::ReadOnly),
        (Errno(77), Reason::Host(77)),
    ] {
        let machine = machine(move |_| Answer::Error(errno));
        assert_eq!(metadata(&machine, "f/a"), Err(reason));
    }
    // A walk that stops on its way.
    let machine = machine(|_| walk(1));
    assert_eq!(metadata(&machine, "f/a/b"), Err(Reason::NotFound));
}

#[test]
fn answers_that_mean_nothing_are_errors() {
    for found in [0, 2, 16] {
        let machine = machine(move |_| walk(found));
        assert_eq!(metadata(&machine, "f/a"), Err(Reason::Answer));
    }
    // Another kind of answer, another tag, no message at all.
    let machine = machine(|_| Answer::Flush);
    assert_eq!(metadata(&machine, "f/a"), Err(Reason::Answer));
    for answer in [
        &b"\x07\0\0\0\x6d\xfe\xff"[..],
        b"",
        b"\xff\xff\xff\xff\x65\xff\xff",
        b"\x15\0\0\0\x65\xff\xff\0\0\xff\xff\x08\x009P2000.L",
        b"\x15\0\0\0\x65\xff\xff\x10\0\0\0\x08\x009P2000.L",
    ] {
        let machine = raw(move |_, _| answer.to_vec());
        assert!(Client::new(machine.queue()).is_err(), "{answer:x?}");
    }
}

#[test]
fn more_data_than_asked_for_and_lists_without_end_are_errors() {
    let machine = machine(|request| match request {
        Request::Walk { names, .. } => walk(names.as_slice().len()),
        Request::Open { .. } => Answer::Open {
            qid: Qid::default(),
            unit: 0,
        },
        Request::Read { .. } => Answer::Read(b"four"),
        Request::Write { .. } => Answer::Write(9),
        Request::ReadDirectory { .. } => Answer::ReadDirectory(b"no entry"),
        _ => Answer::Clunk,
    });
    let mut client = Client::new(machine.queue()).unwrap();
    assert_eq!(client.read_at(1, 0, &mut [0; 3]), Err(Reason::Answer));
    assert_eq!(client.read_at(1, 0, &mut [0; 4]), Ok(4));
    assert_eq!(client.write_at(1, 0, &[0; 8]), Err(Reason::Answer));
    let path = Path::new("f/d").unwrap();
    let list = client.read_dir(&path);
    assert_eq!(list.map_err(|error| error.reason), Err(Reason::Answer));
}
