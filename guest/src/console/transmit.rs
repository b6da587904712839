//! Output: a circular buffer whose parts are handed to the device.
//!
//! ```text
//!   freed        sent           written
//!     │ in flight  │  not flushed  │
//!  ───┴────────────┴───────────────┴───▶ positions, ever growing
//! ```

use chiton_shared::memory::Window;
use chiton_shared::virtio::ring::{Buffer, MAX_SIZE};

use crate::host::Host;
use crate::queue::{Queue, QueueError};

/// The sending half of a console.
#[derive(Debug)]
pub struct Transmit<'m, H> {
    queue: Queue<'m, H>,
    memory: Window<'m>,
    freed: u64,
    sent: u64,
    written: u64,
    /// Where the bytes of the chain with this head end.
    ends: [u64; MAX_SIZE as usize],
    /// Whether the chain with this head has come back.
    done: [bool; MAX_SIZE as usize],
    /// Heads in flight, in the order they were sent: `count` of them from `oldest` on.
    order: [u16; MAX_SIZE as usize],
    oldest: usize,
    count: usize,
}

impl<'m, H: Host> Transmit<'m, H> {
    /// Output through this queue, buffered in this memory, which is not empty and which the
    /// device reads at its own address.
    pub const fn new(queue: Queue<'m, H>, memory: Window<'m>) -> Self {
        const N: usize = MAX_SIZE as usize;
        Self {
            queue,
            memory,
            freed: 0,
            sent: 0,
            written: 0,
            ends: [0; N],
            done: [false; N],
            order: [0; N],
            oldest: 0,
            count: 0,
        }
    }

    /// Buffers bytes; sleeps when there is no room.
    ///
    /// What is longer than the buffer goes to the device from where it is, in one piece, and is
    /// out when the call returns.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        if bytes.len() > self.memory.len() {
            return self.write_through(bytes);
        }
        self.collect()?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let capacity = self.memory.len();
            let room = capacity - (self.written - self.freed) as usize;
            if room == 0 {
                self.submit()?;
                self.wait()?;
                continue;
            }
            let at = (self.written % capacity as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(room).min(capacity - at));
            self.memory.write(at, now);
            self.written += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Hands what is buffered to the device, with one kick however much it is.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn flush(&mut self) -> Result<(), QueueError> {
        self.submit()?;
        // Where all has come back there is nothing to tell.
        if self.count > 0 {
            self.queue.kick();
        }
        Ok(())
    }

    /// Hands what is buffered to the device without a kick.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device fails.
    pub fn submit(&mut self) -> Result<(), QueueError> {
        while self.sent < self.written {
            let capacity = self.memory.len() as u64;
            let at = self.sent % capacity;
            let len = self.written - self.sent;
            let first = len.min(capacity - at);
            let start = self.memory.as_ptr().expose_provenance() as u64;
            let buffers = [
                Buffer::readable(start + at, first as u32),
                Buffer::readable(start, (len - first) as u32),
            ];
            let wraps = first < len && self.queue.size() > 1;
            let buffers = if wraps { &buffers[..] } else { &buffers[..1] };
            while usize::from(self.queue.free()) < buffers.len() {
                self.wait()?;
            }
            // SAFETY: `write` changes none of these bytes before `freed` has passed them.
            let head = unsafe { self.queue.add(buffers) }?;
            self.sent = if wraps { self.written } else { self.sent + first };
            self.remember(head);
        }
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        self.submit()?;
        for piece in bytes.chunks(1 << 30) {
            while self.queue.free() == 0 {
                self.wait()?;
            }
            let buffer = Buffer::readable(piece.as_ptr().expose_provenance() as u64, piece.len() as u32);
            // SAFETY: `bytes` is borrowed until the chain has come back, or the queue is given up.
            let head = unsafe { self.queue.add(&[buffer]) }?;
            self.remember(head);
            while !self.done[usize::from(head)] {
                self.wait()?;
            }
        }
        Ok(())
    }

    fn remember(&mut self, head: u16) {
        self.ends[usize::from(head)] = self.sent;
        self.done[usize::from(head)] = false;
        self.order[(self.oldest + self.count) % self.order.len()] = head;
        self.count += 1;
    }

    /// Takes back everything the device is done with.
    fn collect(&mut self) -> Result<(), QueueError> {
        while let Some((head, _)) = self.queue.take()? {
            self.forget(head);
        }
        Ok(())
    }

    /// Sleeps until the device is done with something; something is in flight.
    fn wait(&mut self) -> Result<(), QueueError> {
        let (head, _) = self.queue.wait()?;
        self.forget(head);
        self.collect()
    }

    fn forget(&mut self, head: u16) {
        self.done[usize::from(head)] = true;
        // A device may finish out of order; memory is free once all before it is free.
        while self.count > 0 && self.done[usize::from(self.order[self.oldest])] {
            self.freed = self.ends[usize::from(self.order[self.oldest])];
            self.oldest = (self.oldest + 1) % self.order.len();
            self.count -= 1;
        }
    }
}
