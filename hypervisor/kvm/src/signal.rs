//! Signals: those that get a vCPU thread out of `KVM_RUN`, and those that ask the program to end.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

thread_local! {
    /// The `immediate_exit` byte of the vCPU that this thread runs.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that gets a vCPU out of the guest.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn on_kick(_: libc::c_int) {
    let byte = IMMEDIATE_EXIT.get();
    if !byte.is_null() {
        // SAFETY: `register` got the address of a byte in the vCPU's shared page, which outlives
        // the registration; only the kernel reads it.
        unsafe { byte.write_volatile(1) };
    }
}

/// The calling thread has been interrupted, and looks why right after this: it may enter the guest
/// again. Who interrupts it says why first, so that nothing is missed.
pub(crate) fn acknowledge_kick() {
    let byte = IMMEDIATE_EXIT.get();
    if !byte.is_null() {
        // SAFETY: as in `on_kick`.
        unsafe { byte.write_volatile(0) };
    }
}

/// The calling thread as one that runs vCPUs now and then, for all of its life: a [kick](Kick) reaches it.
pub(crate) fn prepare_thread() -> io::Result<Kick> {
    thread_local! {
        static PREPARED: Cell<Option<Kick>> = const { Cell::new(None) };
    }
    if let Some(kick) = PREPARED.get() {
        return Ok(kick);
    }
    // SAFETY: a null byte is never written.
    let thread = unsafe { VcpuThread::register(ptr::null_mut()) }?;
    let kick = thread.handle();
    // The mask stays as it is now.
    std::mem::forget(thread);
    PREPARED.set(Some(kick));
    Ok(kick)
}

/// A [prepared](prepare_thread) thread that runs a vCPU, for as long as this value lives.
pub(crate) struct Entered {
    /// The byte belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Entered {
    /// A kick makes this vCPU's `KVM_RUN` return.
    ///
    /// # Safety
    ///
    /// `immediate_exit` must be valid until the value is dropped, on the same thread.
    pub(crate) unsafe fn new(immediate_exit: *mut u8) -> Self {
        IMMEDIATE_EXIT.set(immediate_exit);
        Self { not_send: PhantomData }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        acknowledge_kick();
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// A thread that runs a vCPU, for as long as this value lives.
pub(crate) struct VcpuThread {
    handle: Kick,
    _mask: OldMask,
}

/// The signal mask a thread had, which it gets back when this is dropped.
pub(crate) struct OldMask {
    mask: libc::sigset_t,
    /// A mask belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl OldMask {
    /// Blocks or unblocks (`SIG_BLOCK`, `SIG_UNBLOCK`) signals in the calling thread.
    fn change(how: libc::c_int, signals: &libc::sigset_t) -> io::Result<Self> {
        let mut mask = empty_set();
        // SAFETY: both sets are initialized.
        match unsafe { libc::pthread_sigmask(how, signals, &raw mut mask) } {
            0 => Ok(Self {
                mask,
                not_send: PhantomData,
            }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for OldMask {
    fn drop(&mut self) {
        // SAFETY: the set is initialized; the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut()) };
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: an all-zero `sigset_t` is a valid value, and the empty set.
    unsafe { std::mem::zeroed() }
}

fn set_of(signals: impl IntoIterator<Item = libc::c_int>) -> libc::sigset_t {
    let mut set = empty_set();
    for signal in signals {
        // SAFETY: the set is initialized and the number is that of a signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Whether this process ignores a signal, as one started by `nohup` does SIGHUP.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is a valid value of the structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks; `action` has room for the answer.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The means to interrupt a vCPU thread from another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kick {
    process: libc::pid_t,
    thread: libc::pid_t,
}

impl VcpuThread {
    /// Registers the calling thread. A kick makes `KVM_RUN` return even if it comes just before
    /// the thread enters the guest: the handler sets the byte that `KVM_RUN` looks at.
    ///
    /// # Safety
    ///
    /// `immediate_exit` must be valid until the value is dropped, on the same thread.
    pub(crate) unsafe fn register(immediate_exit: *mut u8) -> io::Result<Self> {
        // SAFETY: an all-zero `sigaction` is a valid value of the structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing but read a thread-local without initializer and write
        // a byte, both of which are safe in a signal handler.
        if unsafe { libc::sigaction(kick_signal(), &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Whoever started this program may have blocked the signal, and that is inherited.
        let mask = OldMask::change(libc::SIG_UNBLOCK, &set_of([kick_signal()]))?;
        IMMEDIATE_EXIT.set(immediate_exit);
        // The kernel's answer: the C library's own is that of the process from which a jail was copied.
        let thread = rustix::thread::gettid();
        let handle = Kick {
            process: rustix::process::getpid().as_raw_nonzero().get(),
            thread: thread.as_raw_nonzero().get(),
        };
        Ok(Self { handle, _mask: mask })
    }

    pub(crate) const fn handle(&self) -> Kick {
        self.handle
    }
}

impl Drop for VcpuThread {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

impl Kick {
    /// Interrupts the thread, if it still exists.
    pub(crate) fn kick(self) {
        // SAFETY: no memory is involved; the signal has a handler since `register`, and the process
        // is this one, so that a thread id which is in use again is at worst interrupted in vain.
        unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread, kick_signal()) };
    }
}

/// Those that ask this process to end, but for what it ignores.
fn end_signals() -> impl Iterator<Item = libc::c_int> {
    let all = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    all.into_iter().filter(|signal| !is_ignored(*signal))
}

/// Blocks, for good, the signals that ask this process to end in the calling thread: to be called before
/// anything is made that has to be removed at the end, such as the file of a socket. A guest that
/// [ends on signals](crate::Guest::end_on_signals) hears of those that have come by then.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn hold_end_signals() -> io::Result<()> {
    std::mem::forget(OldMask::change(libc::SIG_BLOCK, &set_of(end_signals()))?);
    Ok(())
}

/// The signals that ask a program to end, read from a descriptor instead of by a handler.
#[derive(Debug)]
pub(crate) struct EndSignals(OwnedFd);

impl EndSignals {
    /// Blocks SIGINT, SIGTERM and SIGHUP in the calling thread, and so in threads it makes later,
    /// and opens the descriptor that has them instead; SIGWINCH too, which a thread may block
    /// freely. What the process ignores it goes on ignoring.
    pub(crate) fn open() -> io::Result<(Self, OldMask)> {
        let set = set_of(end_signals().chain([libc::SIGWINCH]));
        let mask = OldMask::change(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is initialized; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        Ok((Self(unsafe { OwnedFd::from_raw_fd(fd) }), mask))
    }

    /// The number of the next signal, if one has come.
    pub(crate) fn take(&self) -> Option<i32> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let len = rustix::io::read(&self.0, &mut info).ok()?;
        // The first field of the structure is the signal's number, an u32.
        (len == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
