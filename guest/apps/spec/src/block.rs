//! The block device (section 5.2).

use alloc::vec;
use alloc::vec::Vec;

use crate::mmio::*;
use crate::report::Report;
use crate::ring::{How, Part, Ring};

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;

/// A disk that is ready.
struct Disk<'d> {
    ring: Ring<'d>,
    /// What was agreed on.
    features: u64,
    read_only: bool,
    sectors: u64,
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

impl<'d> Disk<'d> {
    fn open(device: &'d Mmio, wanted: u64, size: u16) -> Result<Self, &'static str> {
        let features = device.negotiate(wanted)?;
        let read_only = device.features() & F_RO != 0;
        let ring = Ring::new(device, 0, size, features & EVENT_IDX != 0)?;
        device.add_status(DRIVER_OK);
        Ok(Self {
            ring,
            features,
            read_only,
            sectors: device.config_u64(0),
        })
    }

    /// Runs a request whose data come in these pieces: status, and the used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[Part], how: How) -> Result<(u8, u32), &'static str> {
        let header = header(kind, sector);
        let mut status = [0xFF];
        let mut parts = vec![Part::from(&header)];
        parts.extend_from_slice(data);
        parts.push(Part::to(&mut status));
        let written = self.ring.run(&parts, how)?;
        Ok((status[0], written))
    }

    fn read(&mut self, sector: u64, to: &mut [u8], how: How) -> Result<(), &'static str> {
        let len = to.len() as u32;
        match self.request(READ, sector, &[Part::to(to)], how)? {
            (OK, written) if written == len + 1 => Ok(()),
            (OK, _) => Err("the used length is not that of data and status"),
            _ => Err("the read failed"),
        }
    }
}

pub fn check(device: &Mmio, report: &mut Report) {
    report.result("buffers wait for DRIVER_OK", before_driver_ok(device));
    for (name, wanted) in [
        ("with VERSION_1 alone", 0),
        ("with event index", EVENT_IDX),
        ("with indirect descriptors", INDIRECT_DESC),
        ("with all features", u64::MAX),
    ] {
        let disk = Disk::open(device, wanted, u16::MAX);
        if let Some(mut disk) = report.result(name, disk) {
            with(&mut disk, device, report);
        }
    }
    for size in [2, 4, 8] {
        report.result("a small queue works", small_queue(device, size));
    }
    report.result("indices go round", go_round(device));
}

fn with(disk: &mut Disk<'_>, device: &Mmio, report: &mut Report) {
    let how = if disk.features & INDIRECT_DESC != 0 {
        How::Indirect
    } else {
        How::Direct
    };
    report.result("sectors are read", read(disk, how));
    report.result("a request may be cut into buffers anywhere (2.7.4)", framing(disk, how));
    report.result("errors are told by the status", errors(disk, how));
    report.result("the device has a name of 20 bytes", name(disk, how));
    report.result(
        "sectors are written, or refused if the disk is read-only",
        write(disk, how),
    );
    report.result("interrupts come when asked for, and only then", interrupts(disk, how));
    report.result(
        "a driver that notifies only when wanted gets its answers",
        polite(disk, how),
    );
    report.check(
        "the device has not asked for a reset",
        device.read(STATUS) & NEEDS_RESET == 0,
    );
}

fn before_driver_ok(device: &Mmio) -> Result<(), &'static str> {
    device.negotiate(0)?;
    let mut ring = Ring::new(device, 0, 8, false)?;
    let header = header(READ, 0);
    let (mut data, mut status) = ([0; 512], [0xFF]);
    ring.add(
        0,
        &[Part::from(&header), Part::to(&mut data), Part::to(&mut status)],
        How::Direct,
    );
    ring.notify();
    linger();
    if ring.finished() != 0 {
        return Err("the device worked before DRIVER_OK");
    }
    device.add_status(DRIVER_OK);
    ring.notify();
    ring.collect().map(|_| ())
}

fn read(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    if disk.sectors == 0 {
        return Err("the disk is empty");
    }
    let count = disk.sectors.min(8);
    let mut whole = vec![0; 512 * count as usize];
    disk.read(0, &mut whole, how)?;
    let mut sector = [0; 512];
    for (i, expected) in whole.chunks(512).enumerate() {
        disk.read(i as u64, &mut sector, How::Direct)?;
        if sector != *expected {
            return Err("a sector read by itself is another one");
        }
    }
    disk.read(disk.sectors - 1, &mut sector, how)
}

fn framing(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let mut expected = [0; 512];
    disk.read(0, &mut expected, how)?;
    let header = header(READ, 0);
    // Data and status in one piece, after a header in three.
    let mut all = [0xFF; 513];
    let (first, second) = header.split_at(1);
    let (second, third) = second.split_at(7);
    let parts = [
        Part::from(first),
        Part::from(second),
        Part::from(third),
        Part::to(&mut all),
    ];
    let written = disk.ring.run(&parts, how)?;
    if written != 513 || all[..512] != expected || all[512] != OK {
        return Err("data and status in one buffer");
    }
    let mut pieces = [0xFF; 513];
    let (a, rest) = pieces.split_at_mut(100);
    let (b, c) = rest.split_at_mut(1);
    disk.ring
        .run(&[Part::from(&header), Part::to(a), Part::to(b), Part::to(c)], how)?;
    if pieces[..512] != expected || pieces[512] != OK {
        return Err("data in odd pieces");
    }
    Ok(())
}

fn errors(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let mut sector = [0; 1024];
    for start in [disk.sectors - 1, disk.sectors, u64::MAX, 1 << 55] {
        if disk.request(READ, start, &[Part::to(&mut sector)], how)?.0 != IOERR {
            return Err("a read beyond the end does not fail");
        }
    }
    if disk.request(0xABCD, 0, &[Part::to(&mut sector[..512])], how)?.0 != UNSUPP {
        return Err("an unknown request is not unsupported");
    }
    Ok(())
}

fn name(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let mut name = [0xFF; 20];
    let (status, _) = disk.request(GET_ID, 0, &[Part::to(&mut name)], how)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(20);
    let text = name[..end].iter().all(|byte| (b' '..=b'~').contains(byte));
    if status != OK || !text {
        Err("no name, or one that is not text")
    } else {
        Ok(())
    }
}

fn write(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let last = disk.sectors - 1;
    let mut before = [0; 512];
    disk.read(last, &mut before, how)?;
    let pattern: [u8; 512] = core::array::from_fn(|i| before[i] ^ (i as u8 | 1));
    let (status, written) = disk.request(WRITE, last, &[Part::from(&pattern)], how)?;
    if disk.read_only {
        return if status == IOERR {
            Ok(())
        } else {
            Err("a read-only disk takes a write")
        };
    }
    if (status, written) != (OK, 1) {
        return Err("the write failed, or the used length is not that of the status");
    }
    let mut after = [0; 512];
    disk.read(last, &mut after, how)?;
    if disk.features & F_FLUSH != 0 && disk.request(FLUSH, 0, &[], how)?.0 != OK {
        return Err("the flush failed");
    }
    if disk.request(WRITE, last, &[Part::from(&before)], how)?.0 != OK {
        return Err("the second write failed");
    }
    if after == pattern {
        Ok(())
    } else {
        Err("what was written is not what is read")
    }
}

fn interrupts(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let mut sector = [0; 512];
    disk.ring.silence();
    disk.ring.acknowledge();
    disk.read(0, &mut sector, how)?;
    linger();
    if disk.ring.interrupt() {
        return Err("an interrupt that was not asked for");
    }
    disk.ring.unsilence();
    disk.read(0, &mut sector, how)?;
    wait_for(|| disk.ring.interrupt()).map_err(|()| "no interrupt that was asked for")?;
    disk.ring.acknowledge();
    if disk.ring.interrupt() {
        return Err("an interrupt that was acknowledged stays");
    }
    disk.ring.silence();
    Ok(())
}

fn polite(disk: &mut Disk<'_>, how: How) -> Result<(), &'static str> {
    let header = header(READ, 0);
    let (mut data, mut status) = ([0; 512], [0xFF]);
    let parts = [Part::from(&header), Part::to(&mut data), Part::to(&mut status)];
    for _ in 0..100 {
        disk.ring.add(0, &parts, how);
        disk.ring.notify_if_wanted(1);
        disk.ring.collect()?;
        disk.ring.forget_tables();
    }
    Ok(())
}

fn small_queue(device: &Mmio, size: u16) -> Result<(), &'static str> {
    let mut disk = Disk::open(device, u64::MAX, size)?;
    if disk.features & INDIRECT_DESC == 0 && size < 3 {
        return Ok(());
    }
    let how = if size < 3 { How::Indirect } else { How::Direct };
    // A table may not have more entries than its queue, so a request has to fit into two.
    for _ in 0..3 * size {
        let header = header(READ, 0);
        let mut all = [0xFF; 513];
        disk.ring.run(&[Part::from(&header), Part::to(&mut all)], how)?;
        if all[512] != OK {
            return Err("a read failed");
        }
    }
    Ok(())
}

/// So many requests that the 16-bit indices wrap, in batches that fill the queue.
fn go_round(device: &Mmio) -> Result<(), &'static str> {
    let mut disk = Disk::open(device, u64::MAX, u16::MAX)?;
    let how = if disk.features & INDIRECT_DESC != 0 {
        How::Indirect
    } else {
        How::Direct
    };
    let each = if how == How::Indirect { 1 } else { 2 };
    let batch = usize::from(disk.ring.size / each);
    let header = header(READ, 0);
    let mut buffers: Vec<[u8; 513]> = vec![[0; 513]; batch];
    let mut done = 0;
    while done < 70_000 {
        let mut next = 0;
        for buffer in &mut buffers {
            buffer[512] = 0xFF;
            next = disk.ring.add(next, &[Part::from(&header), Part::to(buffer)], how);
        }
        disk.ring.notify_if_wanted(batch as u16);
        let mut heads = vec![false; usize::from(disk.ring.size)];
        for _ in 0..batch {
            let (head, written) = disk.ring.collect()?;
            let seen = heads.get_mut(head as usize).ok_or("a head beyond the queue")?;
            if core::mem::replace(seen, true) || written != 513 {
                return Err("a request came back twice, or cut short");
            }
        }
        disk.ring.forget_tables();
        if buffers.iter().any(|buffer| buffer[512] != OK) {
            return Err("a read failed");
        }
        done += batch;
    }
    Ok(())
}
