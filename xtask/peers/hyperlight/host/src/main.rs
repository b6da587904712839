//! Makes a Hyperlight sandbox, calls one function of its guest, says what that said, and ends.

use std::error::Error;

use hyperlight_host::SandboxBuilder;

/// The guest, beside this program.
const GUEST: &str = "chiton-peer-hyperlight-guest";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|word| word == "--version") {
        println!("hyperlight-host 0.18.0");
        return Ok(());
    }
    let guest = std::env::current_exe()?.with_file_name(GUEST);
    let mut sandbox = SandboxBuilder::from_file(guest).build()?;
    let said: String = sandbox.call("Greet", ())?;
    println!("{said}");
    Ok(())
}
