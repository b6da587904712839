//! What no driver may send.

use alloc::vec::Vec;

use chiton_guest::host::Doorbells;
use chiton_guest::queue::Queue;
use chiton_guest::shared::virtio::id;
use chiton_guest::shared::virtio::ring::Buffer;
use chiton_guest::shared::virtio::vsock::{HOST_CID, Header, RECEIVE, TRANSMIT, TYPE_STREAM, op};
use chiton_guest::vsock::VsockError;
use chiton_guest::{boot, println};

/// Sends the packets of one lie, and says what came back.
pub fn tell(lie: &str) -> Result<i32, VsockError> {
    let honest = Header {
        src_cid: 3,
        dst_cid: HOST_CID,
        src_port: 1,
        dst_port: 2,
        kind: TYPE_STREAM,
        buf_alloc: 1000,
        ..Header::default()
    };
    let with = |op| Header { op, ..honest };
    let packets: Vec<Header> = match lie {
        "cid" => [
            Header {
                src_cid: 9,
                ..with(op::REQUEST)
            },
            with(op::REQUEST),
        ]
        .into(),
        "host" => [Header {
            dst_cid: 9,
            ..with(op::REQUEST)
        }]
        .into(),
        "kind" => [Header {
            kind: 7,
            ..with(op::REQUEST)
        }]
        .into(),
        "op" => [with(99)].into(),
        "len" => [Header {
            len: 1 << 31,
            ..with(op::RW)
        }]
        .into(),
        "flood" => (0..4096)
            .map(|src_port| Header {
                src_port,
                ..with(op::REQUEST)
            })
            .collect(),
        _ => {
            println!("sockets: lies are cid, host, kind, op, len, flood");
            return Ok(2);
        }
    };
    let entry = boot::devices(id::VSOCK).next().ok_or(VsockError::Missing)?;
    // SAFETY: nothing else in this program opens the device.
    let (mut receive, mut transmit) = unsafe {
        (
            Queue::open(entry, RECEIVE, Doorbells)?,
            Queue::open(entry, TRANSMIT, Doorbells)?,
        )
    };
    let mut answer = [0; Header::SIZE];
    let mut answers = 0;
    for packet in &packets {
        let packet = packet.to_bytes();
        let buffer = Buffer::readable(packet.as_ptr().expose_provenance() as u64, packet.len() as u32);
        // SAFETY: the packet lives until its chain has come back.
        unsafe { transmit.add(&[buffer]) }?;
        transmit.wait()?;
        if lie == "cid" && answers == 0 && packet[0] == 9 {
            // Nobody is to be answered.
            continue;
        }
        let buffer = Buffer::writable(answer.as_mut_ptr().expose_provenance() as u64, answer.len() as u32);
        // SAFETY: the answer lives until its chain has come back.
        unsafe { receive.add(&[buffer]) }?;
        receive.wait()?;
        let header = Header::from_bytes(&answer);
        if header.op != op::RST {
            println!("sockets: an answer with op {}", header.op);
            return Ok(1);
        }
        answers += 1;
    }
    println!("sockets: {answers} resets");
    Ok(0)
}
