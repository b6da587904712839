//! The same Ethernet frames over a network interface of either kind:
//! `compare-net virtio|emulated echo|send|take COUNT [BYTES]`.
//!
//! `echo` returns COUNT frames, `take` takes in COUNT and then sends one, and `send` sends COUNT
//! frames of BYTES bytes when a first one has come. All are of EtherType 88B5 (IEEE Std 802: for
//! local experiments), and others are not counted. It prints `ready` when it is.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use core::ptr::NonNull;

use chiton_guest::host::Doorbells;
use chiton_guest::net::driver::{Receive, Transmit};
use chiton_guest::queue::Queue;
use chiton_guest::shared::memory::Window;
use chiton_guest::shared::virtio::{id, net};
use chiton_guest::{boot, console, emulated, env, println, time};

chiton_guest::entry!(main, heap = 4 * MIB);

const USAGE: &str = "usage: compare-net virtio|emulated echo|send|take COUNT [BYTES]";
const ETHER_TYPE: [u8; 2] = [0x88, 0xB5];
const LONGEST: usize = 2048;

/// The two halves of a virtio interface.
type Virtio = (Receive<'static, Doorbells>, Transmit<'static, Doorbells>);

/// A network interface of either kind.
enum Nic {
    Virtio(Box<Virtio>),
    Emulated(emulated::Nic),
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl Nic {
    fn open(kind: &str) -> Result<Self, String> {
        match kind {
            "virtio" => {
                let entry = boot::devices(id::NET)
                    .next()
                    .ok_or("there is no network interface: --net")?;
                let memory = vec![0_u8; 128 * 4096].leak();
                let len = memory.len();
                // SAFETY: leaked memory, reached through this window and by the device only.
                let memory = unsafe { Window::new(NonNull::from(memory).cast(), len) };
                // SAFETY: the boot page describes queues as the contract has it, and this program
                // opens each once.
                let queue = |index| unsafe { Queue::open(entry, index, Doorbells) }.map(Box::new);
                let receive = Receive::new(queue(net::RECEIVE).map_err(text)?, memory, entry.features);
                let transmit = Transmit::new(queue(net::TRANSMIT).map_err(text)?, entry.features);
                Ok(Self::Virtio(Box::new((receive.map_err(text)?, transmit))))
            }
            "emulated" => Ok(Self::Emulated(emulated::Nic::open().map_err(text)?)),
            _ => Err(USAGE.into()),
        }
    }

    /// Sends a frame; virtio's go out with the next `wait` or `flush`, or when there are enough.
    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        match self {
            Self::Virtio(virtio) => {
                let transmit = &mut virtio.1;
                while !transmit.has_room() {
                    if !transmit.arm() {
                        time::wait(None);
                    }
                    transmit.failed().map_or(Ok(()), |error| Err(text(error)))?;
                    transmit.collect();
                }
                transmit.send(frame.len(), None, |to| to.copy_from_slice(frame));
                Ok(())
            }
            Self::Emulated(nic) => nic.send(frame).map_err(text),
        }
    }

    fn flush(&mut self) {
        if let Self::Virtio(virtio) = self {
            virtio.1.kick();
        }
    }

    /// Sleeps until a frame comes, and takes it.
    fn receive(&mut self, frame: &mut [u8; LONGEST]) -> Result<usize, String> {
        loop {
            let len = match self {
                Self::Virtio(virtio) => {
                    let (receive, transmit) = &mut **virtio;
                    transmit.collect();
                    let taken = receive.receive().map_err(text)?;
                    let len = taken.map(|taken| {
                        let len = taken.len().min(LONGEST);
                        frame[..len].copy_from_slice(&taken[..len]);
                        len
                    });
                    if len.is_none() && !receive.arm() {
                        time::wait(None);
                    }
                    len
                }
                Self::Emulated(nic) => {
                    let len = nic.receive(frame).map_err(text)?;
                    if len.is_none() {
                        nic.wait();
                    }
                    len
                }
            };
            match len {
                Some(len) if len >= 14 && frame[12..14] == ETHER_TYPE => return Ok(len),
                _ => {}
            }
        }
    }
}

fn main() -> Result<(), String> {
    let words: alloc::vec::Vec<_> = env::args().skip(1).collect();
    let [kind, what, count, rest @ ..] = &words[..] else {
        return Err(USAGE.into());
    };
    let number = |word: &str| word.parse::<usize>().map_err(|_| String::from(USAGE));
    let (count, bytes) = (number(count)?, rest.first().map_or(Ok(60), |word| number(word))?);
    let mut nic = Nic::open(kind)?;
    println!("ready");
    console::flush().map_err(text)?;
    let mut frame = [0; LONGEST];
    match *what {
        "echo" => {
            for _ in 0..count {
                let len = nic.receive(&mut frame)?;
                turn(&mut frame);
                nic.send(&frame[..len])?;
            }
        }
        "take" => {
            let mut len = 0;
            for _ in 0..count {
                len = nic.receive(&mut frame)?;
            }
            turn(&mut frame);
            nic.send(&frame[..len])?;
        }
        "send" => {
            let _ = nic.receive(&mut frame)?;
            turn(&mut frame);
            let bytes = bytes.clamp(14, LONGEST);
            for _ in 0..count {
                nic.send(&frame[..bytes])?;
            }
        }
        _ => return Err(USAGE.into()),
    }
    nic.flush();
    Ok(())
}

/// Sends a frame back to where it came from.
fn turn(frame: &mut [u8; LONGEST]) {
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
}
