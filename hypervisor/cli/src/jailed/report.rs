//! What `chiton inspect` shows of a jail, and what the next command needs to know of a dead one.

use chiton_container::cgroup::Cgroup;
use chiton_container::jail::{Enforced, Jail, Jailed};
use chiton_container::network::{Attached, Bridge};
use serde_json::{Map, Value, json};

use super::options::{JailOptions, Network};

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

/// What is known before there is a process.
pub(super) fn facts(
    jail: &Jail,
    cgroup: Option<&Cgroup>,
    network: Option<&Attached>,
    bridge: Option<&Bridge>,
    options: &JailOptions,
) -> Map<String, Value> {
    let extents = |list: &[chiton_container::jail::Extent]| -> Vec<Value> {
        let extent =
            |e: &chiton_container::jail::Extent| json!({ "inside": e.inside, "outside": e.outside, "count": e.count });
        list.iter().map(extent).collect()
    };
    let mut net = json!({ "mode": mode(&options.network), "ports": options.publish });
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
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
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
