//! What an ordinary user has of all this: jails, images, instances, and a network by pasta.
//!
//! Each test has a user of its own, and checks at its end that the user has no process left.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Instant;

use chiton_tests::{
    PATIENCE, Record, SUBORDINATE, User, ask_by_datagram, busybox, free_port, is_installed, kvm_works, nap,
};

/// A user with a record of instances and images, and maybe with cgroups.
struct Home(User, Option<Delegated>);

impl Home {
    /// `None`, with the reason said, where there can be none.
    fn new(subordinate: bool) -> Option<Self> {
        if !kvm_works() {
            return None;
        }
        User::new(subordinate).map(|user| Self(user, None))
    }

    /// One that has a network.
    fn with_network() -> Option<Self> {
        if !is_installed("pasta") {
            return None;
        }
        Self::new(false)
    }

    /// Both kinds of users that there are on this machine.
    fn both() -> impl Iterator<Item = Self> {
        [false, true].into_iter().filter_map(Self::new)
    }

    fn output(&self, args: &[&str]) -> Output {
        self.0.chiton().args(args).output().expect("chiton starts")
    }

    /// Does what has to succeed; what it printed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        chiton_tests::ok(args, &self.output(args))
    }

    /// Has to be refused, with these words, and to leave no process and no instance.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &str) {
        let before = (self.numbers(), self.ok(&["ps", "--all", "--quiet"]));
        let output = self.output(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
        // Of what was before, something may be still about to end; so may be a helper of what was refused.
        self.until("the end of what was refused", || {
            self.numbers().iter().all(|number| before.0.contains(number))
        });
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), before.1);
    }

    /// Those of the user's processes.
    fn numbers(&self) -> Vec<String> {
        let number = |process: String| process.split(' ').next().map(str::to_owned);
        self.0.processes().into_iter().filter_map(number).collect()
    }

    /// Makes an image with nothing but busybox in it.
    #[track_caller]
    fn image(&self) {
        self.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
    }

    /// Runs a command of the image as a process, to its end.
    #[track_caller]
    fn process(&self, options: &[&str], command: &[&str]) -> String {
        self.ok(&[&["run", "--rm", "--process"], options, &["box"], command].concat())
    }

    /// The same, of another image.
    #[track_caller]
    fn process_of(&self, image: &str, command: &[&str]) -> String {
        self.ok(&[&["run", "--rm", "--process", image], command].concat())
    }

    /// Runs a guest to its end.
    #[track_caller]
    fn guest(&self, options: &[&str], guest: &[&str]) -> String {
        let program = self.0.guest(guest[0]);
        self.ok(&[&["run", "--rm", "--timeout", "100s"], options, &[&program], &guest[1..]].concat())
    }

    /// Starts a guest in the background, and waits until it has said something.
    #[track_caller]
    fn start(&self, name: &str, options: &[&str], guest: &[&str]) {
        let program = self.0.guest(guest[0]);
        self.ok(&[&["run", "-d", "--name", name], options, &[&program], &guest[1..]].concat());
        self.until(name, || !self.ok(&["logs", name]).is_empty());
    }

    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "{what} does not come");
            nap();
        }
    }

    /// Something of what `inspect` says.
    #[track_caller]
    fn says(&self, name: &str, what: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{.{what}}}}}"), name])
    }

    fn state(&self, name: &str) -> String {
        self.says(name, "State.status")
    }

    /// Checks that nothing is left of any instance.
    #[track_caller]
    fn assert_empty(&self) {
        self.ok(&["prune"]);
        assert_eq!(self.ok(&["ps", "--all", "--quiet"]), "");
        // A supervisor has no instance any more some instructions before its end.
        self.until("the end of all", || self.0.processes().is_empty());
        for folder in ["instances", "names", "live"] {
            let path = self.0.home().join("chiton").join(folder);
            let left: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

impl Drop for Home {
    /// A test that failed leaves nobody.
    fn drop(&mut self) {
        if thread::panicking() {
            let Ok(listed) = self.0.chiton().args(["ps", "--all", "--quiet"]).output() else {
                return;
            };
            for id in String::from_utf8_lossy(&listed.stdout).lines() {
                let _ = self.0.chiton().args(["rm", "--force", id]).output();
            }
        }
    }
}

/// All that is in a folder, and whose it is.
fn owners(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        // Who works there renames what it has written.
        let Ok(about) = entry.metadata() else { continue };
        found.push((entry.path(), about.uid()));
        if about.is_dir() {
            found.extend(owners(&entry.path()));
        }
    }
    found
}

/// The host's address for others.
fn host() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("203.0.113.1:9").expect("a default route");
    match socket.local_addr().expect("an address").ip() {
        std::net::IpAddr::V4(address) => address,
        address => panic!("{address} is not of IPv4"),
    }
}

/// What a server of the host answers to a line.
fn ask(address: Ipv4Addr, port: u16, line: &str) -> String {
    let address = SocketAddr::from((address, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(line.as_bytes()).expect("it reads");
    let mut text = String::new();
    // Where nobody listens yet, the helper has to close what it took.
    let _ = stream.read_to_string(&mut text);
    text
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Answers one question, on every address of the host; its port.
fn serve_once(answer: &'static str) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serve = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut bytes = [0; 512];
        let _ = stream.read(&mut bytes).expect("a question");
        stream.write_all(answer.as_bytes()).expect("it listens");
    });
    (port, serve)
}

#[test]
fn guests_and_processes_run_with_the_ids_that_the_user_has() {
    if !busybox() {
        return;
    }
    for home in Home::both() {
        assert!(home.guest(&[], &["hello"]).starts_with("Hello"));
        home.image();
        assert_eq!(home.process(&[], &["id", "-u"]), "0");
        let map = home.process(&[], &["cat", "/proc/self/uid_map"]);
        let map: Vec<u32> = map
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        let (first, count) = SUBORDINATE;
        let own = [0, home.0.id(), 1];
        assert!(map == own || map == [own, [1, first, count]].concat(), "{map:?}");
        // Whoever has no further ids is told what would give some.
        match map == own {
            true => home.refused(&["run", "--rm", "--process", "--user", "5:6", "box", "id"], "newuidmap"),
            false => assert_eq!(home.process(&["--user", "5:6"], &["id"]), "uid=5 gid=6 groups=6"),
        }
        // A jail as any other's: no capabilities, a filter, nobody of the host's.
        let status = home.process(
            &[],
            &["grep", "-E", "^(CapEff|Seccomp|NoNewPrivs|NSpid):", "/proc/self/status"],
        );
        for line in ["CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        let names = home.process(&["--hostname", "cell"], &["hostname"]);
        assert_eq!(names, "cell");
        home.assert_empty();
    }
}

#[test]
fn an_instance_of_a_users_lives_as_any_other() {
    for home in Home::both() {
        home.start("one", &[], &["live"]);
        assert!(home.ok(&["ps"]).contains("Up "));
        for (command, state) in [("pause", "paused"), ("unpause", "running")] {
            home.ok(&[command, "one"]);
            assert_eq!(home.state("one"), state);
        }
        home.ok(&["stop", "one"]);
        assert_eq!(home.state("one"), "exited");
        home.ok(&["start", "one"]);
        home.ok(&["rename", "one", "two"]);
        home.ok(&["kill", "two"]);
        home.ok(&["wait", "two"]);
        home.ok(&["rm", "two"]);
        home.assert_empty();
    }
}

#[test]
fn images_of_a_user_are_built_imported_changed_and_removed() {
    if !busybox() {
        return;
    }
    for home in Home::both() {
        home.image();
        home.ok(&[
            "run",
            "--name",
            "w",
            "--process",
            "box",
            "sh",
            "-c",
            "umask 077; mkdir /d; echo x > /d/f; ln -s f /d/l",
        ]);
        home.ok(&["commit", "w", "new"]);
        home.ok(&["rm", "w"]);
        let archive = home.0.home().join("archive").display().to_string();
        for format in ["oci-archive", "docker-archive"] {
            let archive = format!("{archive}-{format}");
            home.ok(&["image", "export", "new", "-o", &archive, "-f", format]);
            home.ok(&["image", "import", &archive, "-t", "back"]);
            let listed = home.ok(&["run", "--rm", "--process", "back", "ls", "-ln", "/d"]);
            let owners: Vec<_> = listed
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().nth(2))
                .collect();
            assert_eq!(owners, [Some("0"), Some("0")], "{listed}");
            assert_eq!(home.ok(&["run", "--rm", "--process", "back", "cat", "/d/l"]), "x");
        }
        // On the host, all of it is the user's.
        let id = home.0.id();
        for (path, owner) in owners(&home.0.home()) {
            assert_eq!(owner, id, "{}", path.display());
        }
        assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
        home.ok(&["image", "rm", "box", "new", "back"]);
        home.ok(&["image", "prune"]);
        assert_eq!(home.ok(&["image", "ls", "-q"]), "");
        assert!(home.ok(&["doctor", "--store"]).contains("0 images, 0 blobs"));
        home.assert_empty();
    }
}

/// Has root make an image with files of several owners, which it then knows nothing of any more; its archive.
fn image_of_many(home: &Home, commands: &str) -> String {
    let record = Record::new([]);
    record.ok(&["image", "build", "-t", "box", "--guest", "/bin/busybox"]);
    // Root of a jail may give nothing away, root of the host what is in the jail's folder.
    let script = format!("umask 0; mkdir -p /d; cd /d; {commands}");
    record.ok(&["run", "--name", "w", "--process", "box", "sh", "-c", &script]);
    let upper = record.ok(&["inspect", "--format", "{{.Jail.root.upper}}", "w"]);
    for (name, owner) in OWNERS {
        let path = Path::new(&upper).join("d").join(name);
        if path.symlink_metadata().is_ok() {
            std::os::unix::fs::lchown(path, Some(owner), Some(owner + 1)).expect("root gives it away");
        }
    }
    record.ok(&["commit", "w", "many"]);
    let archive = home.0.home().join("many.tar").display().to_string();
    record.ok(&["image", "export", "many", "-o", &archive, "-f", "oci-archive"]);
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).expect("a mode");
    archive
}

/// Files of such an image, and their owners; the group is one more.
const OWNERS: [(&str, u32); 6] = [
    ("closed", 5),
    ("open", 5),
    ("open/file", 5),
    ("link", 6),
    ("own", 0),
    ("far", 70_000),
];

const MAKE_MANY: &str = "mkdir -m 700 closed; mkdir -m 1777 open; echo x > open/file; ln -s open link; echo y > own";

/// Name and owner of what is there, as a process in the image sees it.
fn owners_inside(home: &Home, image: &str) -> Vec<(String, String)> {
    let listed = home.process_of(image, &["sh", "-c", "cd /d; ls -ldn * open/*"]);
    let mut owners: Vec<_> = listed
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[8].to_owned(), format!("{}:{}", words[2], words[3]))
        })
        .collect();
    owners.sort();
    owners
}

#[test]
fn files_of_a_users_images_show_the_owners_that_they_have() {
    if !busybox() {
        return;
    }
    let Some(home) = Home::new(true) else { return };
    let archive = image_of_many(&home, MAKE_MANY);
    home.ok(&["image", "import", &archive, "-t", "many"]);
    let owners_of_all = [
        ("closed", "5:6"),
        ("link", "6:7"),
        ("open", "5:6"),
        ("open/file", "5:6"),
        ("own", "0:1"),
    ]
    .map(|(name, owner)| (name.to_owned(), owner.to_owned()));
    assert_eq!(owners_inside(&home, "many"), owners_of_all);
    // Outside, they are of the user's other ids, and what is closed is closed.
    let subordinate = owners(&home.0.home().join("chiton/images/layers"))
        .into_iter()
        .filter(|(path, owner)| path.ends_with("d/open") && *owner == SUBORDINATE.0 + 4);
    assert_eq!(subordinate.count(), 1);
    let output = home.output(&["run", "--rm", "--process", "many", "ls", "/d/closed"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
    // What is changed is copied up, with its owner: it can be committed, compared and removed.
    let change = "echo more >> /d/open/file; echo new > /d/open/new";
    home.ok(&["run", "--name", "w", "--process", "many", "sh", "-c", change]);
    home.ok(&["commit", "w", "changed"]);
    home.ok(&["rm", "w"]);
    let changed = home.ok(&["image", "diff", "many", "changed"]);
    assert!(
        changed.contains("/d/open/file") && changed.contains("/d/open/new"),
        "{changed}"
    );
    let mut with_new = owners_of_all.to_vec();
    with_new.insert(4, ("open/new".into(), "0:0".into()));
    assert_eq!(owners_inside(&home, "changed"), with_new);
    assert_eq!(home.process_of("changed", &["cat", "/d/open/file"]), "x\nmore");
    assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
    home.ok(&["image", "rm", "many", "changed"]);
    home.ok(&["image", "prune"]);
    assert!(home.ok(&["doctor", "--store"]).contains("0 images, 0 blobs"));
    let left = home.0.home().join("chiton/images/layers");
    assert_eq!(fs::read_dir(left).expect("a folder").count(), 0);
    home.assert_empty();
}

#[test]
fn a_user_with_one_id_is_told_that_owners_are_lost() {
    if !busybox() {
        return;
    }
    let Some(home) = Home::new(false) else { return };
    let archive = image_of_many(&home, MAKE_MANY);
    home.ok(&["image", "import", &archive, "-t", "many"]);
    for how in [&["run", "--rm"][..], &["run", "-d", "--name", "w"]] {
        let output = home.output(&[how, &["--process", "many", "true"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("files of many:latest show root instead of their owners"),
            "{said}"
        );
    }
    home.ok(&["wait", "w"]);
    home.ok(&["rm", "w"]);
    let all = owners_inside(&home, "many");
    assert!(all.len() == 5 && all.iter().all(|(_, owner)| owner == "0:0"), "{all:?}");
    assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
    home.ok(&["image", "rm", "many"]);
    home.assert_empty();
}

#[test]
fn an_image_with_an_owner_that_a_user_does_not_have_is_refused_and_leaves_nothing() {
    if !busybox() {
        return;
    }
    let Some(home) = Home::new(true) else { return };
    let archive = image_of_many(&home, "echo x > far");
    home.ok(&["image", "import", &archive, "-t", "many"]);
    home.refused(
        &["run", "--rm", "--process", "many", "true"],
        "its owner 70000:70001 is none of this user's ids",
    );
    assert!(home.ok(&["doctor", "--store"]).starts_with("ok "));
    let left = home.0.home().join("chiton/images/tmp");
    assert_eq!(fs::read_dir(left).expect("a folder").count(), 0);
    home.ok(&["image", "rm", "many"]);
    home.assert_empty();
}

#[test]
fn volumes_are_the_users_and_no_more_than_the_users() {
    if !busybox() {
        return;
    }
    for home in Home::both() {
        home.image();
        let data = home.0.home().join("data");
        fs::create_dir(&data).expect("a folder");
        chown(&data, Some(home.0.id()), Some(home.0.id())).expect("an owner");
        let secret = data.join("secret");
        fs::write(&secret, "of root").expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
        let volume = format!("{}:/data", data.display());
        home.process(&["-v", &volume], &["sh", "-c", "echo mine > /data/mine"]);
        let about = fs::metadata(data.join("mine")).expect("it was written");
        assert_eq!(about.uid(), home.0.id());
        let output = home.output(&["run", "--rm", "--process", "-v", &volume, "box", "cat", "/data/secret"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
        let read_only = format!("{volume}:ro");
        let output = home.output(&["run", "--rm", "--process", "-v", &read_only, "box", "touch", "/data/x"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("Read-only"), "{said}");
        let said = home.guest(&["-v", &volume], &["files", "read", "data/mine"]);
        assert_eq!(said, "mine");
        home.assert_empty();
    }
}

#[test]
fn what_a_user_cannot_have_is_an_error_or_said() {
    let Some(home) = Home::new(false) else { return };
    let hello = home.0.guest("hello");
    let output = home.output(&["run", "--rm", &hello]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("without a cgroup, so with no limits and no accounts"),
        "{said}"
    );
    for limit in [["--memory-max", "64M"], ["--pids-max", "50"], ["--cpu-max", "0.5"]] {
        let words = "no permission to make cgroups";
        home.refused(&[&["run", "--rm"][..], &limit, &[&hello]].concat(), words);
    }
    for network in ["bridge", "host"] {
        home.refused(
            &["run", "--rm", "--network", network, &hello],
            "needs root: use --network user",
        );
    }
    home.assert_empty();
}

#[test]
fn limits_hold_where_cgroups_are_delegated_to_the_user() {
    let Some(mut home) = Home::new(false) else { return };
    let delegated = Delegated::to(home.0.id());
    home.0.enter_cgroups(&delegated.entered);
    let made = delegated.made.clone();
    home.1 = Some(delegated);
    let limits = ["--memory-max", "64M", "--pids-max", "50"];
    home.start("one", &limits, &["live"]);
    let stats = home.ok(&["stats", "--no-stream", "--json", "one"]);
    assert!(stats.contains("67108864"), "{stats}");
    let groups = home.says("one", "Jail.cgroup");
    for directory in made {
        assert!(groups.contains(&directory.display().to_string()), "{groups}");
    }
    home.ok(&["update", "--memory-max", "80M", "one"]);
    let stats = home.ok(&["stats", "--no-stream", "--json", "one"]);
    assert!(stats.contains("83886080"), "{stats}");
    home.ok(&["rm", "--force", "one"]);
    let output = home.output(&["run", "--rm", &home.0.guest("hello")]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is missing");
    home.assert_empty();
}

#[test]
fn namespaces_of_a_users_instances_are_entered_by_the_users_others() {
    if !busybox() {
        return;
    }
    for home in Home::both() {
        home.image();
        home.start("other", &[], &["live"]);
        let number = |kind: &str| home.says("other", &format!("Jail.namespaces.{kind}"));
        // In /proc of a jail of its own it sees itself; what it is in, the host's side says.
        for (word, kind) in [
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("user", "user"),
            ("cgroup", "cgroup"),
            ("time", "time"),
            ("pid", "pid"),
        ] {
            let option = format!("{word}=container:other");
            let link = format!("/proc/self/ns/{kind}");
            let said = home.process(&["--namespace", &option], &["readlink", &link]);
            assert_eq!(said, format!("{kind}:[{}]", number(kind)), "{option}");
            // What belongs to a user namespace cannot be had without it.
            let said = home.process(&["--namespace", &option], &["readlink", "/proc/self/ns/user"]);
            assert_eq!(said, format!("user:[{}]", number("user")), "{option}");
        }
        for kind in ["pid", "ipc", "uts"] {
            let option = [&*format!("--{kind}"), "container:other"];
            let said = home.process(&option, &["readlink", &format!("/proc/self/ns/{kind}")]);
            assert_eq!(said, format!("{kind}:[{}]", number(kind)), "{option:?}");
        }
        let option = ["--network", "container:other"];
        let said = home.process(&option, &["readlink", "/proc/self/ns/net"]);
        assert_eq!(said, format!("net:[{}]", number("net")));
        assert_eq!(
            home.process(&["--namespace", "uts=container:other"], &["hostname"]),
            "other"
        );
        // A guest, too, and all of them at once.
        let all = ["uts", "ipc", "pid", "user", "cgroup", "time"].map(|kind| format!("{kind}=container:other"));
        let all: Vec<_> = all.iter().flat_map(|option| ["--namespace", option]).collect();
        assert!(home.guest(&all, &["hello"]).starts_with("Hello"));
        // No more rights than any other has.
        let status = home.process(
            &all,
            &["grep", "-E", "^(CapEff|Seccomp|NoNewPrivs):", "/proc/self/status"],
        );
        for line in ["CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "{status}");
        }
        home.ok(&["rm", "--force", "other"]);
        home.assert_empty();
    }
}

#[test]
fn processes_of_a_users_share_a_network_and_what_runs_there() {
    if !busybox() {
        return;
    }
    let Some(home) = Home::with_network() else { return };
    home.image();
    home.start("web", &["--network", "user"], &["httpd"]);
    let beside = ["--network", "container:web"];
    let said = home.process(&beside, &["wget", "-q", "-O", "-", "http://10.87.0.2/"]);
    assert!(said.contains("<h1>Chiton</h1>"), "{said}");
    assert!(home.process(&beside, &["cat", "/etc/hosts"]).contains("10.87.0.2\tweb"));
    home.ok(&["rm", "--force", "web"]);
    // The other way round: a process that serves.
    let serve = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    home.ok(&[
        &["run", "-d", "--name", "files", "--process", "--network", "user", "box"],
        &serve[..],
    ]
    .concat());
    let beside = ["--network", "container:files", "--namespace", "pid=container:files"];
    let mut said = String::new();
    home.until("an answer", || {
        let options = [&["run", "--rm", "--process"], &beside[..], &["box"]].concat();
        let output = home.output(&[&options[..], &["wget", "-q", "-O", "-", "http://127.0.0.1/hosts"]].concat());
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    assert!(said.contains("files"), "{said}");
    // Processes of another jail are numbered among its own, and stay hidden: Landlock keeps jails apart.
    assert_ne!(home.process(&beside, &["sh", "-c", "echo $$"]), "2");
    home.ok(&["rm", "--force", "files"]);
    home.assert_empty();
}

#[test]
fn guests_of_a_users_share_a_network_each_with_an_address_of_its_own() {
    let Some(home) = Home::with_network() else { return };
    home.start("web", &["--network", "user"], &["httpd"]);
    let beside = ["--network", "container:web"];
    for web in ["web", "10.87.0.2"] {
        let said = home.guest(&beside, &["fetch", web]);
        assert!(said.contains("<h1>Chiton</h1>"), "{said}");
    }
    // Both that are there at once have another, and a third reaches them.
    home.start("second", &beside, &["httpd"]);
    home.start("third", &[&beside[..], &["--ip", "10.87.3.4"]].concat(), &["httpd"]);
    for (name, address) in [("second", "10.87.0.3"), ("third", "10.87.3.4")] {
        assert_eq!(home.says(name, "Jail.network.address"), address);
        let said = home.guest(&beside, &["fetch", address]);
        assert!(said.contains("<h1>Chiton</h1>"), "{said}");
    }
    // The way out is that of the first.
    let (port, serve) = serve_once("from the host\n");
    let said = home.guest(&beside, &["fetch", &host().to_string(), &port.to_string()]);
    assert_eq!(said, "from the host");
    serve.join().expect("it was asked");
    let fetch = home.0.guest("fetch");
    let refused = |options: &[&str], words: &str| {
        home.refused(&[&["run", "--rm"], options, &[&fetch, "web"]].concat(), words);
    };
    refused(
        &[&beside[..], &["-p", "8099:80"]].concat(),
        "ports lead to web, whose network it is",
    );
    refused(&[&beside[..], &["--ip", "10.87.3.4"]].concat(), "10.87.3.4");
    refused(&[&beside[..], &["--ip", "10.87.0.2"]].concat(), "10.87.0.2");
    refused(
        &[&beside[..], &["--ip", "192.0.2.1"]].concat(),
        "is not one for an instance",
    );
    home.start("alone", &[], &["live"]);
    refused(
        &["--network", "container:alone"],
        "alone has no network of its own with a bridge for guests",
    );
    home.ok(&["rm", "--force", "alone", "second", "third"]);
    // An address comes back, and what one that went had there is gone.
    home.start("again", &beside, &["httpd"]);
    assert_eq!(home.says("again", "Jail.network.address"), "10.87.0.3");
    home.ok(&["rm", "--force", "again", "web"]);
    home.assert_empty();
}

#[test]
fn namespaces_that_a_user_cannot_enter_are_refused_and_leave_nothing() {
    let Some(home) = Home::new(false) else { return };
    let hello = home.0.guest("hello");
    let joins = |options: &[&str], words: &str| {
        home.refused(&[&["run", "--rm"], options, &[&hello]].concat(), words);
    };
    home.start("one", &[], &["live"]);
    home.start("two", &[], &["live"]);
    joins(
        &["--namespace", "ipc=container:one", "--namespace", "uts=container:two"],
        "are in user namespaces of their own",
    );
    joins(
        &["--namespace", "ipc=container:one", "--namespace", "user=host"],
        "leave out --namespace user=host",
    );
    joins(&["--namespace", "ipc=container:nobody"], "there is no instance nobody");
    home.ok(&["kill", "two"]);
    home.ok(&["wait", "two"]);
    joins(
        &["--namespace", "ipc=container:two"],
        "its namespaces are gone; start it first",
    );
    // One that somebody else runs: here root, who has put it into the user's record.
    home.ok(&["rm", "--force", "one", "two"]);
    let root = chiton_tests::chiton_path();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&root);
        command
            .env_remove("CHITON_JAIL")
            .env("CHITON_HOME", home.0.home().join("chiton"));
        chiton_tests::ok(args, &command.args(args).output().expect("chiton starts"))
    };
    run(&[
        "run",
        "-d",
        "--name",
        "roots",
        &chiton_tests::guest_path("live").display().to_string(),
    ]);
    let id = home.0.id();
    for (path, _) in owners(&home.0.home()) {
        let given = std::os::unix::fs::lchown(&path, Some(id), Some(id));
        assert!(given.is_ok() || !path.exists(), "{given:?}");
    }
    let words = "the namespaces of roots can be entered by root and by who runs it only";
    joins(&["--namespace", "ipc=container:roots"], words);
    run(&["rm", "--force", "roots"]);
    home.assert_empty();
}

/// Cgroups that are a user's, as a service manager hands them out.
struct Delegated {
    made: Vec<PathBuf>,
    /// Where the user's processes are.
    entered: Vec<PathBuf>,
}

impl Delegated {
    fn to(user: u32) -> Self {
        let mut this = Self {
            made: Vec::new(),
            entered: Vec::new(),
        };
        let top = Path::new("/sys/fs/cgroup");
        let unified = top.join("cgroup.controllers").exists();
        let trees = match unified {
            true => vec![top.to_owned()],
            false => ["memory", "pids"].map(|controller| top.join(controller)).into(),
        };
        for tree in trees {
            let directory = tree.join(format!("chiton-test-{user}"));
            fs::create_dir(&directory).expect("a cgroup");
            let mut files = vec!["", "cgroup.procs"];
            if unified {
                // cgroup-v2.rst, "Delegation": these are the user's, and processes are in leaves.
                let _ = fs::write(tree.join("cgroup.subtree_control"), "+memory +pids");
                let leaf = directory.join("shell");
                fs::create_dir(&leaf).expect("a cgroup");
                for path in [leaf.clone(), leaf.join("cgroup.procs")] {
                    chown(path, Some(user), Some(user)).expect("an owner");
                }
                files.extend(["cgroup.subtree_control", "cgroup.threads"]);
                this.entered.push(leaf);
            } else {
                files.push("tasks");
                this.entered.push(directory.clone());
            }
            for file in files {
                chown(directory.join(file), Some(user), Some(user)).expect("an owner");
            }
            this.made.push(directory);
        }
        this
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in &self.made {
            for inner in ["chiton", "shell"] {
                let _ = fs::remove_dir(directory.join(inner));
            }
            let removed = fs::remove_dir(directory);
            if !thread::panicking() {
                removed.expect("nothing is left in it");
            }
        }
    }
}

#[test]
fn a_guest_of_a_users_reaches_the_host_and_is_reached_by_published_ports() {
    let Some(home) = Home::with_network() else { return };
    let (tcp, udp) = (free_port(), free_port());
    home.start("web", &["--network", "user", "-p", &format!("{tcp}:80")], &["httpd"]);
    let publish = format!("{udp}:7/udp");
    home.start("echo", &["--network", "user", "-p", &publish], &["netperf", "7", "udp"]);
    for address in [Ipv4Addr::LOCALHOST, host()] {
        assert!(ask(address, tcp, GET).contains("<h1>Chiton</h1>"), "{address}");
        assert_eq!(
            ask_by_datagram(SocketAddr::from((address, udp)), b"ping"),
            b"ping",
            "{address}"
        );
    }
    // The host, by its own address and by that of the gateway.
    for address in [host(), Ipv4Addr::new(10, 87, 0, 1)] {
        let (port, serve) = serve_once("from the host\n");
        let said = home.guest(
            &["--network", "user"],
            &["fetch", &address.to_string(), &port.to_string()],
        );
        assert_eq!(said, "from the host", "{address}");
        serve.join().expect("it was asked");
    }
    // What listens on the host's loopback device only is not for guests.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port().to_string();
    let fetch = home.0.guest("fetch");
    let output = home.output(&["run", "--rm", "--network", "user", &fetch, "10.87.0.1", &port]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // Another instance, by the host.
    let said = home.guest(&["--network", "user"], &["fetch", "10.87.0.1", &tcp.to_string()]);
    assert!(said.contains("<h1>Chiton</h1>"), "{said}");
    for name in ["web", "echo"] {
        home.ok(&["rm", "--force", name]);
    }
    home.until("the port that is free again", || {
        TcpListener::bind(("0.0.0.0", tcp)).is_ok()
    });
    home.assert_empty();
}

#[test]
fn a_process_of_a_users_reaches_the_host_and_is_reached_by_published_ports() {
    if !busybox() {
        return;
    }
    let Some(home) = Home::with_network() else { return };
    home.image();
    let (tcp, web) = (free_port(), ["httpd", "-f", "-p", "80", "-h", "/etc"]);
    let options = [
        "-d",
        "--name",
        "web",
        "--process",
        "--network",
        "user",
        "--ip",
        "10.87.3.4",
    ];
    let publish = format!("127.0.0.1:{tcp}:80");
    home.ok(&[&["run"], &options[..], &["-p", &publish, "box"], &web].concat());
    // It does not say when it listens.
    let mut said = String::new();
    home.until("an answer", || {
        said = ask(Ipv4Addr::LOCALHOST, tcp, "GET /hosts HTTP/1.0\r\n\r\n");
        said.contains("200 OK")
    });
    assert!(said.contains("10.87.3.4\tweb\n"), "{said}");
    let elsewhere = TcpStream::connect((host(), tcp));
    assert!(elsewhere.is_err(), "it is published on one address");
    for address in [host(), Ipv4Addr::new(10, 87, 0, 1)] {
        let (port, serve) = serve_once("HTTP/1.0 200 OK\r\n\r\nfrom the host\n");
        let url = format!("http://{address}:{port}/");
        let said = home.process(&["--network", "user"], &["wget", "-q", "-O", "-", &url]);
        assert_eq!(said, "from the host", "{address}");
        serve.join().expect("it was asked");
    }
    let devices = home.process(&["--network", "user", "--mtu", "1300"], &["ip", "link"]);
    assert!(devices.contains("eth0") && devices.contains("mtu 1300"), "{devices}");
    home.ok(&["stop", "web"]);
    home.ok(&["rm", "web"]);
    home.assert_empty();
}

#[test]
fn programs_of_the_host_reach_a_users_guest_by_a_socket() {
    let Some(home) = Home::new(false) else { return };
    let socket = home.0.home().join("socket");
    let option = socket.display().to_string();
    home.start("echo", &["--vsock", &option], &["sockets", "echo", "1234", "1"]);
    let mut stream = UnixStream::connect(&socket).expect("it is there");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(b"CONNECT 1234\n").expect("it reads");
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().expect("a second one"));
    reader.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("OK "), "{line}");
    stream.write_all(b"hello").expect("it reads");
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("an answer");
    assert_eq!(text, "hello");
    home.ok(&["wait", "echo"]);
    home.ok(&["rm", "echo"]);
    assert!(!socket.exists(), "the socket is left");
    home.assert_empty();
}

#[test]
fn a_guest_of_a_users_asks_the_dns_server_that_it_was_given() {
    let Some(home) = Home::with_network() else { return };
    let server = host();
    let socket = UdpSocket::bind((server, 53)).expect("port 53 of the host is free");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let serve = thread::spawn(move || {
        let mut bytes = [0; 512];
        let (len, from) = socket.recv_from(&mut bytes).expect("a question");
        // RFC 1035, 4.1: the same question, and one answer.
        let mut answer = bytes[..len].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[7] = 1;
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
        socket.send_to(&answer, from).expect("it goes out");
    });
    let dns = server.to_string();
    let options = ["--network", "user", "--dns", &dns, "--add-host", "db:10.9.8.7"];
    assert_eq!(home.guest(&options, &["fetch", "name", "moray.test"]), "192.0.2.77");
    serve.join().expect("it was asked");
    assert_eq!(home.guest(&options, &["fetch", "name", "db"]), "10.9.8.7");
    home.assert_empty();
}

#[test]
fn whoever_kills_a_supervisor_leaves_nothing_of_its_network() {
    let Some(home) = Home::with_network() else { return };
    let port = free_port();
    home.start("web", &["--network", "user", "-p", &format!("{port}:80")], &["httpd"]);
    assert!(
        home.0.processes().iter().any(|name| name.contains("pas")),
        "the helper runs"
    );
    let supervisor: i32 = home.says("web", "State.supervisor").parse().expect("a process");
    // SAFETY: no memory is involved; the process is the supervisor that was just started.
    assert_eq!(unsafe { libc::kill(supervisor, libc::SIGKILL) }, 0);
    home.until("the end of all", || home.0.processes().is_empty());
    home.start("next", &["--network", "user", "-p", &format!("{port}:80")], &["httpd"]);
    assert!(ask(Ipv4Addr::LOCALHOST, port, GET).contains("Chiton"));
    home.ok(&["rm", "--force", "next", "web"]);
    home.assert_empty();
}

#[test]
fn a_network_of_a_users_that_cannot_be_is_refused_and_leaves_nothing() {
    let Some(home) = Home::with_network() else { return };
    let hello = home.0.guest("hello");
    let user = |options: &[&str], words: &str| {
        home.refused(
            &[&["run", "--rm", "--network", "user"], options, &[&hello]].concat(),
            words,
        );
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").port();
    user(&["-p", &format!("{taken}:80")], "is in use");
    user(&["-p", "80:80"], "is root's");
    user(&["--ip", "192.0.2.1"], "is not one for an instance");
    user(&["--ip", "10.87.0.1"], "is not one for an instance");
    let mut without = home.0.chiton();
    without
        .env("PATH", "/nowhere")
        .args(["run", "--rm", "--network", "user", &hello]);
    let output = without.output().expect("chiton starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("needs the program pasta"),
        "{said}"
    );
    home.assert_empty();
}
