//! A Chiton guest: `{name} [WORD…]`.
#![no_std]
#![no_main]

use chiton_guest::{env, println};

chiton_guest::entry!(main);

fn main() {
    println!("This is {name}, in ring {}.", env::ring());
    for word in env::args().skip(1) {
        println!("- {word}");
    }
}
