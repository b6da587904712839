use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use chiton_shared::memory::GuestMemory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketAddrUnix;

use super::*;
use crate::ram::Ram;

/// A folder that is gone with the test.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chiton-vsock-{}-{name}", std::process::id()));
        // Of a process that was killed, and had the same number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    fn open(&self) -> (UnixSockets, Option<SocketFile>) {
        Vsock::listen(self.socket(), DEFAULT_CID).unwrap().open().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn asked(sockets: &mut UnixSockets) -> Option<(Socket, u32)> {
    match sockets.next_event()? {
        Event::Asked { socket, port } => Some((socket, port)),
        Event::Ready(_) | Event::Lost(_) => asked(sockets),
    }
}

#[test]
fn what_follows_the_first_line_belongs_to_the_guest() {
    let place = Place::new("line");
    let (mut sockets, _file) = place.open();
    let mut client = UnixStream::connect(place.socket()).unwrap();
    client.write_all(b"CONN").unwrap();
    assert_eq!(asked(&mut sockets), None);
    client.write_all(b"ECT 77\nhello").unwrap();
    let (socket, port) = asked(&mut sockets).unwrap();
    assert_eq!(port, 77);
    sockets.accepted(socket, 1234);
    let mut line = [0; 8];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1234\n");

    let ram = Ram::new(1 << 20).unwrap();
    let window = ram.window(0, 100).unwrap();
    assert_eq!(sockets.read(socket, &[window]), Input::Bytes(5));
    let mut bytes = [0; 5];
    window.read(0, &mut bytes);
    assert_eq!(&bytes, b"hello");
    assert_eq!(sockets.read(socket, &[window]), Input::Empty);
    assert_eq!(sockets.write(socket, b"answer"), Output::Bytes(6));
    sockets.finish(socket);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    drop(client);
    assert_eq!(sockets.read(socket, &[window]), Input::End);
    assert_eq!(sockets.write(socket, b"x"), Output::Closed);
    sockets.close(socket);
    assert!(sockets.sockets.is_empty());
}

#[test]
fn readiness_is_told_again_after_empty_and_full() {
    let place = Place::new("ready");
    let (mut sockets, _file) = place.open();
    let mut client = UnixStream::connect(place.socket()).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    let (socket, _) = asked(&mut sockets).unwrap();
    while sockets.next_event().is_some() {}
    client.write_all(b"x").unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    assert_eq!(sockets.next_event(), None);
    let mut sent = 0;
    while let Output::Bytes(bytes) = sockets.write(socket, &[0; 4096]) {
        sent += bytes;
    }
    assert_eq!(sockets.write(socket, &[0; 4096]), Output::Full);
    client.read_exact(&mut vec![0; sent]).unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
}

/// A client of port 1, and its socket, of which nothing has been told that was not heard.
fn connected(place: &Place) -> (UnixSockets, UnixStream, Socket) {
    let (mut sockets, _file) = place.open();
    let mut client = UnixStream::connect(place.socket()).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    let (socket, _) = asked(&mut sockets).unwrap();
    while sockets.next_event().is_some() {}
    (sockets, client, socket)
}

/// Everything that can be read now, piece by piece, and whether it is the end.
fn read_all(sockets: &mut UnixSockets, socket: Socket) -> (Vec<usize>, bool) {
    let ram = Ram::new(1 << 20).unwrap();
    let window = ram.window(0, 100).unwrap();
    let mut pieces = Vec::new();
    loop {
        match sockets.read(socket, &[window]) {
            Input::Bytes(bytes) => pieces.push(bytes),
            Input::Empty => return (pieces, false),
            Input::End => return (pieces, true),
        }
    }
}

#[test]
fn a_short_read_is_the_last_and_what_comes_after_it_is_told() {
    let place = Place::new("short");
    let (mut sockets, mut client, socket) = connected(&place);
    client.write_all(b"hello").unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    let ram = Ram::new(1 << 20).unwrap();
    let window = ram.window(0, 100).unwrap();
    assert_eq!(sockets.read(socket, &[window]), Input::Bytes(5));
    client.write_all(b"more").unwrap();
    // Nobody looks before epoll tells of it.
    assert_eq!(sockets.read(socket, &[window]), Input::Empty);
    while sockets.next_event() != Some(Event::Ready(socket)) {}
    assert_eq!(read_all(&mut sockets, socket), (vec![4], false));
    // A read that fills all the room is not the last.
    client.write_all(&[1; 150]).unwrap();
    while sockets.next_event() != Some(Event::Ready(socket)) {}
    assert_eq!(read_all(&mut sockets, socket), (vec![100, 50], false));
}

#[test]
fn an_end_behind_the_last_bytes_is_seen_whenever_it_came() {
    let place = Place::new("end");
    let (mut sockets, mut client, socket) = connected(&place);
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    assert_eq!(read_all(&mut sockets, socket), (vec![5], true));

    let place = Place::new("end-later");
    let (mut sockets, mut client, socket) = connected(&place);
    client.write_all(b"hello").unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (pieces, end) = read_all(&mut sockets, socket);
    assert_eq!(pieces, [5]);
    if !end {
        while sockets.next_event() != Some(Event::Ready(socket)) {}
        assert_eq!(read_all(&mut sockets, socket), (vec![], true));
    }
}

#[test]
fn descriptors_and_urgent_bytes_hide_nothing_that_follows_them() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let place = Place::new("fds");
    let (mut sockets, mut client, socket) = connected(&place);
    let fds = [client.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&client, &[io::IoSlice::new(b"with")], &mut control, SendFlags::empty()).unwrap();
    (&client).write_all(b"behind").unwrap();
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    assert_eq!(read_all(&mut sockets, socket).0.iter().sum::<usize>(), 10);

    while sockets.next_event().is_some() {}
    client.write_all(b"before").unwrap();
    // A kernel without urgent bytes of Unix sockets refuses.
    if rustix::net::send(&client, b"!", SendFlags::OOB).is_ok() {
        client.write_all(b"behind").unwrap();
        assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
        let bytes: usize = read_all(&mut sockets, socket).0.iter().sum();
        assert!(bytes >= 12, "{bytes} of 12 bytes and an urgent one");
    }
}

#[test]
fn what_happens_after_a_look_is_told_by_the_next_and_keeps_the_descriptor_ready() {
    let place = Place::new("looks");
    let (mut sockets, _file) = place.open();
    let mut client = UnixStream::connect(place.socket()).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    let (socket, _) = asked(&mut sockets).unwrap();
    while sockets.next_event().is_some() {}
    let watched = sockets.watched().unwrap();
    let ready = || {
        let mut fds = [PollFd::new(&watched, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    for _ in 0..3 {
        assert!(!ready());
        client.write_all(b"x").unwrap();
        assert!(ready());
        assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
        client.write_all(b"y").unwrap();
        // It may be told now or later; until then the descriptor says so.
        assert!(ready());
        while sockets.next_event().is_some() || ready() {}
    }
}

#[test]
fn the_number_of_sockets_is_bounded_and_who_waits_gets_a_turn() {
    let place = Place::new("many");
    let (mut sockets, _file) = place.open();
    let mut clients = Vec::new();
    for _ in 0..MAX_SOCKETS {
        clients.push(UnixStream::connect(place.socket()).unwrap());
        assert_eq!(sockets.next_event(), None);
    }
    let mut late = UnixStream::connect(place.socket()).unwrap();
    late.write_all(b"CONNECT 5\n").unwrap();
    assert_eq!(asked(&mut sockets), None);
    assert_eq!(sockets.sockets.len(), MAX_SOCKETS);
    assert_eq!(sockets.connect(1), Err(Refused));
    drop(clients.pop());
    assert_eq!(asked(&mut sockets).map(|(_, port)| port), Some(5));
}

#[test]
fn the_guest_reaches_who_listens_and_nobody_else() {
    let place = Place::new("out");
    let (mut sockets, _file) = place.open();
    assert_eq!(sockets.connect(80), Err(Refused));
    let listener = UnixListener::bind(place.0.join("s_80")).unwrap();
    let socket = sockets.connect(80).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    assert_eq!(sockets.write(socket, b"hi"), Output::Bytes(2));
    let mut bytes = [0; 2];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hi");
}

#[test]
fn the_file_is_removed_unless_another_took_its_place() {
    let place = Place::new("file");
    let path = place.socket();
    drop(Vsock::listen(&path, DEFAULT_CID).unwrap());
    assert!(!path.exists());

    let vsock = Vsock::listen(&path, DEFAULT_CID).unwrap();
    assert!(matches!(
        Vsock::listen(&path, DEFAULT_CID),
        Err(VsockError::File(SocketFileError::InUse(_)))
    ));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another's").unwrap();
    drop(vsock);
    assert!(path.exists());
    assert!(matches!(
        Vsock::listen(&path, DEFAULT_CID),
        Err(VsockError::File(SocketFileError::NotASocket(_)))
    ));
}

#[test]
fn the_longest_path_has_room_for_any_port() {
    let place = Place::new("longest");
    let longest = |len: usize| {
        let folder = place.socket().parent().unwrap().to_owned();
        let name = "x".repeat(len - folder.as_os_str().len() - 1);
        folder.join(name)
    };
    let most = 107 - LONGEST_SUFFIX;
    let path = longest(most);
    drop(Vsock::listen(&path, DEFAULT_CID).unwrap());
    assert!(SocketAddrUnix::new([path.to_str().unwrap(), "_4294967295"].concat()).is_ok());
    assert!(matches!(
        Vsock::listen(longest(most + 1), DEFAULT_CID),
        Err(VsockError::File(SocketFileError::PathLength { max, .. })) if max == most
    ));
}
