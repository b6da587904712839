//! The half of a start that needs no KVM: from the guest's file to its memory.
//!
//! It runs on the thread that later serves the devices, while the caller's thread has KVM make the
//! machine; each half takes about as long as the other.

use std::mem::offset_of;
use std::sync::Arc;

use chiton_core::boot::{Options, World};
use chiton_core::devices::Preset;
use chiton_core::loader::Image;
use chiton_shared::boot::{BootPage, GENERATION, Generation};
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
    /// For how many nanoseconds it should look before it sleeps for a disk.
    pub(crate) look_ns: u64,
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
    /// What the host has built; nothing of a guest that goes on from a snapshot.
    pub(crate) world: Option<World<'g>>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) cpuid: GuestCpuid,
}

impl<'g> Plan<'g> {
    /// Builds the world, as a value.
    pub(crate) fn world(&self, image: &Image<'g>, cpuid: &GuestCpuid) -> Result<World<'g>, Error> {
        let options = Options {
            processors: self.processors,
            ring: self.ring,
            interrupts: self.interrupts,
            look_ns: self.look_ns,
            args: self.args,
            env: self.env,
            devices: &self.devices.devices,
            queues: &self.devices.queues,
            log_level: self.log_level,
            xsave: cpuid.avx,
            ..Options::new(self.memory)
        };
        Ok(World::build(image, &options)?)
    }

    /// Checks the file, builds the world, and writes it into new memory.
    pub(crate) fn carry_out(&self) -> Result<Prepared<'g>, Error> {
        let image = Image::parse(self.file)?;
        self.check_needs(&image)?;
        let cpuid = GuestCpuid::of_host();
        let mut world = self.world(&image, &cpuid)?;
        let mut bytes = [0; 48];
        random(&mut bytes).map_err(Error::system("getrandom"))?;
        let (seed, id) = bytes.split_at(32);
        world.boot_page.seed.copy_from_slice(seed);
        let ram = Arc::new((self.new_memory)(self.memory)?);
        let end = world.layout().stack.end;
        let stack = end.saturating_sub(STACK_USED)..end;
        let pieces = world
            .pieces()
            .map(|piece| piece.address..piece.address + piece.bytes.len() as u64);
        ram.provide(pieces.chain(std::iter::once(stack)));
        world.write_to(ram.as_ref())?;
        // The one thing in the page behind the structure: the name of this run.
        if let Some(place) = ram.window(
            map::BOOT_PAGE + (GENERATION + offset_of!(Generation, id)) as u64,
            id.len(),
        ) {
            place.write(0, id);
        }
        if self.huge_pages {
            ram.prefer_huge_pages();
        }
        let world = Some(world);
        Ok(Prepared { world, ram, cpuid })
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
        let Some(world) = &mut self.world else { return };
        world.boot_page.tsc_khz = tsc_khz;
        world.boot_page.wall_clock_ns = wall_clock_ns;
        if let Some(page) = self.ram.window(map::BOOT_PAGE, BootPage::SIZE) {
            page.write(0, world.boot_page.as_bytes());
        }
    }
}
