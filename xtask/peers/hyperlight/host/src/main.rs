//! Makes a Hyperlight sandbox, calls one function of its guest, says what that said, and ends.
//!
//! With `--calls N` it calls the function N times, each time from pristine state, and says for each in a line how many
//! nanoseconds the call took, and how many the restoration that followed.

use std::error::Error;
use std::time::Instant;

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
    let mut words = std::env::args().skip(1);
    let calls: Option<u32> = match words.next().as_deref() {
        None => None,
        Some("--calls") => Some(words.next().unwrap_or_default().parse()?),
        Some(other) => return Err(format!("{other} is neither --version nor --calls").into()),
    };
    let Some(calls) = calls else {
        println!("{said}");
        return Ok(());
    };
    let pristine = sandbox.snapshot()?;
    for _ in 0..calls {
        let began = Instant::now();
        let _: String = sandbox.call("Greet", ())?;
        let called = began.elapsed();
        sandbox.restore(pristine.clone())?;
        println!("{} {}", called.as_nanos(), (began.elapsed() - called).as_nanos());
    }
    Ok(())
}
