//! What each key alone is good for. The forger writes the format by hand, as docs/formats.md describes it: with the signing
//! key but not the content key, and with the content key but not the signing key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::signature::Ed25519KeyPair;

use crate::onnx::of_sizes;
use crate::tamper::{accepted, chunks, sealed};
use crate::{keys, open_all, options};

/// Seed of the signing key, and the content key, of [`keys`].
const SIGNING: [u8; 32] = [101; 32];
const CONTENT: [u8; 32] = [1; 32];

/// Bytes of prefix and header.
fn head(sealed: &[u8]) -> usize {
    18 + u32::from_le_bytes(sealed[10..14].try_into().unwrap()) as usize
}

/// Makes digests and signature right again.
fn sign_again(sealed: &mut [u8], places: &[std::ops::Range<usize>]) {
    let head = head(sealed);
    for (i, place) in places.iter().enumerate() {
        let digest = *blake3::hash(&sealed[place.clone()]).as_bytes();
        sealed[head + 32 * i..][..32].copy_from_slice(&digest);
    }
    let front = head + 32 * places.len();
    let statement = [b"privet sealed model v1", digest(&SHA256, &sealed[..front]).as_ref()].concat();
    let pair = Ed25519KeyPair::from_seed_unchecked(&SIGNING).unwrap();
    sealed[front..front + 64].copy_from_slice(pair.sign(&statement).as_ref());
}

fn model() -> Vec<u8> {
    sealed(&of_sizes(&[70_000, 70_000, 65_536, 200_000]), &keys(), &options(1))
}

#[test]
fn the_signing_key_alone_cannot_move_or_change_chunks() {
    let good = model();
    let places = chunks(&good);
    let mut same = good.clone();
    sign_again(&mut same, &places);
    assert!(same == good, "the forger knows the format");
    for to in 0..places.len() {
        for from in 0..places.len() {
            if from != to && places[from].len() == places[to].len() {
                let mut changed = good.clone();
                changed[places[to].clone()].copy_from_slice(&good[places[from].clone()]);
                sign_again(&mut changed, &places);
                assert!(open_all(&changed, &keys(), &accepted(1)).is_err(), "chunk {from} at {to}");
            }
        }
        let mut changed = good.clone();
        changed[places[to].start] ^= 1;
        sign_again(&mut changed, &places);
        assert!(open_all(&changed, &keys(), &accepted(1)).is_err(), "a flip in chunk {to}");
    }
}

#[test]
fn the_signing_key_alone_cannot_change_the_header() {
    let good = model();
    let places = chunks(&good);
    for at in 0..head(&good) {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            // A damaged length would put the digests elsewhere; it is refused by every other test.
            if !(10..18).contains(&at) {
                sign_again(&mut changed, &places);
            }
            assert!(open_all(&changed, &keys(), &accepted(1)).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn the_content_key_alone_cannot_change_a_weight() {
    let good = model();
    let places = chunks(&good);
    // The file's key, as every reader derives it: the salt is the last but 32 bytes before the number of entries.
    let at = 18 + 1 + 16 + 8 + 8 + 1 + "resnet".len() + 4 + 32 + 1;
    struct Bytes32;
    impl aws_lc_rs::hkdf::KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = [0; 32];
    let info = [&b"privet sealed model v1: chunks"[..]];
    Salt::new(HKDF_SHA256, &good[at..at + 32])
        .extract(&CONTENT)
        .expand(&info, Bytes32)
        .unwrap()
        .fill(&mut key)
        .unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    // Graph, constant, then the first chunk of entry 2: opened, changed, sealed again with a tag that is right.
    let header = digest(&SHA256, &good[..head(&good)]);
    let (entry, chunk, is_last) = (2u32, 0u64, 0u8);
    let aad = [header.as_ref(), &entry.to_le_bytes(), &chunk.to_le_bytes(), &[is_last]].concat();
    let nonce = || {
        let bytes = [&entry.to_le_bytes()[..], &chunk.to_le_bytes()].concat();
        Nonce::try_assume_unique_for_key(&bytes).unwrap()
    };
    let mut bytes = good[places[2].clone()].to_vec();
    assert_eq!(bytes.len(), 65_536 + 16, "the first chunk of 70,000 bytes");
    let plain = key.open_in_place(nonce(), Aad::from(&aad), &mut bytes).unwrap();
    plain[0] ^= 1;
    let mut forged = plain.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut forged).unwrap();
    let mut changed = good.clone();
    changed[places[2].clone()].copy_from_slice(&forged);
    let error = open_all(&changed, &keys(), &accepted(1)).unwrap_err().to_string();
    assert!(error.contains("not what the owner sealed"), "{error}");
    // With the signature it would pass: it is the digests that refuse it.
    sign_again(&mut changed, &places);
    let entries = open_all(&changed, &keys(), &accepted(1)).unwrap();
    assert_eq!(entries[2][0] ^ 1, open_all(&good, &keys(), &accepted(1)).unwrap()[2][0]);
}
