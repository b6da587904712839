//! What `chiton inspect` shows of a jail, and what the next command needs to know of a dead one.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use chiton_container::cgroup::Cgroup;
use chiton_container::instance::Instance;
use chiton_container::jail::{Enforced, Jail, Jailed};
use chiton_container::network::{Attached, Bridge};
use serde_json::{Map, Value, json};

use super::options::Network;
use crate::options::RunOptions;

/// Where there may be sockets of the instance, besides that in its folder.
pub(super) const SOCKETS: &str = "sockets";

fn mode(network: &Network) -> String {
    match network {
        Network::None => "none".into(),
        Network::Host => "host".into(),
        Network::Bridge => "bridge".into(),
        Network::User => "user".into(),
        Network::Of(instance) => format!("container:{instance}"),
    }
}

/// What is written down before anything is made.
pub(super) fn begun(network: &Network, bridge: &str) -> Value {
    json!({ "network": { "mode": mode(network), "bridge": bridge } })
}

/// Whether there may be sockets besides that in the instance's folder.
pub(super) fn has_sockets(options: &RunOptions) -> bool {
    options.vsock.is_some() || options.control.is_some() || !options.port.is_empty()
}

/// Writes down as well where there may be sockets.
pub(super) fn add_sockets(instance: &Instance, options: &RunOptions) -> Result<(), Box<dyn Error>> {
    let sockets = sockets(options)?;
    let mut report = match instance.report()? {
        Value::Object(report) => report,
        _ => Map::new(),
    };
    report.insert(SOCKETS.into(), json!(sockets));
    Ok(instance.set_report(&Value::Object(report))?)
}

/// Where there may be sockets: a port is one only if nothing else is there.
fn sockets(options: &RunOptions) -> io::Result<Vec<PathBuf>> {
    let vsock = options.vsock.as_ref().map(|vsock| &vsock.path);
    let ports = options.port.iter().map(|port| &port.path);
    let paths = ports.chain(&options.control).chain(vsock);
    paths.map(|path| std::path::absolute::<&Path>(path)).collect()
}

/// What is known before there is a process.
pub(super) fn facts(
    jail: &Jail,
    cgroup: Option<&Cgroup>,
    network: Option<&Attached>,
    bridge: Option<&Bridge>,
    options: &RunOptions,
) -> io::Result<Map<String, Value>> {
    let extents = |list: &[chiton_container::jail::Extent]| -> Vec<Value> {
        let extent =
            |e: &chiton_container::jail::Extent| json!({ "inside": e.inside, "outside": e.outside, "count": e.count });
        list.iter().map(extent).collect()
    };
    let mut net = json!({ "mode": mode(&options.jail.network), "ports": options.jail.publish });
    if let Some(bridge) = bridge {
        net["bridge"] = json!(bridge.name());
    }
    if let Some(attached) = network {
        net["hosts"] = json!(attached.hosts);
        net["address"] = json!(attached.address);
        net["gateway"] = json!(attached.gateway);
        net["subnet"] = json!(attached.subnet);
        net["namespace"] = json!(
            attached
                .namespace
                .as_ref()
                .and_then(|namespace| namespace.number().ok())
        );
        net["mac"] = json!(attached.mac.map(|byte| format!("{byte:02x}")).join(":"));
    }
    let scratch = jail.root.scratch.as_ref();
    let facts = json!({
        "hostname": jail.hostname,
        "cgroup": cgroup.map(|cgroup| cgroup.paths().collect::<Vec<_>>()),
        "root": {
            "lower": jail.root.layers,
            "upper": scratch.map(|scratch| scratch.join("upper")),
            "work": scratch.map(|scratch| scratch.join("work")),
            "read_only": jail.root.read_only,
        },
        "volumes": jail.root.volumes.iter().map(|volume| json!({
            "host": volume.host, "guest": volume.guest, "read_only": volume.read_only,
        })).collect::<Vec<_>>(),
        "users": extents(&jail.ids.users),
        "groups": extents(&jail.ids.groups),
        "network": net,
    });
    let Value::Object(mut facts) = facts else {
        return Ok(Map::new());
    };
    if has_sockets(options) {
        facts.insert(SOCKETS.into(), json!(sockets(options)?));
    }
    Ok(facts)
}

/// The same, with what the process itself found.
pub(super) fn whole(mut facts: Map<String, Value>, jailed: &Jailed) -> Value {
    let namespaces = jailed
        .namespaces()
        .into_iter()
        .map(|(kind, number)| (kind.name().to_owned(), json!(number)));
    facts.insert("namespaces".into(), Value::Object(namespaces.collect()));
    let landlock = match jailed.landlock() {
        Enforced::Off => "off",
        Enforced::Nothing => "this kernel has none",
        Enforced::Partly => "partly: this kernel has an older one",
        Enforced::Fully => "fully",
    };
    facts.insert("landlock".into(), json!(landlock));
    Value::Object(facts)
}
