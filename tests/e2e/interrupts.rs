//! Guests with interrupts: the timer, calls between processors, queues, and what can go wrong.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use chiton_tests::{Chiton, Folder, Run, Tap, finish, hardware_kvm, kvm_works, signal, slow};

/// Runs the guest `interrupts` on so many processors.
fn interrupts(processors: &str, what: &str) -> Run {
    let chiton = Chiton::new().args(["run", "--timeout", "100s", "--cpus", processors]);
    chiton.guest("interrupts").args([what]).run()
}

/// The same, for deeds that do not end by themselves, and say something once they have begun: that may be later than
/// usual.
fn endless(what: &str) -> Run {
    let run = |limit| {
        let chiton = Chiton::new().args(["run", "--timeout", limit]);
        chiton.guest("interrupts").args([what]).run()
    };
    let begun = ["2s", "20s"].into_iter().map(run).find(|run| !run.stdout.is_empty());
    begun.unwrap_or_else(|| run("100s"))
}

fn says(run: &Run, words: &str) {
    run.assert_status(0);
    assert!(run.stdout_text().contains(words), "no {words:?}: {run}");
}

#[test]
fn a_processor_halts_on_hardware_and_waits_in_the_host_elsewhere() {
    if !kvm_works() {
        return;
    }
    let idle = if hardware_kvm() { "Halt" } else { "Doorbell" };
    says(&interrupts("1", "idle"), idle);
    let doctor = Chiton::new().args(["doctor"]).run();
    let line = doctor.stdout_text();
    let line = line.lines().find(|line| line.contains("idle")).expect("a line on idle");
    let word = if hardware_kvm() { "`hlt`" } else { "doorbell WAIT" };
    assert!(line.contains(word), "{line}");
}

#[test]
fn doctor_lists_what_interrupts_take() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["doctor"]).run();
    let text = run.stdout_text();
    let line = text
        .lines()
        .find(|line| line.contains("interrupts "))
        .expect("a line on interrupts");
    assert!(line.starts_with("ok"), "{line}");
    for word in ["irqchip", "irqfd", "x2APIC", "TSC-deadline"] {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn the_timer_comes_and_never_early() {
    if !kvm_works() {
        return;
    }
    let chiton = Chiton::new().args(["run", "--exits"]).guest("interrupts");
    let run = chiton.args(["timer"]).run();
    says(&run, "10 deadlines, 0 early");
    assert!(run.exits("irq_injections") >= 10, "{run}");
    // Where `hlt` is interpreted nobody halts.
    assert_eq!(run.exits("halt_exits") > 0, hardware_kvm(), "{run}");
    says(&interrupts("1", "handler"), "interrupted 20 times");
}

#[test]
fn two_endless_computations_share_a_processor() {
    if !kvm_works() {
        return;
    }
    let (time, slice) = if slow() { ("2000", "50000") } else { ("500", "5000") };
    let chiton = Chiton::new()
        .args(["run", "--exits", "--timeout", "100s"])
        .guest("preempt");
    let run = chiton.args([time, slice]).run();
    run.assert_status(0);
    let text = run.stdout_text();
    let numbers: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let [switches, _, primes, terms] = numbers[..] else {
        panic!("{run}");
    };
    assert!(switches >= 4 && primes > 0 && terms > 0, "{run}");
    // Switching is between the guest and its timer: the host is not asked.
    assert_eq!(run.exits("doorbell wait"), 0, "{run}");
}

#[test]
fn an_interrupt_tells_of_the_queue_and_wakes_who_waits() {
    if !kvm_works() {
        return;
    }
    let chiton = Chiton::new().args(["run", "--timeout", "100s"]).guest("interrupts");
    let mut child = chiton.args(["queue"]).spawn();
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "ready, vector 0x30\n");
    input.write_all(b"hello\n").expect("somebody reads");
    line.clear();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "interrupted, and read 6 bytes\n");
    finish(child).assert_status(0);
}

/// Runs the guest `interrupts` on two processors, with a disk that has two queues.
fn with_two_queues(what: &str) -> Run {
    let folder = Folder::new();
    let disk = format!("{},queues=2", folder.file("disk", [7; 8192]).display());
    let chiton = Chiton::new().args(["run", "--exits", "--timeout", "100s", "--cpus", "2", "--disk", &disk]);
    chiton.guest("interrupts").args([what]).run()
}

#[test]
fn the_interrupt_of_a_queue_comes_to_the_processor_that_the_guest_chose() {
    if !kvm_works() {
        return;
    }
    let run = with_two_queues("spread");
    // Where processors halt, the second one did so for its own interrupt.
    let rang = if hardware_kvm() { "rang 0 times to wait" } else { "rang" };
    says(
        &run,
        &format!("processor 1 had the interrupts of queue 1 alone, and {rang}"),
    );
    says(&run, "then processor 0 had them");
    says(&with_two_queues("bound"), "processor 1 had it, and processor 0: false");
}

#[test]
fn each_pair_of_an_interface_has_its_interrupts_at_a_processor_of_its_own() {
    let Some(tap) = kvm_works().then(Tap::of_several_queues).flatten() else {
        return;
    };
    // Where the guest is, the host does not ask again, however long all of this takes: a question would be one more
    // interrupt.
    let delay = format!("/proc/sys/net/ipv4/neigh/{}/delay_first_probe_time", tap.name());
    fs::write(delay, "1000").expect("root may");
    // Nor does it look for routers and neighbours, where it has IPv6.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name()), "1");
    let socket = UdpSocket::bind((tap.host(), 0)).expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a socket");
    // One datagram by the first pair, five by the second; by split queues, and by packed ones.
    let echo = thread::spawn(move || {
        let mut bytes = [0; 8];
        for _ in 0..2 * 6 {
            let (len, from) = socket.recv_from(&mut bytes).expect("a datagram");
            socket.send_to(&bytes[..len], from).expect("room for it");
        }
    });
    let net = format!("{},queues=2", tap.option());
    for format in [None, Some("--packed")] {
        let chiton = Chiton::new().args(["run", "--timeout", "100s", "--cpus", "2", "--net", &net]);
        let run = chiton.args(format).guest("interrupts").args(["pairs", &address]).run();
        says(&run, "5 answers by pair 1 at processor 1; at processor 0: false");
    }
    echo.join().expect("an answer to each");
}

#[test]
fn a_processor_that_halts_for_one_queue_hears_that_the_guest_is_to_end() {
    if !kvm_works() {
        return;
    }
    let folder = Folder::new();
    let disk = folder.file("disk", [7; 8192]).display().to_string();
    let chiton = Chiton::new().args(["run", "--stop-timeout", "100s", "--cpus", "2", "--disk", &disk]);
    let mut child = chiton.guest("interrupts").args(["asked"]).spawn();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "halting\n");
    signal(&child, libc::SIGTERM);
    line.clear();
    output.read_line(&mut line).expect("text");
    assert_eq!(line, "asked to end\n");
    finish(child).assert_status(0);
}

#[test]
fn an_interrupt_is_not_sent_to_a_processor_or_of_a_queue_that_does_not_exist() {
    if !kvm_works() {
        return;
    }
    let run = interrupts("2", "elsewhere");
    says(&run, "still here, with 2 processors");
    for words in [
        "device 0: there is no processor 2 for the interrupt of queue 0: the guest has 2",
        "device 0: there is no processor 65535 for the interrupt of queue 1: the guest has 2",
        "device 0: there is no queue 9",
        "device 0: there is no queue 65535",
    ] {
        run.assert_says(words);
    }
}

#[test]
fn a_processor_calls_another_out_of_its_halt_and_out_of_a_loop() {
    if !kvm_works() {
        return;
    }
    says(&interrupts("2", "call"), "called after 1 halt or more");
    says(&interrupts("2", "interrupt"), "interrupted 5 times");
    says(&interrupts("2", "wake"), "woken");
    let alone = interrupts("1", "call");
    alone.assert_status(2).assert_silent_about("panic");
    assert!(alone.stdout_text().contains("--cpus 2"), "{alone}");
}

#[test]
fn what_makes_no_sense_has_no_effect() {
    if !kvm_works() {
        return;
    }
    says(&interrupts("2", "nobody"), "nobody answered: true");
    says(&interrupts("1", "deadlines"), "nothing happened");
    says(&interrupts("1", "burst"), "survived 100 interrupts");
}

#[test]
fn a_broken_handler_or_gs_is_explained() {
    if !kvm_works() {
        return;
    }
    let explained = |what, words| {
        interrupts("1", what).assert_status(102).assert_says(words);
    };
    explained("address", "at        0x8000000000000000");
    explained("unmapped", "jump through a wild pointer");
    explained("kernel", "interrupt stubs, which is not code");
    explained("gs", "null page");
    explained("stack", "chiton_guest::interrupts::entry");
    explained("gate", "an interrupt that guests cannot raise");
}

#[test]
fn a_guest_that_storms_or_masks_or_halts_for_ever_can_be_stopped() {
    if !kvm_works() {
        return;
    }
    for (what, word) in [("storm", "storming"), ("masked", "masked"), ("halt", "halted")] {
        let run = endless(what);
        run.assert_status(124).assert_silent_about("called all the same");
        assert!(run.stdout_text().contains(word), "{run}");
    }
    // A software KVM does not let ring 3 clear the flag.
    let run = endless("cli");
    run.assert_status(if hardware_kvm() { 124 } else { 102 });
}

#[test]
fn ring_0_has_the_same_interrupts_where_ring_0_runs() {
    if !kvm_works() {
        return;
    }
    let run = |what| {
        let chiton = Chiton::new().args(["run", "--ring", "0", "--timeout", "100s"]);
        chiton.guest("interrupts").args([what]).run()
    };
    if hardware_kvm() {
        says(&run("timer"), "10 deadlines, 0 early");
        says(&run("handler"), "interrupted 20 times");
    } else {
        run("timer").assert_refused("uses SSE registers");
    }
}

#[test]
fn another_processor_forgets_a_page_that_is_shot_down() {
    if !kvm_works() {
        return;
    }
    let chiton = Chiton::new().args(["run", "--exits", "--cpus", "2", "--timeout", "100s"]);
    let run = chiton.guest("shootdown").args(["10"]).run();
    if hardware_kvm() {
        says(&run, "10 shoot-downs");
        assert!(run.exits("irq_injections") >= 10, "{run}");
    } else {
        // An interpreter of ring 0 does not save the wide registers.
        run.assert_status(102).assert_says("the instruction emulator gave up");
    }
}

#[test]
fn a_guest_that_asks_for_none_has_no_interrupts_and_no_irqfd() {
    if !kvm_works() {
        return;
    }
    let run = Chiton::new().args(["run", "--exits"]).guest("hello").run();
    run.assert_status(0);
    assert_eq!(run.exits("irq_injections"), 0, "{run}");
}
