use super::file;
use crate::run::Fact;

/// A field of the first processor in `/proc/cpuinfo`.
pub(super) fn field(info: &Fact, name: &str) -> Fact {
    let Fact::Known(text) = info else { return info.clone() };
    let value = text.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim())
    });
    match value {
        Some(value) if !value.is_empty() => Fact::Known(value.into()),
        _ => Fact::Absent(format!("/proc/cpuinfo has no {name:?}")),
    }
}

/// How many processors there are, and which of them this process may use.
pub(super) fn processors(info: &Fact) -> Fact {
    if let Fact::Absent(_) = info {
        return info.clone();
    }
    let online = file("/sys/devices/system/cpu/online");
    let status = file("/proc/self/status");
    let allowed = status
        .known()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")))
        .map(str::trim);
    match (online, allowed) {
        (Fact::Known(online), Some(allowed)) => Fact::Known(format!("{online} online, {allowed} allowed")),
        (Fact::Known(online), None) => Fact::Known(format!("{online} online")),
        (absent, _) => absent,
    }
}

/// Whether two processors share a core.
pub(super) fn smt() -> Fact {
    match file("/sys/devices/system/cpu/smt/active") {
        Fact::Known(active) if active == "1" => Fact::Known("active".into()),
        Fact::Known(_) => Fact::Known("not active".into()),
        absent => absent,
    }
}

/// Whether this machine is a guest itself, and whether it offers VMX or SVM: by the flags that Linux shows of
/// CPUID. A hypervisor that hides from CPUID is not seen.
pub(super) fn nested(info: &Fact) -> Fact {
    let flags = field(info, "flags");
    let Fact::Known(flags) = &flags else { return flags };
    let has = |name| flags.split_whitespace().any(|flag| flag == name);
    let offered = match (has("vmx"), has("svm")) {
        (true, _) => "VMX offered",
        (_, true) => "SVM offered",
        _ => "neither VMX nor SVM offered",
    };
    Fact::Known(match has("hypervisor") {
        true => format!("in a virtual machine, {offered}"),
        false => format!("on the machine itself, {offered}"),
    })
}

/// Which processors the scheduler leaves alone, and which have no tick.
pub(super) fn isolated() -> Fact {
    let isolated = std::fs::read_to_string("/sys/devices/system/cpu/isolated");
    let tickless = std::fs::read_to_string("/sys/devices/system/cpu/nohz_full");
    let words = |list: &str| match list.trim() {
        "" | "(null)" => "none".to_owned(),
        list => list.to_owned(),
    };
    match isolated {
        Ok(list) => Fact::Known(match tickless {
            Ok(tickless) => format!("{}, without a tick {}", words(&list), words(&tickless)),
            Err(_) => words(&list),
        }),
        Err(error) => Fact::Absent(format!("/sys/devices/system/cpu/isolated: {error}")),
    }
}

/// The three load averages.
pub(super) fn load() -> Fact {
    match file("/proc/loadavg") {
        Fact::Known(text) => Fact::Known(text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
        absent => absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(flags: &str) -> Fact {
        Fact::Known(format!(
            "processor\t: 0\nmodel name\t: Some CPU: with a colon\nflags\t\t: {flags}\n"
        ))
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(
            field(&info("fpu"), "model name"),
            Fact::Known("Some CPU: with a colon".into())
        );
        assert!(field(&info("fpu"), "model").known().is_none());
        assert!(field(&info(""), "flags").known().is_none());
    }

    #[test]
    fn a_guest_and_what_it_is_offered_show_in_the_flags() {
        let words = |flags| nested(&info(flags)).to_string();
        assert_eq!(
            words("fpu hypervisor"),
            "in a virtual machine, neither VMX nor SVM offered"
        );
        assert_eq!(words("fpu svm hypervisor"), "in a virtual machine, SVM offered");
        assert_eq!(words("vmx"), "on the machine itself, VMX offered");
    }
}
