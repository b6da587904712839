//! The network driver (virtio 1.3 section 5.1): frames out of receive buffers, and into sent ones.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;

use chiton_shared::memory::Window;
use chiton_shared::virtio::net::{
    Config, F_CSUM, F_GUEST_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, F_MAC, F_MQ, F_MTU, Header, MAX_FRAME, control,
    flags, gso,
};
use chiton_shared::virtio::ring::{Buffer, MAX_SIZE};

use super::checksum;
use super::datagrams::Datagrams;
use crate::host::Host;
use crate::queue::{Exits, Queue, QueueError};

/// Length of a receive buffer, in bytes: an ordinary frame fits into one, and four hold the longest
/// that a kernel makes of whole segments. Each costs both sides some work besides its bytes.
const BLOCK: usize = 16 << 10;

/// How many receive buffers there are at most.
pub(super) const BLOCKS: usize = 64;

/// Room for an ordinary frame that is sent, in bytes.
const FRAME: usize = 2048;

/// The MTU where the device has none, in bytes: Ethernet's.
const MTU: u16 = 1500;

/// How many frames can be on their way out.
const SENDING: usize = 64;

/// After so many frames the host is told, so that it works while the guest makes more: less than a twentieth of
/// an exit a frame.
const KICK_AFTER: usize = 24;

/// The same after so many bytes, of long frames.
const KICK_AFTER_BYTES: usize = 512 << 10;

/// Memory for so many receive buffers, for ever.
pub(super) fn leak_blocks(count: usize) -> Window<'static> {
    let memory = NonNull::from(vec![0_u8; count * BLOCK].leak());
    // SAFETY: leaked memory, reached through this window and by the device only.
    unsafe { Window::new(memory.cast(), memory.len()) }
}

/// The receiving half of a driver.
///
/// Its blocks are one piece of memory, given to the device in their order again and again. So the
/// blocks of a frame follow one another, and the frame is looked at where the device wrote it; only
/// one that goes beyond the last block is put together elsewhere.
#[derive(Debug)]
pub struct Receive<'m, H> {
    queue: Box<Queue<'m, H>>,
    memory: Window<'m>,
    blocks: Vec<Window<'m>>,
    /// The block of the chain with this head.
    owner: [u16; MAX_SIZE as usize],
    /// Blocks of the frame that was received last, to be given back before the next.
    held: Vec<u16>,
    /// How many blocks the device was given since it was last told, or the driver slept.
    not_told: usize,
    /// Where the frame that was received last is.
    place: Place,
    /// A frame that does not lie in one piece, and room for any other; empty until there is one.
    frame: Vec<u8>,
    /// Datagrams that came as one frame, and are handed out one after the other.
    uncut: Option<Datagrams>,
    check: bool,
    /// How many frames were dropped: too long, or with a wrong checksum.
    dropped: u64,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes from here on in the blocks.
    Blocks { start: usize, len: usize },
    /// So many bytes at the start of `frame`.
    Copy { len: usize },
}

impl<'m, H: Host> Receive<'m, H> {
    /// Receives through this queue into this memory, which the device writes at its own address.
    ///
    /// # Errors
    ///
    /// [`QueueError`].
    pub fn new(queue: Box<Queue<'m, H>>, memory: Window<'m>, features: u64) -> Result<Self, QueueError> {
        let count = usize::from(queue.size()).min(memory.len() / BLOCK);
        let blocks = (0..count).filter_map(|i| memory.part(i * BLOCK, BLOCK)).collect();
        let mut receive = Self {
            queue,
            memory,
            blocks,
            owner: [0; MAX_SIZE as usize],
            held: Vec::new(),
            not_told: 0,
            place: Place::Copy { len: 0 },
            frame: Vec::new(),
            uncut: None,
            check: features & F_GUEST_CSUM != 0,
            dropped: 0,
        };
        for block in 0..count {
            receive.give(block)?;
        }
        Ok(receive)
    }

    fn give(&mut self, block: usize) -> Result<(), QueueError> {
        let window = &self.blocks[block];
        let buffer = Buffer::writable(window.as_ptr().expose_provenance() as u64, window.len() as u32);
        // SAFETY: the block is touched again only when the chain has come back.
        let head = unsafe { self.queue.add(&[buffer]) }?;
        self.owner[usize::from(head)] = block as u16;
        Ok(())
    }

    /// Gives the last frame's blocks back to the device.
    fn give_back(&mut self) -> Result<(), QueueError> {
        self.place = Place::Copy { len: 0 };
        for i in 0..self.held.len() {
            self.give(usize::from(self.held[i]))?;
        }
        self.not_told += self.held.len();
        self.held.clear();
        if self.not_told >= self.blocks.len() {
            // Who sleeps now and then has no need of this: the host looks then.
            self.kick();
        }
        Ok(())
    }

    /// Takes the next frame out of its buffers, if there is one. It stays where it is until the next
    /// call.
    ///
    /// # Errors
    ///
    /// [`QueueError`] if the device breaks the rules.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, QueueError> {
        Ok(if self.look()? { Some(self.frame()) } else { None })
    }

    /// Goes on to the next frame, if there is one, which is then the [`frame`](Self::frame).
    pub(super) fn look(&mut self) -> Result<bool, QueueError> {
        loop {
            if let Some(uncut) = &mut self.uncut {
                if uncut.advance() {
                    return Ok(true);
                }
                self.uncut = None;
            }
            self.give_back()?;
            let Some((head, written)) = self.queue.take()? else {
                return Ok(false);
            };
            let mut bytes = [0; Header::SIZE];
            let block = usize::from(self.owner[usize::from(head)]);
            let written = written as usize;
            if written < Header::SIZE {
                return Err(self.broken());
            }
            self.held.push(block as u16);
            self.blocks[block].read(0, &mut bytes);
            let header = Header::from_bytes(&bytes);
            self.place = Place::Blocks {
                start: block * BLOCK + Header::SIZE,
                len: written - Header::SIZE,
            };
            let mut fits = true;
            for _ in 1..header.num_buffers {
                // All buffers of a frame come back at once (section 5.1.6.4).
                let Some((head, written)) = self.queue.take()? else {
                    return Err(self.broken());
                };
                let block = self.owner[usize::from(head)];
                self.held.push(block);
                fits = fits && self.append(block.into(), written as usize);
            }
            if !fits || !self.is_right(&header) {
                self.dropped += 1;
            } else if header.gso_type == gso::UDP_L4 {
                self.uncut = Datagrams::new(self.frame(), header.gso_size);
                self.dropped += u64::from(self.uncut.is_none());
            } else {
                return Ok(true);
            }
        }
    }

    /// The frame goes on with the first `len` bytes of a block; whether it is not too long.
    fn append(&mut self, block: usize, len: usize) -> bool {
        match &mut self.place {
            Place::Blocks { start, len: before } if *start + *before == block * BLOCK => {
                *before += len;
                return *before <= MAX_FRAME;
            }
            Place::Blocks { start, len: before } => {
                let (start, before) = (*start, *before);
                self.frame.resize(MAX_FRAME, 0);
                if before > MAX_FRAME {
                    return false;
                }
                self.memory.read(start, &mut self.frame[..before]);
                self.place = Place::Copy { len: before };
            }
            Place::Copy { .. } => {}
        }
        let Place::Copy { len: before } = &mut self.place else {
            return false;
        };
        let Some(room) = self.frame.get_mut(*before..*before + len) else {
            return false;
        };
        self.blocks[block].read(0, room);
        *before += len;
        true
    }

    /// The frame that was looked at last.
    pub(super) fn frame(&self) -> &[u8] {
        if let Some(uncut) = &self.uncut {
            return uncut.current();
        }
        match self.place {
            Place::Blocks { start, len } => {
                let Some(frame) = self.memory.part(start, len) else {
                    return &[];
                };
                // SAFETY: the device has given these blocks back, and gets them again only by
                // `give_back`, which borrows this mutably; they are initialized, and nobody else
                // has their address.
                unsafe { core::slice::from_raw_parts(frame.as_ptr(), frame.len()) }
            }
            Place::Copy { len } => &self.frame[..len],
        }
    }

    /// Whether the frame's checksum is right, or is the host's own business.
    fn is_right(&self, header: &Header) -> bool {
        let known = header.flags & (flags::NEEDS_CSUM | flags::DATA_VALID) != 0;
        known || !self.check || checksum::find(self.frame()).is_none_or(|found| found.is_right(self.frame()))
    }

    fn broken(&mut self) -> QueueError {
        self.queue.give_up();
        QueueError::GivenUp
    }

    /// Tells the device of buffers, if it wants to hear.
    pub fn kick(&mut self) {
        self.not_told = 0;
        self.queue.kick();
    }

    /// Has the device report the next frame to whoever waits, and tells whether there is one.
    pub fn arm(&mut self) -> bool {
        // The host looks at all queues before anybody sleeps.
        self.not_told = 0;
        self.queue.arm()
    }

    /// The interrupt of the queue comes to the processor that calls: see [`Queue::bind`].
    pub fn bind(&mut self) {
        self.queue.bind();
    }

    /// Whether the processor that calls can halt for frames.
    #[must_use]
    pub fn halts_here(&self) -> bool {
        self.queue.halts_here()
    }

    /// How many frames were dropped: too long, or with a wrong checksum.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How often the driver rang so far.
    #[must_use]
    pub const fn exits(&self) -> Exits {
        self.queue.exits()
    }
}

/// The sending half of a driver.
#[derive(Debug)]
pub struct Transmit<'m, H> {
    queue: Box<Queue<'m, H>>,
    features: u64,
    /// The frame of the chain with this head.
    sending: Vec<Option<Vec<u8>>>,
    count: usize,
    free: Vec<Vec<u8>>,
    /// How many frames, and bytes of them, were sent since the device was last told, or the driver slept.
    not_told: (usize, usize),
    failed: Option<QueueError>,
}

impl<'m, H: Host> Transmit<'m, H> {
    /// Sends through this queue.
    pub fn new(queue: Box<Queue<'m, H>>, features: u64) -> Self {
        Self {
            sending: (0..queue.size()).map(|_| None).collect(),
            queue,
            features,
            count: 0,
            free: Vec::new(),
            not_told: (0, 0),
            failed: None,
        }
    }

    /// Whether there is room for one more frame.
    pub fn has_room(&mut self) -> bool {
        if self.count >= SENDING || self.queue.free() == 0 {
            self.kick();
            self.collect();
        }
        self.count < SENDING && self.queue.free() > 0 && self.failed.is_none()
    }

    /// Sends a frame of `len` bytes that `fill` writes; the device cuts it if there is a segment
    /// size. A frame for which there is no room is lost.
    pub fn send<R>(&mut self, len: usize, segment: Option<u16>, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut bytes = self.buffer(len);
        let result = fill(&mut bytes[Header::SIZE..Header::SIZE + len]);
        self.send_buffer(bytes, len, segment);
        result
    }

    /// Room for a header and a frame of `len` bytes.
    pub(super) fn buffer(&mut self, len: usize) -> Vec<u8> {
        let whole = Header::SIZE + len;
        let bytes = self.free.pop().unwrap_or_default();
        if bytes.len() < whole {
            return vec![0; whole.max(FRAME)];
        }
        bytes
    }

    /// Sends the frame of `len` bytes in a [`buffer`](Self::buffer).
    pub(super) fn send_buffer(&mut self, mut bytes: Vec<u8>, len: usize, segment: Option<u16>) {
        let whole = Header::SIZE + len;
        let header = self.finish(&mut bytes[Header::SIZE..whole], segment);
        bytes[..Header::SIZE].copy_from_slice(&header.to_bytes());
        let buffer = Buffer::readable(bytes.as_ptr().expose_provenance() as u64, whole as u32);
        // SAFETY: the bytes are kept as they are in `sending` until the chain has come back.
        match unsafe { self.queue.add(&[buffer]) } {
            Ok(head) => {
                self.sending[usize::from(head)] = Some(bytes);
                self.count += 1;
                self.not_told.0 += 1;
                self.not_told.1 += whole;
            }
            Err(error) => self.failed = Some(error),
        }
        if self.not_told.0 >= KICK_AFTER || self.not_told.1 >= KICK_AFTER_BYTES {
            self.kick();
        }
    }

    /// Leaves the checksum to the device, and says how to cut the frame.
    fn finish(&self, frame: &mut [u8], segment: Option<u16>) -> Header {
        let mut header = Header::default();
        if self.features & F_CSUM == 0 {
            return header;
        }
        let Some(found) = checksum::find(frame) else {
            return header;
        };
        header.flags = flags::NEEDS_CSUM;
        header.csum_start = found.start as u16;
        header.csum_offset = found.offset as u16;
        let at = found.start + found.offset;
        frame[at..at + 2].copy_from_slice(&found.pseudo.to_be_bytes());
        if let Some(segment) = segment {
            let (gso_type, transport) = if found.is_udp {
                (gso::UDP_L4, 8)
            } else {
                let is_v4 = frame[12..14] == [8, 0];
                let header = frame.get(found.start + 12).map_or(0, |byte| byte >> 4);
                (if is_v4 { gso::TCPV4 } else { gso::TCPV6 }, usize::from(header) * 4)
            };
            header.gso_type = gso_type;
            header.gso_size = segment;
            header.hdr_len = (found.start + transport) as u16;
        }
        header
    }

    /// Tells the device of frames, if it wants to hear.
    pub fn kick(&mut self) {
        self.not_told = (0, 0);
        self.queue.kick();
    }

    /// Takes back what the device is done with.
    pub fn collect(&mut self) {
        loop {
            match self.queue.take() {
                Ok(Some((head, _))) => {
                    if let Some(bytes) = self.sending[usize::from(head)].take() {
                        self.count -= 1;
                        self.free.push(bytes);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            }
        }
    }

    /// The driver is about to sleep, which tells the device of all frames.
    pub const fn about_to_sleep(&mut self) {
        self.not_told = (0, 0);
    }

    /// Has the device report the next frame that is out to whoever waits, and tells whether there is
    /// one.
    pub fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    /// The interrupt of the queue comes to the processor that calls: see [`Queue::bind`].
    pub fn bind(&mut self) {
        self.queue.bind();
    }

    /// Whether frames are on their way.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count >= SENDING
    }

    /// Why nothing can be sent any more, if so.
    #[must_use]
    pub const fn failed(&self) -> Option<QueueError> {
        self.failed
    }

    /// How often the driver rang so far.
    #[must_use]
    pub const fn exits(&self) -> Exits {
        self.queue.exits()
    }
}

impl<H> Drop for Transmit<'_, H> {
    /// The device may still read what is being sent.
    fn drop(&mut self) {
        for bytes in self.sending.drain(..).flatten() {
            core::mem::forget(bytes);
        }
    }
}

/// Has the device use so many pairs of queues, by its control queue (section 5.1.6.5.6); whether it
/// agreed.
///
/// # Errors
///
/// [`QueueError`] if the device breaks the rules or has stopped.
pub fn set_pairs<H: Host>(queue: &mut Queue<'_, H>, pairs: u16) -> Result<bool, QueueError> {
    // Should the device fail, it may still use them.
    let command: &'static [u8; 4] = Box::leak(Box::new(control::set_pairs(pairs)));
    let answer = NonNull::from(Box::leak(Box::new(control::ERR)));
    let buffers = [
        Buffer::readable(command.as_ptr().expose_provenance() as u64, command.len() as u32),
        Buffer::writable(answer.as_ptr().expose_provenance() as u64, 1),
    ];
    // SAFETY: the two live for ever, and the answer is read below, when the chain has come back.
    unsafe { queue.add(&buffers) }?;
    let (_, written) = queue.wait()?;
    // SAFETY: the chain is the driver's again, and nobody else has the address.
    let answer = unsafe { answer.read_volatile() };
    Ok(written == 1 && answer == control::OK)
}

/// What a device of these features and this configuration is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// The greatest MTU, in bytes.
    pub mtu: u16,
    /// The device finishes checksums.
    pub sends_checksums: bool,
    /// Received checksums are looked at before the stack sees a frame.
    pub checks_checksums: bool,
    /// The device cuts TCP segments over IPv4, and over IPv6.
    pub segments: [bool; 2],
    /// The device cuts UDP datagrams.
    pub datagrams: bool,
    /// The most pairs of queues.
    pub pairs: u16,
}

impl Traits {
    /// Reads them; `None` if the configuration is cut short or makes no sense. A device without an address
    /// has the one that is `local`.
    #[must_use]
    pub fn new(config: &[u8], features: u64, local: [u8; 6]) -> Option<Self> {
        let config = Config::from_bytes(config)?;
        let has = |feature| features & feature != 0;
        Some(Self {
            mac: if has(F_MAC) { config.mac } else { local },
            mtu: if has(F_MTU) {
                Some(config.mtu).filter(|mtu| *mtu >= 68)?
            } else {
                MTU
            },
            sends_checksums: has(F_CSUM),
            checks_checksums: has(F_GUEST_CSUM),
            segments: [has(F_CSUM) && has(F_HOST_TSO4), has(F_CSUM) && has(F_HOST_TSO6)],
            datagrams: has(F_CSUM) && has(F_HOST_USO),
            pairs: if has(F_MQ) {
                config.max_virtqueue_pairs.max(1)
            } else {
                1
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, bytes};
    use chiton_shared::memory::GuestMemory;
    use chiton_shared::virtio::feature;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// A device that writes these bytes into one buffer after the other.
    fn device(pieces: &[&[u8]]) -> Machine {
        let mut pieces: VecDeque<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        Machine::new(8, move |chain, memory| {
            let piece = pieces.pop_front()?;
            memory
                .window(chain.writable()[0].address, piece.len())?
                .write(0, &piece);
            Some(piece.len() as u32)
        })
    }

    fn receive<'m>(machine: &'m Machine, features: u64) -> Receive<'m, &'m Machine> {
        let mut receive = Receive::new(Box::new(machine.queue()), leak_blocks(8), feature::RING | features).unwrap();
        receive.kick();
        receive
    }

    fn header(num_buffers: u16, flags: u8) -> Vec<u8> {
        let header = Header {
            flags,
            num_buffers,
            ..Header::default()
        };
        header.to_bytes().to_vec()
    }

    #[test]
    fn a_frame_is_put_together_from_its_buffers() {
        let first = [header(3, 0), b"ab".to_vec()].concat();
        let other = [header(1, 0), b"next".to_vec()].concat();
        let machine = device(&[&first, b"cd", b"e", &other]);
        let mut receive = receive(&machine, 0);
        assert_eq!(receive.receive(), Ok(Some(&b"abcde"[..])));
        assert_eq!(receive.receive(), Ok(Some(&b"next"[..])));
        assert_eq!(receive.receive(), Ok(None));
    }

    /// As many blocks as the device has buffers of, so that a frame may go round.
    #[test]
    fn a_frame_is_whole_wherever_its_blocks_are() {
        let full = vec![7; BLOCK];
        let mut pieces = Vec::new();
        let rounds = if cfg!(miri) { 3 } else { 10_u8 };
        for round in 0..rounds {
            pieces.push([header(3, 0), vec![round; BLOCK - Header::SIZE]].concat());
            pieces.push(full.clone());
            pieces.push(vec![round; 9]);
        }
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let machine = device(&pieces);
        let mut receive = receive(&machine, 0);
        let mut copied = 0;
        for round in 0..rounds {
            receive.kick();
            let mut expected = vec![round; BLOCK - Header::SIZE];
            expected.extend(&full);
            expected.extend([round; 9]);
            assert!(receive.receive().unwrap() == Some(&expected[..]), "{round}");
            copied += usize::from(matches!(receive.place, Place::Copy { .. }));
        }
        assert!(cfg!(miri) || (1..6).contains(&copied), "{copied} of 10 went round");
    }

    #[test]
    fn a_field_of_the_configuration_counts_only_with_its_feature() {
        let config = Config {
            mac: [2, 0, 0, 0, 0, 7],
            mtu: 1280,
            max_virtqueue_pairs: 4,
            ..Config::default()
        };
        let traits = |features| {
            let traits = Traits::new(&config.to_bytes(), features, [6; 6]).unwrap();
            (traits.mac, traits.mtu, traits.pairs)
        };
        assert_eq!(traits(F_MAC | F_MTU | F_MQ), (config.mac, 1280, 4));
        assert_eq!(traits(0), ([6; 6], 1500, 1));
        assert_eq!(
            Traits::new(&Config::default().to_bytes(), F_MTU, [6; 6]),
            None,
            "an MTU that cannot be"
        );
    }

    #[test]
    fn the_device_says_whether_it_uses_so_many_pairs() {
        for (answer, agreed) in [(control::OK, true), (control::ERR, false), (7, false)] {
            let machine = Machine::new(8, move |chain, memory| {
                assert_eq!(bytes(&chain.readable()[0]), control::set_pairs(3));
                memory.window(chain.writable()[0].address, 1)?.write(0, &[answer]);
                Some(1)
            });
            assert_eq!(set_pairs(&mut machine.queue(), 3), Ok(agreed));
        }
    }

    #[test]
    fn a_device_that_breaks_the_rules_is_given_up() {
        for piece in [b"short".to_vec(), header(2, 0), header(u16::MAX, 0)] {
            let machine = device(&[&piece]);
            let mut receive = receive(&machine, 0);
            assert_eq!(receive.receive(), Err(QueueError::GivenUp), "{piece:?}");
            assert_eq!(machine.resets(), 1);
            assert_eq!(receive.receive(), Err(QueueError::GivenUp));
        }
        // No buffer at all is one.
        let machine = device(&[&header(0, 0)]);
        assert_eq!(receive(&machine, 0).receive(), Ok(Some(&b""[..])));
    }

    /// A UDP datagram over IPv4 with a wrong checksum.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, 1, 0, 2, 0, 11, 1, 1, b'a', b'b', b'c']);
        frame
    }

    #[test]
    fn a_wrong_checksum_counts_only_where_the_host_has_not_looked() {
        let frame = |flags| [header(1, flags), datagram()].concat();
        let machine = device(&[&frame(0), &frame(flags::DATA_VALID), &frame(flags::NEEDS_CSUM)]);
        let mut receive = receive(&machine, F_GUEST_CSUM);
        assert_eq!(receive.receive(), Ok(Some(&datagram()[..])));
        assert_eq!(receive.receive(), Ok(Some(&datagram()[..])));
        assert_eq!(receive.receive(), Ok(None));
        assert_eq!(receive.dropped(), 1);
    }

    #[test]
    fn what_is_sent_leaves_checksum_and_segments_to_the_device() {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let machine = Machine::new(8, {
            let sent = Rc::clone(&sent);
            move |chain, _| {
                sent.borrow_mut().push(bytes(&chain.readable()[0]));
                Some(0)
            }
        });
        let mut transmit = Transmit::new(Box::new(machine.queue()), F_CSUM | F_HOST_TSO4 | F_HOST_USO);
        for segment in [None, Some(1000)] {
            assert!(transmit.has_room());
            transmit.send(45, segment, |frame| frame.copy_from_slice(&datagram()));
        }
        // The same addresses, and a TCP header of 20 bytes.
        let mut tcp = datagram()[..34].to_vec();
        (tcp[17], tcp[23]) = (40, 6);
        tcp.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 0, 0, 0, 0, 0, 0, 0]);
        transmit.send(tcp.len(), Some(500), |frame| frame.copy_from_slice(&tcp));
        transmit.kick();
        transmit.collect();
        let sent = sent.borrow();
        let header = |i: usize| Header::from_bytes(sent[i][..Header::SIZE].try_into().unwrap());
        assert_eq!((header(0).flags, header(0).gso_type), (flags::NEEDS_CSUM, gso::NONE));
        assert_eq!((header(0).csum_start, header(0).csum_offset), (34, 6));
        assert_eq!((header(1).gso_type, header(1).gso_size), (gso::UDP_L4, 1000));
        assert_eq!(header(1).hdr_len, 42);
        assert_eq!(
            (header(2).gso_type, header(2).gso_size, header(2).hdr_len),
            (gso::TCPV4, 500, 54)
        );
        assert!((0..3).all(|i| header(i).num_buffers == 0 && header(i).flags == flags::NEEDS_CSUM));
        // 10.0.0.1, 10.0.0.2, protocol 17 and length 11.
        assert_eq!(sent[0][Header::SIZE + 40..][..2], [0x14, 0x1F]);
        assert_eq!((transmit.count, transmit.free.len()), (0, 3));
    }

    /// Lone frames, after each of which the driver sleeps, cost no kick, however many they are.
    #[test]
    fn who_sleeps_after_each_frame_never_kicks() {
        let machine = Machine::new(64, |_, _| Some(0));
        let mut transmit = Transmit::new(Box::new(machine.queue()), 0);
        for _ in 0..4 * KICK_AFTER {
            assert!(transmit.has_room());
            transmit.send(60, None, |frame| frame.fill(0));
            transmit.about_to_sleep();
            machine.serve();
            transmit.collect();
        }
        assert_eq!(machine.kicks(), 0);
        for _ in 0..KICK_AFTER {
            assert!(transmit.has_room());
            transmit.send(60, None, |frame| frame.fill(0));
        }
        assert_eq!(machine.kicks(), 1);
        for _ in 0..KICK_AFTER_BYTES / 60_000 + 1 {
            assert!(transmit.has_room());
            transmit.send(60_000, None, |frame| frame[0] = 0);
        }
        assert_eq!(machine.kicks(), 2, "long frames count by their bytes");
    }

    /// The device hears of room that was given back when the driver sleeps, or of all of it at once.
    #[test]
    fn who_sleeps_before_all_room_is_used_never_kicks_for_it() {
        let frame = [header(1, 0), b"frame".to_vec()].concat();
        let machine = device(&vec![&frame[..]; 100]);
        let mut receive = receive(&machine, 0);
        let kicks = machine.kicks();
        for _ in 0..8 {
            for _ in 0..7 {
                assert!(receive.receive().unwrap().is_some());
            }
            receive.arm();
            machine.serve();
        }
        assert_eq!(machine.kicks(), kicks);
        for _ in 0..9 {
            assert!(receive.receive().unwrap().is_some());
        }
        assert_eq!(machine.kicks(), kicks + 1);
    }

    #[test]
    fn more_than_the_device_takes_is_not_sent() {
        let machine = Machine::new(8, |_, _| None);
        let mut transmit = Transmit::new(Box::new(machine.queue()), 0);
        let mut count = 0;
        while transmit.has_room() {
            transmit.send(60, None, |frame| frame.fill(0));
            count += 1;
        }
        assert_eq!((count, transmit.failed()), (8, None));
    }
}
