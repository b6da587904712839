//! A function call over vsock: to the guest `rpc`, and over a Unix socket to a thread of this process.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use chiton_bench::calls::exit_seconds;
use chiton_bench::trial::{Result, TrialError};

use super::bench::Bench;
use super::guest::{Ended, Program};
use super::{Figures, verdict};

/// How many calls a run makes.
const CALLS: u32 = 1000;
/// How many exits the bare loop makes for one time of one.
const EXITS: usize = 5000;
/// A call may take so many exits longer than one without a guest.
const GOAL: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(20);
/// A length, the function `echo`, and 8 bytes for it.
const REQUEST: [u8; 13] = [9, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];

/// Measures and prints, beside the seconds that a bare exit takes.
pub(super) fn run(bench: &Bench) -> Result<()> {
    let program = bench.guest("rpc")?;
    let socket = bench.file("rpc.sock");
    let [mut native, mut guest, mut exits, mut floor] = [const { Figures::new() }; 4];
    for round in 0..bench.runs {
        bench.round(round, "calling")?;
        floor.push(exit_seconds(EXITS).map_err(|error| TrialError::Found(format!("no bare exit: {error}")))?);
        native.push(natively().map_err(TrialError::system("call over a Unix socket"))?);
        let (_, without) = in_guest(&program, &socket, 1)?;
        let (seconds, ended) = in_guest(&program, &socket, CALLS + 1)?;
        guest.push(seconds);
        exits.push((ended.exits - without.exits) / f64::from(CALLS));
    }
    let rows = [
        ("bare KVM_RUN, one exit", &floor),
        ("Unix socket, two threads", &native),
        ("vsock to a guest", &guest),
    ];
    bench.table(&format!("a call of 8 bytes, µs, {CALLS} of them"), &rows, 1e6);
    let beyond = (guest.median() - native.median()) / floor.median();
    bench.say(&format!(
        "{:.2} exits a call; it takes {beyond:.2} bare exits longer than without a guest; goal: at most {GOAL}, {}",
        exits.median(),
        verdict(beyond <= GOAL)
    ));
    Ok(())
}

/// Seconds of one of many calls to a guest, which then ends.
fn in_guest(program: &Program, socket: &Path, calls: u32) -> Result<(f64, Ended)> {
    let path = socket.display().to_string();
    let running = program.start(&["--vsock", &path], &["5000", "1"])?.ready()?;
    let connect = || -> io::Result<f64> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"CONNECT 5000\n")?;
        let mut answer = String::new();
        // One byte at a time, since what follows is not text.
        BufReader::with_capacity(1, &stream).read_line(&mut answer)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::other(format!("the device answers `{answer}`")));
        }
        call(&mut stream, calls)
    };
    let seconds = connect().map_err(TrialError::file("call over", socket))?;
    let ended = running.end()?;
    let _ = fs::remove_file(socket);
    Ok((seconds, ended))
}

fn natively() -> io::Result<f64> {
    let (mut here, mut there) = UnixStream::pair()?;
    here.set_read_timeout(Some(PATIENCE))?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut request = REQUEST;
            while there.read_exact(&mut request).is_ok() {
                let response = [&8_u32.to_le_bytes()[..], &request[5..]].concat();
                if there.write_all(&response).is_err() {
                    break;
                }
            }
        });
        let seconds = call(&mut here, CALLS);
        drop(here);
        seconds
    })
}

/// Makes calls one after the other; returns the seconds of one.
fn call(stream: &mut UnixStream, calls: u32) -> io::Result<f64> {
    let mut response = [0; 12];
    let start = Instant::now();
    for _ in 0..calls {
        stream.write_all(&REQUEST)?;
        stream.read_exact(&mut response)?;
        if response[4..] != REQUEST[5..] {
            return Err(io::Error::other("another answer than asked for"));
        }
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(calls))
}
