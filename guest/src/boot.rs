//! The boot page, as the guest found it.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use chiton_shared::ABI_VERSION;
use chiton_shared::boot::{BootPage, DeviceEntry, GENERATION, Generation, MAGIC, STOP_REQUESTED};

static PAGE: AtomicPtr<BootPage> = AtomicPtr::new(ptr::null_mut());

/// Remembers the boot page.
///
/// # Safety
///
/// `page` must point to a readable page that never changes, but for the word at
/// [`STOP_REQUESTED`] and the structure at [`GENERATION`].
///
/// # Panics
///
/// If it is not a boot page of this version of the contract.
pub(crate) unsafe fn set(page: *const BootPage) {
    // SAFETY: readable, by the caller's promise; magic, version and size come first.
    let (magic, abi, size) = unsafe { ((*page).magic, (*page).abi, (*page).size) };
    let known = magic == MAGIC && abi == ABI_VERSION && size as usize >= BootPage::SIZE;
    assert!(known, "no boot page of version {ABI_VERSION} was passed to the guest");
    PAGE.store(page.cast_mut(), Ordering::Release);
}

/// The boot page.
///
/// # Panics
///
/// If the program was not started by [`entry!`](crate::entry!), as in a test on the host.
#[must_use]
pub fn page() -> &'static BootPage {
    let page = PAGE.load(Ordering::Acquire);
    assert!(!page.is_null(), "this program was not started as a guest");
    // SAFETY: `set` was given a page that is readable and never changes.
    unsafe { &*page }
}

/// Whether the host has asked the guest to end.
pub(crate) fn stop_requested() -> bool {
    let word = PAGE.load(Ordering::Acquire).cast::<u8>().wrapping_add(STOP_REQUESTED);
    // SAFETY: `set` was given a whole page; the word is aligned in it, and behind the structure that
    // there are references to.
    is_set() && unsafe { word.cast::<u32>().read_volatile() } != 0
}

/// How many times this guest has gone on from a snapshot.
#[inline]
pub(crate) fn generation_count() -> u32 {
    if !is_set() {
        return 0;
    }
    let count = PAGE.load(Ordering::Relaxed).cast::<u8>().wrapping_add(GENERATION);
    // SAFETY: `set` was given a whole page; the structure is aligned in it, and begins with this word.
    unsafe { count.cast::<u32>().read_volatile() }
}

/// Which guest this is of those that went on from the same snapshot.
pub(crate) fn generation() -> Generation {
    if !is_set() {
        return Generation::default();
    }
    let place = PAGE.load(Ordering::Relaxed).cast::<u8>().wrapping_add(GENERATION);
    loop {
        let count = generation_count();
        // SAFETY: as for the count; it may change between two instructions, which the count tells.
        let bytes = core::array::from_fn(|i| unsafe { place.add(i).read_volatile() });
        let generation = Generation::from_bytes(&bytes);
        if generation.count == count && generation_count() == count {
            return generation;
        }
    }
}

/// Whether there is a boot page yet.
pub(crate) fn is_set() -> bool {
    !PAGE.load(Ordering::Acquire).is_null()
}

/// The devices with this virtio device ID, in the host's order.
pub fn devices(id: u32) -> impl Iterator<Item = &'static DeviceEntry> {
    page().devices().iter().filter(move |device| device.id == id)
}
