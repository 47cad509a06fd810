//! What goes over the socket, and what is done with messages that were recorded, changed, or meant for another server.

use std::os::unix::fs::PermissionsExt;

use data_encoding::{BASE64, HEXLOWER};
use privet_seal::{ModelId, OwnerKeys};
use zeroize::Zeroizing;

use super::*;
use crate::clock::ManualClock;
use crate::master::MasterSource;
use crate::random::SeededRandomness;

fn store(dir: &Path) -> Arc<Store> {
    let key = dir.join("master.key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (clock, random) = (Arc::new(ManualClock::new(1_000_000)), Arc::new(SeededRandomness::new(3)));
    Arc::new(Store::create(&dir.join("keys.redb"), &MasterSource::File(key), clock, random).unwrap())
}

fn keys(id: &str) -> OwnerKeys {
    OwnerKeys::generate(id.parse().unwrap(), ModelId::random().unwrap()).unwrap()
}

fn handle(handler: &AdminHandler, message: &Message) -> (u16, String) {
    let (method, path) = ("POST".to_owned(), PATH.to_owned());
    let body = encode(message).unwrap();
    let reply = handler.handle(&Incoming { method, path, cookie: None, bearer: None, body, from: None });
    (reply.status, String::from_utf8(reply.body).unwrap())
}

fn recipient(handler: &AdminHandler) -> Recipient {
    let (status, body) = handle(handler, &Message::Recipient);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn encrypted(handler: &AdminHandler, purpose: Purpose, keys: &OwnerKeys) -> EncryptedKey {
    encrypt(purpose, &OwnerKey::new(&keys.content, &keys.release), recipient(handler)).unwrap()
}

#[track_caller]
fn refused(handler: &AdminHandler, message: &Message, word: &str) {
    let (status, body) = handle(handler, message);
    assert!(status != 200 && body.contains(word), "{status} {body}");
    assert!(handler.store.list().unwrap().is_empty(), "nothing was added");
}

/// A message once more: it cannot be cloned.
fn copy(key: &EncryptedKey) -> EncryptedKey {
    serde_json::from_slice(&encode(key).unwrap()).unwrap()
}

#[test]
fn a_key_goes_over_the_socket_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let handler = AdminHandler::new(store(dir.path()));
    let keys = keys("resnet");
    let message = Message::Add(encrypted(&handler, Purpose::Add, &keys));
    let sent = encode(&message).unwrap();
    let secret = keys.content.expose();
    for look in [secret.to_vec(), BASE64.encode(secret).into_bytes(), HEXLOWER.encode(secret).into_bytes()] {
        assert!(!sent.windows(16).any(|part| look.windows(16).any(|look| look == part)));
    }
    assert_eq!(handle(&handler, &message).0, 200);
    let version = keys.release.key_version;
    assert!(handler.store.secret(&keys.release.key_id, version).unwrap().unwrap() == keys.content);
}

#[test]
fn what_was_recorded_changed_or_meant_for_something_else_is_refused() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (handler, other) = (AdminHandler::new(store(dir.path())), AdminHandler::new(store(elsewhere.path())));
    let keys = keys("resnet");

    // For another server, and for this one before a restart.
    refused(&handler, &Message::Add(encrypted(&other, Purpose::Add, &keys)), "for another server");
    let before = encrypted(&handler, Purpose::Add, &keys);
    let handler = AdminHandler::new(handler.store.clone());
    refused(&handler, &Message::Add(before), "for another server");

    // A name of this server's on what was encrypted for another's.
    let mut renamed = encrypted(&other, Purpose::Add, &keys);
    renamed.recipient = recipient(&handler).public;
    refused(&handler, &Message::Add(renamed), "for something else");

    // Added for rotated, under another id or version, with another release file.
    refused(&handler, &Message::Rotate(encrypted(&handler, Purpose::Add, &keys)), "for something else");
    for (from, to) in
        [("key_id = \"resnet\"", "key_id = \"vgg\""), ("key_version = 1", "key_version = 2"), ("", "#")]
    {
        let mut key = encrypted(&handler, Purpose::Add, &keys);
        assert!(key.release.contains(from), "{}", key.release);
        key.release = key.release.replacen(from, to, 1);
        refused(&handler, &Message::Add(key), "for something else");
    }

    // Every bit of the ciphertext: a recipient serves once, so each has its own message.
    let length = encode(&encrypted(&handler, Purpose::Add, &keys).sealed).unwrap().len();
    for at in 0..length {
        let mut key = encrypted(&handler, Purpose::Add, &keys);
        let mut bytes: Zeroizing<Vec<u8>> = encode(&key.sealed).unwrap();
        bytes[at] ^= 1;
        match serde_json::from_slice(&bytes) {
            Ok(sealed) => key.sealed = sealed,
            Err(_) => continue,
        }
        refused(&handler, &Message::Add(key), "for something else");
    }

    // Recorded: nothing is encrypted to a recipient twice, whatever became of the first.
    let key = encrypted(&handler, Purpose::Add, &keys);
    refused(&handler, &Message::Rotate(copy(&key)), "for something else");
    refused(&handler, &Message::Add(key), "used already");
    let key = encrypted(&handler, Purpose::Add, &keys);
    let again = copy(&key);
    assert_eq!(handle(&handler, &Message::Add(key)).0, 200);
    handler.store.revoke(&keys.release.key_id, None).unwrap();
    let (status, body) = handle(&handler, &Message::Add(again));
    assert!(status != 200 && body.contains("used already"), "{body}");
}

#[test]
fn recipients_are_bounded_and_the_newest_serve() {
    let dir = tempfile::tempdir().unwrap();
    let handler = AdminHandler::new(store(dir.path()));
    let keys = keys("resnet");
    let forgotten = encrypted(&handler, Purpose::Add, &keys);
    let newer: Vec<_> = (0..MAX_RECIPIENTS).map(|_| encrypted(&handler, Purpose::Add, &keys)).collect();
    assert_eq!(handler.recipients().len(), MAX_RECIPIENTS);
    refused(&handler, &Message::Add(forgotten), "for another server");
    let oldest = newer.into_iter().next().unwrap();
    assert_eq!(handle(&handler, &Message::Add(oldest)).0, 200);
    // What is no point on the curve is not encrypted to.
    for public in ["", "AAAA", "=", &BASE64URL.encode(&[4; 65])] {
        let nobody = Recipient { public: public.to_owned() };
        assert!(encrypt(Purpose::Add, &OwnerKey::new(&keys.content, &keys.release), nobody).is_err());
    }
}
