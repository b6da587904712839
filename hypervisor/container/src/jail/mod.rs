//! The walls round a process: namespaces, its root file system, its privileges.
