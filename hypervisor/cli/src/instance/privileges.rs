//! What the process of an instance may do, as the kernel has it: `/proc/PID/status`, `limits` and `timens_offsets`
//! (proc(5), time_namespaces(7)).

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::top;

/// The lines of `/proc/PID/limits`, by the names that setrlimit(2) has for them.
const RESOURCES: [(&str, &str); 16] = [
    ("Max cpu time", "cpu"),
    ("Max file size", "fsize"),
    ("Max data size", "data"),
    ("Max stack size", "stack"),
    ("Max core file size", "core"),
    ("Max resident set", "rss"),
    ("Max processes", "nproc"),
    ("Max open files", "nofile"),
    ("Max locked memory", "memlock"),
    ("Max address space", "as"),
    ("Max file locks", "locks"),
    ("Max pending signals", "sigpending"),
    ("Max msgqueue size", "msgqueue"),
    ("Max nice priority", "nice"),
    ("Max realtime priority", "rtprio"),
    ("Max realtime timeout", "rttime"),
];

/// The sets of capabilities, as `/proc/PID/status` calls them, and in words.
const SETS: [(&str, &str); 5] = [
    ("CapInh", "inheritable"),
    ("CapPrm", "permitted"),
    ("CapEff", "effective"),
    ("CapBnd", "bounding"),
    ("CapAmb", "ambient"),
];

/// What the payload of a jail may do whose process 1 the host numbers so; `None` if it has ended. What a minder minds is
/// its first child.
pub(super) fn of(process: u32) -> Option<Value> {
    let payload = top::with_children(process).get(1).copied().unwrap_or(process);
    let folder = Path::new("/proc").join(payload.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let mut all = privileges(&status);
    let limits = fs::read_to_string(folder.join("limits")).ok()?;
    all.insert("limits".into(), Value::Object(rlimits(&limits)));
    // A kernel without time namespaces has none.
    let clocks = fs::read_to_string(folder.join("timens_offsets")).ok();
    all.insert(
        "clocks".into(),
        clocks.map_or(Value::Null, |text| Value::Object(offsets(&text))),
    );
    let threads = fs::read_dir(folder.join("task")).ok()?.flatten();
    let threads = threads.filter_map(|task| thread(&fs::read_to_string(task.path().join("status")).ok()?));
    all.insert("threads".into(), Value::Array(threads.collect()));
    all.insert("process".into(), json!(payload));
    Some(Value::Object(all))
}

/// What is behind the name of a line.
fn line<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

fn number(status: &str, name: &str) -> Option<u64> {
    line(status, name)?.parse().ok()
}

fn privileges(status: &str) -> Map<String, Value> {
    let capabilities: Map<_, _> = SETS
        .iter()
        .map(|(name, words)| ((*words).to_owned(), json!(line(status, name))))
        .collect();
    let first = |name| line(status, name).and_then(|ids| ids.split_whitespace().next()?.parse::<u32>().ok());
    let all = json!({
        "user": first("Uid"),
        "group": first("Gid"),
        "capabilities": capabilities,
        "no_new_privs": number(status, "NoNewPrivs").map(|flag| flag == 1),
        "seccomp": mode(status),
        "seccomp_filters": number(status, "Seccomp_filters"),
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// The mode of seccomp (seccomp(2)).
fn mode(status: &str) -> Option<&'static str> {
    Some(match number(status, "Seccomp")? {
        0 => "off",
        1 => "strict",
        _ => "filter",
    })
}

fn thread(status: &str) -> Option<Value> {
    Some(json!({
        "name": line(status, "Name")?,
        "seccomp": mode(status),
        "seccomp_filters": number(status, "Seccomp_filters"),
    }))
}

fn rlimits(text: &str) -> Map<String, Value> {
    let limit = |(words, name): &(&str, &str)| {
        let mut values = text
            .lines()
            .find_map(|line| line.strip_prefix(words))?
            .split_whitespace();
        Some((
            (*name).to_owned(),
            json!({ "soft": values.next()?, "hard": values.next()? }),
        ))
    };
    RESOURCES.iter().filter_map(limit).collect()
}

/// The seconds that are added to each clock.
fn offsets(text: &str) -> Map<String, Value> {
    let offset = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), json!(words.next()?.parse::<i64>().ok()?)))
    };
    text.lines().filter_map(offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_privileges() {
        let all = of(std::process::id()).expect("it runs");
        assert!(
            all["capabilities"]["effective"]
                .as_str()
                .is_some_and(|set| set.len() == 16),
            "{all}"
        );
        assert!(all["limits"]["nofile"]["soft"].is_string(), "{all}");
        assert_eq!(all["limits"].as_object().map(Map::len), Some(RESOURCES.len()));
        assert!(all["threads"].as_array().is_some_and(|threads| !threads.is_empty()));
    }

    #[test]
    fn lines_are_found_by_their_whole_names() {
        let status = "Name:\ta b\nSeccomp:\t2\nSeccomp_filters:\t3\nNoNewPrivs:\t1\nUid:\t5\t6\t7\t8\n";
        let all = privileges(status);
        assert_eq!(
            (&all["seccomp"], &all["seccomp_filters"]),
            (&json!("filter"), &json!(3))
        );
        assert_eq!((&all["no_new_privs"], &all["user"]), (&json!(true), &json!(5)));
        assert_eq!(thread(status).expect("a name")["name"], "a b");
    }

    #[test]
    fn offsets_have_signs() {
        let offsets = offsets("monotonic           0         0\nboottime       -86400         0\n");
        assert_eq!(
            (&offsets["monotonic"], &offsets["boottime"]),
            (&json!(0), &json!(-86400))
        );
    }
}
