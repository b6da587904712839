use std::vec::Vec;

use chiton_shared::virtio::ring::Buffer;
use chiton_shared::virtio::vsock::{HOST_CID, Header, RECEIVE, TRANSMIT, TYPE_STREAM, op, shutdown};
use proptest::prelude::*;

use super::super::testing::{BUFFERS, END, Memory, Rig, WORLD, config};
use super::super::{Device, DeviceError};
use super::connection::ROOM;
use super::fake::FakeSockets;
use super::sockets::{Event, Socket};
use super::{MAX_CONNECTIONS, MAX_RESETS, Vsock};

const CID: u64 = 42;
/// Where the packets of these tests are, outgoing and incoming, each used again and again.
const OUT: u64 = BUFFERS;
const IN: u64 = BUFFERS + 0x4000;
const IN_LEN: u32 = 0x1000;

/// A guest that keeps its own count of credit only where a test says so.
struct Guest<'m> {
    rig: Rig<'m>,
    host: FakeSockets,
}

impl<'m> Guest<'m> {
    fn new(memory: &'m Memory) -> Self {
        let host = FakeSockets::default();
        let rig = Rig::new(memory, Vsock::new(CID, host.clone()));
        Self { rig, host }
    }

    fn send_raw(&mut self, bytes: &[u8]) {
        self.rig.memory.write(OUT, bytes);
        self.rig.queues[TRANSMIT]
            .add(&[Buffer::readable(OUT, bytes.len() as u32)])
            .expect("room in the queue");
        self.rig.process_all();
        assert_eq!(self.rig.take(TRANSMIT), Some(0));
    }

    fn send(&mut self, header: Header, body: &[u8]) {
        self.send_raw(&[&header.to_bytes(), body].concat());
    }

    fn op(&mut self, op: u16, guest: u32, host: u32) {
        self.send(from_guest(op, guest, host), &[]);
    }

    fn bytes(&mut self, guest: u32, host: u32, body: &[u8]) {
        let len = body.len() as u32;
        self.send(
            Header {
                len,
                ..from_guest(op::RW, guest, host)
            },
            body,
        );
    }

    /// The next packet, if there is one.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        if self.rig.queues[RECEIVE].free() == self.rig.queues[RECEIVE].size() {
            self.rig.queues[RECEIVE]
                .add(&[Buffer::writable(IN, IN_LEN)])
                .expect("room in the queue");
        }
        self.rig.process_all();
        let written = self.rig.take(RECEIVE)? as usize;
        let packet = self.rig.memory.read(IN, written);
        let (header, body) = packet.split_first_chunk().expect("a header");
        let header = Header::from_bytes(header);
        assert_eq!(header.dst_cid, CID);
        assert_eq!(header.len as usize, body.len());
        assert!(
            header.op == op::RST || header.buf_alloc == ROOM,
            "room belongs to each packet"
        );
        Some((header, body.to_vec()))
    }

    fn receive_op(&mut self) -> Option<u16> {
        self.receive().map(|(header, _)| header.op)
    }

    /// A connection that a host client asked for and the guest has accepted.
    fn accepted(&mut self, port: u32) -> (Socket, u32) {
        let socket = self.host.ask(port);
        let (header, _) = self.receive().expect("a request");
        assert_eq!((header.op, header.dst_port), (op::REQUEST, port));
        self.op(op::RESPONSE, port, header.src_port);
        assert_eq!(self.host.at(socket, |end| end.port), Some(header.src_port));
        (socket, header.src_port)
    }

    /// A connection that the guest asked for.
    fn connected(&mut self, guest: u32, host: u32) -> Socket {
        self.host.state().served.push(host);
        self.op(op::REQUEST, guest, host);
        assert_eq!(self.receive_op(), Some(op::RESPONSE));
        Socket(self.host.state().made)
    }

    fn open(&self) -> usize {
        self.host.state().ends.len()
    }
}

fn from_guest(op: u16, guest: u32, host: u32) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: TYPE_STREAM,
        op,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

#[test]
fn a_host_client_and_the_guest_talk() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5000);
    guest.host.at(socket, |end| end.input.extend(b"question"));
    let (header, body) = guest.receive().expect("bytes");
    assert_eq!((header.op, header.src_port, header.dst_port), (op::RW, port, 5000));
    assert_eq!(body, b"question");
    assert_eq!(header.buf_alloc, ROOM);
    guest.bytes(5000, port, b"answer");
    assert_eq!(guest.host.at(socket, |end| end.output.clone()), b"answer");
    assert_eq!(guest.receive(), None);
}

#[test]
fn the_guest_connects_where_somebody_serves_and_nowhere_else() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.op(op::REQUEST, 1, 80);
    assert_eq!(guest.receive_op(), Some(op::RST));
    let socket = guest.connected(1, 80);
    guest.bytes(1, 80, b"hello");
    assert_eq!(guest.host.at(socket, |end| end.output.clone()), b"hello");
}

#[test]
fn a_guest_that_refuses_closes_the_clients_socket() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.host.ask(9);
    let (header, _) = guest.receive().expect("a request");
    guest.op(op::RST, 9, header.src_port);
    assert_eq!(guest.open(), 0);
    assert_eq!(guest.receive(), None);
}

#[test]
fn each_direction_ends_by_itself() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5);
    guest.host.at(socket, |end| {
        end.input.extend(b"last words");
        end.input_ended = true;
    });
    assert_eq!(guest.receive().expect("bytes").1, b"last words");
    let (header, _) = guest.receive().expect("the end");
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shutdown::SEND));
    assert_eq!(guest.receive(), None);

    guest.bytes(5, port, b"mine");
    assert!(!guest.host.at(socket, |end| end.finished));
    let header = from_guest(op::SHUTDOWN, 5, port);
    let flags = shutdown::SEND;
    guest.send(Header { flags, ..header }, &[]);
    assert!(guest.host.at(socket, |end| end.finished && end.output == b"mine"));
    assert_eq!(guest.receive(), None);
    let flags = shutdown::BOTH;
    guest.send(Header { flags, ..header }, &[]);
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!(guest.open(), 0);
}

#[test]
fn a_connection_ends_only_when_the_host_has_everything() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5);
    guest.host.at(socket, |end| end.room = 2);
    guest.bytes(5, port, b"abcd");
    assert!(guest.rig.transport.interest().writable);
    let flags = shutdown::BOTH;
    let header = from_guest(op::SHUTDOWN, 5, port);
    guest.send(Header { flags, ..header }, &[]);
    assert_eq!((guest.open(), guest.receive()), (1, None));
    guest.host.at(socket, |end| end.room = 2);
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!(guest.open(), 0);
}

#[test]
fn a_connection_whose_host_is_lost_is_reset() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5000);
    let asked = guest.host.ask(6000);
    assert_eq!(guest.receive_op(), Some(op::REQUEST));
    let lost = [socket, asked, Socket(99)].map(Event::Lost);
    guest.host.state().events.extend(lost);
    let (header, _) = guest.receive().expect("a reset");
    assert_eq!((header.op, header.src_port, header.dst_port), (op::RST, port, 5000));
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!((guest.receive(), guest.open()), (None, 0));
}

#[test]
fn bytes_for_the_guest_wait_for_its_credit() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let socket = guest.host.ask(5);
    let (header, _) = guest.receive().expect("a request");
    let port = header.src_port;
    let small = Header {
        buf_alloc: 4,
        ..from_guest(op::RESPONSE, 5, port)
    };
    guest.send(small, &[]);
    guest.host.at(socket, |end| end.input.extend(b"abcdefgh"));
    assert_eq!(guest.receive().expect("as much as there is room for").1, b"abcd");
    assert_eq!(guest.receive_op(), Some(op::CREDIT_REQUEST));
    assert_eq!(guest.receive(), None);
    let update = Header {
        op: op::CREDIT_UPDATE,
        fwd_cnt: 3,
        ..small
    };
    guest.send(update, &[]);
    assert_eq!(guest.receive().expect("more").1, b"efg");
    assert_eq!(guest.receive_op(), Some(op::CREDIT_REQUEST));
    guest.send(Header { fwd_cnt: 8, ..update }, &[]);
    // It has passed on one byte more than it was sent.
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!((guest.open(), guest.rig.transport.failures()), (0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn a_guest_that_sends_more_than_there_is_room_for_loses_the_connection() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5);
    guest.host.at(socket, |end| end.room = 0);
    let piece = [1; 0x2000];
    for _ in 0..ROOM as usize / piece.len() {
        guest.bytes(5, port, &piece);
    }
    assert_eq!((guest.open(), guest.receive()), (1, None));
    guest.bytes(5, port, b"x");
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!((guest.open(), guest.rig.transport.failures()), (0, 1));
}

#[test]
fn the_guest_is_told_of_room_when_half_of_it_is_free_again_or_it_asks() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (_, port) = guest.accepted(5);
    let piece = [1; 0x2000];
    for _ in 0..ROOM as usize / piece.len() / 2 - 1 {
        guest.bytes(5, port, &piece);
    }
    assert_eq!(guest.receive(), None);
    guest.bytes(5, port, &piece);
    let (header, _) = guest.receive().expect("an update");
    assert_eq!((header.op, header.fwd_cnt), (op::CREDIT_UPDATE, ROOM / 2));
    guest.bytes(5, port, b"x");
    assert_eq!(guest.receive(), None);
    guest.op(op::CREDIT_REQUEST, 5, port);
    let (header, _) = guest.receive().expect("an update");
    assert_eq!((header.op, header.fwd_cnt), (op::CREDIT_UPDATE, ROOM / 2 + 1));
}

#[test]
fn a_host_that_takes_no_more_is_told_to_the_guest_and_its_bytes_still_arrive() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5);
    guest.host.at(socket, |end| {
        end.deaf = true;
        end.input.extend(b"last");
        end.input_ended = true;
    });
    guest.bytes(5, port, b"lost");
    assert_eq!(guest.receive().expect("bytes").1, b"last");
    let (header, _) = guest.receive().expect("the end");
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shutdown::BOTH));
    guest.bytes(5, port, b"lost, too");
    assert_eq!((guest.receive(), guest.open()), (None, 1));
}

#[test]
fn who_is_not_this_guest_gets_no_answer() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let stranger = Header {
        src_cid: CID + 1,
        ..from_guest(op::REQUEST, 1, 1)
    };
    guest.send(stranger, &[]);
    guest.send_raw(&[0; Header::SIZE - 1]);
    assert_eq!((guest.receive(), guest.rig.transport.failures()), (None, 2));
}

#[test]
fn another_host_and_another_kind_are_answered_by_a_reset_of_theirs() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let honest = from_guest(op::REQUEST, 1, 2);
    guest.send(Header { dst_cid: 7, ..honest }, &[]);
    let (header, _) = guest.receive().expect("an answer");
    assert_eq!((header.op, header.src_cid), (op::RST, 7));
    assert_eq!((header.src_port, header.dst_port), (2, 1));
    guest.send(Header { kind: 2, ..honest }, &[]);
    let (header, _) = guest.receive().expect("an answer");
    assert_eq!((header.op, header.kind), (op::RST, 2));
    // No reset is answered by one.
    let reset = from_guest(op::RST, 1, 2);
    guest.send(Header { kind: 2, ..reset }, &[]);
    guest.send(reset, &[]);
    assert_eq!(guest.receive(), None);
}

#[test]
fn what_makes_no_sense_in_a_connection_ends_it() {
    let memory = Memory::new();
    for wrong in [0, op::REQUEST, op::RESPONSE, 8, 99, u16::MAX] {
        let mut guest = Guest::new(&memory);
        let (_, port) = guest.accepted(5);
        guest.op(wrong, 5, port);
        assert_eq!(guest.receive_op(), Some(op::RST), "op {wrong}");
        assert_eq!((guest.open(), guest.rig.transport.failures()), (0, 1), "op {wrong}");
        memory.write(chiton_shared::map::QUEUES, &[0; 0x4000]);
    }
}

#[test]
fn bytes_before_the_answer_after_the_end_or_beyond_the_chain_end_it() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.host.ask(5);
    let (header, _) = guest.receive().expect("a request");
    guest.bytes(5, header.src_port, b"early");
    assert_eq!(guest.receive_op(), Some(op::RST));

    let (_, port) = guest.accepted(6);
    let flags = shutdown::SEND;
    let header = from_guest(op::SHUTDOWN, 6, port);
    guest.send(Header { flags, ..header }, &[]);
    guest.bytes(6, port, b"late");
    assert_eq!(guest.receive_op(), Some(op::RST));

    let (_, port) = guest.accepted(7);
    let header = from_guest(op::RW, 7, port);
    guest.send(Header { len: 10, ..header }, b"nine byte");
    assert_eq!(guest.receive_op(), Some(op::RST));
    assert_eq!((guest.open(), guest.rig.transport.failures()), (0, 3));
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of connections, in safe code")]
fn a_flood_of_requests_ends_at_the_greatest_number_of_connections() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.host.state().served.push(80);
    let extra = 10;
    for port in 0..(MAX_CONNECTIONS + extra) as u32 {
        guest.op(op::REQUEST, port, 80);
    }
    assert_eq!(guest.open(), MAX_CONNECTIONS);
    // A client of the host finds no place either.
    guest.host.ask(1);
    let ops: Vec<u16> = std::iter::from_fn(|| guest.receive_op()).collect();
    assert_eq!(ops.iter().filter(|op| **op == op::RST).count(), extra);
    assert_eq!(ops.iter().filter(|op| **op == op::RESPONSE).count(), MAX_CONNECTIONS);
    assert_eq!((ops.len(), guest.open()), (MAX_CONNECTIONS + extra, MAX_CONNECTIONS));
}

#[test]
fn opening_and_closing_without_end_leaves_nothing() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.host.state().served.push(80);
    for _ in 0..if cfg!(miri) { 3 } else { 1000 } {
        guest.op(op::REQUEST, 1, 80);
        guest.op(op::RST, 1, 80);
    }
    assert_eq!((guest.open(), guest.receive()), (0, None));
}

#[test]
#[cfg_attr(miri, ignore = "long, and nothing in it that Miri could object to")]
fn packets_wait_when_too_many_answers_do() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    for port in 0..MAX_RESETS as u32 {
        guest.op(op::RW, port, 1);
    }
    memory.write(OUT, &from_guest(op::RW, 7777, 1).to_bytes());
    let one_more = [Buffer::readable(OUT, Header::SIZE as u32)];
    assert!(!guest.rig.submit(TRANSMIT, &one_more).more);
    assert_eq!(guest.rig.take(TRANSMIT), None);
    // One buffer, and there is room for the answer: the packet is looked at again without a kick.
    let outcome = guest.rig.submit(RECEIVE, &[Buffer::writable(IN, IN_LEN)]);
    assert!(outcome.more);
    assert_eq!(guest.rig.take(RECEIVE), Some(Header::SIZE as u32));
    guest.rig.process_all();
    assert_eq!(guest.rig.take(TRANSMIT), Some(0));
    let answers = std::iter::from_fn(|| guest.receive_op()).count();
    assert_eq!(answers, MAX_RESETS);
}

#[test]
fn a_packet_of_any_framing_is_one_packet() {
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    let (socket, port) = guest.accepted(5);
    let header = from_guest(op::RW, 5, port);
    let packet = [&Header { len: 6, ..header }.to_bytes()[..], b"abcdef, and more"].concat();
    memory.write(OUT, &packet);
    let cuts = [0, 1, 20, 20, 46, packet.len()];
    let chain: Vec<Buffer> = cuts
        .windows(2)
        .map(|cut| Buffer::readable(OUT + cut[0] as u64, (cut[1] - cut[0]) as u32))
        .collect();
    let _ = guest.rig.submit(TRANSMIT, &chain);
    assert_eq!(guest.host.at(socket, |end| end.output.clone()), b"abcdef");
}

#[test]
fn a_buffer_too_small_for_a_packet_breaks_the_device() {
    for len in [0, Header::SIZE as u32 - 1] {
        let memory = Memory::new();
        let mut guest = Guest::new(&memory);
        guest.host.ask(5);
        let _ = guest.rig.submit(RECEIVE, &[Buffer::writable(IN, len)]);
        let broken = guest.rig.transport.broken().map(|b| b.error);
        assert!(matches!(broken, Some(DeviceError::NoRoom { .. })), "{len}: {broken:?}");
    }
    let memory = Memory::new();
    let mut guest = Guest::new(&memory);
    guest.host.ask(5);
    let _ = guest.rig.submit(RECEIVE, &[Buffer::writable(WORLD, 100)]);
    let broken = guest.rig.transport.broken().map(|b| b.error);
    assert!(matches!(broken, Some(DeviceError::Buffer { .. })), "{broken:?}");
}

#[test]
fn a_reset_ends_every_connection() {
    let host = FakeSockets::default();
    let memory = Memory::new();
    {
        let mut guest = Guest::new(&memory);
        guest.accepted(1);
        guest.accepted(2);
        let _ = guest.rig.transport.write(0x70, &[0; 4]);
        assert_eq!(guest.open(), 0);
    }
    let mut device = Vsock::new(CID, host.clone());
    host.ask(1);
    device.hear_host();
    device.reset();
    assert_eq!(host.state().ends.len(), 0);
    let mut id = [0; 8];
    device.read_config(0, &mut id);
    assert_eq!(u64::from_le_bytes(id), CID);
}

#[derive(Clone, Debug)]
enum Step {
    HostSends(u8),
    HostTakes(u8),
    GuestSends(u8),
    GuestReads,
}

proptest! {
    #![proptest_config(config())]

    /// Whatever comes from a driver that keeps the rules arrives, in order, in both directions.
    #[test]
    #[cfg_attr(miri, ignore = "thousands of packets, in safe code")]
    fn bytes_arrive_once_and_in_order(steps in proptest::collection::vec(prop_oneof![
        any::<u8>().prop_map(Step::HostSends),
        any::<u8>().prop_map(Step::HostTakes),
        any::<u8>().prop_map(Step::GuestSends),
        Just(Step::GuestReads),
    ], 0..24), room in 1_u32..300) {
        let memory = Memory::new();
        let mut guest = Guest::new(&memory);
        let socket = guest.host.ask(5);
        let port = guest.receive().expect("a request").0.src_port;
        let (mut sent, mut got, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = 0_u8;
        let mut more = |count: u8| -> Vec<u8> {
            (0..count).map(|_| { next = next.wrapping_add(1); next }).collect()
        };
        let header = |op, fwd_cnt: usize| Header {
            buf_alloc: room, fwd_cnt: fwd_cnt as u32, ..from_guest(op, 5, port)
        };
        guest.send(header(op::RESPONSE, 0), &[]);
        guest.host.at(socket, |end| end.room = 0);
        let finally = [Step::HostTakes(255), Step::GuestReads];
        for step in steps.iter().chain(finally.iter().cycle().take(100)) {
            match step {
                Step::HostSends(count) => {
                    let bytes = more(*count);
                    asked.extend_from_slice(&bytes);
                    guest.host.at(socket, |end| end.input.extend(bytes));
                }
                Step::HostTakes(count) => guest.host.at(socket, |end| end.room += usize::from(*count)),
                Step::GuestSends(count) => {
                    let bytes = more(*count);
                    sent.extend_from_slice(&bytes);
                    let len = bytes.len() as u32;
                    guest.send(Header { len, ..header(op::RW, got.len()) }, &bytes);
                }
                Step::GuestReads => {
                    if let Some((packet, body)) = guest.receive() {
                        prop_assert!(body.len() <= room as usize);
                        prop_assert_ne!(packet.op, op::RST);
                        got.extend(body);
                        guest.send(header(op::CREDIT_UPDATE, got.len()), &[]);
                    }
                }
            }
        }
        for _ in 0..asked.len() * 2 + 10 {
            if let Some((_, body)) = guest.receive() {
                got.extend(body);
                guest.send(header(op::CREDIT_UPDATE, got.len()), &[]);
            }
        }
        prop_assert_eq!(got, asked);
        guest.host.at(socket, |end| end.room = usize::MAX);
        guest.rig.process_all();
        let output = guest.host.at(socket, |end| end.output.clone());
        prop_assert_eq!(output, sent);
        prop_assert_eq!(guest.rig.transport.failures(), 0);
    }

    /// Whatever comes, nothing breaks and nothing grows.
    #[test]
    fn any_headers_are_survived(headers in proptest::collection::vec(
        (0_u16..10, 0_u32..3, 0_u32..3, any::<u32>(), any::<u32>(), 0_u32..100), 0..if cfg!(miri) { 16 } else { 60 })
    ) {
        let memory = Memory::new();
        let mut guest = Guest::new(&memory);
        guest.host.state().served.extend([1, 2]);
        for (i, (op, from, to, flags, fwd_cnt, len)) in headers.into_iter().enumerate() {
            let fwd_cnt = if i % 3 == 0 { fwd_cnt } else { 0 };
            guest.send(Header { flags, fwd_cnt, len, ..from_guest(op, from, to) }, &[9; 90]);
            if i % 4 == 0 {
                guest.receive();
            }
            prop_assert!(guest.rig.transport.broken().is_none());
            prop_assert!(guest.open() <= 9);
        }
        while guest.receive().is_some() {}
    }
}

#[test]
fn the_buffers_of_these_tests_are_in_memory() {
    assert!(IN + u64::from(IN_LEN) <= END && OUT + 0x4000 <= IN);
}
