//! Greets, and says what the machine is like: `hello [NAME…]`.
#![no_std]
#![no_main]

use chiton_guest::{env, println, time};

chiton_guest::entry!(main);

fn main() {
    // One `println!` is one kick of the console, however many lines it has.
    println!(
        "Hello from ring {}, with {} MiB of memory, {} us after the first instruction.",
        env::ring(),
        env::memory() >> 20,
        time::uptime().as_micros(),
    );
    for name in env::args().skip(1) {
        println!("Hello, {name}.");
    }
    for (key, value) in env::vars() {
        println!("{key}={value}");
    }
}
