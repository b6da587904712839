//! Where the guests of the examples run: flat 32-bit segments, no paging, a stack.

use chiton_shared::memory::GuestMemory;

use crate::physical::GuestRam;
use crate::vcpu::{Exit, Registers, Segment, SystemRegisters, Table, Vcpu};

/// Where the code lies.
const CODE: u64 = 0x1_0000;
/// The end of the stack.
const STACK: u64 = 0x2_0000;
/// The global descriptor table: null, code, data.
pub const GDT: u64 = 0x2_1000;
/// The interrupt descriptor table.
const IDT: u64 = 0x2_2000;
/// From here on the pages are the example's.
pub const PAGES: u64 = 0x10_0000;

/// Flat 32-bit code and data of ring 0 (SDM volume 3A, section 3.4.5): null, code, data.
const DESCRIPTORS: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// The selector of the code segment.
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;

/// Declares a function `program`, which gives the bytes of a guest's program. The first word is a name
/// for the assembler; the program follows, in assembly.
#[macro_export]
macro_rules! program {
    ($name:literal, $($line:literal),* $(,)?) => {
        core::arch::global_asm!(
            concat!(".pushsection .rodata.", $name, ",\"a\""),
            // The code that refers to them may be another crate's.
            concat!(".globl ", $name, "_begin, ", $name, "_end"),
            concat!($name, "_begin:"),
            ".code32",
            $($line,)*
            ".code64",
            concat!($name, "_end:"),
            ".popsection",
        );

        fn program() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!($name, "_begin")]
                static BEGIN: u8;
                #[link_name = concat!($name, "_end")]
                static END: u8;
            }
            // SAFETY: the two labels are the beginning and the end of one piece of read-only data.
            unsafe {
                let begin = &raw const BEGIN;
                core::slice::from_raw_parts(begin, (&raw const END).offset_from_unsigned(begin))
            }
        }
    };
}

/// What a guest did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// `out` of EAX to a port.
    Out(u16, u32),
    /// `hlt`.
    Halt,
    /// Its time slice is over.
    Slice,
    /// Anything that ends it.
    Failed,
}

/// A guest on its stage.
pub struct Stage<V> {
    /// Its processor.
    pub vcpu: V,
    /// Its memory.
    pub ram: GuestRam,
}

impl<V: Vcpu> Stage<V> {
    /// Puts a program into memory and a vCPU of this memory before it.
    ///
    /// # Errors
    ///
    /// When the backend does not take the registers.
    pub fn new(mut vcpu: V, ram: GuestRam, program: &[u8]) -> Result<Self, V::Error> {
        let stage = |address, bytes: &[u8]| {
            if let Some(window) = ram.window(address, bytes.len()) {
                window.write(0, bytes);
            }
        };
        stage(CODE, program);
        stage(GDT, DESCRIPTORS.map(u64::to_le_bytes).as_flattened());
        let flat = |selector, access| Segment {
            selector,
            base: 0,
            limit: u32::MAX,
            access,
        };
        let data = flat(DATA_SELECTOR, 0xc093);
        let system = SystemRegisters {
            cr0: 0x31,
            cs: flat(CODE_SELECTOR, 0xc09b),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            // A task register is needed even so (SDM volume 3C, section 28.3.1.2).
            tr: Segment {
                selector: 0,
                base: 0,
                limit: 0x67,
                access: 0x8b,
            },
            gdt: Table {
                base: GDT,
                limit: (DESCRIPTORS.len() * 8 - 1) as u16,
            },
            idt: Table {
                base: IDT,
                limit: 256 * 8 - 1,
            },
            ..SystemRegisters::default()
        };
        let registers = Registers {
            rip: CODE,
            rsp: STACK,
            rflags: 2,
            ..Registers::default()
        };
        vcpu.set_registers(&registers, &system)?;
        Ok(Self { vcpu, ram })
    }

    /// Has a vector lead to the code at this offset of the program, with interrupts off.
    pub fn set_gate(&self, vector: u8, offset: u64) {
        let handler = CODE + offset;
        // An interrupt gate of 32 bits (SDM volume 3A, figure 7-2).
        let gate = handler & 0xffff | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32 | handler >> 16 << 48;
        if let Some(window) = self.ram.window(IDT + u64::from(vector) * 8, 8) {
            window.write(0, &gate.to_le_bytes());
        }
    }

    /// Lets the guest run until it does something.
    ///
    /// # Errors
    ///
    /// When the backend fails.
    pub fn go(&mut self) -> Result<Did, V::Error> {
        Ok(match self.vcpu.run()? {
            Exit::Out { port, data } => {
                let mut value = [0; 4];
                let len = data.len().min(4);
                value[..len].copy_from_slice(&data[..len]);
                Did::Out(port, u32::from_le_bytes(value))
            }
            Exit::Halt => Did::Halt,
            Exit::Interrupted => Did::Slice,
            _ => Did::Failed,
        })
    }

    /// The same, however many slices it takes.
    ///
    /// # Errors
    ///
    /// When the backend fails.
    pub fn act(&mut self) -> Result<Did, V::Error> {
        loop {
            match self.go()? {
                Did::Slice => {}
                did => return Ok(did),
            }
        }
    }

    /// Reads 32 bits of guest memory; 0 where there is none.
    #[must_use]
    pub fn read(&self, address: u64) -> u32 {
        self.ram.window(address, 4).map_or(0, |window| window.read_u32(0))
    }
}
