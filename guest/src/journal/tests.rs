use proptest::prelude::*;

use super::*;

/// A disk that forgets what was not flushed, sector by sector, as it likes.
#[derive(Clone, Debug, Default)]
struct Forgetful {
    durable: Vec<u8>,
    /// Writes since the last flush, a sector each.
    unsure: Vec<(u64, Vec<u8>)>,
    fails: bool,
}

impl Forgetful {
    fn new(sectors: usize) -> Self {
        Self {
            durable: vec![0; sectors * SECTOR_BYTES],
            ..Self::default()
        }
    }

    /// The power goes: of the sectors in flight, those that `keeps` names arrive.
    fn crash(&self, mut keeps: impl FnMut() -> bool) -> Self {
        let mut after = Self {
            durable: self.durable.clone(),
            ..Self::default()
        };
        for (sector, bytes) in &self.unsure {
            if keeps() {
                let at = *sector as usize * SECTOR_BYTES;
                after.durable[at..at + SECTOR_BYTES].copy_from_slice(bytes);
            }
        }
        after
    }
}

impl Medium for &mut Forgetful {
    fn sectors(&self) -> u64 {
        (self.durable.len() / SECTOR_BYTES) as u64
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        let at = sector as usize * SECTOR_BYTES;
        to.copy_from_slice(&self.durable[at..at + to.len()]);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        if self.fails {
            return Err(DiskError::Failed);
        }
        let sectors = from.chunks(SECTOR_BYTES).zip(sector..);
        self.unsure
            .extend(sectors.map(|(bytes, sector)| (sector, bytes.to_vec())));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        **self = self.crash(|| true);
        Ok(())
    }
}

fn records(disk: &mut Forgetful) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let journal = Journal::open(disk, |number, data| {
        assert_eq!(number, all.len() as u64);
        all.push(data.to_vec());
    });
    assert_eq!(journal.unwrap().records(), all.len() as u64);
    all
}

#[test]
fn what_was_flushed_is_there_and_goes_on() {
    let mut disk = Forgetful::new(64);
    for round in 0..3_u8 {
        let mut journal = Journal::open(&mut disk, |_, _| {}).unwrap();
        assert_eq!(journal.append(&[round; 700]), Ok(u64::from(round) * 2));
        assert_eq!(journal.append(&[]), Ok(u64::from(round) * 2 + 1));
        journal.flush().unwrap();
    }
    let all = records(&mut disk);
    assert_eq!(all.len(), 6);
    assert_eq!((&all[2], &all[3]), (&vec![1; 700], &vec![]));
}

#[test]
fn a_full_disk_and_a_record_that_is_too_long_are_refused_and_harm_nothing() {
    let mut disk = Forgetful::new(3);
    let mut journal = Journal::open(&mut disk, |_, _| {}).unwrap();
    let long = vec![0; MAX_RECORD + 1];
    assert_eq!(journal.append(&long), Err(JournalError::TooLong(long.len())));
    assert_eq!(journal.append(&[1; 600]), Ok(0));
    assert_eq!(journal.append(&[2; 600]), Err(JournalError::Full(1)));
    assert_eq!(journal.append(&[3; 100]), Ok(1));
    journal.flush().unwrap();
    assert_eq!(records(&mut disk), [vec![1; 600], vec![3; 100]]);
}

#[test]
fn a_foreign_disk_is_left_alone() {
    let mut disk = Forgetful::new(4);
    disk.durable[17] = 1;
    assert_eq!(Journal::open(&mut disk, |_, _| {}).unwrap_err(), JournalError::Foreign);
}

#[test]
fn after_a_failure_nothing_more_is_promised() {
    let mut disk = Forgetful::new(4);
    disk.fails = true;
    let mut journal = Journal::open(&mut disk, |_, _| {}).unwrap();
    journal.append(b"x").unwrap();
    assert_eq!(journal.flush(), Err(JournalError::Disk(DiskError::Failed)));
    assert_eq!(journal.flush(), Err(JournalError::Failed));
    assert_eq!(journal.append(b"y"), Err(JournalError::Failed));
}

#[test]
fn a_flipped_bit_ends_the_journal_before_it() {
    let mut disk = Forgetful::new(8);
    let mut journal = Journal::open(&mut disk, |_, _| {}).unwrap();
    for i in 0..4_u8 {
        journal.append(&[i; 100]).unwrap();
    }
    journal.flush().unwrap();
    disk.durable[2 * SECTOR_BYTES + 60] ^= 1;
    assert_eq!(records(&mut disk), [vec![0; 100], vec![1; 100]]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Lives that end at any moment, with any of the unflushed sectors on the disk: every record
    /// that was flushed in any life is there, and what is there was appended, in that order.
    #[test]
    fn acknowledged_records_survive_any_crash(
        lives in prop::collection::vec(
            (prop::collection::vec((0_usize..1500, any::<bool>()), 1..6), any::<u64>()),
            1..6,
        ),
    ) {
        let mut disk = Forgetful::new(256);
        let mut model: Vec<Vec<u8>> = Vec::new();
        for (life, (steps, mut luck)) in lives.into_iter().enumerate() {
            let mut acknowledged = model.len();
            let mut journal = Journal::open(&mut disk, |_, _| {}).unwrap();
            prop_assert_eq!(journal.records(), model.len() as u64);
            for (step, (len, flush)) in steps.into_iter().enumerate() {
                let data = vec![(life * 16 + step) as u8; len];
                prop_assert_eq!(journal.append(&data), Ok(model.len() as u64));
                model.push(data);
                if flush {
                    journal.flush().unwrap();
                    acknowledged = model.len();
                } else {
                    journal.write_out().unwrap();
                }
            }
            drop(journal);
            disk = disk.crash(|| {
                luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                luck >> 63 == 1
            });
            let found = records(&mut disk);
            prop_assert!(found.len() >= acknowledged);
            prop_assert_eq!(&found[..], &model[..found.len()]);
            model = found;
        }
    }
}
