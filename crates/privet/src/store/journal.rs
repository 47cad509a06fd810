//! A file that makes a small transaction durable with one write of one page and one sync, where the database takes several
//! pages, and three times as long.
//!
//! Every transaction that goes this way has a number, which it also writes to the database, in whose memory it then is. A
//! later commit that the database syncs makes it durable there, too; until then the journal has it. Opening the database does what the journal
//! has more than it, in the order of the numbers.
//!
//! Slots of 4096 bytes, their place that of the number modulo the number of slots: twice, in 2048 bytes each, `"PRIVJRNL" | version
//! u16 | length u32 | body (postcard: number, changes) | CRC-32 u32 of all before`, the rest zero; integers little-endian. A slot is
//! written again only when the database has what is in it. A write that a crash has cut short was not waited for: nothing depends
//! on it. One that was waited for and is damaged later looks the same, so there are two copies, and one that is whole is enough.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::files;

const MAGIC: &[u8; 8] = b"PRIVJRNL";
const VERSION: u16 = 1;
const SLOT: usize = 4096;
/// One of the two copies in a slot.
const COPY: usize = SLOT / 2;
const SLOTS: u64 = 16;
/// Magic, version, length.
const HEAD: usize = 8 + 2 + 4;

/// One record, as it is after a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) table: String,
    pub(super) key: Vec<u8>,
    /// `None` if it was removed.
    pub(super) value: Option<Vec<u8>>,
}

/// One transaction.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) changes: Vec<Change>,
}

/// What a journal needs of its file. In tests the power fails between a write and its sync.
pub(super) trait Disk {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()>;
    fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()>;
    /// When this returns, what was written is on the disk.
    fn sync(&self) -> std::io::Result<()>;
}

impl Disk for File {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.sync_data()
    }
}

/// The open file.
pub(super) struct Journal<D = File> {
    path: PathBuf,
    disk: D,
    /// The number of the last transaction, and of the last one that the database has on the disk.
    last: u64,
    durable: u64,
    /// What a write left in its slot is not known: nothing more is appended.
    failed: bool,
    /// The database lacks what was appended: it takes nothing more until it is opened again.
    broken: bool,
}

fn damaged(path: &Path, problem: &str) -> StoreError {
    StoreError::Database { path: path.to_owned(), problem: problem.to_owned() }
}

impl Journal {
    /// Opens the journal of a database that has the transactions up to `known`, if it ever had a journal. Returns those that
    /// the database lacks, oldest first; it has to have them on the disk before anything is appended.
    pub(super) fn open(path: PathBuf, known: Option<u64>) -> Result<(Self, Vec<Entry>), StoreError> {
        if known.is_none() && !path.exists() {
            create(&path).map_err(StoreError::io(&path))?;
        }
        let file = match File::options().read(true).write(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(damaged(
                    &path,
                    "is gone, and may have known what was used: remove the state directory and run the offline phase again",
                ));
            }
            other => other.map_err(StoreError::io(&path))?,
        };
        let len = file.metadata().map_err(StoreError::io(&path))?.len();
        if len != SLOTS * SLOT as u64 {
            let expected = SLOTS * SLOT as u64;
            return Err(damaged(&path, &format!("expected {expected} bytes, found {len}")));
        }
        Self::of(path, file, known.unwrap_or(0))
    }
}

impl<D: Disk> Journal<D> {
    fn of(path: PathBuf, disk: D, known: u64) -> Result<(Self, Vec<Entry>), StoreError> {
        let mut entries = Vec::new();
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT];
            disk.read_at(&mut bytes, slot * SLOT as u64).map_err(StoreError::io(&path))?;
            entries.extend(in_slot(&bytes).map_err(|problem| damaged(&path, &problem))?);
        }
        entries.retain(|entry| entry.number > known);
        entries.sort_unstable_by_key(|entry| entry.number);
        if !entries.iter().zip(known + 1..).all(|(entry, number)| entry.number == number) {
            return Err(damaged(
                &path,
                "does not go on where the database ends: one of both is an old copy or damaged. Remove the state directory and run the offline phase again",
            ));
        }
        let last = known + entries.len() as u64;
        Ok((Self { path, disk, last, durable: last, failed: false, broken: false }, entries))
    }

    /// The number of the next transaction.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Whether the next transaction can be appended, if these are its changes; otherwise the database has to sync it.
    pub(super) fn takes(&self, changes: &[Change]) -> bool {
        let bytes =
            changes.iter().map(|c| c.table.len() + c.key.len() + c.value.as_ref().map_or(0, Vec::len) + 32);
        !self.failed && self.next() - self.durable <= SLOTS && bytes.sum::<usize>() + HEAD + 64 <= COPY
    }

    /// Makes the next transaction durable. Until the database [has it](Self::committed), the journal is [broken](Self::is_broken).
    pub(super) fn append(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let number = self.next();
        let written = self.write(&Entry { number, changes }).and_then(|()| self.disk.sync());
        self.failed |= written.is_err();
        written.map_err(StoreError::io(&self.path))?;
        self.last = number;
        self.broken = true;
        Ok(())
    }

    /// The database has what was [appended](Self::append).
    pub(super) fn committed(&mut self) {
        self.broken = false;
    }

    fn write(&self, entry: &Entry) -> std::io::Result<()> {
        self.disk.write_at(&encode(entry), entry.number % SLOTS * SLOT as u64)
    }

    /// As [`Self::append`], if the sync fails and the disk has it nevertheless.
    #[cfg(test)]
    pub(super) fn append_unheard(&mut self, changes: Vec<Change>) {
        self.write(&Entry { number: self.next(), changes }).unwrap();
        self.failed = true;
    }

    /// Whether a slot may have a transaction that the database was told has failed. It must not be done when the database is
    /// opened after a later one: that one has to take its number, and to be skipped.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// The database has made its next transaction of this way durable itself.
    pub(super) fn skip(&mut self) {
        self.last += 1;
        self.durable = self.last;
    }

    /// The database has all on the disk, and where a write has [failed](Self::has_failed) one more.
    pub(super) fn caught_up(&mut self) {
        self.last += u64::from(self.failed);
        self.durable = self.last;
    }

    /// Whether the database lacks the last one. What it took next would have its number, and hide it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// Written in full, so that later writes change no sizes and no extents.
fn create(path: &Path) -> std::io::Result<()> {
    let mut file = files::temporary(path)?;
    file.write_all(&vec![0; SLOTS as usize * SLOT])?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    files::sync_dir(files::directory(path))
}

fn encode(entry: &Entry) -> Vec<u8> {
    let body = postcard::to_stdvec(entry).expect("an entry has no unserialisable parts");
    let mut bytes = Vec::with_capacity(COPY);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(&body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    assert!(bytes.len() <= COPY, "its size was looked at");
    bytes.resize(COPY, 0);
    bytes.repeat(2)
}

/// What a slot holds; nothing, if it was never written or not written whole. Where its copies differ, a crash has cut short the write
/// of the newer one.
fn in_slot(slot: &[u8; SLOT]) -> Result<Option<Entry>, String> {
    let (first, second) = slot.split_at(COPY);
    let copies = [decode(first)?, decode(second)?];
    Ok(copies.into_iter().flatten().max_by_key(|entry| entry.number))
}

/// What a copy holds, if it is whole.
fn decode(copy: &[u8]) -> Result<Option<Entry>, String> {
    let body = u32::from_le_bytes([copy[10], copy[11], copy[12], copy[13]]) as usize;
    let Some(sum) = copy.get(HEAD + body..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    let whole = &copy[..HEAD + body];
    if !whole.starts_with(MAGIC) || crc32fast::hash(whole) != u32::from_le_bytes(*sum) {
        return Ok(None);
    }
    let version = u16::from_le_bytes([copy[8], copy[9]]);
    if version != VERSION {
        return Err(format!("journal of version {version}, this build uses {VERSION}"));
    }
    postcard::from_bytes(&whole[HEAD..]).map(Some).map_err(|e| format!("an entry does not decode: {e}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn change(value: u8) -> Vec<Change> {
        vec![Change { table: "t".to_owned(), key: vec![1], value: Some(vec![value]) }]
    }

    #[test]
    fn what_the_database_lacks_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let (mut journal, found) = Journal::open(path.clone(), None).unwrap();
        assert!(found.is_empty() && journal.takes(&change(0)));
        for number in 1..=SLOTS {
            assert!(journal.takes(&change(number as u8)));
            journal.append(change(number as u8)).unwrap();
        }
        assert!(!journal.takes(&change(0)), "all slots are needed");
        for known in [0, 3, SLOTS] {
            let (journal, found) = Journal::open(path.clone(), Some(known)).unwrap();
            let expected: Vec<Entry> =
                (known + 1..=SLOTS).map(|number| Entry { number, changes: change(number as u8) }).collect();
            assert_eq!(found, expected, "after {known}");
            assert_eq!(journal.next(), SLOTS + 1);
        }
        journal.caught_up();
        for _ in 0..3 {
            journal.append(change(0)).unwrap();
        }
        journal.skip();
        assert_eq!(journal.next(), SLOTS + 5);
        // The first three are overwritten; a database that does not have them is not the one that was synced.
        assert!(Journal::open(path.clone(), Some(0)).is_err());
        assert_eq!(Journal::open(path.clone(), Some(SLOTS + 1)).unwrap().1.len(), 2);
        assert_eq!(Journal::open(path, Some(SLOTS + 4)).unwrap().1, []);
    }

    /// A disk that loses power: what was written is on it after a sync, before that any of its sectors may be.
    #[derive(Default)]
    struct Fragile {
        durable: RefCell<Vec<u8>>,
        written: RefCell<Vec<(usize, Vec<u8>)>>,
        syncs: RefCell<Vec<Sync>>,
    }

    /// What was on the disk before a sync, and what it put where.
    struct Sync {
        before: Vec<u8>,
        at: usize,
        bytes: Vec<u8>,
    }

    const SECTOR: usize = 512;

    impl Fragile {
        fn of(durable: Vec<u8>) -> Self {
            Self { durable: durable.into(), ..Self::default() }
        }
    }

    impl Disk for &Fragile {
        fn read_at(&self, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
            bytes.copy_from_slice(&self.durable.borrow()[at as usize..][..bytes.len()]);
            Ok(())
        }

        fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
            self.written.borrow_mut().push((at as usize, bytes.to_vec()));
            Ok(())
        }

        fn sync(&self) -> std::io::Result<()> {
            for (at, bytes) in self.written.take() {
                let mut durable = self.durable.borrow_mut();
                let before = durable.clone();
                durable[at..][..bytes.len()].copy_from_slice(&bytes);
                self.syncs.borrow_mut().push(Sync { before, at, bytes });
            }
            Ok(())
        }
    }

    fn reopened(image: Vec<u8>, known: u64) -> Vec<u64> {
        let disk = Fragile::of(image);
        let (_, found) = Journal::of(PathBuf::new(), &disk, known).unwrap();
        found.iter().for_each(|entry| assert_eq!(entry.changes, change(entry.number as u8)));
        found.iter().map(|entry| entry.number).collect()
    }

    /// Whichever sectors of the last write are left, on top of an empty slot or of an older transaction, what was waited for is there,
    /// and nothing but the last write besides.
    #[test]
    fn what_was_waited_for_outlives_the_power() {
        let disk = Fragile::of(vec![0; SLOTS as usize * SLOT]);
        let (mut journal, _) = Journal::of(PathBuf::new(), &disk, 0).unwrap();
        let mut known = Vec::new();
        for number in 1..=2 * SLOTS + 3 {
            if !journal.takes(&change(0)) {
                journal.caught_up();
            }
            known.push(journal.durable);
            journal.append(change(number as u8)).unwrap();
            let durable = disk.durable.borrow().clone();
            assert_eq!(
                reopened(durable, journal.durable),
                (journal.durable + 1..=number).collect::<Vec<_>>()
            );
        }
        let syncs = disk.syncs.borrow();
        for ((number, known), Sync { before, at, bytes }) in (1..).zip(known).zip(&*syncs) {
            for left in 0..1u32 << (SLOT / SECTOR) {
                let mut image = before.clone();
                for sector in (0..SLOT / SECTOR).filter(|sector| left >> sector & 1 == 1) {
                    let place = sector * SECTOR;
                    image[at + place..][..SECTOR].copy_from_slice(&bytes[place..][..SECTOR]);
                }
                let found = reopened(image, known);
                // A record is shorter than a sector: the first one of a copy has all of it.
                let last = number - u64::from(left & 0b1_0001 == 0);
                assert_eq!(found, (known + 1..=last).collect::<Vec<_>>(), "write {number}, sectors {left:b}");
            }
        }
    }

    /// A whole copy is enough: damage to the last record, too, which could be a write cut short, is not taken for one.
    #[test]
    fn damage_to_one_copy_forgets_nothing() {
        let disk = Fragile::of(vec![0; SLOTS as usize * SLOT]);
        let (mut journal, _) = Journal::of(PathBuf::new(), &disk, 0).unwrap();
        (1..=3).for_each(|number| journal.append(change(number)).unwrap());
        for byte in 0..SLOT {
            let mut image = disk.durable.borrow().clone();
            image[3 * SLOT + byte] ^= 0x10;
            assert_eq!(reopened(image, 0), [1, 2, 3], "byte {byte}");
        }
        for copy in 0..2 {
            let mut image = disk.durable.borrow().clone();
            image[3 * SLOT + copy * COPY..][..COPY].fill(0);
            assert_eq!(reopened(image, 0), [1, 2, 3], "copy {copy}");
        }
    }

    #[test]
    fn a_journal_that_is_gone_or_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let error = |known| Journal::open(path.clone(), known).err().unwrap().to_string();
        assert!(error(Some(1)).contains("is gone"), "{}", error(Some(1)));
        let (mut journal, _) = Journal::open(path.clone(), None).unwrap();
        (0..3).for_each(|value| journal.append(change(value)).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2 * SLOT + HEAD] ^= 1;
        bytes[2 * SLOT + COPY + HEAD] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(error(Some(0)).contains("does not go on"), "{}", error(Some(0)));
        let mut other = encode(&Entry { number: 2, changes: change(1) });
        other[8] = 9;
        let len = HEAD + u32::from_le_bytes([other[10], other[11], other[12], other[13]]) as usize;
        let sum = crc32fast::hash(&other[..len]).to_le_bytes();
        other[len..len + 4].copy_from_slice(&sum);
        bytes[2 * SLOT..3 * SLOT].copy_from_slice(&other);
        std::fs::write(&path, &bytes).unwrap();
        assert!(error(Some(0)).contains("version 9"), "{}", error(Some(0)));
        std::fs::write(&path, &bytes[1..]).unwrap();
        assert!(error(Some(0)).contains("expected 65536 bytes"), "{}", error(Some(0)));
    }
}
