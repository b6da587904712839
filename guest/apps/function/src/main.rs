//! A function to be called. The request is a word, and what belongs to it behind a space:
//!
//! | request | reply |
//! |---|---|
//! | `echo BYTES` | the bytes |
//! | `sha256 BYTES` | their digest, in hexadecimal |
//! | `count` | how many calls there have been since the guest was ready, this one included |
//! | `random` | a random number |
//! | `entropy` | 16 random bytes of the entropy device, in hexadecimal |
//! | `uptime` | nanoseconds since the guest's first instruction |
//! | `touch N` | nothing, after writing to N pages |
//! | `grow N` | N bytes |
//! | `say TEXT` | nothing; the text is logged |
//! | `print TEXT` | nothing; the text goes to the console |
//! | `stamps` | the time-stamp counter when the function begins, and when it ends |
//! | `wait` | none: it waits for ever |
//! | `fail TEXT` | none: it fails with this text, and the number 7 |
//! | `panic`, `fault`, `hang`, `exit` | none: it does that |
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};

use chiton_guest::call::Failure;
use chiton_guest::host::{Doorbells, Host};
use chiton_guest::random::Random;
use chiton_guest::{entropy, exit, log, print, time};
use sha2::{Digest, Sha256};

chiton_guest::function!(answer, heap = 8 * MIB);

static CALLS: AtomicU32 = AtomicU32::new(0);

fn answer(request: &[u8]) -> Result<Vec<u8>, Failure> {
    let began = time::ticks();
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let end = request.iter().position(|byte| *byte == b' ').unwrap_or(request.len());
    let (word, rest) = (&request[..end], request.get(end + 1..).unwrap_or_default());
    Ok(match word {
        b"echo" => rest.to_vec(),
        b"sha256" => hexadecimal(&Sha256::digest(rest)),
        b"count" => format!("{calls}").into_bytes(),
        b"random" => format!("{:016x}", Random::new().next_u64()).into_bytes(),
        b"entropy" => {
            let mut bytes = [0; 16];
            entropy::fill(&mut bytes).map_err(|error| failure(format!("{error}").as_bytes()))?;
            hexadecimal(&bytes)
        }
        b"stamps" => [began, time::ticks()].map(u64::to_le_bytes).concat(),
        b"print" => {
            print!("{}", core::str::from_utf8(rest).unwrap_or("not UTF-8"));
            Vec::new()
        }
        b"wait" => {
            Doorbells.wait(u64::MAX);
            Vec::new()
        }
        b"uptime" => format!("{}", time::uptime().as_nanos()).into_bytes(),
        b"touch" => {
            touch(number(rest)?);
            Vec::new()
        }
        b"grow" => alloc::vec![b'x'; number(rest)?],
        b"say" => {
            log::warn!("{}", core::str::from_utf8(rest).unwrap_or("not UTF-8"));
            Vec::new()
        }
        b"fail" => return Err(failure(rest)),
        b"panic" => panic!("asked to"),
        b"fault" => {
            // SAFETY: the address is mapped nowhere: the guest ends here.
            unsafe { black_box(16 as *mut u8).write_volatile(1) };
            Vec::new()
        }
        b"hang" => loop {
            core::hint::spin_loop();
        },
        b"exit" => exit(3_u32),
        _ => return Err(failure(b"no such function")),
    })
}

fn failure(words: &[u8]) -> Failure {
    Failure {
        code: 7,
        words: words.to_vec(),
    }
}

fn number(text: &[u8]) -> Result<usize, Failure> {
    let number = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| failure(b"that is not a number"))
}

/// Writes a byte to so many pages of the heap.
fn touch(pages: usize) {
    let mut memory: Vec<u8> = Vec::with_capacity(pages << 12);
    let start = memory.as_mut_ptr();
    for page in 0..pages {
        // SAFETY: within what was allocated.
        unsafe { start.add(page << 12).write_volatile(1) };
    }
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|byte| format!("{byte:02x}").into_bytes())
        .collect()
}
