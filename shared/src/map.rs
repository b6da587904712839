//! The guest-physical map.
//!
//! Virtual equals physical: a page is either mapped at its own address or not mapped.
//! The first 2 MiB are the world the host builds; the guest's image, stack and heap follow.
//!
//! ```text
//! 0000_0000  never mapped: a null pointer faults
//! 0001_0000  boot page, then its strings        user, read-only
//! 0002_0000  GDT, TSS, IDT, stubs               supervisor, read-only
//! 0003_0000  trap stacks, each between guards   supervisor, read-write
//! 0004_0000  page tables                        not mapped at all
//! 000D_8000  TSS of each further processor      supervisor, read-only
//! 000D_C000  trap stacks of those               supervisor, read-write
//! 000F_0000  mailbox                            user, read-write
//! 0010_0000  virtqueues                         user, read-write
//! 0020_0000  image │ guard │ stack │ guard │ heap … end of memory
//! D000_0000  virtio-mmio register blocks        user, read-write, no memory behind
//! 1_0000_0000  memory above 3 GiB continues here
//! ```

/// Size of the smallest page, in bytes.
pub const PAGE: u64 = 4096;
/// Size of a large page, in bytes.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Addresses below this are never mapped, so that a null pointer with an offset faults too.
pub const NULL_END: u64 = 0x1_0000;

/// The [boot page](crate::boot::BootPage).
pub const BOOT_PAGE: u64 = 0x1_0000;
/// Strings the boot page points to: arguments and environment.
pub const BOOT_STRINGS: u64 = 0x1_1000;
/// End of the strings.
pub const BOOT_STRINGS_END: u64 = 0x2_0000;

/// The global descriptor table, one page.
pub const GDT: u64 = 0x2_0000;
/// The task state segment, one page.
pub const TSS: u64 = 0x2_1000;
/// The interrupt descriptor table, one page: 256 gates of 16 bytes.
pub const IDT: u64 = 0x2_2000;
/// Code of the trap stubs that the IDT points to.
pub const TRAP_STUBS: u64 = 0x2_3000;
/// Code of the [interrupt](crate::interrupts) stubs and gates, one page, if there are interrupts.
pub const INTERRUPT_STUBS: u64 = 0x2_4000;
/// End of the stubs.
pub const TRAP_STUBS_END: u64 = 0x2_8000;

/// Trap stacks: stack `n` occupies the page at `TRAP_STACKS + (2 * n + 1) * PAGE`; the pages
/// between are not mapped.
pub const TRAP_STACKS: u64 = 0x3_0000;
/// How many trap stacks there are: one for `RSP0` and one for each IST entry in use.
pub const TRAP_STACK_COUNT: u64 = 5;

/// Page tables, which are mapped nowhere: no guest instruction can reach them.
pub const PAGE_TABLES: u64 = 0x4_0000;
/// End of the page tables.
pub const PAGE_TABLES_END: u64 = 0xD_8000;

/// The task state segments of the processors beyond the first: see [`crate::processor`].
pub const PROCESSOR_TSS: u64 = 0xD_8000;
/// The trap stacks of the processors beyond the first.
pub const PROCESSOR_TRAP_STACKS: u64 = 0xD_C000;

/// The [mailbox](crate::doorbell::Mailbox).
pub const MAILBOX: u64 = 0xF_0000;

/// Memory of the virtqueues that the host sets up before the guest starts.
pub const QUEUES: u64 = 0x10_0000;
/// End of the virtqueues.
pub const QUEUES_END: u64 = 0x20_0000;

/// Where the guest's own memory begins: image, stack, heap.
pub const GUEST: u64 = 0x20_0000;

/// End of low memory; what is larger continues at [`HIGH_MEMORY`].
pub const LOW_MEMORY_END: u64 = 0xC000_0000;
/// Memory beyond 3 GiB lies from here on.
pub const HIGH_MEMORY: u64 = 0x1_0000_0000;

/// The first virtio-mmio register block.
pub const DEVICES: u64 = 0xD000_0000;
/// Distance from one register block to the next, in bytes.
pub const DEVICE_STRIDE: u64 = PAGE;
/// The greatest number of devices.
pub const DEVICE_MAX: usize = 16;

/// The register block of device number `index`.
///
/// # Panics
///
/// If `index` is not below [`DEVICE_MAX`].
#[must_use]
pub const fn device_registers(index: usize) -> u64 {
    assert!(index < DEVICE_MAX);
    DEVICES + index as u64 * DEVICE_STRIDE
}

/// First and last-plus-one address of trap stack `n`.
///
/// # Panics
///
/// If `n` is not below [`TRAP_STACK_COUNT`].
#[must_use]
pub const fn trap_stack(n: u64) -> (u64, u64) {
    assert!(n < TRAP_STACK_COUNT);
    let bottom = TRAP_STACKS + (2 * n + 1) * PAGE;
    (bottom, bottom + PAGE)
}

const _: () = {
    assert!(trap_stack(TRAP_STACK_COUNT - 1).1 < PAGE_TABLES);
    assert!(MAILBOX + PAGE <= QUEUES);
    assert!(QUEUES_END <= GUEST && GUEST.is_multiple_of(LARGE_PAGE));
    assert!(DEVICES >= LOW_MEMORY_END);
    assert!(DEVICES + DEVICE_MAX as u64 * DEVICE_STRIDE <= HIGH_MEMORY);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_blocks_do_not_touch() {
        assert_eq!(device_registers(1) - device_registers(0), DEVICE_STRIDE);
    }

    #[test]
    fn trap_stacks_have_a_page_between_them() {
        assert_eq!(trap_stack(1).0 - trap_stack(0).1, PAGE);
    }
}
