//! Operations that the kernel works on while others go on: io_uring.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use chiton_core::devices::Operation;
use chiton_core::devices::block::IN_FLIGHT;
use chiton_shared::memory::Window;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

use super::super::iovec_of;
use super::shrunk;

/// What the kernel has been given of one operation.
struct Flight {
    operation: Operation,
    /// What is left of its windows. The room is kept for the next flight.
    iovecs: Vec<libc::iovec>,
    /// The descriptor for what is left.
    file: RawFd,
}

/// A ring, and what is in it.
pub(super) struct Ring {
    uring: IoUring,
    /// By tag.
    flights: Vec<Flight>,
    /// How many the kernel has not finished, or not been given.
    in_flight: usize,
    /// Whether some of them are new to the kernel.
    queued: bool,
}

/// How an operation ended.
pub(super) struct Ended {
    pub(super) tag: u16,
    pub(super) operation: Operation,
    /// How many bytes were not moved.
    pub(super) left: u64,
    pub(super) result: io::Result<()>,
}

// SAFETY: the iovecs are places in guest memory, which the kernel alone goes to.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring for as many operations as a disk has in flight. An error means that the kernel has no
    /// io_uring, or does not allow it here.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            uring: IoUring::new(IN_FLIGHT.into())?,
            flights: Vec::new(),
            in_flight: 0,
            queued: false,
        })
    }

    /// A descriptor that is readable while an operation has ended.
    pub(super) fn watched(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring's own descriptor, open as long as the ring.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        fd.as_fd().try_clone_to_owned()
    }

    /// Begins an operation on `file`, of which `whole` takes what is left of it.
    ///
    /// # Safety
    ///
    /// The memory of the windows has to stay mapped, and both descriptors open, until the operation
    /// has ended or the ring is dropped.
    pub(super) unsafe fn begin(
        &mut self,
        tag: u16,
        operation: Operation,
        windows: &[Window<'_>],
        file: RawFd,
        whole: RawFd,
    ) {
        let index = usize::from(tag);
        while self.flights.len() <= index {
            self.flights.push(Flight {
                operation,
                iovecs: Vec::new(),
                file: whole,
            });
        }
        let flight = &mut self.flights[index];
        (flight.operation, flight.file) = (operation, whole);
        flight.iovecs.clear();
        let iovecs = windows.iter().map(|window| iovec_of(window.as_ptr(), window.len()));
        flight.iovecs.extend(iovecs);
        self.in_flight += 1;
        self.push(tag, file);
    }

    fn push(&mut self, tag: u16, file: RawFd) {
        let flight = &self.flights[usize::from(tag)];
        let (fd, list, count) = (Fd(file), flight.iovecs.as_ptr(), flight.iovecs.len() as u32);
        let entry = match (flight.operation, flight.iovecs.as_slice()) {
            (Operation::Flush, _) => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            (Operation::Read(at), [one]) => opcode::Read::new(fd, one.iov_base.cast(), one.iov_len as u32)
                .offset(at)
                .build(),
            (Operation::Write(at), [one]) => opcode::Write::new(fd, one.iov_base.cast(), one.iov_len as u32)
                .offset(at)
                .build(),
            (Operation::Read(at), _) => opcode::Readv::new(fd, list, count).offset(at).build(),
            (Operation::Write(at), _) => opcode::Writev::new(fd, list, count).offset(at).build(),
        };
        let entry = entry.user_data(tag.into());
        if !self.try_push(&entry) {
            self.submit();
            // The kernel has taken all there were: it copies entries when it is given them.
            let pushed = self.try_push(&entry);
            debug_assert!(pushed, "there is room for all that can be in flight");
        }
        self.queued = true;
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the iovecs stay as they are in `flights`, and what they name stays mapped, until
        // the operation has ended: `begin`'s contract.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Gives the kernel what is new.
    pub(super) fn submit(&mut self) {
        while self.queued {
            match self.uring.submit() {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // What the kernel has no room for now, it is given with the next.
                Err(_) => return,
                Ok(_) => self.queued = false,
            }
        }
    }

    /// An operation that has ended, if there is one.
    pub(super) fn complete(&mut self) -> Option<Ended> {
        loop {
            let Some(entry) = self.uring.completion().next() else {
                self.submit();
                return None;
            };
            let tag = entry.user_data() as u16;
            if let Some(ended) = self.ended(tag, entry.result()) {
                self.in_flight -= 1;
                return Some(ended);
            }
            // What was done only in part goes on.
            let file = self.flights[usize::from(tag)].file;
            self.push(tag, file);
        }
    }

    /// How an operation ended, unless there is something left of it.
    fn ended(&mut self, tag: u16, result: i32) -> Option<Ended> {
        let flight = &mut self.flights[usize::from(tag)];
        let left = |flight: &Flight| flight.iovecs.iter().map(|iovec| iovec.iov_len as u64).sum();
        let result = match usize::try_from(result) {
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => return None,
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
            Ok(_) if flight.operation == Operation::Flush => Ok(()),
            Ok(done) => {
                let all: u64 = left(flight);
                match done as u64 {
                    done if done == all => Ok(()),
                    0 => Err(shrunk()),
                    _ => {
                        flight.advance(done);
                        return None;
                    }
                }
            }
        };
        Some(Ended {
            tag,
            operation: flight.operation,
            left: left(flight),
            result,
        })
    }

    /// Sleeps until an operation has ended.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        if self.in_flight == 0 || !self.uring.completion().is_empty() {
            return Ok(());
        }
        self.queued = false;
        match self.uring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Flight {
    /// Leaves out the first `done` bytes, which are fewer than all.
    fn advance(&mut self, done: usize) {
        match &mut self.operation {
            Operation::Read(at) | Operation::Write(at) => *at += done as u64,
            Operation::Flush => {}
        }
        let mut done = done;
        let whole = self.iovecs.iter().take_while(|iovec| {
            let whole = iovec.iov_len <= done;
            done -= if whole { iovec.iov_len } else { 0 };
            whole
        });
        let whole = whole.count();
        self.iovecs.drain(..whole);
        if let Some(first) = self.iovecs.first_mut() {
            first.iov_base = first.iov_base.wrapping_byte_add(done);
            first.iov_len -= done;
        }
    }
}

impl Drop for Ring {
    /// The kernel may still be writing into memory that will be another's.
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.complete().is_none() && self.wait().is_err() {
                return;
            }
        }
    }
}
