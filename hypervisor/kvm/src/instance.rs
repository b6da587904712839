//! One run of one guest: the steps in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use chiton_core::boot::World;
use chiton_core::explain::{Backend, Ended, View};
use chiton_core::loader::Image;
use chiton_core::machine::{End, Machine};
use chiton_core::vcpu::{Registers, SystemRegisters, Vcpu};
use chiton_shared::map;
use kvm_ioctls::{VcpuFd, VmFd};

use crate::Error;
use crate::board::{HubBoard, Mainboard};
use crate::control::ControlSocket;
use crate::cpuid::GuestCpuid;
use crate::devices::{Backends, Devices};
use crate::guest::{Guest, KvmSource};
use crate::host::disk::Disk;
use crate::hub::{Deadline, Hub, Looks, StopReason};
use crate::interrupts::{self, QueueInterrupts};
use crate::outcome::{Ending, Outcome};
use crate::platform::Role;
use crate::prepare::Plan;
use crate::processors::{self, Last, Processors};
use crate::ram::Ram;
use crate::signal::{EndSignals, VcpuThread};
use crate::snapshot::resume;
use crate::snapshot::take::{Facts, GuestFile};
use crate::timeline::Timeline;
use crate::vcpu::KvmVcpu;

/// Stack of the second thread, in bytes.
const STACK: usize = 256 << 10;

pub(crate) fn run<R>(guest: Guest, then: impl FnOnce(Outcome) -> R) -> Result<R, Error> {
    let mut timeline = guest.timeline;
    timeline.mark("options");
    // Before there is a second thread, which then inherits the blocked signals.
    let signals = guest.end_signals.then(EndSignals::open).transpose();
    let (signals, _mask) = signals.map_err(Error::system("signalfd"))?.unzip();
    let disks = guest.disks.len();
    // A medium takes a request in as many pieces as it has pages, and each takes its time. A balloon
    // gives small pages back, which the kernel cannot do with a part of a huge one at once.
    let huge_pages = guest.disks.iter().any(Disk::is_direct) && guest.balloon.is_none();
    let nets = guest.nets.len();
    let snapshot = guest.snapshot;
    let probes = guest.disks.iter().map(Disk::probe).collect::<Result<_, _>>();
    let probes = probes.map_err(Error::system("look at a disk"))?;
    if let Some(snapshot) = &snapshot {
        snapshot.check_disks(&guest.disks)?;
        resume::check_devices(nets, guest.vsock.is_some(), guest.folders.len(), guest.ports.len())?;
        resume::check_emulated(&guest.emulated)?;
    }
    let mut env = guest.env;
    for (index, net) in guest.nets.iter().enumerate() {
        env.extend(net.environment(index));
    }
    let looks = if guest.io_thread {
        Looks::here()
    } else {
        Looks::default()
    };
    let mut devices = Devices::new(Backends {
        console: guest.console,
        ports: guest.ports,
        disks: guest.disks,
        nets: guest.nets,
        vsock: guest.vsock,
        balloon: guest.balloon,
        folders: guest.folders,
        apart: !looks.thread.is_zero(),
        emulated: guest.emulated,
        of_file: snapshot.is_some(),
    })?;
    let socket_files = devices.take_socket_files();
    let control = guest.control_socket.map(ControlSocket::open).transpose()?;
    let (server, control_file) = control.unzip();
    let preset = devices.preset(guest.queue_format)?;
    if let Some(snapshot) = &snapshot {
        devices.load(&snapshot.description.devices)?;
    }
    timeline.mark("devices");

    let interrupts = match &snapshot {
        None => interrupts::decide(&guest.bytes, &guest.kvm)?,
        Some(snapshot) => interrupts::needed(snapshot.description.interrupts, &guest.kvm)?,
    };

    let file = match &snapshot {
        None => GuestFile::Bytes(Arc::clone(&guest.bytes)),
        Some(snapshot) => GuestFile::Snapshot(Arc::clone(snapshot)),
    };
    let plan = Plan {
        file: &guest.bytes,
        memory: guest.memory,
        processors: guest.processors,
        ring: guest.ring,
        interrupts,
        look_ns: u64::try_from(looks.guest.as_nanos()).unwrap_or(0),
        args: &guest.args,
        env: &env,
        devices: &preset,
        disks,
        huge_pages,
        nets,
        log_level: guest.log_level,
        new_memory: Ram::new,
    };
    let prepare = || match &snapshot {
        None => plan.carry_out(),
        Some(snapshot) => resume::prepare(snapshot),
    };
    let (tell, told) = mpsc::sync_channel(1);
    let (serve, to_serve) = mpsc::sync_channel::<(Arc<Hub>, Option<Deadline>)>(1);
    let claimed = AtomicBool::new(false);
    // Memory is prepared by whichever thread comes to it first: the other one while KVM makes the
    // machine, or, if all processors are busy and it has not begun by then, this one.
    let claim = || !claimed.swap(true, Ordering::Relaxed);
    thread::scope(|scope| {
        // Dropped with this closure, so that the other thread does not wait for ever after an error.
        let serve = serve;
        let (claim, prepare) = (&claim, &prepare);
        let other = move || {
            if claim() {
                // Whoever does not listen any more has met an error of its own.
                let _ = tell.send(prepare());
            }
            if let Ok((hub, deadline)) = to_serve.recv()
                && begin(&hub, guest.begin_thread, Role::Devices)
            {
                hub.serve(deadline);
            }
        };
        let builder = thread::Builder::new().name("devices".into()).stack_size(STACK);
        builder
            .spawn_scoped(scope, other)
            .map_err(Error::system("start the second thread, which --pids-max counts"))?;
        timeline.mark("start thread");

        let made = make_vm(guest.kvm, interrupts.is_some(), &mut timeline);
        let prepared = if claim() {
            prepare()
        } else {
            told.recv().map_err(|_| Error::Died)?
        };
        // What is wrong with the guest is worth more to say than what is wrong with KVM.
        let mut prepared = prepared?;
        let (vm, fd) = made?;
        timeline.mark("prepare memory");
        // SAFETY: `prepared` was there before the machine, and is dropped after it; the hub has the memory too.
        unsafe { prepared.ram.attach(&vm) }?;
        timeline.mark("attach memory");
        let mut vcpu = processors::make_vcpu(fd, 0, &prepared.cpuid, interrupts.is_some())?;
        let tsc_khz = vcpu.fd().get_tsc_khz().map_err(Error::kvm("KVM_GET_TSC_KHZ"))?;
        prepared.set_clock(tsc_khz.into(), wall_clock_ns());
        if let Some(world) = &prepared.world {
            vcpu.set_registers(&world.registers, &world.system)?;
        }
        let mut others = Vec::new();
        if let Some(snapshot) = &snapshot {
            snapshot.check_frequency(tsc_khz)?;
            others = resume::put(snapshot, &vm, &mut vcpu, &prepared, wall_clock_ns())?;
        }
        timeline.mark("set vCPU");

        let (mut slots, emulated) = devices.into_slots();
        if interrupts.is_some() {
            for (transport, _) in &mut slots {
                transport.interrupts(guest.processors);
            }
        }
        let queues = slots.iter().map(|(transport, _)| transport.queue_sizes().len());
        let queue_interrupts = interrupts.map(|_| QueueInterrupts::new(&vm, queues)).transpose()?;
        let mut hub = Hub::new(
            Arc::clone(&prepared.ram),
            slots,
            emulated,
            guest.io_thread,
            queue_interrupts,
            signals,
            guest.log,
        )?
        .patient(guest.stop_timeout);
        if guest.processors == 1 && interrupts.is_none() {
            hub = hub.led()?;
        }
        if let Some(server) = server {
            hub = hub.controlled_by(server)?;
        }
        hub = hub.described(Facts {
            name: guest.args.first().cloned().unwrap_or_default(),
            guest: file.clone(),
            processors: guest.processors,
            ring: guest.ring,
            interrupts,
            tsc_khz,
            cpuid: prepared.cpuid.entries().to_vec(),
            disks: probes,
        });
        let hub = Arc::new(hub);
        if let Some(control) = &guest.control {
            control.attach(&hub);
        }
        let states = match &prepared.world {
            Some(world) => world.processor_registers().collect(),
            None => plan.processor_registers(&file, &prepared.cpuid)?,
        };
        let processors = Arc::new(Processors::new(
            states,
            prepared.cpuid.clone(),
            interrupts.is_some(),
            guest.timed,
        ));
        let main = Arc::new(Mainboard::new(
            Arc::clone(&hub),
            vm,
            interrupts.is_some(),
            guest.log_level,
        ));
        let _ = hub.board.set(Arc::downgrade(&main));
        let mut machine = Machine::new(
            vcpu,
            HubBoard::new(Arc::clone(&main), Arc::clone(&processors), 0, map::MAILBOX),
        );
        machine.timed = guest.timed;
        let byte = machine.vcpu.immediate_exit();
        // SAFETY: the byte is in the vCPU's shared page, which `machine` owns; being declared later,
        // `running` is dropped earlier, on this thread.
        let registered = unsafe { VcpuThread::register(byte) }.map_err(Error::system("sigaction"))?;
        let running = Running::new(&hub, &processors, registered, &machine);
        hub.begins();
        if snapshot.is_some() {
            hub.resumed();
        }
        let deadline = guest.timeout.and_then(Deadline::after);
        serve.send((Arc::clone(&hub), deadline)).map_err(|_| Error::Died)?;
        if hub.has_io_thread() {
            let io = Arc::clone(&hub);
            let builder = thread::Builder::new().name("io".into()).stack_size(STACK);
            builder
                .spawn_scoped(scope, move || {
                    if begin(&io, guest.begin_thread, Role::Io) {
                        io.serve_io(looks.thread);
                    }
                })
                .map_err(Error::system("start the I/O thread"))?;
        }
        timeline.mark("device loop");
        (guest.begin_thread)(Role::Processor).map_err(Error::system(BEGIN))?;
        // After that, so that their threads have given up the same.
        for (number, vcpu) in others {
            processors.resume(&main, number, vcpu)?;
        }
        drop(main);

        let end = hub.run(0, &mut machine);
        timeline.mark("guest");
        hub.flush_log();
        let mut all = vec![Last::of(0, end?, &mut machine)?];
        all.extend(running.end_others()?);
        let ending = match &prepared.world {
            Some(world) => explain(ended_by(&all), &hub, world),
            None => plan.explain(&file, &prepared.cpuid, ended_by(&all), &hub),
        };
        timeline.mark("end");
        let outcome = Outcome {
            ending,
            exits: Last::exits(&all),
            kicks: hub.kicks(),
            kernel: Last::kernel(&all),
            device_failures: hub.failures(),
            timeline,
        };
        // `then` may end the process.
        drop((socket_files, control_file));
        let result = then(outcome);
        drop(running);
        Ok(result)
    })
}

impl Plan<'_> {
    /// The registers of processors beyond the first, of a guest that goes on from a snapshot.
    fn processor_registers(
        &self,
        file: &GuestFile,
        cpuid: &GuestCpuid,
    ) -> Result<Vec<(Registers, SystemRegisters)>, Error> {
        if self.processors == 1 {
            return Ok(Vec::new());
        }
        self.with_world(file, cpuid, |world| world.processor_registers().collect())
    }

    /// Puts the end of a guest into words that went on from a snapshot. Its world is built for that, unless there is
    /// nothing to be said.
    fn explain(&self, file: &GuestFile, cpuid: &GuestCpuid, last: &Last, hub: &Hub) -> Ending {
        if let End::Exit(code) = last.end {
            return Ending::Exit(code);
        }
        let ending = self.with_world(file, cpuid, |world| explain(last, hub, world));
        ending.unwrap_or_else(|error| Ending::Fault {
            report: format!(
                "it ended, and there is no more to say, since its file in the snapshot cannot be used: {error}"
            ),
        })
    }

    fn with_world<R>(
        &self,
        file: &GuestFile,
        cpuid: &GuestCpuid,
        what: impl FnOnce(&World<'_>) -> R,
    ) -> Result<R, Error> {
        let file = file
            .bytes()
            .map_err(Error::system("read the guest's file in the snapshot"))?;
        let image = Image::parse(&file)?;
        let plan = Plan {
            file: &file,
            memory: self.memory,
            processors: self.processors,
            ring: self.ring,
            interrupts: self.interrupts,
            look_ns: self.look_ns,
            args: &[],
            env: &[],
            devices: self.devices,
            disks: self.disks,
            huge_pages: false,
            nets: self.nets,
            log_level: self.log_level,
            new_memory: Ram::new,
        };
        Ok(what(&plan.world(&image, cpuid)?))
    }
}

/// What a thread does that begins with its role.
const BEGIN: &str = "give up what other threads need";

/// Lets a thread that is not the guest's first begin; whether it may.
fn begin(hub: &Hub, begin: fn(Role) -> std::io::Result<()>, role: Role) -> bool {
    let begun = begin(role);
    if let Err(error) = &begun {
        hub.stop(StopReason::HostFailed {
            doing: BEGIN,
            errno: error.raw_os_error().unwrap_or(libc::EPERM),
        });
    }
    begun.is_ok()
}

/// A guest that can be interrupted and whose devices are served, until this is dropped.
struct Running<'h> {
    hub: &'h Hub,
    processors: &'h Processors,
    _registered: VcpuThread,
}

impl<'h> Running<'h> {
    fn new(
        hub: &'h Hub,
        processors: &'h Processors,
        registered: VcpuThread,
        machine: &Machine<KvmVcpu, HubBoard>,
    ) -> Self {
        hub.add_vcpu(registered.handle(), 0, Arc::clone(&machine.exits));
        Self {
            hub,
            processors,
            _registered: registered,
        }
    }

    /// Ends the processors beyond the first.
    fn end_others(&self) -> Result<Vec<Last>, Error> {
        if self.processors.count() > 1 {
            self.hub.stop(StopReason::Processor);
        }
        self.processors.end()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // What another processor has to say matters no more.
        let _ = self.end_others();
        self.hub.forget_vcpus();
        self.hub.finish();
    }
}

/// Has KVM make a machine with one vCPU.
fn make_vm(kvm: KvmSource, interrupts: bool, timeline: &mut Timeline) -> Result<(VmFd, VcpuFd), Error> {
    let kvm = kvm.open()?;
    timeline.mark("open KVM");
    let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
    if interrupts {
        interrupts::split_irqchip(&vm)?;
    }
    timeline.mark("create VM");
    let vcpu = vm.create_vcpu(0).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
    timeline.mark("create vCPU");
    Ok((vm, vcpu))
}

pub(crate) fn wall_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The processor that ended the guest: not one that was only stopped because of it.
fn ended_by(all: &[Last]) -> &Last {
    let of_itself = |last: &&Last| !matches!(last.end, End::Stopped) && (last.number == 0 || last.end != End::Parked);
    all.iter().find(of_itself).unwrap_or(&all[0])
}

/// Puts the end of a guest into words.
fn explain(last: &Last, hub: &Hub, world: &World<'_>) -> Ending {
    // There is nothing to explain, and reading the guest's symbols takes long.
    if let End::Exit(code) = last.end {
        return Ending::Exit(code);
    }
    let symbols = world.image().symbols();
    let view = View::new(world, &symbols, hub.ram.as_ref());
    let backend = Backend {
        name: "KVM",
        why: last.broken.as_deref().unwrap_or_default(),
    };
    if let Some(ended) = view.ended(&last.end, &last.registers, backend) {
        return match ended {
            Ended::Exit(code) => Ending::Exit(code),
            Ended::Panic { message, place } => Ending::Panic { message, place },
            Ended::Fault { report } => Ending::Fault { report },
        };
    }
    let place = || view.place(&last.registers).to_string();
    match hub.stop_reason() {
        Some(StopReason::Signal(signal)) => Ending::Signal(signal),
        Some(StopReason::OutputClosed) => Ending::OutputClosed,
        Some(StopReason::HostFailed { doing, errno }) => Ending::HostFailed { doing, errno },
        Some(StopReason::Timeout(limit)) => Ending::Timeout { limit, place: place() },
        Some(StopReason::NotStopped(limit)) => Ending::NotStopped { limit, place: place() },
        Some(StopReason::Snapshot) => Ending::Snapshot,
        Some(StopReason::Processor) | None => Ending::Fault {
            report: "it was stopped for no reason".into(),
        },
    }
}
