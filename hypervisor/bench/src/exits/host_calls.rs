//! What the host's program pays for a call to KVM, without any guest.

use std::path::Path;

use chiton_kvm::platform::{DEV_KVM, open_kvm};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use vmexit_cases::clock::Fenced;
use vmexit_cases::{Clock as _, Meter};
use vmm_sys_util::eventfd::EventFd;

use super::catalogue::Entry;
use super::convert::{self, NULL};
use super::machine::pin;
use super::records::{Recorded, Repeat, Seen};
use super::suite::Plan;
use super::{ExitsError, calibrate};
use crate::Result;
use crate::environment::Meanwhile;
use crate::run::{Case, Disturbed};

/// A region that is given to a machine and taken away again, in bytes.
const REGION: usize = 2 << 20;
const EFER: u32 = 0xc000_0080;
/// How many milliseconds a repeat may take.
pub(super) const BUDGET_MS: u64 = 2000;

/// Measures these cases, all of the host's, natively; with what the clock takes there, in ticks.
///
/// # Errors
///
/// If KVM refuses what every machine needs.
pub fn measure(plan: &Plan, entries: &[&'static Entry], done: impl FnMut(&Case)) -> Result<(u64, Vec<Case>)> {
    std::thread::scope(|scope| {
        // On a thread of its own, which stays on one processor.
        let thread = scope.spawn(|| {
            pin(0);
            let kvm = open_kvm(Path::new(DEV_KVM)).map_err(ExitsError::from)?;
            let made = Made::new(&kvm)?;
            let budget = calibrate::tsc_hz() / 1000 * BUDGET_MS;
            let mut all = Vec::new();
            let null = record(plan, budget, vmexit_cases::instructions::null::<Fenced>);
            let null = convert::null_of(&null).unwrap_or(0);
            for entry in entries {
                let mut recorded = record(plan, budget, |meter| made.measure(&kvm, entry.name, meter));
                recorded.name = entry.name.into();
                all.push(convert::case(entry, &recorded, null, &[])?);
            }
            Ok((null, all))
        });
        let died = |_| ExitsError::Nothing("the thread that measures died".into());
        let measured: Result<(u64, Vec<Case>)> = thread.join().map_err(died)?;
        let (null, cases) = measured?;
        cases.iter().for_each(done);
        Ok((null, cases))
    })
}

/// All repeats of one case.
pub(super) fn record(
    plan: &Plan,
    budget: u64,
    mut case: impl FnMut(&mut Meter<'_>) -> std::result::Result<(), &'static str>,
) -> Recorded {
    let mut room = vec![0; plan.samples as usize];
    let mut recorded = Recorded {
        name: NULL.into(),
        operations: 1,
        repeats: Vec::new(),
        skipped: None,
    };
    for _ in 0..plan.repeats {
        let meanwhile = Meanwhile::begin();
        let mut meter = Meter::new(&mut room, plan.warm_up as usize).within(budget);
        if let Err(reason) = case(&mut meter) {
            recorded.skipped = Some(reason.into());
            break;
        }
        let Disturbed { steal, migrations } = meanwhile.so_far();
        recorded.operations = meter.operations();
        recorded.repeats.push(Repeat {
            values: meter.finish().iter().map(|ticks| (*ticks, 1)).collect(),
            rounds: 0,
            seen: Seen {
                steal,
                migrations,
                exits: None,
            },
        });
    }
    recorded
}

/// A machine that never runs.
struct Made {
    vm: VmFd,
    vcpu: std::cell::RefCell<VcpuFd>,
    event: EventFd,
    memory: Vec<u8>,
}

impl Made {
    fn new(kvm: &Kvm) -> std::result::Result<Self, ExitsError> {
        let vm = kvm.create_vm().map_err(ExitsError::call("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(ExitsError::call("KVM_CREATE_VCPU"))?;
        Ok(Self {
            vm,
            vcpu: vcpu.into(),
            event: EventFd::new(libc::EFD_CLOEXEC).map_err(ExitsError::system("make an eventfd"))?,
            memory: vec![1; REGION + 4096],
        })
    }

    fn measure(&self, kvm: &Kvm, name: &str, meter: &mut Meter<'_>) -> std::result::Result<(), &'static str> {
        const REFUSED: &str = "KVM refuses it";
        type C = Fenced;
        let mut vcpu = self.vcpu.borrow_mut();
        match name {
            "ioctl_floor" => meter.each::<C>(|| {
                std::hint::black_box(kvm.check_extension_int(kvm_ioctls::Cap::UserMemory));
            }),
            "ioctl_get_regs" => meter.record::<C>(|| timed(|| vcpu.get_regs()).ok_or(REFUSED)),
            "ioctl_set_regs" => {
                let regs = vcpu.get_regs().map_err(|_| REFUSED)?;
                meter.record::<C>(|| timed(|| vcpu.set_regs(&regs)).ok_or(REFUSED))
            }
            "ioctl_get_sregs" => meter.record::<C>(|| timed(|| vcpu.get_sregs()).ok_or(REFUSED)),
            "ioctl_set_sregs" => {
                let sregs = vcpu.get_sregs().map_err(|_| REFUSED)?;
                meter.record::<C>(|| timed(|| vcpu.set_sregs(&sregs)).ok_or(REFUSED))
            }
            "ioctl_get_fpu" => meter.record::<C>(|| timed(|| vcpu.get_fpu()).ok_or(REFUSED)),
            "ioctl_get_msrs" => {
                let entry = kvm_msr_entry {
                    index: EFER,
                    ..kvm_msr_entry::default()
                };
                let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| REFUSED)?;
                meter.record::<C>(|| timed(|| vcpu.get_msrs(&mut msrs)).ok_or(REFUSED))
            }
            "ioctl_run_immediate" => {
                vcpu.set_kvm_immediate_exit(1);
                // It is interrupted, which is an error by name; any other is one.
                let mut interrupted = || match vcpu.run() {
                    Err(error) if error.errno() == libc::EINTR => Ok(()),
                    _ => Err(()),
                };
                meter.record::<C>(|| timed(&mut interrupted).ok_or(REFUSED))
            }
            "ioctl_ioeventfd" => {
                let at = IoEventAddress::Pio(0xc7c);
                meter.record::<C>(|| {
                    timed(|| {
                        self.vm.register_ioevent(&self.event, &at, NoDatamatch)?;
                        self.vm.unregister_ioevent(&self.event, &at, NoDatamatch)
                    })
                    .ok_or(REFUSED)
                })
            }
            "ioctl_memory_region" => {
                let start = self.memory.as_ptr() as u64;
                let region = |memory_size| kvm_userspace_memory_region {
                    slot: 1,
                    flags: 0,
                    guest_phys_addr: 0x1000_0000,
                    memory_size,
                    userspace_addr: start.next_multiple_of(4096),
                };
                meter.record::<C>(|| {
                    timed(|| {
                        // SAFETY: the memory is this process's for as long as the machine lives, which never runs.
                        unsafe {
                            self.vm.set_user_memory_region(region(REGION as u64))?;
                            self.vm.set_user_memory_region(region(0))
                        }
                    })
                    .ok_or(REFUSED)
                })
            }
            "ioctl_create_vcpu" => {
                meter.at_most(100, 5);
                meter.record::<C>(|| {
                    let vm = kvm.create_vm().map_err(|_| REFUSED)?;
                    timed(|| vm.create_vcpu(0)).ok_or(REFUSED)
                })
            }
            "ioctl_create_vm" => {
                meter.at_most(100, 5);
                meter.record::<C>(|| timed(|| kvm.create_vm().map(drop)).ok_or(REFUSED))
            }
            _ => Err("this program does not know it"),
        }
    }
}

/// How many ticks something takes; `None` if it fails. What it makes is let go of afterwards.
fn timed<T, E>(mut what: impl FnMut() -> std::result::Result<T, E>) -> Option<u64> {
    let begin = Fenced::now();
    let made = what();
    let end = Fenced::now();
    made.is_ok().then_some(end.wrapping_sub(begin))
}
