//! What each test stands on: a parent of its own in each way this host can be seen.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chiton_container::cgroup::{Cgroup, Controller, Host, Layout, Limits, Parent, Place, Version};

/// A parent for one test, which must be empty at its end.
pub(crate) struct Bed {
    pub(crate) host: Host,
    pub(crate) parent: Parent,
}

/// Runs a test on a bed for each layout, and sees to it that nothing is left.
pub(crate) fn on_each(test: impl Fn(&Bed)) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for host in hosts() {
        let layout = host.layout();
        let name = format!(
            "chiton-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let parent = match Parent::open(&host, &Place::Auto, &name) {
            Ok(parent) => parent,
            Err(error) => return skip(&error.to_string()),
        };
        println!("{layout:?}");
        let bed = Bed { host, parent };
        test(&bed);
        let directories: Vec<_> = bed.parent.directories().map(ToOwned::to_owned).collect();
        assert!(bed.parent.remove().unwrap(), "something is left below {directories:?}");
        assert!(directories.iter().all(|directory| !directory.exists()));
    }
}

/// Says why a test is none here; where all is to be tested, it fails.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("CHITON_STRICT").is_none(),
        "it is required here: {why}"
    );
    println!("SKIPPED: {why}");
}

/// This host, and a hybrid one as v1 alone too.
fn hosts() -> Vec<Host> {
    let host = Host::read().unwrap();
    let mut hosts = vec![host.clone()];
    if host.layout() == Layout::Hybrid {
        let v1 = host
            .hierarchies
            .into_iter()
            .filter(|hierarchy| hierarchy.version == Version::V1)
            .collect();
        hosts.push(Host { hierarchies: v1 });
    }
    hosts
}

impl Bed {
    /// Whether a controller is on v2 here.
    pub(crate) fn on_v2(&self, controller: Controller) -> bool {
        self.host
            .hierarchy(controller)
            .is_some_and(|hierarchy| hierarchy.version == Version::V2)
    }

    pub(crate) fn group(&self, name: &str, limits: &Limits) -> Cgroup {
        Cgroup::create(&self.parent, name, limits).unwrap()
    }
}

/// Starts a shell inside.
pub(crate) fn shell(group: &Cgroup, script: &str) -> Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    group.enclose(&mut command).unwrap();
    command.spawn().unwrap()
}

/// Waits for what will surely come; a minute is only so that a failure ends.
pub(crate) fn until(what: &str, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !come() {
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An endless loop that costs processor time.
pub(crate) const BUSY: &str = "while :; do :; done";
