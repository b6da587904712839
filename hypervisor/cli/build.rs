//! A release has no symbols. Cargo forgets `strip` of the profile for a package that has an optimization
//! level of its own there, so the linker is told.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(own_entry)");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-z,pack-relative-relocs");
        // Where a process begins: see `src/entry.rs`.
        println!("cargo::rustc-cfg=own_entry");
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=chiton_entry");
        for script in ["release.ld", "order.ld"] {
            println!("cargo::rerun-if-changed={script}");
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/{script}");
        }
    }
}
