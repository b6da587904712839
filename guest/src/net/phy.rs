//! The driver as smoltcp sees it.

use alloc::vec::Vec;
use core::num::NonZeroUsize;

use chiton_shared::virtio::net::{ETHERNET, Header};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, SegmentationCapabilities,
    TxToken,
};
use smoltcp::time::Instant;

use super::driver::{Receive, Traits, Transmit};
use crate::host::Host;
use crate::queue::QueueError;

/// The longest TCP segment handed to the device, with its headers, in bytes.
const SEGMENT: usize = 65535 + ETHERNET;

/// A driver and what is known of its device.
pub(super) struct Interface<'m, H> {
    /// As many as pairs of queues are in use.
    pub(super) receive: Vec<Receive<'m, H>>,
    pub(super) transmit: Vec<Transmit<'m, H>>,
    /// Which of the receiving ones had the last frame.
    pub(super) turn: usize,
    pub(super) traits: Traits,
    pub(super) failed: Option<QueueError>,
}

/// A received frame.
pub(super) struct Incoming<'a>(&'a [u8]);

/// Room for a frame.
pub(super) struct Outgoing<'a, 'm, H> {
    transmit: &'a mut [Transmit<'m, H>],
    segment: Option<u16>,
}

/// Which of `count` queues a frame is sent on: those of a connection all on the same, so that they
/// stay in order. The host sends the answers on the queue of this pair.
fn queue_of(frame: &[u8], count: usize) -> usize {
    // The ports of TCP and UDP, where there are any.
    let ports = super::checksum::find(frame).and_then(|found| frame.get(found.start..found.start + 4));
    pair_of(ports.unwrap_or_default(), count)
}

/// The same by the bytes of both ports, in any order.
pub(super) fn pair_of(ports: &[u8], count: usize) -> usize {
    let sum: usize = ports.iter().copied().map(usize::from).sum();
    sum % count.max(1)
}

impl<H: Host> Interface<'_, H> {
    /// Whether each queue has room for one more frame.
    pub(super) fn has_room(&mut self) -> bool {
        self.transmit.iter_mut().all(Transmit::has_room)
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<H: Host> TxToken for Outgoing<'_, '_, H> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        if let [only] = self.transmit {
            return only.send(len, self.segment, f);
        }
        let mut bytes = self.transmit[0].buffer(len);
        let frame = &mut bytes[Header::SIZE..Header::SIZE + len];
        let result = f(frame);
        let queue = queue_of(frame, self.transmit.len());
        self.transmit[queue].send_buffer(bytes, len, self.segment);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(core::num::NonZero::get);
    }
}

impl<'m, H: Host> Device for Interface<'m, H> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a, 'm, H>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if self.failed.is_some() || !self.has_room() {
            return None;
        }
        for _ in 0..self.receive.len() {
            // Fair to all queues; the one whose turn it is has a frame, or the next is asked.
            self.turn = (self.turn + 1) % self.receive.len();
            match self.receive[self.turn].look() {
                Ok(true) => {
                    return Some((
                        Incoming(self.receive[self.turn].frame()),
                        Outgoing {
                            transmit: &mut self.transmit,
                            segment: None,
                        },
                    ));
                }
                Ok(false) => {}
                Err(error) => {
                    self.failed = Some(error);
                    return None;
                }
            }
        }
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        if !self.has_room() {
            return None;
        }
        Some(Outgoing {
            transmit: &mut self.transmit,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let traits = &self.traits;
        let checksum = match (traits.checks_checksums, traits.sends_checksums) {
            (true, true) => Checksum::None,
            (true, false) => Checksum::Tx,
            (false, true) => Checksum::Rx,
            (false, false) => Checksum::Both,
        };
        let mut checksums = ChecksumCapabilities::default();
        checksums.tcp = checksum;
        checksums.udp = checksum;
        let segment = |can| if can { NonZeroUsize::new(SEGMENT) } else { None };
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = segment(traits.segments[0]);
        segmentation.tcpv6 = segment(traits.segments[1]);
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(traits.mtu) + ETHERNET;
        capabilities.checksum = checksums;
        capabilities.segmentation = segmentation;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_connection_take_the_same_queue_and_connections_several() {
        let frame = |port: u8, payload: u8| {
            let mut frame = vec![0; 12];
            frame.extend([8, 0, 0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend([0, port, 0, 2, 0, 11, 0, 0, payload, b'b', b'c']);
            frame
        };
        let queue = |port, payload| queue_of(&frame(port, payload), 4);
        assert!((0..100).all(|payload| queue(1, payload) == queue(1, 0)));
        let mut queues: Vec<_> = (0..16).map(|port| queue(port, 0)).collect();
        queues.sort_unstable();
        queues.dedup();
        assert_eq!(queues, [0, 1, 2, 3]);
        assert_eq!((queue_of(b"", 4), queue_of(&[0xFF; 60], 1)), (0, 0));
    }
}
