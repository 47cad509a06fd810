//! A file that makes a small transaction durable with one write of one page and one sync, where the database takes several
//! pages, and three times as long.
//!
//! Every transaction that goes this way has a number, which it also writes to the database, in whose memory it then is. A
//! later commit that the database syncs makes it durable there, too; until then the journal has it. Opening the database does what the journal
//! has more than it, in the order of the numbers.
//!
//! Slots of 4096 bytes, their place that of the number modulo the number of slots: `"PRIVJRNL" | version u16 | length u32 | body
//! (postcard: number, changes) | CRC-32 u32 of all before`, the rest zero; integers little-endian. A slot is written again only
//! when the database has what is in it. A write that a crash has cut short was not waited for: nothing depends on it.

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

/// The open file.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// The number of the last transaction, and of the last one that the database has on the disk.
    last: u64,
    durable: u64,
    /// What a write left in its slot is not known: nothing more is appended.
    failed: bool,
    /// The database lacks what was appended: it takes nothing more until it is opened again.
    broken: bool,
}

impl Journal {
    /// Opens the journal of a database that has the transactions up to `known`, if it ever had a journal. Returns those that
    /// the database lacks, oldest first; it has to have them on the disk before anything is appended.
    pub(super) fn open(path: PathBuf, known: Option<u64>) -> Result<(Self, Vec<Entry>), StoreError> {
        let damaged =
            |problem: &str| StoreError::Database { path: path.clone(), problem: problem.to_owned() };
        if known.is_none() && !path.exists() {
            create(&path).map_err(StoreError::io(&path))?;
        }
        let file = match File::options().read(true).write(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(damaged(
                    "is gone, and may have known what was used: remove the state directory and run the offline phase again",
                ));
            }
            other => other.map_err(StoreError::io(&path))?,
        };
        let len = file.metadata().map_err(StoreError::io(&path))?.len();
        if len != SLOTS * SLOT as u64 {
            let expected = SLOTS * SLOT as u64;
            return Err(damaged(&format!("expected {expected} bytes, found {len}")));
        }
        let known = known.unwrap_or(0);
        let mut entries = Vec::new();
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT];
            file.read_exact_at(&mut bytes, slot * SLOT as u64).map_err(StoreError::io(&path))?;
            entries.extend(decode(&bytes).map_err(|problem| damaged(&problem))?);
        }
        entries.retain(|entry| entry.number > known);
        entries.sort_unstable_by_key(|entry| entry.number);
        if !entries.iter().zip(known + 1..).all(|(entry, number)| entry.number == number) {
            return Err(damaged(
                "does not go on where the database ends: one of both is an old copy or damaged. Remove the state directory and run the offline phase again",
            ));
        }
        let last = known + entries.len() as u64;
        Ok((Self { path, file, last, durable: last, failed: false, broken: false }, entries))
    }

    /// The number of the last transaction.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The number of the next transaction.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Whether the next transaction can be appended, if these are its changes; otherwise the database has to sync it.
    pub(super) fn takes(&self, changes: &[Change]) -> bool {
        let bytes =
            changes.iter().map(|c| c.table.len() + c.key.len() + c.value.as_ref().map_or(0, Vec::len) + 32);
        !self.failed && self.next() - self.durable <= SLOTS && bytes.sum::<usize>() + HEAD + 64 <= SLOT
    }

    /// Makes the next transaction durable.
    pub(super) fn append(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let entry = Entry { number: self.next(), changes };
        let at = entry.number % SLOTS * SLOT as u64;
        let written = self.file.write_all_at(&encode(&entry), at).and_then(|()| self.file.sync_data());
        self.failed |= written.is_err();
        written.map_err(StoreError::io(&self.path))?;
        self.last = entry.number;
        Ok(())
    }

    /// The database has made its next transaction of this way durable itself.
    pub(super) fn skip(&mut self) {
        self.last += 1;
        self.durable = self.last;
    }

    /// The database has all up to this one on the disk.
    pub(super) fn caught_up(&mut self, last: u64) {
        self.durable = self.durable.max(last);
    }

    /// The database does not have the last one.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

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
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(&body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    assert!(bytes.len() <= SLOT, "its size was looked at");
    bytes.resize(SLOT, 0);
    bytes
}

/// What a slot holds; nothing, if it was never written or not written whole.
fn decode(slot: &[u8; SLOT]) -> Result<Option<Entry>, String> {
    let body = u32::from_le_bytes([slot[10], slot[11], slot[12], slot[13]]) as usize;
    let Some(sum) = slot.get(HEAD + body..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    let whole = &slot[..HEAD + body];
    if !whole.starts_with(MAGIC) || crc32fast::hash(whole) != u32::from_le_bytes(*sum) {
        return Ok(None);
    }
    let version = u16::from_le_bytes([slot[8], slot[9]]);
    if version != VERSION {
        return Err(format!("journal of version {version}, this build uses {VERSION}"));
    }
    postcard::from_bytes(&whole[HEAD..]).map(Some).map_err(|e| format!("an entry does not decode: {e}"))
}

#[cfg(test)]
mod tests {
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
        journal.caught_up(SLOTS);
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

    /// Whatever is left of the last write, it is whole or absent; everything before is there.
    #[test]
    fn a_write_cut_short_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let (mut journal, _) = Journal::open(path.clone(), None).unwrap();
        journal.append(change(7)).unwrap();
        journal.append(change(8)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let used = HEAD + postcard::to_stdvec(&Entry { number: 2, changes: change(8) }).unwrap().len() + 4;
        for cut in 0..=used {
            let mut bytes = whole.clone();
            bytes[2 * SLOT + cut..3 * SLOT].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            let (_, found) = Journal::open(path.clone(), Some(0)).unwrap();
            let numbers: Vec<u64> = found.iter().map(|entry| entry.number).collect();
            // A sum that ends in zeros is whole before its last byte is there.
            let whole = bytes[..] == whole[..];
            assert_eq!(numbers, if whole { vec![1, 2] } else { vec![1] }, "{cut} bytes");
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
