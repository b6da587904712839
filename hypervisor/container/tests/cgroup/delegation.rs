//! The rules of v2: who may have children with controllers, and subtrees given to ordinary users.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chiton_container::cgroup::{Cgroup, Controller, Error, Host, Layout, Limits, Parent, Place};

use crate::bed::{Bed, on_each, skip, until};

const NOBODY: u32 = 65534;

fn limits() -> Limits {
    Limits {
        memory_max: Some("64M".parse().unwrap()),
        ..Limits::default()
    }
}

/// A cgroup made by hand below the bed's parent, with memory and pids, if those are on v2.
fn by_hand(bed: &Bed) -> Option<PathBuf> {
    if !bed.on_v2(Controller::Memory) {
        // Where there is v2 alone it has them all.
        if bed.host.layout() == Layout::Unified {
            skip("v2 has no controllers here");
        }
        return None;
    }
    let parent = bed.parent.directories().next().unwrap();
    for directory in [parent.parent().unwrap(), parent] {
        std::fs::write(directory.join("cgroup.subtree_control"), "+memory +pids").unwrap();
    }
    // For the ordinary user to pass.
    std::fs::set_permissions(parent, Permissions::from_mode(0o755)).unwrap();
    let path = parent.join("by-hand");
    std::fs::create_dir(&path).unwrap();
    Some(path)
}

/// Removes a cgroup as soon as the kernel has forgotten those that were in it, which it may do after they were waited
/// for.
fn remove(directory: &Path) {
    until("an end", || match std::fs::remove_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => false,
        result => {
            result.unwrap();
            true
        }
    });
}

#[test]
fn a_cgroup_with_processes_cannot_have_limited_children() {
    on_each(|bed| {
        let Some(path) = by_hand(bed) else { return };
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();
        let below = format!("/{}/by-hand", bed.parent.name());
        let parent = Parent::open(&bed.host, &Place::Below(below.into()), "ours").unwrap();
        let error = Cgroup::create(&parent, "x", &limits()).unwrap_err();
        assert!(matches!(&error, Error::InternalProcesses { count: 1, .. }), "{error}");
        assert!(error.to_string().contains("move them into a child first"), "{error}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(parent.remove().unwrap());
        remove(&path);
    });
}

/// Not a test by itself: says what its place is worth.
#[test]
#[ignore = "started by the tests of delegation"]
fn tenant() {
    let Ok(place) = std::env::var("CHITON_TEST_PLACE") else {
        return;
    };
    let host = Host::read().unwrap();
    let made = Parent::open(&host, &place.parse().unwrap(), "ours")
        .and_then(|parent| Cgroup::create(&parent, "x", &limits()).map(|group| (parent, group)));
    match made {
        Ok((parent, group)) => {
            let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
            let max = group.stats().unwrap().memory.unwrap().max;
            println!("\nsaid {max:?} {}", own.trim());
            group.remove().unwrap();
            assert!(parent.remove().unwrap());
        }
        Err(error) => println!("\nsaid {error}"),
    }
}

/// Runs the tenant in a cgroup, as an ordinary user.
fn tenant_says(directory: &Path, place: &str) -> String {
    // The program may be where that user cannot look.
    let program = std::env::temp_dir().join(format!("chiton-tenant-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command
        .args(["--ignored", "--exact", "delegation::tenant", "--nocapture"])
        .env("CHITON_TEST_PLACE", place)
        .current_dir("/")
        .stdout(Stdio::piped())
        .uid(NOBODY)
        .gid(NOBODY);
    // Opened as root: an ordinary user may not move itself in from outside.
    let procs = std::fs::OpenOptions::new()
        .write(true)
        .open(directory.join("cgroup.procs"))
        .unwrap();
    // SAFETY: after fork the closure only calls write(2), on a file that it owns.
    unsafe {
        command.pre_exec(move || (&procs).write_all(b"0"));
    }
    // Another test's child may hold the copy open for writing until it becomes what it will be.
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    std::fs::remove_file(program).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("said "))
        .unwrap_or_else(|| panic!("it said nothing: {text}"))
        .to_owned()
}

#[test]
fn an_ordinary_user_has_what_is_delegated_and_no_more() {
    on_each(|bed| {
        let Some(path) = by_hand(bed) else { return };
        let denied = tenant_says(&path, "auto");
        assert!(denied.starts_with("no permission to make cgroups below "), "{denied}");
        assert!(denied.contains("Delegate=yes"), "{denied}");

        // As cgroup-v2.rst, "Model of Delegation": the directory and these three files.
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(path.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let internal = tenant_says(&path, "auto");
        assert!(internal.contains("has 1 processes of its own"), "{internal}");
        let granted = tenant_says(&path, "own-leaf");
        let own = format!("0::/{}/by-hand/ours-self", bed.parent.name());
        assert_eq!(granted, format!("Some(67108864) {own}"));

        remove(&path.join("ours-self"));
        if path.join("ours").exists() {
            remove(&path.join("ours"));
        }
        remove(&path);
    });
}
