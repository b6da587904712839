//! A machine that an emulator runs: two streams, of which one says how it ended.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// What the hypervisor's last line begins with; the status follows.
const END: &str = "chiton: end status=";

/// How the hypervisor says that a machine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The status.
    pub(crate) status: i32,
    /// How many ticks of the time-stamp counter it took, from the hypervisor's first word.
    pub(crate) ticks: u64,
    /// The same from its first guest's; 0 if there was none.
    pub(crate) guest_ticks: u64,
}

impl Ended {
    /// Of what follows [`END`].
    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split_whitespace();
        Some(Self {
            status: words.next()?.parse().ok()?,
            ticks: words.next()?.strip_prefix("ticks=")?.parse().ok()?,
            guest_ticks: words.next()?.strip_prefix("guest=")?.parse().ok()?,
        })
    }
}
/// What its first line begins with; before it the emulator speaks of itself.
const BEGIN: &str = "chiton: ";
/// What a line of Bochs' debugger begins with: it tells where each triple fault was, of a guest too.
const DEBUGGER: &str = "(0).[";
/// Of the kernel's console: ends the input (Control-D).
const END_OF_INPUT: u8 = 4;
/// Of the kernel's console: the next byte is input, whatever it is (Control-V).
const LITERAL: u8 = 0x16;
/// How many of its last lines are told of a machine that went wrong.
const LAST_LINES: usize = 5;
/// How long the emulator may take to end after that line.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What is typed on the machine's serial line, once the hypervisor is there.
pub(crate) enum Input {
    /// Nothing.
    Nothing,
    /// These bytes, as they are.
    Bytes(Vec<u8>),
    /// Standard input, as the input of one guest.
    Standard,
}

impl Input {
    /// The bytes by which these become the whole input of one guest.
    pub(crate) fn whole(bytes: &[u8]) -> Vec<u8> {
        let mut typed = literal(bytes);
        typed.push(END_OF_INPUT);
        typed
    }

    /// Types it.
    fn feed(self, mut line: impl Write + Send + 'static) {
        match self {
            Self::Nothing => {}
            Self::Bytes(bytes) => drop(thread::spawn(move || line.write_all(&bytes))),
            // Nobody waits for this thread, as nobody knows when a terminal says the next word.
            Self::Standard => drop(thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(len @ 1..) = io::stdin().read(&mut bytes) {
                    line.write_all(&literal(&bytes[..len]))?;
                    line.flush()?;
                }
                line.write_all(&[END_OF_INPUT])
            })),
        }
    }
}

/// Input, in which no byte means anything but itself.
fn literal(bytes: &[u8]) -> Vec<u8> {
    let mut typed = Vec::with_capacity(bytes.len() + 1);
    for byte in bytes {
        if matches!(*byte, END_OF_INPUT | LITERAL) {
            typed.push(LITERAL);
        }
        typed.push(*byte);
    }
    typed
}

/// A machine that has been started; it dies with this value.
pub(crate) struct Machine {
    /// The emulator first, then what it needs to run.
    pub(super) children: Vec<Child>,
    /// COM1, as the machine writes it.
    pub(super) console: Box<dyn Read + Send>,
    /// COM1, as the machine reads it.
    pub(super) line: Box<dyn Write + Send>,
    /// The other end of COM2, if it has one.
    pub(super) far: Option<TcpStream>,
    /// Port 0xE9, among words of the emulator.
    pub(super) words: Box<dyn Read + Send>,
    /// The emulator's log.
    pub(super) log: PathBuf,
    /// What it is, in words.
    pub(super) named: String,
}

impl Machine {
    /// Where the emulator's log is.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The other end of COM2, if it has one, for a relay to be there.
    pub(crate) const fn take_line(&mut self) -> Option<TcpStream> {
        self.far.take()
    }

    /// What kills it while it [runs](Self::run).
    ///
    /// # Errors
    ///
    /// If the kernel has no handle for its process.
    pub(crate) fn stopper(&self) -> Result<impl FnOnce() + Send + use<>> {
        let pid = self.children.first().map(rustix::process::Pid::from_child);
        let pid = pid.ok_or_else(|| self.failed("no emulator runs"))?;
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        let process = process.map_err(|_| self.failed("the emulator has no handle"))?;
        // One that has ended already is not to be stopped any more.
        Ok(move || {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        })
    }

    /// What it is, in words.
    pub(crate) fn named(&self) -> &str {
        &self.named
    }

    /// Runs it to its end: `input` is typed, the guest's console goes to `console`, each line of the
    /// hypervisor's own to `word`. Returns the status that the hypervisor says.
    ///
    /// # Errors
    ///
    /// If it ends without a status, or `limit` is over before it does.
    pub(crate) fn run(
        self,
        limit: Option<Duration>,
        input: Input,
        console: impl Write + Send,
        word: impl FnMut(&str),
    ) -> Result<i32> {
        Ok(self.run_to_end(limit, input, console, word)?.status)
    }

    /// The same; returns all that the hypervisor says of its end.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) fn run_to_end(
        mut self,
        limit: Option<Duration>,
        input: Input,
        console: impl Write + Send,
        mut word: impl FnMut(&str),
    ) -> Result<Ended> {
        let from = std::mem::replace(&mut self.console, Box::new(io::empty()));
        let words = std::mem::replace(&mut self.words, Box::new(io::empty()));
        let mut input = Some((input, std::mem::replace(&mut self.line, Box::new(io::sink()))));
        let pid = self.children.first().map(rustix::process::Pid::from_child);
        let (done, watch) = mpsc::channel::<()>();
        let started = Instant::now();
        let (mut begun, mut ended) = (false, None);
        let mut last = VecDeque::new();
        thread::scope(|scope| {
            scope.spawn(move || relay(from, console));
            if let (Some(limit), Some(pid)) = (limit, pid) {
                scope.spawn(move || {
                    if watch.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                        // Nobody has waited for it yet, so that the number is still its own.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                });
            }
            for line in BufReader::new(words).split(b'\n').map_while(io::Result::ok) {
                let line = String::from_utf8_lossy(&line);
                // The debugger of Bochs leaves its prompt before the first word.
                let line = if begun {
                    &line
                } else {
                    line.find(BEGIN).map_or("", |at| &line[at..])
                };
                begun |= !line.is_empty();
                // Before its first word nobody has set up the line.
                if begun && let Some((input, line)) = input.take() {
                    input.feed(line);
                }
                if line.starts_with(DEBUGGER) {
                    continue;
                }
                if let Some(code) = line.strip_prefix(END) {
                    ended = Ended::parse(code);
                    break;
                }
                if begun {
                    last.push_back(line.to_owned());
                    last.drain(..last.len().saturating_sub(LAST_LINES));
                    word(line);
                }
            }
            drop(done);
            self.end();
        });
        let late = limit.is_some_and(|limit| started.elapsed() >= limit);
        ended.ok_or_else(|| {
            let what = if late {
                "time is up: the machine was killed"
            } else {
                "the machine ended without saying how"
            };
            let last = last.make_contiguous().join("\n  ");
            self.failed(&format!("{what}; the hypervisor's last words:\n  {last}"))
        })
    }

    /// Lets the emulator end, which completes the console, and kills one that does not.
    fn end(&mut self) {
        let Some(emulator) = self.children.first_mut() else {
            return;
        };
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until && matches!(emulator.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        drop(emulator.kill());
        drop(emulator.wait());
    }

    /// The error for a machine that went wrong, with the end of what its emulator said.
    pub(super) fn failed(&self, what: &str) -> Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = text.lines().collect();
        Error::Machine {
            what: what.into(),
            log: self.log.clone(),
            tail: lines[lines.len().saturating_sub(15)..].join("\n"),
        }
    }
}

/// A serial port's other end, before the emulator has connected to it.
pub(super) fn listen() -> Result<(TcpListener, u16)> {
    let here = Path::new("127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::file("listen on", here))?;
    let port = listener.local_addr().map_err(Error::file("listen on", here))?.port();
    Ok((listener, port))
}

impl Machine {
    /// A serial port, as soon as the emulator has it.
    pub(super) fn accept(&mut self, listener: &TcpListener) -> Result<TcpStream> {
        let failed = |machine: &Self| machine.failed("the emulator did not start");
        listener.set_nonblocking(true).map_err(|_| failed(self))?;
        loop {
            match listener.accept() {
                Ok((stream, _)) if !is_of_this_user(&stream) => {}
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(|_| failed(self))?;
                    // What is sent is one answer, and the machine waits for it.
                    stream.set_nodelay(true).map_err(|_| failed(self))?;
                    return Ok(stream);
                }
                Err(_) if !matches!(self.children[0].try_wait(), Ok(None)) => return Err(failed(self)),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// Whether the process at the other end of a connection within this machine is one of this user: others may connect to
/// where an emulator is waited for, too.
fn is_of_this_user(stream: &TcpStream) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    stream
        .peer_addr()
        .is_ok_and(|there| is_of_user(&table, there.port(), user))
}

/// Whether the kernel's table of connections has that port of this machine as this user's.
fn is_of_user(table: &str, port: u16, user: u32) -> bool {
    let (there, user) = (format!("0100007F:{port:04X}"), user.to_string());
    // Its columns: number, local and other address, state, two of queues and timers, retransmissions, user.
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(&there) && columns.nth(5) == Some(&user)
    })
}

/// Copies at once what comes, until either end is gone.
fn relay(mut from: impl Read, mut to: impl Write) {
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..len]).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_connection_is_stands_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n";
        assert!(is_of_user(table, 40000, 1000));
        assert!(!is_of_user(table, 40000, 0));
        assert!(!is_of_user(table, 8080, 1000));
        let (listener, port) = listen().unwrap();
        let _here = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert!(is_of_this_user(&listener.accept().unwrap().0));
    }

    #[test]
    fn an_end_has_a_status_and_ticks() {
        let ended = Ended::parse("102 ticks=7 guest=5").unwrap();
        assert_eq!((ended.status, ended.ticks, ended.guest_ticks), (102, 7, 5));
        assert_eq!(Ended::parse("102"), None);
    }

    #[test]
    fn any_byte_can_be_typed() {
        assert_eq!(literal(b"a\x04\x16b\x16"), b"a\x16\x04\x16\x16b\x16\x16");
        assert_eq!(Input::whole(b"hi\n"), b"hi\n\x04");
    }
}
