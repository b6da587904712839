//! The entropy device (section 5.4).

use crate::mmio::*;
use crate::report::Report;
use crate::ring::{How, Part, Ring};

pub fn check(device: &Mmio, report: &mut Report) {
    report.result(
        "buffers are filled with bytes that differ",
        differ(device, How::Direct, 0),
    );
    report.result(
        "buffers in a table are filled too",
        differ(device, How::Indirect, u64::MAX),
    );
}

fn differ(device: &Mmio, how: How, wanted: u64) -> Result<(), &'static str> {
    let features = device.negotiate(wanted)?;
    if how == How::Indirect && features & INDIRECT_DESC == 0 {
        return Ok(());
    }
    let mut ring = Ring::new(device, 0, 8, features & EVENT_IDX != 0)?;
    device.add_status(DRIVER_OK);
    let mut bytes = [[0; 64]; 2];
    for bytes in &mut bytes {
        let (first, second) = bytes.split_at_mut(20);
        let written = ring.run(&[Part::to(first), Part::to(second)], how)?;
        if !(1..=64).contains(&written) {
            return Err("the used length is nothing, or more than there was room for");
        }
        let rest = bytes.get(written as usize..).unwrap_or_default();
        if rest.iter().any(|byte| *byte != 0) {
            return Err("more was written than the used length says");
        }
    }
    let [first, second] = bytes;
    if first == second || first == [0; 64] {
        Err("the bytes are always the same")
    } else {
        Ok(())
    }
}
