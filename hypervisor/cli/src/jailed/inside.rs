//! The guest in its jail: what is opened before, and what is done in the jail's process.

use std::convert::Infallible;
use std::error::Error;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chiton_container::jail::seccomp::{self, Filter, Thread};
use chiton_container::network::Attached;
use chiton_kvm::platform::{REQUESTS, Role};
use chiton_kvm::{Connector, Console, Folder, Guest, NamelessControl, Net, SocketFile};

use super::names::Names;
use super::source::Opened;
use crate::options::RunOptions;
use crate::run::{self, Devices};

/// Everything a guest needs of the host, open.
pub(super) struct Inside<'a> {
    options: &'a RunOptions,
    opened: &'a Opened,
    devices: Devices,
    names: &'a Names,
    verbose: u8,
    began: Instant,
}

impl<'a> Inside<'a> {
    pub(super) fn open(
        options: &'a RunOptions,
        opened: &'a Opened,
        network: Option<&Attached>,
        names: &'a Names,
        control: Option<&NamelessControl>,
        verbose: u8,
        began: Instant,
    ) -> Result<Self, Box<dyn Error>> {
        let mut devices = Devices::open(options)?;
        if let Some(control) = control {
            devices.control = Some(control.for_guest()?);
        }
        if let Some(attached) = network
            && let Some(tap) = &attached.tap
        {
            let name = &tap.name;
            let net = match &attached.namespace {
                _ if !tap.open.is_empty() => {
                    let open = tap.open.iter().map(super::dup).collect::<Result<_, _>>()?;
                    Net::from_descriptors(name, open)
                }
                Some(namespace) => namespace.enter(|| Ok(Net::tap(name)))?,
                None => Net::tap(name),
            };
            // In a namespace that others live in, the TAP device has to go with the guest.
            let net = net?
                .transient()?
                .dns(&names.servers)
                .mac(attached.mac)?
                .ip(attached.address.into(), attached.subnet.bits())
                .gateway(attached.gateway.into());
            devices.nets.push(net);
        }
        Ok(Self {
            options,
            opened,
            devices,
            names,
            verbose,
            began,
        })
    }

    /// The files of its sockets: those who run it cannot reach them.
    pub(super) fn take_files(&mut self) -> Vec<SocketFile> {
        self.devices.take_files()
    }

    /// Who makes the connections to the host that the guest asks for: from a jail no path leads there.
    pub(super) fn take_connector(&mut self) -> std::io::Result<Option<Connector>> {
        self.devices.take_connector()
    }

    /// The system calls that running a machine takes.
    pub(super) fn filter(&self) -> Filter {
        let requests: Vec<_> = REQUESTS.iter().map(|(_, request)| *request).collect();
        seccomp::vmm(&requests)
    }

    /// Runs in the jail, and ends the process with the guest's status. Comes back with 125 if there is none.
    pub(super) fn run(self, streams: [RawFd; 3]) -> i32 {
        let Err(error) = self.try_run(streams);
        crate::report(error.as_ref(), 0);
        crate::FAILED.into()
    }

    fn try_run(self, streams: [RawFd; 3]) -> Result<Infallible, Box<dyn Error>> {
        take_streams(streams)?;
        let (mut guest, name) = match self.opened {
            Opened::Bytes { name, bytes, args } => {
                let guest = Guest::new(name, bytes.clone());
                let guest = args.iter().fold(guest, |guest, arg| guest.arg(arg));
                (guest, name.clone())
            }
            Opened::Snapshot(snapshot) => {
                let guest = Guest::from_snapshot(Arc::clone(snapshot));
                let name = guest.name().to_owned();
                (guest, name)
            }
            Opened::Image { command, env, .. } => {
                let (program, args) = command.split_first().ok_or("the image has no command")?;
                let mut guest = Guest::open(Path::new("/").join(program))?;
                guest = guest.folder(Folder::open("/", !self.options.jail.read_only)?);
                guest = env.iter().fold(guest, |guest, variable| guest.env(variable));
                let guest = args.iter().fold(guest, |guest, arg| guest.arg(arg));
                (guest, program.clone())
            }
        };
        for folder in &self.options.folder {
            guest = guest.folder(Folder::open(folder.in_jail(), folder.writable)?);
        }
        for volume in &self.options.jail.volume {
            guest = guest.folder(Folder::open(&volume.guest, !volume.read_only)?);
        }
        let guest = self.names.show(guest)?;
        let guest = run::build(guest, self.options, self.devices, &name, self.verbose, self.began);
        let guest = guest.begin_thread(narrow).console(Console::stdio()?);
        // The kernel takes the machine down with the process, quicker than step by step.
        guest
            .run_then(|outcome| -> Infallible {
                run::report(&name, &outcome, self.options.exits, self.verbose);
                std::process::exit(outcome.ending.status().into())
            })
            .map_err(Into::into)
    }
}

/// Takes from a thread of the machine what only the others need.
fn narrow(role: Role) -> std::io::Result<()> {
    let thread = match role {
        Role::Processor => Thread::Processor,
        Role::Devices => Thread::Devices,
        Role::Io => Thread::Io,
    };
    let of_others = REQUESTS.iter().filter(|(who, _)| who & role as u8 == 0);
    let requests: Vec<_> = of_others.map(|(_, request)| *request).collect();
    seccomp::narrow(thread, &requests).map_err(std::io::Error::other)
}

/// Makes these this process's standard input, output and error.
pub(super) fn take_streams(streams: [RawFd; 3]) -> std::io::Result<()> {
    let [input, output, errors] = streams.map(|fd| {
        // SAFETY: the caller's descriptors are open, and are not closed here.
        unsafe { BorrowedFd::borrow_raw(fd) }
    });
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(output)?;
    Ok(nix::unistd::dup2_stderr(errors)?)
}
