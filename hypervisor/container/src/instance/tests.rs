//! Instances that are ordinary processes, and supervisors that die.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::SigSet;

use super::home::Mark;
use super::supervise::Payload;
use super::*;
use crate::lock::until;

/// Who starts a shell. One that another test starts meanwhile would have the ends of this one's pipes too, until it runs
/// its program: the end of its output would come late.
static ALONE: Mutex<()> = Mutex::new(());

/// A shell script as an instance.
struct Script {
    text: &'static str,
    stdin: bool,
    /// Whether it keeps its outputs open until it ends.
    ends_with_its_output: bool,
    taken_down: u32,
    /// What was on the list when it was taken down.
    listed: usize,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            stdin: false,
            ends_with_its_output: false,
            taken_down: 0,
            listed: 0,
        }
    }
}

impl Payload for Script {
    type Error = InstanceError;

    fn start(&mut self, _: &Instance) -> Result<Child, InstanceError> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", self.text])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.stdin(if self.stdin { Stdio::piped() } else { Stdio::null() });
        // SAFETY: setting the signal mask allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
        }
        let mut child = {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            command.spawn().map_err(InstanceError::system("start a shell"))?
        };
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        let stdin = child.stdin.take().map(OwnedFd::from);
        if let Some(stdin) = &stdin {
            rustix::io::ioctl_fionbio(stdin, true).map_err(InstanceError::system("set up a pipe"))?;
        }
        Ok(Child {
            pid: child.id(),
            pidfd: pidfd.map_err(InstanceError::system("open a process"))?,
            stdin,
            stdout: child.stdout.take().map(Into::into),
            stderr: child.stderr.take().map(Into::into),
        })
    }

    fn ends_with_its_output(&self) -> bool {
        self.ends_with_its_output
    }

    fn take_down(&mut self, instance: &Instance) -> Result<(), InstanceError> {
        self.taken_down += 1;
        self.listed = instance.home().list()?.len();
        Ok(())
    }
}

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(folder.path().join("home")).unwrap();
    (folder, home)
}

fn spec(name: &str) -> Spec {
    Spec::new(Name::new(name).unwrap())
}

fn run(instance: &Instance, script: &mut Script) -> Result<Exit, InstanceError> {
    let live = instance.claim()?;
    let outputs = Outputs::new(None);
    Supervisor::new(instance.clone(), live, outputs)?.run(script, |_| {})
}

fn log(instance: &Instance) -> Vec<(Stream, String)> {
    let mut reader = instance.log().unwrap();
    std::iter::from_fn(|| reader.next_line().unwrap())
        .map(|line| (line.stream, line.log))
        .collect()
}

fn kinds(home: &Home) -> Vec<EventKind> {
    home.events().unwrap().into_iter().map(|event| event.kind).collect()
}

#[test]
fn an_instance_runs_and_its_output_and_status_are_kept() {
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    assert_eq!(instance.status().unwrap(), Status::Created);
    let mut script = Script::new("echo out; echo err >&2; exit 3");
    let exit = run(&instance, &mut script).unwrap();
    assert_eq!((exit.code, exit.killer), (3, None));
    let mut lines = log(&instance);
    lines.sort_by_key(|line| line.0 as u8);
    assert_eq!(
        lines,
        [(Stream::Stdout, "out\n".into()), (Stream::Stderr, "err\n".into())]
    );
    let state = instance.state().unwrap();
    assert_eq!((state.status, state.pid, script.taken_down), (Status::Exited, None, 1));
    until(|| !instance.is_live());
    assert_eq!(kinds(&home), [EventKind::Create, EventKind::Start, EventKind::Die]);
}

#[test]
fn one_that_was_begun_is_found_when_it_is_registered_and_not_before() {
    let (_folder, home) = home();
    let (instance, live) = home.begin(spec("a")).unwrap();
    assert!(home.list().unwrap().is_empty() && home.find("a").is_err());
    assert!(home.find(&instance.id().to_string()).is_err());
    assert_eq!(home.tidy().unwrap(), 0, "it is being made");
    assert_eq!(home.sweep(9, |_| Ok::<_, InstanceError>(())).unwrap(), 0);
    instance.register().unwrap();
    assert_eq!(home.find("a").unwrap().id(), instance.id());
    drop(live);
    until(|| home.remove(&instance).is_ok());
    assert_eq!(kinds(&home), [EventKind::Create, EventKind::Remove]);
}

#[test]
fn of_one_that_was_begun_by_who_died_nothing_is_left() {
    let (_folder, home) = home();
    let left = |what| fs::read_dir(home.path().join(what)).unwrap().count();
    let (instance, live) = home.begin(spec("a")).unwrap();
    fs::create_dir(instance.dir().join("root")).unwrap();
    drop(live);
    let clean = |_: &Instance| -> Result<(), InstanceError> { panic!("nothing was made for it") };
    until(|| {
        home.sweep(9, clean).unwrap();
        (left("instances"), left("live"), left("names")) == (0, 0, 0)
    });
    // As a loss of power may leave one.
    let (instance, live) = home.begin(spec("a")).unwrap();
    drop(live);
    fs::remove_file(home.path().join("live").join(instance.id().to_string())).unwrap();
    let mut tidied = 0;
    until(|| {
        tidied += home.tidy().unwrap();
        left("instances") == 0
    });
    assert_eq!(tidied, 1);
}

#[test]
fn a_name_that_somebody_took_meanwhile_is_refused_and_stays_theirs() {
    let (_folder, home) = home();
    let (instance, live) = home.begin(spec("a")).unwrap();
    let other = home.create(spec("a")).unwrap();
    assert!(matches!(home.begin(spec("a")), Err(InstanceError::NameTaken { .. })));
    assert!(matches!(instance.register(), Err(InstanceError::NameTaken { .. })));
    drop(live);
    until(|| home.remove(&instance).is_ok());
    assert_eq!(home.find("a").unwrap().id(), other.id());
    assert_eq!(home.list().unwrap().len(), 1);
}

#[test]
fn a_signal_that_ended_it_is_in_the_record() {
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    let exit = run(&instance, &mut Script::new("kill -TERM $$")).unwrap();
    assert_eq!((exit.code, exit.killer), (128 + 15, Some(Killer::Signal(15))));
}

#[test]
fn a_policy_starts_it_again_and_gives_up_as_it_says() {
    let (_folder, home) = home();
    let restart = RestartPolicy::OnFailure(Some(2));
    let instance = home.create(Spec { restart, ..spec("a") }).unwrap();
    let mut script = Script::new("echo again; exit 1");
    let exit = run(&instance, &mut script).unwrap();
    assert_eq!((exit.code, script.taken_down), (1, 3));
    assert_eq!(log(&instance).len(), 3);
    assert_eq!(instance.state().unwrap().restarts, 2);
}

#[test]
fn what_was_stopped_by_hand_is_not_started_again() {
    let (_folder, home) = home();
    let restart = RestartPolicy::Always { unless_stopped: false };
    let instance = home.create(Spec { restart, ..spec("a") }).unwrap();
    let live = instance.claim().unwrap();
    let supervisor = Supervisor::new(instance.clone(), live, Outputs::new(None)).unwrap();
    let exit = supervisor.run(&mut Script::new("exit 0"), |instance| {
        instance.mark(Mark::Stop, true).unwrap()
    });
    assert_eq!(exit.unwrap().code, 0);
}

#[test]
fn one_that_is_to_be_removed_leaves_nothing() {
    let (_folder, home) = home();
    let instance = home
        .create(Spec {
            remove: true,
            ..spec("a")
        })
        .unwrap();
    run(&instance, &mut Script::new("true")).unwrap();
    assert!(home.list().unwrap().is_empty());
    for folder in ["names", "live", "instances"] {
        assert_eq!(fs::read_dir(home.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn the_record_of_one_that_has_closed_its_outputs_goes_before_it_and_it_does_not_go_on() {
    // One that is no machine may close its outputs and go on; the others end with them, and their status is their own.
    for (text, ends_with_its_output, remove, expected) in [
        ("exit 3", true, true, (3, None)),
        (
            "exec >&- 2>&-; exec sleep 1000",
            true,
            true,
            (128 + 9, Some(Killer::Signal(9))),
        ),
        ("exec >&- 2>&-; exit 4", false, true, (4, None)),
        ("exit 5", true, false, (5, None)),
    ] {
        let (_folder, home) = home();
        let instance = home.create(Spec { remove, ..spec("a") }).unwrap();
        let mut script = Script {
            ends_with_its_output,
            ..Script::new(text)
        };
        let exit = run(&instance, &mut script).unwrap();
        assert_eq!((exit.code, exit.killer), expected, "{text}");
        let early = ends_with_its_output && remove;
        assert_eq!(script.listed, usize::from(!early), "{text}");
        assert_eq!(home.list().unwrap().len(), usize::from(!remove), "{text}");
        let removed = kinds(&home).contains(&EventKind::Remove);
        assert_eq!(removed, remove, "{text}");
        until(|| !instance.is_live());
    }
}

#[test]
fn who_is_attached_sees_output_and_gives_input() {
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    let mut script = Script {
        stdin: true,
        ..Script::new("read line; echo \"got $line\"")
    };
    let other = Cell::new(None);
    let live = instance.claim().unwrap();
    let supervisor = Supervisor::new(instance.clone(), live, Outputs::new(None)).unwrap();
    let exit = supervisor.run(&mut script, |instance| {
        let mut stream = Outputs::attach(instance).unwrap();
        other.set(Some(std::thread::spawn(move || {
            stream.write_all(b"hello\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })));
    });
    assert_eq!(exit.unwrap().code, 0);
    assert_eq!(other.take().unwrap().join().unwrap(), "got hello\n");
}

#[test]
fn a_start_that_fails_leaves_the_instance_as_it_was() {
    struct Never;
    impl Payload for Never {
        type Error = InstanceError;
        fn start(&mut self, _: &Instance) -> Result<Child, InstanceError> {
            Err(InstanceError::NotFound("a part".into()))
        }
        fn take_down(&mut self, _: &Instance) -> Result<(), InstanceError> {
            Ok(())
        }
    }
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    let live = instance.claim().unwrap();
    let supervisor = Supervisor::new(instance.clone(), live, Outputs::new(None)).unwrap();
    assert!(supervisor.run(&mut Never, |_| panic!("it never ran")).is_err());
    assert_eq!(instance.status().unwrap(), Status::Created);
    until(|| !instance.is_live());
}

#[test]
fn names_are_unique_and_free_again_when_their_owner_is_gone() {
    let (_folder, home) = home();
    let first = home.create(spec("a")).unwrap();
    let error = home.create(spec("a")).unwrap_err().to_string();
    assert!(
        error.contains("the name a is taken by") && error.contains(first.id().short()),
        "{error}"
    );
    let mut second = home.create(spec("was")).unwrap();
    assert!(home.rename(&mut second, Name::new("a").unwrap()).is_err());
    home.rename(&mut second, Name::new("c").unwrap()).unwrap();
    assert_eq!(home.find("c").unwrap().id(), second.id());
    assert!(home.find("was").is_err());
    home.remove(&first).unwrap();
    home.rename(&mut second, Name::new("a").unwrap()).unwrap();
    assert_eq!(home.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(home.path().join("instances")).unwrap().count(), 1);
}

#[test]
fn instances_are_found_by_name_and_by_the_beginning_of_an_id() {
    let (_folder, home) = home();
    let all: Vec<_> = (0..40).map(|n| home.create(spec(&format!("n{n}"))).unwrap()).collect();
    for instance in &all {
        assert_eq!(home.find(instance.id().as_str()).unwrap().id(), instance.id());
        assert_eq!(home.find(instance.id().short()).unwrap().id(), instance.id());
    }
    // More than sixteen IDs cannot all begin differently.
    let ambiguous = (0..16).any(|digit| {
        let error = home.find(&format!("{digit:x}"));
        error.is_err_and(|error| error.to_string().contains("is the beginning of"))
    });
    assert!(ambiguous);
    assert!(home.find("").is_err() && home.find("../lock").is_err());
}

#[test]
fn a_second_supervisor_is_refused_and_a_living_instance_is_not_removed() {
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    let live = instance.claim().unwrap();
    assert!(matches!(instance.claim(), Err(InstanceError::Busy(_))));
    assert!(home.remove(&instance).is_err());
    drop(live);
    until(|| home.remove(&instance).is_ok());
}

#[test]
fn what_a_dead_supervisor_left_is_swept_once() {
    let (_folder, home) = home();
    let instance = home.create(spec("a")).unwrap();
    let gone = home
        .create(Spec {
            remove: true,
            ..spec("gone")
        })
        .unwrap();
    for instance in [&instance, &gone] {
        instance
            .set_state(&State {
                status: Status::Running,
                ..State::default()
            })
            .unwrap();
        // As a process that is killed: the lock goes, the mark stays.
        drop(instance.claim().unwrap());
    }
    let alive = home.create(spec("alive")).unwrap();
    let live = alive.claim().unwrap();
    until(|| instance.status().unwrap() == Status::Exited);
    let mut cleaned = Vec::new();
    let mut sweep = || {
        home.sweep(usize::MAX, |instance| {
            cleaned.push(instance.name().to_string());
            Ok::<_, InstanceError>(())
        })
    };
    let mut swept = 0;
    until(|| {
        swept += sweep().unwrap();
        swept == 2
    });
    assert_eq!(sweep().unwrap(), 0);
    cleaned.sort();
    assert_eq!(cleaned, ["a", "gone"]);
    let exit = instance.state().unwrap().exit.unwrap();
    assert_eq!((exit.code, exit.killer), (137, Some(Killer::Unknown)));
    assert!(home.find("gone").is_err());
    drop(live);
}

#[test]
fn a_name_that_leads_nowhere_is_free_and_is_tidied_away() {
    let (_folder, home) = home();
    let name = home.path().join("names/a");
    std::os::unix::fs::symlink(Id::random().unwrap().packed(), &name).unwrap();
    assert_eq!(home.tidy().unwrap(), 1);
    assert!(fs::symlink_metadata(&name).is_err());
    std::os::unix::fs::symlink("../../../etc", &name).unwrap();
    home.create(spec("a")).unwrap();
}
