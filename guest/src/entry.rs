//! The way in and the ways out.

use core::fmt::Display;

use chiton_shared::boot::BootPage;
use chiton_shared::doorbell::{self, LogLevel};
use chiton_shared::manifest::{Feature, Manifest, Ring};

use crate::heap::Heap;
use crate::{boot, console, host, logger, time};

/// What a guest asks of the machine, as the options of [`entry!`](crate::entry!).
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stack, in bytes.
    pub stack: u64,
    /// Least heap, in bytes. The guest gets all memory that is left.
    pub heap: u64,
    /// The ring to run in: 3, or 0.
    pub ring: u8,
    /// What the guest does not work without.
    pub needs: &'static [Feature],
    /// What it can use.
    pub uses: &'static [Feature],
}

impl Options {
    /// What holds when nothing else is said: ring 3, a stack of 64 KiB, a heap of 256 KiB or
    /// more, and a console if there is one.
    pub const DEFAULT: Self = Self {
        stack: Manifest::DEFAULT_STACK,
        heap: Manifest::DEFAULT_HEAP,
        ring: 3,
        needs: &[],
        uses: &[Feature::CONSOLE],
    };

    /// The manifest that says so. A guest compiled for SSE needs it, too.
    ///
    /// # Panics
    ///
    /// At compile time, if `ring` is neither 0 nor 3.
    #[must_use]
    pub const fn manifest(&self) -> Manifest {
        let ring = match self.ring {
            0 => Ring::Kernel,
            3 => Ring::User,
            _ => panic!("a guest runs in ring 0 or 3"),
        };
        let sse = if cfg!(target_feature = "sse2") {
            Feature::SSE
        } else {
            Feature::NONE
        };
        let mut manifest = Manifest::new(ring)
            .stack(self.stack)
            .heap(self.heap)
            .require(sse.union(all(self.needs)));
        manifest.optional = all(self.uses);
        manifest
    }
}

const fn all(features: &[Feature]) -> Feature {
    let mut set = Feature::NONE;
    let mut i = 0;
    while i < features.len() {
        set = set.union(features[i]);
        i += 1;
    }
    set
}

/// Makes `main` the guest's first function, and states what the guest needs.
///
/// `main` takes nothing and returns anything that is a [`Termination`]. The options are the fields
/// of [`Options`], in any order; for features there are the names `CONSOLE`, `BLOCK`, `ENTROPY`,
/// `SSE`, `NET` and `INTERRUPTS`.
///
/// ```ignore
/// chiton_guest::entry!(main, stack = 128 * KIB, heap = 4 * MIB, needs = &[BLOCK]);
/// ```
///
/// It stands once in a guest, in the crate of its binary: it also defines the panic handler, the
/// allocator, the manifest, and on targets that lack them the functions compilers call to move
/// memory.
#[macro_export]
macro_rules! entry {
    ($main:path $(, $option:ident = $value:expr)* $(,)?) => {
        const _: () = {
            #[allow(unused_imports)]
            use $crate::entry::options::*;

            const OPTIONS: $crate::entry::Options = {
                #[allow(clippy::needless_update)]
                $crate::entry::Options { $($option: $value,)* ..$crate::entry::Options::DEFAULT }
            };

            #[used]
            #[unsafe(link_section = ".note.chiton")]
            static NOTE: $crate::shared::manifest::Note = $crate::shared::manifest::Note::new(OPTIONS.manifest());

            #[global_allocator]
            static HEAP: $crate::heap::Heap = $crate::heap::Heap::new();

            #[panic_handler]
            fn panic(info: &::core::panic::PanicInfo<'_>) -> ! {
                $crate::panic::report(info)
            }

            #[cfg(target_os = "linux")]
            mod memory_functions {
                $crate::memory_functions!("");
            }

            /// The guest's first instruction; the host passes the boot page.
            #[unsafe(no_mangle)]
            extern "C" fn _start(boot: *const $crate::shared::boot::BootPage) -> ! {
                // SAFETY: the host enters here, once, with a boot page of the contract.
                unsafe { $crate::entry::start(boot, &HEAP, || $crate::entry::Termination::code($main())) }
            }
        };
    };
}

/// Names that the options of [`entry!`](crate::entry!) may use.
#[doc(hidden)]
pub mod options {
    use chiton_shared::manifest::Feature;

    pub use crate::{KIB, MIB};

    pub const CONSOLE: Feature = Feature::CONSOLE;
    pub const BLOCK: Feature = Feature::BLOCK;
    pub const ENTROPY: Feature = Feature::ENTROPY;
    pub const SSE: Feature = Feature::SSE;
    pub const NET: Feature = Feature::NET;
    pub const INTERRUPTS: Feature = Feature::INTERRUPTS;
}

/// What [`entry!`](crate::entry!) calls.
///
/// # Safety
///
/// To be called once, by the first instruction, with the boot page the host passed.
#[doc(hidden)]
pub unsafe fn start(page: *const BootPage, heap: &'static Heap, main: impl FnOnce() -> u32) -> ! {
    // SAFETY: the caller's promise, and the contract: the page is read-only.
    unsafe { boot::set(page) };
    let page = boot::page();
    time::start(page.tsc_khz);
    logger::start(page.log_level);
    // SAFETY: the contract gives the guest this memory, and only the heap uses it.
    unsafe { heap.init(page.heap_start as *mut u8, page.heap_size as usize) };
    let code = main();
    exit(code)
}

/// Ends the guest, when everything printed is out. The low 8 bits of the code reach the shell.
pub fn exit(code: impl Into<ExitCode>) -> ! {
    console::flush_at_end();
    host::ring(doorbell::EXIT, code.into().0);
    halt()
}

/// Nothing runs after the last doorbell; a host that comes back all the same finds the guest here.
pub(crate) fn halt() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// The code with which a guest ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCode(u32);

impl ExitCode {
    /// All is well.
    pub const SUCCESS: Self = Self(0);
    /// It is not.
    pub const FAILURE: Self = Self(1);
}

impl From<u32> for ExitCode {
    fn from(code: u32) -> Self {
        Self(code)
    }
}

impl From<i32> for ExitCode {
    fn from(code: i32) -> Self {
        Self(code.cast_unsigned())
    }
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code.into())
    }
}

/// What `main` may return.
pub trait Termination {
    /// The exit code it stands for.
    fn code(self) -> u32;
}

impl Termination for () {
    fn code(self) -> u32 {
        0
    }
}

impl Termination for core::convert::Infallible {
    fn code(self) -> u32 {
        match self {}
    }
}

impl Termination for i32 {
    fn code(self) -> u32 {
        self.cast_unsigned()
    }
}

impl Termination for ExitCode {
    fn code(self) -> u32 {
        self.0
    }
}

impl<T: Termination, E: Display> Termination for Result<T, E> {
    /// An error is logged, and the code is 1.
    fn code(self) -> u32 {
        match self {
            Ok(value) => value.code(),
            Err(error) => {
                host::log(LogLevel::Error, format_args!("{error}"));
                ExitCode::FAILURE.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_the_manifest() {
        let options = Options {
            ring: 0,
            stack: 4096,
            needs: &[Feature::BLOCK, Feature::ENTROPY],
            ..Options::DEFAULT
        };
        let manifest = options.manifest();
        assert_eq!((manifest.ring(), manifest.stack), (Some(Ring::Kernel), 4096));
        // These tests are compiled for a target with SSE.
        assert_eq!(manifest.required, Feature(0b1110));
        assert_eq!(manifest.optional, Feature::CONSOLE);
    }

    #[test]
    fn what_main_returns_becomes_the_exit_code() {
        assert_eq!(().code(), 0);
        assert_eq!((-1).code(), u32::MAX);
        assert_eq!(ExitCode::from(7_u8).code(), 7);
        assert_eq!(Ok::<_, &str>(3).code(), 3);
    }
}
