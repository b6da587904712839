//! Afterwards nothing is left.

use crate::help::{Place, Test, answer, errno, names, read};

pub(crate) const TESTS: &[Test] = &[
    ("two_hundred_jails_leave_nothing", many),
    ("a_range_of_ids_comes_back", ranges),
];

fn many() {
    let place = Place::new();
    let look = || {
        let descriptors = names("/proc/self/fd").split(' ').count();
        (read("/proc/self/mountinfo"), descriptors)
    };
    answer(&mut place.jail(), String::new);
    let before = look();
    for round in 0..200 {
        let mut jail = place.jail();
        if round % 2 == 1 {
            jail.root.scratch = Some("/nowhere".into());
            jail.spawn(|| 0).unwrap_err();
        } else {
            let mut jailed = jail.spawn(|| 0).unwrap();
            jailed.wait().unwrap();
        }
    }
    assert_eq!(look(), before);
    // SAFETY: no status is asked for.
    let children = errno(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }.into());
    assert_eq!(children, libc::ECHILD);
}

fn ranges() {
    let place = Place::new();
    let ranges = place.ranges();
    let before = ranges.in_use().unwrap();
    let lease = ranges.lease().unwrap();
    assert_eq!(ranges.in_use().unwrap(), before + 1);
    // A jail that is being made has the caller's descriptors, but none when it stands.
    let mut jail = place.jail();
    let mut jailed = jail.spawn(|| {
        loop {
            // SAFETY: it only waits.
            unsafe { libc::pause() };
        }
    });
    drop(lease);
    assert_eq!(ranges.in_use().unwrap(), before);
    let jailed = jailed.as_mut().unwrap();
    jailed.kill().unwrap();
    jailed.wait().unwrap();
    jail.keep.clear();
}
