//! `--net`: a network interface as given on the command line.

use chiton_kvm::arguments::{Addresses, address};
use chiton_kvm::{Limits, MAX_NET_QUEUES, Net, NetOpenError, Rate};

use crate::options::rate;

/// A network interface as given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetOption {
    tap: String,
    mac: Option<[u8; 6]>,
    mtu: Option<u16>,
    addresses: Addresses,
    queues: Option<u16>,
    ops: Option<Rate>,
    bytes: Option<Rate>,
}

impl NetOption {
    /// Has these limits in the place of those it had.
    pub(crate) const fn set_limits(&mut self, limits: Limits) {
        (self.ops, self.bytes) = (limits.ops, limits.bytes);
    }

    /// Opens the TAP device.
    pub(crate) fn open(&self) -> Result<Net, NetOpenError> {
        let mut net = Net::tap_with_queues(&self.tap, self.queues.unwrap_or(1))?;
        if let Some(mac) = self.mac {
            net = net.mac(mac)?;
        }
        if let Some(mtu) = self.mtu {
            net = net.mtu(mtu)?;
        }
        net = self.addresses.tell(net);
        if let Some(rate) = self.ops {
            net = net.limit_ops(rate);
        }
        if let Some(rate) = self.bytes {
            net = net.limit_bytes(rate);
        }
        Ok(net)
    }
}

/// Reads what stands behind `--net`.
pub(crate) fn net(text: &str) -> Result<NetOption, String> {
    let mut net = NetOption::default();
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is not KEY=VALUE: write tap=NAME,ip=10.0.0.2/24"))?;
        let given = match key {
            "tap" => !std::mem::replace(&mut net.tap, value.to_owned()).is_empty(),
            "mac" => net.mac.replace(mac(value)?).is_some(),
            "mtu" => net.mtu.replace(mtu(value)?).is_some(),
            "ip" => net.addresses.ip.replace(value.parse()?).is_some(),
            "gateway" => net.addresses.gateway.replace(address(value)?).is_some(),
            "queues" => net.queues.replace(queues(value)?).is_some(),
            "ops" => net.ops.replace(rate(value)?).is_some(),
            "bytes" => net.bytes.replace(rate(value)?).is_some(),
            _ => {
                return Err(format!(
                    "`{key}` is nothing that a network interface has: use tap, mac, mtu, ip, gateway, queues, ops and bytes"
                ));
            }
        };
        if given {
            return Err(format!("`{key}` is given twice"));
        }
    }
    if net.tap.is_empty() {
        return Err("a network interface needs a TAP device: write tap=NAME".into());
    }
    net.addresses.check()?;
    Ok(net)
}

pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("`{text}` is not an Ethernet address: write it as 02:00:00:00:00:01");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(format!(
            "`{text}` is not the address of one interface: the first byte must be even, and not all may be zero"
        ));
    }
    Ok(mac)
}

pub(crate) fn mtu(text: &str) -> Result<u16, String> {
    let mtu = text.parse().ok().filter(|mtu| *mtu >= 68);
    mtu.ok_or_else(|| format!("`{text}` is not an MTU: write a number of bytes from 68 to 65535"))
}

fn queues(text: &str) -> Result<u16, String> {
    let queues = text.parse().ok().filter(|queues| (1..=MAX_NET_QUEUES).contains(queues));
    queues.ok_or_else(|| format!("`{text}` is not a number of queues: write 1 to {MAX_NET_QUEUES}"))
}

#[cfg(test)]
mod tests {
    use chiton_kvm::arguments::Ip;

    use super::*;

    #[test]
    fn a_network_interface_has_a_tap_and_what_else_was_given() {
        let given = net("tap=tap0,mac=02:00:00:00:00:0f,mtu=9000,ip=10.0.0.2/24,gateway=10.0.0.1");
        assert_eq!(
            given,
            Ok(NetOption {
                tap: "tap0".into(),
                mac: Some([2, 0, 0, 0, 0, 15]),
                mtu: Some(9000),
                addresses: Addresses {
                    ip: Some(Ip::Given([10, 0, 0, 2].into(), 24)),
                    gateway: Some([10, 0, 0, 1].into()),
                },
                ..NetOption::default()
            })
        );
        assert_eq!(
            net("tap=tap0,ip=dhcp,queues=2,ops=1K,bytes=10M/1M"),
            Ok(NetOption {
                tap: "tap0".into(),
                addresses: Addresses {
                    ip: Some(Ip::Dhcp),
                    gateway: None,
                },
                queues: Some(2),
                ops: Rate::per_second(1 << 10),
                bytes: Rate::new(10 << 20, 1 << 20),
                ..NetOption::default()
            })
        );
        assert!(net("tap=tap0").is_ok_and(|net| net.addresses == Addresses::default() && net.mac.is_none()));
        assert!(net("tap=t,ip=fd00::2/64,gateway=fd00::1").is_ok());
    }

    #[test]
    fn what_is_wrong_with_an_interface_is_named() {
        for (text, words) in [
            ("", "`` is not KEY=VALUE"),
            ("tap0", "`tap0` is not KEY=VALUE"),
            ("tap=", "needs a TAP device"),
            ("mtu=1500", "needs a TAP device"),
            ("tap=a,tap=b", "`tap` is given twice"),
            ("tap=a,speed=9", "`speed` is nothing"),
            ("tap=a,mac=1:2:3:4:5:6", "not an Ethernet address"),
            ("tap=a,mac=02:00:00:00:00:01:02", "not an Ethernet address"),
            ("tap=a,mac=02:00:00:00:00:0g", "not an Ethernet address"),
            ("tap=a,mac=01:00:00:00:00:01", "first byte must be even"),
            ("tap=a,mtu=67", "not an MTU"),
            ("tap=a,mtu=65536", "not an MTU"),
            ("tap=a,ip=10.0.0.2", "lacks the length of its prefix"),
            ("tap=a,ip=10.0.0.256/24", "not an IP address"),
            ("tap=a,ip=10.0.0.2/33", "not the length of a prefix"),
            ("tap=a,ip=224.0.0.1/4", "not the address of one interface"),
            ("tap=a,gateway=10.0.0.1", "only with an address"),
            ("tap=a,ip=dhcp,gateway=10.0.0.1", "the DHCP server names the gateway"),
            ("tap=a,queues=0", "not a number of queues"),
            ("tap=a,queues=9", "not a number of queues"),
            ("tap=a,queues=2,queues=2", "`queues` is given twice"),
            ("tap=a,ops=0", "nothing would ever be done"),
            ("tap=a,bytes=1M/0", "nothing would ever be done"),
            ("tap=a,bytes=much", "is not a size"),
            ("tap=a,ip=10.0.0.2/24,gateway=::1", "of different kinds"),
        ] {
            let said = net(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
