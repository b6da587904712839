//! The first instructions of a processor: from real mode to Rust (SDM volume 3A, sections 10.4.4 and
//! 11.8.5).
//!
//! ```text
//!   16 bits  start-up message: CS = page × 256, IP = 0 ─▶ GDT, CR0.PE
//!   32 bits  flat segments ─▶ CR4.PAE, CR3, EFER.LME, CR0.PG
//!   64 bits  stack ─▶ Rust
//! ```
//!
//! The code is copied to a page below 1 MiB, since that is where the message can lead to. What it
//! needs to know stands behind it in the page, and is filled in before. Paging is switched on with
//! tables that map this page where it is; all else is as in the hypervisor's own.

use core::arch::global_asm;

use chiton_core::physical::Physical;
use x86_64::registers::control::Cr3;

global_asm!(
    ".pushsection .rodata.chiton_trampoline, \"a\"",
    ".balign 16",
    "chiton_trampoline:",
    ".code16",
    "    cli",
    "    cld",
    "    movw %cs, %ax",
    "    movw %ax, %ds",
    "    xorl %ebx, %ebx",
    "    movw %ax, %bx",
    "    shll $4, %ebx", // where the page is
    "    lgdtl (chiton_trampoline_gdt - chiton_trampoline)",
    "    movl %cr0, %eax",
    "    andl $0x9fffffff, %eax", // CD and NW are set after INIT: caches on
    "    orl $1, %eax",           // PE
    "    movl %eax, %cr0",
    "    ljmpl *(chiton_trampoline_to_32 - chiton_trampoline)",
    ".code32",
    "chiton_trampoline_32:",
    "    movw $0x10, %ax",
    "    movw %ax, %ds",
    "    movw %ax, %es",
    "    movw %ax, %ss",
    "    movl %cr4, %eax",
    "    orl $0x20, %eax", // PAE
    "    movl %eax, %cr4",
    "    movl (chiton_trampoline_tables - chiton_trampoline)(%ebx), %eax",
    "    movl %eax, %cr3",
    "    movl $0xc0000080, %ecx", // EFER
    "    rdmsr",
    "    orl $0x900, %eax", // LME, NXE
    "    wrmsr",
    "    movl %cr0, %eax",
    "    orl $0x80010000, %eax", // PG, WP
    "    movl %eax, %cr0",
    "    ljmpl *(chiton_trampoline_to_64 - chiton_trampoline)(%ebx)",
    ".code64",
    "chiton_trampoline_64:",
    "    movl %ebx, %ebx", // the upper half is undefined so far
    "    movq (chiton_trampoline_stack - chiton_trampoline)(%rbx), %rsp",
    "    movq (chiton_trampoline_argument - chiton_trampoline)(%rbx), %rdi",
    "    movq (chiton_trampoline_entry - chiton_trampoline)(%rbx), %rax",
    "    xorl %ebp, %ebp",
    "    call *%rax",
    "    ud2",
    ".balign 8",
    "chiton_trampoline_descriptors:",
    ".quad 0",
    ".quad 0x00cf9b000000ffff", // 0x08: code of 32 bits
    ".quad 0x00cf93000000ffff", // 0x10: data
    ".quad 0x00af9b000000ffff", // 0x18: code of 64 bits
    "chiton_trampoline_gdt:",
    ".word 31",
    ".long 0",
    "chiton_trampoline_to_32:",
    ".long 0",
    ".word 0x08",
    "chiton_trampoline_to_64:",
    ".long 0",
    ".word 0x18",
    ".balign 8",
    "chiton_trampoline_tables: .quad 0",
    "chiton_trampoline_stack: .quad 0",
    "chiton_trampoline_argument: .quad 0",
    "chiton_trampoline_entry: .quad 0",
    "chiton_trampoline_end:",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    static chiton_trampoline: u8;
    static chiton_trampoline_32: u8;
    static chiton_trampoline_64: u8;
    static chiton_trampoline_descriptors: u8;
    static chiton_trampoline_gdt: u8;
    static chiton_trampoline_to_32: u8;
    static chiton_trampoline_to_64: u8;
    static chiton_trampoline_tables: u8;
    static chiton_trampoline_stack: u8;
    static chiton_trampoline_argument: u8;
    static chiton_trampoline_entry: u8;
    static chiton_trampoline_end: u8;
}

/// The offset of a place in the code.
fn offset(place: *const u8) -> usize {
    place as usize - &raw const chiton_trampoline as usize
}

/// Of a table's entry: present, writable.
const TABLE: u64 = 0b11;
/// A page of 2 MiB.
const LARGE: u64 = 1 << 7;
/// How many pages it takes: one of code, and three tables, whose addresses 32-bit code has to load as CR3.
pub(super) const PAGES: usize = 4;

/// What a processor begins with.
pub(super) struct Begin {
    /// The end of its stack.
    pub(super) stack: *mut u8,
    /// The function, which does not return.
    pub(super) entry: extern "sysv64" fn(u64) -> !,
    /// Its argument.
    pub(super) argument: u64,
}

/// The page with the code, and the tables that it switches on.
pub(super) struct Trampoline<'a> {
    memory: &'a dyn Physical,
    page: u64,
    /// PML4, PDPT, PD.
    tables: [u64; 3],
}

impl<'a> Trampoline<'a> {
    /// Puts the code into the first of these pages below 1 MiB, which are nobody's, and tables into the others.
    pub(super) fn new(memory: &'a dyn Physical, pages: [u64; PAGES]) -> Self {
        let [page, tables @ ..] = pages;
        let [pml4, pdpt, pd] = tables;
        let own = Cr3::read_raw().0.start_address().as_u64();
        let entry = |page| memory.pointer(page).cast::<u64>();
        // SAFETY: the tables are pages of this function's own, and the hypervisor's PML4 is mapped with
        // all of physical memory, and changed by nobody. Its first entry is none of what the
        // boot loader maps for the hypervisor: it leaves the lower half-terabyte to addresses that are
        // the same in both worlds.
        unsafe {
            entry(pml4).copy_from_nonoverlapping(entry(own), 512);
            entry(pdpt).write_bytes(0, 512);
            entry(pd).write_bytes(0, 512);
            entry(pml4).write_volatile(pdpt | TABLE);
            entry(pdpt).write_volatile(pd | TABLE);
            entry(pd).write_volatile(LARGE | TABLE);
        }
        Self { memory, page, tables }
    }

    /// Has the next processor that begins in the page begin with this. Returns the page's number.
    pub(super) fn prepare(&self, begin: &Begin) -> u8 {
        let to = self.memory.pointer(self.page);
        let length = offset(&raw const chiton_trampoline_end);
        // SAFETY: the code is shorter than a page, and the page is nobody's. A processor begins in it by a start-up
        // message alone (SDM volume 3A, section 10.4.4), which comes after this.
        unsafe { to.copy_from_nonoverlapping(&raw const chiton_trampoline, length) };
        let in_page = |place| self.page + offset(place) as u64;
        let put = |place, bytes: &[u8]| {
            // SAFETY: the places have room for it, in the code that was just copied.
            unsafe {
                to.add(offset(place))
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            }
        };
        let put_32 = |place, value: u64| put(place, &(value as u32).to_le_bytes());
        let put_64 = |place, value: u64| put(place, &value.to_le_bytes());
        put_32(
            (&raw const chiton_trampoline_gdt).wrapping_add(2),
            in_page(&raw const chiton_trampoline_descriptors),
        );
        put_32(
            &raw const chiton_trampoline_to_32,
            in_page(&raw const chiton_trampoline_32),
        );
        put_32(
            &raw const chiton_trampoline_to_64,
            in_page(&raw const chiton_trampoline_64),
        );
        put_64(&raw const chiton_trampoline_tables, self.tables[0]);
        put_64(&raw const chiton_trampoline_stack, begin.stack as u64);
        put_64(&raw const chiton_trampoline_argument, begin.argument);
        put_64(&raw const chiton_trampoline_entry, begin.entry as *const () as u64);
        (self.page >> 12) as u8
    }
}
