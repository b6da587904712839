//! Both halves of the console against devices that follow the specification, each in its own way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use chiton_shared::memory::GuestMemory;

use super::*;
use crate::testing::{Machine, bytes};

/// Memory for the driver's buffers.
fn leak(len: usize) -> Window<'static> {
    let memory: &'static mut [u8] = Box::leak(vec![0; len].into_boxed_slice());
    let start = NonNull::new(memory.as_mut_ptr()).unwrap();
    // SAFETY: leaked memory that only the window reaches.
    unsafe { Window::new(start, len) }
}

/// A machine that keeps what its console prints.
fn printer(size: u16) -> (Machine, Rc<RefCell<Vec<u8>>>) {
    let out = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&out);
    let machine = Machine::new(size, move |chain, _| {
        for buffer in chain.readable() {
            into.borrow_mut().extend(bytes(buffer));
        }
        Some(0)
    });
    (machine, out)
}

#[test]
fn a_flush_of_any_length_is_one_kick() {
    let (machine, out) = printer(8);
    let mut transmit = Transmit::new(machine.queue(), leak(64));
    let mut expected = Vec::new();
    for len in [0, 1, 40, 30, 64, 63, 2] {
        let kicks = machine.kicks();
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        expected.extend(&bytes);
        transmit.write(&bytes).unwrap();
        transmit.flush().unwrap();
        assert_eq!(machine.kicks() - kicks, usize::from(len > 0), "{len} bytes");
    }
    assert_eq!((out.borrow().as_slice(), machine.waits()), (expected.as_slice(), 0));
}

#[test]
fn what_is_longer_than_the_buffer_goes_out_in_one_exit_behind_what_is_in_it() {
    let (machine, out) = printer(8);
    let mut transmit = Transmit::new(machine.queue(), leak(64));
    transmit.write(b"first ").unwrap();
    let long: Vec<u8> = (0..=u8::MAX).collect();
    transmit.write(&long).unwrap();
    assert_eq!(*out.borrow(), [b"first ", long.as_slice()].concat());
    assert_eq!((machine.kicks(), machine.waits()), (0, 1));
}

#[test]
fn many_small_pieces_wait_only_when_the_buffer_is_full() {
    let (machine, out) = printer(4);
    let mut transmit = Transmit::new(machine.queue(), leak(64));
    for i in 0..200_u8 {
        transmit.write(&[i; 5]).unwrap();
    }
    transmit.flush().unwrap();
    let expected: Vec<u8> = (0..200).flat_map(|i| [i; 5]).collect();
    assert_eq!(*out.borrow(), expected);
    assert_eq!(machine.waits(), 1000 / 64);
}

#[test]
fn memory_is_reused_only_when_all_before_it_is_done() {
    let out = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&out);
    let mut first = true;
    // Keeps the first chain for ever.
    let machine = Machine::new(8, move |chain, _| {
        into.borrow_mut().push(chain.readable_bytes());
        (!std::mem::take(&mut first)).then_some(0)
    });
    let mut transmit = Transmit::new(machine.queue(), leak(64));
    for _ in 0..3 {
        transmit.write(&[1; 20]).unwrap();
        transmit.flush().unwrap();
    }
    assert_eq!(*out.borrow(), [20, 20, 20]);
    machine.stop();
    // 4 bytes are left, and nothing else is free.
    transmit.write(&[2; 4]).unwrap();
    assert_eq!(transmit.write(&[3]), Err(QueueError::NeedsReset));
}

/// A machine whose console has this input, in pieces, and then ends.
fn typist(pieces: &[&[u8]]) -> Machine {
    let mut pieces: Vec<Vec<u8>> = pieces.iter().rev().map(|piece| piece.to_vec()).collect();
    let mut ended = false;
    Machine::new(8, move |chain, memory| {
        let buffer = chain.writable()[0];
        let Some(mut piece) = pieces.pop() else {
            return (!std::mem::replace(&mut ended, true)).then_some(0);
        };
        let len = piece.len().min(buffer.len as usize);
        let rest = piece.split_off(len);
        if !rest.is_empty() {
            pieces.push(rest);
        }
        memory.window(buffer.address, len)?.write(0, &piece);
        Some(len as u32)
    })
}

#[test]
fn input_is_read_in_order_and_its_end_is_told_again_and_again() {
    let machine = typist(&[b"hello ", b"a much longer piece than a block holds", b"!"]);
    let mut receive = Receive::new(machine.queue(), leak(32));
    let mut all = Vec::<u8>::new();
    let mut piece = [0; 5];
    loop {
        let len = receive.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        all.extend(&piece[..len]);
    }
    assert_eq!(all, b"hello a much longer piece than a block holds!");
    assert_eq!(receive.read(&mut piece), Ok(0));
    assert_eq!(receive.try_read(&mut piece), Ok(Some(0)));
}

#[test]
fn lines_are_found_across_pieces_and_the_last_needs_no_newline() {
    let machine = typist(&[b"on", b"e\ntwo\nth", b"ree"]);
    let mut receive = Receive::new(machine.queue(), leak(32));
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if receive.read_until(b'\n', &mut line).unwrap() == 0 {
            break;
        }
        lines.push(String::from_utf8(line).unwrap());
    }
    assert_eq!(lines, ["one\n", "two\n", "three"]);
}

#[test]
fn looking_for_input_does_not_sleep() {
    let machine = Machine::new(8, |_, _| None);
    let mut receive = Receive::new(machine.queue(), leak(32));
    assert_eq!(receive.try_read(&mut [0; 4]), Ok(None));
    assert_eq!(receive.arm(), Ok(false));
    assert_eq!((machine.kicks(), machine.waits()), (1, 0));
}

#[test]
fn a_driver_answers_what_it_is_told_of_ports() {
    use super::ports::Ports;
    use chiton_shared::virtio::console::{Control, event};
    let control = |port, event, value, more: &[u8]| [&Control { port, event, value }.to_bytes()[..], more].concat();
    let mut messages = vec![
        control(1, event::PORT_NAME, 1, b"log\0"),
        control(7, event::PORT_ADD, 1, b""),
        control(0, event::CONSOLE_PORT, 1, b""),
        control(1, event::PORT_ADD, 1, b""),
        control(0, event::PORT_ADD, 1, b""),
    ];
    let device = Machine::new(32, move |chain, memory| {
        let message = messages.pop()?;
        memory
            .window(chain.writable()[0].address, message.len())?
            .write(0, &message);
        Some(message.len() as u32)
    });
    let (driver, said) = printer(8);
    let mut ports = Ports::new(device.queue(), driver.queue(), 2).unwrap();
    assert_eq!(ports.find("log").unwrap(), Some(1), "a name that ends with a NUL");
    assert_eq!(ports.find("none").unwrap(), None);
    let expected = [
        control(0, event::DEVICE_READY, 1, b""),
        control(0, event::PORT_READY, 1, b""),
        control(1, event::PORT_READY, 1, b""),
        control(0, event::PORT_OPEN, 1, b""),
    ];
    assert_eq!(*said.borrow(), expected.concat());
}

#[test]
fn input_can_go_on_after_an_end() {
    let mut pieces = vec![&b"two"[..], b"", b"one"];
    let machine = Machine::new(8, move |chain, memory| {
        let piece = pieces.pop()?;
        memory.window(chain.writable()[0].address, piece.len())?.write(0, piece);
        Some(piece.len() as u32)
    });
    let mut receive = Receive::new(machine.queue(), leak(32));
    let mut to = [0; 8];
    assert_eq!((receive.read(&mut to), receive.go_on_after_the_end()), (Ok(3), false));
    assert_eq!((receive.read(&mut to), receive.go_on_after_the_end()), (Ok(0), true));
    assert_eq!((receive.read(&mut to), &to[..3]), (Ok(3), &b"two"[..]));
}

/// A console that gets another size whenever somebody has read its columns, so many times.
struct Resized(Cell<u16>);

impl Host for Resized {
    fn kick(&self, _port: u16, _queue: u16) {}
    fn wait(&self, _ns: u64) {}
    fn reset(&self, _registers: u64) {}

    fn needs_reset(&self, _registers: u64) -> bool {
        false
    }

    fn read_config_half(&self, _registers: u64, offset: u64) -> u16 {
        let left = self.0.get();
        if offset == 0 {
            self.0.set(left.saturating_sub(1));
            return 80 + left;
        }
        25 + left
    }

    fn config_generation(&self, _registers: u64) -> u32 {
        self.0.get().into()
    }
}

#[test]
fn columns_and_rows_are_of_one_time() {
    let mut console = DeviceEntry {
        features: F_SIZE,
        ..DeviceEntry::default()
    };
    assert_eq!(size_of_console(&Resized(Cell::new(3)), &console), (80, 25));
    console.features = 0;
    assert_eq!(
        size_of_console(&Resized(Cell::new(0)), &console),
        (0, 0),
        "no size is known"
    );
}
