//! Any note's descriptor as a manifest.
#![no_main]

use chiton_shared::manifest::{Feature, Manifest, ManifestError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Manifest::from_bytes(data) {
        Ok(manifest) => {
            assert_eq!(manifest.to_bytes(), data);
            assert!(
                manifest
                    .ring()
                    .is_none_or(|ring| u32::from(ring.number()) == manifest.ring)
            );
            assert!(Feature::KNOWN.contains(Feature(manifest.required.0 & !manifest.required.unknown().0)));
        }
        Err(ManifestError::Length(len)) => assert_eq!(len, data.len()),
        Err(ManifestError::Abi(abi)) => assert_eq!(abi.to_le_bytes(), data[..4]),
    }
});
