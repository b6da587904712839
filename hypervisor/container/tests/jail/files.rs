//! The root file system: layers, owners, devices, volumes.

use std::os::unix::fs::{MetadataExt, symlink};

use chiton_container::jail::{Dev, Jail, Kind, Proc, Root, Source, Sys, Volume};

use crate::help::{Place, Test, answer, names, open_to_all, read};

pub(crate) const TESTS: &[Test] = &[
    ("upper_layers_cover_lower_ones_and_writes_go_to_the_scratch", layers),
    ("a_hundred_layers_are_one_root", many_layers),
    ("commas_and_colons_in_paths_are_no_options", odd_paths),
    ("owners_are_right_on_both_sides", owners),
    ("what_the_jail_deletes_is_a_whiteout", whiteout),
    ("several_layers_without_scratch_are_only_read", no_scratch),
    ("a_single_layer_without_scratch_is_the_root_itself", single),
    ("a_read_only_root_has_a_tmp_to_write", read_only),
    ("dev_has_what_programs_need_and_no_more", dev),
    ("proc_and_sys_can_be_left_out", no_proc),
    ("a_jail_may_have_no_dev", no_dev),
    ("proc_can_be_of_processes_only", processes_only),
    ("volumes_are_bound_and_strict", volumes),
    ("a_link_in_the_image_cannot_move_a_volume_out", volume_links),
    ("the_callers_mounts_are_not_touched", private),
];

fn layer(place: &Place, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let layer = place.path(name);
    std::fs::create_dir_all(&layer).unwrap();
    open_to_all(&layer);
    for (path, text) in files {
        let path = layer.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    layer
}

fn layers() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.root
        .layers
        .push(layer(&place, "two", &[("etc/name", "two"), ("etc/two", "2")]));
    jail.root.layers.push(layer(&place, "three", &[("etc/three", "3")]));
    let found = answer(&mut jail, || {
        std::fs::write("/etc/name", "written").unwrap();
        format!("{} {}", names("/etc"), read("/etc/name"))
    });
    assert_eq!(found, "name three two written");
    assert_eq!(
        std::fs::read_to_string(place.path("scratch/upper/etc/name")).unwrap(),
        "written"
    );
    assert_eq!(std::fs::read_to_string(place.path("two/etc/name")).unwrap(), "two");
    assert_eq!(std::fs::read_to_string(place.path("root/etc/name")).unwrap(), "image");
}

fn many_layers() {
    let place = Place::new();
    let mut jail = place.jail();
    for index in 0..99 {
        let name = format!("layer-{index}");
        jail.root
            .layers
            .push(layer(&place, &name, &[(&format!("many/{index}"), ""), ("top", &name)]));
    }
    let found = answer(&mut jail, || {
        format!("{} {}", names("/many").split(' ').count(), read("/top"))
    });
    assert_eq!(found, "99 layer-98");
}

fn odd_paths() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.root
        .layers
        .push(layer(&place, "a,upperdir=:b\\c", &[("odd", "odd")]));
    assert_eq!(answer(&mut jail, || read("/odd")), "odd");
}

fn owners() {
    let place = Place::new();
    std::os::unix::fs::chown(place.path("root/etc/name"), Some(3), Some(4)).unwrap();
    let found = answer(&mut place.jail(), || {
        std::fs::write("/etc/new", "").unwrap();
        ["/", "/etc/name", "/etc/new"]
            .map(|path| {
                let data = std::fs::metadata(path).unwrap();
                format!("{}:{}", data.uid(), data.gid())
            })
            .join(" ")
    });
    assert_eq!(found, "0:0 3:4 0:0");
    // On disk they are the jail's ids too, whatever its range was: so another range can go on with it.
    let new = std::fs::metadata(place.path("scratch/upper/etc/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (0, 0));
}

fn whiteout() {
    let place = Place::new();
    let found = answer(&mut place.jail(), || {
        std::fs::remove_file("/etc/name").unwrap();
        names("/etc")
    });
    assert_eq!(found, "");
    let whiteout = std::fs::symlink_metadata(place.path("scratch/upper/etc/name")).unwrap();
    assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
    assert!(place.path("root/etc/name").exists());
}

/// Mount points have to be there where nothing can be made.
fn with_mount_points(place: &Place) -> Jail {
    for name in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(place.path("root").join(name)).unwrap();
    }
    let mut jail = place.jail();
    jail.root.scratch = None;
    jail
}

fn no_scratch() {
    let place = Place::new();
    let mut jail = with_mount_points(&place);
    jail.root.layers.push(layer(&place, "two", &[("etc/two", "2")]));
    let found = answer(&mut jail, || {
        format!("{} {}", names("/etc"), std::fs::write("/etc/x", "").is_err())
    });
    assert_eq!(found, "name two true");
}

fn single() {
    let place = Place::new();
    let mut jail = with_mount_points(&place);
    assert_eq!(
        answer(&mut jail, || std::fs::write("/etc/x", "").is_ok().to_string()),
        "true"
    );
    assert_eq!(std::fs::metadata(place.path("root/etc/x")).unwrap().uid(), 0);
}

fn read_only() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.root.read_only = true;
    jail.root.tmp = true;
    let found = answer(&mut jail, || {
        ["/etc/x", "/dev/x", "/proc/sys/kernel/hostname", "/tmp/x", "/dev/shm/x"]
            .map(|path| std::fs::write(path, "x").is_ok().to_string())
            .join(" ")
    });
    assert_eq!(found, "false false false true true");
}

fn dev() {
    let place = Place::new();
    let found = answer(&mut place.jail(), || {
        std::fs::write("/dev/null", "x").unwrap();
        let zeroes = std::fs::File::open("/dev/zero").and_then(|mut zero| std::io::Read::read(&mut zero, &mut [1; 8]));
        // A terminal of the jail's own can be had, and it is the first.
        let terminal = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
            .unwrap();
        let terminals = names("/dev/pts");
        drop(terminal);
        format!("{}; {}; {terminals}", names("/dev"), zeroes.unwrap())
    });
    assert_eq!(
        found,
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero; 8; 0 ptmx"
    );
}

fn no_proc() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.root.proc = Proc::Absent;
    jail.root.sys = Sys::Absent;
    assert_eq!(answer(&mut jail, || names("/")), "bin dev etc");
}

fn no_dev() {
    let place = Place::new();
    let mut jail = place.jail();
    jail.root.dev = Dev::Absent;
    let found = answer(&mut jail, || {
        format!("{}; {}", names("/"), std::fs::File::open("/dev/null").is_err())
    });
    assert_eq!(found, "bin etc proc sys; true");
}

fn processes_only() {
    let place = Place::new();
    if !place.is_nobody_outside() {
        return;
    }
    let mut jail = place.jail();
    jail.root.proc = Proc::Processes;
    let found = answer(&mut jail, || names("/proc"));
    assert_eq!(found, "2 self thread-self");
}

fn volumes() {
    let place = Place::new();
    let shared = layer(&place, "shared", &[("file", "shared")]);
    let single = shared.join("file");
    let mut jail = place.jail();
    let volume = |guest: &str, host: &std::path::Path, read_only| Volume {
        host: host.into(),
        guest: guest.into(),
        read_only,
    };
    jail.root.volumes = vec![
        volume("/data/deep", &shared, false),
        volume("/readable", &shared, true),
        volume("/etc/name", &single, true),
    ];
    let found = answer(&mut jail, || {
        std::fs::write("/data/deep/new", "new").unwrap();
        let refused = std::fs::write("/readable/x", "").is_err();
        let mounts = read("/proc/self/mounts");
        let line = mounts.lines().find(|line| line.contains(" /data/deep ")).unwrap();
        let strict = line.contains("nosuid") && line.contains("nodev");
        format!("{} {refused} {strict} {}", read("/readable/new"), read("/etc/name"))
    });
    assert_eq!(found, "new true true shared");
    // What the jail's root wrote is the host's root's.
    assert_eq!(std::fs::metadata(shared.join("new")).unwrap().uid(), 0);
}

fn volume_links() {
    let place = Place::new();
    let outside = layer(&place, "outside", &[]);
    let shared = layer(&place, "shared", &[("file", "shared")]);
    symlink(&outside, place.path("root/absolute")).unwrap();
    symlink("../../../../../../../..", place.path("root/up")).unwrap();
    let mut jail = place.jail();
    for guest in ["/up/found", "/etc/../inside"] {
        jail.root.volumes = vec![Volume {
            host: shared.clone(),
            guest: guest.into(),
            read_only: false,
        }];
        let spawned = jail.spawn(|| 0);
        if guest.contains("..") {
            assert!(spawned.unwrap_err().to_string().contains("bind a volume"));
        } else {
            spawned.unwrap().wait().unwrap();
            // `..` of the root is the root.
            assert!(place.path("scratch/upper/found").is_dir());
        }
    }
    assert!(std::fs::read_dir(outside).unwrap().next().is_none());
    assert!(!std::path::Path::new("/found").exists());
}

fn private() {
    let place = Place::new();
    let mut jail = Jail::new(Root::default(), place.ids());
    // Without a root of its own the jail's mounts are the caller's, seen and not touched.
    jail.namespaces.set(Kind::Mount, Source::Caller);
    let before = read("/proc/self/mountinfo");
    jail.filter = None;
    assert_ne!(answer(&mut jail, || names("/")), "bin dev etc");
    answer(&mut place.jail(), || names("/"));
    assert_eq!(read("/proc/self/mountinfo"), before);
}
