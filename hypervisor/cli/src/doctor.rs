//! `chiton doctor`: what this machine offers, what will work, and what to do about the rest.

mod jail;
pub(crate) mod store;

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

use chiton_kvm::platform::{self, DEV_KVM, Idle, InterruptSupport, KvmKind};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Limited,
    Missing,
}

/// One line of the report.
#[derive(Debug)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What it means or what to do, where it is not good.
    advice: &'static str,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.state {
            State::Good => "ok",
            State::Limited => "--",
            State::Missing => "no",
        };
        write!(f, "{mark:<3} {:<16} {}", self.name, self.found)?;
        if self.state != State::Good && !self.advice.is_empty() {
            write!(f, "\n    {:<16} → {}", "", self.advice)?;
        }
        Ok(())
    }
}

/// Prints the report; true if guests run on this machine without an emulator.
pub(crate) fn run() -> Result<bool, Box<dyn Error>> {
    let kvm = kvm();
    let usable = kvm.state != State::Missing;
    let machine = [
        processor(),
        virtualization(),
        kvm,
        ring_0(usable),
        interrupts(),
        idle(usable),
        nested(),
        cgroup(),
        user_namespaces(),
        overlay(),
    ];
    let rest = [tap(), io_uring(), qemu()];
    let checks = machine.into_iter().chain(jail::checks()).chain(rest);
    let mut text: String = checks.map(|check| format!("{check}\n")).collect();
    text += if usable {
        "\nGuests run here: try `chiton run GUEST`.\n"
    } else {
        "\nGuests do not run here directly; `cargo xtask run --in qemu` brings a machine in which they do.\n"
    };
    crate::say(&text)?;
    Ok(usable)
}

fn processor() -> Check {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find(|l| l.starts_with("model name"))
        .and_then(|l| l.split_once(':'));
    let count = info.lines().filter(|l| l.starts_with("processor")).count();
    let name = name.map_or("unknown", |(_, name)| name.trim());
    Check {
        name: "processor",
        state: State::Good,
        found: format!("{name}, {count} logical"),
        advice: "",
    }
}

fn virtualization() -> Check {
    let flags = platform::cpu_flags();
    let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
    let (state, found) = match (has("vmx"), has("svm"), has("hypervisor")) {
        (true, _, _) => (State::Good, "Intel VMX"),
        (_, true, _) => (State::Good, "AMD SVM"),
        (_, _, true) => (State::Limited, "neither VMX nor SVM: this is itself a virtual machine"),
        _ => (State::Missing, "neither VMX nor SVM"),
    };
    let advice = "enable virtualization in the firmware, or nested virtualization in the outer hypervisor";
    Check {
        name: "VMX or SVM",
        state,
        found: found.into(),
        advice,
    }
}

fn kvm() -> Check {
    match platform::open_kvm(Path::new(DEV_KVM)) {
        Ok(_) => {
            let kind = KvmKind::detect();
            let state = if kind.runs_ring_0() {
                State::Good
            } else {
                State::Limited
            };
            let advice = "guests in ring 3 (the default) run at full speed; exits cost 10 to 40 µs";
            Check {
                name: DEV_KVM,
                state,
                found: kind.describe().into(),
                advice,
            }
        }
        Err(error) => Check {
            name: DEV_KVM,
            state: State::Missing,
            found: error.to_string(),
            advice: "",
        },
    }
}

fn ring_0(usable: bool) -> Check {
    let (state, found) = match (usable, KvmKind::detect().runs_ring_0()) {
        (true, true) => (State::Good, "runs at full speed"),
        (true, false) => (State::Limited, "interpreted, 1 to 3 µs an instruction, no SSE"),
        (false, _) => (State::Missing, "no KVM"),
    };
    Check {
        name: "ring 0 guests",
        state,
        found: found.into(),
        advice: "leave guests in ring 3",
    }
}

fn interrupts() -> Check {
    let support = platform::open_kvm(Path::new(DEV_KVM)).map(|kvm| InterruptSupport::of(&kvm));
    let (state, found) = match support {
        Err(_) => (State::Missing, "no KVM".into()),
        Ok(support) => {
            let parts = [
                ("split irqchip", support.irqchip),
                ("irqfd", support.irqfd),
                ("x2APIC", support.x2apic),
                ("TSC-deadline timer", support.tsc_deadline),
            ];
            let (there, missing): (Vec<_>, Vec<_>) = parts.iter().partition(|(_, there)| *there);
            let names = |list: Vec<&(&str, bool)>| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            if missing.is_empty() {
                (State::Good, names(there))
            } else {
                (State::Limited, format!("this KVM lacks {}", names(missing)))
            }
        }
    };
    Check {
        name: "interrupts",
        state,
        found,
        advice: "guests that need interrupts are refused, others run",
    }
}

fn idle(usable: bool) -> Check {
    let (state, found) = match (usable, KvmKind::detect().idle()) {
        (false, _) => (State::Missing, "no KVM"),
        (true, Idle::Halt) => (State::Good, "`hlt`: an interrupt ends it in the kernel"),
        (true, Idle::Doorbell) => (
            State::Limited,
            "the doorbell WAIT: `hlt` is interpreted here, and interrupts do not end it reliably",
        ),
    };
    Check {
        name: "idle",
        state,
        found: found.into(),
        advice: "nothing to do: guests with interrupts wait in the host, as all others do",
    }
}

fn nested() -> Check {
    let read = |module: &str| fs::read_to_string(format!("/sys/module/{module}/parameters/nested")).ok();
    let enabled = ["kvm_intel", "kvm_amd"]
        .iter()
        .filter_map(|m| read(m))
        .any(|v| matches!(v.trim(), "Y" | "1"));
    let (state, found) = if enabled {
        (State::Good, "yes: QEMU can run KVM inside at hardware speed")
    } else {
        (
            State::Limited,
            "no: QEMU emulates the processor (SVM), 10 to 100 times slower",
        )
    };
    Check {
        name: "nested",
        state,
        found: found.into(),
        advice: "on hardware KVM: modprobe -r kvm_intel && modprobe kvm_intel nested=1 (or kvm_amd)",
    }
}

fn cgroup() -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let v1 = Path::new("/sys/fs/cgroup/memory").exists();
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    let (state, found) = match (unified, v1, hybrid) {
        (true, _, _) => (State::Good, "version 2 (unified)"),
        (_, true, true) => (
            State::Limited,
            "version 1, with an empty version 2 hierarchy beside it (hybrid)",
        ),
        (_, true, false) => (State::Limited, "version 1"),
        _ => (State::Missing, "none mounted"),
    };
    Check {
        name: "cgroup",
        state,
        found: found.into(),
        advice: "limits and accounting of instances will differ",
    }
}

fn user_namespaces() -> Check {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let clone = fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_else(|_| "1".into());
    let (state, found) = match (limit.trim().parse::<u64>().unwrap_or(0), clone.trim()) {
        (0, _) => (State::Missing, "disabled".into()),
        (n, "0") => (State::Limited, format!("for root only, up to {n}")),
        (n, _) => (State::Good, format!("up to {n}")),
    };
    let advice = "sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1";
    Check {
        name: "user namespaces",
        state,
        found,
        advice,
    }
}

fn overlay() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let here = known.split_ascii_whitespace().any(|name| name == "overlay");
    let (state, found) = if here {
        (State::Good, "in the kernel")
    } else {
        (State::Limited, "not loaded")
    };
    Check {
        name: "overlay",
        state,
        found: found.into(),
        advice: "modprobe overlay",
    }
}

fn tap() -> Check {
    let (state, found) = match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => (State::Good, "/dev/net/tun opens".into()),
        Err(error) => (State::Missing, format!("/dev/net/tun: {error}")),
    };
    Check {
        name: "TAP",
        state,
        found,
        advice: "modprobe tun; adding interfaces needs CAP_NET_ADMIN",
    }
}

fn io_uring() -> Check {
    let (state, found) = match chiton_kvm::try_io_uring() {
        Ok(()) => (State::Good, "disks leave requests to the kernel".into()),
        Err(error) => (State::Limited, format!("{error}: disks do one request after the other")),
    };
    Check {
        name: "io_uring",
        state,
        found,
        advice: "Linux 5.6 or later, sysctl kernel.io_uring_disabled=0, and no seccomp filter against it",
    }
}

fn qemu() -> Check {
    let (state, found) = match jail::installed("qemu-system-x86_64") {
        Some(file) => (State::Good, file.display().to_string()),
        None => (State::Limited, "not installed".into()),
    };
    Check {
        name: "QEMU",
        state,
        found,
        advice: "only needed for `cargo xtask run --in qemu`, which installs it as root",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_shows_only_where_something_is_not_good() {
        let check = |state| {
            Check {
                name: "x",
                state,
                found: "y".into(),
                advice: "do z",
            }
            .to_string()
        };
        assert!(!check(State::Good).contains("do z"));
        assert!(check(State::Limited).contains("→ do z") && check(State::Missing).starts_with("no "));
    }
}
