//! The driver as smoltcp sees it.

use core::num::NonZeroUsize;

use chiton_shared::virtio::net::ETHERNET;
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
    pub(super) receive: Receive<'m, H>,
    pub(super) transmit: Transmit<'m, H>,
    pub(super) traits: Traits,
    pub(super) failed: Option<QueueError>,
}

/// A received frame.
pub(super) struct Incoming<'a>(&'a [u8]);

/// Room for a frame.
pub(super) struct Outgoing<'a, 'm, H> {
    transmit: &'a mut Transmit<'m, H>,
    segment: Option<u16>,
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<H: Host> TxToken for Outgoing<'_, '_, H> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.transmit.send(len, self.segment, f)
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
        if self.failed.is_some() || !self.transmit.has_room() {
            return None;
        }
        match self.receive.receive() {
            Ok(frame) => Some((
                Incoming(frame?),
                Outgoing {
                    transmit: &mut self.transmit,
                    segment: None,
                },
            )),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        if !self.transmit.has_room() {
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
