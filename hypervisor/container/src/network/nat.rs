//! Address translation by nf_tables: the way out for all, the way in for published ports.
//!
//! As `nft list ruleset` shows it:
//!
//! ```text
//! table ip chiton {                                # while there are instances
//!   chain out { type nat hook postrouting priority 100
//!     ip saddr 10.87.0.0/16 oifname != "chiton0" masquerade
//!     oifname "chiton0" ct status dnat masquerade  # who comes by a published port gets its answer back
//! } }
//! table ip chiton-ID {                             # an instance's own; gone with it
//!   chain in { type nat hook prerouting priority -100
//!     fib daddr type local tcp dport 8080 dnat to 10.87.0.2:80
//!   }
//!   chain self { type nat hook output priority -100 … the same, for the host itself
//! } }
//! ```

use std::io;
use std::net::Ipv4Addr;

use super::netlink::{Attributes, Family, Message, Socket};
use super::{Port, Subnet};

/// `NFNL_SUBSYS_NFTABLES`, in the upper half of a message's type.
const NF_TABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NF_TABLES;
const GET_TABLE: u16 = NF_TABLES | 1;
const DELETE_TABLE: u16 = NF_TABLES | 2;
const NEW_CHAIN: u16 = NF_TABLES | 3;
const NEW_RULE: u16 = NF_TABLES | 6;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NLM_F_CREATE`, `NLM_F_APPEND`, and `NLM_F_ROOT | NLM_F_MATCH`.
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;

/// `struct nfgenmsg` for IPv4.
const IPV4: [u8; 4] = [2, 0, 0, 0];
/// The same around a batch, with the subsystem in network order.
const BATCH: [u8; 4] = [0, 0, 0, 10];

/// The name of an attribute that names its table, the same for tables, chains and rules.
const TABLE: u16 = 1;

/// Registers of 16 bytes each (`NFT_REG_1`, `NFT_REG_2`).
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// `NFT_NAT_DNAT`, `NFPROTO_IPV4`.
const DESTINATION: u32 = 1;
const INET: u32 = 2;

/// Where the kernel runs a chain: `NF_INET_PRE_ROUTING` and so on, and the priority.
#[derive(Clone, Copy)]
enum Hook {
    PreRouting,
    Output,
    PostRouting,
}

impl Hook {
    const fn number_and_priority(self) -> (u32, i32) {
        match self {
            Self::PreRouting => (0, -100),
            Self::Output => (3, -100),
            Self::PostRouting => (4, 100),
        }
    }
}

/// A rule, as it is put together: a list of expressions.
struct Rule(Message);

impl Rule {
    fn expression(self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        const LIST_ELEMENT: u16 = 1;
        Self(
            self.0
                .nested(LIST_ELEMENT, |element| element.with_str(1, name).nested(2, data)),
        )
    }

    /// `NFTA_META_*`: a property of the packet into the first register.
    fn meta(self, key: u32) -> Self {
        self.expression("meta", |data| data.with_be32(1, FIRST).with_be32(2, key))
    }

    /// `NFTA_PAYLOAD_*`: bytes of a header (1 network, 2 transport) into the first register.
    fn payload(self, header: u32, offset: u32, len: u32) -> Self {
        self.expression("payload", |data| {
            data.with_be32(1, FIRST)
                .with_be32(2, header)
                .with_be32(3, offset)
                .with_be32(4, len)
        })
    }

    /// `NFTA_BITWISE_*`: only these bits of the first register.
    fn mask(self, mask: &[u8]) -> Self {
        let zeros = vec![0; mask.len()];
        self.expression("bitwise", |data| {
            data.with_be32(1, FIRST)
                .with_be32(2, FIRST)
                .with_be32(3, mask.len() as u32)
                .nested(4, |value| value.with(1, mask))
                .nested(5, |value| value.with(1, &zeros))
        })
    }

    /// `NFTA_CMP_*`: goes on only if the first register is this, or is not.
    fn compare(self, equal: bool, value: &[u8]) -> Self {
        self.expression("cmp", |data| {
            data.with_be32(1, FIRST)
                .with_be32(2, u32::from(!equal))
                .nested(3, |data| data.with(1, value))
        })
    }

    /// `NFTA_IMMEDIATE_*`: this value into a register.
    fn load(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |data| {
            data.with_be32(1, register).nested(2, |data| data.with(1, value))
        })
    }

    /// The packet's source is in the range.
    fn from(self, subnet: Subnet) -> Self {
        self.payload(1, 12, 4)
            .mask(&subnet.mask().octets())
            .compare(true, &subnet.first().octets())
    }

    /// It leaves by this device, or by any other.
    fn leaves_by(self, device: &str, equal: bool) -> Self {
        /// `NFT_META_OIFNAME`; names are compared in all 16 bytes.
        const OUT_NAME: u32 = 7;
        let mut name = [0; 16];
        name[..device.len()].copy_from_slice(device.as_bytes());
        self.meta(OUT_NAME).compare(equal, &name)
    }

    /// Its connection came by a published port.
    fn was_redirected(self) -> Self {
        /// `NFT_CT_STATUS`, `IPS_DST_NAT`.
        const STATUS: u32 = 2;
        const REDIRECTED: u32 = 1 << 5;
        self.expression("ct", |data| data.with_be32(1, FIRST).with_be32(2, STATUS))
            .mask(&REDIRECTED.to_ne_bytes())
            .compare(false, &[0; 4])
    }

    /// It is for the host: this address of its, or any.
    fn at_host(self, address: Option<Ipv4Addr>) -> Self {
        /// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, `RTN_LOCAL`.
        const ADDRESS_TYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        match address {
            Some(address) => self.payload(1, 16, 4).compare(true, &address.octets()),
            None => self
                .expression("fib", |data| {
                    data.with_be32(1, FIRST)
                        .with_be32(2, ADDRESS_TYPE)
                        .with_be32(3, DESTINATION)
                })
                .compare(true, &LOCAL.to_ne_bytes()),
        }
    }

    /// It is for this port.
    fn at_port(self, protocol: u8, port: u16) -> Self {
        /// `NFT_META_L4PROTO`.
        const PROTOCOL: u32 = 16;
        self.meta(PROTOCOL)
            .compare(true, &[protocol])
            .payload(2, 2, 2)
            .compare(true, &port.to_be_bytes())
    }

    fn masquerade(self) -> Self {
        self.expression("masq", |data| data)
    }

    /// It goes to this address instead.
    fn move_to(self, address: Ipv4Addr) -> Self {
        self.load(FIRST, &address.octets()).expression("nat", |data| {
            data.with_be32(1, DESTINATION).with_be32(2, INET).with_be32(3, FIRST)
        })
    }

    /// `NFTA_NAT_*`: it goes to this address and port instead.
    fn redirect(self, address: Ipv4Addr, port: u16) -> Self {
        self.load(FIRST, &address.octets())
            .load(SECOND, &port.to_be_bytes())
            .expression("nat", |data| {
                data.with_be32(1, DESTINATION)
                    .with_be32(2, INET)
                    .with_be32(3, FIRST)
                    .with_be32(5, SECOND)
            })
    }
}

fn table(kind: u16, name: &str) -> Message {
    let flags = if kind == NEW_TABLE { CREATE } else { 0 };
    Message::new(kind, flags, &IPV4).with_str(TABLE, name)
}

fn chain(table: &str, name: &str, hook: Hook) -> Message {
    let (number, priority) = hook.number_and_priority();
    Message::new(NEW_CHAIN, CREATE, &IPV4)
        .with_str(TABLE, table)
        .with_str(3, name)
        .nested(4, |hook| {
            hook.with_be32(1, number).with_be32(2, priority.cast_unsigned())
        })
        .with_str(7, "nat")
}

fn rule(table: &str, chain: &str, build: impl FnOnce(Rule) -> Rule) -> Message {
    Message::new(NEW_RULE, CREATE | APPEND, &IPV4)
        .with_str(TABLE, table)
        .with_str(2, chain)
        .nested(4, |list| build(Rule(list)).0)
}

fn batch(messages: Vec<Message>) -> io::Result<()> {
    let (begin, end) = (Message::new(BATCH_BEGIN, 0, &BATCH), Message::new(BATCH_END, 0, &BATCH));
    Socket::open(Family::Netfilter)?.batch(begin, messages, end)
}

/// Makes the table of this name, or makes it anew, with the way out of a range of addresses behind a bridge.
pub(super) fn way_out(name: &str, bridge: &str, subnet: Subnet) -> io::Result<()> {
    batch(vec![
        // One that is not there cannot be removed, so it is made first.
        table(NEW_TABLE, name),
        table(DELETE_TABLE, name),
        table(NEW_TABLE, name),
        chain(name, "out", Hook::PostRouting),
        rule(name, "out", |rule| {
            rule.from(subnet).leaves_by(bridge, false).masquerade()
        }),
        rule(name, "out", |rule| {
            rule.leaves_by(bridge, true).was_redirected().masquerade()
        }),
    ])
}

/// Makes the table of this name with the way in for ports, which lead to this address.
pub(super) fn way_in(name: &str, address: Ipv4Addr, ports: &[Port]) -> io::Result<()> {
    let mut messages = vec![
        table(NEW_TABLE, name),
        table(DELETE_TABLE, name),
        table(NEW_TABLE, name),
        chain(name, "in", Hook::PreRouting),
        chain(name, "self", Hook::Output),
    ];
    for chain in ["in", "self"] {
        messages.extend(ports.iter().map(|port| {
            rule(name, chain, |rule| {
                rule.at_host(port.address)
                    .at_port(port.protocol.number(), port.host)
                    .redirect(address, port.instance)
            })
        }));
    }
    batch(messages)
}

/// Makes the table of this name, which has packets for one address go to another.
pub(super) fn way_over(name: &str, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
    let mut messages = vec![
        table(NEW_TABLE, name),
        chain(name, "in", Hook::PreRouting),
        chain(name, "self", Hook::Output),
    ];
    for chain in ["in", "self"] {
        messages.push(rule(name, chain, |rule| rule.at_host(Some(from)).move_to(to)));
    }
    batch(messages)
}

/// Removes a table; it may be gone already.
pub(super) fn remove(name: &str) -> io::Result<()> {
    match batch(vec![table(DELETE_TABLE, name)]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// The rules of a table, as the kernel has them: of each the chain, the names of its expressions, and the values that
/// are compared or loaded.
#[cfg(test)]
pub(super) fn rules(table: &str) -> io::Result<Vec<KernelRule>> {
    const GET_RULE: u16 = NF_TABLES | 7;
    let mut rules = Vec::new();
    let message = Message::new(GET_RULE, DUMP, &IPV4).with_str(TABLE, table);
    Socket::open(Family::Netfilter)?.dump(message, &mut |kind, body| {
        let attributes = Attributes(body.get(4..).unwrap_or_default());
        if kind != NEW_RULE || attributes.string(TABLE) != Some(table) {
            return;
        }
        let mut rule = KernelRule {
            chain: attributes.string(2).unwrap_or_default().to_owned(),
            ..KernelRule::default()
        };
        for (_, expression) in Attributes(attributes.find(4).unwrap_or_default()) {
            let name = Attributes(expression).string(1).unwrap_or_default();
            let data = Attributes(Attributes(expression).find(2).unwrap_or_default());
            let value = match name {
                "cmp" => data.find(3),
                "immediate" => data.find(2),
                _ => None,
            };
            rule.expressions.push(name.to_owned());
            rule.values
                .extend(value.and_then(|value| Attributes(value).find(1)).map(<[u8]>::to_vec));
        }
        rules.push(rule);
    })?;
    Ok(rules)
}

/// A rule, as the kernel has it.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct KernelRule {
    pub(super) chain: String,
    pub(super) expressions: Vec<String>,
    pub(super) values: Vec<Vec<u8>>,
}

/// The names of all tables for IPv4.
pub(super) fn tables() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let message = Message::new(GET_TABLE, DUMP, &IPV4);
    Socket::open(Family::Netfilter)?.dump(message, &mut |kind, body| {
        if kind == NEW_TABLE {
            let name = body.get(4..).and_then(|body| Attributes(body).string(TABLE));
            names.extend(name.map(str::to_owned));
        }
    })?;
    Ok(names)
}
