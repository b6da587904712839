//! What cannot be made is refused with a sentence; and what filters do.

use std::os::unix::fs::symlink;

use chiton_container::jail::seccomp::{Filter, Otherwise};
use chiton_container::jail::{
    CgroupPlacement, Clocks, Enforced, Jail, Kind, Landlock, Program, Source, Status, Volume,
};

use crate::help::{Place, Test, answer, ask, errno};

pub(crate) const TESTS: &[Test] = &[
    ("each_step_that_fails_is_named", steps),
    ("a_process_with_threads_is_refused", threads),
    ("a_link_in_place_of_proc_is_refused", proc_link),
    ("a_program_that_is_not_there_is_named", program),
    ("a_panic_in_the_jail_stays_there", panic),
    ("a_filter_kills_or_refuses_as_asked", filters),
    ("requests_of_a_device_are_filtered_by_number", requests),
    ("landlock_says_how_much_of_it_holds", landlock),
];

/// The sentence with which a jail is refused; it also says that nothing of it is left.
fn refused(jail: &Jail) -> String {
    let error = jail.spawn(|| 0).expect_err("it was made").to_string();
    // SAFETY: no status is asked for.
    let children = errno(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }.into());
    assert_eq!(children, libc::ECHILD, "a process is left: {error}");
    error
}

/// What the refusal says, and what is wrong with the jail.
type Case = (&'static str, fn(&mut Jail));

fn steps() {
    let place = Place::new();
    let cases: &[Case] = &[
        ("cannot open a layer: there is none", |jail| jail.root.layers.clear()),
        ("cannot open a layer: /nowhere: No such file", |jail| {
            jail.root.layers.push("/nowhere".into())
        }),
        ("cannot make the overlay: the directory upper", |jail| {
            jail.root.scratch = jail.root.layers.first().cloned()
        }),
        ("cannot set the host name", |jail| jail.hostname = "x".repeat(65)),
        ("neither may become negative", |jail| {
            jail.clocks = Clocks {
                monotonic: -1_000_000_000,
                boottime: 0,
            };
        }),
        (
            "cannot bind a volume: /nowhere: No such file or directory (os error 2); the host's side must exist",
            |jail| {
                jail.root.volumes.push(volume("/nowhere", "/x"));
            },
        ),
        ("nothing goes over the kernel's own files", |jail| over(jail, "/proc/x")),
        ("nothing goes over the kernel's own files", |jail| {
            over(jail, "/sys/kernel")
        }),
        (
            "cannot move the process into its control group: enter a cgroup",
            |jail| {
                let tasks = vec![std::fs::File::options().write(true).open("/dev/full").unwrap()];
                jail.cgroup = CgroupPlacement::PerController { unified: None, tasks };
            },
        ),
        ("cannot start a process in new namespaces", |jail| {
            let no_group = std::fs::File::open("/etc").unwrap();
            jail.cgroup = CgroupPlacement::Unified(no_group.into());
        }),
        (
            "cannot enter a namespace of another jail: net of /proc/0/ns/net",
            |jail| {
                jail.namespaces.set(Kind::Network, Source::Process(0));
            },
        ),
        ("cannot enter a namespace of another jail: net of /etc/passwd", |jail| {
            jail.namespaces.set(Kind::Network, Source::File("/etc/passwd".into()));
        }),
        ("cannot map user and group ids", |jail| jail.ids.users.clear()),
        ("cannot become the payload's user: user 1000000, group 0", |jail| {
            jail.user = 1_000_000
        }),
    ];
    std::fs::create_dir_all("/etc").unwrap();
    if !std::path::Path::new("/etc/passwd").exists() {
        std::fs::write("/etc/passwd", "").unwrap();
    }
    for (sentence, spoil) in cases {
        let mut jail = place.jail();
        spoil(&mut jail);
        let error = refused(&jail);
        assert!(error.contains(sentence), "{error:?} has no {sentence:?}");
    }
    // The same place is good for a jail that nothing is wrong with.
    assert_eq!(answer(&mut place.jail(), || "fine".into()), "fine");
}

/// Binds the layer itself over a path.
fn over(jail: &mut Jail, guest: &str) {
    let host = jail.root.layers[0].clone();
    jail.root.volumes.push(Volume {
        host,
        guest: guest.into(),
        read_only: false,
    });
}

fn volume(host: &str, guest: &str) -> Volume {
    Volume {
        host: host.into(),
        guest: guest.into(),
        read_only: false,
    }
}

fn threads() {
    let place = Place::new();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv().is_err());
    let error = refused(&place.jail());
    drop(sender);
    other.join().unwrap();
    assert!(error.contains("this one has 2"), "{error}");
}

fn proc_link() {
    let place = Place::new();
    symlink("etc", place.path("root/proc")).unwrap();
    assert!(refused(&place.jail()).contains("cannot mount: /proc"));
}

fn program() {
    let place = Place::new();
    let error = place
        .jail()
        .spawn_program(&Program::new(["/bin/nothing"]).unwrap())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start the program: /bin/nothing: No such file or directory (os error 2)"
    );
}

fn panic() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.keep.clear();
    let mut jailed = jail.spawn(|| std::panic::resume_unwind(Box::new("quiet"))).unwrap();
    assert_eq!(jailed.wait().unwrap(), Status::Exited(101));
}

fn filters() {
    let place = Place::new();
    let mut jail = crate::help::alone(place.jail());
    let question = || errno(parent()).to_string();
    let without = |otherwise| Some(Filter::new(&[], otherwise));
    jail.filter = without(Otherwise::Kill);
    assert_eq!(
        ask(&mut jail, question),
        (String::new(), Status::Signalled(libc::SIGSYS))
    );
    jail.filter = without(Otherwise::Errno(libc::EPERM as u32));
    assert_eq!(answer(&mut jail, question), libc::EPERM.to_string());
    jail.filter = without(Otherwise::Log);
    assert_eq!(answer(&mut jail, question), "0");
}

/// A call that fails only where a filter says so.
fn parent() -> i64 {
    // SAFETY: it takes no arguments.
    unsafe { libc::syscall(libc::SYS_getppid) }
}

fn requests() {
    let place = Place::new();
    let mut jail = place.jail();
    let filter = Filter::new(&[], Otherwise::Errno(libc::EPERM as u32));
    jail.filter = Some(filter.allow_if(libc::SYS_ioctl, 1, &[libc::FIONREAD as u32]));
    jail.init = chiton_container::jail::Init::Payload;
    let (reader, _writer) = std::io::pipe().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
    jail.keep.push(fd);
    let found = answer(&mut jail, || {
        // The last has bits that the kernel cuts off: it is FIONREAD too.
        let [reads, blocks] = [libc::FIONREAD as u32, libc::FIONBIO as u32].map(u64::from);
        [reads, blocks, blocks | 1 << 32, reads | 1 << 32]
            .map(|request| {
                let mut number = 0_i32;
                // SAFETY: both requests use one `int`.
                errno(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, &raw mut number) }).to_string()
            })
            .join(" ")
    });
    assert_eq!(found, "0 1 1 0");
}

fn landlock() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.landlock = Landlock::Off;
    let mut jailed = jail.spawn(|| 0).unwrap();
    assert_eq!(jailed.landlock(), Enforced::Off);
    jailed.wait().unwrap();
    jail.landlock = Landlock::WhereKnown;
    let mut jailed = jail.spawn(|| 0).unwrap();
    let enforced = jailed.landlock();
    jailed.wait().unwrap();
    assert_ne!(enforced, Enforced::Off);
    jail.landlock = Landlock::Required;
    match jail.spawn(|| 0) {
        Ok(mut jailed) => {
            assert_eq!(enforced, Enforced::Fully);
            jailed.wait().unwrap();
        }
        Err(error) => {
            assert_ne!(enforced, Enforced::Fully);
            assert!(error.to_string().contains("Landlock"), "{error}");
        }
    }
}
