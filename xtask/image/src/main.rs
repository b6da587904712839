//! Makes a boot image: `chiton-image bios|uefi KERNEL IMAGE [RAMDISK]`.
//!
//! `cargo xtask image` builds and calls this program.

use std::path::PathBuf;
use std::process::ExitCode;

use bootloader::{BootConfig, DiskImageBuilder};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, kernel, image, ramdisk @ ..] = words.as_slice() else {
        eprintln!("usage: chiton-image bios|uefi KERNEL IMAGE [RAMDISK]");
        return ExitCode::from(2);
    };
    let mut builder = DiskImageBuilder::new(PathBuf::from(kernel));
    if let Some(ramdisk) = ramdisk.first() {
        builder.set_ramdisk(PathBuf::from(ramdisk));
    }
    // The serial port is the guest's console: the boot loader must not write there.
    let mut config = BootConfig::default();
    config.serial_logging = false;
    builder.set_boot_config(&config);
    let made = match kind.as_str() {
        "bios" => builder.create_bios_image(image.as_ref()),
        "uefi" => builder.create_uefi_image(image.as_ref()),
        _ => {
            eprintln!("error: `{kind}` is no kind of image; there are bios and uefi");
            return ExitCode::from(2);
        }
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot make {image}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
