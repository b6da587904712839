//! Registries: a real one, and ones that misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chiton_container::image::progress::Quiet;
use chiton_container::image::registry::{Access, pull, push};
use chiton_container::image::spec::{self, Descriptor, Manifest};
use chiton_container::image::{Digest, Reference, Store};

use crate::support::{Folder, Layout, Tar, assert_whole, skip, tool};

/// Debian's docker-registry, on a port of its own.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(folder: &Folder, auth: &str) -> Option<Self> {
        // Free a moment ago; somebody else may take it, and then the registry ends, and we try again. Who answers says by a
        // word of ours that it is the one that was started here.
        for number in 0..10 {
            let word = format!("chiton-{}", folder.path(&number.to_string()).display());
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n  \
                 headers:\n    X-Test: [\"{word}\"]\n{auth}",
                folder.path("registry").display()
            );
            fs::write(folder.path("config.yml"), config).unwrap();
            let mut command = Command::new("docker-registry");
            command
                .arg("serve")
                .arg(folder.path("config.yml"))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let Ok(mut child) = command.spawn() else {
                skip("docker-registry is not installed");
                return None;
            };
            while child.try_wait().unwrap().is_none() {
                if says(&host, &word) {
                    return Some(Self { child, host });
                }
                thread::yield_now();
            }
        }
        panic!("docker-registry does not start");
    }

    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

/// Whether somebody answers there, with this word.
fn says(host: &str, word: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(host)?;
        // Somebody else may have nothing to say.
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /v2/ HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(word))
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn layers() -> Vec<Vec<u8>> {
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    vec![
        Tar::new().file("big", &content).end(),
        Tar::new().file(".wh.big", b"").file("small", b"x").end(),
    ]
}

#[test]
fn what_is_pushed_is_pulled_again_by_us_and_by_skopeo() {
    let folder = Folder::new();
    let Some(registry) = Registry::start(&folder, "") else {
        return;
    };
    let store = folder.store();
    let image = Layout::of(folder.path("layout"), "localhost/x:1", &layers())
        .import(&store)
        .unwrap()
        .remove(0);
    let access = Access::anonymous(false);
    let name = registry.name("a/b:1");
    push(&store, &image, &name, &access, &Quiet).unwrap();
    // Again: everything is there already.
    push(&store, &image, &name, &access, &Quiet).unwrap();

    let other = Store::open(folder.path("other")).unwrap();
    let pulled = pull(&other, &name, &access, &Quiet).unwrap();
    assert_eq!(pulled.digest(), image.digest());
    assert_eq!(pulled.name.as_ref(), Some(&name));
    other.unpacked(&pulled, &Quiet).unwrap();
    let by_digest = registry.name(&format!("a/b@{}", image.digest()));
    assert_eq!(
        pull(&other, &by_digest, &access, &Quiet).unwrap().digest(),
        image.digest()
    );

    let error = pull(&other, &registry.name("a/b:none"), &access, &Quiet)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("status 404") && error.contains(&registry.host),
        "{error}"
    );

    let copy = folder.path("copy");
    let (from, to) = (format!("docker://{name}"), format!("oci:{}:x", copy.display()));
    if tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to]).is_none() {
        return;
    }
    assert!(copy.join("blobs/sha256").join(image.digest().hex()).exists());
    // And the other way: what skopeo pushes, in docker's own format too.
    for (format, tag) in [("oci", "s1"), ("v2s2", "s2")] {
        let there = registry.name(&format!("a/c:{tag}"));
        let to = format!("docker://{there}");
        let from = format!("oci:{}:x", copy.display());
        tool(
            "skopeo",
            &["copy", "-q", "--dest-tls-verify=false", "--format", format, &from, &to],
        )
        .unwrap();
        let back = pull(&other, &there, &access, &Quiet).unwrap();
        assert_eq!(back.config.rootfs, image.config.rootfs);
        other.unpacked(&back, &Quiet).unwrap();
    }
    drop(other);
    assert_whole(&folder.path("other"));
}

/// `user` with the password `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2y$05$";

#[test]
fn a_registry_that_wants_a_password_gets_it_and_says_so_without() {
    let folder = Folder::new();
    // The registry takes bcrypt alone; Python's crypt makes it.
    let script = "import crypt; print(crypt.crypt('secret', '$2b$05$' + 'abcdefghijklmnopqrstuu'))";
    let Some(hash) = tool("python3", &["-W", "ignore", "-c", script]) else {
        return;
    };
    assert!(hash.starts_with("$2b$"), "{hash} (as {HTPASSWD})");
    fs::write(
        folder.path("htpasswd"),
        format!("user:{}", hash.replacen("$2b$", "$2y$", 1)),
    )
    .unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        folder.path("htpasswd").display()
    );
    let Some(registry) = Registry::start(&folder, &auth) else {
        return;
    };
    let store = folder.store();
    let image = Layout::of(folder.path("layout"), "localhost/x:1", &layers())
        .import(&store)
        .unwrap()
        .remove(0);
    let name = registry.name("x:1");
    let error = push(&store, &image, &name, &Access::anonymous(false), &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("wants a name and a password"), "{error}");
    let file = folder.path("auth.json");
    let write = |password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
        fs::write(
            &file,
            format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host),
        )
        .unwrap();
        Access::new(false, Some(&file)).unwrap()
    };
    let error = push(&store, &image, &name, &write("wrong"), &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("401"), "{error}");
    assert!(!format!("{:?}", write("secret")).contains("c2VjcmV0"));
    push(&store, &image, &name, &write("secret"), &Quiet).unwrap();
    let other = Store::open(folder.path("other")).unwrap();
    assert_eq!(
        pull(&other, &name, &write("secret"), &Quiet).unwrap().digest(),
        image.digest()
    );
}

/// A server that answers as a function says. The requests that it got are kept.
struct Server {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answer: impl Fn(&str, &str, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, own) = (Arc::clone(&seen), host.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
                kept.lock().unwrap().push(head.clone());
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = stream.write_all(&answer(&path, &head, &own));
            }
        });
        Self { host, seen }
    }

    fn pull_into(&self, folder: &Folder) -> Result<(), String> {
        let store = folder.store();
        let name: Reference = format!("{}/x:1", self.host).parse().unwrap();
        let access = Access::anonymous(false);
        let result = pull(&store, &name, &access, &Quiet)
            .map(|_| ())
            .map_err(|error| error.to_string());
        if result.is_err() {
            assert!(store.entries().unwrap().is_empty());
        }
        drop(store);
        assert_whole(&folder.path("store"));
        result
    }
}

fn ok(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Manifest, configuration and layer of an image.
#[derive(Clone)]
struct Parts {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn parts() -> Parts {
    let layer = Tar::new().file("a", &[7; 5000]).end();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    );
    let config = config.into_bytes();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(spec::MANIFEST.into()),
        config: Descriptor::of(spec::CONFIG, &config),
        layers: vec![Descriptor::of(spec::LAYER, &layer)],
        annotations: Default::default(),
    };
    Parts {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        config,
        layer,
    }
}

impl Parts {
    fn answer(&self, path: &str) -> Vec<u8> {
        if path.contains("/manifests/") {
            ok(spec::MANIFEST, &self.manifest)
        } else if path.ends_with(&Digest::of(&self.config).hex()) {
            ok("application/octet-stream", &self.config)
        } else if path.ends_with(&Digest::of(&self.layer).hex()) {
            ok("application/octet-stream", &self.layer)
        } else {
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
    }
}

#[test]
fn a_token_is_asked_for_where_the_registry_says_and_shown_to_it_alone() {
    let folder = Folder::new();
    let parts = parts();
    let server = Server::new(move |path, head, own| {
        if path.starts_with("/token") {
            assert!(
                path.contains("scope=repository%3Ax%3Apull") && path.contains("service=test"),
                "{path}"
            );
            return ok("application/json", br#"{"token":"abc"}"#);
        }
        if head.contains("Authorization: Bearer abc") {
            return parts.answer(path);
        }
        format!("HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    server.pull_into(&folder).unwrap();
    let seen = server.seen.lock().unwrap();
    assert_eq!(
        seen.iter().filter(|head| head.starts_with("GET /token")).count(),
        1,
        "{seen:?}"
    );
}

#[test]
fn a_redirect_is_followed_without_telling_who_we_are() {
    let folder = Folder::new();
    let parts = parts();
    let store = parts.clone();
    let storage = Server::new(move |path, _, _| store.answer(path));
    let there = storage.host.clone();
    let server = Server::new(move |path, head, own| {
        if path.starts_with("/token") {
            return ok("application/json", br#"{"access_token":"abc"}"#);
        }
        if !head.contains("Bearer abc") {
            return format!("HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n\r\n")
                .into_bytes();
        }
        if path.contains("/blobs/") {
            return format!("HTTP/1.1 307 There\r\nLocation: http://{there}{path}\r\nContent-Length: 0\r\n\r\n")
                .into_bytes();
        }
        parts.answer(path)
    });
    server.pull_into(&folder).unwrap();
    let seen = storage.seen.lock().unwrap();
    assert!(
        seen.len() == 2 && seen.iter().all(|head| !head.contains("Authorization")),
        "{seen:?}"
    );
}

#[test]
fn a_download_that_breaks_off_is_taken_up_where_it_stopped() {
    let folder = Folder::new();
    let parts = parts();
    let server = Server::new(move |path, head, _| {
        let whole = parts.answer(path);
        if !path.ends_with(&Digest::of(&parts.layer).hex()) {
            return whole;
        }
        match head.split("bytes=").nth(1).and_then(|rest| rest.split('-').next()) {
            None => whole[..whole.len() - 4000].to_vec(),
            Some(from) => {
                let rest = &parts.layer[from.parse::<usize>().unwrap()..];
                let head = format!("HTTP/1.1 206 Partial\r\nContent-Length: {}\r\n\r\n", rest.len());
                // Once more.
                let end = if rest.len() > 3000 { 1500 } else { rest.len() };
                [head.as_bytes(), &rest[..end]].concat()
            }
        }
    });
    server.pull_into(&folder).unwrap();
    let seen = server.seen.lock().unwrap();
    let ranges = seen.iter().filter(|head| head.contains("Range: bytes=")).count();
    assert!(ranges >= 2, "{seen:?}");
}

#[test]
fn registries_that_lie_or_lead_astray_are_refused() {
    let refuse = |change: fn(&Parts, &str) -> Vec<u8>, words: &str| {
        let folder = Folder::new();
        let parts = parts();
        let server = Server::new(move |path, _, _| change(&parts, path));
        let error = server.pull_into(&folder).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    refuse(
        |_, _| b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "status 500",
    );
    refuse(|_, _| b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), "no HTTP");
    refuse(|_, _| Vec::new(), "head of the answer");
    refuse(|_, _| ok("application/json", b"{}"), "missing field");
    refuse(|_, _| ok("application/json", &vec![b' '; 5 << 20]), "4 MiB");
    refuse(
        |parts, path| {
            if path.contains("manifests") {
                parts.answer(path)
            } else {
                ok("x", &[0; 9])
            }
        },
        "bytes instead of",
    );
    // Whatever else is asked for: the manifest alone says that it is too much.
    for (what, words) in [("config", "its configuration has"), ("layers", "its layers have")] {
        let mut manifest: Manifest = serde_json::from_slice(&parts().manifest).unwrap();
        match what {
            "config" => manifest.config.size = 1 << 40,
            _ => manifest.layers[0].size = 1 << 40,
        }
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let server = Server::new(move |path, _, _| {
            assert!(path.contains("manifests"), "{path}");
            ok(spec::MANIFEST, &bytes)
        });
        let error = server.pull_into(&Folder::new()).unwrap_err();
        assert!(error.contains(words) && error.contains("1099511627776"), "{error}");
    }
    refuse(
        |parts, path| {
            let mut answer = parts.answer(path);
            if path.ends_with(&Digest::of(&parts.layer).hex()) {
                let last = answer.len() - 1;
                answer[last] ^= 1;
            }
            answer
        },
        "does not have the digest",
    );
    refuse(
        |parts, _| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nDocker-Content-Digest: {}\r\n\r\n",
                Digest::of(b"other")
            );
            [head.as_bytes(), &parts.manifest].concat()
        },
        "does not have the digest",
    );
    refuse(
        |_, path| format!("HTTP/1.1 302 On\r\nLocation: {path}x\r\nContent-Length: 0\r\n\r\n").into_bytes(),
        "status 302",
    );
    refuse(
        |_, _| b"HTTP/1.1 302 On\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "--insecure",
    );
    refuse(
        |_, _| b"HTTP/1.1 302 On\r\nLocation: file:///etc/passwd\r\n\r\n".to_vec(),
        "no http address",
    );
    refuse(
        |_, _| b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "not known here",
    );
    refuse(
        |_, _| {
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://192.0.2.1/\"\r\nContent-Length: 0\r\n\r\n"
                .to_vec()
        },
        "--insecure",
    );
}

#[test]
fn a_registry_that_is_not_there_is_said_to_be_so() {
    let folder = Folder::new();
    // A port that is somebody's who does not listen.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    rustix::net::bind(&socket, &nowhere).unwrap();
    let address = SocketAddrV4::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let name: Reference = format!("{address}/x").parse().unwrap();
    let error = pull(&folder.store(), &name, &Access::anonymous(false), &Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot connect: Connection refused"), "{error}");
    assert!(error.ends_with("that a registry runs there"), "{error}");
    assert!(Access::new(false, Some(Path::new("/nonexistent"))).is_err());
    let mut rest = Vec::new();
    std::io::empty().read_to_end(&mut rest).unwrap();
}
