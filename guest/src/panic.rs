//! The end of a guest that went wrong: its last words reach the host.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use chiton_shared::doorbell;

use crate::host::MailboxText;
use crate::{boot, console, heap};

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Tells the host of a panic, message and place, and ends the guest. This is what
/// [`entry!`](crate::entry!) makes the panic handler.
#[doc(hidden)]
pub fn report(info: &PanicInfo<'_>) -> ! {
    let again = PANICKING.swap(true, Ordering::Relaxed);
    let line = info.location().map_or(0, core::panic::Location::line);
    let mut text = MailboxText::new();
    // Writing into the mailbox cannot fail; a `Display` that fails leaves what it wrote.
    let _ = if again {
        text.write_str("panicked while it panicked")
    } else {
        write!(text, "{}", info.message())
    };
    if !again
        && heap::ran_out()
        && text.starts_with("memory allocation of ")
        && let Some(heap) = heap::usage()
    {
        let _ = write!(text, " (the heap has {} of {} bytes free)", heap.free(), heap.size);
    }
    // A place inside the standard library tells nobody anything.
    if let Some(place) = info.location().filter(|place| !place.file().starts_with("/rustc/")) {
        let _ = write!(text, ", at {place}");
    }
    if !again && boot::is_set() {
        console::flush_at_end();
    }
    text.send(line, doorbell::PANIC);
    crate::entry::halt()
}
