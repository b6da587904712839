//! Control groups: limits and accounts, on cgroup v2, v1 and hybrid hosts.
