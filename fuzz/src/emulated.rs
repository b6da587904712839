//! A driver of registers that may do anything.

use chiton_core::devices::Emulated;

use crate::guest::Ram;
use crate::script::Script;

/// Does all that the script says with a device whose registers are in `known`.
pub fn play(device: &mut impl Emulated, mut script: Script<'_>, image: &[u8], known: &[u64]) {
    let ram = Ram::new(image);
    while !script.is_empty() {
        let step = script.u8();
        match step % 8 {
            0 => ram.poke(&mut script),
            1 => device.work(&ram),
            2 => {
                let (offset, len) = (u64::from(script.u16()), usize::from(script.u8()) % 17);
                device.read(offset, &mut [0; 16][..len.min(16)]);
                device.write(offset, &script.u64().to_le_bytes()[..len.min(8)], &ram);
            }
            3 => {
                // As often as a driver reads or writes a sector.
                let (offset, width) = (known[0], [1, 2, 4][usize::from(step / 8) % 3]);
                for _ in 0..=script.u16() % 1024 {
                    device.read(offset, &mut [0; 4][..width]);
                    device.write(offset, &[step; 4][..width], &ram);
                }
            }
            read_or_write => {
                let offset = known[usize::from(script.u8()) % known.len()];
                let width = [1, 2, 4][usize::from(step / 8) % 3];
                if read_or_write == 4 {
                    device.read(offset, &mut [0; 4][..width]);
                } else {
                    device.write(offset, &script.u32().to_le_bytes()[..width], &ram);
                }
            }
        }
        let _ = (device.interrupt(), device.wants_input());
    }
    ram.check();
}
