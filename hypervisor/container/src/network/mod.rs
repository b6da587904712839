//! Networks of jails: bridges, veth pairs, addresses, published ports.
