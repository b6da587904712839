//! Runs as the commands make them, of every form that the page shows.

use chiton_bench::run::{Calibration, Case, Kind, Machine, Outcome, Run, Samples, Unit};

/// Numbers that look like measurements, and are the same each time.
struct Numbers(u64);

impl Numbers {
    /// From 0 to 1, evenly.
    fn part(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A latency: near to the median, with a tail, and now and then far away.
    fn latency(&mut self, median: f64) -> u64 {
        let bell: f64 = (0..6).map(|_| self.part()).sum::<f64>() / 3.0 - 1.0;
        let tail = 1.0 + 0.15 * -self.part().ln();
        let far = if self.part() < 0.003 {
            6.0 + 40.0 * self.part()
        } else {
            1.0
        };
        (median * (1.0 + 0.12 * bell) * tail * far) as u64
    }
}

fn case(numbers: &mut Numbers, group: &str, name: &str, what: &str, unit: Unit, median: f64) -> Case {
    let repeats = (0..6).map(|_| {
        let drift = 1.0 + 0.02 * numbers.part();
        let mut samples = Samples::of((0..1500).map(|_| numbers.latency(median * drift))).expect("samples");
        samples.steal = Some(10_000_000);
        samples.migrations = Some(0);
        samples
    });
    Case::measured(name, group, what, unit, repeats.collect())
}

/// A run of exits; `slower` makes some of them cost more.
pub(crate) fn exits(slower: f64) -> Run {
    let mut run = Run::begin(Kind::Exits, Machine::Kvm, 1);
    run.calibration = Some(Calibration {
        tsc_hz: 2_445_430_000,
        null_ticks: 48,
    });
    let numbers = &mut Numbers(42);
    let cases = [
        (
            "instructions",
            "cpuid",
            "CPUID leaf 0, which always exits",
            "CPUID",
            1180.0,
        ),
        (
            "instructions",
            "vmcall",
            "VMCALL of an unknown number, answered by the kernel",
            "VMCALL",
            1040.0 * slower,
        ),
        ("instructions", "rdpmc", "RDPMC of counter 0", "RDPMC", 1390.0),
        (
            "instructions",
            "xsetbv",
            "XSETBV of what XCR0 holds already",
            "XSETBV",
            1610.0,
        ),
        (
            "instructions",
            "wr_cr3",
            "CR3 written with what it holds",
            "CR access",
            260.0,
        ),
        (
            "devices",
            "outl_to_kernel",
            "OUT to a port that an eventfd is at",
            "I/O instruction",
            2400.0,
        ),
        (
            "devices",
            "inl_from_user",
            "IN of 32 bits from a port of a device in userspace",
            "I/O instruction",
            7400.0,
        ),
        (
            "devices",
            "mmio_read",
            "a read of 4 bytes of a device in userspace",
            "EPT misconfiguration",
            8900.0 * slower,
        ),
        (
            "devices",
            "ioeventfd",
            "a write that signals an eventfd and needs no userspace",
            "EPT misconfiguration",
            3100.0,
        ),
        (
            "memory",
            "first_touch",
            "the first write to a page that has no memory yet",
            "EPT violation",
            5200.0,
        ),
        (
            "memory",
            "chase_4k_cold",
            "a step of a pointer chase over 4 KiB pages, caches cold",
            "",
            140.0,
        ),
        (
            "interrupts",
            "self_ipi",
            "an IPI to itself, until its handler runs",
            "APIC write",
            4100.0,
        ),
        (
            "interrupts",
            "ipi_halt",
            "an IPI to a halted processor, until it has answered",
            "HLT",
            21_000.0,
        ),
        (
            "interrupts",
            "irqfd",
            "an irqfd written by the host, until the guest's handler runs",
            "External interrupt",
            9800.0,
        ),
    ];
    for (group, name, what, cause, median) in cases {
        let mut case = case(numbers, group, name, what, Unit::Nanoseconds, median);
        if let Outcome::Measured(measured) = &mut case.outcome {
            measured.per_operation_exits = Some(if cause.is_empty() { 0.0 } else { 1.0 });
        }
        case.cause = (!cause.is_empty()).then(|| cause.into());
        run.cases.push(case);
    }
    run.cases.push(case(
        numbers,
        "instructions",
        "rdtsc",
        "RDTSC, which does not exit here",
        Unit::Ticks,
        24.0,
    ));
    let reason = "this KVM has no VMX or SVM below it: WBINVD in ring 0 is interpreted";
    run.cases
        .push(Case::skipped("wbinvd", "instructions", "WBINVD", Unit::Ticks, reason));
    run.cases.push(Case::skipped(
        "rdrand",
        "instructions",
        "RDRAND",
        Unit::Ticks,
        "the processor does not offer it",
    ));
    run
}

/// A run of starts, phase by phase.
pub(crate) fn start() -> Run {
    let mut run = Run::begin(Kind::Start, Machine::Kvm, 1);
    let numbers = &mut Numbers(7);
    for (group, factor) in [("unjailed", 1.0), ("jailed", 1.6), ("from a snapshot", 0.5)] {
        let phases = [
            ("exec and options", 410_000.0),
            ("virtual machine", 480_000.0),
            ("guest loaded", 210_000.0),
            ("first instruction", 120_000.0),
            ("guest runs", 340_000.0),
            ("torn down", 530_000.0),
        ];
        run.cases.push(case(
            numbers,
            group,
            "exec to exit",
            "the whole",
            Unit::Nanoseconds,
            2_090_000.0 * factor,
        ));
        for (name, median) in phases {
            run.cases.push(case(
                numbers,
                group,
                &format!("phase: {name}"),
                "one phase of a start",
                Unit::Nanoseconds,
                median * factor,
            ));
        }
    }
    run.cases.push(case(
        numbers,
        "memory",
        "PSS of an idle guest",
        "proportional set size",
        Unit::Bytes,
        1_500_000.0,
    ));
    run
}

/// A run of many instances.
pub(crate) fn density() -> Run {
    let mut run = Run::begin(Kind::Density, Machine::Kvm, 1);
    let numbers = &mut Numbers(9);
    for count in [1u32, 10, 100, 500, 1000] {
        let grown = 1.0 + f64::from(count) / 2500.0;
        let group = format!("{count} instances");
        let cases = [
            (
                "start",
                "from exec until the guest runs",
                Unit::Nanoseconds,
                9e6 * grown,
            ),
            (
                "PSS",
                "proportional set size of its processes",
                Unit::Bytes,
                1.9e6 / grown,
            ),
            ("slab, unreclaimable", "memory of the kernel", Unit::Bytes, 4e5),
        ];
        for (name, what, unit, median) in cases {
            run.cases.push(case(numbers, &group, name, what, unit, median));
        }
    }
    run
}
