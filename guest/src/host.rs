//! The way to the host: doorbells and the mailbox.

use core::arch::asm;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;

use chiton_shared::doorbell::{self, LogLevel, MAILBOX_TEXT};
use chiton_shared::virtio::mmio::{CONFIG, Register, aim};
use chiton_shared::virtio::ring::QueueConfig;
use chiton_shared::virtio::status;
use spin::{Mutex, MutexGuard};

use crate::interrupts::{self, Idle};
use crate::processors::{self, own_mailbox};
use crate::{boot, preempt, time};

/// What a driver asks of the machine around it. [`Doorbells`] is the real one; tests have others.
pub trait Host {
    /// Tells the device behind doorbell `port` that queue `queue` has new buffers.
    fn kick(&self, port: u16, queue: u16);

    /// Tells the device whose registers are at `registers` that a queue has new buffers, by the register QueueNotify
    /// and the data that it takes under `VIRTIO_F_NOTIFICATION_DATA`. Takes an exit.
    fn notify(&self, _registers: u64, _data: u32) {}

    /// Sleeps until a queue that is armed has news, or for `ns` nanoseconds ([`u64::MAX`]: for
    /// ever). The host works on all queues first, so nobody need kick before waiting.
    fn wait(&self, ns: u64);

    /// Sends the interrupt of a queue of the device whose registers are at `registers` to the processor that
    /// calls. True if that can [halt](Self::halt) for it.
    fn bind(&self, _registers: u64, _queue: u16) -> bool {
        false
    }

    /// Stops the processor until an interrupt comes, for `ns` nanoseconds at most. Nobody works on the
    /// queues: kick before.
    fn halt(&self, ns: u64) {
        self.wait(ns);
    }

    /// Whether the device whose registers are at `registers` has stopped at an error.
    fn needs_reset(&self, registers: u64) -> bool;

    /// Resets the device whose registers are at `registers`: it touches no buffer afterwards.
    fn reset(&self, registers: u64);

    /// Writes the register QueueReset of one of the device's queues. Takes two exits.
    fn write_queue_reset(&self, _registers: u64, _queue: u16, _value: u32) {}

    /// Reads the register QueueReset of one of the device's queues. Takes two exits.
    fn read_queue_reset(&self, _registers: u64, _queue: u16) -> u32 {
        0
    }

    /// The greatest size that one of the device's queues can have; 0 if it has no such queue, or uses it. Takes some
    /// exits.
    fn queue_size_max(&self, _registers: u64, _queue: u16) -> u32 {
        0
    }

    /// Tells the device where one of its queues is, which it does not use, and to use it.
    ///
    /// # Safety
    ///
    /// The place must be memory that nobody else uses until the device is reset, or the queue, in the state that a
    /// queue begins with.
    unsafe fn set_up_queue(&self, _registers: u64, _queue: u16, _config: &QueueConfig) {}

    /// Reads 32 bits of the device's configuration, at an offset that is a multiple of 4. Takes an
    /// exit.
    fn read_config(&self, _registers: u64, _offset: u64) -> u32 {
        0
    }

    /// Reads 16 bits of the device's configuration, at an even offset. Takes an exit.
    fn read_config_half(&self, _registers: u64, _offset: u64) -> u16 {
        0
    }

    /// A number that is another one after each change of the device's configuration. Takes an exit.
    fn config_generation(&self, _registers: u64) -> u32 {
        0
    }

    /// Reads several fields of the device's configuration as they were at one time (virtio 1.3 section
    /// 2.5.1): again if the device has changed some meanwhile.
    fn read_together<R>(&self, registers: u64, fields: impl Fn() -> R) -> R
    where
        Self: Sized,
    {
        loop {
            let before = self.config_generation(registers);
            let read = fields();
            if self.config_generation(registers) == before {
                return read;
            }
        }
    }

    /// For how many nanoseconds to look for what a disk has done before sleeping; 0 where that is of no use.
    fn look_ns(&self) -> u64 {
        0
    }

    /// Nanoseconds by a clock that never goes back. Takes no exit.
    fn now_ns(&self) -> u64 {
        0
    }

    /// Writes 32 bits of the device's configuration, at an offset that is a multiple of 4. Takes an exit.
    fn write_config(&self, _registers: u64, _offset: u64, _value: u32) {}
}

/// The host of a running guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doorbells;

impl Host for Doorbells {
    fn kick(&self, port: u16, queue: u16) {
        ring(port, u32::from(queue));
    }

    fn notify(&self, registers: u64, data: u32) {
        // What was written to the queue comes before.
        fence(Ordering::SeqCst);
        // SAFETY: the device works on buffers that are its own.
        unsafe { write(registers, Register::QueueNotify, data) };
    }

    fn wait(&self, ns: u64) {
        match interrupts::idle() {
            None => self.sleep(ns),
            // Others are to run meanwhile.
            Some(_) if preempt::is_active() => self.sleep(0),
            Some(Idle::Halt) if interrupts::hears_all_queues() => {
                let until = until(ns);
                self.sleep(0);
                interrupts::halt_until(until);
            }
            Some(_) => self.sleep(match interrupts::deadline() {
                0 => ns,
                timer => ns.min(time::ns_until(timer)),
            }),
        }
    }

    fn bind(&self, registers: u64, queue: u16) -> bool {
        if !interrupts::enabled() {
            return false;
        }
        let processor = processors::current();
        interrupts::spread(processor);
        // SAFETY: the write changes no memory.
        unsafe { write(registers, Register::QueueProcessor, aim(queue, processor as u16)) };
        interrupts::idle() == Some(Idle::Halt)
    }

    fn halt(&self, ns: u64) {
        if preempt::is_active() {
            // Others are to run meanwhile.
            self.sleep(0);
        } else {
            interrupts::halt_until(until(ns));
        }
    }

    fn needs_reset(&self, registers: u64) -> bool {
        let now = read(registers, Register::Status);
        // A device that was reset for the sake of another of its queues does nothing either.
        now & status::DEVICE_NEEDS_RESET != 0 || now & status::DRIVER_OK == 0
    }

    fn reset(&self, registers: u64) {
        // SAFETY: the write ends the device's access to memory and grants none.
        unsafe { write(registers, Register::Status, 0) };
        // The reset is over when Status reads as 0 (virtio 1.3 section 4.2.3.1).
        while read(registers, Register::Status) != 0 {}
    }

    fn write_queue_reset(&self, registers: u64, queue: u16, value: u32) {
        let _selected = select(registers, queue);
        // SAFETY: the write ends the device's access to the queue and its buffers and grants none.
        unsafe { write(registers, Register::QueueReset, value) };
    }

    fn read_queue_reset(&self, registers: u64, queue: u16) -> u32 {
        let _selected = select(registers, queue);
        read(registers, Register::QueueReset)
    }

    fn queue_size_max(&self, registers: u64, queue: u16) -> u32 {
        let _selected = select(registers, queue);
        match read(registers, Register::QueueReady) {
            0 => read(registers, Register::QueueSizeMax),
            _ => 0,
        }
    }

    unsafe fn set_up_queue(&self, registers: u64, queue: u16, config: &QueueConfig) {
        let _selected = select(registers, queue);
        let parts = [
            (Register::QueueDescLow, Register::QueueDescHigh, config.descriptors),
            (Register::QueueDriverLow, Register::QueueDriverHigh, config.driver),
            (Register::QueueDeviceLow, Register::QueueDeviceHigh, config.device),
        ];
        // SAFETY: the caller's promise for the memory.
        unsafe {
            write(registers, Register::QueueSize, config.size.into());
            for (low, high, address) in parts {
                write(registers, low, address as u32);
                write(registers, high, (address >> 32) as u32);
            }
            write(registers, Register::QueueReady, 1);
        }
    }

    fn read_config(&self, registers: u64, offset: u64) -> u32 {
        let place = (registers + CONFIG + offset) as *const u32;
        // SAFETY: register blocks are mapped by the contract, and reading a configuration has no
        // effect.
        unsafe { place.read_volatile() }
    }

    fn read_config_half(&self, registers: u64, offset: u64) -> u16 {
        let place = (registers + CONFIG + offset) as *const u16;
        // SAFETY: as above.
        unsafe { place.read_volatile() }
    }

    fn config_generation(&self, registers: u64) -> u32 {
        read(registers, Register::ConfigGeneration)
    }

    fn look_ns(&self) -> u64 {
        boot::page().look_ns
    }

    fn now_ns(&self) -> u64 {
        time::uptime_ns()
    }

    fn write_config(&self, registers: u64, offset: u64, value: u32) {
        let place = (registers + CONFIG + offset) as *mut u32;
        // SAFETY: as above; a device touches no memory for a write to its configuration.
        unsafe { place.write_volatile(value) };
    }
}

/// Whoever holds it has selected a queue of some device.
static SELECTED: Mutex<()> = Mutex::new(());

/// Selects a queue for as long as what is returned lives.
fn select(registers: u64, queue: u16) -> MutexGuard<'static, ()> {
    let selected = SELECTED.lock();
    // SAFETY: the write changes no memory.
    unsafe { write(registers, Register::QueueSel, queue.into()) };
    selected
}

/// Reads a register of a device.
pub(crate) fn read(registers: u64, register: Register) -> u32 {
    let register = (registers + register as u64) as *const u32;
    // SAFETY: register blocks are mapped by the contract; reading a register has no effect.
    unsafe { register.read_volatile() }
}

/// Writes a register of a device.
///
/// # Safety
///
/// The device must not access memory because of it, other than such as its driver has promised.
pub(crate) unsafe fn write(registers: u64, register: Register, value: u32) {
    let register = (registers + register as u64) as *mut u32;
    // SAFETY: register blocks are mapped by the contract; the caller's promise for memory.
    unsafe { register.write_volatile(value) };
}

impl Doorbells {
    /// Sleeps in the host.
    fn sleep(self, ns: u64) {
        let mailbox = own_mailbox();
        // SAFETY: this processor's mailbox is mapped writable by the contract, and reached through
        // raw pointers only.
        unsafe { (&raw mut (*mailbox).wait_ns).write_volatile(ns) };
        ring(doorbell::WAIT, 0);
    }
}

/// The time-stamp in so many nanoseconds; 0 for never.
fn until(ns: u64) -> u64 {
    match ns {
        u64::MAX => 0,
        ns => time::stamp_of(time::Instant::now() + Duration::from_nanos(ns)),
    }
}

/// Rings a doorbell. What was written to memory before is visible to the host, and what the host
/// writes meanwhile is visible afterwards.
#[inline]
pub fn ring(port: u16, value: u32) {
    // `x86_64::instructions::port` promises the compiler that memory is not touched, which is
    // wrong for a doorbell: the host reads and writes memory while it is rung.
    // SAFETY: the port is a doorbell of the contract or has no effect; the host writes memory that
    // was given to it for that, and changes no register.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

/// Text on its way into the mailbox; what does not fit is cut off.
pub(crate) struct MailboxText {
    len: usize,
}

impl MailboxText {
    /// Empty text.
    pub(crate) const fn new() -> Self {
        Self { len: 0 }
    }

    /// Leaves the text for the host to find, with the number that belongs to it, and rings.
    pub(crate) fn send(&self, detail: u32, port: u16) {
        let mailbox = own_mailbox();
        // SAFETY: this processor's mailbox is mapped writable by the contract, and reached through
        // raw pointers only.
        unsafe {
            (&raw mut (*mailbox).len).write_volatile(self.len as u32);
            (&raw mut (*mailbox).detail).write_volatile(detail);
        }
        ring(port, 0);
    }

    /// Whether the text begins with `prefix`.
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let text = text_start();
        // SAFETY: as in `write_str`; `i` stays below `len`.
        prefix.len() <= self.len
            && prefix
                .bytes()
                .enumerate()
                .all(|(i, b)| unsafe { text.add(i).read_volatile() } == b)
    }
}

impl core::fmt::Write for MailboxText {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let text = text_start();
        for byte in s.bytes().take(MAILBOX_TEXT - self.len) {
            // SAFETY: the mailbox is mapped writable by the contract, is reached through raw
            // pointers only, and `len` stays below the length of its text.
            unsafe { text.add(self.len).write_volatile(byte) };
            self.len += 1;
        }
        Ok(())
    }
}

fn text_start() -> *mut u8 {
    let mailbox = own_mailbox();
    // SAFETY: within the mailbox, which is mapped.
    unsafe { (&raw mut (*mailbox).text).cast() }
}

/// Sends one log line, whatever level the host wants to hear.
pub(crate) fn log(level: LogLevel, args: core::fmt::Arguments<'_>) {
    let mut text = MailboxText::new();
    // Writing into the mailbox cannot fail; a `Display` that fails leaves what it wrote.
    let _ = core::fmt::Write::write_fmt(&mut text, args);
    text.send(level as u32, doorbell::LOG);
}
