//! Options of the jail, as clap reads them. Limits have the names of the files of cgroup v2.

use std::path::PathBuf;
use std::str::FromStr;

use chiton_container::cgroup::{Count, CpuMax, IoMax, Limits, Set, Size, Weight};
use chiton_container::instance::{Name, RestartPolicy};
use chiton_container::jail::{Kind, Limit, Volume};
use chiton_container::network::Port;
use clap::Args;

use super::names::AddedHost;
use crate::options::quick::quick;

quick! {
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Life")]
pub(crate) struct JailOptions {
    /// Go on in the background, and print the ID.
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// What the instance is called; a name is found if there is none.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<Name>,

    /// Remove the instance when it ends.
    #[arg(long)]
    pub(crate) rm: bool,

    /// Start it again when it ends: no, always, unless-stopped, on-failure or on-failure:N.
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(crate) restart: RestartPolicy,

    /// In the background: keep its input open for `chiton attach`.
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// A label. May be given several times.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = label)]
    pub(crate) label: Vec<String>,

    /// Run without a jail, with all rights of who calls, and without a record. CHITON_JAIL=off does the
    /// same.
    #[arg(long)]
    pub(crate) no_jail: bool,

    /// The network: none, host, bridge (an address, and the others by name), user (an address, for an ordinary
    /// user, by pasta), or that of another instance.
    #[arg(
        long,
        value_name = "none|host|bridge|user|container:INSTANCE",
        default_value = "none",
        help_heading = "Jail"
    )]
    pub(crate) network: Network,

    /// A port of the host that leads to the guest. May be given several times.
    #[arg(short, long, value_name = "[IP:]HOST:GUEST[/udp]", help_heading = "Jail")]
    pub(crate) publish: Vec<Port>,

    /// The guest's address on the bridge.
    #[arg(long, value_name = "ADDRESS", value_parser = address::<std::net::Ipv4Addr>, help_heading = "Jail")]
    pub(crate) ip: Option<std::net::Ipv4Addr>,

    /// The guest's Ethernet address.
    #[arg(long, value_name = "MAC", value_parser = crate::net::mac, help_heading = "Jail")]
    pub(crate) mac: Option<[u8; 6]>,

    /// The longest packet of the guest's network, in bytes.
    #[arg(long, value_name = "BYTES", value_parser = crate::net::mtu, help_heading = "Jail")]
    pub(crate) mtu: Option<u16>,

    /// A DNS server, instead of the host's. May be given several times.
    #[arg(long, value_name = "ADDRESS", value_parser = address::<std::net::IpAddr>, help_heading = "Jail")]
    pub(crate) dns: Vec<std::net::IpAddr>,

    /// A name that the guest knows. May be given several times.
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Jail")]
    pub(crate) add_host: Vec<AddedHost>,

    /// A folder of the host that the guest sees, and may write unless :ro is behind it. May be given several
    /// times.
    #[arg(short, long, value_name = "HOST:GUEST[:ro]", help_heading = "Jail")]
    pub(crate) volume: Vec<Volume>,

    /// Run the image's program as an ordinary process in a jail, without a machine.
    #[arg(long, help_heading = "Jail")]
    pub(crate) process: bool,

    /// Who the process is, instead of whom the image says: names of its /etc/passwd and /etc/group, or numbers.
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Jail")]
    pub(crate) user: Option<String>,

    /// The root file system cannot be written.
    #[arg(long, help_heading = "Jail")]
    pub(crate) read_only: bool,

    /// The host name; the instance's name unless given.
    #[arg(long, value_name = "NAME", value_parser = hostname, help_heading = "Jail")]
    pub(crate) hostname: Option<String>,

    /// Whose namespace to be in instead of a new one: `pid=host`, `ipc=container:db`. Kinds are mount, uts,
    /// ipc, pid, user, cgroup and time; for the network there is --network. May be given several times.
    #[arg(long, value_name = "KIND=host|container:INSTANCE", help_heading = "Jail")]
    pub(crate) namespace: Vec<Shared>,

    /// Whose processes are seen: short for --namespace pid=….
    #[arg(long, value_name = "host|container:INSTANCE", help_heading = "Jail")]
    pub(crate) pid: Option<Whose>,

    /// Whose message queues and shared memory are seen: short for --namespace ipc=….
    #[arg(long, value_name = "host|container:INSTANCE", help_heading = "Jail")]
    pub(crate) ipc: Option<Whose>,

    /// Whose host name it is: short for --namespace uts=….
    #[arg(long, value_name = "host|container:INSTANCE", help_heading = "Jail")]
    pub(crate) uts: Option<Whose>,

    /// Add to the jail's clocks: `monotonic=86400` or `boottime=86400`, in seconds. May be given several times.
    #[arg(long, value_name = "CLOCK=SECONDS", value_parser = clock, help_heading = "Jail")]
    pub(crate) clock: Vec<(Clock, i64)>,

    /// A limit on a resource of each process, soft and hard: nofile=1024:4096; -1 is none. May be given several times.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Jail")]
    pub(crate) ulimit: Vec<Limit>,

    #[command(flatten)]
    pub(crate) limits: LimitOptions,
}
}

quick! {
/// What an instance may use.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Limits (cgroup)")]
pub(crate) struct LimitOptions {
    /// Processors' time: 0.5 is half of one.
    #[arg(long, value_name = "N")]
    pub(crate) cpu_max: Option<CpuMax>,

    /// Share of processor time when others want it too: 1 to 10000, 100 for all that say nothing.
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) cpu_weight: Option<Weight>,

    /// Processors of the host it may run on, as 0-2,5.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<Set>,

    /// Memory nodes of the host it may use.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<Set>,

    /// Memory of the host it never exceeds: the guest's and that of who runs it.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_max: Option<Size>,

    /// Memory beyond which it is slowed down (cgroup v2).
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_high: Option<Size>,

    /// Memory it keeps as long as others have some to give (cgroup v2).
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_low: Option<Size>,

    /// Memory it keeps in any case (cgroup v2).
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_min: Option<Size>,

    /// Memory to which it is pushed back when the host is short: on cgroup v2 that is --memory-low.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<Size>,

    /// Swap it may use.
    #[arg(long, value_name = "SIZE")]
    pub(crate) swap_max: Option<Size>,

    /// Processes and threads; KVM's own thread counts.
    #[arg(long, value_name = "N")]
    pub(crate) pids_max: Option<Count>,

    /// Rates of a block device of the host, as 8:0:rbps=10M,wiops=100. May be given several times.
    #[arg(long, value_name = "DEVICE:LIMIT=N…")]
    pub(crate) io_max: Vec<IoMax>,

    /// Share of block devices when others want them too: 1 to 10000.
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) io_weight: Option<Weight>,
}
}

impl LimitOptions {
    /// Takes what `newer` names, and keeps the rest.
    pub(crate) fn take(&mut self, newer: Self) {
        let Self {
            cpu_max,
            cpu_weight,
            cpuset_cpus,
            cpuset_mems,
            memory_max,
            memory_high,
            memory_low,
            memory_min,
            memory_reservation,
            swap_max,
            pids_max,
            io_max,
            io_weight,
        } = newer;
        self.cpu_max = cpu_max.or(self.cpu_max.take());
        self.cpu_weight = cpu_weight.or(self.cpu_weight.take());
        self.cpuset_cpus = cpuset_cpus.or(self.cpuset_cpus.take());
        self.cpuset_mems = cpuset_mems.or(self.cpuset_mems.take());
        self.memory_max = memory_max.or(self.memory_max.take());
        self.memory_high = memory_high.or(self.memory_high.take());
        self.memory_low = memory_low.or(self.memory_low.take());
        self.memory_min = memory_min.or(self.memory_min.take());
        self.memory_reservation = memory_reservation.or(self.memory_reservation.take());
        self.swap_max = swap_max.or(self.swap_max.take());
        self.pids_max = pids_max.or(self.pids_max.take());
        self.io_max
            .retain(|old| io_max.iter().all(|new| new.device != old.device));
        self.io_max.extend(io_max);
        self.io_weight = io_weight.or(self.io_weight.take());
    }

    /// As the library has them.
    pub(crate) fn limits(&self) -> Limits {
        let Self {
            cpu_max,
            cpu_weight,
            cpuset_cpus,
            cpuset_mems,
            memory_max,
            memory_high,
            memory_low,
            memory_min,
            memory_reservation,
            swap_max,
            pids_max,
            io_max,
            io_weight,
        } = self.clone();
        Limits {
            cpu_max,
            cpu_weight,
            cpuset_cpus,
            cpuset_mems,
            memory_max,
            memory_high,
            memory_low,
            memory_min,
            memory_reservation,
            swap_max,
            pids_max,
            io_max,
            io_weight,
        }
    }
}

/// An option that goes with something that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{option} needs {needs}")]
pub(crate) struct Misplaced {
    option: &'static str,
    needs: &'static str,
}

impl JailOptions {
    /// Whether the instance gets an address of its own.
    pub(crate) fn has_address(&self) -> bool {
        match self.network {
            Network::Bridge | Network::User => true,
            // A guest has a network stack of its own, which a namespace alone is of no use to.
            Network::Host | Network::Of(_) => !self.process,
            Network::None => false,
        }
    }

    /// Refuses options of a jail, where there is none.
    pub(crate) fn check_without_jail(&self) -> Result<(), Misplaced> {
        const JAIL: &str = "a jail: leave out --no-jail, and do not set CHITON_JAIL=off";
        let given = [
            (self.detach, "--detach"),
            (self.name.is_some(), "--name"),
            (self.restart != RestartPolicy::No, "--restart"),
            (self.interactive, "--interactive"),
            (!self.label.is_empty(), "--label"),
            (self.network != Network::None, "--network"),
            (!self.volume.is_empty(), "--volume"),
            (self.process, "--process"),
            (self.user.is_some(), "--user"),
            (self.read_only, "--read-only"),
            (self.hostname.is_some(), "--hostname"),
            (!self.namespace.is_empty(), "--namespace"),
            (self.pid.is_some(), "--pid"),
            (self.ipc.is_some(), "--ipc"),
            (self.uts.is_some(), "--uts"),
            (!self.clock.is_empty(), "--clock"),
            (!self.ulimit.is_empty(), "--ulimit"),
            (self.limits.limits() != Limits::default(), "a limit"),
        ];
        let misplaced = given.into_iter().find(|(given, _)| *given);
        misplaced.map_or_else(
            || self.check_network(),
            |(_, option)| Err(Misplaced { option, needs: JAIL }),
        )
    }

    /// The namespaces that are not new, but for that of the network.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (Kind, &Whose)> {
        let short = [(Kind::Pid, &self.pid), (Kind::Ipc, &self.ipc), (Kind::Uts, &self.uts)];
        let short = short
            .into_iter()
            .filter_map(|(kind, whose)| Some((kind, whose.as_ref()?)));
        self.namespace
            .iter()
            .map(|shared| (shared.kind, &shared.of))
            .chain(short)
    }

    /// Refuses what belongs to a namespace of its own, where that of others is to be used: there it would change nothing,
    /// or be done to the others.
    pub(crate) fn check_shared(&self, is_image: bool, has_folders: bool) -> Result<(), Misplaced> {
        const MOUNT: &str =
            "a mount namespace of its own, since another's has another root: leave out --namespace mount=…";
        const UTS: &str = "a UTS namespace of its own: leave out --uts and --namespace uts=…";
        // An ordinary user's is in that of whom it joins in any case.
        const USERS: &str = "the other's user namespace, too, for /proc shows its processes: add \
                             --namespace user=container:INSTANCE";
        const TIME: &str = "a time namespace of its own: leave out --namespace time=…";
        let given = [
            (Kind::Mount, is_image, "an image", MOUNT),
            (Kind::Mount, !self.volume.is_empty(), "--volume", MOUNT),
            (Kind::Mount, self.read_only, "--read-only", MOUNT),
            (Kind::Mount, has_folders, "--folder", MOUNT),
            // The files by which names are found are bound into the root.
            (Kind::Mount, self.network != Network::None, "--network", MOUNT),
            (Kind::Uts, self.hostname.is_some(), "--hostname", UTS),
            (Kind::Time, !self.clock.is_empty(), "--clock", TIME),
        ];
        let is_others = |(kind, whose): (Kind, &Whose)| kind == Kind::Pid && whose.0.is_some();
        let has_users = self.shared().any(|(kind, _)| kind == Kind::User);
        if rustix::process::geteuid().is_root() && self.shared().any(is_others) && !has_users {
            let option = "the PID namespace of another instance";
            return Err(Misplaced { option, needs: USERS });
        }
        let is_shared = |kind| self.shared().any(|(shared, _)| shared == kind);
        let misplaced = given.into_iter().find(|(kind, given, ..)| *given && is_shared(*kind));
        misplaced.map_or(Ok(()), |(_, _, option, needs)| Err(Misplaced { option, needs }))
    }

    /// Refuses options of a network that is not there, and those that contradict each other.
    pub(crate) fn check_network(&self) -> Result<(), Misplaced> {
        if self.user.is_some() && !self.process {
            let (option, needs) = ("--user", "a process: add --process, for a guest has no users");
            return Err(Misplaced { option, needs });
        }
        const ADDRESS: &str = "a network of its own: add --network bridge, or as an ordinary user --network user";
        if self.rm && self.restart != RestartPolicy::No {
            let (option, needs) = ("--rm", "an end: leave out --restart");
            return Err(Misplaced { option, needs });
        }
        let given = [
            (!self.publish.is_empty(), "--publish"),
            (self.ip.is_some(), "--ip"),
            (self.mac.is_some(), "--mac"),
            (self.mtu.is_some(), "--mtu"),
            (!self.dns.is_empty(), "--dns"),
            (!self.add_host.is_empty(), "--add-host"),
        ];
        let misplaced = given.into_iter().find(|(given, _)| *given && !self.has_address());
        misplaced.map_or(Ok(()), |(_, option)| Err(Misplaced { option, needs: ADDRESS }))
    }
}

/// The network of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Nothing but the loopback device.
    None,
    /// That of the host.
    Host,
    /// A namespace of its own, on the bridge.
    Bridge,
    /// A namespace of its own, with a helper of an ordinary user's.
    User,
    /// That of another instance.
    Of(String),
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "host" => Ok(Self::Host),
            None if text == "bridge" => Ok(Self::Bridge),
            None if text == "user" => Ok(Self::User),
            Some(("container", instance)) if !instance.is_empty() => Ok(Self::Of(instance.to_owned())),
            _ => Err(format!(
                "`{text}` is no network: write none, host, bridge, user or container:INSTANCE"
            )),
        }
    }
}

/// Whose a namespace is that is not new: an instance's; none is the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whose(pub(crate) Option<String>);

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "host" => Ok(Self(None)),
            Some(("container", instance)) if !instance.is_empty() => Ok(Self(Some(instance.to_owned()))),
            _ => Err(format!("`{text}` is not host or container:INSTANCE")),
        }
    }
}

/// A namespace that is not new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) kind: Kind,
    pub(crate) of: Whose,
}

impl FromStr for Shared {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not KIND=host or KIND=container:INSTANCE");
        let (kind, whose) = text.split_once('=').ok_or_else(wrong)?;
        let kind = match kind {
            "mount" => Kind::Mount,
            "uts" => Kind::Uts,
            "ipc" => Kind::Ipc,
            "pid" => Kind::Pid,
            "user" => Kind::User,
            "cgroup" => Kind::Cgroup,
            "time" => Kind::Time,
            "network" | "net" => return Err("the network has an option of its own: --network host".into()),
            _ => {
                return Err(format!(
                    "`{kind}` is no kind of namespace: use mount, uts, ipc, pid, user, cgroup or time"
                ));
            }
        };
        let of = whose.parse().map_err(|_| wrong())?;
        Ok(Self { kind, of })
    }
}

/// A clock of a time namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    Monotonic,
    Boottime,
}

fn clock(text: &str) -> Result<(Clock, i64), String> {
    let wrong = || format!("`{text}` is not monotonic=SECONDS or boottime=SECONDS");
    let (clock, seconds) = text.split_once('=').ok_or_else(wrong)?;
    let seconds = seconds.parse().map_err(|_| wrong())?;
    match clock {
        "monotonic" => Ok((Clock::Monotonic, seconds)),
        "boottime" => Ok((Clock::Boottime, seconds)),
        _ => Err(wrong()),
    }
}

fn address<A: FromStr>(text: &str) -> Result<A, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an address: write one like 10.87.0.5"))
}

fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("`{text}` is no label: write KEY or KEY=VALUE"));
    }
    Ok(text.to_owned())
}

/// What Linux takes for a name, and others can look up.
fn hostname(text: &str) -> Result<String, String> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b".-".contains(&c);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err(format!(
            "`{text}` cannot be a host name: use up to 64 letters, digits, `.` and `-`"
        ));
    }
    Ok(text.to_owned())
}

/// Where an instance's root is, below its folder.
pub(crate) fn scratch(folder: &std::path::Path) -> PathBuf {
    folder.join("root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = |text: &str| text.parse::<Network>();
        assert_eq!(network("container:a"), Ok(Network::Of("a".into())));
        assert_eq!(network("bridge"), Ok(Network::Bridge));
        for text in ["", "all", "container:", "host:a", "bridge:x"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn namespaces_that_are_not_new() {
        let shared = |text: &str| text.parse::<Shared>();
        assert_eq!(
            shared("pid=host"),
            Ok(Shared {
                kind: Kind::Pid,
                of: Whose(None)
            })
        );
        assert_eq!(shared("ipc=container:b").unwrap().of, Whose(Some("b".into())));
        assert_eq!("container:b".parse(), Ok(Whose(Some("b".into()))));
        assert!("b".parse::<Whose>().is_err() && "container:".parse::<Whose>().is_err());
        for text in ["", "pid", "pid=", "pid=b", "pid=container:", "net=host", "files=host"] {
            assert!(shared(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_and_host_names() {
        assert_eq!(label("a="), Ok("a=".into()));
        assert!(label("").is_err() && label("=b").is_err());
        assert_eq!(hostname("web-1.local"), Ok("web-1.local".into()));
        for text in ["", "a/b", "a b", "\u{e4}", &"x".repeat(65)] {
            assert!(hostname(text).is_err(), "{text}");
        }
    }

    #[test]
    fn clocks() {
        assert_eq!(clock("monotonic=-5"), Ok((Clock::Monotonic, -5)));
        for text in ["", "monotonic", "realtime=1", "boottime=x"] {
            assert!(clock(text).is_err(), "{text}");
        }
    }
}
