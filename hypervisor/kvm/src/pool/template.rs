//! A guest that is ready to be called, as a value: what every machine of a pool is a copy of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chiton_core::devices::Preset;
use chiton_core::explain::{Backend, Ended, View};
use chiton_core::loader::{self, Image};
use chiton_core::machine::{End, Machine, printable};
use chiton_core::vcpu::{Broken, Registers, Vcpu};
use chiton_shared::boot::Generation;
use chiton_shared::call::{self, Call};
use chiton_shared::doorbell::{LogLevel, MAILBOX_TEXT_OFFSET};
use chiton_shared::manifest::{Feature, Ring};
use chiton_shared::map;
use chiton_shared::memory::{GuestMemory, Window};
use kvm_ioctls::{Kvm, VmFd};

use super::board::CallBoard;
use super::devices::{Devices, Saved};
use super::limit::Limit;
use super::pristine::{self, Pristine};
use super::ready::Ready;
use super::{CallError, PoolError};
use crate::cpuid::GuestCpuid;
use crate::guest::Guest;
use crate::instance::wall_clock_ns;
use crate::outcome::Ending;
use crate::prepare::Plan;
use crate::ram::Ram;
use crate::signal::{Entered, prepare_thread};
use crate::vcpu::KvmVcpu;
use crate::{Error, processors};

/// Where the record of a call lies.
const RECORD: u64 = map::MAILBOX + MAILBOX_TEXT_OFFSET as u64;

/// A processor on its board.
pub(super) type CallMachine = Machine<KvmVcpu, CallBoard>;

/// Whoever hears of the guest's log.
pub(super) struct Log {
    level: Option<LogLevel>,
    say: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Log {
    /// Something of the host's own.
    pub(super) fn say(&self, line: &str) {
        // A line that nobody takes is lost.
        let _ = (self.say)(line);
    }

    /// What the guest has printed, when nobody else is there to take it.
    pub(super) fn print(&self, bytes: &[u8]) {
        String::from_utf8_lossy(bytes)
            .lines()
            .for_each(|line| self.say(&printable(line)));
    }

    /// A line of the guest's.
    pub(super) fn guest(&self, level: LogLevel, text: &str) {
        if self.level.is_some_and(|most| level <= most) {
            text.lines()
                .for_each(|line| self.say(&format!("{}: {line}", level.word())));
        }
    }
}

/// What the guest is made of, and what the host decided.
struct Given {
    file: Arc<Vec<u8>>,
    memory: u64,
    ring: Option<Ring>,
    args: Vec<String>,
    env: Vec<String>,
}

impl Given {
    fn plan<'g>(&'g self, devices: &'g Preset, log_level: Option<LogLevel>) -> Plan<'g> {
        Plan {
            file: &self.file,
            memory: self.memory,
            processors: 1,
            ring: self.ring,
            interrupts: None,
            look_ns: 0,
            args: &self.args,
            env: &self.env,
            devices,
            disks: 0,
            huge_pages: false,
            nets: 0,
            log_level,
            new_memory: pristine::in_file,
        }
    }
}

/// A guest that is ready to be called.
pub(super) struct Template {
    given: Given,
    kvm: Kvm,
    cpuid: GuestCpuid,
    pub(super) log: Arc<Log>,
    pub(super) limit: Option<Duration>,
    pub(super) pristine: Pristine,
    pub(super) ready: Ready,
    pub(super) devices: Saved,
    /// What it left in its mailbox.
    pub(super) call: Call,
    /// Whether it runs in ring 0.
    pub(super) ring_0: bool,
    generation: AtomicU32,
}

impl Template {
    /// Starts the guest and waits until it is ready.
    pub(super) fn new(guest: Guest, limit: Option<Duration>) -> Result<Self, PoolError> {
        refuse(&guest)?;
        let given = Given {
            file: guest.bytes,
            memory: guest.memory,
            ring: guest.ring,
            args: guest.args,
            env: guest.env,
        };
        let log = Arc::new(Log {
            level: guest.log_level,
            say: guest.log,
        });
        let kvm = guest.kvm.open()?;
        let (devices, preset) = Devices::preset()?;
        let mut prepared = given.plan(&preset, log.level).carry_out()?;
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        // SAFETY: `prepared` outlives the machine, which is dropped before its memory is taken.
        unsafe { prepared.ram.attach(&vm) }?;
        let fd = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let mut vcpu = processors::make_vcpu(fd, 0, &prepared.cpuid, false)?;
        let tsc_khz = vcpu.fd().get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?;
        prepared.set_clock(tsc_khz.into(), wall_clock_ns());
        let world = prepared.world.as_ref().ok_or(Error::Died)?;
        vcpu.set_registers(&world.registers, &world.system)?;
        let ring_0 = world.ring() == Ring::Kernel;
        let time = Arc::new(Limit::new(limit));
        let board = CallBoard {
            ram: Arc::clone(&prepared.ram),
            devices,
            limit: Arc::clone(&time),
            log: Arc::clone(&log),
        };
        let mut machine = Machine::new(vcpu, board);
        let end = super::keeper::watched(&time, || run(&mut machine))?;
        log.print(&machine.board.devices.take_output());
        let call = match end {
            End::Called(_) => first(prepared.ram.as_ref())?,
            end => {
                let registers = machine.vcpu.registers()?;
                let why = why(&end, &mut machine.vcpu);
                let ending = given.explain(&end, &registers, why, prepared.ram.as_ref(), limit)?;
                return Err(PoolError::NotReady(ending));
            }
        };
        let devices = machine.board.devices.save()?;
        let ready = Ready::take(&mut machine.vcpu)?;
        let (ram, cpuid) = (prepared.ram, prepared.cpuid);
        drop((machine, vm));
        Ok(Self {
            pristine: Pristine::seal(ram)?,
            given,
            kvm,
            cpuid,
            log,
            limit,
            ready,
            devices,
            call,
            ring_0,
            generation: AtomicU32::new(1),
        })
    }

    /// Another machine in the guest's state.
    pub(super) fn copy(&self) -> Result<(VmFd, CallMachine), Error> {
        let ram = Arc::new(self.pristine.copy()?);
        let vm = self.kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        super::dirty::prepare(&vm)?;
        // SAFETY: the board has the memory, and is where the processor is: neither runs without the other.
        unsafe { ram.attach_with(&vm, kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES) }
            .map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
        let fd = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let mut vcpu = processors::make_vcpu(fd, 0, &self.cpuid, false)?;
        vcpu.show_registers();
        self.ready.give_to(&mut vcpu)?;
        let board = CallBoard {
            ram,
            devices: Devices::copy(&self.devices)?,
            limit: Arc::new(Limit::new(self.limit)),
            log: Arc::clone(&self.log),
        };
        Ok((vm, Machine::new(vcpu, board)))
    }

    /// What is new for a machine that was put back or copied.
    pub(super) fn next_generation(&self, ticks: u64) -> Result<Generation, Error> {
        // Numbers that have gone round are as good: no machine remembers any.
        let count = self.generation.fetch_add(1, Ordering::Relaxed);
        self.ready.generation(count.max(1), ticks)
    }

    /// The end of a guest that did not reply, in words.
    pub(super) fn explain(&self, end: &End, machine: &mut CallMachine) -> Result<Ending, Error> {
        let registers = machine.vcpu.registers()?;
        let why = why(end, &mut machine.vcpu);
        self.given
            .explain(end, &registers, why, machine.board.ram.as_ref(), self.limit)
    }
}

/// Refuses what a guest that is called cannot have: what would still be there after its memory and its
/// registers have been put back, and what nobody would serve.
fn refuse(guest: &Guest) -> Result<(), PoolError> {
    let given = [
        ("disks", !guest.disks.is_empty()),
        ("network interfaces", !guest.nets.is_empty()),
        ("a socket device", guest.vsock.is_some()),
        ("a balloon", guest.balloon.is_some()),
        ("folders", !guest.folders.is_empty()),
        (
            "emulated devices",
            guest.emulated.disk.is_some() || guest.emulated.net.is_some(),
        ),
        ("console ports", !guest.ports.is_empty()),
        ("processors beyond the first", guest.processors != 1),
        ("a snapshot to go on from", guest.snapshot.is_some()),
        (
            "a control",
            guest.control.is_some() || guest.control_socket.is_some() || guest.stop_timeout.is_some(),
        ),
    ];
    if let Some((what, _)) = given.iter().find(|(_, given)| *given) {
        return Err(PoolError::Refused(what));
    }
    // What is wrong with the file is said by whoever reads all of it.
    let Ok(manifest) = loader::manifest(&guest.bytes) else {
        return Ok(());
    };
    if manifest.required.contains(Feature::INTERRUPTS) {
        return Err(PoolError::Refused("interrupts"));
    }
    Ok(())
}

/// Runs a machine on this thread to its reply or its end, within its time.
pub(super) fn run(machine: &mut CallMachine) -> Result<End, Error> {
    let thread = prepare_thread().map_err(Error::system("sigaction"))?;
    let byte = machine.vcpu.immediate_exit();
    // SAFETY: the byte is in the vCPU's shared page, which `machine` owns longer than this function runs.
    let entered = unsafe { Entered::new(byte) };
    machine.board.limit.begin(thread);
    let end = machine.run();
    drop(entered);
    end
}

/// What a guest says with its doorbell, checked.
pub(super) fn record(ram: &Ram) -> Result<Call, CallError> {
    let mut bytes = [0; Call::SIZE];
    let window = ram
        .window(RECORD, Call::SIZE)
        .ok_or(CallError::Record("its mailbox is no memory"))?;
    window.read(0, &mut bytes);
    let call = Call::from_bytes(&bytes);
    if call.room > call::MAX || call.reply_len > call::MAX {
        return Err(CallError::Record("a request or reply of more than 16 MiB"));
    }
    if area(ram, call.request, call.room).is_none() {
        return Err(CallError::Record("room for a request that is not memory of its own"));
    }
    Ok(call)
}

/// The record of a guest that has just become ready.
fn first(ram: &Ram) -> Result<Call, PoolError> {
    record(ram).map_err(|error| match error {
        CallError::Record(what) => PoolError::Record(what),
        _ => PoolError::Record("a record that cannot be read"),
    })
}

/// Memory of the guest's own: not the world that the host has built, with page tables and all.
pub(super) fn area(ram: &Ram, address: u64, len: u64) -> Option<Window<'_>> {
    let own = len == 0 || address >= map::GUEST;
    ram.window(address, usize::try_from(len).ok()?).filter(|_| own)
}

/// Where the host's part of the record lies.
pub(super) const fn record_for_guest() -> u64 {
    RECORD + call::HOST as u64
}

fn why(end: &End, vcpu: &mut KvmVcpu) -> Option<Broken> {
    matches!(end, End::Broken(_)).then(|| vcpu.why_broken())
}

impl Given {
    fn explain(
        &self,
        end: &End,
        registers: &Registers,
        why: Option<Broken>,
        ram: &Ram,
        limit: Option<Duration>,
    ) -> Result<Ending, Error> {
        // There is nothing to explain, and reading the guest's symbols takes long.
        if let End::Exit(code) = end {
            return Ok(Ending::Exit(*code));
        }
        let devices = Preset::default();
        let world = self
            .plan(&devices, None)
            .world(&Image::parse(&self.file)?, &GuestCpuid::of_host())?;
        let symbols = world.image().symbols();
        let view = View::new(&world, &symbols, ram);
        let why = why.map(|broken| broken.to_string());
        let backend = Backend {
            name: "KVM",
            why: why.as_deref().unwrap_or_default(),
        };
        Ok(match view.ended(end, registers, backend) {
            Some(Ended::Exit(code)) => Ending::Exit(code),
            Some(Ended::Panic { message, place }) => Ending::Panic { message, place },
            Some(Ended::Fault { report }) => Ending::Fault { report },
            None => {
                let place = view.place(registers).to_string();
                match limit {
                    Some(limit) => Ending::Timeout { limit, place },
                    None => Ending::Fault {
                        report: format!("it waits for ever, and nothing can wake it\n{place}"),
                    },
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of 4 MiB in whose mailbox this stands.
    fn ram(call: Call) -> Ram {
        let ram = Ram::new(4 << 20).unwrap();
        ram.window(RECORD, Call::SIZE).unwrap().write(0, &call.to_bytes());
        ram
    }

    #[test]
    fn a_record_within_the_guests_own_memory_is_taken_as_it_is() {
        let call = Call {
            request: map::GUEST,
            room: 2 << 20,
            reply: 1,
            reply_len: 2,
            request_len: 3,
        };
        assert_eq!(record(&ram(call)).unwrap(), call);
        // A function that takes nothing.
        let nothing = Call {
            request: 0,
            room: 0,
            ..call
        };
        assert_eq!(record(&ram(nothing)).unwrap(), nothing);
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_refused() {
        let whole = Call {
            request: map::GUEST,
            room: 4096,
            ..Call::default()
        };
        for call in [
            Call {
                request: map::PAGE_TABLES,
                ..whole
            },
            Call {
                request: map::GUEST - 1,
                ..whole
            },
            Call {
                request: (4 << 20) - 4095,
                ..whole
            },
            Call {
                request: u64::MAX,
                ..whole
            },
            Call {
                room: (2 << 20) + 1,
                ..whole
            },
            Call {
                room: call::MAX + 1,
                ..whole
            },
            Call {
                room: u64::MAX,
                ..whole
            },
            Call {
                reply_len: call::MAX + 1,
                ..whole
            },
        ] {
            assert!(matches!(record(&ram(call)), Err(CallError::Record(_))), "{call:?}");
        }
    }

    #[test]
    fn a_reply_is_memory_of_the_guests_own() {
        let ram = Ram::new(4 << 20).unwrap();
        assert_eq!(area(&ram, map::GUEST, 10).map(|window| window.len()), Some(10));
        assert_eq!(area(&ram, 0, 0).map(|window| window.len()), Some(0));
        for (address, len) in [
            (map::BOOT_PAGE, 1),
            ((4 << 20) - 1, 2),
            (u64::MAX, 2),
            (map::GUEST, u64::MAX),
        ] {
            assert!(area(&ram, address, len).is_none(), "{address:#x} {len}");
        }
    }
}
