//! Attacks on a folder of the host: messages that are well-formed and lead out of it, and others that are not.

use alloc::vec;
use alloc::vec::Vec;

use chiton_guest::shared::virtio::id;
use chiton_guest::shared::virtio::p9::{
    NO_FID, Names, REMOVE_DIRECTORY, Request, SET_SIZE, SetAttributes, VERSION, open,
};
use chiton_guest::shared::virtio::ring::layout::{F_NEXT, F_WRITE};
use chiton_guest::time::Instant;

use crate::Attack;
use crate::chains::{PATIENCE, SCRATCH, Victim, set_up};
use crate::memory::{devices, read_u16};

/// What the host has in a file outside of the folder; no answer may have it.
const SECRET: &[u8] = b"the needle outside";

/// Where answers are, and how long they may be.
const ANSWER: u64 = SCRATCH + 0x8000;
const ROOM: u32 = 0x4000;

/// A session with a folder, whose messages are written by hand.
struct Session<'a> {
    victim: Victim<'a>,
    answered: u16,
}

impl Session<'_> {
    /// Sends a message and waits for the answer, which is looked through.
    fn send(&mut self, message: &[u8]) -> Vec<u8> {
        for (at, byte) in (SCRATCH..).zip(message) {
            // SAFETY: within the memory of the queues, which is mapped and holds no Rust object.
            unsafe { (at as *mut u8).write_volatile(*byte) };
        }
        self.victim
            .send(&[(SCRATCH, message.len() as u32, F_NEXT, 1), (ANSWER, ROOM, F_WRITE, 0)]);
        self.answered = self.answered.wrapping_add(1);
        let start = Instant::now();
        while read_u16(self.victim.config.device + 2) != self.answered {
            assert!(start.elapsed() < PATIENCE, "no answer to {message:?}");
        }
        // SAFETY: as above; the device has given the buffer back.
        let answer: Vec<u8> = (0..u64::from(ROOM))
            .map(|at| unsafe { ((ANSWER + at) as *const u8).read_volatile() })
            .collect();
        assert!(
            !answer.windows(SECRET.len()).any(|bytes| bytes == SECRET),
            "{message:?} led out of the folder"
        );
        answer
    }

    fn ask(&mut self, request: &Request<'_>) {
        let mut message = vec![0; 0x2000];
        if let Some(len) = request.encode(1, &mut message) {
            self.send(&message[..len]);
        }
    }
}

pub fn folder(attack: &mut Attack) {
    let Some(device) = devices().find(|device| device.id == id::P9) else {
        return;
    };
    let mut session = Session {
        victim: set_up(device, 0),
        answered: 0,
    };
    let long = [b'x'; 300];
    let names: &[&[u8]] = &[
        b"..",
        b".",
        b"",
        b"/",
        b"../secret",
        b"/etc/passwd",
        b"link",
        b"up",
        b"fifo",
        b"null",
        b"one",
        b"sub",
        b"a\0b",
        b"secret",
        &long[..255],
        &long,
        b"\xff\xfe",
    ];
    for _ in 0..attack.rounds {
        session.ask(&Request::Version {
            msize: ROOM,
            version: VERSION,
        });
        session.ask(&Request::Attach {
            fid: 0,
            afid: NO_FID,
            user: b"",
            tree: b"../..",
            uid: 0,
        });
        for name in names {
            for path in [&[*name][..], &[b"sub", *name], &[*name, b"secret"], &[*name; 16]] {
                walk(&mut session, path);
            }
            change(&mut session, name);
        }
        mutate(&mut session, attack);
    }
}

/// Goes where the path leads, and does there all that can be done.
fn walk(session: &mut Session<'_>, path: &[&[u8]]) {
    let Some(names) = Names::new(path) else { return };
    for flags in [open::READ, open::READ_WRITE | open::TRUNCATE, u32::MAX] {
        session.ask(&Request::Walk {
            fid: 0,
            new_fid: 1,
            names,
        });
        session.ask(&Request::Open { fid: 1, flags });
        for count in [64, u32::MAX] {
            session.ask(&Request::Read {
                fid: 1,
                offset: 0,
                count,
            });
            session.ask(&Request::ReadDirectory {
                fid: 1,
                offset: 0,
                count,
            });
        }
        session.ask(&Request::Read {
            fid: 1,
            offset: u64::MAX,
            count: 64,
        });
        session.ask(&Request::Write {
            fid: 1,
            offset: 0,
            data: b"hostile",
        });
        session.ask(&Request::Clunk { fid: 1 });
    }
}

/// Makes, moves, cuts and removes what has this name.
fn change(session: &mut Session<'_>, name: &[u8]) {
    session.ask(&Request::MakeDirectory {
        fid: 0,
        name,
        mode: u32::MAX,
        gid: 0,
    });
    session.ask(&Request::Walk {
        fid: 0,
        new_fid: 2,
        names: Names::new(&[]).unwrap_or_else(|| unreachable!()),
    });
    session.ask(&Request::Create {
        fid: 2,
        name,
        flags: open::READ_WRITE,
        mode: 0o6777,
        gid: 0,
    });
    session.ask(&Request::SetAttributes {
        fid: 2,
        to: SetAttributes {
            valid: SET_SIZE,
            size: u64::MAX >> 1,
            ..SetAttributes::default()
        },
    });
    session.ask(&Request::Clunk { fid: 2 });
    for (from, to) in [(name, &b"one"[..]), (b"one", name)] {
        session.ask(&Request::Rename {
            fid: 0,
            name: from,
            new_fid: 0,
            new_name: to,
        });
    }
    for flags in [0, REMOVE_DIRECTORY] {
        session.ask(&Request::Remove { fid: 0, name, flags });
    }
}

/// Messages that are none any more.
fn mutate(session: &mut Session<'_>, attack: &mut Attack) {
    let mut message = [0; 128];
    for _ in 0..100 {
        let request = Request::Walk {
            fid: 0,
            new_fid: 1,
            names: Names::new(&[b"..", b"secret"]).unwrap_or_else(|| unreachable!()),
        };
        let Some(len) = request.encode(1, &mut message) else {
            return;
        };
        for _ in 0..1 + attack.random.below(4) {
            let at = attack.random.below(len as u64) as usize;
            message[at] = attack.random.next_u64() as u8;
        }
        session.send(&message[..1 + attack.random.below(len as u64) as usize]);
        session.send(&message[..len]);
    }
}
