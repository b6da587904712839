//! Other programs read what we write, and we read what they write.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use chiton_container::image::archive::{Format, export, import};
use chiton_container::image::build::{Recipe, build};
use chiton_container::image::progress::Quiet;
use chiton_container::image::{Image, Limits, Store};

use crate::support::{Folder, Layout, Tar, assert_whole, comparable, is_root, listing, tool, unpack};

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// An image of two layers.
fn image(folder: &Folder, store: &Store) -> Image {
    let archives = [
        Tar::new()
            .folder("etc/")
            .file("etc/a", b"low")
            .file("etc/b", b"b")
            .symlink("l", "etc/b")
            .end(),
        Tar::new()
            .folder("etc/")
            .file("etc/.wh.a", b"")
            .file("etc/c", b"c")
            .end(),
    ];
    let layout = Layout::of(folder.path("made"), "localhost/two:1", &archives);
    layout.import(store).unwrap().remove(0)
}

#[test]
fn skopeo_reads_the_store_and_what_is_exported_and_we_read_what_it_writes() {
    let folder = Folder::new();
    let store = folder.store();
    let image = image(&folder, &store);
    let name = image.name.as_ref().unwrap().to_string();
    let digest = image.digest().to_string();
    let inspect = |source: &str| tool("skopeo", &["inspect", "--format", "{{.Digest}}", source]);
    let Some(found) = inspect(&format!("oci:{}:{name}", text(store.root()))) else {
        return;
    };
    assert_eq!(found.trim(), digest);

    for (format, kind) in [
        (Format::OciArchive, "oci-archive"),
        (Format::OciFolder, "oci"),
        (Format::DockerArchive, "docker-archive"),
    ] {
        let path = folder.path(&format!("exported-{kind}"));
        export(&store, &image, format, &path, &Quiet).unwrap();
        let other = folder.path(&format!("copied-{kind}"));
        // Through skopeo, which checks every digest on the way.
        let (from, to) = (
            format!("{kind}:{}", text(&path)),
            format!("oci-archive:{}:x:1", text(&other)),
        );
        tool("skopeo", &["copy", "-q", &from, &to]).unwrap();
        let fresh = Store::open(folder.path(&format!("store-{kind}"))).unwrap();
        for path in [&path, &other] {
            let back = import(&fresh, path, None, &Quiet).unwrap().remove(0);
            assert_eq!(back.config.rootfs, image.config.rootfs, "{kind}");
            if format != Format::DockerArchive {
                assert_eq!(back.manifest.layers, image.manifest.layers);
            }
            let (old, new) = (
                store.unpacked(&image, &Quiet).unwrap(),
                fresh.unpacked(&back, &Quiet).unwrap(),
            );
            for (old, new) in old.layers().iter().zip(new.layers()) {
                assert_eq!(comparable(old), comparable(new));
            }
        }
        drop(fresh);
        assert_whole(&folder.path(&format!("store-{kind}")));
    }
}

#[test]
fn layers_in_zstd_are_read_as_skopeo_writes_them() {
    let folder = Folder::new();
    let store = folder.store();
    let image = image(&folder, &store);
    let from = format!("oci:{}:{}", text(store.root()), image.name.as_ref().unwrap());
    let to = folder.path("zstd");
    let options = [
        "copy",
        "-q",
        "--dest-compress",
        "--dest-compress-format",
        "zstd",
        "--dest-oci-accept-uncompressed-layers",
    ];
    let to_name = format!("oci:{}:z", text(&to));
    let args: Vec<&str> = options[..5]
        .iter()
        .copied()
        .chain([from.as_str(), to_name.as_str()])
        .collect();
    if tool("skopeo", &args).is_none() {
        return;
    }
    // skopeo keeps what is compressed already; so the zstd program makes sure.
    let archive = Tar::new().file("z", &b"zstd ".repeat(50_000)).end();
    fs::write(folder.path("layer.tar"), &archive).unwrap();
    if tool("zstd", &["-q", "-19", text(&folder.path("layer.tar"))]).is_none() {
        return;
    }
    let packed = fs::read(folder.path("layer.tar.zst")).unwrap();
    let diff_id = chiton_container::image::Digest::of(&archive);
    let layout = Layout::new(folder.path("zlayout"), "localhost/z:1", &[(packed, diff_id)]);
    let image = layout.import(&store).unwrap().remove(0);
    let unpacked = store.unpacked(&image, &Quiet).unwrap();
    assert_eq!(
        fs::read(unpacked.layers()[0].join("z")).unwrap(),
        b"zstd ".repeat(50_000)
    );
}

#[test]
fn umoci_unpacks_what_is_built_to_the_same_tree() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let store = folder.store();
    let image = built(&folder, &store);
    let layout = folder.path("layout");
    export(&store, &image, Format::OciFolder, &layout, &Quiet).unwrap();
    // umoci takes names without slashes.
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    fs::write(
        layout.join("index.json"),
        index.replace("docker.io/library/built:latest", "built"),
    )
    .unwrap();
    let bundle = folder.path("bundle");
    let image_name = format!("{}:built", text(&layout));
    if tool("umoci", &["unpack", "--image", &image_name, text(&bundle)]).is_none() {
        return;
    }
    let unpacked = store.unpacked(&image, &Quiet).unwrap();
    assert_eq!(listing(&bundle.join("rootfs")), listing(&unpacked.layers()[0]));
    let config: serde_json::Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["/guest/guest", "one"]));
    assert!(config["process"]["env"].as_array().unwrap().contains(&"A=b".into()));
}

#[test]
fn podman_sees_what_is_built_as_it_is_and_we_see_what_podman_saves() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let store = folder.store();
    let (built, layered) = (built(&folder, &store), image(&folder, &store));
    let own = [
        "--root",
        text(&folder.path("pod")),
        "--runroot",
        text(&folder.path("podrun")),
    ]
    .map(str::to_owned);
    // A storage of its own, by plain copies; it runs nothing.
    let podman = |args: &[&str]| {
        let fixed = [
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ];
        let all: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .chain(fixed)
            .chain(args.iter().copied())
            .collect();
        tool("podman", &all)
    };
    for (image, name) in [
        (&built, "docker.io/library/built:latest"),
        (&layered, "localhost/two:1"),
    ] {
        for (format, kind) in [
            (Format::OciArchive, "oci-archive"),
            (Format::DockerArchive, "docker-archive"),
        ] {
            let path = folder.path(&format!("{kind}.tar"));
            export(&store, image, format, &path, &Quiet).unwrap();
            if podman(&["load", "--quiet", "--input", text(&path)]).is_none() {
                return;
            }
            fs::remove_file(&path).unwrap();
        }
        // Its name of an image is the digest of the configuration.
        let id = podman(&["image", "inspect", "--format", "{{.Id}}", name]).unwrap();
        assert_eq!(id.trim(), image.manifest.config.digest.hex());
        let words = podman(&[
            "image",
            "inspect",
            "--format",
            "{{.Config.Entrypoint}} {{.Config.Cmd}}",
            name,
        ])
        .unwrap();
        let config = &image.config.config;
        assert_eq!(
            words.trim(),
            format!("[{}] [{}]", config.entrypoint.join(" "), config.cmd.join(" "))
        );

        // All its layers on one another, as one archive.
        let container = podman(&["create", name, "nothing"]).unwrap();
        let files = folder.path("files.tar");
        podman(&["export", "--output", text(&files), container.trim()]).unwrap();
        podman(&["rm", container.trim()]).unwrap();
        let theirs = folder.folder(&format!("theirs-{}", image.digest().hex()));
        unpack(&fs::read(&files).unwrap(), &theirs, Limits::default()).unwrap();
        let unpacked = store.unpacked(image, &Quiet).unwrap();
        let mut ours = BTreeMap::new();
        for layer in unpacked.layers().iter().rev() {
            for (path, what) in comparable(layer) {
                // Where a whiteout stands, nothing is.
                if what == "whiteout" {
                    ours.remove(&path);
                } else {
                    ours.insert(path, what);
                }
            }
        }
        assert_eq!(listing(&theirs), ours);

        for kind in ["oci-archive", "docker-archive"] {
            let saved = folder.path(&format!("saved-{kind}.tar"));
            let _ = fs::remove_file(&saved);
            podman(&["save", "--quiet", "--format", kind, "--output", text(&saved), name]).unwrap();
            let fresh = Store::open(folder.path(&format!("{kind}-{}", image.digest().hex()))).unwrap();
            let back = import(&fresh, &saved, None, &Quiet).unwrap().remove(0);
            assert_eq!(back.config, image.config, "{kind}");
            fresh.unpacked(&back, &Quiet).unwrap();
        }
    }
}

fn built(folder: &Folder, store: &Store) -> Image {
    let guest = folder.path("guest");
    fs::write(&guest, b"\x7fELF and so on").unwrap();
    let data = folder.folder("data/inner");
    fs::write(data.join("x"), "x").unwrap();
    std::os::unix::fs::symlink("x", data.join("l")).unwrap_or_default();
    let long = "n".repeat(150);
    fs::write(data.join(&long), "long").unwrap();
    let recipe = Recipe {
        guest,
        files: vec![(folder.path("data"), "/srv/data".into())],
        env: vec!["A=b".into()],
        args: vec!["one".into()],
        ..Recipe::default()
    };
    build(store, &recipe, &"built".parse().unwrap(), &Quiet).unwrap()
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let (one, two) = (Folder::new(), Folder::new());
    let (first, second) = (one.store(), two.store());
    let a = built(&one, &first);
    // Made later, with other modes of no meaning.
    let b = built(&two, &second);
    fs::set_permissions(
        two.path("data/inner/x"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!(built(&two, &second).digest(), a.digest());
    assert!(a.is_guest());
    assert_eq!(a.command(&[]), ["/guest/guest", "one"]);
    assert_eq!(a.command(&["two".into()]), ["/guest/guest", "two"]);
    let unpacked = first.unpacked(&a, &Quiet).unwrap();
    assert_eq!(
        fs::read_link(unpacked.layers()[0].join("srv/data/inner/l"))
            .unwrap()
            .to_str(),
        Some("x")
    );
}

#[test]
fn what_cannot_be_built_is_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let guest = folder.path("guest");
    fs::write(&guest, b"\x7fELF").unwrap();
    let script = folder.path("script");
    fs::write(&script, b"#!").unwrap();
    let recipe = |guest: &std::path::Path, files: &[(&std::path::Path, &str)]| Recipe {
        guest: guest.to_owned(),
        files: files
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect(),
        ..Recipe::default()
    };
    for (recipe, words) in [
        (recipe(&script, &[]), "not an ELF file"),
        (recipe(&folder.path("gone"), &[]), "cannot read"),
        (recipe(&guest, &[(&script, "/a"), (&guest, "/a")]), "two files"),
        (recipe(&guest, &[(&script, "/guest/guest")]), "two files"),
        (recipe(&guest, &[(&script, "/a"), (&script, "/a/b")]), "two files"),
        (recipe(&guest, &[(&script, "/a/../../b")]), "`..`"),
        (recipe(&guest, &[(&script, "/")]), "root"),
        (
            recipe(&guest, &[(std::path::Path::new("/dev/null"), "/null")]),
            "only files",
        ),
    ] {
        let error = build(&store, &recipe, &"x".parse().unwrap(), &Quiet)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(store.entries().unwrap().is_empty());
    drop(store);
    assert_whole(&folder.path("store"));
}

#[test]
fn an_export_replaces_nothing_and_leaves_nothing_half_written() {
    let folder = Folder::new();
    let store = folder.store();
    let image = image(&folder, &store);
    let out = folder.folder("out");
    fs::write(out.join("there"), "mine").unwrap();
    let error = export(&store, &image, Format::OciArchive, &out.join("there"), &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("it exists"), "{error}");
    let blob = store
        .root()
        .join("blobs/sha256")
        .join(image.manifest.layers[1].digest.hex());
    fs::write(&blob, "damaged").unwrap();
    for format in [Format::OciArchive, Format::OciFolder, Format::DockerArchive] {
        export(&store, &image, format, &out.join("new"), &Quiet).unwrap_err();
    }
    let names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["there"]);
}

#[test]
fn archives_of_gnu_tar_are_unpacked_to_the_same_tree() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let tree = folder.folder("tree/d");
    fs::write(tree.join("file"), "x").unwrap();
    fs::hard_link(tree.join("file"), tree.join("hard")).unwrap();
    std::os::unix::fs::symlink("file", tree.join("soft")).unwrap();
    fs::write(tree.join("n".repeat(200)), "long").unwrap();
    let holes = fs::File::create(tree.join("holes")).unwrap();
    for piece in 0..30_u64 {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"data", piece * 100_000).unwrap();
    }
    holes.set_len(4 << 20).unwrap();
    rustix::fs::setxattr(tree.join("file"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    for (number, options) in [
        &["--format=gnu", "--sparse"][..],
        &["--format=gnu"],
        &["--format=posix", "--sparse", "--xattrs"],
        &["--format=posix", "--xattrs"],
    ]
    .iter()
    .enumerate()
    {
        let output = Command::new("tar")
            .args(*options)
            .args(["-cf", "-", "-C"])
            .arg(folder.path("tree"))
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let top = folder.folder(&format!("top{number}"));
        unpack(&output.stdout, &top, Limits::default()).unwrap();
        // GNU's own format has neither parts of seconds nor attributes.
        let simple = options[0] == "--format=gnu";
        let lines = |top: &std::path::Path| -> Vec<_> {
            let strip = |line: String| {
                if simple {
                    line.split(", ").next().unwrap_or_default().to_owned()
                } else {
                    line
                }
            };
            listing(top)
                .into_iter()
                .map(|(path, line)| (path, strip(line)))
                .collect()
        };
        assert_eq!(lines(&folder.path("tree")), lines(&top), "{options:?}");
        assert_eq!(
            fs::read(top.join("d/holes")).unwrap(),
            fs::read(tree.join("holes")).unwrap()
        );
    }
}
