//! Guests on more than one processor.

use chiton_tests::{Chiton, few, finish, kvm_works, signal_late};

#[test]
fn work_is_shared_among_all_processors() {
    if !kvm_works() {
        return;
    }
    // Another processor may not get there before all is done: who runs when is the host's affair.
    let share = |count: &str| {
        let run = Chiton::new()
            .args(["run", "--exits", "--cpus", count])
            .guest("parallel")
            .args(["16"])
            .run();
        run.assert_status(0);
        let others = count.parse::<u64>().expect("a number") - 1;
        assert_eq!(run.exits("doorbell start"), others, "{run}");
        // The guest may end before the last of them has parked.
        assert!(
            run.exits("doorbell park") <= others && run.exits("doorbell wake") <= others,
            "{run}"
        );
        let text = run.stdout_text();
        let list = text.split(['[', ']']).nth(1).expect("how many pieces each did");
        let each: Vec<u32> = list.split(", ").map(|n| n.parse().expect("a number")).collect();
        assert_eq!(each.iter().sum::<u32>(), 16, "{run}");
        assert_eq!(each.len() as u64, others + 1, "{run}");
        each.iter().filter(|pieces| **pieces > 0).count() >= 2
    };
    for count in few(&["2", "4"], 1) {
        assert!((0..10).any(|_| share(count)), "of {count}, one does all");
    }
}

#[test]
fn processors_that_are_never_started_are_never_made() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new()
        .args(["run", "--exits", "--cpus", "32"])
        .guest("hello")
        .run();
    run.assert_status(0);
    assert_eq!(run.exits("doorbell start"), 0);
}

#[test]
fn the_guest_is_refused_processors_it_does_not_have() {
    if !kvm_works() {
        return;
    }
    for (count, number) in [("1", "1"), ("2", "0"), ("2", "2")] {
        let run = Chiton::new()
            .args(["run", "--cpus", count])
            .guest("fault")
            .args(["exit", number])
            .run();
        run.assert_status(3);
        assert!(run.stdout_text().contains("there is no processor"), "{run}");
    }
}

#[test]
fn there_are_1_to_32_processors_and_memory_for_their_stacks() {
    for count in ["0", "33", "many"] {
        let run = Chiton::new().args(["run", "--cpus", count]).guest("hello").run();
        run.assert_status(125).assert_says("--cpus <N>");
    }
    if kvm_works() {
        let run = Chiton::new()
            .args(["run", "--cpus", "32", "--memory", "4M"])
            .guest("hello")
            .run();
        run.assert_refused("this guest needs at least");
    }
}

#[test]
fn a_fault_on_any_processor_is_explained() {
    if !kvm_works() {
        return;
    }
    let on_processor_1 = |cause| {
        let chiton = Chiton::new().args(["run", "--cpus", "2", "--timeout", "60s"]);
        chiton.guest("fault").args([cause, "1"]).run()
    };
    on_processor_1("divide")
        .assert_status(102)
        .assert_says("divide error")
        .assert_says("fault::divide");
    on_processor_1("null-read").assert_status(102).assert_says("null page");
    on_processor_1("stack-overflow")
        .assert_status(102)
        .assert_says("stack overflow");
    on_processor_1("panic")
        .assert_status(101)
        .assert_says("index out of bounds");
    on_processor_1("exit").assert_status(9);
}

#[test]
fn the_first_processor_cannot_park() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run"]).guest("fault").args(["park"]).run();
    run.assert_status(102).assert_says("parked its first processor");
}

#[test]
fn a_processor_that_spins_ends_with_the_guest() {
    if !kvm_works() {
        return;
    }
    let spinning = |limit| {
        Chiton::new()
            .args(["run", "--cpus", "3", "--timeout", limit])
            .guest("fault")
            .args(["loop", "1"])
    };
    spinning("1s").run().assert_status(124);
    let child = spinning("100s").spawn();
    signal_late(&child, libc::SIGTERM, std::time::Duration::from_millis(500));
    finish(child).assert_status(143);
}
