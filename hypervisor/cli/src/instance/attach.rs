//! `chiton attach`: the console of an instance that runs.
//!
//! Lines are edited by the terminal, as always. It gives what was typed at once with the last of the keys that let go,
//! as if that ended a line (`VEOL` of termios(3)).

mod keys;

use std::error::Error;
use std::io::{Read, Write, stdin, stdout};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use chiton_container::instance::{Instance, Outputs};
use chiton_kvm::control::protocol::{ConsoleSize, Request, Settings};
use clap::Args;
use keys::{Finder, Keys};
use nix::sys::signal::{SigSet, Signal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::{complain, control};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only look: neither what is typed nor signals go to the instance.
    #[arg(long)]
    no_stdin: bool,

    /// Whether SIGINT (Ctrl-C), SIGTERM and SIGQUIT go to the instance, and do not end this command.
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,

    /// The keys that let go of the instance, one after the other: each a character, DEL, or ctrl- and one of a to z,
    /// [, \\, ], ^ and _.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,

    /// The instance: a name, an ID, or the beginning of one.
    #[arg(value_name = "INSTANCE")]
    target: String,
}

/// The status is the instance's own.
pub(super) fn run(options: &Options) -> Result<u8, Box<dyn Error>> {
    let instance = super::open()?.find(&options.target)?;
    let status = instance.status()?;
    if !status.is_live() {
        return Err(instance
            .wrong(status, "start it first, or see what it wrote with `chiton logs`")
            .into());
    }
    let mut stream = Outputs::attach(&instance)?;
    let terminal = Terminal::default();
    if !options.no_stdin {
        let its_size = terminal.take(&options.detach_keys);
        pass_signals(&instance, options.sig_proxy, its_size, &terminal)?;
        let (stream, terminal, name) = (stream.try_clone()?, terminal.clone(), instance.name().to_string());
        let finder = Finder::new(&options.detach_keys);
        // It ends with the process: nobody waits for a terminal.
        thread::spawn(move || feed(&stream, &terminal, finder, &name));
    }
    let copied = copy(&mut stream);
    terminal.give_back();
    copied?;
    instance.wait()?;
    Ok(super::wait::status_of(&instance)?.unwrap_or(0))
}

fn copy(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut piece = [0; 16 << 10];
    loop {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        stdout().write_all(&piece[..len])?;
        stdout().flush()?;
    }
}

/// How the terminal was, if standard input is one, until it is so again.
#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<Option<Termios>>>);

impl Terminal {
    /// Has it give the keys; whether it is one.
    fn take(&self, keys: &Keys) -> bool {
        let Ok(old) = tcgetattr(stdin()) else { return false };
        let mut new = old.clone();
        keys.free(&mut new);
        if tcsetattr(stdin(), OptionalActions::Now, &new).is_ok() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(old);
        }
        true
    }

    fn give_back(&self) {
        if let Some(old) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // There may be no terminal any more.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &old);
        }
    }
}

/// Passes signals on, or gives the terminal back before one ends this process; and tells the instance how large the
/// terminal is, if there is one, and whenever that changes.
fn pass_signals(instance: &Instance, all: bool, has_terminal: bool, terminal: &Terminal) -> Result<(), Box<dyn Error>> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        signals.add(signal);
    }
    if has_terminal {
        signals.add(Signal::SIGWINCH);
    }
    // Threads that are made later have them blocked, too.
    signals.thread_block()?;
    // Whoever sees this may send one.
    if has_terminal {
        tell_size(instance);
    }
    let (instance, terminal) = (instance.clone(), terminal.clone());
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            match signal {
                Signal::SIGWINCH => tell_size(&instance),
                // If it has ended there will be no more output, which ends this.
                signal if all => drop(super::kill::signal(&instance, signal)),
                signal => {
                    terminal.give_back();
                    std::process::exit(128 + signal as i32);
                }
            }
        }
    });
    Ok(())
}

/// A guest may ask how large its console is. Of a process nobody can tell.
fn tell_size(instance: &Instance) {
    let (Ok(size), Ok(Some(socket))) = (tcgetwinsize(stdin()), super::control(instance)) else {
        return;
    };
    let console = ConsoleSize {
        columns: size.ws_col,
        rows: size.ws_row,
    };
    let settings = Settings {
        console: Some(console),
        ..Settings::default()
    };
    // One that has no console, or has just ended, need not know.
    let _ = control::ask(socket.as_ref(), &Request::Set(settings));
}

/// Passes on what is typed, up to the keys that let go.
fn feed(mut stream: &UnixStream, terminal: &Terminal, mut finder: Finder, name: &str) {
    let has_terminal = tcgetattr(stdin()).is_ok();
    let mut piece = [0; 4096];
    // Where this fails there is nobody left to tell.
    while let Ok(len @ 1..) = stdin().lock().read(&mut piece) {
        let (bytes, ends) = match has_terminal {
            true => finder.sift(&piece[..len]),
            false => (piece[..len].to_vec(), false),
        };
        let sent = stream.write_all(&bytes);
        if ends {
            terminal.give_back();
            complain(&format!(
                "\nchiton: {name} goes on; `chiton attach {name}` comes back to it"
            ));
            std::process::exit(0);
        }
        if sent.is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}
