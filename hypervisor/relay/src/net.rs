//! `--net`: a network interface, as for `chiton run`, as far as a line can do it.

use std::net::IpAddr;

use chiton_kvm::{Net, NetOpenError};

/// A network interface as given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetOption {
    tap: String,
    ip: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
}

impl NetOption {
    /// Opens the TAP device.
    pub(crate) fn open(&self) -> Result<Net, NetOpenError> {
        let mut net = Net::tap(&self.tap)?;
        if let Some((address, prefix)) = self.ip {
            net = net.ip(address, prefix);
        }
        if let Some(gateway) = self.gateway {
            net = net.gateway(gateway);
        }
        Ok(net)
    }
}

/// Reads what stands behind `--net`.
pub(crate) fn net(text: &str) -> Result<NetOption, String> {
    let mut net = NetOption::default();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("tap", name)) => net.tap = name.into(),
            Some(("ip", value)) => net.ip = Some(ip(value)?),
            Some(("gateway", value)) => net.gateway = Some(address(value)?),
            _ => {
                return Err(format!(
                    "`{part}` is none of tap=NAME, ip=ADDRESS/PREFIX and gateway=ADDRESS"
                ));
            }
        }
    }
    if net.tap.is_empty() {
        return Err("a network interface needs a TAP device: write tap=NAME".into());
    }
    if net.gateway.is_some() && net.ip.is_none() {
        return Err("a gateway is of use only with an address: add ip=ADDRESS/PREFIX".into());
    }
    Ok(net)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address: write it as 10.0.0.1 or fd00::1"))
}

fn ip(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is not an address with the length of its prefix: write 10.0.0.2/24");
    let (ip, len) = text.split_once('/').ok_or_else(wrong)?;
    let ip = address(ip)?;
    let max = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = len.parse().ok().filter(|len| *len <= max).ok_or_else(wrong)?;
    Ok((ip, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_a_tap_device_and_may_have_an_address() {
        let given = net("tap=tap0,ip=10.0.0.2/24,gateway=10.0.0.1").unwrap();
        let expected = NetOption {
            tap: "tap0".into(),
            ip: Some(([10, 0, 0, 2].into(), 24)),
            gateway: Some([10, 0, 0, 1].into()),
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("ip=10.0.0.2/24", "needs a TAP device"),
            ("tap=a,gateway=10.0.0.1", "only with an address"),
            ("tap=a,ip=10.0.0.2", "length of its prefix"),
            ("tap=a,ip=10.0.0.2/33", "length of its prefix"),
            ("tap=a,queues=2", "none of"),
        ] {
            let refused = net(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
