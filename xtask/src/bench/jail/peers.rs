//! What others take for an ordinary process that does nothing, from one root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::super::stats::Program;
use crate::{
    error::{Error, Result},
    tools,
};

/// The name of crun in the table.
pub(super) const CRUN: &str = "crun run /bin/true";
/// The name of what is to be taken off crun's time.
pub(super) const WAY: &str = "  of it at most, nsenter";

/// Where a host has cgroup v2 beside v1, which crun refuses.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A mount namespace without [`UNIFIED`], held by a process.
#[derive(Debug)]
pub(super) struct WithoutUnified(Child);

impl WithoutUnified {
    /// Makes one where the host has both versions.
    ///
    /// # Errors
    ///
    /// If it does not come to be.
    pub(super) fn new() -> Result<Option<Self>> {
        let is_mounted = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/mountinfo"))
                .is_ok_and(|mounts| mounts.contains(&format!(" {UNIFIED} ")))
        };
        if !is_mounted("self") {
            return Ok(None);
        }
        let mut hold = Command::new("unshare");
        hold.args(["--mount", "sh", "-c"]);
        hold.arg(format!("umount {UNIFIED} && exec sleep infinity"));
        let child = hold.stdin(Stdio::null()).spawn().map_err(|source| Error::Start {
            program: "unshare".into(),
            source,
        })?;
        let held = Self(child);
        let pid = held.0.id().to_string();
        let end = Instant::now() + Duration::from_secs(10);
        while is_mounted(&pid) {
            if Instant::now() > end {
                return Err(Error::Found(format!("{UNIFIED} cannot be unmounted in a namespace")));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(held))
    }

    /// This program in it.
    fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.0.id()))
            .arg(program);
        command
    }
}

impl Drop for WithoutUnified {
    fn drop(&mut self) {
        // It ends by itself if it was never there.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An OCI bundle whose root has `/bin/true`, a static program that does nothing.
#[derive(Debug)]
pub(super) struct Bundle(PathBuf);

impl Bundle {
    fn root(&self) -> PathBuf {
        self.0.join("rootfs")
    }
}

/// Makes the bundle.
///
/// # Errors
///
/// If it cannot be written.
pub(super) fn bundle(path: &Path, floor: &Path) -> Result<Bundle> {
    let bundle = Bundle(path.to_owned());
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        let folder = bundle.root().join(folder);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    }
    let program = bundle.root().join("bin/true");
    fs::copy(floor, &program).map_err(Error::file("write", &program))?;
    Ok(bundle)
}

/// `unshare` of the eight namespaces, and the same program.
pub(super) fn unshare(bundle: &Bundle) -> Command {
    let mut command = Command::new("unshare");
    for kind in ["mount", "uts", "ipc", "pid", "net", "user", "cgroup", "time"] {
        command.arg(format!("--{kind}"));
    }
    command
        .args(["--fork", "--map-root-user"])
        .arg(bundle.root().join("bin/true"))
        .arg("nothing");
    command
}

/// Those that are there or can be installed, and work; and why the others are missing.
pub(super) fn installed(bundle: &Bundle, beside: Option<&WithoutUnified>) -> (Vec<Program>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (name, program, package) in [
        (CRUN, "crun", "crun"),
        ("runc run /bin/true", "runc", "runc"),
        ("bubblewrap /bin/true", "bwrap", "bubblewrap"),
    ] {
        let made = tools::debian(program, package).and_then(|path| {
            let command = if program == "bwrap" {
                bubblewrap(&path, bundle)
            } else {
                let beside = beside.filter(|_| program == "crun");
                runtime(&path, bundle, beside)?
            };
            // One that does not work here must not end the measurement.
            let mut program = Program::new(name, command);
            program.time().map(|_| program)
        });
        match made {
            Ok(program) => {
                found.push(program);
                if let Some(beside) = beside.filter(|_| name == CRUN) {
                    let mut way = beside.enter(&bundle.root().join("bin/true"));
                    way.arg("nothing");
                    found.push(Program::new(WAY, way));
                }
            }
            Err(why) => missing.push(format!("{name}: not measured: {why}")),
        }
    }
    (found, missing)
}

fn bubblewrap(program: &Path, bundle: &Bundle) -> Command {
    let mut command = Command::new(program);
    command.args(["--unshare-all", "--unshare-user", "--ro-bind"]);
    command.arg(bundle.root()).arg("/");
    command.args(["--dev", "/dev", "--proc", "/proc", "/bin/true", "nothing"]);
    command
}

/// An OCI runtime, with the configuration that it proposes itself.
fn runtime(program: &Path, bundle: &Bundle, beside: Option<&WithoutUnified>) -> Result<Command> {
    let config = bundle.0.join("config.json");
    let _ = fs::remove_file(&config);
    let failed = |source| Error::Start {
        program: program.display().to_string(),
        source,
    };
    Command::new(program)
        .arg("spec")
        .current_dir(&bundle.0)
        .status()
        .map_err(failed)?;
    let proposed = fs::read_to_string(&config).map_err(Error::file("read", &config))?;
    let own = bundle.0.join(program.file_name().unwrap_or(program.as_os_str()));
    fs::create_dir_all(&own).map_err(Error::file("create", &own))?;
    let config = own.join("config.json");
    fs::write(&config, configured(&proposed, &bundle.root())).map_err(Error::file("write", &config))?;
    let mut command = beside.map_or_else(|| Command::new(program), |beside| beside.enter(program));
    command.arg("run").arg("--bundle").arg(&own);
    command.arg(format!("chiton-bench-{}", std::process::id()));
    Ok(command)
}

/// A proposed `config.json` (OCI runtime specification) for `/bin/true`, without a terminal.
fn configured(proposed: &str, root: &Path) -> String {
    proposed
        .replace(r#""terminal": true"#, r#""terminal": false"#)
        .replace(r#""sh""#, r#""/bin/true", "nothing""#)
        .replace(r#""rootfs""#, &format!("{:?}", root.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_configuration_is_changed_to_run_the_program_of_the_bundle() {
        let proposed = r#"{"process": {"terminal": true, "args": ["sh"]}, "root": {"path": "rootfs"}}"#;
        assert_eq!(
            configured(proposed, Path::new("/b/rootfs")),
            r#"{"process": {"terminal": false, "args": ["/bin/true", "nothing"]}, "root": {"path": "/b/rootfs"}}"#
        );
    }
}
