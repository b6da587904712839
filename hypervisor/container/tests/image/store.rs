//! The store: shared layers, names, removal, several processes at once, and sudden death.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use chiton_container::image::progress::Quiet;
use chiton_container::image::{Digest, Error, Store, archive};

use crate::support::{Folder, Layout, Tar, assert_whole, is_root, listing, names, until};

fn layer(seed: u8) -> Vec<u8> {
    let content: Vec<u8> = (0..40_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
        .collect();
    (0..8)
        .fold(Tar::new().folder("d/"), |tar, number| {
            tar.file(&format!("d/{seed}-{number}"), &content)
        })
        .end()
}

#[test]
fn images_share_blobs_and_unpacked_layers() {
    let folder = Folder::new();
    let store = folder.store();
    let one = Layout::of(folder.path("one"), "docker.io/library/one:1", &[layer(1), layer(2)]);
    let two = Layout::of(folder.path("two"), "docker.io/library/two:1", &[layer(1), layer(3)]);
    let one = one.import(&store).unwrap().remove(0);
    let two = two.import(&store).unwrap().remove(0);
    let (a, b) = (
        store.unpacked(&one, &Quiet).unwrap(),
        store.unpacked(&two, &Quiet).unwrap(),
    );
    // Topmost first: the shared one is last.
    assert_eq!(a.layers()[1], b.layers()[1]);
    assert_eq!(names(store.root(), "layers").len(), 3);
    assert_eq!(names(store.root(), "blobs/sha256").len(), 7);

    store.untag("one:1").unwrap();
    drop(a);
    assert_eq!(collected(&store, &[], 1), (3, 1));
    store.unpacked(&two, &Quiet).unwrap();
    drop((store, b));
    assert_whole(&folder.path("store"));
}

/// How many blobs and layers have gone once these layers have, by as many prunes as it takes.
fn collected(store: &Store, keep: &[Digest], layers: u64) -> (u64, u64) {
    let mut gone = (0, 0);
    until("removed", || match store.prune(keep) {
        Ok(freed) => {
            gone = (gone.0 + freed.blobs, gone.1 + freed.layers);
            gone.1 >= layers
        }
        Err(error) => {
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            false
        }
    });
    gone
}

#[test]
fn what_somebody_uses_is_not_removed() {
    let folder = Folder::new();
    let store = folder.store();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[layer(1)]);
    let image = layout.import(&store).unwrap().remove(0);
    let pinned = store.unpacked(&image, &Quiet).unwrap();
    store.untag("x:1").unwrap();
    // An image that an instance was created from.
    assert_eq!(collected(&store, &[image.digest()], 0), (0, 0));
    // A layer that an instance runs on: its blobs go, and it stays.
    assert_eq!(collected(&store, &[], 0), (3, 0));
    assert!(pinned.layers()[0].join("d").is_dir());
    // Another process that is adding an image.
    let other = folder.store();
    other.new_blob().unwrap();
    assert!(matches!(store.prune(&[]), Err(Error::Busy { .. })));
    drop((other, pinned));
    assert_eq!(collected(&store, &[], 1), (0, 1));
    drop(store);
    assert_whole(&folder.path("store"));
}

#[test]
fn a_name_moves_and_its_last_image_keeps_none() {
    let folder = Folder::new();
    let store = folder.store();
    let one = Layout::of(folder.path("one"), "docker.io/library/x:1", &[layer(1)])
        .import(&store)
        .unwrap()
        .remove(0);
    let two = Layout::of(folder.path("two"), "docker.io/library/x:1", &[layer(2)])
        .import(&store)
        .unwrap()
        .remove(0);
    assert_eq!(store.image("x:1").unwrap().digest(), two.digest());
    assert_eq!(store.image(&one.digest().hex()[..8]).unwrap().name, None);
    store.add(Some(&"y".parse().unwrap()), &two.descriptor).unwrap();
    assert_eq!(store.entries().unwrap().len(), 3);
    match store.prune(&[]) {
        Ok(freed) => assert_eq!(freed.images, [one.digest()]),
        // Names go also then.
        Err(error) => assert!(matches!(error, Error::Busy { .. }), "{error}"),
    }
    assert_eq!(store.entries().unwrap().len(), 2);
    // By its digest all names go.
    assert_eq!(store.untag(&two.digest().to_string()).unwrap().len(), 2);
    let error = store.image("x:1").unwrap_err().to_string();
    assert!(error.contains("there is no image `x:1`"), "{error}");
    assert!(store.image("../../etc").is_err() && store.image("").is_err() && store.image("abc").is_err());
}

/// Not a test by itself: the process that the tests below start and kill.
#[test]
fn importer_process() {
    let Some(store) = std::env::var_os("CHITON_TEST_STORE") else {
        return;
    };
    let path = std::env::var_os("CHITON_TEST_IMPORT").unwrap();
    println!("begun");
    let store = Store::open(store).unwrap();
    for image in archive::import(&store, Path::new(&path), None, &Quiet).unwrap() {
        store.unpacked(&image, &Quiet).unwrap();
    }
}

fn importer(store: &Path, import: &Path) -> Child {
    importer_command(&std::env::current_exe().unwrap(), store, import)
        .spawn()
        .unwrap()
}

fn importer_command(program: &Path, store: &Path, import: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "store::importer_process", "--nocapture"]);
    command
        .env("CHITON_TEST_STORE", store)
        .env("CHITON_TEST_IMPORT", import);
    command.stdout(Stdio::null());
    command
}

#[test]
fn several_processes_import_at_once() {
    let folder = Folder::new();
    let store = folder.path("store");
    let layouts: Vec<_> = (0..4_u8)
        .map(|number| {
            let name = format!("docker.io/library/x{number}:1");
            Layout::of(
                folder.path(&name.replace('/', "-")),
                &name,
                &[layer(1), layer(2), layer(number)],
            )
        })
        .collect();
    let mut importers: Vec<_> = layouts
        .iter()
        .chain(&layouts)
        .map(|layout| importer(&store, &layout.path))
        .collect();
    for importer in &mut importers {
        assert!(importer.wait().unwrap().success());
    }
    assert_whole(&store);
    let store = Store::open(store).unwrap();
    assert_eq!(store.images().unwrap().len(), 4);
    assert_eq!(names(store.root(), "layers").len(), 4);
}

#[test]
fn an_ordinary_user_has_a_store_too() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = Folder::new();
    // Owners, capabilities and folders that nobody may enter: what only root can make is left out.
    let archive = Tar::new()
        .pax(&[
            ("uid", b"5"),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
        ])
        .file("a", b"x")
        .raw(b'5', b"closed/", b"", b"", |header| header.set_mode(0))
        .file("closed/b", b"x")
        .file(".wh.gone", b"")
        .folder("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .end();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[archive]);
    let home = folder.folder("home");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path("program");
    // By another process: a child that another test starts while this one writes would have the file open for writing
    // too, and the kernel runs nothing that is.
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let mut command = importer_command(&program, &home.join("store"), &layout.path);
    assert!(command.uid(65534).gid(65534).status().unwrap().success());
    assert_whole(&home.join("store"));
    let store = Store::open(home.join("store")).unwrap();
    let unpacked = store.unpacked(&store.image("x:1").unwrap(), &Quiet).unwrap();
    assert_eq!(unpacked.lost_owners().unwrap(), 1, "that of `a`");
    let files: Vec<_> = listing(&unpacked.layers()[0])
        .into_iter()
        .map(|(path, line)| format!("{} {line}", path.display()))
        .collect();
    assert!(files[0].starts_with("a 100644 65534:65534"), "{files:?}");
    assert!(files.iter().any(|line| line.starts_with("gone 20000")), "{files:?}");
    assert!(
        files
            .iter()
            .any(|line| line.starts_with("opaque") && line.contains("user.overlay.opaque")),
        "{files:?}"
    );
}

/// How often the next test kills; `CHITON_KILLS` says otherwise.
const KILLS: u32 = 40;

#[test]
fn an_importer_killed_at_any_moment_leaves_a_store_that_is_whole() {
    let kills = std::env::var("CHITON_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let folder = Folder::new();
    let layout = Layout::of(
        folder.path("layout"),
        "docker.io/library/x:1",
        &[layer(1), layer(2), layer(3)],
    );
    // How long it takes when nobody kills it: at most, for this process may stand still meanwhile.
    let start = Instant::now();
    assert!(importer(&folder.path("first"), &layout.path).wait().unwrap().success());
    let mut whole = start.elapsed();
    let mut killed = 0;
    for round in 0..kills {
        let path = folder.path("store");
        let mut importer = importer(&path, &layout.path);
        // Spread over the whole import; a little odd, so that rounds do not fall on the same moments.
        let part = f64::from(round * 7 % kills) / f64::from(kills);
        let start = Instant::now();
        let limit = whole.mul_f64(part * 1.1);
        while start.elapsed() < limit && importer.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let took = start.elapsed();
        let _ = importer.kill();
        if importer.wait().unwrap().success() {
            whole = whole.min(took);
        } else {
            killed += 1;
        }
        // Every second store is used again, with what the dead one left in it.
        assert_whole(&path);
        if round % 2 == 1 {
            let store = Store::open(&path).unwrap();
            let image = layout.import(&store).unwrap().remove(0);
            store.unpacked(&image, &Quiet).unwrap();
            drop(store);
            assert_whole(&path);
            fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(killed > kills / 4, "only {killed} of {kills} were killed in time");
}

#[test]
fn what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not() {
    let folder = Folder::new();
    let store = folder.store();
    let living = store.new_blob().unwrap();
    let root = folder.path("store");
    fs::create_dir_all(root.join("tmp/dead/1-layer/fs/d")).unwrap();
    fs::write(root.join("tmp/dead/0-blob"), "half").unwrap();
    assert_eq!(names(&root, "tmp").len(), 2);
    Store::open(&root).unwrap();
    assert_eq!(names(&root, "tmp").len(), 1);
    let blob = living.finish("x").unwrap();
    assert_eq!(blob.digest, Digest::of(b""));
    drop(store);
    assert_whole(&root);
}

#[test]
fn verification_finds_what_is_wrong() {
    let folder = Folder::new();
    let store = folder.store();
    let layout = Layout::of(folder.path("layout"), "docker.io/library/x:1", &[layer(1)]);
    let image = layout.import(&store).unwrap().remove(0);
    let unpacked = store.unpacked(&image, &Quiet).unwrap();
    let top = unpacked.layers()[0].clone();
    let problem = |words: &str| {
        let report = store.verify().unwrap();
        assert!(
            report.problems.iter().any(|problem| problem.contains(words)),
            "{words}: {:?}",
            report.problems
        );
    };
    assert!(store.verify().unwrap().problems.is_empty());
    fs::remove_file(top.join("d/1-3")).unwrap();
    problem("entries with");
    fs::write(top.join("d/1-3"), vec![0; 40_000]).unwrap();
    fs::set_permissions(top.join("d/1-3"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    problem("names, modes or owners");
    let blob = root_blob(&store, layout.layers[0].digest);
    fs::write(&blob, "short").unwrap();
    problem("5 bytes instead of");
    fs::remove_file(&blob).unwrap();
    problem("is missing");
    fs::write(root_blob(&store, Digest::of(b"other")), "wrong").unwrap();
    problem("no whole blob");
    fs::write(store.root().join("blobs/sha256/name"), "").unwrap();
    problem("name is no whole blob");
}

fn root_blob(store: &Store, digest: Digest) -> std::path::PathBuf {
    store.root().join("blobs/sha256").join(digest.hex())
}

#[test]
fn a_damaged_index_is_said_to_be() {
    let folder = Folder::new();
    drop(folder.store());
    fs::write(folder.path("store/index.json"), "{").unwrap();
    let error = folder.store().images().unwrap_err().to_string();
    assert!(error.contains("index.json"), "{error}");
}
