//! Writes a snapshot: memory first, the header last, so that a file that was not finished is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use chiton_shared::map;

use super::format::{BUILD, CHUNK, Description, HEADER, Header, Id, MEMORY, Pages, Run};
use crate::ram::Ram;

/// Which memory goes into a file.
pub(crate) enum Which<'c> {
    /// All.
    All,
    /// The pages whose bits are set.
    Changed(&'c [u64]),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of memory that are not holes.
    pub(crate) bytes: u64,
}

/// Writes everything. The guest does not run, nor does a device, so that memory stays as it is.
pub(crate) fn write(
    file: &File,
    ram: &Ram,
    which: &Which<'_>,
    guest: &[u8],
    description: &mut Description,
    (id, parent): (Id, Option<Id>),
) -> io::Result<Written> {
    let mut memory = Memory {
        file,
        ram,
        buffer: vec![0; CHUNK as usize],
        at: MEMORY,
        written: 0,
    };
    file.set_len(0)?;
    match which {
        Which::All => {
            let chunks = (0..ram.bytes()).step_by(CHUNK as usize);
            let sums = chunks.map(|start| memory.copy(start, CHUNK.min(ram.bytes() - start), 0));
            description.pages = Pages::All(sums.collect::<io::Result<_>>()?);
        }
        Which::Changed(changed) => {
            let mut runs = runs(changed);
            for run in &mut runs {
                let (start, end) = (run.first * map::PAGE, (run.first + run.count) * map::PAGE);
                for at in (start..end).step_by(CHUNK as usize) {
                    run.crc = memory.copy(at, CHUNK.min(end - at), run.crc)?;
                }
            }
            description.pages = Pages::Changed(runs);
        }
    }
    let written = memory.written;
    let bytes = description.to_bytes();
    let header = Header {
        description: u32::try_from(bytes.len()).map_err(io::Error::other)?,
        description_crc: crc32fast::hash(&bytes),
        guest_crc: crc32fast::hash(guest),
        memory: memory.at - MEMORY,
        guest: guest.len() as u64,
        id,
        parent,
        build: BUILD.to_owned(),
    };
    file.write_all_at(guest, header.guest_at())?;
    file.write_all_at(&bytes, header.description_at())?;
    // What is behind is on the disk before what says that it is there.
    file.sync_data()?;
    file.write_all_at(&header.to_bytes(), 0)?;
    debug_assert_eq!(header.to_bytes().len(), HEADER);
    file.sync_data()?;
    Ok(Written { bytes: written })
}

/// The runs of the pages whose bits are set.
fn runs(changed: &[u64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, word) in changed.iter().enumerate() {
        let mut word = *word;
        while word != 0 {
            let page = index as u64 * 64 + u64::from(word.trailing_zeros());
            word &= word - 1;
            match runs.last_mut() {
                Some(run) if run.first + run.count == page => run.count += 1,
                _ => runs.push(Run {
                    first: page,
                    count: 1,
                    crc: 0,
                }),
            }
        }
    }
    runs
}

/// Memory on its way into a file.
struct Memory<'m> {
    file: &'m File,
    ram: &'m Ram,
    buffer: Vec<u8>,
    /// Where in the file the next byte goes.
    at: u64,
    written: u64,
}

impl Memory<'_> {
    /// Copies at most a chunk, from an offset in memory on; returns the checksum of these bytes behind those of `crc`.
    fn copy(&mut self, start: u64, len: u64, crc: u32) -> io::Result<u32> {
        let buffer = &mut self.buffer[..len as usize];
        let mut filled = 0;
        for (place, len) in self.ram.pieces(start..start + len) {
            // SAFETY: a piece of guest memory, and as much of the buffer; nobody writes to it, since processors and
            // devices are held, and if somebody did, the copy would hold other bytes.
            unsafe { std::ptr::copy_nonoverlapping(place, buffer[filled..filled + len].as_mut_ptr(), len) };
            filled += len;
        }
        let mut hasher = crc32fast::Hasher::new_with_initial(crc);
        hasher.update(buffer);
        let pages = buffer.chunks(map::PAGE as usize).enumerate();
        let mut from = 0;
        let page = map::PAGE as usize;
        // Neighbours that are not all zeros go together.
        for (index, bytes) in pages {
            if is_zero(bytes) {
                self.file
                    .write_all_at(&buffer[from..index * page], self.at + from as u64)?;
                self.written += (index * page - from) as u64;
                from = (index + 1) * page;
            }
        }
        if from < buffer.len() {
            self.file.write_all_at(&buffer[from..], self.at + from as u64)?;
            self.written += (buffer.len() - from) as u64;
        }
        self.at += len;
        Ok(hasher.finalize())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_follow_one_another_are_a_run() {
        let run = |first, count| Run { first, count, crc: 0 };
        assert_eq!(runs(&[0b1011, 0, 1 << 63, 1]), [run(0, 2), run(3, 1), run(191, 2)]);
        assert_eq!(runs(&[0]), []);
        assert_eq!(runs(&[u64::MAX; 2]), [run(0, 128)]);
    }
}
