//! The run loop with a processor that plays a script and a board that notes what it is told.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use chiton_shared::memory::Window;

use super::*;
use crate::exits::ExitTable;
use crate::vcpu::{Registers, SystemRegisters};

/// The processor: it leaves the guest for each step in turn, then halts.
struct Script {
    steps: Vec<Step>,
    next: usize,
}

/// Why it leaves, with the bytes.
enum Step {
    Out(u16, [u8; 4]),
    In(u16, Vec<u8>),
    Interrupted,
}

impl Script {
    fn new(steps: Vec<Step>) -> Self {
        Self { steps, next: 0 }
    }
}

impl Vcpu for Script {
    type Error = core::convert::Infallible;

    fn run(&mut self) -> Result<Exit<'_>, Self::Error> {
        self.next += 1;
        Ok(match self.steps.get_mut(self.next - 1) {
            Some(Step::Out(port, data)) => Exit::Out { port: *port, data },
            Some(Step::In(port, data)) => Exit::In { port: *port, data },
            Some(Step::Interrupted) => Exit::Interrupted,
            None => Exit::Halt,
        })
    }
    fn registers(&mut self) -> Result<Registers, Self::Error> {
        Ok(Registers::default())
    }
    fn system_registers(&mut self) -> Result<SystemRegisters, Self::Error> {
        Ok(SystemRegisters::default())
    }
    fn set_registers(&mut self, _: &Registers, _: &SystemRegisters) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// One MiB of memory from address 0 on.
struct Memory(UnsafeCell<Vec<u64>>);

impl Memory {
    fn new() -> Self {
        Self(UnsafeCell::new(vec![0; (1 << 20) / 8]))
    }
}

impl GuestMemory for Memory {
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let start = usize::try_from(address).ok()?;
        (start.checked_add(len)? <= 1 << 20).then(|| {
            // SAFETY: the one reference to the vector, which ends here; it never moves its elements.
            let base = unsafe { NonNull::new((*self.0.get()).as_mut_ptr()) }
                .expect("not null")
                .cast::<u8>();
            // SAFETY: in bounds (checked), in elements nobody holds references to, for the borrow.
            unsafe { Window::new(base.add(start), len) }
        })
    }
}

struct Notes {
    memory: Memory,
    told: Vec<String>,
    stop: bool,
}

impl Board for Notes {
    fn memory(&self) -> &dyn GuestMemory {
        &self.memory
    }
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        data.fill(7);
        self.told.push(format!("read {address:x}"));
    }
    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.told.push(format!("write {address:x} {data:?}"));
    }
    fn kick(&mut self, device: usize) {
        self.told.push(format!("kick {device}"));
    }
    fn start(&mut self, processor: u32) {
        self.told.push(format!("start {processor}"));
    }
    fn wake(&mut self, processor: u32) {
        self.told.push(format!("wake {processor}"));
    }
    fn wait(&mut self, timeout: Option<Duration>) {
        self.told.push(format!("wait {timeout:?}"));
    }
    fn log(&mut self, level: LogLevel, text: &str) {
        self.told.push(format!("log {level:?} {text}"));
    }
    fn drain(&mut self) {
        self.told.push("drain".into());
    }
    fn stopped(&self) -> bool {
        self.stop
    }
    fn now_ns(&self) -> u64 {
        0
    }
}

fn out(port: u16, value: u32) -> Step {
    Step::Out(port, value.to_le_bytes())
}

fn machine(steps: Vec<Step>, stop: bool) -> Machine<Script, Notes> {
    let board = Notes {
        memory: Memory::new(),
        told: vec![],
        stop,
    };
    Machine::new(Script::new(steps), board)
}

fn run(steps: Vec<Step>, prepare: impl FnOnce(&Memory)) -> (End, Vec<String>, ExitTable) {
    let mut machine = machine(steps, false);
    prepare(&machine.board.memory);
    machine.timed = true;
    let end = machine.run().expect("cannot fail");
    (end, machine.board.told, machine.exits.table())
}

fn mailbox(memory: &Memory, wait_ns: u64, len: u32, detail: u32, text: &str) {
    let page = memory.window(map::MAILBOX, 4096).expect("the mailbox is memory");
    page.write(0, &wait_ns.to_le_bytes());
    page.write(8, &len.to_le_bytes());
    page.write(12, &detail.to_le_bytes());
    page.write(24, text.as_bytes());
}

#[test]
fn the_exit_doorbell_drains_the_devices_first() {
    let (end, told, exits) = run(vec![out(doorbell::EXIT, 42)], |_| ());
    assert_eq!((end, told), (End::Exit(42), vec!["drain".to_owned()]));
    assert_eq!(exits.get(Cause::End).exits, 1);
}

#[test]
fn a_wait_without_end_and_one_with() {
    let (_, told, _) = run(vec![out(doorbell::WAIT, 0)], |m| mailbox(m, u64::MAX, 0, 0, ""));
    assert_eq!(told, ["wait None", "drain"]);
    let (_, told, _) = run(vec![out(doorbell::WAIT, 0)], |m| mailbox(m, 1500, 0, 0, ""));
    assert_eq!(told, ["wait Some(1.5µs)", "drain"]);
}

#[test]
#[cfg_attr(
    miri,
    ignore = "shows thousands of zeros, one by one; a log line is read the same way"
)]
fn a_panic_brings_its_words_even_if_its_length_lies() {
    let (end, _, _) = run(vec![out(doorbell::PANIC, 0)], |m| mailbox(m, 0, u32::MAX, 0, "lost"));
    let End::Panic { message } = end else { panic!("{end:?}") };
    assert!(
        message.starts_with("lost\\u{0}") && message.len() > MAILBOX_TEXT,
        "zeros are shown as what they are"
    );
}

#[test]
fn a_log_line_of_an_unknown_level_is_information() {
    let (_, told, _) = run(vec![out(doorbell::LOG, 0)], |m| mailbox(m, 0, 2, 99, "hi"));
    assert_eq!(told, ["log Info hi", "drain"]);
}

#[test]
fn a_kick_names_its_device_and_a_port_between_two_doorbells_does_nothing() {
    let script = vec![out(doorbell::kick(3), 1), out(doorbell::kick(3) + 1, 1), out(0x80, 1)];
    let (end, told, exits) = run(script, |_| ());
    assert_eq!(
        (end, told),
        (End::Halted, vec!["kick 3".to_owned(), "drain".to_owned()])
    );
    assert_eq!(exits.get(Cause::PortOut).exits, 2);
}

#[test]
fn processors_are_started_woken_and_parked() {
    let (end, told, exits) = run(
        vec![out(doorbell::START, 2), out(doorbell::WAKE, 1), out(doorbell::PARK, 0)],
        |_| (),
    );
    assert_eq!(
        (end, told),
        (End::Parked, vec!["start 2".to_owned(), "wake 1".to_owned()])
    );
    for cause in [Cause::Start, Cause::Wake, Cause::Park] {
        assert_eq!(exits.get(cause).exits, 1);
    }
}

#[test]
fn a_trap_frame_outside_memory_counts_as_a_triple_fault() {
    let (end, _, _) = run(vec![out(doorbell::TRAP, 0xffff_fff0)], |_| ());
    assert_eq!(end, End::TripleFault);
    let (end, _, _) = run(vec![out(doorbell::TRAP, 0x3_0000)], |_| ());
    assert_eq!(end, End::Trap(TrapFrame::default()));
}

#[test]
fn an_interruption_ends_the_guest_only_if_somebody_asked() {
    let (end, _, exits) = run(vec![Step::Interrupted], |_| ());
    assert_eq!((end, exits.get(Cause::Interrupted).exits), (End::Halted, 1));
    assert_eq!(machine(vec![Step::Interrupted], true).run(), Ok(End::Stopped));
}

#[test]
fn reading_a_port_that_is_not_there_gives_all_ones() {
    let mut machine = machine(vec![Step::In(0x60, vec![0; 2])], false);
    machine.run().expect("cannot fail");
    assert!(matches!(&machine.vcpu.steps[0], Step::In(_, data) if *data == [0xff; 2]));
    assert_eq!(machine.exits.table().get(Cause::PortIn).exits, 1);
}

#[test]
fn a_guest_that_is_stopped_while_it_ends_is_stopped() {
    assert_eq!(machine(vec![out(doorbell::EXIT, 0)], true).run(), Ok(End::Stopped));
}

#[test]
fn control_characters_of_a_guest_do_not_reach_a_terminal() {
    let (_, told, _) = run(vec![out(doorbell::LOG, 0)], |m| mailbox(m, 0, 9, 2, "a\x1b[2J\r\nb\tc"));
    assert_eq!(told, ["log Warn a\\u{1b}[2J\\r\nb\t", "drain"]);
}
