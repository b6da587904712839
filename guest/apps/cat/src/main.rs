//! Copies console input to console output, to the end of input. Any bytes will do.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use chiton_guest::console::{self, ConsoleError};

chiton_guest::entry!(main, needs = &[CONSOLE]);

fn main() -> Result<(), ConsoleError> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let len = console::read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        console::write(&buffer[..len])?;
    }
}
