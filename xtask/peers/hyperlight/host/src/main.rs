//! Makes a Hyperlight sandbox, calls one function of its guest, says what that said, and ends.

use std::{error::Error, path::PathBuf};

use hyperlight_host::{GuestBinary, MultiUseSandbox, UninitializedSandbox};

/// The guest, beside this program.
const GUEST: &str = "chiton-peer-hyperlight-guest";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|word| word == "--version") {
        println!("hyperlight-host 0.18.0");
        return Ok(());
    }
    let guest: PathBuf = std::env::current_exe()?.with_file_name(GUEST);
    let binary = GuestBinary::FilePath(guest);
    let mut sandbox: MultiUseSandbox = UninitializedSandbox::new(binary, None)?.evolve()?;
    let said: String = sandbox.call("Greet", ())?;
    println!("{said}");
    Ok(())
}
