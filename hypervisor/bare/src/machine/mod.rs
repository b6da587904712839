//! From the boot loader's jump to the machine's end.
//!
//! | file | what it is |
//! |---|---|
//! | `serial` | COM1, which is the guest's console |
//! | `debug` | port 0xE9, which is for the hypervisor's own words |
//! | `memory` | the machine's memory: the heap, pages, guest memory |
//! | `descriptors`, `fault` | GDT, TSS and IDT, and what a fault of the hypervisor itself says |
//! | `interrupts` | the controllers that would interrupt a guest, silenced |
//! | `end` | how the machine is switched off, and with which status |

mod debug;
mod descriptors;
mod end;
mod fault;
mod interrupts;
#[allow(dead_code, reason = "a guest's share of it")]
mod memory;
#[allow(dead_code, reason = "a guest's input")]
mod serial;

use core::panic::PanicInfo;

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::{BootInfo, entry_point};

use debug::say;

/// What we ask of the boot loader: a stack that is deep enough for the loader and for reports, and
/// all memory mapped.
static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 256 << 10;
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

entry_point!(start, config = &CONFIG);

fn start(info: &'static mut BootInfo) -> ! {
    descriptors::load();
    interrupts::silence();
    serial::init();
    if !debug::is_there() {
        debug::use_serial();
    }
    say!("chiton: {} on bare metal", env!("CARGO_PKG_VERSION"));
    match memory::Memory::of(info) {
        Ok(memory) => {
            say!("chiton: {memory}");
            end::end(0)
        }
        Err(error) => {
            say!("error: {error}");
            end::end(end::FAILED)
        }
    }
}

/// A fault of ours, not of the guest: it says where, and ends the machine.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("error: the hypervisor panicked: {info}");
    end::end(end::FAILED)
}
