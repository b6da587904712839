//! `--net`: a network interface, as for `chiton run`, as far as a line can do it.

use chiton_kvm::arguments::{Addresses, address};
use chiton_kvm::{Net, NetOpenError};

/// A network interface as given on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetOption {
    tap: String,
    addresses: Addresses,
}

impl NetOption {
    /// Opens the TAP device.
    pub(crate) fn open(&self) -> Result<Net, NetOpenError> {
        Ok(self.addresses.tell(Net::tap(&self.tap)?))
    }
}

/// Reads what stands behind `--net`.
pub(crate) fn net(text: &str) -> Result<NetOption, String> {
    let mut net = NetOption::default();
    for part in text.split(',') {
        let given = match part.split_once('=') {
            Some(("tap", name)) => !std::mem::replace(&mut net.tap, name.to_owned()).is_empty(),
            Some(("ip", value)) => net.addresses.ip.replace(value.parse()?).is_some(),
            Some(("gateway", value)) => net.addresses.gateway.replace(address(value)?).is_some(),
            _ => {
                return Err(format!(
                    "`{part}` is none of tap=NAME, ip=ADDRESS/PREFIX, ip=dhcp and gateway=ADDRESS, which a line has"
                ));
            }
        };
        if given {
            return Err(format!("`{part}`: that is given twice"));
        }
    }
    if net.tap.is_empty() {
        return Err("a network interface needs a TAP device: write tap=NAME".into());
    }
    net.addresses.check()?;
    Ok(net)
}

#[cfg(test)]
mod tests {
    use chiton_kvm::arguments::Ip;

    use super::*;

    #[test]
    fn an_interface_is_a_tap_device_and_may_have_an_address() {
        let given = net("tap=tap0,ip=10.0.0.2/24,gateway=10.0.0.1").unwrap();
        let expected = NetOption {
            tap: "tap0".into(),
            addresses: Addresses {
                ip: Some(Ip::Given([10, 0, 0, 2].into(), 24)),
                gateway: Some([10, 0, 0, 1].into()),
            },
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("ip=10.0.0.2/24", "needs a TAP device"),
            ("tap=a,gateway=10.0.0.1", "only with an address"),
            ("tap=a,ip=10.0.0.2", "length of its prefix"),
            ("tap=a,ip=10.0.0.2/33", "length of a prefix"),
            ("tap=a,ip=0.0.0.0/24", "not the address of one interface"),
            ("tap=a,ip=10.0.0.2/24,gateway=::1", "of different kinds"),
            ("tap=a,tap=b", "given twice"),
            ("tap=a,queues=2", "none of"),
        ] {
            let refused = net(text).unwrap_err();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
