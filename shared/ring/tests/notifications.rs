//! Who is to be told when (virtio 1.3 sections 2.7.7 and 2.7.10), each side alone, the other
//! played by hand.
#![cfg(not(loom))]

mod common;

use chiton_ring::feature::EVENT_IDX;
use chiton_ring::{Areas, Buffer, Chain, DeviceQueue, DriverQueue, QueueConfig};
use common::Memory;

const SIZE: u16 = 4;
const FLAGS: usize = 0;
const IDX: usize = 2;
const USED_EVENT: usize = 4 + 2 * SIZE as usize;
const AVAIL_EVENT: usize = 4 + 8 * SIZE as usize;

struct Ring {
    memory: Memory,
    config: QueueConfig,
}

impl Ring {
    fn new() -> Self {
        Self {
            memory: Memory::new(0x200),
            config: QueueConfig::packed_at(0, SIZE).0,
        }
    }

    fn areas(&self) -> Areas<'_> {
        Areas::find(&self.memory, &self.config).expect("a good queue")
    }

    /// A device that has used one chain of two, and whether it then notifies.
    fn device_notifies(&self, features: u64, flags: u16, used_event: u16) -> [bool; 2] {
        self.areas().driver.store_u16(FLAGS, flags);
        self.areas().driver.store_u16(USED_EVENT, used_event);
        self.areas().driver.store_u16(IDX, 2);
        let mut device = DeviceQueue::new(self.config, features);
        let mut queue = device.attach(&self.memory).expect("a good queue");
        [(); 2].map(|()| {
            assert_eq!(queue.pop(&mut Chain::new()), Ok(true));
            queue.push(0, 0);
            queue.wants_notification()
        })
    }

    /// A driver that adds one chain and another, and whether it then kicks.
    fn driver_kicks(&self, features: u64, flags: u16, avail_event: u16) -> [bool; 2] {
        self.areas().device.store_u16(FLAGS, flags);
        self.areas().device.store_u16(AVAIL_EVENT, avail_event);
        let mut driver = self.driver(features);
        [(); 2].map(|()| {
            driver.add(&[Buffer::readable(0, 1)]).expect("room");
            driver.wants_kick()
        })
    }

    fn driver(&self, features: u64) -> DriverQueue<'_, 4> {
        DriverQueue::new(self.areas(), SIZE, features).expect("a good queue")
    }
}

#[test]
fn without_event_index_the_flag_alone_decides() {
    for event in [0, 1, 9] {
        assert_eq!(Ring::new().device_notifies(0, 0, event), [true, true]);
        assert_eq!(Ring::new().device_notifies(0, 1, event), [false, false]);
        assert_eq!(Ring::new().driver_kicks(0, 0, event), [true, true]);
        assert_eq!(Ring::new().driver_kicks(0, 1, event), [false, false]);
    }
}

#[test]
fn with_event_index_the_event_alone_decides() {
    for flags in [0, 1] {
        for (event, expected) in [
            (0, [true, false]),
            (1, [false, true]),
            (2, [false, false]),
            (u16::MAX, [false, false]),
        ] {
            assert_eq!(Ring::new().device_notifies(EVENT_IDX, flags, event), expected);
            assert_eq!(Ring::new().driver_kicks(EVENT_IDX, flags, event), expected);
        }
    }
}

#[test]
fn nothing_new_is_nothing_to_tell() {
    for features in [0, EVENT_IDX] {
        let ring = Ring::new();
        let mut device = DeviceQueue::new(ring.config, features);
        assert!(!device.attach(&ring.memory).expect("a good queue").wants_notification());
        assert!(!ring.driver(features).wants_kick());
    }
}

#[test]
fn the_flags_are_0_or_1_and_stay_0_with_event_index() {
    for (features, suppressed) in [(0, 1), (EVENT_IDX, 0)] {
        let ring = Ring::new();
        let areas = ring.areas();
        let mut driver = ring.driver(features);
        driver.disarm();
        assert_eq!(areas.driver.load_u16(FLAGS), suppressed);
        assert!(!driver.arm());
        assert_eq!(areas.driver.load_u16(FLAGS), 0);
        let mut device = DeviceQueue::new(ring.config, features);
        let mut queue = device.attach(&ring.memory).expect("a good queue");
        queue.disable_kicks();
        assert_eq!(areas.device.load_u16(FLAGS), suppressed);
        assert!(!queue.enable_kicks());
        assert_eq!(areas.device.load_u16(FLAGS), 0);
    }
}

#[test]
fn a_driver_that_is_not_armed_hears_nothing_while_it_polls() {
    let ring = Ring::new();
    let mut driver = ring.driver(EVENT_IDX);
    let mut device = DeviceQueue::new(ring.config, EVENT_IDX);
    let mut queue = device.attach(&ring.memory).expect("a good queue");
    driver.disarm();
    for round in 0..100 {
        driver.add(&[Buffer::readable(0, 1)]).expect("room");
        let mut chain = Chain::new();
        assert_eq!(queue.pop(&mut chain), Ok(true));
        queue.push(chain.head(), 0);
        // The device asks at once, or after the driver has seen the chain and disarmed again.
        if round % 2 == 0 {
            assert!(!queue.wants_notification());
        }
        assert!(driver.take().expect("our own device").is_some());
        driver.disarm();
        assert!(!queue.wants_notification());
    }
}

#[test]
fn whoever_asks_late_is_told_that_there_is_something() {
    for features in [0, EVENT_IDX] {
        let ring = Ring::new();
        let mut driver = ring.driver(features);
        let mut device = DeviceQueue::new(ring.config, features);
        let mut queue = device.attach(&ring.memory).expect("a good queue");
        assert!(!queue.enable_kicks());
        driver.add(&[Buffer::readable(0, 1)]).expect("room");
        assert!(queue.enable_kicks());
        assert_eq!(queue.pop(&mut Chain::new()), Ok(true));
        assert!(!driver.arm());
        queue.push(0, 0);
        assert!(driver.arm());
    }
}

#[test]
fn a_driver_may_ask_to_be_told_of_several_at_once() {
    let ring = Ring::new();
    let mut driver = ring.driver(EVENT_IDX);
    for _ in 0..3 {
        driver.add(&[Buffer::readable(0, 1)]).expect("room");
    }
    assert!(!driver.arm_for(3));
    assert_eq!(ring.areas().driver.load_u16(USED_EVENT), 2);
    // The device has used two of them, then the third.
    ring.areas().device.store_u16(IDX, 2);
    assert!(!driver.arm_for(3) && driver.arm_for(2));
    ring.areas().device.store_u16(IDX, 3);
    assert!(driver.arm_for(3));
}
