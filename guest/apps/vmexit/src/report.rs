//! Records, on their way out: to the console where there is one, else as lines of the log.

use chiton_guest::shared::measure::{Record, Samples};
use chiton_guest::shared::virtio::id;
use chiton_guest::{boot, console, println};
use vmexit_cases::Meter;

/// Sends a record.
pub fn say(record: &Record<'_>) {
    let has_console = boot::page().devices().iter().any(|device| device.id == id::CONSOLE);
    if has_console {
        println!("{record}");
        // A console that has failed has nobody to tell.
        let _ = console::flush();
    } else {
        log::info!("{record}");
    }
}

/// A case begins. How many operations a sample has is known only at its end.
pub fn begin(case: &str, repeat: u32) {
    say(&Record::Begin { case, repeat });
}

/// A case is over.
pub fn finish(case: &str, meter: Meter<'_>) {
    let (operations, warm_up) = (meter.operations(), meter.warm_up() as u32);
    let sorted = meter.finish();
    for line in Samples::lines(sorted) {
        say(&Record::Samples(line));
    }
    say(&Record::End {
        case,
        operations,
        warm_up,
        count: sorted.len() as u64,
        sum: sorted.iter().sum(),
    });
}
