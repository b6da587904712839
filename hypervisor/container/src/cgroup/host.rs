//! Which hierarchies this host has, where they are mounted, and where in them this process is.
//!
//! Read from `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)), never guessed:
//! distributions mount them in different places, and containers see a part of the tree. Where all of them are mounted
//! whole at the usual places, by which most go, the list of mounts need not be read: the kernel writes it anew for each
//! reader, which takes longer than to look at them.

use std::path::{Path, PathBuf};

use rustix::fs::{Stat, stat, statfs};

use super::controller::{Controller, Version};
use super::error::{Error, Result};
use super::file;

/// About as many bytes as there are of mounts.
const MOUNTS: usize = 4096;

/// Where distributions mount v2, or have a folder for each hierarchy of v1, by the names of its controllers.
const USUAL: &str = "/sys/fs/cgroup";

/// How a host arranges its hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Cgroup v2 alone.
    Unified,
    /// Cgroup v1 alone.
    Legacy,
    /// v1 controllers, and a v2 hierarchy beside them.
    Hybrid,
}

/// One mounted tree of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which interface it has.
    pub version: Version,
    /// The controllers it has.
    pub controllers: Vec<Controller>,
    /// Where its top, or the part of it that this process may see, is mounted.
    pub top: PathBuf,
    /// The directory of this process's own cgroup; none if that is outside of the mounted part.
    pub own: Option<PathBuf>,
}

/// The hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// v2 first.
    pub hierarchies: Vec<Hierarchy>,
}

impl Host {
    /// Looks at this process's mounts and cgroups.
    pub fn read() -> Result<Self> {
        let own = file::read(Path::new("/proc/self/cgroup"))?;
        if let Some(host) = Self::usual(&own, version_at) {
            return Ok(host);
        }
        let mounts = file::read_of(MOUNTS, Path::new("/proc/self/mountinfo"))?;
        Self::parse(&mounts, &own)
    }

    /// The same of the text of `/proc/self/cgroup` alone, if each hierarchy in it is [whole](version_at) at its usual place.
    fn usual(cgroup: &str, version_at: impl Fn(&Path) -> Option<Version>) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        // The one that was mounted last is in the first line.
        for line in cgroup.lines().rev() {
            let mut fields = line.splitn(3, ':');
            let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let unified = id == "0" && names.is_empty();
            let top = match unified {
                true => [USUAL, "/sys/fs/cgroup/unified"]
                    .map(Path::new)
                    .into_iter()
                    .find(|place| version_at(place) == Some(Version::V2))?
                    .to_owned(),
                false => Path::new(USUAL).join(names),
            };
            let (version, controllers) = match unified {
                true => {
                    let all = file::read(&top.join("cgroup.controllers")).ok()?;
                    (Version::V2, named(&all, ' ', Version::V2))
                }
                false => (Version::V1, named(names, ',', Version::V1)),
            };
            if version == Version::V1 {
                if controllers.is_empty() {
                    continue;
                }
                version_at(&top).filter(|there| *there == Version::V1)?;
            }
            let own = below(Path::new(path), Path::new("/")).map(|below| top.join(below));
            hierarchies.push(Hierarchy {
                version,
                controllers,
                top,
                own,
            });
        }
        Self::of(hierarchies).ok()
    }

    /// The same of the text of `/proc/PID/mountinfo` and `/proc/PID/cgroup`.
    pub fn parse(mountinfo: &str, cgroup: &str) -> Result<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let controllers = match mount.version {
                Version::V2 => named(&file::read(&mount.point.join("cgroup.controllers"))?, ' ', Version::V2),
                Version::V1 => named(&mount.options, ',', Version::V1),
            };
            // `name=systemd` and the like: a v1 hierarchy that only sorts processes.
            let useless = mount.version == Version::V1 && controllers.is_empty();
            // The same tree again, mounted in some other place too.
            let again = hierarchies
                .iter()
                .any(|seen| seen.version == mount.version && seen.controllers == controllers);
            if useless || again {
                continue;
            }
            let own = own_path(cgroup, mount.version, &controllers)
                .and_then(|path| below(&path, &mount.root))
                .map(|below| mount.point.join(below));
            hierarchies.push(Hierarchy {
                version: mount.version,
                controllers,
                top: mount.point,
                own,
            });
        }
        Self::of(hierarchies)
    }

    fn of(mut hierarchies: Vec<Hierarchy>) -> Result<Self> {
        if hierarchies.is_empty() {
            return Err(Error::NoHierarchy);
        }
        hierarchies.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
        Ok(Self { hierarchies })
    }

    /// How they are arranged.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let has = |version| self.hierarchies.iter().any(|hierarchy| hierarchy.version == version);
        match (has(Version::V2), has(Version::V1)) {
            (true, true) => Layout::Hybrid,
            (true, false) => Layout::Unified,
            (false, _) => Layout::Legacy,
        }
    }

    /// The hierarchy that has a controller.
    #[must_use]
    pub fn hierarchy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.contains(&controller))
    }
}

/// Which version is mounted there, if the top of its tree is: a part of it, as containers have, has another number.
fn version_at(place: &Path) -> Option<Version> {
    /// `KERNFS_ROOT_INO`: of the top of each tree since Linux 5.5.
    const TOP: u64 = 1;
    let version = match statfs(place).ok()?.f_type.cast_unsigned() {
        0x6367_7270 => Version::V2,
        0x0027_e0eb => Version::V1,
        _ => return None,
    };
    stat(place)
        .is_ok_and(|Stat { st_ino, .. }| st_ino == TOP)
        .then_some(version)
}

/// The path of a cgroup below the root of a mount, unless it is outside.
fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(root).ok()?;
    let is_inside = !below.components().any(|part| part == std::path::Component::ParentDir);
    is_inside.then(|| below.to_owned())
}

fn named(names: &str, separator: char, version: Version) -> Vec<Controller> {
    names
        .trim()
        .split(separator)
        .filter_map(|name| Controller::named(name, version))
        .collect()
}

/// The path in `/proc/self/cgroup` for a hierarchy: lines of `ID:CONTROLLERS:PATH`.
fn own_path(cgroup: &str, version: Version, controllers: &[Controller]) -> Option<PathBuf> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let this = match version {
            Version::V2 => id == "0" && names.is_empty(),
            Version::V1 => named(names, ',', Version::V1)
                .iter()
                .any(|name| controllers.contains(name)),
        };
        this.then(|| PathBuf::from(path))
    })
}

/// A line of mountinfo that is a cgroup mount.
struct Mount {
    version: Version,
    root: PathBuf,
    point: PathBuf,
    options: String,
}

impl Mount {
    /// `ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS` (proc(5)).
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup2" => Version::V2,
            "cgroup" => Version::V1,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        Some(Self {
            version,
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            options: kind.nth(1).unwrap_or_default().to_owned(),
        })
    }
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::file::fixture;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 /docker/ab /sys/fs/cgroup/blk\\040io rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";
    const OWN: &str = "9:name=systemd:/\n7:blkio:/docker/ab/c\n4:memory:/a:b\n2:cpu,cpuacct:/\n";

    #[test]
    fn a_v1_host_is_found_by_its_mounts() {
        let host = Host::parse(V1, OWN).unwrap();
        assert_eq!(host.layout(), Layout::Legacy);
        assert_eq!(host.hierarchies.len(), 3);
        let cpu = host.hierarchy(Controller::Cpuacct).unwrap();
        assert_eq!(cpu.controllers, [Controller::Cpu, Controller::Cpuacct]);
        let memory = host.hierarchy(Controller::Memory).unwrap();
        assert_eq!(memory.own.as_deref(), Some(Path::new("/sys/fs/cgroup/memory/a:b")));
        let io = host.hierarchy(Controller::Io).unwrap();
        assert_eq!(io.own.as_deref(), Some(Path::new("/sys/fs/cgroup/blk io/c")));
        assert_eq!(host.hierarchy(Controller::Pids), None);
    }

    #[test]
    fn a_v2_host_is_found_by_its_mount() {
        let top = fixture(
            "unified",
            &[("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")],
        );
        let mounts = format!(
            "29 23 0:26 / {} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            top.display()
        );
        let host = Host::parse(&mounts, "0::/user.slice/user-1000.slice/session-1.scope\n").unwrap();
        assert_eq!(host.layout(), Layout::Unified);
        let [hierarchy] = host.hierarchies.as_slice() else {
            panic!("{host:?}")
        };
        assert_eq!(hierarchy.controllers.len(), 5);
        assert_eq!(
            hierarchy.own,
            Some(top.join("user.slice/user-1000.slice/session-1.scope"))
        );
    }

    #[test]
    fn a_hybrid_host_has_its_v2_hierarchy_first() {
        let top = fixture("hybrid", &[("cgroup.controllers", "\n")]);
        let mounts = format!("{V1}41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", top.display());
        let host = Host::parse(&mounts, &format!("{OWN}0::/\n")).unwrap();
        assert_eq!(host.layout(), Layout::Hybrid);
        assert_eq!(host.hierarchies[0].version, Version::V2);
        assert!(host.hierarchies[0].controllers.is_empty());
    }

    #[test]
    fn what_is_at_its_usual_place_is_found_without_the_list_of_mounts() {
        let whole = |places: &[&str]| {
            let places: Vec<_> = places.iter().map(|place| Path::new(USUAL).join(place)).collect();
            Host::usual(OWN, |place| places.iter().any(|p| p == place).then_some(Version::V1))
        };
        let host = whole(&["cpu,cpuacct", "memory", "blkio"]).unwrap();
        let listed = Host::parse(
            &V1.replace("/docker/ab /sys/fs/cgroup/blk\\040io", "/ /sys/fs/cgroup/blkio"),
            OWN,
        );
        assert_eq!(host, listed.unwrap());
        // A part of a tree, or none, is looked for in the list.
        assert_eq!(whole(&["cpu,cpuacct", "memory"]), None);
        assert_eq!(Host::usual("0::/\n", |_| None), None);
        assert_eq!(Host::usual("no:cgroups", |_| Some(Version::V1)), None);
    }

    #[test]
    fn this_host_is_the_same_by_its_places_and_by_its_mounts() {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        if let Some(host) = Host::usual(&own, version_at) {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert_eq!(host, Host::parse(&mounts, &own).unwrap());
        }
    }

    #[test]
    fn a_cgroup_outside_the_namespace_is_nobodys_own() {
        let host = Host::parse(V1, "4:memory:/../x\n7:blkio:/elsewhere\n").unwrap();
        assert_eq!(host.hierarchy(Controller::Memory).unwrap().own, None);
        assert_eq!(host.hierarchy(Controller::Io).unwrap().own, None);
    }

    #[test]
    fn a_host_without_cgroups_is_told_what_to_mount() {
        let error = Host::parse("23 1 254:0 / / rw - ext4 /dev/vda rw\n", "0::/\n").unwrap_err();
        assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(mounts in "[ -~\n]{0,300}", own in "[ -~\n]{0,100}") {
            let _ = Host::parse(&mounts, &own);
        }

        #[test]
        fn an_escaped_path_comes_back(path in "/[a-z \t\\\\]{0,30}") {
            let escaped: String = path.chars().map(|c| match c {
                ' ' | '\t' | '\\' => format!("\\{:03o}", c as u32),
                c => c.to_string(),
            }).collect();
            prop_assert_eq!(unescaped(&escaped), PathBuf::from(path));
        }
    }
}
