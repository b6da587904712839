//! The guest: a page of code, three page tables, and a task state segment.

/// Physical and virtual address of the code.
pub const CODE: usize = 0x1_0000;
/// The PML4; the two tables below it follow.
pub const PAGE_TABLES: usize = 0x1000;
/// The task state segment. Its I/O map permits every port.
pub const TSS: usize = 0x8000;
/// Port of an exit of the loop.
pub const NOP: u16 = 0xC14;
/// Port of the last exit.
pub const EXIT: u16 = 0xC00;

/// Present, writable, user.
const TABLE: u64 = 0b111;
/// The same, a 2 MiB page.
const LARGE: u64 = TABLE | 1 << 7;

/// Writes tables that map the first 2 MiB and code that rings [`NOP`] `exits` times, then
/// [`EXIT`].
pub fn build(memory: &mut [u8], exits: u32) {
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    let table = |n: usize| PAGE_TABLES + n * 0x1000;
    put(table(0), &(table(1) as u64 | TABLE).to_le_bytes());
    put(table(1), &(table(2) as u64 | TABLE).to_le_bytes());
    put(table(2), &LARGE.to_le_bytes());
    // Where the I/O map begins; it is all zero (SDM volume 1, "I/O Permission Bit Map").
    put(TSS + 102, &104_u16.to_le_bytes());

    let [count, nop, exit] = [
        exits.to_le_bytes(),
        u32::from(NOP).to_le_bytes(),
        u32::from(EXIT).to_le_bytes(),
    ];
    let mut at = CODE;
    let mut code = |bytes: &[u8]| {
        put(at, bytes);
        at += bytes.len();
    };
    code(&[0xb9]); // mov ecx, exits
    code(&count);
    code(&[0xba]); // mov edx, NOP
    code(&nop);
    code(&[0xe3, 0x05]); // jrcxz to the last exit
    code(&[0xef]); // out dx, eax
    code(&[0xff, 0xc9]); // dec ecx
    code(&[0x75, 0xfb]); // jnz to the out
    code(&[0xba]); // mov edx, EXIT
    code(&exit);
    code(&[0xef]); // out dx, eax
}
