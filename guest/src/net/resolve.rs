//! Addresses of names: from the hosts file of the network, then from a DNS server (RFC 1035).

use alloc::vec::Vec;
use core::net::IpAddr;

use smoltcp::socket::dns::{GetQueryResultError, Socket};
use smoltcp::wire::DnsQueryType;

use super::stack::{self, Stack};
use super::{NetError, address};
use crate::{env, fs};

/// The environment's variable with the path of the hosts file, which changes as instances come and go.
const HOSTS: &str = "CHITON_HOSTS";

/// How many servers are asked at most: smoltcp has room for so many.
pub(super) const SERVERS: usize = 3;

/// The address of this name, of the kind that this guest has itself: an instance of the same network, or
/// whatever a DNS server says. A text that is an address is itself.
///
/// The hosts file, which is on any network of `chiton run --network`, is read anew each time. Servers are
/// those of `--dns`, of the host, or of DHCP; each is asked for 10 seconds at most.
///
/// # Errors
///
/// [`NetError::UnknownName`], [`NetError::NoServer`]; any other if the network does not work.
pub fn resolve(name: &str) -> Result<IpAddr, NetError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let v4 = address()?.0.is_ipv4();
    if let Some(path) = env::var(HOSTS)
        && let Ok(hosts) = fs::read(path)
        && let Some(address) = find(&hosts, name, v4)
    {
        return Ok(address);
    }
    ask(name, v4)
}

/// Looks for a name in a hosts file (hosts(5)).
fn find(hosts: &[u8], name: &str, v4: bool) -> Option<IpAddr> {
    let text = core::str::from_utf8(hosts).ok()?;
    text.lines().find_map(|line| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == v4 && words.any(|word| word.eq_ignore_ascii_case(name))).then_some(address)
    })
}

/// The addresses in a list, as `10.87.0.1,fd00::1`; what is none does not count.
pub(super) fn list(text: &str) -> Vec<IpAddr> {
    let addresses = text.split(',').filter_map(|word| word.trim().parse().ok());
    addresses.take(SERVERS).collect()
}

/// Asks the DNS servers.
fn ask(name: &str, v4: bool) -> Result<IpAddr, NetError> {
    let kind = if v4 { DnsQueryType::A } else { DnsQueryType::Aaaa };
    let (socket, query) = stack::with(|stack| {
        if stack.servers.is_empty() {
            return Err(NetError::NoServer);
        }
        let servers: Vec<_> = stack.servers.iter().map(|server| (*server).into()).collect();
        let handle = stack.sockets.add(Socket::new(&servers, Vec::new()));
        let Stack { sockets, interface, .. } = stack;
        match sockets
            .get_mut::<Socket<'_>>(handle)
            .start_query(interface.context(), name, kind)
        {
            Ok(query) => Ok((handle, query)),
            Err(_) => {
                sockets.remove(handle);
                Err(NetError::UnknownName)
            }
        }
    })?;
    let answer = stack::block(|stack| {
        let result = stack.sockets.get_mut::<Socket<'_>>(socket).get_query_result(query);
        match result {
            Err(GetQueryResultError::Pending) => Ok(None),
            Err(GetQueryResultError::Failed) => Err(NetError::UnknownName),
            Ok(addresses) => Ok(Some(addresses.first().copied())),
        }
    });
    stack::with(|stack| {
        stack.sockets.remove(socket);
        Ok(())
    })?;
    answer?.map(Into::into).ok_or(NetError::UnknownName)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n::1 localhost\n\n# a comment\n10.87.0.2\tweb\t# 0123\n\
        10.87.0.3  DB  database # web\nnonsense web\nfd00::2 web";

    #[test]
    fn a_name_is_found_in_a_hosts_file_whatever_its_case() {
        let find = |name| find(HOSTS, name, true).map(|address| format!("{address}"));
        assert_eq!(find("web").as_deref(), Some("10.87.0.2"));
        assert_eq!(find("db").as_deref(), Some("10.87.0.3"));
        assert_eq!(find("Database").as_deref(), Some("10.87.0.3"));
        assert_eq!(find("localhost").as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn part_of_a_name_a_comment_and_bytes_that_are_no_text_are_no_names() {
        for name in ["we", "0123", "#", "", "10.87.0.2", "nonsense", "comment"] {
            assert_eq!(find(HOSTS, name, true), None, "{name}");
        }
        assert_eq!(find(b"10.0.0.1 a\xff", "a", true), None);
    }

    #[test]
    fn a_guest_gets_an_address_of_its_own_kind() {
        assert_eq!(find(HOSTS, "web", false), "fd00::2".parse().ok());
        assert_eq!(find(HOSTS, "db", false), None);
    }

    #[test]
    fn a_list_of_servers_has_three_at_most() {
        assert_eq!(
            list("10.0.0.1, x,fd00::1"),
            ["10.0.0.1".parse().unwrap(), "fd00::1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(list("1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4").len(), 3);
        assert!(list("").is_empty());
    }
}
