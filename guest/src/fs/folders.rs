//! The folders of this machine, each with a driver that is opened when it is first used.

use alloc::boxed::Box;

use chiton_shared::boot::DeviceEntry;
use chiton_shared::map::DEVICE_MAX;
use chiton_shared::virtio::{id, p9};
use spin::Mutex;

use super::path::Path;
use super::{Client, FsError, Reason};
use crate::boot;
use crate::host::Doorbells;
use crate::queue::Queue;

/// A folder's driver.
enum State {
    Closed,
    Open(Box<Client<'static, Doorbells>>),
    /// It could not be opened, for this reason.
    Failed(Reason),
}

static FOLDERS: [Mutex<State>; DEVICE_MAX] = [const { Mutex::new(State::Closed) }; DEVICE_MAX];

/// The folders' names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    boot::devices(id::P9).filter_map(|entry| core::str::from_utf8(name_of(entry)?).ok())
}

/// The name of a folder, if its device has one.
fn name_of(entry: &DeviceEntry) -> Option<&[u8]> {
    (entry.features & p9::F_MOUNT_TAG != 0).then(|| p9::tag(&entry.config))?
}

/// Has the driver of the folder in a path do something with it.
pub(super) fn with<R>(
    path: &str,
    work: impl FnOnce(&mut Client<'static, Doorbells>, &Path<'_>) -> Result<R, FsError>,
) -> Result<R, FsError> {
    let path = Path::new(path)?;
    let index = find(&path)?;
    with_folder(index, path.text, |client| work(client, &path))
}

/// The number of the folder in a path.
pub(super) fn find(path: &Path<'_>) -> Result<usize, FsError> {
    let found = boot::devices(id::P9).position(|entry| {
        let name = name_of(entry);
        name.is_some() && name == path.folder().map(str::as_bytes)
    });
    found.ok_or_else(|| path.fails(Reason::NoFolder))
}

/// Has the driver of folder number `index` do something; an error to open it names `path`.
pub(super) fn with_folder<R>(
    index: usize,
    path: &str,
    work: impl FnOnce(&mut Client<'static, Doorbells>) -> Result<R, FsError>,
) -> Result<R, FsError> {
    let missing = || FsError::new(path, Reason::NoFolder);
    let mut state = FOLDERS.get(index).ok_or_else(missing)?.lock();
    if matches!(*state, State::Closed) {
        let entry = boot::devices(id::P9).nth(index).ok_or_else(missing)?;
        // SAFETY: the boot page describes queues as the contract has it, and this one is opened
        // once: the state is not `Closed` again.
        let queue = unsafe { Queue::open(entry, p9::REQUEST, Doorbells) };
        let client = queue.map_err(Reason::Device).and_then(Client::new);
        *state = client.map_or_else(State::Failed, |client| State::Open(Box::new(client)));
    }
    match &mut *state {
        State::Open(client) => work(client),
        State::Failed(reason) => Err(FsError::new(path, *reason)),
        State::Closed => Err(missing()),
    }
}
