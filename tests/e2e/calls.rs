//! A guest that is a function: called, put back, and called again.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use chiton_kvm::{CallError, Ending, Guest, Pool, PoolError, PoolOptions};
use chiton_tests::{Chiton, Folder, PATIENCE, Run, few, guest_path, hardware_kvm, kvm_works, slow};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

fn guest(name: &str) -> Guest {
    Guest::open(guest_path(name)).expect("run these tests by `cargo xtask test`")
}

fn pool(name: &str, options: PoolOptions) -> Pool {
    Pool::new(guest(name), options).expect("a pool")
}

/// A reply as text.
fn ask(pool: &Pool, request: &str) -> String {
    let reply = pool
        .call(request.as_bytes())
        .unwrap_or_else(|error| panic!("{request}: {error}"));
    String::from_utf8(reply.bytes).expect("text")
}

/// `chiton call --json` with these arguments.
fn json(arguments: &[&str]) -> Value {
    let run = Chiton::new()
        .args(["call", "--json"])
        .args(arguments)
        .guest("function")
        .run();
    run.assert_status(0);
    serde_json::from_str(&run.stdout_text()).expect("JSON")
}

/// Runs it again as long as the guest is not ready within its time, which is that of a call too: a busy machine may take
/// longer to start one.
fn ready_in_time(call: impl Fn() -> Chiton) -> Run {
    let began = Instant::now();
    loop {
        let run = call().run();
        if !run.stderr_text().contains("the guest never became ready to be called") {
            return run;
        }
        assert!(began.elapsed() < PATIENCE, "{run}");
    }
}

#[test]
fn a_reply_is_written_byte_for_byte() {
    if !kvm_works() {
        return;
    }
    let all: Vec<u8> = (0..=255).collect();
    let request = [b"echo ".as_slice(), &all].concat();
    let run = Chiton::new()
        .args(["call"])
        .guest("function")
        .stdin(request.clone())
        .run();
    run.assert_status(0);
    assert_eq!(run.stdout, all);
    assert!(run.stderr.is_empty(), "{run}");
    let folder = Folder::new();
    let file = folder.path("request");
    std::fs::write(&file, &request).expect("a new file");
    let run = Chiton::new()
        .args(["call", "--file"])
        .args([&file])
        .guest("function")
        .run();
    assert_eq!(run.stdout, all);
}

#[test]
fn each_call_finds_the_guest_as_it_was_and_a_warm_one_does_not() {
    if !kvm_works() {
        return;
    }
    let times = if slow() { "20" } else { "500" };
    let cold = json(&["-n", times, "-i", "count"]);
    assert_eq!(
        (&cold["reply"]["text"], &cold["changes"]),
        (&"1".into(), &0.into()),
        "{cold}"
    );
    let warm = json(&["-n", times, "--warm", "-i", "count"]);
    assert_eq!(warm["reply"]["text"], times, "{warm}");
}

#[test]
fn calls_from_many_threads_are_kept_apart() {
    if !kvm_works() {
        return;
    }
    let times = if slow() { "20" } else { "2000" };
    let all = json(&["-n", times, "--parallel", "4", "-i", "count"]);
    assert_eq!((&all["failed"], &all["changes"]), (&0.into(), &0.into()), "{all}");
    assert_eq!(all["calls"].to_string(), times);
}

#[test]
fn random_numbers_are_never_repeated() {
    if !kvm_works() {
        return;
    }
    let pool = pool(
        "function",
        PoolOptions {
            size: 2,
            ..PoolOptions::default()
        },
    );
    pool.fill().expect("two machines");
    let count = if slow() { 5 } else { 200 };
    for what in ["random", "entropy"] {
        let seen: BTreeSet<_> = thread::scope(|scope| {
            let one = || (0..count).map(|_| ask(&pool, what)).collect::<Vec<_>>();
            let other = scope.spawn(one);
            let mut all = one();
            all.extend(other.join().expect("no panic"));
            all.into_iter().collect()
        });
        assert_eq!(seen.len(), 2 * count, "{what}");
    }
}

#[test]
fn time_goes_on_from_call_to_call_and_in_new_machines() {
    if !kvm_works() {
        return;
    }
    let pool = pool("function", PoolOptions::default());
    let uptime = || ask(&pool, "uptime").parse::<u64>().expect("nanoseconds");
    let (began, first) = (Instant::now(), uptime());
    assert!(pool.call(b"exit").is_err());
    let (second, passed) = (uptime(), began.elapsed().as_nanos() as u64);
    assert!(second > first, "{first} {second}");
    // Both clocks were read within `passed`, and no machine runs twice as quickly.
    assert!(second - first < 2 * passed + 1_000_000, "{first} {second} {passed}");
}

#[test]
fn nothing_that_a_call_leaves_is_found_by_the_next() {
    if !kvm_works() {
        return;
    }
    let limit = PoolOptions {
        timeout: Some(Duration::from_secs(60)),
        ..PoolOptions::default()
    };
    let pool = pool("residue", limit.clone());
    assert_eq!(ask(&pool, "look"), "");
    for how in ["leave", "leave elsewhere", "leave segments", "leave trap", "leave"] {
        // With the trap flag set the guest may meet a trap instead: then another machine is next.
        let left = pool.call(how.as_bytes());
        assert!(left.is_ok() || how == "leave trap", "{how}: {left:?}");
        assert_eq!(pool.first_difference().expect("a machine"), None, "{how}");
        for _ in 0..2 {
            assert_eq!(ask(&pool, "look"), "", "{how}");
        }
    }
    // It does find something where something is left.
    let warm = Pool::new(guest("residue"), PoolOptions { keep: true, ..limit }).expect("a pool");
    ask(&warm, "leave");
    let found = ask(&warm, "look");
    let places = [
        "the mailbox",
        "the queues",
        "statics",
        "the stack",
        "the heap",
        "rbx",
        "r15",
        "flags",
        "sse",
    ];
    for place in places {
        assert!(found.contains(place), "{place}: {found}");
    }
    assert!(warm.first_difference().expect("a machine").is_some());
}

#[test]
fn memory_is_put_back_byte_for_byte_whatever_was_called() {
    if !kvm_works() {
        return;
    }
    let pool = pool("function", PoolOptions::default());
    let request = prop_oneof![
        (0_usize..400).prop_map(|pages| format!("touch {pages}")),
        (0_usize..200_000).prop_map(|bytes| format!("grow {bytes}")),
        "[ -~]{0,3000}".prop_map(|text| format!("echo {text}")),
        "[ -~]{0,300}".prop_map(|text| format!("print {text}")),
        "[ -~]{0,300}".prop_map(|text| format!("sha256 {text}")),
        Just("entropy".to_owned()),
        Just("random".to_owned()),
        Just("fail so".to_owned()),
    ];
    let (cases, most) = if slow() { (1, 4) } else { (12, 8) };
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let some = prop::collection::vec(request, 1..most);
    let outcome = runner.run(&some, |requests| {
        for request in requests {
            let result = pool.call(request.as_bytes());
            prop_assert!(matches!(result, Ok(_) | Err(CallError::Failed { .. })), "{:?}", result);
            prop_assert_eq!(pool.first_difference().expect("a machine"), None);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_guest_that_writes_much_once_is_watched_anew_after_a_while() {
    if !kvm_works() {
        return;
    }
    let timed = PoolOptions {
        timed: true,
        ..PoolOptions::default()
    };
    let pool = pool("function", timed);
    ask(&pool, "touch 1500");
    let pages = |request: &str| {
        pool.call(request.as_bytes())
            .expect("a reply")
            .phases
            .expect("timed")
            .pages
    };
    assert!(pages("count") >= 1500);
    let then = (0..600).fold(0, |_, _| pages("count"));
    assert!(then < 100, "{then}");
    assert_eq!(pool.first_difference().expect("a machine"), None);
}

#[test]
fn every_end_but_a_reply_is_told_in_words_and_by_its_status() {
    if !kvm_works() {
        return;
    }
    for (request, limit, status, words) in [
        (
            "fail for this reason",
            "100s",
            7,
            "the function failed with 7: for this reason",
        ),
        ("panic", "100s", 101, "panicked: asked to, at function/src/main.rs"),
        ("fault", "100s", 102, "null pointer write at offset 0x10"),
        ("exit", "100s", 102, "it ended with code 3"),
        ("hang", "500ms", 124, "its time of 500ms was up"),
        ("wait", "500ms", 124, "its time of 500ms was up"),
    ] {
        let run = ready_in_time(|| {
            Chiton::new()
                .args(["call", "-t", limit, "-i", request])
                .guest("function")
        });
        run.assert_status(status);
        run.assert_says(words);
        assert!(run.stdout.is_empty(), "{run}");
    }
    let run = Chiton::new().args(["call", "-i", "wait"]).guest("function").run();
    run.assert_status(102);
    run.assert_says("it waits for ever, and nothing can wake it");
}

#[test]
fn a_call_that_ends_badly_does_no_harm_to_others() {
    if !kvm_works() {
        return;
    }
    let limit = Duration::from_millis(if slow() { 5000 } else { 300 });
    let options = PoolOptions {
        size: 2,
        timeout: Some(limit),
        ..PoolOptions::default()
    };
    let began = Instant::now();
    // The time of a call may be too short for a start, or for what ends at once, on a machine that has others to run.
    let late = |ending: &Ending| matches!(ending, Ending::Timeout { .. }) && began.elapsed() < PATIENCE;
    let pool = loop {
        match Pool::new(guest("function"), options.clone()) {
            Err(PoolError::NotReady(ending)) if late(&ending) => {}
            made => break made.expect("a pool"),
        }
    };
    let count = || loop {
        match pool.call(b"count") {
            Err(CallError::Ended(ending)) if late(&ending) => {}
            reply => break String::from_utf8(reply.expect("a reply").bytes).expect("text"),
        }
    };
    for request in few(&["panic", "fault", "exit", "hang", "wait", "panic", "fail so"], 4) {
        let error = pool.call(request.as_bytes()).expect_err(request);
        assert!(
            matches!(error, CallError::Ended(_) | CallError::Failed { .. }),
            "{request}: {error}"
        );
        for _ in 0..3 {
            assert_eq!(count(), "1", "after {request}");
        }
    }
    let too_long = vec![b' '; pool.room() as usize + 1];
    let error = pool.call(&too_long).expect_err("no room");
    assert_eq!(
        error.to_string(),
        "the request has 65537 bytes, and the guest has room for 65536"
    );
    let whole = [b"echo ".as_slice(), &too_long[6..]].concat();
    let reply = loop {
        match pool.call(&whole) {
            Err(CallError::Ended(ending)) if late(&ending) => {}
            reply => break reply.expect("it fits"),
        }
    };
    assert_eq!(reply.bytes.len(), whole.len() - 5);
}

#[test]
fn what_a_function_prints_goes_to_standard_error_and_its_log_too() {
    if !kvm_works() {
        return;
    }
    for (request, words) in [
        ("print some words", "some words"),
        ("say some words", "function: warning: some words"),
    ] {
        let run = Chiton::new().args(["call", "-i", request]).guest("function").run();
        run.assert_status(0);
        assert!(run.stdout.is_empty() && run.stderr_text().contains(words), "{run}");
    }
}

#[test]
fn what_cannot_be_called_is_refused_with_the_reason() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["call", "-i", "x"]).guest("hello").run();
    run.assert_status(125);
    run.assert_says("hello ended with code 0 instead of waiting for a call: is it a function?");
    let run = Chiton::new()
        .args(["call", "-i", "x", "-t", "300ms"])
        .guest("fault")
        .args(["loop"])
        .run();
    run.assert_status(125);
    run.assert_says("the guest never became ready to be called: its time of 300ms was up");
    let run = Chiton::new()
        .args(["call", "-i", "x", "--file", "y"])
        .guest("function")
        .run();
    run.assert_status(125);
    run.assert_says("cannot be used with");
    let run = Chiton::new()
        .args(["call", "--file", "/nonexistent"])
        .guest("function")
        .run();
    run.assert_refused("cannot read the request /nonexistent: No such file or directory");
    // The other way round: nobody calls it.
    let run = Chiton::new().args(["run"]).guest("function").run();
    run.assert_status(102);
    run.assert_says("it is a function that waits to be called, and nobody calls it: use `chiton call`");
    let two = guest("function").processors(2);
    let error = Pool::new(two, PoolOptions::default()).expect_err("two processors");
    assert!(
        matches!(error, PoolError::Refused("processors beyond the first")),
        "{error}"
    );
    let panics = Pool::new(guest("fault").arg("panic"), PoolOptions::default()).expect_err("it panics");
    assert!(matches!(panics, PoolError::NotReady(Ending::Panic { .. })), "{panics}");
}

#[test]
fn in_ring_0_each_call_has_a_machine_of_its_own() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["call", "-n", "5", "--json", "--ring", "0", "-i", "count"])
        .guest("function")
        .run();
    if hardware_kvm() {
        run.assert_status(0);
        let all: Value = serde_json::from_str(&run.stdout_text()).expect("JSON");
        assert_eq!(
            (&all["reply"]["text"], &all["changes"]),
            (&"1".into(), &0.into()),
            "{all}"
        );
    } else {
        run.assert_refused("cannot run in ring 0");
    }
}

#[test]
fn a_jail_allows_all_that_calls_take() {
    if !kvm_works() {
        return;
    }
    let home = Folder::new();
    let times = if slow() { "20" } else { "600" };
    for request in ["touch 300", "print x", "entropy", "say x"] {
        let run = Chiton::new()
            .jailed(&home.path("home"))
            .args(["call", "-n", times, "-p", "3", "-t", "60s", "--json", "-i", request])
            .guest("function")
            .run();
        run.assert_status(0);
        let all: Value = serde_json::from_str(&run.stdout_text()).expect("JSON");
        assert_eq!(all["calls"].to_string(), times, "{all}");
    }
    for (request, limit, status) in [
        ("hang", "500ms", 124),
        ("wait", "500ms", 124),
        ("panic", "100s", 101),
        ("fault", "100s", 102),
    ] {
        let run = ready_in_time(|| {
            Chiton::new()
                .jailed(&home.path("home"))
                .args(["call", "-n", "3", "-p", "2", "-t", limit, "-i", request])
                .guest("function")
        });
        run.assert_status(status);
    }
}
