//! An address from a DHCP server (RFC 2131).

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, RetryConfig, Socket};
use smoltcp::wire::IpCidr;

/// How long the first answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Adds what asks for an address.
pub(super) fn start(sockets: &mut SocketSet<'static>) -> SocketHandle {
    let mut socket = Socket::new();
    let mut retry = RetryConfig::default();
    retry.discover_timeout = smoltcp::time::Duration::from_secs(2);
    retry.initial_request_timeout = smoltcp::time::Duration::from_secs(2);
    socket.set_retry_config(retry);
    sockets.add(socket)
}

/// Gives the interface what the server has said since the last time; names are asked of the servers it named,
/// unless there are others already.
pub(super) fn follow(
    handle: SocketHandle,
    sockets: &mut SocketSet<'static>,
    interface: &mut Interface,
    servers: &mut Vec<IpAddr>,
) {
    let Some(event) = sockets.get_mut::<Socket<'_>>(handle).poll() else {
        return;
    };
    interface.update_ip_addrs(|addresses| addresses.clear());
    interface.routes_mut().remove_default_ipv4_route();
    match event {
        Event::Configured(config) => {
            interface.update_ip_addrs(|addresses| {
                let _ = addresses.push(IpCidr::Ipv4(config.address));
            });
            if servers.is_empty() {
                servers.extend(config.dns_servers.iter().map(|server| IpAddr::V4(*server)));
            }
            if let Some(router) = config.router {
                // There was none, so there is room for it.
                let _ = interface.routes_mut().add_default_ipv4_route(router);
            }
            log::info!(
                "network: {} from the DHCP server {}",
                config.address,
                config.server.address
            );
        }
        Event::Deconfigured => log::warn!("network: the DHCP server's address is not valid any more"),
    }
}
