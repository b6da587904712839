//! The boot image's file `command`.
#![no_main]

use chiton_bare::command;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match command::parse(data) {
        Ok(commands) => {
            assert!((1..=128).contains(&commands.len()));
            for command in commands {
                assert!(command.memory > 0 && command.memory.is_multiple_of(4096));
            }
        }
        // Whoever has written the file finds the place.
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("`command`"), "{words}");
        }
    }
});
