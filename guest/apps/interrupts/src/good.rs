//! What interrupts are for.

use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use chiton_guest::block::Disk;
use chiton_guest::net::{self, UdpSocket};
use chiton_guest::processors::{self, Task};
use chiton_guest::shared::virtio::id::{BLOCK, CONSOLE, NET};
use chiton_guest::time::{self, Instant};
use chiton_guest::{boot, console, env, interrupts, println};

/// How often a handler was called.
static CALLS: AtomicU64 = AtomicU64::new(0);

fn called() {
    CALLS.fetch_add(1, Ordering::SeqCst);
}

fn calls() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// What the second processor does; without one the guest says so and ends.
fn on_the_second<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    processors::spawn_on(1, work).unwrap_or_else(|error| {
        println!("this takes two processors, as --cpus 2 gives them: {error}");
        chiton_guest::exit(2_u8)
    })
}

pub fn idle() {
    println!("{:?}", interrupts::idle());
}

pub fn timer() {
    let mut early = 0;
    for _ in 0..10 {
        let due = Instant::now() + Duration::from_millis(5);
        interrupts::set_timer(Some(due));
        // Shorter waits beside it do not count.
        while !interrupts::take(interrupts::TIMER) {
            time::wait(Some(Instant::now() + Duration::from_millis(2)));
        }
        early += u32::from(Instant::now() < due);
    }
    println!("10 deadlines, {early} early");
}

pub fn handler() {
    interrupts::on(interrupts::TIMER, || {
        called();
        interrupts::set_timer(Some(Instant::now() + Duration::from_millis(1)));
    });
    interrupts::listen();
    interrupts::set_timer(Some(Instant::now()));
    while calls() < 20 {
        core::hint::spin_loop();
    }
    interrupts::set_timer(None);
    println!("interrupted {} times", calls().min(20));
}

pub fn queue() {
    let console = boot::devices(CONSOLE).next().expect("there is a console");
    let vector = boot::page().queues_of(console)[0].vector as u8;
    // From here on whatever comes brings an interrupt, and nothing had a buffer to come into before.
    let _ = console::arm().expect("the console works");
    println!("ready, vector {vector:#x}");
    while !console::arm().expect("the console works") {
        time::wait(None);
    }
    // The host writes the buffer first, and then the descriptor that interrupts.
    while !interrupts::take(vector) {
        core::hint::spin_loop();
    }
    let mut line = [0; 64];
    let length = console::read(&mut line).expect("the console reads");
    println!("interrupted, and read {length} bytes");
}

/// Reads a sector, which brings an interrupt even if another processor has the host do it before this one
/// sleeps.
fn read_armed(disk: &mut Disk, sector: u64) {
    assert!(!disk.arm(), "something is done that nobody asked for");
    disk.read(sector, &mut [0; 512]).expect("the disk works");
}

pub fn spread() {
    let entry = boot::devices(BLOCK).next().expect("run with --disk PATH,queues=2");
    let vectors: [u8; 2] = core::array::from_fn(|queue| boot::page().queues_of(entry)[queue].vector as u8);
    let [mut first, mut second] = [0, 1].map(|queue| Disk::open_queue(0, queue).expect("the disk has two queues"));
    // Reads by the second queue, each with an interrupt here that none other is beside.
    let read = move |disk: &mut Disk| {
        disk.bind();
        for sector in 0..5 {
            read_armed(disk, sector);
            while !interrupts::take(vectors[1]) {
                core::hint::spin_loop();
            }
        }
        assert!(!interrupts::take(vectors[0]), "an interrupt of the first queue");
        disk.exits().waits
    };
    let there = move || {
        let waits = read(&mut second);
        (second, waits)
    };
    let there = on_the_second(there);
    read_armed(&mut first, 0);
    while !interrupts::take(vectors[0]) {
        core::hint::spin_loop();
    }
    let (mut second, waits) = there.join();
    assert!(
        !interrupts::take(vectors[1]),
        "an interrupt of the second queue at processor 0"
    );
    println!("processor 1 had the interrupts of queue 1 alone, and rang {waits} times to wait");
    read(&mut second);
    println!("then processor 0 had them");
}

pub fn bound() {
    let entry = boot::devices(BLOCK).next().expect("run with --disk PATH");
    let vector = boot::page().queues_of(entry)[0].vector as u8;
    let mut disk = Disk::open(0).expect("the disk opens");
    let there = move || {
        disk.bind();
        read_armed(&mut disk, 0);
        while !interrupts::take(vector) {
            core::hint::spin_loop();
        }
    };
    on_the_second(there).join();
    println!("processor 1 had it, and processor 0: {}", interrupts::take(vector));
}

pub fn asked() {
    let mut disk = Disk::open(0).expect("run with --disk PATH");
    let there = move || {
        disk.bind();
        println!("halting");
        while !env::stop_requested() {
            interrupts::halt();
        }
    };
    on_the_second(there).join();
    println!("asked to end");
}

pub fn pairs() {
    let to = env::args().nth(2).and_then(|address| address.parse().ok());
    let to: SocketAddr = to.expect("the address of somebody who sends datagrams back");
    let entry = boot::devices(NET).next().expect("run with --net tap=NAME,queues=2");
    // Pair 1 receives by queue 2.
    let vector = boot::page().queues_of(entry)[2].vector as u8;
    let exchange = move |pair: usize| {
        let mine = (6000..).find(|port| net::pair_of(*port, to.port(), 2) == pair);
        let socket = UdpSocket::bind(mine.expect("every other port")).expect("a free port");
        move || {
            socket.send_to(b"hello", to).expect("the network works");
            while socket.try_recv_from(&mut [0; 8]).expect("the network works").is_none() {
                net::wait_for(pair, None).expect("the network works");
            }
        }
    };
    // From here on it is known where `to` is, and nothing but answers is to come.
    exchange(0)();
    static BOUND: AtomicBool = AtomicBool::new(false);
    static BEGIN: AtomicBool = AtomicBool::new(false);
    let there = move || {
        net::bind(1).expect("there are two pairs");
        BOUND.store(true, Ordering::SeqCst);
        while !BEGIN.load(Ordering::SeqCst) {
            core::hint::spin_loop();
        }
        let exchange = exchange(1);
        for _ in 0..5 {
            // From here on what comes brings an interrupt, also before this processor sleeps.
            net::wait_for(1, Some(Instant::now())).expect("the network works");
            exchange();
            while !interrupts::take(vector) {
                core::hint::spin_loop();
            }
        }
    };
    let there = on_the_second(there);
    while !BOUND.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
    // What the host sent to everybody before that may have come here.
    let _ = interrupts::take(vector);
    BEGIN.store(true, Ordering::SeqCst);
    there.join();
    println!(
        "5 answers by pair 1 at processor 1; at processor 0: {}",
        interrupts::take(vector)
    );
}

pub fn call() {
    static READY: AtomicBool = AtomicBool::new(false);
    static OVER: AtomicBool = AtomicBool::new(false);
    let halting = on_the_second(|| {
        READY.store(true, Ordering::SeqCst);
        let mut halts = 0;
        // A call that comes before the first halt is not what is looked for.
        while !interrupts::take(interrupts::IPI) || halts == 0 {
            interrupts::halt();
            halts += 1;
        }
        OVER.store(true, Ordering::SeqCst);
        halts
    });
    // A call of a processor that has not begun is lost.
    while !READY.load(Ordering::SeqCst) {
        time::sleep(Duration::from_millis(1));
    }
    while !OVER.load(Ordering::SeqCst) {
        time::sleep(Duration::from_millis(20));
        interrupts::call(1);
    }
    let halts: u64 = halting.join();
    println!("called after {} halt or more", halts.min(1));
}

pub fn interrupt() {
    static READY: AtomicBool = AtomicBool::new(false);
    interrupts::on(interrupts::IPI, called);
    let looping = on_the_second(|| {
        interrupts::listen();
        READY.store(true, Ordering::SeqCst);
        while calls() < 5 {
            core::hint::spin_loop();
        }
    });
    while !READY.load(Ordering::SeqCst) {
        time::sleep(Duration::from_millis(1));
    }
    for n in 0..5 {
        interrupts::call(1);
        while calls() <= n {
            time::sleep(Duration::from_millis(1));
        }
    }
    looping.join();
    println!("interrupted {} times", calls());
}

pub fn wake() {
    let sleeping = on_the_second(|| time::sleep(Duration::from_millis(20)));
    // Its end rings the doorbell for this processor, which sleeps or halts.
    sleeping.join();
    println!("woken");
}
