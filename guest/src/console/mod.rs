//! The console: [`print!`](crate::print!), [`write()`], [`read()`].
//!
//! Output is buffered and handed to the host, with one kick however much it is, when a line is
//! complete, before the guest sleeps for input, and when it ends. Without a console device output
//! is lost and input is at its end.

mod ports;
pub mod receive;
pub mod transmit;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;

use chiton_shared::boot::DeviceEntry;
use chiton_shared::memory::Window;
use chiton_shared::virtio::console::{Config, F_SIZE, RECEIVE, TRANSMIT};
use chiton_shared::virtio::id;
use spin::Mutex;

use crate::boot;
use crate::host::{Doorbells, Host};
use crate::lazy::Lazy;
use crate::queue::QueueError;
pub use ports::{ConsolePort, port};
use receive::Receive;
use transmit::Transmit;

/// How many bytes of output can wait to be taken, and of input to be read.
pub const BUFFER: usize = 64 << 10;

/// Why the console does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    /// The device failed.
    #[error("console: {0}")]
    Device(#[from] QueueError),
    /// A line of input is not text.
    #[error("console: a line of input is not UTF-8")]
    NotText,
    /// There is no port of this name.
    #[error("the console has no port of this name; start the guest with --port NAME=PATH")]
    NoPort,
    /// The port was asked for before.
    #[error("the port has been opened before; open it once and pass it on")]
    PortTaken,
}

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; BUFFER]>);

// SAFETY: reached through the one window that `take` makes.
unsafe impl Sync for Memory {}

impl Memory {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; BUFFER]))
    }

    /// The window of it.
    fn take(&'static self) -> Window<'static> {
        // SAFETY: static memory, which nothing but windows and the device reaches.
        unsafe { Window::new(NonNull::new_unchecked(self.0.get().cast()), BUFFER) }
    }
}

static OUTPUT: Memory = Memory::new();
static INPUT: Memory = Memory::new();

struct Output {
    half: Lazy<Transmit<'static, Doorbells>>,
    /// A line has ended since the last flush.
    line_ended: bool,
}

impl Output {
    fn get(&mut self) -> Result<Option<&mut Transmit<'static, Doorbells>>, QueueError> {
        // SAFETY: nothing else opens this queue.
        unsafe {
            self.half
                .get(id::CONSOLE, TRANSMIT, |queue| Transmit::new(queue, OUTPUT.take()))
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        let Some(transmit) = self.get()? else { return Ok(()) };
        transmit.write(bytes)?;
        self.line_ended |= bytes.contains(&b'\n');
        Ok(())
    }

    fn flush(&mut self) -> Result<(), QueueError> {
        self.line_ended = false;
        self.half.opened().map_or(Ok(()), Transmit::flush)
    }
}

static SEND: Mutex<Output> = Mutex::new(Output {
    half: Lazy::new(),
    line_ended: false,
});
static RECEIVED: Mutex<Lazy<Receive<'static, Doorbells>>> = Mutex::new(Lazy::new());

/// Writes bytes and has the host take them, with one kick.
///
/// # Errors
///
/// [`ConsoleError::Device`].
pub fn write(bytes: &[u8]) -> Result<(), ConsoleError> {
    let mut output = SEND.lock();
    output.write(bytes)?;
    Ok(output.flush()?)
}

/// Has the host take what [`print!`](crate::print!) has buffered.
///
/// # Errors
///
/// [`ConsoleError::Device`].
pub fn flush() -> Result<(), ConsoleError> {
    Ok(SEND.lock().flush()?)
}

/// Hands over what is buffered, at the end of the guest: whatever it was doing, and without a
/// kick, since the host empties all queues when a guest ends.
pub(crate) fn flush_at_end() {
    if let Some(transmit) = SEND.try_lock().as_mut().and_then(|output| output.half.opened()) {
        // There is nobody left to tell of an error.
        let _ = transmit.submit();
    }
}

/// Reads input that is there, after sleeping until there is some: how many bytes, 0 at the end of
/// input (or if `to` is empty).
///
/// # Errors
///
/// [`ConsoleError::Device`].
pub fn read(to: &mut [u8]) -> Result<usize, ConsoleError> {
    flush()?;
    with_input(0, |input| input.read(to))
}

/// Reads input that is there, without sleeping: how many bytes, 0 at the end of input, or `None`
/// if there is none now.
///
/// # Errors
///
/// [`ConsoleError::Device`].
pub fn try_read(to: &mut [u8]) -> Result<Option<usize>, ConsoleError> {
    with_input(Some(0), |input| input.try_read(to))
}

/// Appends a line of input to `to`, with its newline: how many bytes, 0 at the end of input.
///
/// # Errors
///
/// [`ConsoleError::Device`]; [`ConsoleError::NotText`], and the line is lost.
pub fn read_line(to: &mut String) -> Result<usize, ConsoleError> {
    flush()?;
    let mut line = Vec::new();
    with_input(0, |input| input.read_until(b'\n', &mut line))?;
    to.push_str(core::str::from_utf8(&line).map_err(|_| ConsoleError::NotText)?);
    Ok(line.len())
}

/// Columns and rows of the terminal, or zeros if nobody knows. It takes four exits to look; when the
/// size changes, [`wait`](crate::time::wait) ends.
#[must_use]
pub fn size() -> (u16, u16) {
    let console = boot::devices(id::CONSOLE).next();
    console.map_or((0, 0), |console| size_of_console(&Doorbells, console))
}

fn size_of_console(host: &impl Host, console: &DeviceEntry) -> (u16, u16) {
    if console.features & F_SIZE == 0 {
        return (0, 0);
    }
    let at = console.registers;
    let half = |offset| host.read_config_half(at, offset as u64);
    host.read_together(at, || (half(offset_of!(Config, cols)), half(offset_of!(Config, rows))))
}

/// Has [`wait`](crate::time::wait) return when there is input, and tells whether there is some
/// already.
///
/// # Errors
///
/// [`ConsoleError::Device`].
pub fn arm() -> Result<bool, ConsoleError> {
    with_input(true, Receive::arm)
}

/// Does something with the input; without a console, the result is `none`.
fn with_input<R>(
    none: R,
    action: impl FnOnce(&mut Receive<'static, Doorbells>) -> Result<R, QueueError>,
) -> Result<R, ConsoleError> {
    let mut received = RECEIVED.lock();
    // SAFETY: nothing else opens this queue.
    match unsafe { received.get(id::CONSOLE, RECEIVE, |queue| Receive::new(queue, INPUT.take())) }? {
        Some(input) => Ok(action(input)?),
        None => Ok(none),
    }
}

/// Takes the pieces of formatted text. The lock is not held between them, so that a `Display`
/// which itself prints does not wait for itself.
struct Pieces(Result<(), QueueError>);

impl fmt::Write for Pieces {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = SEND.lock().write(s.as_bytes());
        self.0.map_err(|_| fmt::Error)
    }
}

/// What [`print!`](crate::print!) does.
///
/// # Panics
///
/// If the device fails, or a `Display` does.
#[doc(hidden)]
pub fn print(args: fmt::Arguments<'_>) {
    let mut pieces = Pieces(Ok(()));
    let formatted = fmt::write(&mut pieces, args);
    let mut result = pieces.0;
    if result.is_ok() {
        assert!(formatted.is_ok(), "print!: a formatting trait returned an error");
        let mut output = SEND.lock();
        if output.line_ended {
            result = output.flush();
        }
    }
    if let Err(error) = result {
        panic!("print!: console: {error}");
    }
}

/// Prints formatted text to the console. Complete lines go out at once, with one kick for all that
/// one `print!` prints.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(::core::format_args!($($arg)*)) };
}

/// Prints formatted text and ends the line; see [`print!`](crate::print!).
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}
