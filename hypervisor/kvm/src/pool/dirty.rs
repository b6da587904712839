//! Which pages of a machine differ from the pristine ones.
//!
//! KVM's dirty log tells, on every KVM and whatever the guest does to its page tables. A page that is
//! written for the first time costs a fault. So pages that have been written once are not watched
//! again: they stay in the log, and are put back after each call, written or not. A call that is like
//! the one before meets no fault at all. `docs/src/calls.md` has what the other ways cost.

use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVMIO, kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_dirty_log,
    kvm_dirty_log__bindgen_ty_1, kvm_enable_cap,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

use super::pristine::Pristine;
use crate::Error;
use crate::ram::Ram;
use chiton_shared::map;
use chiton_shared::memory::GuestMemory;

ioctl_iow_nr!(KVM_GET_DIRTY_LOG, KVMIO, 0x42, kvm_dirty_log);
ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);

const PAGE: usize = map::PAGE as usize;

/// From so many pages on, it pays to find out from time to time which of them are still written.
const MANY: usize = 128;

/// After so many times of putting many pages back, that is found out.
const FORGET_AFTER: u32 = 256;

/// Has KVM leave pages alone that were written, until it is told to watch them again. To be called
/// before the machine has memory.
///
/// # Errors
///
/// [`Error::Kvm`], with Linux before 5.2.
pub(super) fn prepare(vm: &VmFd) -> Result<(), Error> {
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        ..kvm_enable_cap::default()
    };
    cap.args[0] = kvm_bindings::KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.into();
    vm.enable_cap(&cap)
        .map_err(Error::kvm("KVM_ENABLE_CAP(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)"))
}

/// The log of one piece of memory.
struct Slot {
    start: u64,
    pages: usize,
    /// A bit for each page.
    log: Vec<u64>,
}

/// The log of a machine.
pub(super) struct Dirty {
    slots: Vec<Slot>,
    /// How often many pages have been put back.
    many: u32,
}

impl Dirty {
    pub(super) fn new(pristine: &Pristine) -> Self {
        let slot = |piece: std::ops::Range<u64>| {
            let pages = ((piece.end - piece.start) / map::PAGE) as usize;
            Slot {
                start: piece.start,
                pages,
                log: vec![0; pages.div_ceil(64)],
            }
        };
        Self {
            slots: pristine.pieces().map(slot).collect(),
            many: 0,
        }
    }

    /// Puts every page back that the guest may have written, and tells how many. The guest does not
    /// run meanwhile. What the host itself wrote is not among them.
    pub(super) fn put_back(&mut self, vm: &VmFd, ram: &Ram, pristine: &Pristine) -> Result<usize, Error> {
        let mut count = 0;
        for (number, slot) in (0..).zip(&mut self.slots) {
            slot.read(vm, number)?;
            for page in slot.written() {
                let address = slot.start + page as u64 * map::PAGE;
                put_back(ram, pristine, address, PAGE);
                count += 1;
            }
        }
        if count > MANY {
            self.many += 1;
            if self.many == FORGET_AFTER {
                self.many = 0;
                self.forget(vm)?;
            }
        }
        Ok(count)
    }

    /// Begins anew: every page is watched.
    fn forget(&self, vm: &VmFd) -> Result<(), Error> {
        for (number, slot) in (0..).zip(&self.slots) {
            slot.watch(vm, number)?;
        }
        Ok(())
    }
}

impl Slot {
    fn read(&mut self, vm: &VmFd, number: u32) -> Result<(), Error> {
        let request = kvm_dirty_log {
            slot: number,
            padding1: 0,
            __bindgen_anon_1: kvm_dirty_log__bindgen_ty_1 {
                dirty_bitmap: self.log.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the kernel writes a bit for each page of the slot, rounded up to 64 of them, for which the
        // log has room.
        let answer = unsafe { ioctl_with_ref(vm, KVM_GET_DIRTY_LOG(), &request) };
        checked(answer, "KVM_GET_DIRTY_LOG")
    }

    /// The pages whose bits are set.
    fn written(&self) -> impl Iterator<Item = usize> {
        let words = self.log.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }

    fn watch(&self, vm: &VmFd, number: u32) -> Result<(), Error> {
        let mut log = self.log.clone();
        let mut request = kvm_clear_dirty_log {
            slot: number,
            num_pages: self.pages as u32,
            first_page: 0,
            __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
                dirty_bitmap: log.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the kernel reads a bit for each of the pages, which `log` has.
        let answer = unsafe { ioctl_with_mut_ref(vm, KVM_CLEAR_DIRTY_LOG(), &mut request) };
        checked(answer, "KVM_CLEAR_DIRTY_LOG")
    }
}

/// Puts bytes back, as far as they are memory.
pub(super) fn put_back(ram: &Ram, pristine: &Pristine, address: u64, len: usize) {
    if let (Some(window), Some(bytes)) = (ram.window(address, len), pristine.bytes(address, len)) {
        window.write(0, bytes);
    }
}

fn checked(answer: libc::c_int, call: &'static str) -> Result<(), Error> {
    if answer < 0 {
        return Err(Error::kvm(call)(kvm_ioctls::Error::last()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_log_are_its_bits() {
        let slot = Slot {
            start: 0,
            pages: 130,
            log: vec![1 | 1 << 63, 0, 0b10],
        };
        assert_eq!(slot.written().collect::<Vec<_>>(), [0, 63, 129]);
    }
}
