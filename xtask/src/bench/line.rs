//! How fast the line is by which a guest on bare metal has sockets: calls of the guest `rpc`, in each emulator.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::{
    bare::{self, Emulated, Hardware, Input, LINE, Model, OutsideArgs, Processor, Relay, talk},
    error::{Error, Result},
    guests, paths,
};

/// How often the smallest call is made, and how many bytes the largest has.
const CALLS: usize = 50;
const BYTES: usize = 16 << 10;

/// Measures, and prints a line for each emulator.
pub(super) fn run() -> Result<()> {
    let relay = Relay::program()?;
    let name = paths::images().join("line.socket");
    let args = OutsideArgs {
        vsock: Some(name.display().to_string()),
        net: None,
    };
    let guest = guests::resolve("rpc")?;
    let content = std::fs::read(&guest).map_err(Error::file("read", &guest))?;
    let lines = ["guest=rpc", LINE, "arg=5000", "arg=1"].map(str::to_owned);
    let ramdisk = bare::ramdisk_with(&[("guests/rpc".into(), content)], Some(&lines))?;
    let image = bare::image_of("line", Some(&ramdisk))?;
    for emulated in [Emulated::Bochs(Model::SkylakeX), Emulated::Qemu(Processor::Svm)] {
        let hardware = Hardware {
            line: true,
            ..Hardware::default()
        };
        let mut machine = emulated.boot_with(&image, hardware)?;
        let named = machine.named().to_owned();
        let line = machine.take_line().expect("it has one");
        let _relay = Relay::start(&relay, line, &args)?;
        let (console, lines) = talk::Lines::new();
        let (measured, status) = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let port = lines.into_iter().find_map(|line| talk::port_of(&line));
                port.map(|port| measure(&name, port)).transpose()
            });
            let status = machine.run(None, Input::Nothing, console, |line| eprintln!("{line}"));
            (client.join().expect("it does not panic"), status)
        });
        status?;
        match measured {
            Ok(Some((call, rate))) => println!(
                "{named}: a call of no bytes {:.1} ms (median of {CALLS}); {BYTES} bytes there and back {rate:.1} kB/s",
                call.as_secs_f64() * 1000.0
            ),
            Ok(None) => return Err(Error::Found(format!("rpc does not serve in {named}"))),
            Err(error) => return Err(Error::Found(format!("rpc in {named} does not answer: {error}"))),
        }
    }
    Ok(())
}

/// The median time of a call, and how many thousand bytes pass in a second.
fn measure(path: &std::path::Path, port: u32) -> io::Result<(Duration, f64)> {
    let mut stream = talk::connect(path, port)?;
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        talk::call(&mut stream, 4, &[])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let start = Instant::now();
    talk::call(&mut stream, 2, &[0x55; BYTES])?;
    let rate = 2.0 * BYTES as f64 / 1000.0 / start.elapsed().as_secs_f64();
    Ok((times[CALLS / 2], rate))
}
