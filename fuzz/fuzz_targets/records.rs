//! Any text to the reader of what measuring guests print.
#![no_main]

use chiton_bench::exits::records::Records;
use chiton_shared::measure::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        if let Ok(Some(record)) = Record::parse(line) {
            // What is understood is printed so that it is understood alike.
            let again = record.to_string();
            let read = Record::parse(&again).expect("what is printed can be read");
            assert_eq!(read.map(|record| record.to_string()), Some(again));
        }
    }
    if let Ok(records) = Records::read(&text) {
        assert!(records.start.is_some());
        for case in &records.cases {
            assert!(case.skipped.is_some() || !case.repeats.is_empty());
            for repeat in &case.repeats {
                assert!(repeat.values.is_sorted_by(|one, other| one.0 < other.0));
            }
        }
    }
});
