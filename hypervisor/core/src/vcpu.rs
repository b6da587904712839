//! The virtual processor: the trait a backend implements, its registers, and its exits.

use core::fmt;

/// The general registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

impl Registers {
    /// A general register by its number in instructions, of which the low four bits count: 0 is
    /// RAX, 4 RSP, 15 R15 (SDM volume 2A, table 3-1).
    #[must_use]
    pub const fn general(&self, number: u8) -> u64 {
        match number & 15 {
            0 => self.rax,
            1 => self.rcx,
            2 => self.rdx,
            3 => self.rbx,
            4 => self.rsp,
            5 => self.rbp,
            6 => self.rsi,
            7 => self.rdi,
            8 => self.r8,
            9 => self.r9,
            10 => self.r10,
            11 => self.r11,
            12 => self.r12,
            13 => self.r13,
            14 => self.r14,
            _ => self.r15,
        }
    }

    /// The same, to be changed.
    pub const fn general_mut(&mut self, number: u8) -> &mut u64 {
        match number & 15 {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            4 => &mut self.rsp,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            _ => &mut self.r15,
        }
    }
}

/// A segment register with its hidden part (SDM volume 3A, section 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector; its low two bits are the requested privilege level.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, as the processor expands it.
    pub limit: u32,
    /// Bits 8 to 23 of the descriptor's second word, shifted down: type in bits 0 to 3, S 4,
    /// DPL 5 and 6, P 7, AVL 12, L 13, D/B 14, G 15. This is the layout of VMCS access rights
    /// (SDM volume 3C, table 26-2).
    pub access: u16,
}

/// Base and limit of a descriptor table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Size in bytes, less one.
    pub limit: u16,
}

/// The registers that say in which mode and where the processor finds its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct SystemRegisters {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: Table,
    pub idt: Table,
}

/// Why a vCPU stopped running guest code.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest wrote to a port: one or more values of the same width, one after the other.
    Out {
        /// The port.
        port: u16,
        /// The bytes written.
        data: &'a [u8],
    },
    /// The guest reads a port.
    In {
        /// The port.
        port: u16,
        /// To be filled in.
        data: &'a mut [u8],
    },
    /// The guest reads where no memory is.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// To be filled in.
        data: &'a mut [u8],
    },
    /// The guest writes where no memory is.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// The bytes written.
        data: &'a [u8],
    },
    /// The guest executed `hlt`.
    Halt,
    /// The guest met a fault while handling a double fault: a triple fault.
    Shutdown,
    /// Somebody asked the vCPU to stop (a signal, a time slice).
    Interrupted,
    /// The processor refused to enter the guest, or would have: then it was not tried.
    EntryFailed {
        /// The reason as the backend's hardware names it; none where a check before the entry has foreseen it.
        reason: Option<u64>,
    },
    /// The backend cannot go on; the words say why.
    Broken(Broken),
}

/// Why a backend cannot go on with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The instruction emulator met something it does not know; these are the bytes at RIP, as
    /// far as the backend tells.
    Emulation {
        /// Instruction bytes.
        bytes: [u8; 15],
        /// How many of them are valid.
        len: u8,
    },
    /// An exit the backend does not know, by the number its interface has for it.
    Unknown(u32),
}

impl Broken {
    /// An instruction that cannot be carried out, by its bytes: those beyond 15, which no instruction has, are left out.
    #[must_use]
    pub fn emulation(bytes: &[u8]) -> Self {
        let mut kept = [0; 15];
        let len = bytes.len().min(kept.len());
        kept[..len].copy_from_slice(&bytes[..len]);
        Self::Emulation {
            bytes: kept,
            len: len as u8,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulation { bytes, len } => {
                f.write_str("the instruction emulator gave up")?;
                if *len > 0 {
                    f.write_str(" at the bytes")?;
                    for byte in &bytes[..usize::from(*len).min(bytes.len())] {
                        write!(f, " {byte:02x}")?;
                    }
                }
                Ok(())
            }
            Self::Unknown(number) => write!(f, "unknown exit {number}"),
        }
    }
}

/// A virtual processor. It runs guest code and knows nothing of devices.
pub trait Vcpu {
    /// What can go wrong in the backend itself.
    type Error;

    /// Runs the guest until it needs the host.
    ///
    /// # Errors
    ///
    /// When the backend's own interface fails.
    fn run(&mut self) -> Result<Exit<'_>, Self::Error>;

    /// The general registers as of the last exit.
    ///
    /// # Errors
    ///
    /// When the backend cannot read them.
    fn registers(&mut self) -> Result<Registers, Self::Error>;

    /// The system registers as of the last exit.
    ///
    /// # Errors
    ///
    /// When the backend cannot read them.
    fn system_registers(&mut self) -> Result<SystemRegisters, Self::Error>;

    /// Sets all registers; they take effect at the next [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// When the backend refuses them.
    fn set_registers(&mut self, registers: &Registers, system: &SystemRegisters) -> Result<(), Self::Error>;
}
