//! Ways to find the pages that a guest has written, and to put them back: the time of one round, in which the guest
//! writes a word to each of so many pages of 16 MiB, and the host then restores them.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use super::bare::{DATA, LAST_TABLES, MEMORY, Machine, Memory, PAGE, image};
use super::{Error, Plan, nanoseconds, repeats};
use crate::run::{Case, Unit};

/// How many pages are written.
const PAGES: [u32; 3] = [1, 8, 64];

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Known,
    All,
    Discard,
    DiscardTouched,
    Log,
    LogOnce,
    Scan,
    Entries,
}

const WAYS: [(Way, &str, &str); 8] = [
    (
        Way::Known,
        "known",
        "somebody knows which pages were written: they are copied, and nobody watches",
    ),
    (Way::All, "all", "all of memory is copied"),
    (
        Way::Discard,
        "discard",
        "memory is a private mapping of a file, whose own pages MADV_DONTNEED gives up",
    ),
    (
        Way::DiscardTouched,
        "discard known",
        "the same for the pages that are known to be written",
    ),
    (
        Way::Log,
        "log",
        "KVM's dirty log, whose pages are watched again each time",
    ),
    (
        Way::LogOnce,
        "log, once",
        "KVM's dirty log, whose pages are not watched again: each is copied each time",
    ),
    (
        Way::Scan,
        "scan",
        "userfaultfd's asynchronous write protection, and PAGEMAP_SCAN",
    ),
    (
        Way::Entries,
        "entries",
        "the dirty bits of the guest's page tables, which the host clears while CR3 changes",
    ),
];

pub(super) fn count() -> usize {
    WAYS.len() * PAGES.len()
}

pub(super) fn measure(plan: Plan<'_>, add: &mut impl FnMut(Case)) -> crate::Result<()> {
    for (way, name, what) in WAYS {
        for pages in PAGES {
            let name = format!("{name}, {pages} written");
            // A way that copies everything takes its time.
            let rounds = if way == Way::All {
                plan.calls.min(50)
            } else {
                plan.calls
            };
            let case = match rounds_of(way, pages, 2) {
                Ok(_) => {
                    let taken = repeats(plan, || rounds_of(way, pages, rounds))?;
                    Case::measured(&name, "dirty", what, Unit::Nanoseconds, taken)
                }
                Err(reason) => Case::skipped(&name, "dirty", what, Unit::Nanoseconds, &reason.to_string()),
            };
            add(case);
        }
    }
    Ok(())
}

/// The time of each round.
fn rounds_of(way: Way, pages: u32, rounds: usize) -> Result<Vec<u64>, Error> {
    let image = image(pages);
    let how = Memory {
        from_file: !matches!(way, Way::Known | Way::All | Way::Scan),
        log: matches!(way, Way::Log | Way::LogOnce),
        manual: way == Way::LogOnce,
    };
    let mut machine = Machine::new(&image, how)?;
    let scan = (way == Way::Scan).then(|| Scan::new(&machine)).transpose()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let began = Instant::now();
        machine.run()?;
        restore(way, &mut machine, &image, pages, scan.as_ref())?;
        times.push(nanoseconds(began.elapsed()));
        // A way that does not find what was written is none.
        let first = machine.memory.start().wrapping_add(DATA);
        // SAFETY: within guest memory, which nobody writes meanwhile.
        if unsafe { first.cast::<u32>().read_volatile() } != 0 {
            return Err(Error::Unseen);
        }
    }
    Ok(times)
}

fn restore(way: Way, machine: &mut Machine, image: &[u8], pages: u32, scan: Option<&Scan>) -> Result<(), Error> {
    let known = DATA / PAGE..DATA / PAGE + pages as usize;
    match way {
        Way::Known => known.for_each(|page| machine.put_back(image, page)),
        Way::All => (0..MEMORY / PAGE).for_each(|page| machine.put_back(image, page)),
        Way::Discard => discard(machine, 0, MEMORY)?,
        Way::DiscardTouched => discard(machine, DATA, known.len() * PAGE)?,
        Way::Log | Way::LogOnce => log_of(machine, |page| machine.put_back(image, page))?,
        Way::Scan => {
            if let Some(scan) = scan {
                scan.put_back(machine, image)?;
            }
        }
        Way::Entries => entries(machine, image),
    }
    Ok(())
}

fn discard(machine: &Machine, from: usize, len: usize) -> Result<(), Error> {
    // SAFETY: within guest memory, of which nobody has references; the guest does not run.
    done(unsafe { libc::madvise(machine.memory.start().add(from).cast(), len, libc::MADV_DONTNEED) })
}

/// Calls `page` with the number of each page in KVM's log.
pub(super) fn log_of(machine: &Machine, mut page: impl FnMut(usize)) -> Result<(), Error> {
    let log = machine.vm.get_dirty_log(0, MEMORY)?;
    for (index, mut word) in log.into_iter().enumerate() {
        while word != 0 {
            page(index * 64 + word.trailing_zeros() as usize);
            word &= word - 1;
        }
    }
    Ok(())
}

/// Looks at the dirty bit of each page's entry; a new CR3 has the processor look at them again.
fn entries(machine: &mut Machine, image: &[u8]) {
    const DIRTY: u64 = 1 << 6;
    const WRITE_THROUGH: u64 = 1 << 3;
    let tables = machine.memory.start().wrapping_add(LAST_TABLES).cast::<u64>();
    for page in 0..MEMORY / PAGE {
        let entry = tables.wrapping_add(page);
        // SAFETY: the tables lie within guest memory; the guest does not run.
        let value = unsafe { entry.read_volatile() };
        if value & DIRTY != 0 {
            machine.put_back(image, page);
            // SAFETY: as above.
            unsafe { entry.write_volatile(value & !DIRTY) };
        }
    }
    machine.sregs.cr3 ^= WRITE_THROUGH;
    machine.share(machine.sregs);
}

/// `struct pm_scan_arg` of Linux, include/uapi/linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Write protection of the host's own pages (Linux 6.7).
struct Scan {
    fault: OwnedFd,
    pagemap: std::fs::File,
}

impl Scan {
    // include/uapi/linux/userfaultfd.h and fs.h.
    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    const WRITE_PROTECT: libc::c_ulong = 0xc018_aa06;
    const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
    /// UFFD_FEATURE_WP_UNPOPULATED and UFFD_FEATURE_WP_ASYNC.
    const FEATURES: u64 = 1 << 13 | 1 << 15;
    const WRITTEN: u64 = 1 << 1;

    fn new(machine: &Machine) -> Result<Self, Error> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) };
        done(fd as i32)?;
        // SAFETY: the descriptor is new, and nobody else's.
        let fault = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let (start, len) = (machine.memory.start() as u64, MEMORY as u64);
        let mut api = [0xaa, Self::FEATURES, 0];
        // SAFETY: three words, which is what the request takes.
        done(unsafe { libc::ioctl(fault.as_raw_fd(), Self::API as _, &raw mut api) })?;
        let mut range = [start, len, 1 << 1, 0];
        // SAFETY: four words, and a range that stays mapped as long as the machine.
        done(unsafe { libc::ioctl(fault.as_raw_fd(), Self::REGISTER as _, &raw mut range) })?;
        let scan = Self {
            fault,
            pagemap: std::fs::File::open("/proc/self/pagemap")?,
        };
        scan.protect(start, len)?;
        Ok(scan)
    }

    fn protect(&self, start: u64, len: u64) -> Result<(), Error> {
        let mut range = [start, len, 1];
        // SAFETY: three words, which is what the request takes.
        done(unsafe { libc::ioctl(self.fault.as_raw_fd(), Self::WRITE_PROTECT as _, &raw mut range) })
    }

    fn put_back(&self, machine: &Machine, image: &[u8]) -> Result<(), Error> {
        let start = machine.memory.start() as u64;
        let mut found = [Region::default(); 128];
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start,
            end: start + MEMORY as u64,
            vec: found.as_mut_ptr() as u64,
            vec_len: found.len() as u64,
            category_mask: Self::WRITTEN,
            return_mask: Self::WRITTEN,
            ..ScanArgument::default()
        };
        // SAFETY: the kernel writes as many regions as the array has, at most.
        let count = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), Self::PAGEMAP_SCAN as _, &raw mut argument) };
        done(count)?;
        for region in &found[..count as usize] {
            let pages = (region.start - start) as usize / PAGE..(region.end - start) as usize / PAGE;
            pages.for_each(|page| machine.put_back(image, page));
            self.protect(region.start, region.end - region.start)?;
        }
        Ok(())
    }
}

fn done(answer: i32) -> Result<(), Error> {
    if answer < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
