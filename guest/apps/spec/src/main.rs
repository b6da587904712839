//! Drives every device from the virtio 1.3 specification alone, and checks each against it.
//!
//! Nothing of the guest library's drivers, of the rings it shares with the host or of the boot
//! page's device table is used: offsets, bits and layouts are written down here a second time,
//! from the specification, so that a misreading shows. Devices are found by looking for register
//! blocks from 0xD0000000 on.
//!
//! Prints a line for each check; the exit code is the number of those that failed.
#![no_std]
#![no_main]

extern crate alloc;

mod block;
mod common;
mod console;
mod entropy;
mod mmio;
mod report;
mod ring;

use chiton_guest::ExitCode;

use mmio::Mmio;
use report::Report;

chiton_guest::entry!(main, heap = 2 * MIB);

/// Where register blocks are looked for, how far apart, and how many.
const BLOCKS: (u64, u64, u64) = (0xD000_0000, 0x1000, 16);

fn main() -> ExitCode {
    let mut report = Report::new();
    let (start, stride, count) = BLOCKS;
    let devices = (0..count).map(|i| Mmio(start + i * stride)).filter(Mmio::is_there);
    let mut output = None;
    for device in devices {
        let id = device.read(mmio::DEVICE_ID);
        let kind = match id {
            2 => "block",
            3 => "console",
            4 => "entropy",
            _ => continue,
        };
        report.about(kind);
        common::check(&device, &mut report);
        match id {
            2 => block::check(&device, &mut report),
            3 => {
                console::check(&device, &mut report);
                output = Some(device);
            }
            _ => entropy::check(&device, &mut report),
        }
    }
    report.about("all");
    report.check("a console was found", output.is_some());
    if let Some(device) = output {
        console::print(&device, report.text());
    }
    ExitCode::from(report.failures().min(255))
}
