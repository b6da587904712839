//! TCP and HTTP between a guest on a TAP device and the host, beside the same over a veth pair
//! between two network namespaces: same MTU, same offloads, same programs at the other end. A packet
//! is what the MTU lets through; with segmentation one frame has up to 44 of them.
//!
//! ```text
//!   namespace `here`                       namespace `there`
//!   load ── veth ────────────────────────── veth ── stand-in for netperf, nginx
//!   load ── TAP ── chiton: netperf, httpd
//! ```

mod load;
mod place;

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use chiton_bench::trial::{Result, TrialError, answer};
use rustix::process::{Pid, Signal, kill_process};

use super::bench::{Bench, tool};
use super::guest::{Program, exits};
use super::{Figures, verdict};
use load::Way;
pub(super) use place::Namespace;

/// At least this part of what the host has with itself.
const GOAL: f64 = 0.5;
/// At most so many exits for a packet under load.
const GOAL_EXITS: f64 = 0.05;
/// At most so many exits for a datagram that comes alone and its answer.
const GOAL_LONE: f64 = 2.0;
/// How many bytes one run moves.
const BYTES: u64 = 1 << 30;
/// The MTU of both links, in bytes.
const MTU: u32 = 1500;
/// How many of them a packet of the MTU carries: 1500 less the headers of IP and TCP with timestamps.
const PAYLOAD: u64 = 1448;
/// How many datagrams go alone.
const ROUNDS: u32 = 300;
/// How long `wrk` asks, in seconds.
const SECONDS: u32 = 2;
/// How many connections `wrk` has.
const CONNECTIONS: u32 = 64;

const VETH_HERE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 1);
const VETH_THERE: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 2);
const TAP_HERE: Ipv4Addr = Ipv4Addr::new(10, 94, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 94, 0, 2);
const TAP: &str = "tap0";
const TCP: u16 = 5001;
const UDP: u16 = 5002;
const HTTP: u16 = 80;

/// The file that both servers serve.
const PAGE: &[u8] = include_bytes!("../../../../../../guest/apps/httpd/src/files/index.html");

/// Measures and prints.
pub(super) fn run(bench: &Bench) -> Result<()> {
    let (netperf, httpd) = (bench.guest("netperf")?, bench.guest("httpd")?);
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    connect(&here, &there)?;
    there
        .run(|| load::serve_tcp((VETH_THERE, TCP).into()))?
        .map_err(io("serve TCP"))?;
    there
        .run(|| load::serve_udp((VETH_THERE, UDP).into()))?
        .map_err(io("serve UDP"))?;

    tcp(bench, &here, &netperf)?;
    lone(bench, &here, &netperf)?;
    http(bench, &here, &there, &httpd)
}

/// Lays a veth pair and makes the TAP device.
fn connect(here: &Namespace, there: &Namespace) -> Result<()> {
    here.ip("link add veth0 type veth peer name veth1")?;
    here.ip(&format!("link set veth1 netns {}", there.path().display()))?;
    here.ip(&format!("address add {VETH_HERE}/24 dev veth0"))?;
    there.ip(&format!("address add {VETH_THERE}/24 dev veth1"))?;
    here.ip("link set veth0 up")?;
    there.ip("link set veth1 up")?;
    here.ip(&format!("tuntap add {TAP} mode tap"))?;
    here.ip(&format!("address add {TAP_HERE}/24 dev {TAP}"))?;
    here.ip(&format!("link set {TAP} up"))?;
    let (veth, tap) = (sizes(here, "veth0")?, sizes(here, TAP)?);
    if veth != tap || veth.0 != MTU {
        return Err(TrialError::Found(format!(
            "the two links are not alike: MTU and largest frame are {veth:?} of veth and {tap:?} of TAP"
        )));
    }
    Ok(())
}

/// MTU and largest frame with segmentation of an interface, in bytes.
fn sizes(here: &Namespace, interface: &str) -> Result<(u32, u32)> {
    let words = here.asked(&format!("-details -oneline link show dev {interface}"))?;
    let value = |name| number_after(&words, name).ok_or_else(|| TrialError::Found(format!("no {name} in: {words}")));
    Ok((value("mtu")?, value("gso_max_size")?))
}

/// The number that follows a word.
fn number_after(words: &str, name: &str) -> Option<u32> {
    let mut words = words.split_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.trim_end_matches(',').parse().ok()
}

/// The same bytes both ways, over the veth pair and to the guest.
fn tcp(bench: &Bench, here: &Namespace, netperf: &Program) -> Result<()> {
    bench.say(&format!(
        "\nTCP, one connection, MTU {MTU} and frames of up to 64 KiB on both links, Gbit/s, {} interleaved runs of {} MiB",
        bench.runs,
        BYTES >> 20
    ));
    bench.say(&format!("{:<34} {:>9} {:>9} {:>9}", "", "median", "p10", "p90"));
    for way in [Way::To, Way::From] {
        let (mut host, mut guest) = (Figures::default(), Figures::default());
        let (mut exits, mut exits_a_frame, mut ratio) = (Figures::default(), Figures::default(), Figures::default());
        let mut busy = Figures::default();
        let words = if way == Way::To { "host to" } else { "host from" };
        for round in 0..bench.runs {
            bench.round(round, "TCP")?;
            let native = rate(here, VETH_THERE, way)?;
            host.push(native);
            let before = here.frames(TAP)?;
            let running = Guest::start(here, netperf, &[&TCP.to_string()])?;
            let idle = running.busy()?;
            let ours = rate(here, GUEST, way)?;
            busy.push(running.busy()? - idle);
            guest.push(ours);
            ratio.push(ours / native);
            let frames = here.frames(TAP)? - before;
            let count = running.stop()? as f64;
            exits.push(count / (BYTES / PAYLOAD) as f64);
            exits_a_frame.push(count / frames as f64);
        }
        bench.say(&format!("{:<34} {}", format!("{words} host, veth"), host.columns(1.0)));
        bench.say(&format!("{:<34} {}", format!("{words} guest, TAP"), guest.columns(1.0)));
        say_ratio(bench, &ratio, "veth");
        bench.say(&format!(
            "  {:.4} exits a packet of {PAYLOAD} bytes; goal: at most {GOAL_EXITS}, {} ({:.3} a frame of up to 64 KiB)",
            exits.median(),
            verdict(exits.median() <= GOAL_EXITS),
            exits_a_frame.median()
        ));
        bench.say(&format!(
            "  {:.2} s of processor time for each GiB ({:.2} to {:.2}), the guest's and chiton's together",
            busy.median(),
            busy.quantile(0.1),
            busy.quantile(0.9)
        ));
    }
    Ok(())
}

/// Says what part of the host's figure the guest's is, from the pairs of runs.
fn say_ratio(bench: &Bench, ratio: &Figures, of: &str) {
    bench.say(&format!(
        "  {:.2} of {of} ({:.2} to {:.2}); goal: at least {GOAL}, {}",
        ratio.median(),
        ratio.quantile(0.1),
        ratio.quantile(0.9),
        verdict(ratio.median() >= GOAL)
    ));
}

/// Gigabits a second.
fn rate(here: &Namespace, to: Ipv4Addr, way: Way) -> Result<f64> {
    let seconds = here
        .run(move || load::transfer((to, TCP).into(), way, BYTES))?
        .map_err(io("move bytes"))?;
    Ok(BYTES as f64 * 8.0 / 1e9 / seconds)
}

/// Datagrams that wait for each other, with time to fall asleep in between.
fn lone(bench: &Bench, here: &Namespace, netperf: &Program) -> Result<()> {
    let (mut host, mut guest, mut exits) = (Figures::default(), Figures::default(), Figures::default());
    let pause = Duration::from_millis(1);
    let ping = |to: Ipv4Addr| {
        here.run(move || load::ping((to, UDP).into(), ROUNDS, pause))?
            .map_err(io("send datagrams"))
    };
    for round in 0..bench.runs {
        bench.round(round, "lone datagrams")?;
        host.push(ping(VETH_THERE)?);
        // What the start and the first question for an Ethernet address cost is not theirs.
        let start = Guest::start(here, netperf, &[&UDP.to_string(), "udp"])?;
        here.run(|| load::ping((GUEST, UDP).into(), 1, Duration::ZERO))?
            .map_err(io("send datagrams"))?;
        let without = start.stop()?;
        let running = Guest::start(here, netperf, &[&UDP.to_string(), "udp"])?;
        guest.push(ping(GUEST)?);
        exits.push(running.stop()?.saturating_sub(without) as f64 / f64::from(ROUNDS));
    }
    let rows = [("host, veth", &host), ("guest, TAP", &guest)];
    bench.table(&format!("a datagram and its answer, µs, {ROUNDS} of them"), &rows, 1e6);
    bench.say(&format!(
        "  {:.2} exits for both; goal: at most {GOAL_LONE}, {}",
        exits.median(),
        verdict(exits.median() <= GOAL_LONE)
    ));
    Ok(())
}

/// The same small file from nginx and from the guest.
fn http(bench: &Bench, here: &Namespace, there: &Namespace, httpd: &Program) -> Result<()> {
    let (wrk, nginx) = (tool("wrk", "wrk")?, tool("nginx", "nginx-light")?);
    let nginx = Nginx::start(there, &nginx, bench.file("nginx"))?;
    let (mut host, mut guest, mut exits) = (Figures::default(), Figures::default(), Figures::default());
    let mut ratio = Figures::default();
    let mut unwritten = 0;
    for round in 0..bench.runs {
        bench.round(round, "HTTP")?;
        let native = ask(here, &wrk, VETH_THERE)?;
        let before = here.frames(TAP)?;
        let running = Guest::start(here, httpd, &[&HTTP.to_string()])?;
        let ours = ask(here, &wrk, GUEST)?;
        host.push(native.rate);
        guest.push(ours.rate);
        ratio.push(ours.rate / native.rate);
        unwritten += native.unwritten + ours.unwritten;
        let frames = here.frames(TAP)? - before;
        exits.push(running.stop()? as f64 / frames as f64);
    }
    drop(nginx);
    let rows = [
        ("nginx with one worker, veth", &host),
        ("httpd in a guest, TAP", &guest),
    ];
    let title = format!("requests a second for a small file, wrk with {CONNECTIONS} connections");
    bench.table(&title, &rows, 1.0);
    say_ratio(bench, &ratio, "nginx");
    if unwritten > 0 {
        bench.say(&format!(
            "  note: wrk could not write {unwritten} requests, of both together; they are not counted"
        ));
    }
    bench.say(&format!(
        "  {:.4} exits a frame; goal: at most {GOAL_EXITS}, {}",
        exits.median(),
        verdict(exits.median() <= GOAL_EXITS)
    ));
    Ok(())
}

/// What `wrk` says of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    /// Requests a second.
    rate: f64,
    /// Requests that it could not write, which says more of its own end than of the server's.
    unwritten: u64,
}

impl Asked {
    /// Reads them; `None` if there is no rate, or an answer was missing or wrong.
    fn read(words: &str) -> Option<Self> {
        let after = |name| words.lines().find_map(|line| line.trim().strip_prefix(name));
        let errors = after("Socket errors:").unwrap_or_default();
        let mut unwritten = 0;
        for error in errors.split(',').filter(|error| !error.is_empty()) {
            let (what, count) = error.trim().split_once(' ')?;
            match (what, count.parse().ok()?) {
                (_, 0) => {}
                ("write", count) => unwritten = count,
                _ => return None,
            }
        }
        let rate = after("Requests/sec:")?.trim().parse().ok()?;
        after("Non-2xx").is_none().then_some(Self { rate, unwritten })
    }
}

/// Has `wrk` ask for the file for a while.
fn ask(here: &Namespace, wrk: &Path, at: Ipv4Addr) -> Result<Asked> {
    let mut wrk = Command::new(wrk);
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{SECONDS}s")])
        .arg(format!("http://{at}:{HTTP}/"));
    let output = here.run(move || answer(&mut wrk))??;
    Asked::read(&output).ok_or_else(|| TrialError::Found(format!("wrk met errors:\n{output}")))
}

/// A `chiton` at work.
struct Guest {
    child: Child,
}

impl Guest {
    /// Starts a guest with these arguments, and waits for its first line, by which it serves.
    fn start(here: &Namespace, guest: &Program, arguments: &[&str]) -> Result<Self> {
        let net = format!("tap={TAP},ip={GUEST}/24");
        let mut command = guest.command(&["--exits", "--net", &net], arguments);
        let child = here.run(move || command.spawn().map_err(TrialError::start(&command)))??;
        let mut running = Self { child };
        let mut byte = [0];
        while byte[0] != b'\n' {
            let read = running.child.stdout.as_mut().map_or(Ok(0), |out| out.read(&mut byte));
            if !matches!(read, Ok(1)) {
                return Err(running.failed());
            }
        }
        Ok(running)
    }

    /// How long its threads have run so far, in seconds. Other work on the machine changes this less
    /// than it does any rate.
    fn busy(&self) -> Result<f64> {
        let threads = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let entries = fs::read_dir(&threads).map_err(TrialError::file("read", &threads))?;
        let mut ns = 0;
        for thread in entries.flatten() {
            let file = thread.path().join("schedstat");
            let words = fs::read_to_string(&file).map_err(TrialError::file("read", &file))?;
            let first = words
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            ns += first.ok_or_else(|| TrialError::Found(format!("no time in {}: {words}", file.display())))?;
        }
        Ok(ns as f64 / 1e9)
    }

    fn failed(&mut self) -> TrialError {
        let mut words = String::new();
        let _ = self.child.kill();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut words);
        }
        TrialError::Found(format!("the guest does not serve: {words}"))
    }

    /// Ends it, and returns how many exits it made: those to the process and those to the kernel
    /// alone.
    fn stop(mut self) -> Result<u64> {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let mut words = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut words).map_err(io("read its exits"))?;
        }
        let _ = self.child.wait();
        exits(&words).ok_or_else(|| TrialError::Found(format!("no exits in: {words}")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An nginx with one worker, in a folder of its own.
struct Nginx {
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    fn start(there: &Namespace, nginx: &Path, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(TrialError::file("create", &folder))?;
        let page = folder.join("index.html");
        fs::write(&page, PAGE).map_err(TrialError::file("write", &page))?;
        let at = folder.display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/errors;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; types {{ text/html html; }}\n\
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen {VETH_THERE}:{HTTP}; root {at}; }} }}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config).map_err(TrialError::file("write", &file))?;
        let mut command = Command::new(nginx);
        command.arg("-e").arg(folder.join("errors")).arg("-c").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = there.run(move || command.spawn().map_err(TrialError::start(&command)))??;
        let this = Self { child, folder };
        let at = SocketAddr::from((VETH_THERE, HTTP));
        let start = Instant::now();
        while there.run(move || std::net::TcpStream::connect(at).is_err())? {
            if start.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(this.folder.join("errors")).unwrap_or_default();
                return Err(TrialError::Found(format!("nginx does not serve: {said}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> TrialError {
    move |error| TrialError::Found(format!("cannot {doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_wrk_could_not_write_are_a_note_and_other_errors_an_error() {
        let words = |errors: &str| format!("  1000 requests in 2.00s\n{errors}Requests/sec:  500.25\n");
        let read = |errors| Asked::read(&words(errors));
        let (rate, unwritten) = (500.25, 7);
        assert_eq!(read(""), Some(Asked { rate, unwritten: 0 }));
        let noted = read("  Socket errors: connect 0, read 0, write 7, timeout 0\n");
        assert_eq!(noted, Some(Asked { rate, unwritten }));
        for errors in [
            "  Socket errors: connect 0, read 1, write 7, timeout 0\n",
            "  Socket errors: connect 0, read 0, write 0, timeout 2\n",
            "  Non-2xx or 3xx responses: 3\n",
        ] {
            assert_eq!(read(errors), None, "{errors}");
        }
        assert_eq!(Asked::read("nothing"), None);
    }

    #[test]
    fn a_number_is_found_behind_its_word() {
        let words = "2: tap0: <UP> mtu 1500 qdisc noop gso_max_size 65536 gso_max_segs 65535";
        assert_eq!(number_after(words, "mtu"), Some(1500));
        assert_eq!(number_after(words, "gso_max_size"), Some(65536));
        assert_eq!(number_after(words, "none"), None);
    }

    #[test]
    fn exits_of_both_kinds_are_added() {
        let words = "exit to host         count\ndoorbell wait    3\nall                   12\nioeventfd              30   \
                     (kicks)\n";
        assert_eq!(exits(words), Some(42));
        assert_eq!(exits("nothing"), None);
    }
}
