//! What a guest that goes on from a snapshot finds changed: its generation, fresh random bytes, and clocks that are right.

use std::sync::Arc;

use chiton_core::state::Reader;
use chiton_shared::boot::{GENERATION, Generation};
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};

use kvm_ioctls::VmFd;

use super::{Snapshot, SnapshotError};
use crate::Error;
use crate::cpuid::GuestCpuid;
use crate::devices::EmulatedBackends;
use crate::host::random::random;
use crate::prepare::Prepared;
use crate::processors;
use crate::ram::Ram;
use crate::state::VcpuState;
use crate::state::vcpu::counter;
use crate::vcpu::KvmVcpu;

/// Refuses devices that the guest of a snapshot does not have.
pub(crate) fn check_devices(nets: usize, vsock: bool, folders: usize, ports: usize) -> Result<(), SnapshotError> {
    let refused = [
        (
            nets > 0,
            "no network interface can be in a snapshot, and so none be given: leave --net out",
        ),
        (
            vsock,
            "no sockets can be in a snapshot, and so none be given: leave --vsock out",
        ),
        (
            folders > 0,
            "no folder can be in a snapshot, and so none be given: leave --folder out",
        ),
        (
            ports > 0,
            "no port can be in a snapshot, and so none be given: leave --port out",
        ),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, why)) => Err(SnapshotError::Option(why)),
        None => Ok(()),
    }
}

/// Refuses emulated devices.
pub(crate) const fn check_emulated(emulated: &EmulatedBackends) -> Result<(), SnapshotError> {
    if emulated.disk.is_some() || emulated.net.is_some() {
        return Err(SnapshotError::Option(
            "no emulated device can be in a snapshot, and so none be given: leave --emulated-disk and --emulated-net out",
        ));
    }
    Ok(())
}

/// Memory as it was, on a processor that is as it was.
pub(crate) fn prepare<'g>(snapshot: &Snapshot) -> Result<Prepared<'g>, Error> {
    let cpuid = GuestCpuid::of_host();
    snapshot.check_processor(cpuid.entries())?;
    Ok(Prepared {
        world: None,
        ram: Arc::new(snapshot.make_memory()?),
        cpuid,
    })
}

/// Gives all processors their states, and the guest what is new. Returns the processors beyond the first that run.
pub(crate) fn put(
    snapshot: &Snapshot,
    vm: &VmFd,
    first: &mut KvmVcpu,
    prepared: &Prepared<'_>,
    wall_clock_ns: u64,
) -> Result<Vec<(u32, KvmVcpu)>, Error> {
    let interrupts = snapshot.description.interrupts.is_some();
    let mut others = Vec::new();
    let mut tsc_then = 0;
    for (number, state) in &snapshot.description.vcpus {
        let mut reader = Reader::new(state);
        let state = VcpuState::load(&mut reader).and_then(|state| reader.end().map(|()| state));
        let state = state.map_err(SnapshotError::State)?;
        if state.has_apic() != interrupts {
            return Err(SnapshotError::Damaged("the state of a processor").into());
        }
        if *number == 0 {
            state.put(first)?;
            tsc_then = state.tsc();
            continue;
        }
        let fd = vm
            .create_vcpu((*number).into())
            .map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let mut vcpu = processors::make_vcpu(fd, *number, &prepared.cpuid, interrupts)?;
        state.put(&mut vcpu)?;
        others.push((*number, vcpu));
    }
    renew(&prepared.ram, tsc_then, counter(first.fd())?, wall_clock_ns)?;
    Ok(others)
}

/// Where the guest looks.
fn place(ram: &Ram) -> Option<Window<'_>> {
    ram.window(map::BOOT_PAGE + GENERATION as u64, Generation::SIZE)
}

/// The guest has not run yet: what is different for each of those that go on from the same snapshot.
fn renew(ram: &Ram, tsc_then: u64, tsc_now: u64, wall_clock_ns: u64) -> Result<(), Error> {
    let Some(window) = place(ram) else { return Ok(()) };
    let mut bytes = [0; Generation::SIZE];
    window.read(0, &mut bytes);
    let before = Generation::from_bytes(&bytes);
    let mut fresh = [0; 48];
    random(&mut fresh).map_err(Error::system("getrandom"))?;
    let (id, seed) = fresh.split_at(16);
    let at = tsc_then.wrapping_add(before.ticks);
    let mut generation = Generation {
        count: before.count.wrapping_add(1).max(1),
        ticks: at.wrapping_sub(tsc_now),
        wall_clock_ns,
        at,
        ..Generation::default()
    };
    generation.id.copy_from_slice(id);
    generation.seed.copy_from_slice(seed);
    window.write(0, &generation.to_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(ram: &Ram) -> Generation {
        let mut bytes = [0; Generation::SIZE];
        place(ram).unwrap().read(0, &mut bytes);
        Generation::from_bytes(&bytes)
    }

    #[test]
    fn the_counter_goes_on_and_nothing_random_is_the_same_again() {
        let ram = Ram::new(1 << 20).unwrap();
        renew(&ram, 1000, 5000, 7).unwrap();
        let first = generation(&ram);
        assert_eq!((first.count, first.at, first.wall_clock_ns), (1, 1000, 7));
        assert_eq!(5000_u64.wrapping_add(first.ticks), 1000);
        // 300 ticks later, once more.
        renew(&ram, 5300, 90, 8).unwrap();
        let second = generation(&ram);
        assert_eq!((second.count, second.at), (2, 1300));
        assert_eq!(90_u64.wrapping_add(second.ticks), 1300);
        assert_ne!(first.id, second.id);
        assert_ne!(first.seed, second.seed);
    }
}
