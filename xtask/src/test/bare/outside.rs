//! Guests that have sockets and a network, by a line to `chiton-relay`.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{End, LIMIT, MACHINES, frames, refusals::FAILED, timeless};
use crate::{
    bare::{self, EMULATED_NET, Emulated, Hardware, Input, LINE, Machine, OutsideArgs, Processor, Relay, talk},
    build, command,
    error::{Error, Result},
    paths, tools,
};

/// The guest that is called, and what it is called with; the guest that calls, whom, and what it says.
const CALLED: [&str; 3] = ["rpc", "5000", "1"];
const CALLS: [&str; 4] = ["sockets", "call", "7000", "a question"];
/// The port that the second calls.
const SERVED: u32 = 7000;
/// The guest that returns frames, and what it says when it is there.
const RETURNS: &str = "compare-net";
const READY: &str = "ready";
/// The guest whose relay is killed.
const CUT: [&str; 3] = ["sockets", "gone", "5001"];
/// What it says of that.
const RESET: &str = "sockets: vsock: the other side has ended the connection";
/// All of them, and those that have a network with an address.
#[cfg(test)]
pub(super) const NAMES: [&str; 5] = [CALLED[0], CALLS[0], "fetch", RETURNS, "httpd"];
/// What is said where nobody is at the other end.
const SILENT: &str =
    "nobody answers on the line com2: start `cargo xtask relay` at its other end, or leave line=com2 out";

/// Returns what is wrong.
pub(super) fn run(chiton: &Path) -> Result<Vec<String>> {
    let relay = Relay::program()?;
    let place = paths::images().join("outside");
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(&place).map_err(Error::file("create", &place))?;
    let mut found = refused(&relay, &place)?;
    let tap = if command::is_root() || std::env::var_os("CI").is_some() {
        Some(Tap::new()?)
    } else {
        eprintln!("  networks by the line: skipped, since only root makes a TAP device");
        None
    };
    let guests = guests(tap.as_ref())?;
    let expected = hosted(chiton, &guests, &place, tap.as_ref())?;
    for (machine, cut) in MACHINES.into_iter().take(2).zip([true, false]) {
        found.extend(talks(machine, cut, &relay, &place, (&guests, &expected), tap.as_ref())?);
    }
    if let Some(tap) = &tap {
        found.extend(network(&relay, tap)?);
    }
    Ok(found)
}

/// What a guest has of this machine.
#[derive(Clone, Copy)]
enum With {
    Sockets,
    Network,
    EmulatedNetwork,
}

/// A guest that talks with this machine.
struct Guest {
    words: Vec<String>,
    /// What it has under KVM: on bare metal all have what is at the other end of the line.
    outside: With,
    /// Its lines of `command`.
    lines: &'static [&'static str],
}

impl Guest {
    fn new(words: &[&str], lines: &'static [&'static str]) -> Self {
        Self {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            outside: With::Sockets,
            lines,
        }
    }

    fn with(self, outside: With) -> Self {
        Self { outside, ..self }
    }
}

/// Those that say the same everywhere.
fn guests(tap: Option<&Tap>) -> Result<Vec<Guest>> {
    let mut guests = vec![Guest::new(&CALLED, &[LINE]), Guest::new(&CALLS, &[LINE])];
    if let Some(tap) = tap {
        let port = serve(&tap.address(1))?.to_string();
        guests.extend([
            Guest::new(&["fetch", &tap.address(1), &port], &[LINE]).with(With::Network),
            Guest::new(&[RETURNS, "virtio", "echo", frames::COUNT], &[LINE]).with(With::Network),
            Guest::new(&[RETURNS, "emulated", "echo", frames::COUNT], &[LINE, EMULATED_NET])
                .with(With::EmulatedNetwork),
        ]);
    }
    Ok(guests)
}

/// Serves one page by HTTP for as long as this process lives; returns the port.
fn serve(address: &str) -> Result<u16> {
    let error = Error::file("listen at", Path::new(address));
    let listener = TcpListener::bind((address, 0));
    let (listener, port) = listener
        .and_then(|listener| listener.local_addr().map(|local| (listener, local.port())))
        .map_err(error)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(io::Result::ok) {
            // Who does not take it says so.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\na page\n");
        }
    });
    Ok(port)
}

/// What the guests say under KVM, and what they are told and answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    said: String,
    answers: Vec<Vec<u8>>,
}

/// One guest after the other under KVM.
fn hosted(chiton: &Path, guests: &[Guest], place: &Path, tap: Option<&Tap>) -> Result<Talk> {
    let path = place.join("hosted");
    let server = Server::at(&path)?;
    let mut talk = Talk::default();
    for Guest { words, outside, .. } in guests {
        let mut command = build::without_jail(chiton);
        command.arg("run");
        match (outside, tap) {
            (With::Network, Some(tap)) => command.args(["--net", &tap.option()]),
            (With::EmulatedNetwork, Some(tap)) => command.args(["--emulated-net", &format!("tap={}", tap.name)]),
            _ => command.arg("--vsock").arg(&path),
        };
        command.arg(paths::guests().join(&words[0])).args(&words[1..]);
        let start_error = |source| Error::Start {
            program: chiton.display().to_string(),
            source,
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(start_error)?;
        let output = child.stdout.take().expect("it is piped");
        // Not `lines`, which keeps no `\r`.
        for line in io::BufRead::split(io::BufReader::new(output), b'\n').map_while(io::Result::ok) {
            let line = String::from_utf8_lossy(&line);
            talk.answers.extend(answers(&line, &path, tap).map_err(start_error)?);
            talk.said += &line;
            talk.said.push('\n');
        }
        let status = child.wait().map_err(start_error)?;
        if !status.success() {
            return Err(Error::Found(format!("`{}` under KVM: {status}", words.join(" "))));
        }
    }
    talk.answers.push(server.heard());
    Ok(talk)
}

/// What a guest answers that has said this line.
fn answers(line: &str, path: &Path, tap: Option<&Tap>) -> io::Result<Vec<Vec<u8>>> {
    match (talk::port_of(line), tap) {
        (Some(port), _) => call(path, port),
        (None, Some(tap)) if line == READY => frames::echoed(&tap.name),
        _ => Ok(Vec::new()),
    }
}

/// The same on bare metal; if `cut`, then guests whose line is cut. Returns what is wrong.
fn talks(
    machine: Emulated,
    cut: bool,
    relay: &Path,
    place: &Path,
    (guests, expected): (&[Guest], &Talk),
    tap: Option<&Tap>,
) -> Result<Vec<String>> {
    let more = if cut {
        vec![
            Guest::new(&CUT, &[LINE]),
            Guest::new(&["hello"], &[]),
            Guest::new(&CALLED[..1], &[LINE]),
        ]
    } else {
        Vec::new()
    };
    let runs: Vec<_> = guests.iter().chain(&more).collect();
    let image = machine.image("outside", Some(&ramdisk(&runs)?))?;
    let path = place.join(if cut { "vmx" } else { "svm" });
    let server = Server::at(&path)?;
    let mut machine = boot(machine, &image)?;
    let named = machine.named().to_owned();
    let args = OutsideArgs {
        vsock: Some(path.display().to_string()),
        net: tap.map(|tap| tap.option()),
    };
    let line = machine.take_line().expect("it has one");
    let mut relay = Relay::start(relay, line, &args)?;
    let (console, lines) = talk::Lines::new();
    let (mut statuses, mut told) = (Vec::new(), Vec::new());
    let (mut talk, status) = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut talk = Talk::default();
            for line in lines {
                match talk::port_of(&line) {
                    Some(5001) => {
                        // It writes as long as somebody is there.
                        let mut stream = talk::connect(&path, 5001)?;
                        stream.read_exact(&mut [0; 100])?;
                        relay.kill();
                    }
                    _ => talk.answers.extend(answers(&line, &path, tap)?),
                }
                talk.said += &line;
                talk.said.push('\n');
            }
            io::Result::Ok(talk)
        });
        let status = machine.run(Some(LIMIT), Input::Nothing, console, |line| match End::parse(line) {
            Some(end) => statuses.push(end.status),
            None => told.push(line.to_owned()),
        });
        (client.join().expect("it does not panic"), status)
    });
    let status = status.inspect_err(|_| eprintln!("  {named} was told {told:?}, and talked: {talk:?}"))?;
    eprintln!("  {} guests with sockets and networks in {named}", runs.len());
    let talk = talk
        .as_mut()
        .map_err(|error| Error::Found(format!("a client of a guest in {named}: {error}; told were {told:?}")))?;
    talk.answers.push(server.heard());
    let mut found = Vec::new();
    let last = if cut {
        // What the others say, and what follows when the line is cut.
        let at = talk
            .said
            .find("sockets: waiting at port 5001\n")
            .unwrap_or(talk.said.len());
        timeless(&talk.said.split_off(at))
    } else {
        String::new()
    };
    if talk != expected {
        found.push(format!(
            "guests with sockets and networks in {named}: {talk:?}\nunder KVM: {expected:?}"
        ));
    }
    let mut ends = vec![0; runs.len()];
    let code = if cut { FAILED } else { 0 };
    if let Some(last) = ends.last_mut() {
        *last = code;
    }
    let refused = told.iter().any(|line| line.contains(SILENT));
    let went_on = last.contains(RESET) && last.contains("Hello from ring 3");
    if (status, &statuses, refused, went_on) != (code, &ends, cut, cut) {
        found.push(format!(
            "{named} ends with {status}, its guests with {statuses:?}, not {ends:?}: {last:?}, {told:?}"
        ));
    }
    Ok(found)
}

/// A guest that serves web pages to this machine. Returns what is wrong.
fn network(relay: &Path, tap: &Tap) -> Result<Option<String>> {
    let emulated = Emulated::Qemu(Processor::Svm);
    let image = emulated.image("network", Some(&ramdisk(&[&Guest::new(&["httpd"], &[LINE])])?))?;
    let mut machine = boot(emulated, &image)?;
    let args = OutsideArgs {
        vsock: None,
        net: Some(tap.option()),
    };
    let line = machine.take_line().expect("it has one");
    let _relay = Relay::start(relay, line, &args)?;
    let stop = machine.stopper()?;
    let (console, lines) = talk::Lines::new();
    let address = &tap.address(2);
    let mut told = Vec::new();
    let (answer, _) = thread::scope(|scope| {
        let client = scope.spawn(move || {
            // It says where it is, when it is there.
            let there = lines.iter().any(|line| line == format!("http://{address}:80/"));
            let answer = if there { get(address) } else { Ok(String::new()) };
            stop();
            answer
        });
        // A web server does not end by itself.
        let status = machine.run(Some(LIMIT), Input::Nothing, console, |line| told.push(line.to_owned()));
        (client.join().expect("it does not panic"), status)
    });
    eprintln!("  httpd answers by the line");
    let page = paths::root().join("guest/apps/httpd/src/files/index.html");
    let page = fs::read_to_string(&page).map_err(Error::file("read", &page))?;
    let right = answer
        .as_ref()
        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&format!("\r\n\r\n{page}")));
    Ok((!right).then(|| format!("httpd on bare metal answers {answer:?}; told are {told:?}")))
}

/// What the other end of the line refuses, before it is one. Returns what is wrong.
fn refused(relay: &Path, place: &Path) -> Result<Vec<String>> {
    let nowhere = place.join("no-folder/socket").display().to_string();
    let mut found = Vec::new();
    for (arguments, sentence) in [
        (["--vsock", &nowhere], "cannot make the socket "),
        (
            ["--net", "tap=chiton-none"],
            "the TAP device chiton-none does not exist: make it with ",
        ),
    ] {
        let output = Command::new(relay).args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|source| Error::Start {
            program: relay.display().to_string(),
            source,
        })?;
        let words = String::from_utf8_lossy(&output.stderr);
        eprint!("  refused: {words}");
        if output.status.code() != Some(125) || !words.starts_with(&format!("chiton-relay: {sentence}")) {
            found.push(format!("chiton-relay {arguments:?}: {}, {words:?}", output.status));
        }
    }
    Ok(found)
}

fn boot(machine: Emulated, image: &Path) -> Result<Machine> {
    let hardware = Hardware {
        line: true,
        ..Hardware::default()
    };
    machine.boot_with(image, hardware)
}

/// A ramdisk for these guests.
fn ramdisk(guests: &[&Guest]) -> Result<Vec<u8>> {
    let (mut files, mut lines) = (Vec::<(String, Vec<u8>)>::new(), Vec::new());
    for Guest { words, lines: own, .. } in guests {
        let path = paths::guests().join(&words[0]);
        let name = format!("guests/{}", words[0]);
        if files.iter().all(|(file, _)| *file != name) {
            files.push((name, fs::read(&path).map_err(Error::file("read", &path))?));
        }
        lines.push(format!("guest={}", words[0]));
        lines.extend(own.iter().map(|&line| line.to_owned()));
        lines.extend(words[1..].iter().map(|word| format!("arg={word}")));
        lines.push(String::new());
    }
    bare::ramdisk_with(&files, Some(&lines))
}

/// Calls the functions of `rpc`: what they answer.
fn call(path: &Path, port: u32) -> io::Result<Vec<Vec<u8>>> {
    let mut stream = talk::connect(path, port)?;
    let numbers: Vec<u8> = [1_u64, 2, u64::MAX].into_iter().flat_map(u64::to_le_bytes).collect();
    // Longer than what one call on the line carries, with every byte in it.
    let bytes: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
    let calls = [(1, &numbers), (2, &bytes), (3, &bytes), (4, &Vec::new())];
    calls
        .into_iter()
        .map(|(function, argument)| talk::call(&mut stream, function, argument))
        .collect()
}

/// What answers a guest: it says what it hears, back to front.
struct Server {
    thread: thread::JoinHandle<io::Result<Vec<u8>>>,
    /// Somebody has come.
    is_called: Arc<AtomicBool>,
}

impl Server {
    /// At the port of the host that goes with this socket.
    fn at(path: &Path) -> Result<Self> {
        let path = PathBuf::from(format!("{}_{SERVED}", path.display()));
        let listener = UnixListener::bind(&path).map_err(Error::file("listen at", &path))?;
        let is_called = Arc::new(AtomicBool::new(false));
        let called = Arc::clone(&is_called);
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            called.store(true, Ordering::SeqCst);
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            stream.write_all(&heard.iter().rev().copied().collect::<Vec<_>>())?;
            stream.shutdown(Shutdown::Both)?;
            Ok(heard)
        });
        Ok(Self { thread, is_called })
    }

    /// What it heard; nothing if nobody was there.
    fn heard(self) -> Vec<u8> {
        if self.is_called.load(Ordering::SeqCst) {
            // The guest that it talks with has ended, so that it is about to.
            self.thread.join().ok().and_then(io::Result::ok).unwrap_or_default()
        } else {
            Vec::new()
        }
    }
}

/// A page of a web server.
fn get(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A TAP device with an address; it is gone with this value.
struct Tap {
    name: String,
    ip: PathBuf,
    subnet: u8,
}

impl Tap {
    fn new() -> Result<Self> {
        let number = std::process::id() % 200;
        let tap = Self {
            name: format!("chbare{number}"),
            ip: tools::debian("ip", "iproute2")?,
            subnet: number as u8,
        };
        tap.ip(&["tuntap", "add", &tap.name, "mode", "tap"])?;
        tap.ip(&["address", "add", &format!("{}/24", tap.address(1)), "dev", &tap.name])?;
        tap.ip(&["link", "set", &tap.name, "up"])?;
        Ok(tap)
    }

    /// What stands behind `--net`.
    fn option(&self) -> String {
        format!("tap={},ip={}/24", self.name, self.address(2))
    }

    fn address(&self, host: u8) -> String {
        format!("10.213.{}.{host}", self.subnet)
    }

    fn ip(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.ip);
        command::openly(command.args(words)).map(drop)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // If this fails, somebody has removed it.
        let _ = self.ip(&["link", "delete", &self.name]);
    }
}
