//! What each wall of a jail costs: `cargo run --release -p chiton-container --example cost` as root.
//!
//! Each line is the whole jail with one thing left out, and what that saves. All are measured in turn,
//! round by round, so that whatever else the machine does hits all alike; the figures are medians. The last line is a
//! cgroup with nobody in it, which the whole jail has not.

use std::path::Path;
use std::time::{Duration, Instant};

use chiton_container::cgroup::{Cgroup, Host, Limits, Parent, Place};
use chiton_container::jail::{Dev, Init, Jail, Kind, Landlock, Lease, Proc, Ranges, Root, Source, Sys};

/// Its name, and how it differs from the whole.
type Variant = (&'static str, fn(&mut Jail));

const VARIANTS: &[Variant] = &[
    ("the whole jail", |_| {}),
    ("without a user namespace", |jail| {
        jail.namespaces.set(Kind::User, Source::Caller)
    }),
    ("without a process namespace", |jail| {
        jail.namespaces.set(Kind::Pid, Source::Caller);
        jail.init = Init::Payload;
    }),
    ("without a network namespace", |jail| {
        jail.namespaces.set(Kind::Network, Source::Caller)
    }),
    ("without an IPC namespace", |jail| {
        jail.namespaces.set(Kind::Ipc, Source::Caller)
    }),
    ("without a UTS namespace", |jail| {
        jail.namespaces.set(Kind::Uts, Source::Caller)
    }),
    ("without a cgroup namespace", |jail| {
        jail.namespaces.set(Kind::Cgroup, Source::Caller)
    }),
    ("without a time namespace", |jail| {
        jail.namespaces.set(Kind::Time, Source::Caller)
    }),
    ("without a mount namespace, so no root", |jail| {
        jail.namespaces.set(Kind::Mount, Source::Caller)
    }),
    ("without an overlay: one layer", |jail| {
        jail.root.layers.truncate(1);
        jail.root.scratch = None;
    }),
    ("with a scratch that need not survive", |jail| {
        jail.root.scratch = jail
            .root
            .scratch
            .take()
            .map(|scratch| scratch.with_file_name("volatile"));
        jail.root.volatile = true;
    }),
    ("without /proc", |jail| jail.root.proc = Proc::Absent),
    ("with /proc of processes only", |jail| jail.root.proc = Proc::Processes),
    ("without /sys", |jail| jail.root.sys = Sys::Absent),
    ("without /dev", |jail| jail.root.dev = Dev::Absent),
    ("without a minder", |jail| jail.init = Init::Payload),
    ("without Landlock", |jail| jail.landlock = Landlock::Off),
    ("without a system call filter", |jail| jail.filter = None),
    ("as a machine monitor has it", |jail| {
        jail.init = Init::Payload;
        jail.root.proc = Proc::Absent;
        jail.root.sys = Sys::Absent;
        jail.root.dev = Dev::Absent;
    }),
    ("nothing: a copy of the process", |jail| {
        for kind in Kind::ALL {
            jail.namespaces.set(kind, Source::Caller);
        }
        jail.init = Init::Payload;
        jail.landlock = Landlock::Off;
        jail.filter = None;
    }),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(200), |word| word.parse())?;
    let folder = tempfile::tempdir()?;
    for name in [
        "one",
        "two",
        "three",
        "scratch/upper",
        "scratch/work",
        "volatile/upper",
        "volatile/work",
    ] {
        std::fs::create_dir_all(folder.path().join(name))?;
    }
    let lease = Ranges::usual(&folder.path().join("ids")).lease()?;
    let jails: Vec<_> = VARIANTS
        .iter()
        .map(|(_, change)| {
            let mut jail = whole(folder.path(), &lease);
            change(&mut jail);
            jail
        })
        .collect();
    let mut times = vec![(Vec::new(), Vec::new()); jails.len()];
    let mut alone = (Vec::new(), Vec::new());
    let parent = Parent::open(&Host::read()?, &Place::Auto, "chiton")?;
    let limits = Limits {
        memory_max: Some("64M".parse()?),
        pids_max: Some("64".parse()?),
        cpu_max: Some("2".parse()?),
        ..Limits::default()
    };
    for _ in 0..rounds {
        let start = Instant::now();
        let group = Cgroup::create(&parent, &format!("cost-{}", std::process::id()), &limits)?;
        alone.0.push(start.elapsed());
        group.remove()?;
        alone.1.push(start.elapsed());
        for (jail, (stands, gone)) in jails.iter().zip(&mut times) {
            let start = Instant::now();
            let mut jailed = jail.spawn(|| 0)?;
            stands.push(start.elapsed());
            jailed.wait()?;
            gone.push(start.elapsed());
            if jail.root.volatile {
                // The kernel's mark that it was used.
                std::fs::remove_dir_all(folder.path().join("volatile/work/work/incompat"))?;
            }
        }
    }
    let whole = median(&mut times[0].1);
    println!("{:<40} {:>10} {:>10} {:>10}", "µs, median", "stands", "gone", "saves");
    for ((name, _), (stands, gone)) in VARIANTS.iter().zip(&mut times) {
        let (stands, gone) = (median(stands), median(gone));
        println!("{name:<40} {stands:>10} {gone:>10} {:>10}", whole - gone);
    }
    // What is not in the whole: nobody is in it.
    let (stands, gone) = (median(&mut alone.0), median(&mut alone.1));
    println!("{:<40} {stands:>10} {gone:>10}", "a cgroup alone, with limits");
    Ok(())
}

fn whole(folder: &Path, lease: &Lease) -> Jail {
    let layers = ["one", "two", "three"].map(|name| folder.join(name));
    let root = Root {
        layers: layers.into(),
        scratch: Some(folder.join("scratch")),
        tmp: true,
        ..Root::default()
    };
    Jail::new(root, lease.map())
}

fn median(times: &mut [Duration]) -> i128 {
    times.sort_unstable();
    times[times.len() / 2].as_micros().cast_signed()
}
