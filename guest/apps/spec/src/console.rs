//! The console device (section 5.3).

use crate::mmio::*;
use crate::report::Report;
use crate::ring::{How, Part, Ring};

const TRANSMIT: u32 = 1;

const F_EMERG_WRITE: u64 = 1 << 2;
/// Offset of `emerg_wr` in the configuration.
const EMERG_WR: u64 = 8;

fn open(device: &Mmio, wanted: u64) -> Result<(Ring<'_>, u64), &'static str> {
    let features = device.negotiate(wanted)?;
    let ring = Ring::new(device, TRANSMIT, u16::MAX, features & EVENT_IDX != 0)?;
    device.add_status(DRIVER_OK);
    Ok((ring, features))
}

pub fn check(device: &Mmio, report: &mut Report) {
    report.result("text goes out in one buffer", direct(device));
    report.result("text goes out in many buffers", many(device));
    report.result("text goes out through a table", indirect(device));
    report.result("one queue works while the other is not set up", direct(device));
    report.result("the emergency write needs no queue", emergency(device));
    report.result("a device that was reset starts over", start_over(device));
}

fn sent(written: u32) -> Result<(), &'static str> {
    if written == 0 {
        Ok(())
    } else {
        Err("the device claims to have written into output")
    }
}

fn direct(device: &Mmio) -> Result<(), &'static str> {
    let (mut ring, _) = open(device, 0)?;
    sent(ring.run(&[Part::from(b"one buffer\n")], How::Direct)?)
}

fn many(device: &Mmio) -> Result<(), &'static str> {
    let (mut ring, _) = open(device, EVENT_IDX)?;
    let parts: [Part; 5] = [&b"ma"[..], b"ny", b" ", b"buffers", b"\n"].map(Part::from);
    sent(ring.run(&parts, How::Direct)?)
}

fn indirect(device: &Mmio) -> Result<(), &'static str> {
    let (mut ring, features) = open(device, u64::MAX)?;
    if features & INDIRECT_DESC == 0 {
        return Ok(());
    }
    sent(ring.run(&[&b"through "[..], b"a table\n"].map(Part::from), How::Indirect)?)
}

fn emergency(device: &Mmio) -> Result<(), &'static str> {
    let features = device.negotiate(u64::MAX)?;
    if features & F_EMERG_WRITE != 0 {
        for byte in b"emergency\n" {
            device.write(CONFIG + EMERG_WR, (*byte).into());
        }
    }
    Ok(())
}

fn start_over(device: &Mmio) -> Result<(), &'static str> {
    for _ in 0..3 {
        let (mut ring, _) = open(device, u64::MAX)?;
        sent(ring.run(&[Part::from(b"again\n")], How::Direct)?)?;
    }
    Ok(())
}

/// Prints, as the last thing a guest does.
pub fn print(device: &Mmio, text: &str) {
    let result = open(device, 0).and_then(|(mut ring, _)| ring.run(&[Part::from(text.as_bytes())], How::Direct));
    if let Err(why) = result {
        chiton_guest::log::error!("the console does not work: {why}");
    }
}
