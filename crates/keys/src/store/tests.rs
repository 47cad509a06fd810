//! The store with real files.

use std::fs::{Permissions, read, set_permissions, write};
use std::os::unix::fs::PermissionsExt;

use privet_seal::OwnerKeys;
use redb::{ReadableTable, TableDefinition};

use super::*;
use crate::clock::ManualClock;
use crate::random::SeededRandomness;

struct Place {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("master.key");
        write(&key, [7; 32]).unwrap();
        set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        Self { dir, clock: Arc::new(ManualClock::new(1_000_000)) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("keys.redb")
    }

    fn source(&self) -> MasterSource {
        MasterSource::File(self.dir.path().join("master.key"))
    }

    fn create(&self) -> Store {
        let random = Arc::new(SeededRandomness::new(3));
        Store::create(&self.path(), &self.source(), self.clock.clone(), random).unwrap()
    }

    fn open(&self) -> Result<Store, KeysError> {
        let random = Arc::new(SeededRandomness::new(4));
        Store::open(&self.path(), &self.source(), self.clock.clone(), random)
    }
}

fn keys(id: &str) -> OwnerKeys {
    OwnerKeys::generate(id.parse().unwrap(), ModelId::random().unwrap()).unwrap()
}

fn rotated(old: &OwnerKeys) -> (ContentKey, Release) {
    let key = ContentKey::generate().unwrap();
    let (fingerprint, key_version) = (key.fingerprint(), old.release.key_version.next().unwrap());
    let release = Release { fingerprint, key_version, ..old.release.clone() };
    (key, release)
}

#[test]
fn keys_are_added_rotated_revoked_and_survive() {
    let place = Place::new();
    let store = place.create();
    let first = keys("resnet");
    let id = &first.release.key_id;
    store.add(&first.content, &first.release).unwrap();
    assert!(matches!(store.add(&first.content, &first.release), Err(KeysError::KeyExists(_))));
    let (second, release) = rotated(&first);
    let unknown = keys("vgg");
    assert!(matches!(store.rotate(&unknown.content, &unknown.release), Err(KeysError::NoKey(_))));
    assert!(
        store.rotate(&first.content, &first.release).unwrap_err().to_string().contains("a version after 1")
    );
    let again = Release { fingerprint: first.release.fingerprint, ..release.clone() };
    assert!(store.rotate(&first.content, &again).is_err(), "the same key as version 2");
    assert!(store.rotate(&first.content, &release).is_err(), "not the key of the release file");
    let elsewhere = Release { model_id: ModelId::random().unwrap(), ..release.clone() };
    assert!(store.rotate(&second, &elsewhere).is_err(), "another model");
    store.rotate(&second, &release).unwrap();
    drop(store);

    let store = place.open().unwrap();
    let info = store.info(id).unwrap().unwrap();
    assert_eq!(info.versions.len(), 2);
    assert_eq!(info.version(None).unwrap().version.get(), 2);
    let (one, two) = (KeyVersion::FIRST, release.key_version);
    assert!(store.secret(id, one).unwrap().unwrap() == first.content);
    assert!(store.secret(id, two).unwrap().unwrap() == second);
    assert_eq!(store.revoke(id, Some(two)).unwrap(), 1);
    assert!(store.secret(id, two).unwrap().is_none());
    assert_eq!(store.info(id).unwrap().unwrap().version(None).unwrap().version, one);
    assert_eq!(store.revoke(id, None).unwrap(), 1, "the other one");
    assert_eq!(store.revoke(id, None).unwrap(), 0, "none is left");
    assert!(store.info(id).unwrap().unwrap().version(None).is_none());
    assert!(store.rotate(&second, &release).is_err(), "a revoked version does not come back");
    let events: Vec<_> = store.entries().unwrap().iter().map(|e| e.note.event.name()).collect();
    assert_eq!(events, ["created", "key-added", "key-rotated", "key-revoked", "key-revoked"]);
    store.verify_audit(None).unwrap();
}

#[test]
fn nothing_is_readable_without_the_master_key() {
    let place = Place::new();
    let store = place.create();
    let keys = keys("resnet");
    store.add(&keys.content, &keys.release).unwrap();
    store.set_policy(&keys.release.key_id, "a policy that nobody reads").unwrap();
    assert!(matches!(place.open(), Err(KeysError::Busy { .. })));
    drop(store);
    let bytes = read(place.path()).unwrap();
    let contains = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    assert!(!contains(keys.content.expose()) && !contains(b"that nobody reads"));
    assert!(!contains(keys.release.fingerprint.to_string().as_bytes()));
    let master = place.dir.path().join("master.key");
    write(&master, [8; 32]).unwrap();
    assert!(place.open().err().unwrap().to_string().contains("it is not that of"));
    write(&master, [7; 32]).unwrap();
    set_permissions(place.path(), Permissions::from_mode(0o644)).unwrap();
    assert!(place.open().err().unwrap().to_string().contains("accessible"));
    let random = Arc::new(SeededRandomness::new(3));
    assert!(
        Store::create(&place.path(), &place.source(), place.clock.clone(), random).is_err(),
        "one is there"
    );
}

#[test]
fn a_passphrase_opens_its_store_only() {
    let place = Place::new();
    let words = place.dir.path().join("words");
    write(&words, "correct horse battery staple\n").unwrap();
    set_permissions(&words, Permissions::from_mode(0o600)).unwrap();
    let source = MasterSource::PassphraseFile(words.clone());
    let random = Arc::new(SeededRandomness::new(3));
    drop(Store::create(&place.path(), &source, place.clock.clone(), random.clone()).unwrap());
    let open =
        |source: &MasterSource| Store::open(&place.path(), source, place.clock.clone(), random.clone());
    open(&source).unwrap().verify_audit(None).unwrap();
    assert!(open(&place.source()).err().unwrap().to_string().contains("with a passphrase"));
    write(&words, "incorrect horse battery staple\n").unwrap();
    assert!(open(&source).err().unwrap().to_string().contains("it is not that of"));
}

/// Changes to the file behind the store's back: entries of the log and keys that are changed, removed, put elsewhere.
#[test]
fn a_database_that_was_tampered_with_is_noticed() {
    type Rows<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;
    let place = Place::new();
    let id: KeyId = "resnet".parse().unwrap();
    {
        let store = place.create();
        for i in 0..4 {
            store.note(Note::new(Event::Released, "resnet@1", i.to_string())).unwrap();
        }
        let keys = keys("resnet");
        store.add(&keys.content, &keys.release).unwrap();
        store.rotate(&rotated(&keys).0, &rotated(&keys).1).unwrap_err();
        let (key, release) = rotated(&keys);
        store.rotate(&key, &release).unwrap();
        store.verify_audit(None).unwrap();
    }
    let pristine = read(place.path()).unwrap();
    let tamper = |table: &'static str, change: &dyn Fn(&mut Rows<'_>)| {
        write(place.path(), &pristine).unwrap();
        let database = redb::Database::open(place.path()).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&mut transaction.open_table(TableDefinition::new(table)).unwrap());
        transaction.commit().unwrap();
        drop(database);
        place.open().unwrap()
    };
    let number = |i: u64| i.to_be_bytes();
    let value = |rows: &Rows<'_>, key: &[u8]| rows.get(key).unwrap().unwrap().value().to_vec();
    for i in 1..=7u64 {
        let removed = tamper("audit", &|rows| drop(rows.remove(number(i).as_slice()).unwrap()));
        assert!(removed.verify_audit(None).is_err(), "without entry {i}");
        drop(removed);
        let changed = tamper("audit", &|rows| {
            let mut record = value(rows, &number(i));
            *record.last_mut().unwrap() ^= 1;
            rows.insert(number(i).as_slice(), record.as_slice()).unwrap();
        });
        assert!(changed.verify_audit(None).is_err(), "entry {i} changed");
        drop(changed);
        let moved = tamper("audit", &|rows| {
            let (one, two) = (value(rows, &number(i)), value(rows, &number(i % 7 + 1)));
            rows.insert(number(i % 7 + 1).as_slice(), one.as_slice()).unwrap();
            rows.insert(number(i).as_slice(), two.as_slice()).unwrap();
        });
        assert!(moved.verify_audit(None).is_err(), "entries {i} and the next exchanged");
    }
    let repeated = tamper("audit", &|rows| {
        let last = value(rows, &number(7));
        rows.insert(number(8).as_slice(), last.as_slice()).unwrap();
    });
    assert!(repeated.verify_audit(None).is_err());
    drop(repeated);
    let swapped = tamper("secrets", &|rows| {
        let at = |version| secret_key(&id, KeyVersion::new(version).unwrap());
        let (one, two) = (value(rows, &at(1)), value(rows, &at(2)));
        rows.insert(at(1).as_slice(), two.as_slice()).unwrap();
        rows.insert(at(2).as_slice(), one.as_slice()).unwrap();
    });
    assert!(swapped.secret(&id, KeyVersion::FIRST).is_err(), "versions exchanged");
    drop(swapped);
    write(place.path(), &pristine).unwrap();
    place.open().unwrap().verify_audit(None).unwrap();
}

/// A log that grows while it is checked is no log that was cut off.
#[test]
fn the_log_can_be_checked_while_it_is_written() {
    let place = Place::new();
    let store = place.create();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    store.note(Note::new(Event::Released, "resnet@1", "")).unwrap();
                }
            });
        }
        let mut check = store.verify_audit(None);
        while check.as_ref().is_ok_and(|newest| newest.sequence < 400) {
            check = store.verify_audit(None);
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        check.unwrap();
    });
}
