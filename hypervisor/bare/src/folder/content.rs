//! What is in a file: pages that were written, and elsewhere what the archive has, or nothing.
//!
//! ```text
//!   archive  ████████████████▌              as it lies in memory, never changed
//!   pages         ▓▓▓▓      ▓▓▓▓     ▓▓▓▓   a copy of each page that was written to
//!   file     █████▓▓▓▓██████▓▓▓▓·····▓▓▓▓   zeros where neither has anything
//! ```

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::PAGE;
use super::room::{Room, Share};

/// The content of a file.
#[derive(Debug, Default)]
pub(super) struct Content<'a> {
    /// What is left of the archive's.
    archive: &'a [u8],
    /// Beyond the file's size a page is zero.
    pages: BTreeMap<u64, Page>,
    size: u64,
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    _share: Share,
}

/// The page that a byte is in, and where it is there.
const fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, (offset % PAGE as u64) as usize)
}

impl<'a> Content<'a> {
    /// That of the archive.
    pub(super) const fn of(archive: &'a [u8]) -> Self {
        Self {
            archive,
            pages: BTreeMap::new(),
            size: archive.len() as u64,
        }
    }

    /// How many bytes there are.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Reads from an offset on; returns how much there was.
    pub(super) fn read_at(&self, offset: u64, to: &mut [u8]) -> usize {
        let there = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = there.min(to.len());
        let mut done = 0;
        while done < len {
            let (number, start) = place(offset + done as u64);
            let piece = &mut to[done..len.min(done + PAGE - start)];
            match self.pages.get(&number) {
                Some(page) => piece.copy_from_slice(&page.bytes[start..start + piece.len()]),
                None => self.original(offset + done as u64, piece),
            }
            done += piece.len();
        }
        len
    }

    /// Writes from an offset on; returns how much there was room for.
    pub(super) fn write_at(&mut self, room: &Arc<Room>, offset: u64, from: &[u8]) -> usize {
        let mut done = 0;
        while done < from.len() {
            let (number, start) = place(offset + done as u64);
            let Some(page) = self.page(room, number) else { break };
            let piece = &from[done..from.len().min(done + PAGE - start)];
            page[start..start + piece.len()].copy_from_slice(piece);
            done += piece.len();
            self.size = self.size.max(offset + done as u64);
        }
        done
    }

    /// Cuts it off there, or lets it go on with zeros.
    pub(super) fn resize(&mut self, size: u64) {
        let (number, start) = place(size);
        self.pages.split_off(&size.div_ceil(PAGE as u64));
        if let Some(page) = self.pages.get_mut(&number) {
            page.bytes[start..].fill(0);
        }
        let left = usize::try_from(size).unwrap_or(usize::MAX);
        self.archive = &self.archive[..left.min(self.archive.len())];
        self.size = size;
    }

    /// A page to write to; `None` if there is no room for one more.
    fn page(&mut self, room: &Arc<Room>, number: u64) -> Option<&mut [u8]> {
        if !self.pages.contains_key(&number) {
            let share = Share::of(room)?;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(PAGE).ok()?;
            bytes.resize(PAGE, 0);
            self.original(number * PAGE as u64, &mut bytes);
            self.pages.insert(number, Page { bytes, _share: share });
        }
        self.pages.get_mut(&number).map(|page| &mut page.bytes[..])
    }

    /// What was there before anything was written.
    fn original(&self, offset: u64, to: &mut [u8]) {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.archive.get(offset..));
        let from = from.unwrap_or_default();
        let (copied, rest) = to.split_at_mut(from.len().min(to.len()));
        copied.copy_from_slice(&from[..copied.len()]);
        rest.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize, u8),
        Resize(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = 0..5 * PAGE as u64;
        let len = 0..3 * PAGE;
        prop_oneof![
            (offset.clone(), len.clone(), any::<u8>()).prop_map(|(offset, len, byte)| Step::Write(offset, len, byte)),
            offset.clone().prop_map(Step::Resize),
            (offset, len).prop_map(|(offset, len)| Step::Read(offset, len)),
        ]
    }

    #[test]
    fn what_there_is_no_room_for_is_not_written() {
        let room = Arc::new(Room::new(2 * PAGE + 5));
        let mut content = Content::of(b"abc");
        let most = &[7; 3 * PAGE];
        assert_eq!(content.write_at(&room, 1, most), 2 * PAGE - 1);
        assert_eq!((content.size(), room.left()), (2 * PAGE as u64, 0));
        assert_eq!(content.write_at(&room, 2 * PAGE as u64, b"x"), 0);
        assert_eq!(content.write_at(&room, 2, b"x"), 1, "that page is there");
        content.resize(PAGE as u64);
        assert_eq!(room.left(), 1);
        drop(content);
        assert_eq!(room.left(), 2);
    }

    #[test]
    fn a_file_with_a_hole_takes_no_more_than_what_is_written() {
        let room = Arc::new(Room::new(PAGE));
        let mut content = Content::default();
        assert_eq!(content.write_at(&room, i64::MAX as u64 - 1, b"x"), 1);
        assert_eq!(content.size(), i64::MAX as u64);
        let mut read = [1; 4];
        assert_eq!(content.read_at(i64::MAX as u64 - 3, &mut read), 3);
        assert_eq!(read, [0, 0, b'x', 1]);
        assert_eq!(content.read_at(u64::MAX, &mut read), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_file_is_as_if_it_were_one_piece(
            archive in proptest::collection::vec(any::<u8>(), 0..3 * PAGE),
            steps in proptest::collection::vec(step(), 1..30),
        ) {
            let room = Arc::new(Room::new(1 << 20));
            let (mut content, mut model) = (Content::of(&archive), archive.clone());
            for step in steps {
                match step {
                    Step::Write(offset, len, byte) => {
                        let bytes: Vec<_> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                        prop_assert_eq!(content.write_at(&room, offset, &bytes), len);
                        let start = offset as usize;
                        if len > 0 {
                            model.resize(model.len().max(start + len), 0);
                            model[start..start + len].copy_from_slice(&bytes);
                        }
                    }
                    Step::Resize(size) => {
                        content.resize(size);
                        model.resize(size as usize, 0);
                    }
                    Step::Read(offset, len) => {
                        let from = model.get(offset as usize..).unwrap_or_default();
                        let mut read = vec![0; len];
                        let len = content.read_at(offset, &mut read);
                        prop_assert_eq!(&read[..len], &from[..from.len().min(read.len())]);
                    }
                }
                prop_assert_eq!(content.size(), model.len() as u64);
            }
            let mut all = vec![0; model.len() + 1];
            prop_assert_eq!(content.read_at(0, &mut all), model.len());
            prop_assert_eq!(&all[..model.len()], &model[..]);
            drop(content);
            prop_assert_eq!(room.left(), (1 << 20) / PAGE);
        }
    }
}
