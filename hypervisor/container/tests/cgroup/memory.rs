//! Deaths by want of memory are told as such.

use std::os::unix::process::ExitStatusExt;

use chiton_container::cgroup::{Cgroup, Controller, Culprit, Limits, Parent, Place};
use rustix::event::{PollFd, PollFlags, poll};

use crate::bed::{on_each, shell};

/// Takes four times what it is allowed.
const HOG: &str = "exec dd if=/dev/zero of=/dev/null bs=128M count=1";

fn limited(size: &str) -> Limits {
    Limits {
        memory_max: Some(size.parse().unwrap()),
        ..Limits::default()
    }
}

/// Without swap, where the host has any.
fn no_swap(limits: Limits) -> Limits {
    let has_swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    Limits {
        swap_max: has_swap.then(|| "0".parse().unwrap()),
        ..limits
    }
}

#[test]
fn a_death_at_its_own_limit_names_limit_and_victim() {
    on_each(|bed| {
        let group = bed.group("hog", &no_swap(limited("32M")));
        let mut watch = group.oom_watch().unwrap();
        let mut child = shell(&group, HOG);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
        assert_eq!(
            poll(&mut [PollFd::new(&watch, PollFlags::IN)], None),
            Ok(1),
            "the watch is woken"
        );
        watch.drain().unwrap();
        let kill = watch.verdict().unwrap().unwrap();
        assert!(kill.kills >= 1, "{kill}");
        assert_eq!(kill.whole, bed.on_v2(Controller::Memory), "{kill}");
        let Culprit::Own { file, limit } = &kill.culprit else {
            panic!("{kill}")
        };
        assert_eq!(*limit, Some(32 << 20));
        assert!(group.paths().any(|path| file.starts_with(path)), "{kill}");
        let victim = kill.victim.as_ref().unwrap();
        assert_eq!(u32::try_from(victim.pid), Ok(child.id()), "{kill}");
        assert!(kill.to_string().contains("at its own limit, 32M ("), "{kill}");
        assert_eq!(group.stats().unwrap().memory.unwrap().events.oom_kill, Some(kill.kills));
        drop(watch);
        group.remove().unwrap();
    });
}

#[test]
fn a_death_at_the_limit_of_a_cgroup_above_blames_that_one() {
    on_each(|bed| {
        let outer = bed.group("outer", &no_swap(limited("32M")));
        let below = format!("/{}/outer", bed.parent.name());
        let inside = Parent::open(&bed.host, &Place::Below(below.into()), "inside").unwrap();
        let inner = Cgroup::create(&inside, "inner", &limited("1G")).unwrap();
        let mut watch = inner.oom_watch().unwrap();
        let status = shell(&inner, HOG).wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
        let kill = watch.verdict().unwrap().unwrap();
        let Culprit::Ancestor { file, limit } = &kill.culprit else {
            panic!("{kill}")
        };
        assert_eq!(*limit, Some(32 << 20));
        assert!(outer.paths().any(|path| Some(path) == file.parent()), "{kill}");
        inner.remove().unwrap();
        assert!(inside.remove().unwrap());
        outer.remove().unwrap();
    });
}

#[test]
fn another_death_by_sigkill_is_not_one_of_want_of_memory() {
    on_each(|bed| {
        let group = bed.group("killed", &limited("64M"));
        let mut watch = group.oom_watch().unwrap();
        let status = shell(&group, "kill -9 $$").wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{status}");
        assert_eq!(watch.verdict().unwrap(), None);
        group.remove().unwrap();
    });
}
