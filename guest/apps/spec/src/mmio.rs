//! The register block (section 4.2.2), and the initialization of section 3.1.1.

use core::time::Duration;

use chiton_guest::time::Instant;

pub const MAGIC_VALUE: u64 = 0x000;
pub const VERSION: u64 = 0x004;
pub const DEVICE_ID: u64 = 0x008;
pub const DEVICE_FEATURES: u64 = 0x010;
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
pub const DRIVER_FEATURES: u64 = 0x020;
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
pub const QUEUE_SEL: u64 = 0x030;
pub const QUEUE_SIZE_MAX: u64 = 0x034;
pub const QUEUE_SIZE: u64 = 0x038;
pub const QUEUE_READY: u64 = 0x044;
pub const QUEUE_NOTIFY: u64 = 0x050;
pub const INTERRUPT_STATUS: u64 = 0x060;
pub const INTERRUPT_ACK: u64 = 0x064;
pub const STATUS: u64 = 0x070;
pub const QUEUE_DESC: u64 = 0x080;
pub const QUEUE_DRIVER: u64 = 0x090;
pub const QUEUE_DEVICE: u64 = 0x0a0;
pub const SHM_SEL: u64 = 0x0ac;
pub const SHM_LEN: u64 = 0x0b0;
pub const CONFIG_GENERATION: u64 = 0x0fc;
pub const CONFIG: u64 = 0x100;

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 64;

pub const INDIRECT_DESC: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
/// RING_PACKED, IN_ORDER, NOTIFICATION_DATA, RING_RESET: another ring than the one here, or other
/// rules for it.
const UNKNOWN: u64 = 1 << 34 | 1 << 35 | 1 << 38 | 1 << 40;

/// How long a device may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A register block.
pub struct Mmio(pub u64);

impl Mmio {
    /// Whether there is a device.
    pub fn is_there(&self) -> bool {
        self.read(MAGIC_VALUE) == 0x7472_6976 && self.read(VERSION) == 2 && self.read(DEVICE_ID) != 0
    }

    pub fn read(&self, register: u64) -> u32 {
        // SAFETY: register blocks are mapped, with no memory behind them.
        unsafe { ((self.0 + register) as *const u32).read_volatile() }
    }

    pub fn write(&self, register: u64, value: u32) {
        // SAFETY: as in `read`.
        unsafe { ((self.0 + register) as *mut u32).write_volatile(value) };
    }

    /// A pair of registers, low half first.
    pub fn write_u64(&self, register: u64, value: u64) {
        self.write(register, value as u32);
        self.write(register + 4, (value >> 32) as u32);
    }

    pub fn config_u8(&self, offset: u64) -> u8 {
        // SAFETY: as in `read`.
        unsafe { ((self.0 + CONFIG + offset) as *const u8).read_volatile() }
    }

    pub fn config_u16(&self, offset: u64) -> u16 {
        // SAFETY: as in `read`.
        unsafe { ((self.0 + CONFIG + offset) as *const u16).read_volatile() }
    }

    pub fn config_u32(&self, offset: u64) -> u32 {
        self.read(CONFIG + offset)
    }

    /// A field of 64 bits: two reads between which nothing changed (section 2.5.1).
    pub fn config_u64(&self, offset: u64) -> u64 {
        loop {
            let before = self.read(CONFIG_GENERATION);
            let value = u64::from(self.config_u32(offset)) | u64::from(self.config_u32(offset + 4)) << 32;
            if self.read(CONFIG_GENERATION) == before {
                return value;
            }
        }
    }

    /// Every feature the device offers, of the first 64.
    pub fn features(&self) -> u64 {
        self.write(DEVICE_FEATURES_SEL, 0);
        let low = u64::from(self.read(DEVICE_FEATURES));
        self.write(DEVICE_FEATURES_SEL, 1);
        low | u64::from(self.read(DEVICE_FEATURES)) << 32
    }

    pub fn accept(&self, features: u64) {
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, features as u32);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, (features >> 32) as u32);
    }

    /// Steps 1 to 3 of section 3.1.1.
    pub fn reset(&self) -> Result<(), &'static str> {
        self.write(STATUS, 0);
        wait_for(|| self.read(STATUS) == 0).map_err(|()| "status stays set after a reset")?;
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        Ok(())
    }

    /// Steps 1 to 6: VERSION_1 and those of `wanted` that are offered and known here. Returns what
    /// was agreed on.
    pub fn negotiate(&self, wanted: u64) -> Result<u64, &'static str> {
        self.agree(wanted & !UNKNOWN)
    }

    /// Like [`negotiate`](Self::negotiate), known or not.
    pub fn agree(&self, wanted: u64) -> Result<u64, &'static str> {
        self.reset()?;
        let features = self.features() & (wanted | VERSION_1);
        self.accept(features);
        self.add_status(FEATURES_OK);
        if self.read(STATUS) & FEATURES_OK == 0 {
            return Err("the device refuses features it offers");
        }
        Ok(features)
    }

    pub fn add_status(&self, bits: u32) {
        self.write(STATUS, self.read(STATUS) | bits);
    }
}

/// Looks again and again, until it is so or patience ends.
pub fn wait_for(mut is_so: impl FnMut() -> bool) -> Result<(), ()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return Err(());
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// Gives a device time to do what it should not.
pub fn linger() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        core::hint::spin_loop();
    }
}
