//! Which pages are mapped, with which permissions.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use chiton_shared::manifest::Ring;
use chiton_shared::{map, processor};

use super::{Layout, Place};
use crate::loader::{Access, Image};

/// Size of the pages of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

impl PageSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => map::PAGE,
            Self::Large => map::LARGE_PAGE,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Small => "4K",
            Self::Large => "2M",
        })
    }
}

/// A run of pages, mapped to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// Size of the pages.
    pub page: PageSize,
    /// What code may do there.
    pub access: Access,
    /// Whether ring 3 may do it too.
    pub user: bool,
    /// Whether the processor may cache it: not if a device is behind it.
    pub cached: bool,
    /// What it is.
    pub place: Place,
}

impl Mapping {
    /// Whether an address lies in it.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start, self.end);
        let ring = if self.user { "user" } else { "supervisor" };
        let pages = (end - start) / self.page.bytes();
        write!(
            f,
            "{start:>12x} {end:>12x} {pages:>6} x {} {} {ring:<10} {}",
            self.page, self.access, self.place
        )?;
        if self.cached { Ok(()) } else { f.write_str(", uncached") }
    }
}

/// The list under construction.
struct List {
    mappings: Vec<Mapping>,
    /// Whether ring 3 may use what the guest is to use.
    guest: bool,
}

impl List {
    /// Maps whole pages, with large pages where they fit.
    fn add(&mut self, range: Range<u64>, access: Access, user: bool, place: Place) {
        let Range { start, end } = range;
        let large_start = start.next_multiple_of(map::LARGE_PAGE).min(end);
        let large_end = (end & !(map::LARGE_PAGE - 1)).max(large_start);
        let cached = !matches!(place, Place::Device(_) | Place::Devices);
        let pieces = [
            (start..large_start, PageSize::Small),
            (large_start..large_end, PageSize::Large),
            (large_end..end, PageSize::Small),
        ];
        for (range, page) in pieces.into_iter().filter(|(range, _)| !range.is_empty()) {
            self.mappings.push(Mapping {
                start: range.start,
                end: range.end,
                page,
                access,
                user,
                cached,
                place,
            });
        }
    }

    fn guest(&mut self, range: Range<u64>, access: Access, place: Place) {
        self.add(range, access, self.guest, place);
    }

    fn supervisor(&mut self, range: Range<u64>, access: Access, place: Place) {
        self.add(range, access, false, place);
    }
}

/// Everything that is mapped, by address.
pub(super) fn all(image: &Image<'_>, layout: &Layout, ring: Ring, interrupts: bool) -> Vec<Mapping> {
    let mut list = List {
        mappings: Vec::with_capacity(32),
        guest: ring == Ring::User,
    };
    low(&mut list);
    if interrupts {
        let stubs = map::INTERRUPT_STUBS..map::INTERRUPT_STUBS + map::PAGE;
        list.supervisor(stubs, Access::Execute, Place::InterruptStubs);
    }
    segments(&mut list, image);
    list.guest(layout.stack.clone(), Access::Write, Place::Stack);
    processors(&mut list, layout);
    list.guest(layout.heap.clone(), Access::Write, Place::Heap);
    let window = map::DEVICES..map::DEVICES + map::DEVICE_MAX as u64 * map::DEVICE_STRIDE;
    list.guest(window, Access::Write, Place::Devices);
    list.mappings.sort_unstable_by_key(|m| m.start);
    list.mappings
}

/// The first 2 MiB: the world the host builds.
fn low(list: &mut List) {
    let page = |start: u64| start..start + map::PAGE;
    list.guest(page(map::BOOT_PAGE), Access::Read, Place::BootPage);
    list.guest(map::BOOT_STRINGS..map::BOOT_STRINGS_END, Access::Read, Place::Strings);
    list.supervisor(page(map::GDT), Access::Read, Place::Gdt);
    list.supervisor(page(map::TSS), Access::Read, Place::Tss);
    list.supervisor(page(map::IDT), Access::Read, Place::Idt);
    list.supervisor(page(map::TRAP_STUBS), Access::Execute, Place::TrapStubs);
    for n in 0..map::TRAP_STACK_COUNT {
        let (start, end) = map::trap_stack(n);
        list.supervisor(start..end, Access::Write, Place::TrapStack(n));
    }
    list.guest(page(map::MAILBOX), Access::Write, Place::Mailbox);
    list.guest(map::QUEUES..map::QUEUES_END, Access::Write, Place::Queues);
}

/// What the processors beyond the first have for themselves.
fn processors(list: &mut List, layout: &Layout) {
    let count = layout.blocks().count() as u64;
    let pages = |start: u64, size: u64| start..start + size.next_multiple_of(map::PAGE);
    let tss = pages(map::PROCESSOR_TSS, count * processor::TSS_STRIDE);
    list.supervisor(tss, Access::Read, Place::Tss);
    let size = count * processor::TRAP_STACKS * processor::TRAP_STACK_SIZE;
    let stacks = pages(map::PROCESSOR_TRAP_STACKS, size);
    list.supervisor(stacks, Access::Write, Place::ProcessorTrapStacks);
    for block in layout.blocks() {
        list.guest(
            block + processor::MAILBOX..block + processor::MAILBOX + map::PAGE,
            Access::Write,
            Place::Mailbox,
        );
        let stack = block + processor::STACK;
        list.guest(
            stack..stack + (layout.stack.end - layout.stack.start),
            Access::Write,
            Place::Stack,
        );
    }
}

/// The image. Segments with the same permissions may share a page, which is mapped once.
fn segments(list: &mut List, image: &Image<'_>) {
    let mut mapped = 0;
    let relro = image.relro().unwrap_or_default();
    for segment in image.segments() {
        let pages = segment.pages();
        let (start, end) = (pages.start.max(mapped), pages.end);
        mapped = end;
        match segment.access {
            Access::Read => list.guest(start..end, Access::Read, Place::ReadOnlyData),
            Access::Execute => list.guest(start..end, Access::Execute, Place::Text),
            Access::Write => {
                let cut = |address: u64| address.clamp(start, end.max(start));
                let (first, last) = (cut(relro.start), cut(relro.end));
                list.guest(start..first, Access::Write, Place::Data);
                list.guest(first..last, Access::Read, Place::Relro);
                list.guest(last..end, Access::Write, Place::Data);
            }
        }
    }
}
