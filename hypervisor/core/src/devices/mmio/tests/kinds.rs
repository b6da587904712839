//! A device of each kind, with something to read and room to write, and what a driver asks of it.

use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use chiton_shared::memory::Window;
use chiton_shared::virtio::console::{Control, event};
use chiton_shared::virtio::p9::{self, Request};
use chiton_shared::virtio::vsock::{self, HOST_CID, TYPE_STREAM};
use chiton_shared::virtio::{block, net};

use super::super::super::console::fake::FakePort;
use super::super::super::net::fake::FakeLink;
use super::super::super::p9::fake::FakeTree;
use super::super::super::vsock::fake::FakeSockets;
use super::super::super::{Balloon, Console, Net, P9, Pages, PagesError, Port, Vsock};
use super::super::Transport;
use super::registers;

const CID: u64 = 42;
/// A port that somebody serves on the host.
const SERVED: u32 = 7;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Console,
    Ports,
    Block,
    Entropy,
    Net,
    Vsock,
    Balloon,
    Folder,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind::Console,
    Kind::Ports,
    Kind::Block,
    Kind::Entropy,
    Kind::Net,
    Kind::Vsock,
    Kind::Balloon,
    Kind::Folder,
];

/// Memory that may all be released.
struct Anything;

impl Pages for Anything {
    fn release(&mut self, pages: Window<'_>) -> Result<(), PagesError> {
        pages.write(0, &vec![0; pages.len()]);
        Ok(())
    }

    fn target(&self) -> u32 {
        3
    }

    fn wants_statistics(&mut self) -> bool {
        true
    }
}

fn port() -> FakePort {
    let port = FakePort::default();
    port.state().input.extend((0..200).map(|i| i as u8));
    port.state().takes.extend([100, 1, 7, 1000]);
    port
}

/// A device of this kind.
pub(super) fn device(kind: Kind) -> Transport {
    match kind {
        Kind::Console => Transport::new(Box::new(Console::new(port()))),
        Kind::Ports => {
            let extra: Box<dyn Port> = Box::new(port());
            Transport::new(Box::new(Console::new(port()).with_ports([(String::from("a"), extra)])))
        }
        Kind::Block => registers::block(16).0,
        Kind::Entropy => registers::entropy(),
        Kind::Net => {
            let link = FakeLink::default();
            link.state()
                .input()
                .extend([60, 1514, 14].map(|len| vec![len as u8; len]));
            link.state().echo = true;
            Transport::new(Box::new(Net::new(link)))
        }
        Kind::Vsock => {
            let host = FakeSockets::default();
            host.state().served.push(SERVED);
            let socket = host.ask(5);
            host.at(socket, |end| end.input.extend([1, 2, 3]));
            Transport::new(Box::new(Vsock::new(CID, host)))
        }
        Kind::Balloon => Transport::new(Box::new(Balloon::new(Anything))),
        Kind::Folder => {
            let tree = FakeTree::new(&[("/a", Some(b"hello")), ("/d", None), ("/d/b", Some(b"bee"))]);
            Transport::new(Box::new(P9::new(tree, b"name")))
        }
    }
}

/// What begins a request that makes sense to a device of this kind, or nearly.
pub(super) fn request(kind: Kind, choice: u8) -> Vec<u8> {
    let small = u32::from(choice % 8);
    match kind {
        Kind::Console | Kind::Entropy => vec![choice; 64],
        Kind::Ports => {
            let (port, event) = (
                small % 3,
                [event::DEVICE_READY, event::PORT_READY, event::PORT_OPEN][choice as usize % 3],
            );
            Control { port, event, value: 1 }.to_bytes().into()
        }
        Kind::Block => {
            let header = block::RequestHeader {
                kind: [0, 1, 4, 8, 11, 13][choice as usize % 6],
                reserved: 0,
                sector: small.into(),
            };
            header.to_bytes().into()
        }
        Kind::Net => {
            let header = net::Header {
                flags: choice & net::flags::NEEDS_CSUM,
                gso_type: [net::gso::NONE, net::gso::TCPV4, net::gso::UDP_L4][choice as usize % 3],
                gso_size: 9,
                csum_start: 14,
                ..net::Header::default()
            };
            header.to_bytes().into()
        }
        Kind::Vsock => {
            let header = vsock::Header {
                src_cid: CID,
                dst_cid: HOST_CID,
                src_port: 5,
                dst_port: SERVED,
                len: small,
                kind: TYPE_STREAM,
                op: u16::from(choice % 9),
                flags: small,
                buf_alloc: 1000,
                fwd_cnt: 0,
            };
            header.to_bytes().into()
        }
        Kind::Balloon => (0..64_u32)
            .flat_map(|page| (0x200 + page * small).to_le_bytes())
            .collect(),
        Kind::Folder => {
            let mut bytes = vec![0; 256];
            let request = match choice % 4 {
                0 => Request::Version {
                    msize: 0x3000,
                    version: p9::VERSION,
                },
                1 => Request::Attach {
                    fid: 0,
                    afid: p9::NO_FID,
                    user: b"",
                    tree: b"",
                    uid: 0,
                },
                2 => Request::Open { fid: 0, flags: 0 },
                _ => Request::ReadDirectory {
                    fid: 0,
                    offset: 0,
                    count: 0x1000,
                },
            };
            let len = request.encode(1, &mut bytes).expect("room for a request");
            bytes.truncate(len);
            bytes
        }
    }
}
