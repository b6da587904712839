//! Any bytes as the archive of a layer, unpacked into a folder: nothing beside the folder changes, and
//! what was unpacked can be packed again.
#![no_main]

use std::fs;

use chiton_container::image::Limits;
use chiton_container::image::layer::{Owners, pack, unpack_archive};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    packed: 1 << 20,
    bytes: 1 << 20,
    entries: 100,
    depth: 20,
    ratio: 1000,
    ratio_from: 1 << 20,
};

fuzz_target!(|data: &[u8]| {
    let outer = std::env::temp_dir().join(format!("chiton-fuzz-{}", std::process::id()));
    let top = outer.join("top");
    fs::create_dir_all(&top).expect("a folder");
    if unpack_archive(&mut &data[..], "fuzz", &top, LIMITS, Owners::ours()).is_ok() {
        pack(&top, &mut std::io::sink(), Owners::ours()).expect("what was unpacked can be packed");
    }
    let beside: Vec<_> = fs::read_dir(&outer).expect("the folder is there").collect();
    assert_eq!(beside.len(), 1);
    fs::remove_dir_all(&outer).expect("nothing keeps it from being removed");
});
