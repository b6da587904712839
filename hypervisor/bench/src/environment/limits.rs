use std::path::Path;

use chiton_container::cgroup::{Controller, Hierarchy, Host, Version};

use crate::run::Fact;

/// How much processor time and memory the cgroups of this process leave it.
pub(super) fn read() -> Fact {
    let host = match Host::read() {
        Ok(host) => host,
        Err(error) => return Fact::Absent(error.to_string()),
    };
    let found: Vec<_> = [cpu(&host), memory(&host)].into_iter().flatten().collect();
    match found.is_empty() {
        true => Fact::Known("none".into()),
        false => Fact::Known(found.join(", ")),
    }
}

/// The least quota on the way up, in processors.
fn cpu(host: &Host) -> Option<String> {
    let hierarchy = host.hierarchy(Controller::Cpu)?;
    let quotas = up(hierarchy).into_iter().filter_map(|folder| match hierarchy.version {
        Version::V2 => quota(&text(&folder, "cpu.max")?),
        Version::V1 => {
            let (quota_us, period) = (text(&folder, "cpu.cfs_quota_us")?, text(&folder, "cpu.cfs_period_us")?);
            quota(&format!("{} {}", quota_us.trim(), period.trim()))
        }
    });
    quotas
        .min_by(f64::total_cmp)
        .map(|quota| format!("{quota:.2} processors"))
}

/// Processors that `cpu.max` grants: a quota and a period in microseconds; nothing if there is no limit, which is
/// `max` on v2 and -1 on v1.
fn quota(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// The least limit of memory on the way up.
fn memory(host: &Host) -> Option<String> {
    let hierarchy = host.hierarchy(Controller::Memory)?;
    let name = match hierarchy.version {
        Version::V2 => "memory.max",
        Version::V1 => "memory.limit_in_bytes",
    };
    let limits = up(hierarchy)
        .into_iter()
        .filter_map(|folder| text(&folder, name)?.trim().parse::<u64>().ok());
    // On v1 no limit is the largest number of pages.
    let least = limits.min().filter(|bytes| *bytes < 1 << 62)?;
    Some(format!("{} MiB of memory", least >> 20))
}

/// The cgroup of this process, and what it is in.
fn up(hierarchy: &Hierarchy) -> Vec<std::path::PathBuf> {
    let own = hierarchy.own.as_deref().unwrap_or(&hierarchy.top);
    let folders = own.ancestors().take_while(|folder| folder.starts_with(&hierarchy.top));
    folders.map(Path::to_path_buf).collect()
}

fn text(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_of_processors() {
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("-1 100000"), None);
        assert_eq!(quota("1 0"), None);
    }
}
