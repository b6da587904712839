//! How things are, collected from where they are.

use std::collections::BTreeMap;

use chiton_core::exits::{Cause, ExitTable};
use chiton_shared::virtio::id;

use super::protocol::{DeviceState, ProcessorState, State};
use crate::hub::Hub;

/// What people call a kind of device.
pub(crate) const fn kind(id: u32) -> &'static str {
    match id {
        id::NET => "network interface",
        id::BLOCK => "disk",
        id::CONSOLE => "console",
        id::ENTROPY => "entropy",
        id::BALLOON => "balloon",
        id::P9 => "folder",
        id::VSOCK => "sockets",
        _ => "device",
    }
}

/// Everything there is to tell.
pub(super) fn of(hub: &Hub) -> State {
    State {
        paused: hub.is_paused(),
        stop_requested: hub.was_asked_to_stop(),
        running_ms: u64::try_from(hub.running().as_millis()).unwrap_or(u64::MAX),
        kicks: hub.kicks_so_far(),
        processors: hub
            .exits()
            .into_iter()
            .map(|(number, table)| ProcessorState {
                number,
                exits: by_cause(&table),
            })
            .collect(),
        devices: devices(hub),
        balloon: hub.balloon().map(|(slot, balloon)| {
            let state = balloon.state();
            balloon.ask_for_statistics();
            hub.kicked(slot);
            state
        }),
    }
}

fn by_cause(table: &ExitTable) -> BTreeMap<String, u64> {
    let counts = Cause::ALL.iter().map(|cause| (cause.label(), table.get(*cause).exits));
    let occurred = counts.filter(|(_, exits)| *exits > 0);
    occurred.map(|(label, exits)| (label.to_owned(), exits)).collect()
}

fn devices(hub: &Hub) -> Vec<DeviceState> {
    let mut numbers = BTreeMap::new();
    let state = |slot| {
        hub.look_at(slot, |transport| {
            let number = numbers.entry(transport.id()).or_insert(0_usize);
            *number += 1;
            DeviceState {
                kind: kind(transport.id()).to_owned(),
                number: *number - 1,
                failures: transport.failures(),
                limits: transport.limits().map(Into::into),
                broken: transport.broken().map(ToString::to_string),
            }
        })
    };
    (0..hub.slots().len()).filter_map(state).collect()
}
