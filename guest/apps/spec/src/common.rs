//! What holds for every device: registers, status, negotiation, queues.

use crate::mmio::*;
use crate::report::Report;

pub fn check(device: &Mmio, report: &mut Report) {
    registers(device, report);
    status(device, report);
    negotiation(device, report);
    queues(device, report);
    configuration(device, report);
}

fn registers(device: &Mmio, report: &mut Report) {
    report.check("magic value and version are as 4.2.2 has them", device.is_there());
    device.write(SHM_SEL, 0);
    let none = (device.read(SHM_LEN), device.read(SHM_LEN + 4)) == (u32::MAX, u32::MAX);
    report.check(
        "a shared memory region that is not there has a length of all ones",
        none,
    );
}

fn status(device: &Mmio, report: &mut Report) {
    let reset = device.reset();
    report.result("writing 0 to Status resets, and Status says so", reset);
    report.check(
        "bits of Status stay as the driver set them",
        device.read(STATUS) == ACKNOWLEDGE | DRIVER,
    );
    report.check(
        "no interrupt is pending after a reset",
        device.read(INTERRUPT_STATUS) == 0,
    );
}

fn negotiation(device: &Mmio, report: &mut Report) {
    let offered = device.features();
    report.check("VERSION_1 is offered", offered & VERSION_1 != 0);
    device.write(DEVICE_FEATURES_SEL, 2);
    report.check(
        "nothing is offered beyond feature 63 that this driver would know",
        device.read(DEVICE_FEATURES) == 0,
    );

    let refused = (0..64).map(|bit| 1 << bit).filter(|bit| offered & bit == 0).all(|bit| {
        let _ = device.reset();
        device.accept(offered | bit);
        device.add_status(FEATURES_OK);
        device.read(STATUS) & FEATURES_OK == 0
    });
    report.check("FEATURES_OK stays clear for each feature that is not offered", refused);

    let subset = device.negotiate(0);
    report.result("VERSION_1 alone is accepted", subset);
    let all = device.agree(u64::MAX);
    report.check("everything offered is accepted", all == Ok(offered));
    let _ = device.reset();
    report.check("the offer is the same after a reset", device.features() == offered);
}

fn queues(device: &Mmio, report: &mut Report) {
    let _ = device.negotiate(u64::MAX);
    let size_of = |queue: u32| {
        device.write(QUEUE_SEL, queue);
        device.read(QUEUE_SIZE_MAX)
    };
    let count = (0..1000).take_while(|queue| size_of(*queue) != 0).count() as u32;
    report.check("there is a queue", count > 0);
    let sizes_are_right = (0..count).all(|queue| (1..=32768).contains(&size_of(queue)));
    report.check("queues have 1 to 32768 descriptors", sizes_are_right);
    report.check(
        "queues that are not there have size 0",
        [count, 1000, u32::MAX].iter().all(|q| size_of(*q) == 0),
    );
    let not_ready = (0..count).all(|queue| {
        device.write(QUEUE_SEL, queue);
        device.read(QUEUE_READY) == 0
    });
    report.check("no queue is ready after a reset", not_ready);
    let max = size_of(0);
    device.write(QUEUE_SIZE, max * 2);
    device.write_u64(QUEUE_DESC, 0x30_0000);
    device.write_u64(QUEUE_DRIVER, 0x31_0000);
    device.write_u64(QUEUE_DEVICE, 0x32_0000);
    device.write(QUEUE_READY, 1);
    report.check(
        "a queue larger than QueueSizeMax does not become ready",
        device.read(QUEUE_READY) == 0,
    );
    device.write(QUEUE_SIZE, 3);
    device.write(QUEUE_READY, 1);
    report.check(
        "a queue of 3 descriptors does not become ready",
        device.read(QUEUE_READY) == 0,
    );
    let _ = device.reset();
}

fn configuration(device: &Mmio, report: &mut Report) {
    let bytes: [u8; 4] = core::array::from_fn(|i| device.config_u8(i as u64));
    let halves = [device.config_u16(0).to_le_bytes(), device.config_u16(2).to_le_bytes()];
    let word = device.config_u32(0).to_le_bytes();
    report.check(
        "the configuration reads the same in every width",
        word == bytes && *halves.as_flattened() == bytes,
    );
    let generation = device.read(CONFIG_GENERATION);
    let _ = device.config_u64(0);
    report.check(
        "the generation stays while the configuration does",
        device.read(CONFIG_GENERATION) == generation,
    );
}
