//! Any register traffic to a device behind its registers, from reset on.
#![no_main]

use chiton_core::devices::{Device, DeviceError, Progress, Ring};
use chiton_fuzz::guest::Guest;
use chiton_fuzz::script::Script;
use chiton_shared::virtio::mmio::Register;
use chiton_shared::virtio::ring::Chain;
use libfuzzer_sys::fuzz_target;

/// A device that gives everything back at once, and checks that it is called only when it may be.
struct Echo {
    negotiated: bool,
    broken: bool,
}

impl Device for Echo {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        0b101
    }

    fn queue_sizes(&self) -> &[u16] {
        &[4, 64]
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        data.fill(offset as u8);
    }

    fn negotiated(&mut self, features: u64) {
        assert!(features & 1 << 32 != 0 && features & 0x00FF_FFFF & !0b101 == 0);
        self.negotiated = true;
    }

    fn process(&mut self, queue: usize, ring: &mut Ring<'_, '_>) -> Result<Progress, DeviceError> {
        assert!(queue < 2 && self.negotiated && !self.broken);
        let mut chain = Chain::new();
        for _ in 0..64 {
            match ring.pop(&mut chain) {
                Ok(true) => ring.push(chain.head(), 0),
                Ok(false) => return Ok(Progress::Drained),
                Err(error) => {
                    self.broken = true;
                    return Err(error.into());
                }
            }
        }
        Ok(Progress::More)
    }

    fn stop(&mut self, queue: usize) {
        assert!(queue < 2);
    }

    fn reset(&mut self) {
        (self.negotiated, self.broken) = (false, false);
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut script, image) = Script::split(data);
    let mut guest = Guest::new(
        Echo {
            negotiated: false,
            broken: false,
        },
        image,
    );
    if script.u8() & 1 != 0 {
        guest.write(Register::Status as u64, &[0; 4]);
    }
    guest.play(script);
});
