//! Device registers and ports by every form of instruction that a hypervisor may have to carry out
//! itself: where no device is, a read gives all ones and a write is lost.

use core::arch::asm;

use crate::Checks;
use crate::exceptions::{Outcome, attempt};

/// Among the device registers, where no device is; it is mapped.
const NOTHING: *mut u64 = 0xd000_f000 as *mut u64;
/// A port that no doorbell has.
const PORT: u16 = 0x510;

/// Something that can be told from all ones.
const MARK: u64 = 0x1122_3344_5566_7788;

pub fn all(checks: &mut Checks) {
    loads(checks);
    updates(checks);
    strings(checks);
    ports(checks);
}

fn loads(checks: &mut Checks) {
    let (mut a, mut b, mut c, mut d) = (MARK, MARK, MARK, MARK);
    let (mut e, mut f, mut g) = (MARK, MARK, MARK);
    let h: u64;
    // SAFETY: no memory is there; the registers are these variables.
    unsafe {
        asm!(
            "mov {a:l}, [{p}]", "mov {b:x}, [{p}]", "mov {c:e}, [{p}]", "mov {d}, [{p}]",
            a = inout(reg) a, b = inout(reg) b, c = inout(reg) c, d = inout(reg) d, p = in(reg) NOTHING,
        );
        asm!(
            "movzx {e:e}, byte ptr [{p} + 1]", "movsx {f}, word ptr [{p}]", "movsxd {g}, dword ptr [{p} + 4]",
            e = inout(reg) e, f = inout(reg) f, g = inout(reg) g, p = in(reg) NOTHING,
        );
        asm!("movabs rax, [0xd000f000]", out("rax") h);
    }
    let loaded = [a, b, c, d, e, f, g, h];
    let expected = [
        MARK | 0xff,
        MARK | 0xffff,
        0xffff_ffff,
        u64::MAX,
        0xff,
        u64::MAX,
        u64::MAX,
        u64::MAX,
    ];
    checks.holds("loads of every width give all ones", loaded == expected);
    let ah: u64;
    // SAFETY: as above.
    unsafe { asm!("mov ah, [rdi]", in("rdi") NOTHING, inout("rax") MARK => ah) };
    checks.holds("a load of AH leaves the rest", ah == MARK | 0xff00);
}

fn updates(checks: &mut Checks) {
    let (mut exchanged, mut sum) = (MARK, 2_u64);
    let flags: u64;
    // SAFETY: no memory is there.
    unsafe {
        asm!("or byte ptr [{p}], 1", "lock add dword ptr [{p}], 2", "mov qword ptr [{p}], -2", p = in(reg) NOTHING);
        asm!("xchg [{p}], {v}", v = inout(reg) exchanged, p = in(reg) NOTHING);
        asm!("add {v}, [{p}]", v = inout(reg) sum, p = in(reg) NOTHING);
        asm!("cmp dword ptr [{p}], -1", "pushfq", "pop {f}", f = out(reg) flags, p = in(reg) NOTHING);
    }
    checks.holds("xchg gives all ones", exchanged == u64::MAX);
    checks.holds("2 + -1 is 1", sum == 1);
    checks.holds("cmp with -1 finds it equal", flags >> 6 & 1 == 1);
}

fn strings(checks: &mut Checks) {
    let source = [MARK; 4];
    let mut target = [0_u64; 4];
    let (left, end): (u64, u64);
    // SAFETY: the arrays have the lengths that are copied; no memory is at the other end.
    unsafe {
        asm!("rep movsq", inout("rcx") 4_u64 => _, inout("rsi") source.as_ptr() => _, inout("rdi") NOTHING => _);
        asm!("rep movsq", inout("rcx") 4_u64 => _, inout("rsi") NOTHING => _, inout("rdi") target.as_mut_ptr() => _);
        asm!("rep stosd", inout("rcx") 5_u64 => left, inout("rdi") NOTHING => end, in("eax") 7);
    }
    checks.holds("rep movsq from nothing gives all ones", target == [u64::MAX; 4]);
    checks.holds("rep stosd goes to its end", left == 0 && end == NOTHING as u64 + 20);
}

fn ports(checks: &mut Checks) {
    let (mut a, mut b, mut c) = (MARK, MARK, MARK);
    let mut read = [0_u16; 4];
    let text = b"nobody reads this";
    // SAFETY: nothing is at the port; the arrays have the lengths that are read or written.
    unsafe {
        asm!("in al, dx", in("dx") PORT, inout("rax") a);
        asm!("in ax, dx", in("dx") PORT, inout("rax") b);
        asm!("in eax, dx", in("dx") PORT, inout("rax") c);
        asm!("rep insw", in("dx") PORT, inout("rcx") 4_u64 => _, inout("rdi") read.as_mut_ptr() => _);
        asm!("rep outsb", in("dx") PORT, inout("rcx") text.len() => _, inout("rsi") text.as_ptr() => _);
        asm!("out 0x80, al", in("al") 0_u8);
    }
    checks.holds(
        "ports give all ones",
        (a, b, c) == (MARK | 0xff, MARK | 0xffff, 0xffff_ffff),
    );
    checks.holds("rep insw fills memory", read == [0xffff; 4]);
    checks.outcome(
        "outs from where nothing is mapped",
        attempt!("outsb", in("dx") PORT, inout("rsi") 0x10_u64 => _),
        Outcome::PageFault,
    );
    checks.outcome(
        "ins to where nothing is mapped",
        attempt!("insb", in("dx") PORT, inout("rdi") 0x10_u64 => _),
        Outcome::PageFault,
    );
}
