//! The first root of the nested machine: a shell, modules, and what the job brings along.

use std::{collections::BTreeSet, fs, path::Path};

use super::{Job, cpio::Archive, modules, packages::Parts};
use crate::{
    command::quoted,
    error::{Error, Result},
};

/// The archive that the kernel unpacks. `mark` is what the script prints when the command ended.
pub(super) fn archive(job: &Job, parts: &Parts, mark: &str) -> Result<Vec<u8>> {
    let mut root = Archive::default();
    let mut made = BTreeSet::new();
    for dir in [
        "/bin", "/dev", "/proc", "/sys", "/tmp", "/root", "/modules", "/disks", "/etc",
    ] {
        directories(&mut root, &mut made, dir);
    }
    let busybox = fs::read(&parts.busybox).map_err(Error::file("read", &parts.busybox))?;
    root.file("/bin/busybox", 0o755, &busybox);
    root.symlink("/bin/sh", "busybox");
    root.file("/init", 0o755, include_bytes!("init.sh"));
    root.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    root.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");

    let mut order = String::new();
    for (name, content) in modules::in_order(&parts.modules, modules::WANTED)? {
        order.push_str(&format!("{name}\n"));
        root.file(&format!("/modules/{name}"), 0o644, &content);
    }
    root.file("/modules/order", 0o644, order.as_bytes());

    for path in &job.directories {
        directories(&mut root, &mut made, path);
    }
    for (here, inside) in &job.files {
        if let Some(parent) = Path::new(inside).parent().and_then(Path::to_str) {
            directories(&mut root, &mut made, parent);
        }
        root.file(inside, 0o755, &fs::read(here).map_err(Error::file("read", here))?);
    }
    root.file(
        "/disks.list",
        0o644,
        job.disks.iter().map(super::Disk::line).collect::<String>().as_bytes(),
    );
    root.file("/mark", 0o644, mark.as_bytes());
    root.file("/command", 0o755, script(job).as_bytes());
    Ok(root.finish())
}

/// The script that becomes the command.
fn script(job: &Job) -> String {
    let mut script = String::from("#!/bin/sh\n");
    for (key, value) in &job.environment {
        script.push_str(&format!("export {key}={}\n", quoted(value)));
    }
    let words: Vec<_> = job.command.iter().map(|word| quoted(word)).collect();
    script.push_str(&format!("exec {}\n", words.join(" ")));
    script
}

fn directories(root: &mut Archive, made: &mut BTreeSet<String>, path: &str) {
    let mut at = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at.push('/');
        at.push_str(part);
        if made.insert(at.clone()) {
            root.directory(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_reaches_the_shell_word_by_word() {
        let job = Job {
            command: vec!["/bin/x".into(), "two words".into()],
            environment: vec![("K".into(), "it's".into())],
            ..Job::default()
        };
        assert_eq!(
            script(&job),
            "#!/bin/sh\nexport K='it'\\''s'\nexec '/bin/x' 'two words'\n"
        );
    }
}
