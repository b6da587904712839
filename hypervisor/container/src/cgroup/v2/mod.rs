//! Cgroup v2: which file each limit and each figure is (Documentation/admin-guide/cgroup-v2.rst).

pub(super) mod limits;
pub(super) mod stats;
