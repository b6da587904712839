//! Cgroup v1: which file each limit and each figure is (Documentation/admin-guide/cgroup-v1).

pub(super) mod limits;
pub(super) mod stats;
