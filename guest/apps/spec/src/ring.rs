//! A split virtqueue (section 2.7), driver's side.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::sync::atomic::{Ordering, fence};

use crate::mmio::{
    INTERRUPT_ACK, INTERRUPT_STATUS, Mmio, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NOTIFY, QUEUE_READY,
    QUEUE_SEL, QUEUE_SIZE, QUEUE_SIZE_MAX, wait_for,
};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// One buffer of a request, which has to stay where it is until the request is finished. What the
/// device writes is seen after [`Ring::collect`], whose fence orders it for the compiler too.
#[derive(Clone, Copy)]
pub struct Part {
    address: u64,
    len: u32,
    write: bool,
}

impl Part {
    /// For the device to read.
    pub fn from(bytes: &[u8]) -> Self {
        Self {
            address: bytes.as_ptr() as u64,
            len: bytes.len() as u32,
            write: false,
        }
    }

    /// For the device to write.
    pub fn to(bytes: &mut [u8]) -> Self {
        Self {
            address: bytes.as_mut_ptr() as u64,
            len: bytes.len() as u32,
            write: true,
        }
    }
}

/// How a request's buffers are described.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    Direct,
    Indirect,
}

/// A queue that is ready.
pub struct Ring<'d> {
    device: &'d Mmio,
    index: u32,
    pub size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
    event_idx: bool,
    tables: Vec<Vec<[u64; 2]>>,
}

impl<'d> Ring<'d> {
    /// Sets queue `index` up (section 4.2.3.2), with at most `size` descriptors.
    pub fn new(device: &'d Mmio, index: u32, size: u16, event_idx: bool) -> Result<Self, &'static str> {
        device.write(QUEUE_SEL, index);
        if device.read(QUEUE_READY) != 0 {
            return Err("the queue is in use already");
        }
        let max = device.read(QUEUE_SIZE_MAX);
        if max == 0 {
            return Err("there is no such queue");
        }
        let size = size.min(max as u16);
        let n = usize::from(size);
        let descriptors = zeroed(16 * n, 16);
        let available = zeroed(6 + 2 * n, 2);
        let used = zeroed(6 + 8 * n, 4);
        device.write(QUEUE_SIZE, size.into());
        device.write_u64(QUEUE_DESC, descriptors);
        device.write_u64(QUEUE_DRIVER, available);
        device.write_u64(QUEUE_DEVICE, used);
        device.write(QUEUE_READY, 1);
        if device.read(QUEUE_READY) != 1 {
            return Err("the queue does not become ready");
        }
        let tables = Vec::new();
        Ok(Self {
            device,
            index,
            size,
            descriptors,
            available,
            used,
            next_available: 0,
            next_used: 0,
            event_idx,
            tables,
        })
    }

    /// Makes one request available in descriptors from `first` on, and gives the number of the
    /// next free one.
    pub fn add(&mut self, first: u16, parts: &[Part], how: How) -> u16 {
        let words = |part: &Part, more: bool, next: u16| {
            let flags = if more { NEXT } else { 0 } | if part.write { WRITE } else { 0 };
            [
                part.address,
                u64::from(part.len) | u64::from(flags) << 32 | u64::from(if more { next } else { 0 }) << 48,
            ]
        };
        let last = parts.len() - 1;
        let end = if how == How::Indirect {
            let table: Vec<_> = parts
                .iter()
                .enumerate()
                .map(|(i, p)| words(p, i < last, i as u16 + 1))
                .collect();
            let len = 16 * parts.len() as u64;
            self.put(first, [table.as_ptr() as u64, len | u64::from(INDIRECT) << 32]);
            self.tables.push(table);
            first + 1
        } else {
            for (i, part) in parts.iter().enumerate() {
                let at = first + i as u16;
                self.put(at, words(part, i < last, at + 1));
            }
            first + parts.len() as u16
        };
        store(
            self.available + 4 + 2 * u64::from(self.next_available % self.size),
            first,
        );
        self.next_available = self.next_available.wrapping_add(1);
        // The entry before the index that covers it (section 2.7.13.3).
        fence(Ordering::SeqCst);
        store(self.available + 2, self.next_available);
        end
    }

    fn put(&self, at: u16, [low, high]: [u64; 2]) {
        let at = (self.descriptors + 16 * u64::from(at)) as *mut u64;
        // SAFETY: callers use descriptors below the queue's size.
        unsafe {
            at.write_volatile(low);
            at.add(1).write_volatile(high);
        }
    }

    /// Notifies, whatever the device wishes.
    pub fn notify(&self) {
        self.device.write(QUEUE_NOTIFY, self.index);
    }

    /// Notifies if the device wishes it (section 2.7.13.4), after `added` requests; whether it did.
    pub fn notify_if_wanted(&self, added: u16) -> bool {
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = load(self.used + 4 + 8 * u64::from(self.size));
            self.next_available.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            load(self.used) & 1 == 0
        };
        if wanted {
            self.notify();
        }
        wanted
    }

    /// How many requests the device has finished that were not collected.
    pub fn finished(&self) -> u16 {
        load(self.used + 2).wrapping_sub(self.next_used)
    }

    /// Waits for the next finished request: its first descriptor, and how many bytes were written.
    pub fn collect(&mut self) -> Result<(u32, u32), &'static str> {
        wait_for(|| self.finished() != 0).map_err(|()| "the device does not answer")?;
        fence(Ordering::SeqCst);
        let at = (self.used + 4 + 8 * u64::from(self.next_used % self.size)) as *const u32;
        self.next_used = self.next_used.wrapping_add(1);
        // SAFETY: within the used ring.
        Ok(unsafe { (at.read_volatile(), at.add(1).read_volatile()) })
    }

    /// Runs one request; how many bytes were written.
    pub fn run(&mut self, parts: &[Part], how: How) -> Result<u32, &'static str> {
        self.add(0, parts, how);
        self.notify();
        let (head, written) = self.collect()?;
        self.tables.clear();
        if head != 0 {
            Err("the device gives back a descriptor it did not get")
        } else {
            Ok(written)
        }
    }

    /// Asks for no interrupt (section 2.7.7.1), by the flag or by an event far away.
    pub fn silence(&self) {
        if self.event_idx {
            store(
                self.available + 4 + 2 * u64::from(self.size),
                self.next_used.wrapping_add(1000),
            );
        } else {
            store(self.available, 1);
        }
    }

    /// Asks for an interrupt at the next finished request.
    pub fn unsilence(&self) {
        if self.event_idx {
            store(self.available + 4 + 2 * u64::from(self.size), self.next_used);
        } else {
            store(self.available, 0);
        }
        fence(Ordering::SeqCst);
    }

    pub fn interrupt(&self) -> bool {
        self.device.read(INTERRUPT_STATUS) & 1 != 0
    }

    pub fn acknowledge(&self) {
        self.device.write(INTERRUPT_ACK, self.device.read(INTERRUPT_STATUS));
    }

    /// Forgets the tables of requests that are finished.
    pub fn forget_tables(&mut self) {
        self.tables.clear();
    }
}

/// Zeroed memory that is never freed, as the device may have it for ever.
fn zeroed(len: usize, align: usize) -> u64 {
    let Ok(layout) = Layout::from_size_align(len, align) else {
        return 0;
    };
    // SAFETY: the length is not zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start as u64
}

fn load(address: u64) -> u16 {
    // SAFETY: callers pass addresses within the rings.
    unsafe { (address as *const u16).read_volatile() }
}

fn store(address: u64, value: u16) {
    // SAFETY: as in `load`.
    unsafe { (address as *mut u16).write_volatile(value) };
}
