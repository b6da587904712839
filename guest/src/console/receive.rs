//! Input: blocks that the device fills, read from the oldest on.

use alloc::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::ring::{Buffer, MAX_SIZE};

use crate::host::Host;
use crate::queue::{Queue, QueueError};

/// How many blocks the memory is divided into.
pub const BLOCKS: usize = 4;

/// The receiving half of a console.
#[derive(Debug)]
pub struct Receive<'m, H> {
    queue: Queue<'m, H>,
    blocks: [Window<'m>; BLOCKS],
    /// The block of the chain with this head.
    owner: [u8; MAX_SIZE as usize],
    /// Blocks that the device has not been given, as bits.
    idle: u8,
    /// The block being read: its number, how far it has been read, and where its bytes end.
    current: Option<(usize, usize, usize)>,
    ended: bool,
}

impl<'m, H: Host> Receive<'m, H> {
    /// Input through this queue into this memory, of at least [`BLOCKS`] bytes, which the device
    /// writes at its own address.
    ///
    /// # Panics
    ///
    /// If the memory is shorter.
    pub fn new(queue: Queue<'m, H>, memory: Window<'m>) -> Self {
        let len = memory.len() / BLOCKS;
        let blocks = core::array::from_fn(|i| memory.part(i * len, len).expect("a part of the whole"));
        assert!(len > 0, "no memory for input");
        Self {
            queue,
            blocks,
            owner: [0; MAX_SIZE as usize],
            idle: (1 << BLOCKS) - 1,
            current: None,
            ended: false,
        }
    }

    /// Copies input that is there, without waiting: how many bytes, 0 at the end of input, or
    /// `None` if there is none now.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn try_read(&mut self, to: &mut [u8]) -> Result<Option<usize>, QueueError> {
        if to.is_empty() {
            return Ok(Some(0));
        }
        if self.current.is_none() && !self.ended {
            self.give_room()?;
            match self.queue.take()? {
                Some(taken) => self.arrived(taken),
                None => {
                    self.queue.kick();
                    return Ok(None);
                }
            }
        }
        Ok(Some(self.copy(to)))
    }

    /// Copies input, and sleeps until there is some: how many bytes, 0 at the end of input.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn read(&mut self, to: &mut [u8]) -> Result<usize, QueueError> {
        if to.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        Ok(self.copy(to))
    }

    /// Sleeps until there is something to copy, or input has ended.
    fn fill(&mut self) -> Result<(), QueueError> {
        if self.current.is_none() && !self.ended {
            self.give_room()?;
            let taken = self.queue.wait()?;
            self.arrived(taken);
        }
        Ok(())
    }

    /// Appends input to `to`, up to and with the first `end` or to the end of input: how many bytes.
    /// Sleeps as long as that takes.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn read_until(&mut self, end: u8, to: &mut Vec<u8>) -> Result<usize, QueueError> {
        let mut piece = [0; 256];
        let before = to.len();
        loop {
            self.fill()?;
            let n = self.peek(&mut piece);
            let found = piece[..n].iter().position(|byte| *byte == end);
            let len = found.map_or(n, |at| at + 1);
            to.extend_from_slice(&piece[..len]);
            self.consume(len);
            if n == 0 || found.is_some() {
                return Ok(to.len() - before);
            }
        }
    }

    /// Has the device report the next input to whoever waits, and tells whether there is some.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn arm(&mut self) -> Result<bool, QueueError> {
        if self.current.is_some() || self.ended {
            return Ok(true);
        }
        // First, so that what comes into the room that is given now is reported too.
        let _ = self.queue.arm();
        self.give_room()?;
        Ok(self.queue.arm())
    }

    fn give_room(&mut self) -> Result<(), QueueError> {
        while self.idle != 0 && self.queue.free() > 0 {
            let block = self.idle.trailing_zeros() as usize;
            let window = &self.blocks[block];
            let buffer = Buffer::writable(window.as_ptr().expose_provenance() as u64, window.len() as u32);
            // SAFETY: the block is not idle until the chain comes back, and only an idle block or
            // the current one is touched.
            let head = unsafe { self.queue.add(&[buffer]) }?;
            self.owner[usize::from(head)] = block as u8;
            self.idle &= !(1 << block);
        }
        Ok(())
    }

    fn arrived(&mut self, (head, len): (u16, u32)) {
        let block = usize::from(self.owner[usize::from(head)]);
        if len == 0 {
            self.ended = true;
            self.idle |= 1 << block;
        } else {
            self.current = Some((block, 0, len as usize));
        }
    }

    /// Whether input has ended; if it has, more may come, from somebody else.
    pub(super) const fn go_on_after_the_end(&mut self) -> bool {
        core::mem::replace(&mut self.ended, false)
    }

    fn copy(&mut self, to: &mut [u8]) -> usize {
        let len = self.peek(to);
        self.consume(len);
        len
    }

    /// Copies what can be read now without reading it: how many bytes.
    fn peek(&self, to: &mut [u8]) -> usize {
        let Some((block, at, end)) = self.current else { return 0 };
        let len = to.len().min(end - at);
        self.blocks[block].read(at, &mut to[..len]);
        len
    }

    fn consume(&mut self, len: usize) {
        if let Some((block, at, end)) = &mut self.current {
            *at += len;
            if at == end {
                self.idle |= 1 << *block;
                self.current = None;
            }
        }
    }
}
