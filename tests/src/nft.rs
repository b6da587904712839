//! The tables of nf_tables, which are nowhere among files.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`.
const GET_TABLE: u16 = 10 << 8 | 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// Of `struct nlmsghdr` and, behind it, `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;

/// The names of all tables in the network namespace of this thread; none where the kernel has no nf_tables.
///
/// # Panics
///
/// If the kernel has no netlink.
#[must_use]
pub fn tables() -> Vec<String> {
    // SAFETY: no memory is involved.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_NETFILTER,
        )
    };
    assert!(fd >= 0, "a netlink socket: {}", std::io::Error::last_os_error());
    // SAFETY: it was just opened, and is nobody else's.
    let mut socket = unsafe { File::from_raw_fd(fd) };
    let mut request = (HEADERS as u32).to_ne_bytes().to_vec();
    request.extend(GET_TABLE.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.resize(HEADERS, 0);
    socket.write_all(&request).expect("the kernel listens");
    let mut tables = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = socket.read(&mut buffer).expect("an answer");
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&i32::from(kind)) {
                return tables;
            }
            // Its first attribute is the name, with a zero byte behind it.
            let text = &rest[HEADERS + 4..length];
            let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
            tables.push(String::from_utf8_lossy(name).into_owned());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
