//! The half of a start that needs no KVM: from the guest's file to its memory.
//!
//! It runs on the thread that later serves the devices, while the caller's thread has KVM make the
//! machine; each half takes about as long as the other.

use std::sync::Arc;

use chiton_core::boot::{Options, World};
use chiton_core::devices::Preset;
use chiton_core::loader::Image;
use chiton_shared::boot::BootPage;
use chiton_shared::doorbell::LogLevel;
use chiton_shared::interrupts::Idle;
use chiton_shared::manifest::{Feature, Ring};
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

use crate::Error;
use crate::cpuid::GuestCpuid;
use crate::host::random::random;
use crate::platform::KvmKind;
use crate::ram::Ram;

/// How much of its stack any guest uses, in bytes.
const STACK_USED: u64 = 5 * map::PAGE;

/// What a guest is given, as far as its memory shows it.
pub(crate) struct Plan<'g> {
    pub(crate) file: &'g [u8],
    pub(crate) memory: u64,
    pub(crate) processors: u32,
    pub(crate) ring: Option<Ring>,
    pub(crate) interrupts: Option<Idle>,
    pub(crate) args: &'g [String],
    pub(crate) env: &'g [String],
    pub(crate) devices: &'g Preset,
    pub(crate) disks: usize,
    /// Whether what the guest touches should come in huge pages.
    pub(crate) huge_pages: bool,
    pub(crate) nets: usize,
    pub(crate) log_level: Option<LogLevel>,
    /// How memory of so many bytes is made.
    pub(crate) new_memory: fn(u64) -> Result<Ram, Error>,
}

/// A guest in memory.
pub(crate) struct Prepared<'g> {
    pub(crate) world: World<'g>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) cpuid: GuestCpuid,
}

impl<'g> Plan<'g> {
    /// Checks the file, builds the world, and writes it into new memory.
    pub(crate) fn carry_out(&self) -> Result<Prepared<'g>, Error> {
        let cpuid = GuestCpuid::of_host();
        let mut world = self.world(&cpuid)?;
        random(&mut world.boot_page.seed).map_err(Error::system("getrandom"))?;
        let ram = Arc::new((self.new_memory)(self.memory)?);
        let end = world.layout().stack.end;
        let stack = end.saturating_sub(STACK_USED)..end;
        let pieces = world
            .pieces()
            .map(|piece| piece.address..piece.address + piece.bytes.len() as u64);
        ram.provide(pieces.chain(std::iter::once(stack)));
        world.write_to(ram.as_ref())?;
        if self.huge_pages {
            ram.prefer_huge_pages();
        }
        Ok(Prepared { world, ram, cpuid })
    }

    /// Checks the file, and builds the world.
    pub(crate) fn world(&self, cpuid: &GuestCpuid) -> Result<World<'g>, Error> {
        let image = Image::parse(self.file)?;
        self.check_needs(&image)?;
        let options = Options {
            processors: self.processors,
            ring: self.ring,
            interrupts: self.interrupts,
            args: self.args,
            env: self.env,
            devices: &self.devices.devices,
            queues: &self.devices.queues,
            log_level: self.log_level,
            xsave: cpuid.avx,
            ..Options::new(self.memory)
        };
        Ok(World::build(&image, &options)?)
    }

    /// Refuses what the manifest requires and this run or this machine does not have.
    fn check_needs(&self, image: &Image<'_>) -> Result<(), Error> {
        let manifest = image.manifest();
        if manifest.required.contains(Feature::BLOCK) && self.disks == 0 {
            return Err(Error::DiskRequired);
        }
        if manifest.required.contains(Feature::NET) && self.nets == 0 {
            return Err(Error::NetRequired);
        }
        let ring = self.ring.or(manifest.ring()).unwrap_or(Ring::User);
        let sse = manifest.required.contains(Feature::SSE);
        if ring == Ring::Kernel && sse && !KvmKind::detect().runs_ring_0() {
            return Err(Error::SseInRing0);
        }
        Ok(())
    }
}

impl Prepared<'_> {
    /// Sets the clock, which is known only once there is a vCPU.
    pub(crate) fn set_clock(&mut self, tsc_khz: u64, wall_clock_ns: u64) {
        self.world.boot_page.tsc_khz = tsc_khz;
        self.world.boot_page.wall_clock_ns = wall_clock_ns;
        if let Some(page) = self.ram.window(map::BOOT_PAGE, BootPage::SIZE) {
            page.write(0, self.world.boot_page.as_bytes());
        }
    }
}
