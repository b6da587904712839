//! OCI runtimes, with the configuration that they propose themselves.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{JAILS, Peer, Ready, ours, payload};
use crate::trial::{Result, TrialError};

/// crun.
pub const CRUN: Peer = Peer {
    name: "crun",
    group: JAILS,
    what: "crun run, of a bundle with the configuration that `crun spec` proposes, without a terminal",
    against: ours::PROCESS.name,
    prepare: |bed| {
        let program = bed.find("crun", "apt-get install crun")?;
        let beside = bed.beside.as_ref();
        let command = runtime(&program, &bed.bundle, beside)?;
        let mut ready = Ready::greets("crun", &program, command)?;
        ready.note = beside.map(|_| {
            format!("it refuses a host that has cgroup v2 beside v1, so nsenter leads it into a mount namespace without v2; `{}` is what that takes at most", WAY.name)
        });
        Ok(ready)
    },
};

/// runc.
pub const RUNC: Peer = Peer {
    name: "runc",
    group: JAILS,
    what: "runc run, of a bundle with the configuration that `runc spec` proposes, without a terminal",
    against: ours::PROCESS.name,
    prepare: |bed| {
        let program = bed.find("runc", "apt-get install runc")?;
        let command = runtime(&program, &bed.bundle, None)?;
        Ready::greets("runc", &program, command)
    },
};

/// What is part of crun's time, and not crun's.
pub const WAY: Peer = Peer {
    name: "nsenter, the way to crun",
    group: JAILS,
    what: "nsenter into another mount namespace, and the program there",
    against: ours::PROCESS.name,
    prepare: |bed| {
        let missing = || TrialError::Missing("this host has one version of cgroups: nobody is led anywhere".into());
        let program = bed.find("nsenter", "it is part of util-linux")?;
        let command = bed.beside.as_ref().ok_or_else(missing)?.enter(&bed.bundle.program());
        Ready::greets("nsenter", &program, command)
    },
};

/// Where a bundle's root has its program.
pub const PROGRAM: &str = "/bin/hello";

/// Where a host has cgroup v2 beside v1, which crun refuses.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A mount namespace without the unified hierarchy, held by a process.
#[derive(Debug)]
pub struct WithoutUnified(Child);

impl WithoutUnified {
    /// Makes one where the host has both versions.
    ///
    /// # Errors
    ///
    /// If it does not come to be.
    pub fn new() -> Result<Option<Self>> {
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
        let child = hold.stdin(Stdio::null()).spawn();
        let held = Self(child.map_err(TrialError::start(&hold))?);
        let pid = held.0.id().to_string();
        let end = Instant::now() + Duration::from_secs(10);
        while is_mounted(&pid) {
            if Instant::now() > end {
                return Err(TrialError::Found(format!(
                    "{UNIFIED} cannot be unmounted in a namespace"
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(held))
    }

    /// This program in it.
    #[must_use]
    pub fn enter(&self, program: &Path) -> Command {
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

/// An OCI bundle whose root has a static program that greets, and nothing else.
#[derive(Clone, Debug)]
pub struct Bundle(PathBuf);

impl Bundle {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn new(path: &Path) -> Result<Self> {
        let bundle = Self(path.to_owned());
        for folder in ["bin", "dev", "proc", "sys", "tmp"] {
            let folder = bundle.root().join(folder);
            fs::create_dir_all(&folder).map_err(TrialError::file("create", &folder))?;
        }
        let program = bundle.program();
        fs::write(&program, payload::program()).map_err(TrialError::file("write", &program))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .map_err(TrialError::file("write", &program))?;
        Ok(bundle)
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Where its program is, as the host sees it.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.root().join(PROGRAM.trim_start_matches('/'))
    }
}

/// An OCI runtime that is to run the bundle's program.
///
/// # Errors
///
/// If it proposes no configuration.
pub fn runtime(program: &Path, bundle: &Bundle, beside: Option<&WithoutUnified>) -> Result<Command> {
    let own = bundle.0.join(program.file_name().unwrap_or(program.as_os_str()));
    let config = own.join("config.json");
    fs::create_dir_all(&own).map_err(TrialError::file("create", &own))?;
    match fs::remove_file(&config) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(TrialError::file("remove", &config)(error));
        }
        _ => {}
    }
    crate::trial::answer(Command::new(program).arg("spec").current_dir(&own))?;
    let proposed = fs::read_to_string(&config).map_err(TrialError::file("read", &config))?;
    fs::write(&config, configured(&proposed, &bundle.root())).map_err(TrialError::file("write", &config))?;
    let mut command = beside.map_or_else(|| Command::new(program), |beside| beside.enter(program));
    command.arg("run").arg("--bundle").arg(&own);
    command.arg(format!("chiton-bench-{}", std::process::id()));
    Ok(command)
}

/// A proposed `config.json` (OCI runtime specification) for the bundle's program, without a terminal.
fn configured(proposed: &str, root: &Path) -> String {
    proposed
        .replace(r#""terminal": true"#, r#""terminal": false"#)
        .replace(r#""sh""#, &format!("{PROGRAM:?}"))
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
            r#"{"process": {"terminal": false, "args": ["/bin/hello"]}, "root": {"path": "/b/rootfs"}}"#
        );
    }
}
