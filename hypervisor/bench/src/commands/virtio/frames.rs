//! Ethernet frames between this process and the guest `compare-net` over each kind of network
//! interface, and over a veth pair with this process at both ends.

use std::{fs, io, thread};

use chiton_bench::trial::{Result, TrialError};

use super::bench::Bench;
use super::guest::{Ended, Program};
use super::net::Namespace;
use super::packet::Packets;
use super::{EXITS_ALONE, EXITS_UNDER_LOAD, Row, Way, goal_at_most};

/// How many frames go alone.
const LONE: u32 = 300;
/// How many under load, and how long each is, in bytes.
const FLOOD: u32 = 20_000;
const BYTES: usize = 1514;
const TAP: &str = "tap1";

/// Exits for one packet, and the seconds or the rate of one kind of traffic.
#[derive(Debug, Default)]
struct Traffic {
    /// For each packet; of `lone`, for two: one there and one back.
    exits: Row,
    speed: Row,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Frames {
    lone: Traffic,
    sent: Traffic,
    taken: Traffic,
}

/// Measures, in a network namespace of its own.
pub(super) fn measure(bench: &Bench) -> Result<Frames> {
    let program = bench.guest("compare-net")?;
    let place = Namespace::new()?;
    place
        .run(|| fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"))?
        .map_err(io_error("keep IPv6 quiet"))?;
    place.ip("link add veth0 type veth peer name veth1")?;
    place.ip(&format!("tuntap add {TAP} mode tap"))?;
    // A flood waits there, and is not lost.
    place.ip(&format!("link set {TAP} txqueuelen {}", FLOOD + 1000))?;
    for name in ["veth0", "veth1", TAP] {
        place.ip(&format!("link set {name} up"))?;
    }
    let mut frames = Frames::default();
    for round in 0..bench.runs {
        bench.round(round, "sending frames")?;
        let program = program.clone();
        frames = place.run(move || frames.round(&program).map(|()| frames))??;
    }
    Ok(frames)
}

impl Frames {
    /// Every kind of traffic once, in the way of each kind of interface.
    fn round(&mut self, program: &Program) -> Result<()> {
        for (way, option, kind) in [
            (Way::Registers, "--emulated-net", "emulated"),
            (Way::Virtio, "--net", "virtio"),
        ] {
            let guest = |what: &str, count: u32, work: &mut dyn FnMut(&mut Packets) -> io::Result<f64>| {
                with_guest(program, option, kind, what, count, work)
            };
            // What the start costs is not theirs.
            let (_, without) = guest("echo", 1, &mut |link| link.ping(1))?;
            let (seconds, ended) = guest("echo", LONE + 1, &mut |link| link.ping(LONE + 1))?;
            self.lone.speed.of(way).push(seconds);
            let exits = (ended.exits - without.exits) / f64::from(LONE);
            self.lone.exits.of(way).push(exits);

            let (seconds, ended) = guest("send", FLOOD, &mut |link| link.draw(FLOOD))?;
            self.sent.push(way, seconds, ended.exits - without.exits);
            let (seconds, ended) = guest("take", FLOOD, &mut |link| link.pour(FLOOD, BYTES))?;
            self.taken.push(way, seconds, ended.exits - without.exits);
        }
        let lone = with_host(|link| link.echo(LONE), |link| link.ping(LONE))?;
        self.lone.speed.of(Way::Native).push(lone);
        let sent = with_host(|link| link.send(FLOOD, BYTES), |link| link.draw(FLOOD))?;
        self.sent.speed.of(Way::Native).push(f64::from(FLOOD) / sent);
        let taken = with_host(|link| link.take(FLOOD), |link| link.pour(FLOOD, BYTES))?;
        self.taken.speed.of(Way::Native).push(f64::from(FLOOD) / taken);
        Ok(())
    }
}

impl Traffic {
    fn push(&mut self, way: Way, seconds: f64, exits: f64) {
        self.speed.of(way).push(f64::from(FLOOD) / seconds);
        self.exits.of(way).push(exits / f64::from(FLOOD));
    }
}

/// Does the work of this end while a guest does that of the other.
fn with_guest(
    program: &Program,
    option: &str,
    kind: &str,
    what: &str,
    count: u32,
    work: &mut dyn FnMut(&mut Packets) -> io::Result<f64>,
) -> Result<(f64, Ended)> {
    let words = [count.to_string(), BYTES.to_string()];
    let guest = program.start(&[option, &format!("tap={TAP}")], &[kind, what, &words[0], &words[1]])?;
    let guest = guest.ready()?;
    let mut link = Packets::open(TAP).map_err(io_error("open a packet socket"))?;
    match work(&mut link) {
        Ok(seconds) => Ok((seconds, guest.end()?)),
        Err(error) => Err(TrialError::Found(format!("{kind} {what}: no frames any more: {error}"))),
    }
}

/// Does the work of this end while another thread does that of the other.
fn with_host(
    other: impl FnOnce(&mut Packets) -> io::Result<()> + Send + 'static,
    work: impl FnOnce(&mut Packets) -> io::Result<f64>,
) -> Result<f64> {
    let open = |name| Packets::open(name).map_err(io_error("open a packet socket"));
    let (mut here, mut there) = (open("veth0")?, open("veth1")?);
    let other = thread::spawn(move || other(&mut there));
    let seconds = work(&mut here).map_err(io_error("send frames over veth"))?;
    let ended = other.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")));
    ended.map_err(io_error("take in frames over veth"))?;
    Ok(seconds)
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> TrialError {
    move |error| TrialError::Found(format!("cannot {doing}: {error}"))
}

impl Frames {
    /// Says what virtio is to reach.
    pub(super) fn goals(&self, bench: &Bench) {
        for (name, traffic) in [("sent", &self.sent), ("received", &self.taken)] {
            let exits = traffic.exits.median(Way::Virtio);
            goal_at_most(
                bench,
                &format!("exits a packet {name}, under load"),
                exits,
                EXITS_UNDER_LOAD,
            );
        }
        // One there and one back.
        let lone = self.lone.exits.median(Way::Virtio) / 2.0;
        goal_at_most(bench, "exits a lone packet, each way", lone, EXITS_ALONE);
    }

    /// Says the lines of the table.
    pub(super) fn say(&self, bench: &Bench) {
        let megabits = BYTES as f64 * 8.0 / 1e6;
        bench.say("network, a frame of 60 bytes and its answer");
        self.lone.exits.say(bench, "  alone: exits for both", 1.0);
        self.lone.speed.say(bench, "  alone: µs", 1e6);
        bench.say(&format!("network, frames of {BYTES} bytes"));
        self.sent.exits.say(bench, "  from the guest: exits each", 1.0);
        self.sent.speed.say(bench, "  from the guest: Mbit/s", megabits);
        self.taken.exits.say(bench, "  to the guest: exits each", 1.0);
        self.taken.speed.say(bench, "  to the guest: Mbit/s", megabits);
    }
}
