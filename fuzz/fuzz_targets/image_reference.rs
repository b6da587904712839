//! Any text as the name of an image: it is one, and means the same when written out, or is refused.
#![no_main]

use chiton_container::image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Reference>() {
        assert_eq!(name.to_string().parse::<Reference>().as_ref().ok(), Some(&name));
        assert_eq!(name.familiar().parse::<Reference>().as_ref().ok(), Some(&name));
        assert!(
            name.repository()
                .split('/')
                .all(|part| !part.is_empty() && part != "..")
        );
    }
});
