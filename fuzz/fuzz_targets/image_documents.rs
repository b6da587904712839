//! Any bytes as each document of an image: what is read can be written and is then read as the same.
#![no_main]

use chiton_container::image::spec::{Config, Index, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse("fuzz", data) {
        let again = serde_json::to_vec(&manifest).expect("it can be written");
        assert_eq!(Manifest::parse("fuzz", &again).expect("it can be read"), manifest);
    }
    if let Ok(config) = Config::parse("fuzz", data) {
        let again = serde_json::to_vec(&config).expect("it can be written");
        assert_eq!(Config::parse("fuzz", &again).expect("it can be read"), config);
    }
    if let Ok(index) = Index::parse("fuzz", data) {
        let again = serde_json::to_vec(&index).expect("it can be written");
        assert_eq!(Index::parse("fuzz", &again).expect("it can be read"), index);
        assert!(index.choose().is_none_or(|chosen| index.manifests.contains(chosen)));
    }
});
