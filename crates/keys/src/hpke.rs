//! Hybrid public-key encryption (RFC 9180), base mode, one message for each encapsulation: DHKEM(P-256, HKDF-SHA256),
//! HKDF-SHA256, AES-256-GCM.
//!
//! rustls has it too, but frees buffers with what was sealed or opened without wiping them. Here a message is encrypted and
//! decrypted where it lies, in memory that is wiped. Tests compare both.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{KeysError, unspecified};
use crate::random::{Randomness, draw_private_key, expand};

const VERSION: &[u8] = b"HPKE-v1";
/// `KEM`, and the number of DHKEM(P-256, HKDF-SHA256).
const KEM: &[u8] = b"KEM\x00\x10";
/// `HPKE`, and the numbers of KEM, KDF and AEAD.
const SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";
const BASE_MODE: u8 = 0;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const SCALAR_BYTES: usize = 32;

const FAILED: &str = "encryption to a public key failed";

/// The encapsulated secret and the ciphertext with its tag, as they travel.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sealed {
    enc: String,
    ct: String,
}

/// A private key on P-256.
pub(crate) fn private_key(random: &dyn Randomness) -> Result<PrivateKey, KeysError> {
    draw_private_key(&ECDH_P256, SCALAR_BYTES, u8::MAX, random)
}

/// The public half, an uncompressed point.
pub(crate) fn public_key(private: &PrivateKey) -> Result<Vec<u8>, KeysError> {
    let point = private.compute_public_key().map_err(unspecified("no key could be made"))?;
    Ok(point.as_ref().to_vec())
}

/// Encrypts to a public key. `info` says what for, `aad` what it is bound to.
pub(crate) fn seal(
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    plain: &[u8],
    random: &dyn Randomness,
) -> Result<Sealed, KeysError> {
    let ephemeral = private_key(random)?;
    let enc = public_key(&ephemeral)?;
    let shared = shared_secret(&ephemeral, public, &enc, public)?;
    let (key, nonce) = key_schedule(&shared, info)?;
    let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
    body.extend_from_slice(plain);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut *body).map_err(unspecified(FAILED))?;
    Ok(Sealed { enc: BASE64URL.encode(&enc), ct: BASE64URL.encode(&body) })
}

/// What [`seal`] encrypted. `None` if it was for another key, use or context, or has been changed.
pub(crate) fn open(
    private: &PrivateKey,
    info: &[u8],
    aad: &[u8],
    sealed: &Sealed,
) -> Option<Zeroizing<Vec<u8>>> {
    let decode = |text: &str| BASE64URL.decode(text.as_bytes()).ok();
    let (enc, mut body) = (decode(&sealed.enc)?, Zeroizing::new(decode(&sealed.ct)?));
    let shared = shared_secret(private, &enc, &enc, &public_key(private).ok()?).ok()?;
    let (key, nonce) = key_schedule(&shared, info).ok()?;
    let length = key.open_in_place(nonce, Aad::from(aad), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

/// `Encap` and `Decap` of section 4.1, given whose private key meets whose public one.
fn shared_secret(
    own: &PrivateKey,
    peer: &[u8],
    enc: &[u8],
    recipient: &[u8],
) -> Result<Box<Zeroizing<[u8; 32]>>, KeysError> {
    let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
    let prk = agree(own, peer, KeysError::Internal(FAILED), |dh| Ok(extract(KEM, b"", b"eae_prk", dh)))?;
    let mut shared = Box::new(Zeroizing::new([0; 32]));
    let info = [&length(shared.len())[..], VERSION, KEM, b"shared_secret", enc, recipient];
    expand(&prk, &info, &mut shared[..])?;
    Ok(shared)
}

/// `KeySchedule` of section 5.1, without a pre-shared key.
fn key_schedule(shared: &[u8; 32], info: &[u8]) -> Result<(LessSafeKey, Nonce), KeysError> {
    let (psk_id_hash, info_hash) = (hash(b"psk_id_hash", b""), hash(b"info_hash", info));
    let context = [&[BASE_MODE][..], psk_id_hash.as_ref(), info_hash.as_ref()].concat();
    let secret = extract(SUITE, shared, b"secret", b"");
    let key = secret
        .expand(&[&length(KEY_BYTES)[..], VERSION, SUITE, b"key", &context], &AES_256_GCM)
        .map(UnboundKey::from)
        .map_err(unspecified(FAILED))?;
    let mut nonce = [0; NONCE_BYTES];
    expand(&secret, &[&length(NONCE_BYTES)[..], VERSION, SUITE, b"base_nonce", &context], &mut nonce)?;
    // The first message's sequence number is zero.
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}

/// `LabeledExtract` of section 4.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], secret: &[u8]) -> Prk {
    let labeled = Zeroizing::new([VERSION, suite, label, secret].concat());
    Salt::new(HKDF_SHA256, salt).extract(&labeled)
}

/// `LabeledExtract` without salt, of what is public.
fn hash(label: &[u8], what: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), &[VERSION, SUITE, label, what].concat())
}

/// As `LabeledExpand` begins.
fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256 as RUSTLS;
    use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePublicKey};

    use super::*;
    use crate::random::{SeededRandomness, SystemRandomness};

    /// rustls' implementation opens what this one seals, and the other way round.
    #[test]
    fn it_is_what_others_understand() {
        for plain in [&b""[..], b"x", &[7; 32], &[9; 5000]] {
            let (public, secret) = RUSTLS.generate_key_pair().unwrap();
            let Sealed { enc, ct } = seal(&public.0, b"info", b"aad", plain, &SystemRandomness).unwrap();
            let decode = |text: &str| BASE64URL.decode(text.as_bytes()).unwrap();
            let enc = EncapsulatedSecret(decode(&enc));
            assert_eq!(RUSTLS.open(&enc, b"info", b"aad", &decode(&ct), &secret).unwrap(), plain);

            let own = private_key(&SystemRandomness).unwrap();
            let public = HpkePublicKey(public_key(&own).unwrap());
            let (enc, ct) = RUSTLS.seal(b"info", b"aad", plain, &public).unwrap();
            let sealed = Sealed { enc: BASE64URL.encode(&enc.0), ct: BASE64URL.encode(&ct) };
            assert_eq!(open(&own, b"info", b"aad", &sealed).unwrap().as_slice(), plain);
        }
    }

    /// The key encapsulation of RFC 9180, appendix A.3.1, whose suite has another cipher but the same KEM.
    #[test]
    fn the_shared_secret_is_that_of_the_standard() {
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = |text: &str| PrivateKey::from_private_key(&ECDH_P256, &hex(text)).unwrap();
        let ephemeral = key("4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb");
        let recipient = key("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2");
        let (enc, public) = (public_key(&ephemeral).unwrap(), public_key(&recipient).unwrap());
        let expected = "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8";
        let sent = shared_secret(&ephemeral, &public, &enc, &public).unwrap();
        assert_eq!(HEXLOWER.encode(&sent[..]), expected);
        assert_eq!(sent, shared_secret(&recipient, &enc, &enc, &public).unwrap());
    }

    #[test]
    fn it_opens_for_its_key_use_and_context_only_and_no_bit_is_free() {
        let random = SeededRandomness::new(8);
        let (own, other) = (private_key(&random).unwrap(), private_key(&random).unwrap());
        let sealed = seal(&public_key(&own).unwrap(), b"info", b"aad", b"secret", &random).unwrap();
        assert_eq!(**open(&own, b"info", b"aad", &sealed).unwrap(), *b"secret");
        assert!(open(&other, b"info", b"aad", &sealed).is_none());
        assert!(open(&own, b"inf", b"aad", &sealed).is_none() && open(&own, b"info", b"", &sealed).is_none());
        let again = seal(&public_key(&own).unwrap(), b"info", b"aad", b"secret", &random).unwrap();
        assert!(again.enc != sealed.enc && again.ct != sealed.ct, "a key of its own for each message");
        for which in [0, 1] {
            let text = [&sealed.enc, &sealed.ct][which];
            let bytes = BASE64URL.decode(text.as_bytes()).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let changed = BASE64URL.encode(&changed);
                let (enc, ct) =
                    if which == 0 { (changed, sealed.ct.clone()) } else { (sealed.enc.clone(), changed) };
                assert!(open(&own, b"info", b"aad", &Sealed { enc, ct }).is_none(), "{which}, bit {bit}");
            }
        }
        for (enc, ct) in [("", sealed.ct.as_str()), (sealed.enc.as_str(), ""), ("=", "=")] {
            let sealed = Sealed { enc: enc.to_owned(), ct: ct.to_owned() };
            assert!(open(&own, b"info", b"aad", &sealed).is_none());
        }
    }
}
