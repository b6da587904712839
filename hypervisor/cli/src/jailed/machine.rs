//! What a supervisor starts: a jail with a guest in it, and everything the jail needs.

use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use chiton_container::cgroup::{Cgroup, Error as CgroupError, OomWatch};
use chiton_container::instance::{Child, Exit, Instance, Killer, Payload, SocketPath};
use chiton_container::jail::seccomp::Refused;
use chiton_container::jail::{
    CgroupPlacement, Clocks, Dev, IdMap, Init, Jail, Jailed, Kind, Lease, Proc, Program, Ranges, Root,
    Source as Namespace, Sys, with_usual,
};
use chiton_container::network::{self, Attached, Bridge, Helper, Place, UserNetwork};
use chiton_kvm::{Connector, NamelessControl, Net, SocketFile};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use super::descriptors::Descriptors;
use super::inside::Inside;
use super::joined::{self, Joined, open_namespace};
use super::names::{AddedHost, Names};
use super::options::{Clock, Network, Whose, scratch};
use super::source::{Opened, Source};
use super::{parts, report};
use crate::complain;
use crate::options::RunOptions;
use crate::phases;

/// The socket in an instance's folder by which its guest is controlled.
pub(crate) const CONTROL: &str = "control";

/// The limit of memory is less than it takes to begin.
#[derive(Debug, thiserror::Error)]
#[error("{0}, before it had begun: give it more with --memory-max")]
struct TooLittle(String);

/// What is made anew for each start, and taken down after it.
#[derive(Default)]
struct Made {
    cgroup: Option<Cgroup>,
    oom: Option<OomWatch>,
    bridge: Option<Bridge>,
    /// What passes on the packets of an ordinary user's instance.
    helper: Option<Helper>,
    ids: Option<Lease>,
    opened: Option<Opened>,
    /// The first process of the jail.
    pid: i32,
    /// Files of sockets, and what the path of the last leads through.
    sockets: Option<(Vec<SocketFile>, SocketPath)>,
    /// Connects the guest to sockets of the host.
    connector: Option<Connector>,
    /// An ordinary user's guest: its address in the network of another.
    place: Option<Place>,
    /// An ordinary user's: the instance's own namespaces, which others enter by these descriptors.
    namespaces: Vec<OwnedFd>,
}

/// A guest, or a process, that is to run in a jail.
pub(super) struct Machine {
    options: RunOptions,
    source: Source,
    verbose: u8,
    began: Instant,
    /// Whether it has run before: what was asked for may have changed since.
    started: bool,
    /// Whether the instance can be found already.
    pub(super) is_registered: bool,
    made: Made,
}

impl Machine {
    pub(super) fn new(
        instance: &Instance,
        mut options: RunOptions,
        found: Option<Source>,
        verbose: u8,
        began: Instant,
    ) -> Result<Self, Box<dyn Error>> {
        for folder in &mut options.folder {
            folder.whole()?;
        }
        let digest = instance.spec().image_digest.as_deref();
        let source = match found {
            Some(source) => source,
            None => Source::of(&options, digest)?,
        };
        source.check_jail(&options)?;
        Ok(Self {
            options,
            source,
            verbose,
            began,
            started: false,
            is_registered: true,
            made: Made::default(),
        })
    }

    /// Whether it ended because there was nothing that could be run.
    pub(super) fn was_refused(&self, exit: &Exit) -> bool {
        exit.code == i32::from(crate::FAILED) && self.source.check(&self.options).is_err()
    }

    /// Says what a user wants to know of the end, and the status does not tell.
    pub(super) fn tell(&self, exit: &Exit) {
        match &exit.killer {
            Some(Killer::OutOfMemory(how)) => complain(&format!("chiton: {}: {how}", self.source.name())),
            Some(Killer::Filter(how)) => complain(&format!(
                "chiton: {} was killed (SIGSYS): {how}, which the filter of its jail does not allow: nothing that it \
                 does in good faith takes that call, so look at what runs there, or report a call that is missing",
                self.source.name()
            )),
            Some(Killer::Signal(libc::SIGSYS)) => complain(&format!(
                "chiton: {} was killed by SIGSYS: by somebody, or for a system call that the filter of its jail does \
                 not allow; then the audit log of the host has its number",
                self.source.name()
            )),
            Some(Killer::Signal(signal)) => {
                complain(&format!("chiton: {} was killed by signal {signal}", self.source.name()));
            }
            Some(Killer::Unknown) | None => {}
        }
    }

    /// Limits and accounts, of which some are made while the jail is. Who is not root has a cgroup only where one is
    /// delegated.
    fn begin_cgroup(&mut self, instance: &Instance) -> Result<(), Box<dyn Error>> {
        let limits = self.options.jail.limits.limits();
        let wanted = limits != Default::default() || rustix::process::geteuid().is_root();
        // Without one that is wanted there is no jail, and that can be told when there is a part of it.
        let make = if wanted { Cgroup::begin } else { Cgroup::create };
        let made = parts::cgroups().and_then(|parent| Ok(make(&parent, instance.id().short(), &limits)?));
        match made {
            Ok(cgroup) => {
                self.made.cgroup = Some(cgroup);
                Ok(())
            }
            Err(error) if wanted => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Looks out for want of memory, which only a cgroup without limits and accounts of memory does not do. The cgroup is
    /// new: what happened in it before is seen, too.
    fn watch_memory(&mut self) -> Result<(), CgroupError> {
        let watch = self.made.cgroup.as_ref().map(Cgroup::oom_watch).transpose();
        self.made.oom = match watch {
            Err(CgroupError::NoController { .. }) => None,
            watch => watch?,
        };
        Ok(())
    }

    /// Whether the kernel killed something of it for want of memory, and all that is known of that.
    fn out_of_memory(&mut self) -> Option<Killer> {
        match self.made.oom.as_mut()?.verdict() {
            Ok(kill) => Some(Killer::OutOfMemory(kill?.to_string())),
            Err(error) => {
                complain(&format!(
                    "chiton: cannot tell whether {} was killed for want of memory: {error}",
                    self.source.name()
                ));
                None
            }
        }
    }

    /// Where the jail's process is born.
    fn placement(&self) -> Result<CgroupPlacement, Box<dyn Error>> {
        let unified = self.made.cgroup.as_ref().and_then(Cgroup::fd);
        Ok(match unified {
            Some(unified) => CgroupPlacement::Unified(unified.try_clone_to_owned()?),
            None => CgroupPlacement::Caller,
        })
    }

    /// Has the guest's control socket be found in the instance's folder.
    fn name_control(
        &mut self,
        instance: &Instance,
        control: Option<NamelessControl>,
        mut files: Vec<SocketFile>,
    ) -> Result<(), Box<dyn Error>> {
        let place = instance.socket(CONTROL)?;
        // Whoever listened there is dead: this process is the supervisor.
        let _ = fs::remove_file(place.as_ref());
        if let Some(path) = &self.options.control {
            symlink(std::path::absolute(path)?, place.as_ref())?;
        }
        if let Some(control) = control {
            files.push(control.listen(place.as_ref())?);
        }
        self.made.sockets = Some((files, place));
        Ok(())
    }

    /// Has the instance be found.
    fn register(&mut self, instance: &Instance) -> Result<(), Box<dyn Error>> {
        if !std::mem::replace(&mut self.is_registered, true) {
            instance.register()?;
        }
        Ok(())
    }

    /// A range of ids that nobody else has.
    fn lease(&mut self) -> Result<IdMap, Box<dyn Error>> {
        let lease = parts::ranges()?.lease()?;
        let map = lease.map();
        self.made.ids = Some(lease);
        Ok(map)
    }

    /// Makes what the jail has to have when its process goes on, and not before: the rest of its cgroup, its ids, and the
    /// folders of its root.
    fn complete(&mut self, jail: &mut Jail) -> Result<(), Box<dyn Error>> {
        if let Some(cgroup) = &mut self.made.cgroup {
            cgroup.complete(&self.options.jail.limits.limits())?;
            jail.cgroup = CgroupPlacement::PerController {
                unified: cgroup.fd().map(|fd| fd.try_clone_to_owned()).transpose()?,
                tasks: cgroup.door_after_clone()?.into(),
            };
        }
        if rustix::process::geteuid().is_root() && self.made.ids.is_none() {
            jail.ids = self.lease()?;
        }
        if let Some(scratch) = &jail.root.scratch {
            for folder in ["upper", "work"] {
                fs::create_dir_all(scratch.join(folder))?;
            }
        }
        Ok(())
    }

    /// What it returns has to stay open until the jail has begun.
    fn namespaces(&self, jail: &mut Jail, network: Option<&Attached>) -> Result<Joined, Box<dyn Error>> {
        let mut joined = Joined::default();
        for (kind, Whose(of)) in self.options.jail.shared() {
            let source = match of {
                None => Namespace::Caller,
                Some(instance) => joined.join(instance, kind)?,
            };
            jail.namespaces.set(kind, source);
        }
        let source = match (&self.options.jail.network, network) {
            (Network::None, _) => Namespace::New,
            // Its TAP device is a descriptor: the guest's side has no need of the host's namespace.
            (Network::Host, Some(_)) => Namespace::New,
            (Network::Host, None) => Namespace::Caller,
            (Network::Of(instance), _) => joined.join(instance, Kind::Network)?,
            (Network::Bridge | Network::User, attached) => {
                match attached.and_then(|attached| attached.namespace.as_ref()) {
                    Some(namespace) => {
                        if let Some(users) = namespace.users() {
                            jail.namespaces.set(Kind::User, open_namespace(users));
                        }
                        open_namespace(namespace.as_fd())
                    }
                    None => Namespace::New,
                }
            }
        };
        jail.namespaces.set(Kind::Network, source);
        joined.enter_users(jail)?;
        Ok(joined)
    }

    fn root(&self, instance: &Instance, opened: &Opened, names: &Names) -> Result<Root, Box<dyn Error>> {
        let mut layers = opened.layers();
        let volumes = self.volumes(names);
        // Nobody writes into the root of a guest that is a file, unless places for volumes are made there.
        let bare = layers.is_empty() && volumes.is_empty();
        // Below all, for all of them: places of what the jail puts there. A place that is not there is made, which
        // takes the disk's time, and longer when it is taken away.
        let (name, places): (_, &[_]) = match (layers.is_empty(), self.options.jail.process) {
            (true, _) => ("file", &["proc", "tmp"]),
            (false, false) => ("guest", &["proc"]),
            (false, true) => ("process", &["proc", "sys", "dev"]),
        };
        let below = instance.home().path().join("roots").join(name);
        for place in places {
            fs::create_dir_all(below.join(place))?;
        }
        layers.insert(0, below);
        Ok(Root {
            layers,
            scratch: (!bare).then(|| scratch(instance.dir())),
            read_only: bare || self.options.jail.read_only,
            tmp: self.options.jail.read_only,
            volumes,
            // What nobody will read again need not be on the disk when the jail ends.
            volatile: self.options.jail.rm,
            // Who runs a machine looks up its own descriptors, and wants nothing else of the kernel's. That
            // of a bridge is another's namespace, whose /sys is not to be had.
            proc: if self.options.jail.process {
                Proc::Full
            } else {
                Proc::Processes
            },
            sys: if self.options.jail.process && !matches!(self.options.jail.network, Network::Bridge | Network::Of(_))
            {
                Sys::ReadOnly
            } else {
                Sys::Absent
            },
            dev: if self.options.jail.process {
                Dev::Usual
            } else {
                Dev::Absent
            },
        })
    }

    /// Those asked for, and the folders, which the guest's side opens where they are bound.
    fn volumes(&self, names: &Names) -> Vec<chiton_container::jail::Volume> {
        let mut volumes = names.volumes(self.options.jail.process);
        volumes.extend(self.options.jail.volume.iter().cloned());
        for folder in &self.options.folder {
            volumes.push(chiton_container::jail::Volume {
                host: folder.path.clone(),
                guest: folder.in_jail(),
                read_only: !folder.writable,
            });
        }
        volumes
    }

    /// Connects the instance.
    fn join(&mut self, instance: &Instance, ids: &IdMap) -> Result<Attached, Box<dyn Error>> {
        let options = &self.options.jail;
        let kind = match &options.network {
            _ if options.process => network::Kind::Process,
            Network::Host => network::Kind::GuestOfHost,
            Network::Of(_) if !rustix::process::geteuid().is_root() => network::Kind::Guest,
            Network::Of(other) => {
                let pid = super::process_of(other)?.unsigned_abs();
                network::Kind::GuestBeside(network::Namespace::of_process(pid)?)
            }
            _ => network::Kind::Guest,
        };
        let hosts: Vec<_> = options
            .add_host
            .iter()
            .map(|AddedHost(name, address)| (name.clone(), *address))
            .collect();
        let request = network::Request {
            address: options.ip,
            mac: options.mac,
            mtu: options.mtu,
            ports: &options.publish,
            hosts: &hosts,
            ..network::Request::new(instance.id().as_str(), instance.name().as_str(), kind)
        };
        let open_tap = |name: &str| Net::tap(name).map(Net::into_descriptors).map_err(std::io::Error::other);
        if let (Network::Of(other), network::Kind::Guest) = (&options.network, &request.kind) {
            let other = crate::instance::open()?.find(other)?;
            let (attached, place) = joined::beside(&other)?.join(instance.dir(), &request, open_tap)?;
            self.made.place = Some(place);
            return Ok(attached);
        }
        if options.network == Network::User {
            let network = UserNetwork::new(instance.dir(), parts::subnet()?);
            let (attached, helper) = network.join(ids, &request, open_tap)?;
            self.made.helper = Some(helper);
            return Ok(attached);
        }
        let bridge = parts::bridge(instance.home())?;
        // Written down before it is made, so that the sweep looks for it.
        instance.set_report(&report::begun(&options.network, bridge.name()))?;
        let attached = bridge.join(request)?;
        self.made.bridge = Some(bridge);
        Ok(attached)
    }

    /// How the instance finds names.
    fn names(&self, instance: &Instance, network: Option<&Attached>) -> Result<Names, Box<dyn Error>> {
        let options = &self.options.jail;
        Ok(match (&options.network, network) {
            (_, Some(attached)) => Names::make(instance, &attached.hosts, &options.dns)?,
            (Network::Host, None) => Names::of_host(),
            (Network::Of(other), None) => {
                let report = crate::instance::open()?.find(other)?.report()?;
                match report["network"]["hosts"].as_str() {
                    Some(hosts) => Names::make(instance, Path::new(hosts), &options.dns)?,
                    None => Names::default(),
                }
            }
            (Network::None | Network::Bridge | Network::User, None) => Names::default(),
        })
    }

    fn try_start(&mut self, instance: &Instance) -> Result<Child, Box<dyn Error>> {
        let mut network = None;
        // What is made of a network is found by the record.
        if self.options.jail.has_address() || self.options.jail.process {
            self.register(instance)?;
        }
        self.begin_cgroup(instance)?;
        phases::mark("begin cgroups");
        let ids = match rustix::process::geteuid().is_root() {
            false => IdMap::rootless(),
            // The namespace in which the network is furnished has them from its beginning.
            true if self.options.jail.network == Network::User => self.lease()?,
            true => Ranges::some_map(),
        };
        if self.options.jail.has_address() {
            network = Some(self.join(instance, &ids)?);
            phases::mark("network");
        }
        let names = self.names(instance, network.as_ref())?;
        let opened = self.source.open()?;
        phases::mark("open guest");
        let mut jail = Jail::new(self.root(instance, &opened, &names)?, ids);
        jail.hostname = self
            .options
            .jail
            .hostname
            .clone()
            .unwrap_or_else(|| instance.name().to_string());
        jail.cgroup = self.placement()?;
        let own_ids = rustix::process::geteuid().is_root();
        jail.limits = with_usual(&self.options.jail.ulimit, !self.options.jail.process, own_ids);
        for (clock, seconds) in &self.options.jail.clock {
            match clock {
                Clock::Monotonic => {
                    jail.clocks = Clocks {
                        monotonic: *seconds,
                        ..jail.clocks
                    }
                }
                Clock::Boottime => {
                    jail.clocks = Clocks {
                        boottime: *seconds,
                        ..jail.clocks
                    }
                }
            }
        }
        let _joined = self.namespaces(&mut jail, network.as_ref())?;
        jail.opens_namespaces = !rustix::process::geteuid().is_root();
        let (stdin, input) = self.input()?;
        let [(stdout, output), (stderr, errors)] = [pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?];
        let streams = [&input, &output, &errors].map(AsRawFd::as_raw_fd);
        let mut jailed = if self.options.jail.process {
            self.complete(&mut jail)?;
            self.spawn_process(&mut jail, &opened, streams)?
        } else {
            self.spawn_guest(instance, &mut jail, &opened, network.as_ref(), &names, streams)?
        };
        phases::mark("jail stands");
        let facts = report::facts(
            &jail,
            self.made.cgroup.as_ref(),
            network.as_ref(),
            self.made.bridge.as_ref(),
            &self.options,
        )?;
        self.made.opened = Some(opened);
        instance.set_report(&report::whole(facts, &jailed))?;
        self.made.pid = jailed.pid();
        self.made.namespaces = jailed.take_open_namespaces();
        Ok(Child {
            pid: jailed.pid().unsigned_abs(),
            pidfd: jailed.pidfd().try_clone_to_owned()?,
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
        })
    }

    /// Both ends of the input: what is fed into it, if it comes from those who are attached, and what is read.
    fn input(&self) -> Result<(Option<OwnedFd>, OwnedFd), Box<dyn Error>> {
        if self.options.jail.interactive && self.options.jail.detach {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            return Ok((Some(write), read));
        }
        if self.options.jail.detach {
            return Ok((None, File::open("/dev/null")?.into()));
        }
        Ok((None, super::dup(&std::io::stdin())?))
    }

    fn spawn_guest(
        &mut self,
        instance: &Instance,
        jail: &mut Jail,
        opened: &Opened,
        network: Option<&Attached>,
        names: &Names,
        streams: [RawFd; 3],
    ) -> Result<Jailed, Box<dyn Error>> {
        chiton_kvm::platform::look_ahead();
        let control = match &self.options.control {
            None => Some(NamelessControl::new()?),
            Some(_) => None,
        };
        // Written down before they are made, so that the sweep looks for them.
        if report::has_sockets(&self.options) {
            self.register(instance)?;
            report::add_sockets(instance, &self.options)?;
        }
        // What is opened for the guest is what it keeps: devices, disks, sockets.
        let before = Descriptors::now()?;
        let (options, nameless) = (&self.options, control.as_ref());
        let mut inside = Inside::open(options, opened, network, names, nameless, self.verbose, self.began)?;
        let files = inside.take_files();
        self.made.connector = inside.take_connector()?;
        phases::mark("open devices");
        let kept = streams.into_iter().chain(opened.descriptors());
        jail.keep = before.since()?.chain(kept).chain(phases::inherited()).collect();
        // The other end of that is the guest's.
        let own = self.asks().map(|fd| fd.as_raw_fd());
        jail.keep.retain(|fd| Some(*fd) != own);
        jail.phase = phases::mark;
        jail.ahead = crate::ahead::write_soon;
        jail.init = Init::Payload;
        jail.filter = Some(inside.filter());
        let mut begun = jail.begin(|| inside.run(streams))?;
        phases::mark("begin jail");
        self.complete(jail)?;
        // The guest's host looks at its socket as soon as there is one, and one that nobody listens to is broken to it.
        self.name_control(instance, control, files)?;
        phases::mark("make cgroups");
        begun.go(jail)?;
        phases::mark("map owners");
        self.register(instance)?;
        self.watch_memory()?;
        Ok(begun.stand(jail)?)
    }

    fn spawn_process(
        &mut self,
        jail: &mut Jail,
        opened: &Opened,
        streams: [RawFd; 3],
    ) -> Result<Jailed, Box<dyn Error>> {
        let Opened::Image {
            command,
            env,
            directory,
            user,
            ..
        } = opened
        else {
            return Err(super::source::SourceError::Nothing(self.source.name()).into());
        };
        let nul = |_| super::source::SourceError::NoCommand(self.source.name());
        let words = |list: &[String]| {
            list.iter()
                .map(|word| CString::new(word.as_str()))
                .collect::<Result<Vec<_>, _>>()
        };
        jail.environment = words(&[env.as_slice(), &self.options.env].concat()).map_err(nul)?;
        let program = Program::new(command).ok_or_else(|| super::source::SourceError::NoCommand(self.source.name()))?;
        let program = match directory.as_str() {
            "" => program,
            directory => program.directory(CString::new(directory).map_err(nul)?),
        };
        let image = Some(user).filter(|user| !user.is_empty());
        jail.named = self.options.jail.user.as_ref().or(image).cloned();
        jail.keep = streams.to_vec();
        self.watch_memory()?;
        // The program has the streams where programs have them; this process gets its own back.
        let own = [
            super::dup(&std::io::stdin())?,
            super::dup(&std::io::stdout())?,
            super::dup(&std::io::stderr())?,
        ];
        super::inside::take_streams(streams)?;
        let jailed = jail.spawn_program(&program);
        super::inside::take_streams([&own[0], &own[1], &own[2]].map(AsRawFd::as_raw_fd))?;
        Ok(jailed?)
    }
}

impl Payload for Machine {
    type Error = Box<dyn Error>;

    fn start(&mut self, instance: &Instance) -> Result<Child, Self::Error> {
        if std::mem::replace(&mut self.started, true) {
            super::updates::apply(instance, &mut self.options)?;
        }
        let started = self.try_start(instance);
        started.map_err(|error| match self.killer(libc::SIGKILL) {
            Killer::OutOfMemory(how) => TooLittle(how).into(),
            _ => error,
        })
    }

    fn killer(&mut self, signal: i32) -> Killer {
        if signal == libc::SIGSYS
            && let Some(refused) = Refused::find(self.made.pid.unsigned_abs())
        {
            return Killer::Filter(refused.to_string());
        }
        let out_of_memory = (signal == libc::SIGKILL).then(|| self.out_of_memory()).flatten();
        out_of_memory.unwrap_or(Killer::Signal(signal))
    }

    /// On cgroup v1, and where a program of it was killed on v2 but not the minder, the minder ends as what it minded.
    fn killer_of_minded(&mut self, status: i32) -> Option<Killer> {
        let killed = self.options.jail.process && status == 128 + libc::SIGKILL;
        killed.then(|| self.out_of_memory()).flatten()
    }

    /// That of a machine does; a network is taken down by its folder, after it.
    fn ends_with_its_output(&self) -> bool {
        !self.options.jail.process && !self.options.jail.has_address()
    }

    fn asks(&self) -> Option<BorrowedFd<'_>> {
        self.made.connector.as_ref().and_then(Connector::watched)
    }

    fn answer(&mut self) {
        if let Some(connector) = &mut self.made.connector {
            connector.answer();
        }
    }

    fn take_down(&mut self, instance: &Instance) -> Result<(), Self::Error> {
        phases::mark("guest");
        let made = std::mem::take(&mut self.made);
        let network = made
            .bridge
            .map_or(Ok(()), |bridge| bridge.leave(instance.id().as_str()));
        if let Some(cgroup) = made.cgroup {
            cgroup.remove()?;
        }
        phases::mark("remove cgroups");
        network?;
        if self.options.jail.rm {
            // It goes at once.
            return Ok(());
        }
        if let Value::Object(mut report) = instance.report()? {
            // What is gone is not to be swept for.
            report.remove("cgroup");
            report.remove(report::SOCKETS);
            report.insert("network".into(), Value::Null);
            instance.set_report(&Value::Object(report))?;
        }
        Ok(())
    }
}
