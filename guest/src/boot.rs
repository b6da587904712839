//! The boot page, as the guest found it.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use chiton_shared::ABI_VERSION;
use chiton_shared::boot::{BootPage, DeviceEntry, MAGIC, STOP_REQUESTED};

static PAGE: AtomicPtr<BootPage> = AtomicPtr::new(ptr::null_mut());

/// Remembers the boot page.
///
/// # Safety
///
/// `page` must point to a readable page that never changes, but for the word at
/// [`STOP_REQUESTED`].
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

/// Whether there is a boot page yet.
pub(crate) fn is_set() -> bool {
    !PAGE.load(Ordering::Acquire).is_null()
}

/// The devices with this virtio device ID, in the host's order.
pub fn devices(id: u32) -> impl Iterator<Item = &'static DeviceEntry> {
    page().devices().iter().filter(move |device| device.id == id)
}
