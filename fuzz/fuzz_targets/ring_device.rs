//! The device side of a split ring on any memory.
#![no_main]

use chiton_shared::virtio::ring::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| chiton_fuzz::ring::device(Format::Split, data));
