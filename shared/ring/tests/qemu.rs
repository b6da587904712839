//! Our driver against the devices of QEMU, which has queues of both formats.
//!
//! No guest runs: the test is the driver, by registers and memory of a machine whose processor is halted.
#![cfg(not(any(miri, loom)))]

#[path = "qemu/device.rs"]
mod device;
#[path = "qemu/disk.rs"]
mod disk;
#[path = "qemu/machine.rs"]
mod machine;
#[path = "qemu/net.rs"]
mod net;
#[path = "qemu/random.rs"]
mod random;

use chiton_ring::Format;
use chiton_ring::feature::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED, VERSION_1};
use disk::Disk;
use machine::Machine;
use net::Cable;
use random::Random;

const BLOCK: [&str; 2] = ["-device", "virtio-blk-device,drive=disk,packed=on,serial=independent"];
/// With any of these, or none, a queue works.
const CHOICES: [u64; 4] = [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC];

fn formats() -> [(u64, Format); 2] {
    [(VERSION_1, Format::Split), (VERSION_1 | RING_PACKED, Format::Packed)]
}

#[test]
fn a_disk_of_qemu_holds_what_our_driver_wrote_by_queues_of_either_format() {
    let mut content: Vec<_> = (0..1_u32 << 18).map(|i| (i / 509) as u8).collect();
    let Some(machine) = Machine::start(&content, &BLOCK) else {
        return;
    };
    let device = machine.devices(disk::KIND).pop().expect("a disk");
    let in_order = device.offers() & IN_ORDER;
    let mut random = Random::new(1);
    for (base, format) in formats() {
        for size in [3, 4, 7, 8, 61, 256].into_iter().filter(|size| format.allows(*size)) {
            for choice in CHOICES {
                let features = base | disk::FLUSH | in_order | choice;
                let mut disk = Disk::begin(device, features, size, &mut random, &mut content);
                let rounds = 100 * u32::from(size.min(8));
                while disk.descriptors < rounds {
                    disk.submit(usize::from(size));
                    disk.wait();
                }
                disk.finish();
            }
        }
    }
}

#[test]
fn a_device_of_qemu_notifies_our_driver_when_it_asks_and_at_no_other_time() {
    let Some(machine) = Machine::start(&vec![0; 1 << 18], &BLOCK) else {
        return;
    };
    const SIZE: u16 = 16;
    let device = machine.devices(disk::KIND).pop().expect("a disk");
    let (mut random, mut content) = (Random::new(2), machine.disk());
    for (base, format) in formats() {
        for choice in CHOICES {
            let by_index = choice & EVENT_IDX != 0;
            let features = base | disk::FLUSH | choice;
            let mut disk = Disk::begin(device, features, SIZE, &mut random, &mut content);
            let mut unasked = 0;
            for round in 0..40 {
                disk.disarm();
                unasked += u32::from(disk.is_told());
                disk.arm();
                assert!(disk.is_told(), "{format:?}, {choice:#x}, round {round}");
                // With event index that was one wish, and else it goes on.
                unasked += u32::from(disk.is_told() && by_index);
            }
            // With event index QEMU always notifies for the first buffer, and in a packed queue in every turn of the ring.
            let allowed = match (by_index, format) {
                (false, _) => 0,
                (true, Format::Split) => 1,
                (true, Format::Packed) => 1 + disk.descriptors / u32::from(SIZE),
            };
            assert!(unasked <= allowed, "{format:?}, {choice:#x}: {unasked} of {allowed}");
            disk.finish();
        }
    }
}

#[test]
fn a_device_of_qemu_is_kicked_once_for_all_that_it_has_not_seen() {
    let Some(machine) = Machine::start(&vec![0; 1 << 18], &BLOCK) else {
        return;
    };
    const SIZE: u16 = 64;
    let device = machine.devices(disk::KIND).pop().expect("a disk");
    let (mut random, mut content) = (Random::new(4), machine.disk());
    for (base, format) in formats() {
        for by_index in [false, true] {
            let features = base | disk::FLUSH | if by_index { EVENT_IDX } else { 0 };
            let mut disk = Disk::begin(device, features, SIZE, &mut random, &mut content);
            // Until it has had a buffer it wants to hear of all, and tells of it whatever it is asked.
            disk.arm();
            assert!(disk.is_told());
            for round in 0..40 {
                // The device saw all there was before the last write of QueueNotify returned.
                let wanted = [disk.offer(), disk.offer(), disk.offer()];
                assert_eq!(wanted, [true, !by_index, !by_index], "{format:?}, round {round}");
                assert!(!disk.wants_kick(), "nothing is new: {format:?}, round {round}");
                // A split queue alone can ask for the third.
                disk.arm_for(3);
                disk.kick();
                let all = disk.is_told_of_all();
                assert!(
                    all || !by_index || format == Format::Packed,
                    "{format:?}, round {round}"
                );
                while !disk.is_idle() {
                    disk.wait();
                }
                device.notified();
            }
            disk.finish();
        }
    }
}

#[test]
fn a_device_of_qemu_that_cannot_go_on_says_so() {
    let Some(machine) = Machine::start(&[0; 512], &BLOCK) else {
        return;
    };
    let device = machine.devices(disk::KIND).pop().expect("a disk");
    for (base, _) in formats() {
        let (mut random, mut content) = (Random::new(5), machine.disk());
        Disk::begin(device, base, 4, &mut random, &mut content).offend();
        device.wait_for("its complaint", || (!device.is_content()).then_some(()));
    }
}

#[test]
fn frames_go_through_two_networks_of_qemu_by_queues_of_either_format() {
    let Some(machine) = Machine::start(&[0; 512], &net::DEVICES) else {
        return;
    };
    let [from, to] = machine.devices(net::KIND)[..] else {
        panic!("there are two networks");
    };
    let in_order = from.offers() & IN_ORDER;
    let mut random = Random::new(3);
    for (base, format) in formats() {
        for size in [4, 7, 16, 61].into_iter().filter(|size| format.allows(*size)) {
            for choice in CHOICES {
                let mut cable = Cable::begin(from, to, base | choice | in_order, size, &mut random);
                cable.carry(64);
                assert!(
                    cable.kicks > 0 && cable.unwanted_kicks > 0,
                    "{format:?} {size} {choice:#x}: {} {}",
                    cable.kicks,
                    cable.unwanted_kicks
                );
                cable.finish();
            }
        }
    }
}
