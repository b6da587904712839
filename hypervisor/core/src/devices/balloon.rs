//! Memory balloon device (virtio 1.3 section 5.5): memory that the guest does not need goes back to
//! the host.
//!
//! Pages in the balloon, and pages reported as free, are released: they take no memory until the
//! guest touches them, and then hold zeros. So there is nothing to do when it takes pages back.
//!
//! A page number that is not the guest's to give (outside memory, or among what the host built) is
//! passed over, and counts as a failure.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;

use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use chiton_shared::virtio::balloon::{
    Config, DEFLATE, F_DEFLATE_ON_OOM, F_PAGE_REPORTING, F_STATS_VQ, INFLATE, PAGE, PAGE_NUMBER, QUEUES, STATISTIC,
    STATS, Statistics,
};
use chiton_shared::virtio::id;
use chiton_shared::virtio::ring::{Buffer, Chain};

use super::buffers::Cursor;
use super::{Device, DeviceError, NotSaved, Progress, Ring};
use crate::state::{Reader, StateError, Writer};

/// Size of each queue.
const QUEUE_SIZE: u16 = 64;

/// How many statistics of one chain are read: more than there are.
const MOST_STATISTICS: usize = 32;

/// How many page numbers are read at a time.
const BATCH: usize = 128;

/// How many page numbers one call reads at most, so that others get their turn.
const PER_CALL: usize = 64 * BATCH;

/// How many bytes of free pages one call releases before others get their turn.
const FREE_PER_CALL: u64 = PER_CALL as u64 * PAGE;

/// How many of one chain: a driver that reports the same pages over and over must not keep anybody busy. Free pages are
/// an offer, of which the rest is not taken.
const MOST_FREE: u64 = 1 << 30;

/// Whose memory it is that the guest gives back.
pub trait Pages: Send {
    /// Takes the memory of whole pages back. They hold zeros when they are touched again.
    ///
    /// # Errors
    ///
    /// If the pages are as they were.
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError>;

    /// How many pages the host would like to have. When it changes, the host calls
    /// [`Transport::config_changed`](super::Transport::config_changed).
    fn target(&self) -> u32;

    /// The guest says that the balloon holds so many pages.
    fn held(&mut self, _pages: u32) {}

    /// Whether the host would like to have new statistics; asked once for each time it would. After it
    /// has changed, the host calls [`Transport::process`](super::Transport::process).
    fn wants_statistics(&mut self) -> bool {
        false
    }

    /// The guest tells how its memory is used.
    fn statistics(&mut self, _statistics: &Statistics) {}
}

/// Pages could not be released. The guest learns nothing of it; who implements [`Pages`] logs why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pages could not be released")]
pub struct PagesError;

/// The balloon device.
pub struct Balloon<P> {
    pages: P,
    chain: Box<Chain>,
    /// How far the chain in `chain` is read, if it was taken from the inflate queue and is not done.
    current: Option<Cursor>,
    /// How many pages it holds, as the driver says.
    actual: u32,
    /// The chain of statistics that the driver gets back when it shall send new ones.
    held: Option<u16>,
    failures: u64,
}

impl<P: Pages> Balloon<P> {
    /// An empty balloon.
    #[must_use]
    pub fn new(pages: P) -> Self {
        Self {
            pages,
            chain: Box::default(),
            current: None,
            actual: 0,
            held: None,
            failures: 0,
        }
    }

    fn config(&self) -> Config {
        Config {
            num_pages: self.pages.target(),
            actual: self.actual,
        }
    }

    fn set_actual(&mut self, pages: u32) {
        self.actual = pages;
        self.pages.held(pages);
    }

    fn release(&mut self, pages: Option<Window<'_>>) {
        let released = pages.is_some_and(|pages| self.pages.release(pages).is_ok());
        self.failures += u64::from(!released);
    }

    /// Releases the pages of these numbers, neighbours together.
    fn release_numbers(&mut self, numbers: &[u8], memory: &dyn GuestMemory) {
        let (numbers, _) = numbers.as_chunks();
        let mut addresses = numbers
            .iter()
            .map(|n| u64::from(u32::from_le_bytes(*n)) * PAGE)
            .peekable();
        while let Some(start) = addresses.next() {
            if guests_own(start, PAGE, memory).is_none() {
                self.failures += 1;
                continue;
            }
            let mut len = PAGE;
            while addresses
                .next_if(|next| *next == start + len && guests_own(*next, PAGE, memory).is_some())
                .is_some()
            {
                len += PAGE;
            }
            self.release(guests_own(start, len, memory));
        }
    }

    fn inflate(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut budget = PER_CALL;
        for _ in 0..QUEUE_SIZE {
            let mut cursor = match self.current.take() {
                Some(cursor) => cursor,
                None if !ring.pop(&mut self.chain)? => return Ok(Progress::Drained),
                None => Cursor::default(),
            };
            loop {
                if budget == 0 {
                    self.current = Some(cursor);
                    return Ok(Progress::More);
                }
                let mut numbers = [0; BATCH * PAGE_NUMBER];
                let len = cursor.read(self.chain.readable(), memory, &mut numbers)?;
                if len == 0 {
                    break;
                }
                self.release_numbers(&numbers[..len], memory);
                budget = budget.saturating_sub(BATCH);
            }
            ring.push(self.chain.head(), 0);
        }
        Ok(Progress::More)
    }

    /// Reads statistics, and keeps their chain until the host would like to have new ones (section
    /// 5.5.6.3).
    fn statistics(&mut self, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        if let Some(head) = self.held.take_if(|_| self.pages.wants_statistics()) {
            ring.push(head, 0);
        }
        let mut chain = Box::<Chain>::default();
        if self.held.is_none() && ring.pop(&mut chain)? {
            let mut bytes = [0; MOST_STATISTICS * STATISTIC];
            let len = Cursor::default().read(chain.readable(), ring.memory(), &mut bytes)?;
            let mut statistics = Statistics::default();
            for statistic in bytes[..len].as_chunks().0 {
                statistics.read(statistic);
            }
            self.pages.statistics(&statistics);
            self.held = Some(chain.head());
        }
        Ok(if self.held.is_some() {
            Progress::Waiting
        } else {
            Progress::Drained
        })
    }

    /// Takes chains of free pages, or of pages that the guest takes back.
    fn take(&mut self, ring: &mut Ring<'_, '_>, free: bool) -> Result<Progress, DeviceError> {
        let memory = ring.memory();
        let mut chain = Box::<Chain>::default();
        let mut bytes = 0;
        for _ in 0..QUEUE_SIZE {
            if !ring.pop(&mut chain)? {
                return Ok(Progress::Drained);
            }
            let mut left = MOST_FREE;
            for buffer in chain.writable().iter().filter(|_| free) {
                if let Some((start, len)) = whole_pages(buffer).filter(|(_, len)| *len <= left) {
                    self.release(guests_own(start, len, memory));
                    left -= len;
                }
            }
            ring.push(chain.head(), 0);
            bytes += MOST_FREE - left;
            if bytes > FREE_PER_CALL {
                break;
            }
        }
        Ok(Progress::More)
    }
}

/// The whole pages in a buffer, if there are any: address and length.
fn whole_pages(buffer: &Buffer) -> Option<(u64, u64)> {
    let end = buffer.address.checked_add(u64::from(buffer.len))? / PAGE * PAGE;
    let start = buffer.address.checked_next_multiple_of(PAGE)?;
    (start < end).then(|| (start, end - start))
}

/// Memory that the guest may give away: image, stack and heap, and not what the host built.
fn guests_own(start: u64, len: u64, memory: &dyn GuestMemory) -> Option<Window<'_>> {
    let len = usize::try_from(len).ok()?;
    memory.window(start, len).filter(|_| start >= map::GUEST)
}

impl<P: Pages> Device for Balloon<P> {
    fn id(&self) -> u32 {
        id::BALLOON
    }

    fn features(&self) -> u64 {
        F_STATS_VQ | F_DEFLATE_ON_OOM | F_PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; QUEUES]
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        super::read_bytes(&self.config().to_bytes(), offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let mut bytes = self.config().to_bytes();
        // The rest is the host's.
        if offset >= Config::ACTUAL
            && let Some(place) = bytes.get_mut(offset..offset.saturating_add(data.len()))
        {
            place.copy_from_slice(data);
        }
        if let Some(config) = Config::from_bytes(&bytes) {
            self.set_actual(config.actual);
        }
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        match queue {
            INFLATE => self.inflate(ring),
            STATS => self.statistics(ring),
            queue => self.take(ring, queue != DEFLATE),
        }
    }

    fn stop(&mut self, queue: usize) {
        match queue {
            INFLATE => self.current = None,
            STATS => self.held = None,
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.current = None;
        self.held = None;
        self.set_actual(0);
    }

    fn save(&self, state: &mut Writer) -> Result<(), NotSaved> {
        if self.current.is_some() {
            return Err(NotSaved::UnderWay);
        }
        state.u32(self.actual);
        state.u64(self.failures);
        Ok(())
    }

    fn load(&mut self, state: &mut Reader<'_>) -> Result<(), StateError> {
        self.set_actual(state.u32()?);
        self.failures = state.u64()?;
        Ok(())
    }

    fn failures(&self) -> u64 {
        self.failures
    }
}
