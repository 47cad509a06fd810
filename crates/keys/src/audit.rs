//! The audit log: a chain of entries, each with the hash of the one before it and a MAC.
//!
//! What is noticed, by whoever has the master key: an entry that was changed, removed, reordered, repeated or inserted,
//! and a log that was cut off at its end, because the store keeps the number and hash of the newest entry. What is not:
//! a whole store that was put back to an earlier state, log and newest entry together, unless the newest entry was noted
//! elsewhere (its [`Anchor`], which `privet keyserver audit verify` prints and takes); and what someone who has the
//! master key writes, who can make any log.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::error::KeysError;
use crate::secret::MasterKey;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A store was made.
    Created,
    /// A key was added.
    KeyAdded,
    /// A key got a newer version.
    KeyRotated,
    /// A version of a key was revoked.
    KeyRevoked,
    /// A policy was set.
    PolicySet,
    /// A server began to serve.
    Started,
    /// Evidence was accepted as authentic.
    Attested,
    /// Evidence was refused.
    AttestationRefused,
    /// A key was released to a worker.
    Released,
    /// A key was leased to a cache.
    Leased,
    /// An attested peer was refused a key.
    Refused,
}

impl Event {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::KeyAdded => "key-added",
            Self::KeyRotated => "key-rotated",
            Self::KeyRevoked => "key-revoked",
            Self::PolicySet => "policy-set",
            Self::Started => "started",
            Self::Attested => "attested",
            Self::AttestationRefused => "attestation-refused",
            Self::Released => "released",
            Self::Leased => "leased",
            Self::Refused => "refused",
        }
    }
}

/// What is to be written about an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What happened.
    pub event: Event,
    /// To which key: `id` or `id@version`; empty if to none.
    pub key: String,
    /// SHA-256 of the verified claims of whom it happened for, in hexadecimal; empty if for nobody. Not of the evidence:
    /// quotes are malleable.
    pub claims: String,
    /// In words, for people.
    pub detail: String,
}

impl Note {
    /// About a key, by the operator.
    pub fn new(event: Event, key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { event, key: key.into(), claims: String::new(), detail: detail.into() }
    }

    /// For a peer of these claims.
    #[must_use]
    pub fn claimed(mut self, claims: &str) -> Self {
        claims.clone_into(&mut self.claims);
        self
    }
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 1, 2, 3, ..
    pub sequence: u64,
    /// Seconds since 1970, by the server's clock.
    pub time: u64,
    /// What happened.
    pub note: Note,
    /// [`Entry::hash`] of the entry before; zeros before the first.
    pub previous: Hash,
    /// HMAC-SHA-256 of [`Entry::hash`], under a key that follows from the master key.
    pub mac: Hash,
}

/// 32 bytes, in text as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes
            .ok_or_else(|| format!("expected 64 hexadecimal digits, found {} characters", text.len()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The newest entry: what a log that is cut off no longer has. Note it elsewhere, and nothing up to it can be taken away
/// unnoticed, not even with the whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number; 0 for an empty log.
    pub sequence: u64,
    /// Its [`Entry::hash`].
    pub hash: Hash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| {
            let (sequence, hash) = text.split_once(':')?;
            Some(Self { sequence: sequence.parse().ok()?, hash: hash.parse().ok()? })
        };
        parse(text).ok_or_else(|| "expected NUMBER:HASH, as audit verify prints it".to_owned())
    }
}

impl Entry {
    /// SHA-256 of everything but the MAC, each part with its length.
    pub fn hash(&self) -> Hash {
        let Note { event, key, claims, detail } = &self.note;
        let mut bytes = b"privet audit entry v1".to_vec();
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.time.to_le_bytes());
        for text in [event.name(), key, claims, detail] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.previous.0);
        let hash = digest(&SHA256, &bytes);
        Hash(hash.as_ref().try_into().unwrap_or_default())
    }
}

/// Makes and checks entries.
pub(crate) struct Chain(Key);

impl Chain {
    pub(crate) fn new(master: &MasterKey) -> Result<Self, KeysError> {
        Ok(Self(Key::new(HMAC_SHA256, &*master.derive(b"audit log")?)))
    }

    /// The entry after `newest`, and what is the newest then.
    pub(crate) fn link(&self, newest: Anchor, time: u64, note: Note) -> (Entry, Anchor) {
        let mut entry =
            Entry { sequence: newest.sequence + 1, time, note, previous: newest.hash, mac: Hash::default() };
        let hash = entry.hash();
        entry.mac = Hash(sign(&self.0, &hash.0).as_ref().try_into().unwrap_or_default());
        let newest = Anchor { sequence: entry.sequence, hash };
        (entry, newest)
    }

    /// Checks, one by one, a whole log whose newest entry should be `newest`, and which should contain the entry `noted`.
    pub(crate) fn verify(
        &self,
        entries: impl IntoIterator<Item = Result<Entry, KeysError>>,
        newest: Anchor,
        noted: Option<Anchor>,
    ) -> Result<(), KeysError> {
        let fail = |what: String| Err(KeysError::Audit(what));
        let mut last = Anchor::default();
        let mut found = noted.filter(|noted| *noted != Anchor::default());
        for entry in entries {
            let entry = entry?;
            let Entry { sequence, previous, mac, .. } = &entry;
            if *sequence != last.sequence + 1 {
                return fail(format!(
                    "expected entry {}, found entry {sequence}: entries have been removed, repeated or moved",
                    last.sequence + 1
                ));
            }
            if *previous != last.hash {
                return fail(format!("entry {sequence} does not follow the entry before it"));
            }
            let hash = entry.hash();
            if verify(&self.0, &hash.0, &mac.0).is_err() {
                return fail(format!("entry {sequence} has been changed: its MAC is wrong"));
            }
            last = Anchor { sequence: *sequence, hash };
            if found == Some(last) {
                found = None;
            }
        }
        if last != newest {
            return fail(format!(
                "the newest entry is {}, expected {}: the log was cut off at its end",
                last.sequence, newest.sequence
            ));
        }
        match found {
            Some(Anchor { sequence, .. }) if sequence > last.sequence => fail(format!(
                "entry {sequence}, which was noted, is missing: this store is older than the note, it was restored \
                 from a backup"
            )),
            Some(Anchor { sequence, .. }) => fail(format!("entry {sequence} is not the one that was noted")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandomness;

    fn log() -> (Chain, Vec<Entry>, Anchor) {
        let chain = Chain::new(&MasterKey::draw(&SeededRandomness::new(7)).unwrap()).unwrap();
        let (mut entries, mut newest) = (Vec::new(), Anchor::default());
        for i in 0..6 {
            let note = Note::new(Event::Released, format!("k{}@1", i / 2), "to a worker").claimed("c1a1");
            let (entry, next) = chain.link(newest, 1000 + i, note);
            entries.push(entry);
            newest = next;
        }
        (chain, entries, newest)
    }

    #[test]
    fn every_change_removal_and_reordering_is_found() {
        let (chain, entries, newest) = log();
        let verify = |entries: &[Entry]| chain.verify(entries.iter().cloned().map(Ok), newest, None);
        verify(&entries).unwrap();
        for i in 0..entries.len() {
            let with = |change: fn(&mut Entry)| {
                let mut entries = entries.clone();
                change(&mut entries[i]);
                entries
            };
            for changed in [
                with(|e| e.sequence += 1),
                with(|e| e.time ^= 1),
                with(|e| e.note.event = Event::Leased),
                with(|e| e.note.key.push('x')),
                with(|e| e.note.claims.clear()),
                with(|e| e.note.detail = "to nobody".to_owned()),
                with(|e| e.previous.0[3] ^= 1),
                with(|e| e.mac.0[31] ^= 0x80),
                // Text that moves from one field to the next.
                with(|e| e.note.claims.insert(0, e.note.key.pop().unwrap_or('1'))),
            ] {
                assert!(verify(&changed).is_err(), "entry {i}");
            }
            let mut removed = entries.clone();
            removed.remove(i);
            assert!(verify(&removed).is_err(), "without entry {i}");
            assert!(verify(&entries[..i]).is_err(), "cut off before entry {i}");
            let mut repeated = entries.clone();
            repeated.insert(i, entries[i].clone());
            assert!(verify(&repeated).is_err(), "entry {i} twice");
            for j in 0..i {
                let mut swapped = entries.clone();
                swapped.swap(i, j);
                assert!(verify(&swapped).is_err(), "entries {i} and {j} swapped");
            }
        }
    }

    #[test]
    fn a_store_put_back_is_found_by_a_note_from_elsewhere() {
        let (chain, entries, newest) = log();
        let verify =
            |entries: &[Entry], newest, noted| chain.verify(entries.iter().cloned().map(Ok), newest, noted);
        verify(&entries, newest, Some(newest)).unwrap();
        let earlier = Anchor { sequence: 4, hash: entries[3].hash() };
        verify(&entries, newest, Some(earlier)).unwrap();
        verify(&entries[..4], earlier, None).unwrap();
        let error = verify(&entries[..4], earlier, Some(newest)).unwrap_err().to_string();
        assert!(error.contains("older than the note"), "{error}");
        let other = Anchor { sequence: 4, hash: entries[2].hash() };
        assert!(verify(&entries, newest, Some(other)).unwrap_err().to_string().contains("not the one"));
        assert_eq!(newest.to_string().parse::<Anchor>().unwrap(), newest);
        assert!("5:zz".parse::<Anchor>().is_err() && "x".parse::<Anchor>().is_err());
    }
}
