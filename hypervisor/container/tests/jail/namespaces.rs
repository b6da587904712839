//! Each namespace is another, and what is in it is the jail's own.

use std::os::unix::fs::MetadataExt;

use chiton_container::jail::{Clocks, IdMap, Kind, Program, Source, Status, apart};

use crate::help::{Place, Test, alone, answer, names, read};

pub(crate) const TESTS: &[Test] = &[
    ("all_eight_namespaces_are_new", all_are_new),
    ("each_namespace_can_be_turned_off", each_can_be_off),
    ("the_host_name_is_the_jails_own", host_name),
    ("ipc_and_message_queues_are_empty", ipc),
    ("only_its_own_processes_are_seen", processes),
    ("the_clocks_have_offsets", clocks),
    ("there_is_loopback_and_it_is_up", network),
    ("the_jails_group_is_the_root_of_groups", cgroup),
    ("a_second_jail_enters_namespaces_of_the_first", join),
    (
        "a_second_jail_shares_processes_and_network_and_has_a_root_of_its_own",
        join_with_root,
    ),
    ("a_second_jail_lives_in_all_namespaces_of_the_first", join_all),
    (
        "namespaces_of_a_jail_are_open_to_its_maker_if_that_is_wanted",
        open_to_maker,
    ),
    (
        "what_is_done_apart_is_done_by_another_root_whose_words_come_back",
        done_apart,
    ),
];

fn own(kind: Kind) -> u64 {
    std::fs::metadata(format!("/proc/self/ns/{}", kind.name()))
        .unwrap()
        .ino()
}

fn all_are_new() {
    let place = Place::new();
    let mut jailed = place.jail().spawn(|| 0).unwrap();
    for (kind, inode) in jailed.namespaces() {
        assert_ne!(inode, own(kind), "{kind:?}");
    }
    jailed.wait().unwrap();
}

fn open_to_maker() {
    let place = Place::new();
    for wanted in [true, false] {
        let mut jail = alone(place.jail());
        jail.opens_namespaces = wanted;
        let mut jailed = jail.spawn(|| 0).unwrap();
        let open = jailed.take_open_namespaces();
        let open: Vec<_> = open
            .into_iter()
            .map(|fd| std::fs::File::from(fd).metadata().unwrap().ino())
            .collect();
        let numbers = jailed.namespaces().map(|(_, number)| number);
        assert_eq!(open, if wanted { &numbers[..] } else { &[] });
        jailed.wait().unwrap();
    }
}

fn done_apart() {
    let ids = IdMap::range(1_900_000_000, 10);
    apart(&ids, || match read("/proc/self/uid_map").split_whitespace().nth(1) {
        Some("1900000000") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    let said = apart(&ids, || Err("it cannot be done".into())).unwrap_err();
    assert_eq!(said.to_string(), "it cannot be done");
    let die = || {
        // SAFETY: the copy kills itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        Ok(())
    };
    let died = apart(&ids, die).unwrap_err();
    assert!(died.to_string().contains("killed by signal 9"), "{died}");
}

fn each_can_be_off() {
    let place = Place::new();
    for off in Kind::ALL {
        let mut jail = place.jail();
        // Without a user namespace owners are as they are; without a mount namespace there is no new root.
        jail.namespaces.set(off, Source::Caller);
        let mut jailed = jail.spawn(|| 0).unwrap_or_else(|error| panic!("{off:?}: {error}"));
        for (kind, inode) in jailed.namespaces() {
            assert_eq!(inode == own(kind), kind == off, "{off:?} is off: {kind:?}");
        }
        assert_eq!(jailed.wait().unwrap(), Status::Exited(0));
    }
}

fn host_name() {
    let place = Place::new();
    let before = read("/proc/sys/kernel/hostname");
    let mut jail = place.jail();
    jail.hostname = "cell".into();
    jail.domainname = "block".into();
    let found = answer(&mut jail, || {
        read("/proc/sys/kernel/hostname") + &read("/proc/sys/kernel/domainname")
    });
    assert_eq!(found, "cell\nblock\n");
    assert_eq!(read("/proc/sys/kernel/hostname"), before);
}

fn ipc() {
    let place = Place::new();
    // SAFETY: a new segment, which is removed below.
    let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) };
    assert_ne!(segment, -1);
    let name = c"/chiton-jail-test";
    // SAFETY: the name is a C string and the attributes are the usual ones.
    let queue = unsafe {
        libc::mq_open(
            name.as_ptr(),
            libc::O_CREAT | libc::O_RDWR,
            0o600,
            std::ptr::null::<libc::c_void>(),
        )
    };
    assert_ne!(queue, -1);
    let found = answer(&mut place.jail(), || {
        let segments = read("/proc/sysvipc/shm").lines().count() - 1;
        format!("{segments} segments; queues: {}", names("/dev/mqueue"))
    });
    // SAFETY: both are this test's own.
    unsafe {
        libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
        libc::mq_close(queue);
        libc::mq_unlink(name.as_ptr());
    }
    assert_eq!(found, "0 segments; queues: ");
}

fn processes() {
    let place = Place::new();
    if !place.is_nobody_outside() {
        return;
    }
    let look = || {
        let numbers = names("/proc");
        let numbers = numbers.split(' ').filter(|name| name.parse::<u32>().is_ok());
        numbers.collect::<Vec<_>>().join(" ")
    };
    // Process 1 is the minder; it cannot be traced, so it is not seen.
    assert_eq!(answer(&mut place.jail(), look), "2");
    assert_eq!(answer(&mut alone(place.jail()), look), "1");
}

fn clocks() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.clocks = Clocks {
        monotonic: 1_000_000,
        boottime: 2_000_000,
    };
    let now = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is ours to write.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        time.tv_sec
    };
    let clocks = [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME];
    let before = clocks.map(now);
    let found = answer(&mut jail, || clocks.map(|clock| now(clock).to_string()).join(" "));
    let inside: Vec<i64> = found.split(' ').map(|seconds| seconds.parse().unwrap()).collect();
    for (index, offset) in [1_000_000, 2_000_000].into_iter().enumerate() {
        let ahead = inside[index] - before[index] - offset;
        // However slow the machine is, it is not this slow.
        assert!((0..1000).contains(&ahead), "{found} against {before:?}");
    }
}

fn network() {
    let place = Place::new();
    let found = answer(&mut place.jail(), || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = std::net::TcpStream::connect(address).is_ok();
        format!("{} {connected}", names("/sys/class/net"))
    });
    assert_eq!(found, "lo true");
}

fn cgroup() {
    let place = Place::new();
    let found = answer(&mut place.jail(), || read("/proc/self/cgroup"));
    assert!(found.lines().all(|line| line.ends_with(":/")), "{found}");
}

/// A first jail, which waits until the writing end of a pipe is closed.
fn first(place: &Place) -> (chiton_container::jail::Jailed, std::io::PipeWriter) {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut jail = place.jail();
    jail.root.scratch = None;
    jail.hostname = "first".into();
    jail.keep.push(reader.as_raw_fd());
    let jailed = jail.spawn(|| reader.read(&mut [0]).map_or(1, |_| 0)).unwrap();
    (jailed, writer)
}

fn join() {
    let place = Place::new();
    let (mut first, end) = first(&place);
    for joined in [Kind::Network, Kind::Ipc, Kind::Uts, Kind::Time, Kind::Cgroup] {
        let mut jail = place.jail();
        // Network interfaces of another user namespace cannot be shown.
        jail.root.sys = chiton_container::jail::Sys::Absent;
        jail.namespaces.set(joined, Source::Process(first.pid()));
        let mut second = jail.spawn(|| 0).unwrap_or_else(|error| panic!("{joined:?}: {error}"));
        for ((kind, inode), (_, other)) in second.namespaces().into_iter().zip(first.namespaces()) {
            assert_eq!(inode == other, kind == joined, "{joined:?} is joined: {kind:?}");
        }
        assert_eq!(second.wait().unwrap(), Status::Exited(0));
    }
    drop(end);
    assert_eq!(first.wait().unwrap(), Status::Exited(0));
}

/// As the machines of one group share a network and see each other's processes: with a root of their own.
fn join_with_root() {
    let place = Place::new();
    if !place.is_nobody_outside() {
        return;
    }
    let (mut first, end) = first(&place);
    let mut jail = place.jail();
    for kind in [Kind::User, Kind::Pid, Kind::Network] {
        jail.namespaces.set(kind, Source::Process(first.pid()));
    }
    let found = answer(&mut jail, || {
        let owner = std::fs::metadata("/etc/name").unwrap().uid();
        // The processes of the first are 1 and 2, and those that made this jail came and went.
        let numbers = names("/proc");
        let others = numbers.split(' ').filter(|name| *name == "2").count();
        format!("{owner} {others} {}", std::fs::write("/etc/new", "").is_ok())
    });
    assert_eq!(found, "0 0 true");
    drop(end);
    assert_eq!(first.wait().unwrap(), Status::Exited(0));
}

fn join_all() {
    let place = Place::new();
    place.busybox();
    let (mut first, end) = first(&place);
    let mut jail = place.jail();
    for kind in Kind::ALL {
        jail.namespaces.set(kind, Source::Process(first.pid()));
    }
    let program = Program::new(["/bin/busybox", "hostname"]).unwrap();
    let mut second = jail.spawn_program(&program).unwrap();
    assert_eq!(second.namespaces(), first.namespaces());
    assert_eq!(second.wait().unwrap(), Status::Exited(0));
    // Its name was known before, and is the same.
    let found = answer(&mut jail, || read("/proc/sys/kernel/hostname"));
    assert_eq!(found, "first\n");
    drop(end);
    assert_eq!(first.wait().unwrap(), Status::Exited(0));
}
