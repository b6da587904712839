//! The console's two ends on the host: descriptors, or a buffer in memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chiton_core::devices::console::{Input, Output, Port};
use chiton_shared::memory::Window;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Transfer, transfer};
use crate::Error;

/// How many bytes a pipe that polls writable takes for certain (`PIPE_BUF`), as long as nobody else
/// writes to it between the question and the write.
const ATOMIC: usize = 4096;

/// Where a guest's input comes from and its output goes.
#[derive(Debug)]
pub struct Console {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: Sink,
}

/// Where output goes.
#[derive(Debug)]
pub(crate) enum Sink {
    Nowhere,
    Fd(OwnedFd),
    Memory(Captured),
}

/// Output that was kept in memory.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What has been written so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has been written so far, as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Console {
    /// No input, and output is thrown away.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            input: None,
            output: Sink::Nowhere,
        }
    }

    /// This process's standard input and output.
    ///
    /// # Errors
    ///
    /// [`Error::System`] if one of them is closed.
    pub fn stdio() -> Result<Self, Error> {
        let dup = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map_err(Error::system("standard input or output"))
        };
        Ok(Self {
            input: Some(dup(io::stdin().as_fd())?),
            output: Sink::Fd(dup(io::stdout().as_fd())?),
        })
    }

    /// Input and output through these descriptors.
    #[must_use]
    pub const fn files(input: Option<OwnedFd>, output: OwnedFd) -> Self {
        Self {
            input,
            output: Sink::Fd(output),
        }
    }

    /// No input, and output is kept in memory, without limit.
    #[must_use]
    pub fn captured() -> (Self, Captured) {
        let captured = Captured::default();
        (
            Self {
                input: None,
                output: Sink::Memory(captured.clone()),
            },
            captured,
        )
    }
}

/// Why input or output cannot go on: error numbers, zero while all is well.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    pub(crate) input: AtomicI32,
    pub(crate) output: AtomicI32,
    /// Why a network interface is gone, which ends nothing else.
    pub(crate) link: AtomicI32,
}

/// The size of the console that somebody set; 0 as long as it is its terminal's.
#[derive(Debug, Default)]
pub(crate) struct SizeHandle(AtomicU32);

impl SizeHandle {
    pub(crate) fn set(&self, columns: u16, rows: u16) {
        self.0
            .store(u32::from(columns) << 16 | u32::from(rows), Ordering::Relaxed);
    }

    fn get(&self) -> Option<(u16, u16)> {
        let both = self.0.load(Ordering::Relaxed);
        (both != 0).then_some(((both >> 16) as u16, both as u16))
    }
}

/// The console device's backend.
pub(crate) struct HostPort {
    input: Option<OwnedFd>,
    output: Sink,
    failures: Arc<Failures>,
    size: Arc<SizeHandle>,
}

impl HostPort {
    pub(crate) fn new(console: Console, failures: Arc<Failures>) -> Self {
        Self {
            input: console.input,
            output: console.output,
            failures,
            size: Arc::default(),
        }
    }

    /// The size, for somebody to set.
    pub(crate) fn size_handle(&self) -> Arc<SizeHandle> {
        Arc::clone(&self.size)
    }

    /// Duplicates of the descriptors, for the device loop to watch.
    pub(crate) fn watched(&self) -> Result<(Option<OwnedFd>, Option<OwnedFd>), Error> {
        let dup = |fd: &OwnedFd| fd.try_clone().map_err(Error::system("dup"));
        let input = self.input.as_ref().map(dup).transpose()?;
        let output = match &self.output {
            Sink::Fd(fd) => Some(dup(fd)?),
            Sink::Nowhere | Sink::Memory(_) => None,
        };
        Ok((input, output))
    }

    fn close(&self, error: &io::Error) -> Output {
        self.failures
            .output
            .store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::Relaxed);
        Output::Closed
    }
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    loop {
        match poll(&mut fds, Some(&now)) {
            // A signal for the processor on this thread tells nothing of the descriptor, which a transfer might wait for.
            Err(Errno::INTR) => {}
            // A descriptor that cannot be asked is taken for ready: the transfer then tells.
            ready => return ready.map_or(true, |ready| ready > 0),
        }
    }
}

impl Port for HostPort {
    fn read(&mut self, to: &[Window<'_>]) -> Input {
        let Some(input) = &self.input else { return Input::End };
        if !is_ready(input.as_fd(), PollFlags::IN) {
            return Input::Empty;
        }
        match transfer(input.as_fd(), to, Transfer::Read) {
            Ok(0) => Input::End,
            Ok(bytes) => Input::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Input::Empty,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                // A terminal that was hung up says EIO: that is the end of its input.
                if errno != libc::EIO {
                    self.failures.input.store(errno, Ordering::Relaxed);
                }
                Input::End
            }
        }
    }

    fn write(&mut self, from: &[Window<'_>]) -> Output {
        let total = from.iter().map(Window::len).sum();
        match &self.output {
            Sink::Nowhere => Output::Bytes(total),
            Sink::Memory(Captured(bytes)) => {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                for window in from {
                    let start = bytes.len();
                    bytes.resize(start + window.len(), 0);
                    window.read(0, &mut bytes[start..]);
                }
                Output::Bytes(total)
            }
            Sink::Fd(fd) => {
                if !is_ready(fd.as_fd(), PollFlags::OUT) {
                    return Output::Full;
                }
                // More could block, and with it the device loop.
                let mut few = [from[0]; 16];
                let few = head(from, ATOMIC, &mut few);
                match transfer(fd.as_fd(), few, Transfer::Write) {
                    Ok(0) => self.close(&io::ErrorKind::WriteZero.into()),
                    Ok(bytes) => Output::Bytes(bytes),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Output::Full,
                    Err(error) => self.close(&error),
                }
            }
        }
    }

    fn emergency(&mut self, byte: u8) {
        match &self.output {
            Sink::Nowhere => {}
            Sink::Memory(Captured(bytes)) => bytes.lock().unwrap_or_else(PoisonError::into_inner).push(byte),
            Sink::Fd(fd) => {
                if is_ready(fd.as_fd(), PollFlags::OUT)
                    && let Err(errno) = rustix::io::write(fd, &[byte])
                {
                    self.close(&errno.into());
                }
            }
        }
    }

    fn size(&self) -> (u16, u16) {
        if let Some(size) = self.size.get() {
            return size;
        }
        match &self.output {
            Sink::Fd(fd) => rustix::termios::tcgetwinsize(fd).map_or((0, 0), |size| (size.ws_col, size.ws_row)),
            Sink::Nowhere | Sink::Memory(_) => (0, 0),
        }
    }
}

/// The first windows, cut so that they hold at most `limit` bytes.
fn head<'a, 'm>(windows: &[Window<'m>], limit: usize, into: &'a mut [Window<'m>; 16]) -> &'a [Window<'m>] {
    let mut left = limit;
    let mut count = 0;
    for (slot, window) in into.iter_mut().zip(windows) {
        let Some(part) = window.part(0, window.len().min(left)) else {
            break;
        };
        *slot = part;
        count += 1;
        left -= part.len();
        if left == 0 {
            break;
        }
    }
    &into[..count]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Ram;
    use chiton_shared::memory::GuestMemory;

    fn pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    }

    fn port(console: Console) -> (HostPort, Arc<Failures>) {
        let failures = Arc::new(Failures::default());
        (HostPort::new(console, Arc::clone(&failures)), failures)
    }

    fn ram(bytes: &[u8]) -> Ram {
        let ram = Ram::new(1 << 20).unwrap();
        ram.window(0, bytes.len()).unwrap().write(0, bytes);
        ram
    }

    #[test]
    fn output_goes_out_window_by_window() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (mut port, _) = port(Console::files(None, writer.into()));
        let ram = ram(b"hello world");
        let windows = [ram.window(0, 6).unwrap(), ram.window(6, 5).unwrap()];
        assert_eq!(port.write(&windows), Output::Bytes(11));
        let mut bytes = [0; 11];
        std::io::Read::read_exact(&mut reader, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello world");
    }

    #[test]
    fn a_full_pipe_is_full_and_never_blocks() {
        let (_reader, writer) = pipe();
        let (mut port, closed) = port(Console::files(None, writer));
        let ram = ram(&[]);
        let window = [ram.window(0, 1 << 19).unwrap()];
        let mut taken = 0;
        while let Output::Bytes(bytes) = port.write(&window) {
            assert!(bytes > 0);
            taken += bytes;
        }
        assert!((4096..1 << 19).contains(&taken), "{taken} bytes fit a pipe");
        assert_eq!(port.write(&window), Output::Full);
        assert_eq!(closed.output.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_that_is_gone_closes_the_output() {
        let (reader, writer) = pipe();
        drop(reader);
        let (mut port, closed) = port(Console::files(None, writer));
        let ram = ram(b"x");
        assert_eq!(port.write(&[ram.window(0, 1).unwrap()]), Output::Closed);
        assert_eq!(closed.output.load(Ordering::Relaxed), libc::EPIPE);
    }

    #[test]
    fn an_emergency_byte_is_lost_rather_than_waited_for() {
        let (_reader, writer) = pipe();
        let (mut port, failures) = port(Console::files(None, writer));
        let ram = ram(&[]);
        while let Output::Bytes(_) = port.write(&[ram.window(0, 4096).unwrap()]) {}
        port.emergency(b'!');
        assert_eq!(failures.output.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_disk_and_a_folder_as_input_are_told_by_their_numbers() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let folder = std::fs::File::open("/").unwrap();
        let (mut port, failures) = port(Console::files(Some(folder.into()), full.into()));
        let ram = ram(b"x");
        assert_eq!(port.write(&[ram.window(0, 1).unwrap()]), Output::Closed);
        assert_eq!(port.read(&[ram.window(0, 1).unwrap()]), Input::End);
        assert_eq!(failures.output.load(Ordering::Relaxed), libc::ENOSPC);
        assert_eq!(failures.input.load(Ordering::Relaxed), libc::EISDIR);
    }

    #[test]
    fn input_is_empty_then_there_then_ended() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (mut port, _) = port(Console {
            input: Some(reader.into()),
            output: Sink::Nowhere,
        });
        let ram = ram(&[]);
        let room = [ram.window(0, 4).unwrap(), ram.window(4, 4).unwrap()];
        assert_eq!(port.read(&room), Input::Empty);
        std::io::Write::write_all(&mut writer, b"abcdef").unwrap();
        assert_eq!(port.read(&room), Input::Bytes(6));
        let mut bytes = [0; 6];
        ram.window(0, 6).unwrap().read(0, &mut bytes);
        assert_eq!(&bytes, b"abcdef");
        drop(writer);
        assert_eq!(port.read(&room), Input::End);
    }

    #[test]
    fn captured_output_can_be_read_while_the_guest_runs() {
        let (console, captured) = Console::captured();
        let (mut port, _) = port(console);
        let ram = ram("grün".as_bytes());
        assert_eq!(port.write(&[ram.window(0, 5).unwrap()]), Output::Bytes(5));
        assert_eq!(captured.text(), "grün");
    }
}
