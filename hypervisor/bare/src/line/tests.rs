//! Both ends, with a wire between them that a test can spoil.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard};

use proptest::prelude::*;

use super::far::into_window;
use super::near::Told;
use super::*;
use chiton_core::devices::net::{Link, Received, Sent, Status};
use chiton_core::devices::vsock::{Event, Refused, Socket, Sockets};
use chiton_core::devices::{Input, Output};
use chiton_shared::memory::Window;
use chiton_shared::virtio::net::Header;
use spin::Mutex;

/// A socket of the other end: what it sends, and what came to it.
#[derive(Debug, Default)]
struct End {
    input: VecDeque<u8>,
    output: Vec<u8>,
    port: Option<u32>,
    finished: bool,
}

#[derive(Debug)]
struct Host {
    events: VecDeque<Event>,
    ends: BTreeMap<Socket, End>,
    last: u64,
    /// How much a socket takes at most.
    room: usize,
    status: Status,
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

/// The only port of the host that somebody serves.
const SERVED: u32 = 7;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// What is at the other end; clones are the same.
#[derive(Clone, Debug)]
struct Fake(Arc<StdMutex<Host>>);

impl Fake {
    fn new() -> Self {
        Self(Arc::new(StdMutex::new(Host {
            events: VecDeque::new(),
            ends: BTreeMap::new(),
            last: 0,
            room: usize::MAX,
            status: Status::Up,
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
        })))
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap()
    }

    /// Somebody asks for a port of the guest, and sends these bytes already.
    fn ask(&self, port: u32, bytes: &[u8]) -> Socket {
        let mut host = self.host();
        let socket = host.add();
        host.events.push_back(Event::Asked { socket, port });
        host.ends.get_mut(&socket).unwrap().input.extend(bytes);
        socket
    }

    fn far(&self) -> Far {
        let environment = ["CHITON_NET0_IP=10.0.0.2/24".to_owned()];
        Far::new(&environment).sockets(42, self.clone()).link(self.clone())
    }
}

impl Host {
    fn add(&mut self) -> Socket {
        self.last += 1;
        let socket = Socket(self.last);
        self.ends.insert(socket, End::default());
        socket
    }
}

impl Sockets for Fake {
    fn next_event(&mut self) -> Option<Event> {
        self.host().events.pop_front()
    }

    fn connect(&mut self, port: u32) -> Result<Socket, Refused> {
        (port == SERVED).then(|| self.host().add()).ok_or(Refused)
    }

    fn accepted(&mut self, socket: Socket, port: u32) {
        self.host().ends.get_mut(&socket).unwrap().port = Some(port);
    }

    fn read(&mut self, socket: Socket, to: &[Window<'_>]) -> Input {
        let mut host = self.host();
        let end = host.ends.get_mut(&socket).unwrap();
        let len = to[0].len().min(end.input.len());
        let bytes: Vec<u8> = end.input.drain(..len).collect();
        to[0].write(0, &bytes);
        if len == 0 { Input::Empty } else { Input::Bytes(len) }
    }

    fn write(&mut self, socket: Socket, from: &[u8]) -> Output {
        let mut host = self.host();
        let len = from.len().min(host.room);
        host.ends.get_mut(&socket).unwrap().output.extend(&from[..len]);
        if len == 0 { Output::Full } else { Output::Bytes(len) }
    }

    fn finish(&mut self, socket: Socket) {
        self.host().ends.get_mut(&socket).unwrap().finished = true;
    }

    fn close(&mut self, socket: Socket) {
        self.host().ends.remove(&socket);
    }
}

impl Link for Fake {
    fn mac(&self) -> [u8; 6] {
        MAC
    }

    fn mtu(&self) -> u16 {
        9000
    }

    fn offloads(&self) -> u64 {
        u64::MAX
    }

    fn set_offloads(&mut self, features: u64) {
        assert_eq!(features, 0);
    }

    fn status(&mut self) -> Status {
        self.host().status
    }

    fn receive(&mut self, _pair: usize, _header: &mut [u8; Header::SIZE], to: &[Window<'_>]) -> Received {
        let Some(frame) = self.host().incoming.pop_front() else {
            return Received::Empty;
        };
        if frame.len() > to[0].len() {
            return Received::TooLong;
        }
        to[0].write(0, &frame);
        Received::Frame(frame.len())
    }

    fn send(&mut self, _pair: usize, header: &[u8; Header::SIZE], frame: &[Window<'_>]) -> Sent {
        assert_eq!(header, &[0; Header::SIZE]);
        let mut bytes = vec![0; frame[0].len()];
        frame[0].read(0, &mut bytes);
        self.host().outgoing.push(bytes);
        Sent::Done
    }
}

/// A wire to the other end, which is there as long as `far` is.
struct Spoilt {
    far: Arc<StdMutex<Option<Far>>>,
    coming: VecDeque<u8>,
    /// Of how many bytes one is lost or changed, and the state of the dice.
    one_of: u64,
    dice: u64,
    now: AtomicU64,
}

impl Spoilt {
    fn throw(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn pass(&mut self, byte: u8) -> Option<u8> {
        let thrown = self.throw();
        match (thrown % self.one_of, thrown >> 32 & 1) {
            (0, 0) => None,
            (0, _) => Some(byte ^ (thrown >> 40) as u8),
            _ => Some(byte),
        }
    }
}

impl Wire for Spoilt {
    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Some(byte) = self.pass(*byte) else { continue };
            let far = Arc::clone(&self.far);
            let mut far = far.lock().unwrap();
            let answer = far.as_mut().and_then(|far| far.take(byte)).map(<[u8]>::to_vec);
            for byte in answer.unwrap_or_default() {
                let passed = self.pass(byte);
                self.coming.extend(passed);
            }
        }
    }

    fn receive(&mut self) -> Option<u8> {
        self.coming.pop_front()
    }

    /// Each question finds the pause over.
    fn now_ns(&self) -> u64 {
        self.now.fetch_add(10_000_000, Ordering::Relaxed)
    }
}

/// A line, what is told of the other end, and that end.
type Ends = (Arc<Mutex<Line<Spoilt>>>, Told, Arc<StdMutex<Option<Far>>>);

/// A line that is good, or not so good, and the other end of it.
fn line(host: &Fake, one_of: u64, dice: u64) -> Ends {
    let far = Arc::new(StdMutex::new(Some(host.far())));
    let wire = Spoilt {
        far: Arc::clone(&far),
        coming: VecDeque::new(),
        one_of,
        dice: dice | 1,
        now: AtomicU64::new(0),
    };
    let (line, told) = Line::open(wire, "com2").unwrap();
    (line, told, far)
}

fn good(host: &Fake) -> Ends {
    line(host, u64::MAX, 1)
}

/// All that a socket has to be read, in pieces for which there is so much room.
fn read_all(sockets: &mut LineSockets<Spoilt>, socket: Socket, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; room];
    while let Input::Bytes(bytes) = into_window(&mut buffer, |to| sockets.read(socket, &[to])) {
        all.extend(&buffer[..bytes]);
    }
    all
}

#[test]
fn a_guest_is_told_what_is_there_for_it() {
    let (_, told, _) = good(&Fake::new());
    assert_eq!(told.sockets, Some(42));
    // Frames of 9000 bytes are not for a line.
    assert_eq!(told.link, Some((MAC, 1500)));
    assert_eq!(told.environment, ["CHITON_NET0_IP=10.0.0.2/24"]);
}

#[test]
fn bytes_go_both_ways() {
    let host = Fake::new();
    let (line, ..) = good(&host);
    let mut sockets = LineSockets::new(line);
    assert_eq!(sockets.next_event(), None);
    let long: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let socket = host.ask(5000, &long);
    assert_eq!(sockets.next_event(), Some(Event::Asked { socket, port: 5000 }));
    assert_eq!(sockets.next_event(), None);
    sockets.accepted(socket, 77);
    assert_eq!(read_all(&mut sockets, socket, 4096), long);
    // No more than one call carries; the rest is written by the next.
    assert_eq!(sockets.write(socket, &long), Output::Bytes(MAX_BYTES));
    host.host().room = 3;
    assert_eq!(sockets.write(socket, b"more"), Output::Bytes(3));
    host.host().room = 0;
    assert_eq!(sockets.write(socket, b"more"), Output::Full);
    host.host().events.push_back(Event::Ready(socket));
    assert_eq!(sockets.next_event(), Some(Event::Ready(socket)));
    sockets.finish(socket);
    {
        let host = host.host();
        let end = &host.ends[&socket];
        assert_eq!((end.port, end.finished), (Some(77), true));
        assert_eq!(end.output, [&long[..MAX_BYTES], b"mor"].concat());
    }
    sockets.close(socket);
    assert!(host.host().ends.is_empty());
    assert_eq!(sockets.connect(8), Err(Refused));
    assert!(sockets.connect(SERVED).is_ok());
}

#[test]
fn frames_go_both_ways() {
    let host = Fake::new();
    let (line, told, _) = good(&host);
    let (mac, mtu) = told.link.unwrap();
    let mut link = LineLink::new(line, mac, mtu);
    assert_eq!((link.status(), link.offloads()), (Status::Up, 0));
    let mut header = [9; Header::SIZE];
    let mut buffer = vec![0; MAX_ETHERNET];
    let mut receive = |link: &mut LineLink<_>| into_window(&mut buffer, |to| link.receive(0, &mut header, &[to]));
    assert_eq!(receive(&mut link), Received::Empty);
    host.host()
        .incoming
        .extend([vec![1; MAX_ETHERNET], vec![2; 60], vec![3; 2000]]);
    assert_eq!(receive(&mut link), Received::Frame(MAX_ETHERNET));
    assert_eq!(receive(&mut link), Received::Frame(60));
    assert_eq!(receive(&mut link), Received::Empty);
    assert_eq!(
        (header, &buffer[..61]),
        ([0; Header::SIZE], &[&[2; 60][..], &[1]].concat()[..])
    );
    let mut frame = *b"a frame that goes out";
    assert_eq!(
        into_window(&mut frame, |frame| link.send(0, &[0; Header::SIZE], &[frame])),
        Sent::Done
    );
    assert_eq!(host.host().outgoing, [frame]);
    host.host().status = Status::Down;
    assert_eq!(link.status(), Status::Down);
}

#[test]
fn a_frame_that_nobody_takes_holds_no_event_back() {
    let host = Fake::new();
    let (line, told, _) = good(&host);
    let (mac, mtu) = told.link.unwrap();
    let mut sockets = LineSockets::new(Arc::clone(&line));
    let mut link = LineLink::new(line, mac, mtu);
    host.host().incoming.push_back(vec![1; 60]);
    // What is looked at of a device that has no driver is the state of its link.
    assert_eq!(link.status(), Status::Up);
    assert_eq!(sockets.next_event(), None);
    let socket = host.ask(5000, b"");
    assert_eq!(link.status(), Status::Up);
    assert_eq!(sockets.next_event(), Some(Event::Asked { socket, port: 5000 }));
}

#[test]
fn an_event_that_nobody_takes_holds_no_frame_back() {
    let host = Fake::new();
    let (line, told, _) = good(&host);
    let (mac, mtu) = told.link.unwrap();
    let mut sockets = LineSockets::new(Arc::clone(&line));
    let mut link = LineLink::new(line, mac, mtu);
    let mut buffer = [0; 60];
    let mut receive =
        |link: &mut LineLink<_>| into_window(&mut buffer, |to| link.receive(0, &mut [0; Header::SIZE], &[to]));
    let socket = host.ask(5000, b"");
    assert_eq!(receive(&mut link), Received::Empty);
    host.host().incoming.push_back(vec![1; 60]);
    assert_eq!(receive(&mut link), Received::Frame(60));
    host.host().status = Status::Down;
    assert_eq!(link.status(), Status::Down);
    // It is there for whoever takes it in the end.
    assert_eq!(sockets.next_event(), Some(Event::Asked { socket, port: 5000 }));
}

#[test]
fn a_line_that_is_cut_resets_connections_and_takes_the_link_down() {
    let host = Fake::new();
    let (line, told, far) = good(&host);
    let (mac, mtu) = told.link.unwrap();
    let mut sockets = LineSockets::new(Arc::clone(&line));
    let mut link = LineLink::new(line, mac, mtu);
    let first = sockets.connect(SERVED).unwrap();
    let second = sockets.connect(SERVED).unwrap();
    *far.lock().unwrap() = None;
    assert_eq!(sockets.write(first, b"lost"), Output::Full);
    assert_eq!(into_window(&mut [0; 8], |to| sockets.read(second, &[to])), Input::Empty);
    assert_eq!(sockets.next_event(), Some(Event::Lost(first)));
    sockets.close(second);
    assert_eq!(sockets.next_event(), None);
    assert_eq!(sockets.connect(SERVED), Err(Refused));
    assert_eq!(link.status(), Status::Gone);
    let sent = into_window(&mut [0; 60], |frame| link.send(0, &[0; Header::SIZE], &[frame]));
    assert_eq!(sent, Sent::Gone);
}

#[test]
fn a_second_guest_finds_nothing_of_the_first() {
    let host = Fake::new();
    let (line, _, far) = good(&host);
    let mut sockets = LineSockets::new(line);
    sockets.connect(SERVED).unwrap();
    host.host().incoming.push_back(vec![1; 60]);
    assert_eq!(sockets.next_event(), None);
    let waiting = host.ask(9, b"");
    let wire = Spoilt {
        far: Arc::clone(&far),
        coming: VecDeque::new(),
        one_of: u64::MAX,
        dice: 1,
        now: AtomicU64::new(0),
    };
    let (line, _) = Line::open(wire, "com2").unwrap();
    assert_eq!(host.host().ends.keys().collect::<Vec<_>>(), [&waiting]);
    let mut sockets = LineSockets::new(line);
    assert_eq!(
        sockets.next_event(),
        Some(Event::Asked {
            socket: waiting,
            port: 9
        })
    );
}

#[test]
fn nobody_at_the_other_end_is_said() {
    let wire = Spoilt {
        far: Arc::default(),
        coming: VecDeque::new(),
        one_of: u64::MAX,
        dice: 1,
        now: AtomicU64::new(0),
    };
    let error = Line::open(wire, "com3").map(|_| ()).unwrap_err();
    assert_eq!(error, LineError::Silent("com3"));
}

/// Answers each question with the same body, whatever it is.
struct Parrot {
    reader: Reader,
    body: Vec<u8>,
    coming: VecDeque<u8>,
}

impl Wire for Parrot {
    fn send(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some((sequence, _)) = self.reader.take(*byte) {
                let mut answer = Vec::new();
                frame::write(sequence, &self.body, &mut answer);
                self.coming.extend(answer);
            }
        }
    }

    fn receive(&mut self) -> Option<u8> {
        self.coming.pop_front()
    }

    fn now_ns(&self) -> u64 {
        0
    }
}

fn parrot(body: &[u8]) -> Parrot {
    Parrot {
        reader: Reader::default(),
        body: body.to_vec(),
        coming: VecDeque::new(),
    }
}

#[test]
fn another_version_is_refused() {
    let error = Line::open(parrot(&[0, 1, 9, 0]), "com2").map(|_| ()).unwrap_err();
    assert_eq!(error, LineError::Version(9));
    let error = Line::open(parrot(&[0, 2]), "com2").map(|_| ()).unwrap_err();
    assert_eq!(error, LineError::Nonsense);
}

proptest! {
    /// Whatever is lost or changed on the way, each byte arrives, once and in order.
    #[test]
    fn noise_costs_time_and_nothing_else(one_of in 150_u64..600, dice in any::<u64>(), sizes in prop::collection::vec(1_usize..300, 1..6)) {
        let host = Fake::new();
        let (line, ..) = line(&host, one_of, dice);
        let mut sockets = LineSockets::new(line);
        let bytes: Vec<u8> = (0..400_u32).map(|n| (n * 7) as u8).collect();
        let socket = host.ask(5000, &bytes);
        prop_assert_eq!(sockets.next_event(), Some(Event::Asked { socket, port: 5000 }));
        // Short frames: one of 1024 bytes would never get through so much noise.
        prop_assert_eq!(read_all(&mut sockets, socket, 50), bytes.clone());
        let mut sent = Vec::new();
        for size in sizes {
            for piece in bytes[..size].chunks(50) {
                prop_assert_eq!(sockets.write(socket, piece), Output::Bytes(piece.len()));
                sent.extend(piece);
            }
        }
        prop_assert_eq!(&host.host().ends[&socket].output, &sent);
    }

    /// An end that answers whatever it likes makes the line useless, and nothing worse.
    #[test]
    fn a_hostile_end_is_of_no_use(body in prop::collection::vec(any::<u8>(), 0..64), first in 0_u8..8, kind in 0_u8..10) {
        let greeting = parrot(&[0, 1, VERSION, 3, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0xdc, 5]);
        let (line, told) = Line::open(greeting, "com2").unwrap();
        prop_assert_eq!((told.sockets, told.link), (Some(9), Some(([2, 0, 0, 0, 0, 1], 1500))));
        line.lock().wire_mut().body = [&[first, kind], &body[..]].concat();
        let mut sockets = LineSockets::new(Arc::clone(&line));
        let mut link = LineLink::new(line, MAC, 1500);
        let mut room = [0; 32];
        for _ in 0..4 {
            sockets.next_event();
            let _ = sockets.connect(1);
            if let Input::Bytes(bytes) = into_window(&mut room, |to| sockets.read(Socket(1), &[to])) {
                prop_assert!((1..=32).contains(&bytes));
            }
            if let Output::Bytes(bytes) = sockets.write(Socket(1), b"abc") {
                prop_assert!((1..=3).contains(&bytes));
            }
            sockets.close(Socket(1));
            let received = into_window(&mut room, |to| link.receive(0, &mut [0; Header::SIZE], &[to]));
            prop_assert!(!matches!(received, Received::Frame(33..)));
            into_window(&mut room, |frame| link.send(0, &[0; Header::SIZE], &[frame]));
        }
    }

    /// Whatever the machine sends, the other end answers or does not.
    #[test]
    fn a_hostile_machine_gets_answers(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut far = Far::new(&[]);
        for (sequence, body) in (0..).zip(bytes.chunks(16)) {
            let mut frame = Vec::new();
            frame::write(sequence, body, &mut frame);
            for byte in frame {
                far.take(byte);
            }
        }
    }
}
