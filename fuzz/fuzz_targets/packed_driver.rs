//! The driver side of a packed ring against any device.
#![no_main]

use chiton_shared::virtio::ring::Format;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| chiton_fuzz::ring::driver(Format::Packed, data));
