//! Kernel modules: which ones, and in which order they must be loaded.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Error, Result};

/// What the nested machine needs beyond what the kernel has built in: its channels and disks,
/// KVM for either maker, and what a jail or an image store uses.
pub(crate) const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "kvm-amd",
    "kvm-intel",
    "loop",
    "bfq",
    "dm-mod",
    "overlay",
    "fuse",
    "veth",
    "tun",
    "bridge",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_fib_ipv4",
    "nft_ct",
];

/// A module's file name, without its directories, and its content.
pub(crate) type Module = (String, Vec<u8>);

/// Reads `wanted` and all that they depend on below `dir`, those that others need first.
///
/// # Errors
///
/// If a module is missing or unreadable.
pub(crate) fn in_order(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(dir, &mut files)?;
    let mut order = Vec::new();
    for name in wanted {
        add(&normal(name), &files, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    let file = format!("{name}.ko");
    if order.iter().any(|(known, _)| *known == file) {
        return Ok(());
    }
    let path = files.get(name).ok_or_else(|| {
        Error::Missing(format!(
            "the kernel package has no module `{name}`; it is not one we know"
        ))
    })?;
    let content = read(path)?;
    for needed in depends(&content) {
        add(&needed, files, order)?;
    }
    order.push((file, content));
    Ok(())
}

/// The modules that a module names in its `.modinfo` section as `depends=a,b`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else {
        return Vec::new();
    };
    let list = module[at + KEY.len()..].split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

/// The kernel takes `-` and `_` in module names for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn index(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let path = entry.map_err(Error::file("read", dir))?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some((stem, "")) | Some((stem, ".xz")) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once(".ko"))
        {
            files.insert(normal(stem), path);
        }
    }
    Ok(())
}

/// Newer Debian kernels have their modules compressed.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).map_err(Error::file("read", path));
    }
    let output = Command::new("xz").arg("-dc").arg(path).output();
    let output = output.map_err(|source| Error::Start {
        program: "xz".into(),
        source,
    })?;
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF...\0license=GPL\0depends={depends}\0retpoline=Y\0").into_bytes()
    }

    #[test]
    fn what_others_need_comes_first_and_once() {
        let dir = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/kvm-amd.ko"), module("kvm,ccp")).unwrap();
        fs::write(dir.join("kvm.ko"), module("irq-bypass")).unwrap();
        fs::write(dir.join("irq_bypass.ko"), module("")).unwrap();
        fs::write(dir.join("ccp.ko"), module("")).unwrap();
        let order = in_order(&dir, &["kvm-amd", "kvm"]).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        let missing = in_order(&dir, &["zfs"]);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names, ["irq_bypass.ko", "kvm.ko", "ccp.ko", "kvm_amd.ko"]);
        assert!(missing.unwrap_err().to_string().contains("`zfs`"));
    }
}
