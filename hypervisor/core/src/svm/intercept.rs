//! What exits: the intercept vectors of the VMCB (APM volume 2, table B-1), and the maps of ports and
//! of model-specific registers (sections 15.10.1 and 15.11).

/// Declares the bits of one vector: a constant for each, and the list of all.
macro_rules! bits {
    ($(#[$doc:meta])* $module:ident, $all:ident; $($name:ident = $bit:literal, $label:literal;)*) => {
        $(#[$doc])*
        #[allow(missing_docs, reason = "the APM's own names")]
        pub mod $module {
            $(pub const $name: u32 = 1 << $bit;)*

            /// Every bit with its name.
            pub const $all: &[(u32, &str)] = &[$(($name, $label)),*];
        }
    };
}

bits! {
    /// Bits of [`INTERCEPT_3`](super::fields::INTERCEPT_3).
    vector3, ALL;
    INTR = 0, "INTR";
    NMI = 1, "NMI";
    SMI = 2, "SMI";
    INIT = 3, "INIT";
    VINTR = 4, "VINTR";
    CR0_SELECTIVE = 5, "CR0 writes but for TS and MP";
    IDTR_READ = 6, "reads of IDTR";
    GDTR_READ = 7, "reads of GDTR";
    LDTR_READ = 8, "reads of LDTR";
    TR_READ = 9, "reads of TR";
    IDTR_WRITE = 10, "writes of IDTR";
    GDTR_WRITE = 11, "writes of GDTR";
    LDTR_WRITE = 12, "writes of LDTR";
    TR_WRITE = 13, "writes of TR";
    RDTSC = 14, "RDTSC";
    RDPMC = 15, "RDPMC";
    PUSHF = 16, "PUSHF";
    POPF = 17, "POPF";
    CPUID = 18, "CPUID";
    RSM = 19, "RSM";
    IRET = 20, "IRET";
    INTN = 21, "INTn";
    INVD = 22, "INVD";
    PAUSE = 23, "PAUSE";
    HLT = 24, "HLT";
    INVLPG = 25, "INVLPG";
    INVLPGA = 26, "INVLPGA";
    IOIO = 27, "IN and OUT, by the map";
    MSR = 28, "RDMSR and WRMSR, by the map";
    TASK_SWITCH = 29, "task switches";
    FERR_FREEZE = 30, "legacy FERR freezes";
    SHUTDOWN = 31, "shutdown";
}

bits! {
    /// Bits of [`INTERCEPT_4`](super::fields::INTERCEPT_4). Bits 16 to 31 are writes of CR0 to CR15,
    /// after they are done.
    vector4, ALL;
    VMRUN = 0, "VMRUN";
    VMMCALL = 1, "VMMCALL";
    VMLOAD = 2, "VMLOAD";
    VMSAVE = 3, "VMSAVE";
    STGI = 4, "STGI";
    CLGI = 5, "CLGI";
    SKINIT = 6, "SKINIT";
    RDTSCP = 7, "RDTSCP";
    ICEBP = 8, "ICEBP";
    WBINVD = 9, "WBINVD and WBNOINVD";
    MONITOR = 10, "MONITOR";
    MWAIT = 11, "MWAIT";
    MWAIT_ARMED = 12, "MWAIT that would wait";
    XSETBV = 13, "XSETBV";
    RDPRU = 14, "RDPRU";
    EFER_WRITE = 15, "writes of EFER, after they are done";
}

bits! {
    /// Bits of [`INTERCEPT_5`](super::fields::INTERCEPT_5).
    vector5, ALL;
    INVLPGB = 0, "INVLPGB";
    INVLPGB_ILLEGAL = 1, "illegal INVLPGB";
    INVPCID = 2, "INVPCID";
    MCOMMIT = 3, "MCOMMIT";
    TLBSYNC = 4, "TLBSYNC";
    BUS_LOCK = 5, "bus locks";
    IDLE_HLT = 6, "HLT with nothing pending";
}

/// Pages of the I/O permission map: a bit for each port, and three bits more for accesses that reach
/// beyond the last (APM volume 2, section 15.10.1).
pub const IOPM_PAGES: usize = 3;

/// Pages of the MSR permission map: two bits for each register (APM volume 2, section 15.11).
pub const MSRPM_PAGES: usize = 2;

/// Where a register's two bits are in the MSR permission map: the byte, and the place of the lower of them, which
/// is about reads; the other is about writes. `None` for a register that has none: it always exits.
#[must_use]
pub const fn msrpm_bits(register: u32) -> Option<(usize, u32)> {
    let part = match register >> 13 {
        0 => 0,
        0x6_0000 => 1,
        0x6_0008 => 2,
        _ => return None,
    };
    let bit = (register as usize & 0x1fff) * 2;
    Some((part * 0x800 + bit / 8, bit as u32 % 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_of_the_three_ranges_has_two_bits_of_its_own() {
        assert_eq!(msrpm_bits(0), Some((0, 0)));
        assert_eq!(msrpm_bits(0x1fff), Some((0x7ff, 6)));
        assert_eq!(msrpm_bits(0x2000), None);
        assert_eq!(msrpm_bits(0xc000_0080), Some((0x820, 0)));
        assert_eq!(msrpm_bits(0xc000_0102), Some((0x840, 4)));
        assert_eq!(msrpm_bits(0xc001_0117), Some((0x1045, 6)));
        assert_eq!(msrpm_bits(0xc001_2000), None);
        assert_eq!(msrpm_bits(u32::MAX), None);
    }
}
