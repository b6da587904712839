use std::collections::BTreeMap;

use super::folder;
use crate::run::Fact;

/// The modules that there are of KVM, by what is below `/sys/module`: a module that is built in is there too.
fn modules() -> Vec<String> {
    let modules = std::fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let mut names: Vec<_> = modules
        .filter_map(|module| module.file_name().into_string().ok())
        .filter(|name| name == "kvm" || name.starts_with("kvm_"))
        .take(16)
        .collect();
    names.sort();
    names
}

/// The module that drives the processor.
pub(super) fn module() -> Fact {
    let modules = modules();
    let drivers: Vec<_> = modules
        .iter()
        .filter(|name| *name != "kvm")
        .map(String::as_str)
        .collect();
    match (drivers.is_empty(), modules.is_empty()) {
        (false, _) => Fact::Known(drivers.join(", ")),
        (true, false) => Fact::Absent("KVM without a module for this processor".into()),
        (true, true) => Fact::Absent("no KVM in /sys/module".into()),
    }
}

/// Parameters of all of them, as `kvm.halt_poll_ns`.
pub(super) fn parameters() -> BTreeMap<String, Fact> {
    let mut all = BTreeMap::new();
    for module in modules() {
        let parameters = folder(&format!("/sys/module/{module}/parameters"));
        all.extend(
            parameters
                .into_iter()
                .map(|(name, fact)| (format!("{module}.{name}"), fact)),
        );
    }
    all
}
