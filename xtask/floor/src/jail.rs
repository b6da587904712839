//! The least that a jail like ours asks of the kernel: control groups, eight namespaces, an overlay, `/proc`, another
//! root; and all of it away again.

use core::{ffi::CStr, ptr};

/// Where the overlay is mounted. It and `lower`, in which there is `proc`, are in the folder of the jail.
const ROOT: &CStr = c"root";
/// What is made for it there, outermost first.
const SCRATCH: [&CStr; 3] = [c"scratch", c"scratch/upper", c"scratch/work"];
/// What the kernel makes in it, innermost first; before that a file, `DIRTY`.
const MADE: [&CStr; 3] = [
    c"scratch/work/work/incompat/volatile",
    c"scratch/work/work/incompat",
    c"scratch/work/work",
];
const DIRTY: &CStr = c"scratch/work/work/incompat/volatile/dirty";
const OPTIONS: &CStr = c"lowerdir=lower,upperdir=scratch/upper,workdir=scratch/work,userxattr,volatile";
/// How many control groups there may be.
const GROUPS: usize = 16;

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Runs `inside` in a jail made in the folder `place`, in these control groups, which are made. Its status; `None` if
/// the kernel refuses anything.
pub fn run(place: &CStr, groups: &[&CStr], inside: impl FnOnce() -> i32) -> Option<i32> {
    let mut tasks = [-1; GROUPS];
    for (group, tasks) in groups.iter().zip(&mut tasks) {
        make(group)?;
        // SAFETY: C strings and flags; on v2 there is no such file, and nobody enters.
        *tasks = unsafe {
            let folder = libc::open(group.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            libc::openat(folder, c"tasks".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC)
        };
    }
    // SAFETY: a C string.
    checked(unsafe { libc::chdir(place.as_ptr()) })?;
    SCRATCH.iter().try_for_each(|folder| make(folder))?;
    let flags = NAMESPACES | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is a fork; the process has one thread, and the copy goes on with its own stack.
    let child = checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32 })?;
    if child == 0 {
        let code = enter(&tasks).map_or(2, |()| inside());
        // SAFETY: it does not return.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    groups.iter().try_for_each(|group| remove(group))?;
    // SAFETY: a C string.
    checked(unsafe { libc::unlink(DIRTY.as_ptr()) })?;
    let folders = MADE.iter().chain(SCRATCH.iter().rev());
    folders.into_iter().try_for_each(|folder| remove(folder))?;
    Some(libc::WEXITSTATUS(status))
}

/// The process in the jail.
fn enter(tasks: &[i32]) -> Option<()> {
    for file in tasks.iter().filter(|file| **file >= 0) {
        // SAFETY: one byte of a constant.
        checked(unsafe { libc::write(*file, b"0".as_ptr().cast(), 1) } as i32)?;
    }
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/uid_map", b"0 0 1")?;
    write(c"/proc/self/gid_map", b"0 0 1")?;
    // SAFETY: flags.
    checked(unsafe { libc::unshare(libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME) })?;
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    mount(c"overlay", ROOT, c"overlay", libc::MS_NODEV, OPTIONS)?;
    let strict = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"proc", c"root/proc", c"proc", strict, c"subset=pid,hidepid=2")?;
    // SAFETY: C strings and flags.
    unsafe {
        checked(libc::chdir(ROOT.as_ptr()))?;
        checked(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32)?;
        checked(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
    }
    Some(())
}

fn mount(source: &CStr, at: &CStr, kind: &CStr, flags: u64, options: &CStr) -> Option<()> {
    let (source, at, kind) = (source.as_ptr(), at.as_ptr(), kind.as_ptr());
    let options = if options.is_empty() {
        ptr::null()
    } else {
        options.as_ptr().cast()
    };
    // SAFETY: C strings, or no options.
    checked(unsafe { libc::mount(source, at, kind, flags, options) }).map(drop)
}

fn write(path: &CStr, text: &[u8]) -> Option<()> {
    // SAFETY: a C string, and as many bytes as there are.
    unsafe {
        let file = checked(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        checked(libc::write(file, text.as_ptr().cast(), text.len()) as i32)?;
        checked(libc::close(file)).map(drop)
    }
}

fn make(folder: &CStr) -> Option<()> {
    // SAFETY: a C string.
    checked(unsafe { libc::mkdir(folder.as_ptr(), 0o755) }).map(drop)
}

fn remove(folder: &CStr) -> Option<()> {
    // SAFETY: a C string.
    checked(unsafe { libc::rmdir(folder.as_ptr()) }).map(drop)
}

fn checked(result: i32) -> Option<i32> {
    (result >= 0).then_some(result)
}
