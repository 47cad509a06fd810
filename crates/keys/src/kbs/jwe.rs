//! Resources encrypted to an attested key.
//!
//! As a JWE (RFC 7516, flattened; algorithms of RFC 7518) for clients of a KBS: `ECDH-ES+A256KW` on P-256 or P-521, which
//! those of Confidential Containers use, or `RSA-OAEP-256`; the content always `A256GCM`. `RSA1_5` is refused: it is
//! deprecated. Or by HPKE (RFC 9180, base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM), which Privet's own
//! clients ask for at a cache. Which one, the `alg` of the key says, to which the evidence is bound; a key serves one.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{
    Algorithm, ECDH_P256, ECDH_P521, ParsedPublicKey, PrivateKey, UnparsedPublicKey, agree,
};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicKeyComponents};
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use kbs_types::{ProtectedHeader, Response, TeePubKey};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::error::{KeysError, unspecified};
use crate::hpke;
use crate::random::{Randomness, draw_private_key};

pub(crate) const ECDH: &str = "ECDH-ES+A256KW";
const RSA: &str = "RSA-OAEP-256";
const A256GCM: &str = "A256GCM";
/// Not a registered name: drafts of HPKE in JOSE have no suite of P-256 with AES-256.
pub(crate) const HPKE_ALG: &str = "privet-HPKE-P256-A256GCM";
const HPKE_INFO: &[u8] = b"privet key release v1";

/// Bits of RSA keys.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 2048 / 8..=8192 / 8;
const FAILED: &str = "encryption to the attested key failed";

/// A curve that JWE clients use.
#[derive(Clone, Copy)]
struct Curve {
    name: &'static str,
    bytes: usize,
    algorithm: &'static Algorithm,
    /// What of a scalar's first byte may be set.
    mask: u8,
}

const P256: Curve = Curve { name: "P-256", bytes: 32, algorithm: &ECDH_P256, mask: 0xff };
const P521: Curve = Curve { name: "P-521", bytes: 66, algorithm: &ECDH_P521, mask: 1 };

/// A public key to encrypt to.
pub(crate) enum TeeKey {
    Ecdh(Recipient),
    Rsa(Box<OaepPublicEncryptingKey>),
    Hpke(Vec<u8>),
}

/// A point on a curve, uncompressed.
pub(crate) struct Recipient {
    curve: Curve,
    point: Vec<u8>,
}

impl TeeKey {
    /// A key that one of the algorithms can use.
    pub(crate) fn parse(key: &TeePubKey) -> Result<Self, String> {
        match key {
            TeePubKey::EC { crv, alg, x, y } => {
                let curve = [P256, P521].into_iter().find(|curve| curve.name == crv);
                let curve = match (curve, alg.as_str()) {
                    (Some(curve), ECDH) => curve,
                    (Some(curve), HPKE_ALG) if curve.name == P256.name => curve,
                    _ => return Err(format!("expected {ECDH} with a key on P-256 or P-521, or {RSA}")),
                };
                let coordinate = |text: &str| {
                    let bytes =
                        BASE64URL.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == curve.bytes);
                    bytes.ok_or_else(|| format!("tee-pubkey: expected coordinates of {} bytes", curve.bytes))
                };
                let point = [vec![4], coordinate(x)?, coordinate(y)?].concat();
                let parsed = ParsedPublicKey::try_from(UnparsedPublicKey::new(curve.algorithm, &point));
                if !parsed.is_ok_and(|key| key.alg() == curve.algorithm) {
                    return Err(format!("tee-pubkey: not a point on {}", curve.name));
                }
                Ok(if alg == ECDH { Self::Ecdh(Recipient { curve, point }) } else { Self::Hpke(point) })
            }
            TeePubKey::RSA { alg, k_mod, k_exp } if alg == RSA => {
                let decode = |text: &str, most: usize| {
                    let bytes = BASE64URL.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() <= most);
                    bytes
                        .ok_or("tee-pubkey: expected modulus and exponent of an RSA key of 2048 to 8192 bits")
                };
                let (n, e) = (decode(k_mod, *RSA_BYTES.end())?, decode(k_exp, 4)?);
                let key = PublicKeyComponents { n, e }.try_into().and_then(OaepPublicEncryptingKey::new);
                // Even moduli and exponents, and an exponent of 1, show only when something is encrypted.
                let usable = key.ok().filter(|key| wrap_rsa(key, &[0; 32]).is_ok());
                let key = usable.ok_or("tee-pubkey: not an RSA key of 2048 to 8192 bits")?;
                Ok(Self::Rsa(Box::new(key)))
            }
            TeePubKey::RSA { .. } => Err(format!("tee-pubkey: of RSA only {RSA} is supported")),
            TeePubKey::AKP { .. } => {
                Err(format!("tee-pubkey: keys of kind AKP are not supported; expected {ECDH} or {RSA}"))
            }
        }
    }

    /// The body of a response with `plain` in it. HPKE binds it to `context`.
    pub(crate) fn encrypt(
        &self,
        plain: &[u8],
        context: &[u8],
        random: &dyn Randomness,
    ) -> Result<Vec<u8>, KeysError> {
        let reply = match self {
            Self::Hpke(point) => serde_json::to_vec(&hpke::seal(point, HPKE_INFO, context, plain, random)?),
            Self::Ecdh(_) | Self::Rsa(_) => serde_json::to_vec(&self.jwe(plain, random)?),
        };
        reply.map_err(unspecified("a reply does not encode"))
    }

    fn jwe(&self, plain: &[u8], random: &dyn Randomness) -> Result<Response, KeysError> {
        let mut content_key = Zeroizing::new([0; 32]);
        random.fill(&mut *content_key)?;
        let mut iv = [0; 12];
        random.fill(&mut iv)?;
        let (alg, encrypted_key, other_fields) = match self {
            Self::Rsa(key) => (RSA, wrap_rsa(key, &content_key)?, Map::new()),
            Self::Ecdh(recipient) => {
                let (encrypted_key, epk) = recipient.wrap(&content_key, random)?;
                (ECDH, encrypted_key, Map::from_iter([("epk".to_owned(), epk)]))
            }
            Self::Hpke(_) => return Err(KeysError::Internal(FAILED)),
        };
        let protected = ProtectedHeader { alg: alg.to_owned(), enc: A256GCM.to_owned(), other_fields };
        let aad = protected.generate_aad().map_err(unspecified(FAILED))?;
        let mut ciphertext = plain.to_vec();
        let tag = content_cipher(&content_key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut ciphertext)
            .map_err(unspecified(FAILED))?;
        let tag = tag.as_ref().to_vec();
        Ok(Response { protected, encrypted_key, aad: None, iv: iv.to_vec(), ciphertext, tag })
    }
}

impl Recipient {
    /// The content key wrapped for this point, and the ephemeral key that it takes to unwrap it.
    fn wrap(&self, content_key: &[u8; 32], random: &dyn Randomness) -> Result<(Vec<u8>, Value), KeysError> {
        let ephemeral = ephemeral(self.curve, random)?;
        let kek = shared_kek(&ephemeral, self.curve, &self.point)?;
        let mut wrapped = vec![0; content_key.len() + 8];
        AesKek::new(&AES_256, &kek[..])
            .and_then(|kek| kek.wrap(content_key, &mut wrapped).map(|_| ()))
            .map_err(unspecified(FAILED))?;
        let public = ephemeral.compute_public_key().map_err(unspecified(FAILED))?;
        let (x, y) = coordinates(public.as_ref());
        Ok((wrapped, json!({ "crv": self.curve.name, "kty": "EC", "x": x, "y": y })))
    }
}

/// The content key encrypted by RSA-OAEP.
fn wrap_rsa(key: &OaepPublicEncryptingKey, content_key: &[u8; 32]) -> Result<Vec<u8>, KeysError> {
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut out, None).map_err(unspecified(FAILED))?;
    Ok(out)
}

/// A fresh private key.
fn ephemeral(curve: Curve, random: &dyn Randomness) -> Result<PrivateKey, KeysError> {
    draw_private_key(curve.algorithm, curve.bytes, curve.mask, random)
}

/// The key-encryption key of ECDH-ES+A256KW (RFC 7518, section 4.6), without party information.
fn shared_kek(own: &PrivateKey, curve: Curve, peer: &[u8]) -> Result<Box<Zeroizing<[u8; 32]>>, KeysError> {
    let peer = UnparsedPublicKey::new(curve.algorithm, peer);
    agree(own, peer, KeysError::Internal(FAILED), |secret| {
        // One round of the Concat KDF gives the 256 bits.
        let mut hash = Context::new(&SHA256);
        hash.update(&1u32.to_be_bytes());
        hash.update(secret);
        hash.update(&(ECDH.len() as u32).to_be_bytes());
        hash.update(ECDH.as_bytes());
        hash.update(&[0; 8]);
        hash.update(&256u32.to_be_bytes());
        let mut kek = Box::new(Zeroizing::new([0; 32]));
        kek.copy_from_slice(hash.finish().as_ref());
        Ok(kek)
    })
}

fn content_cipher(key: &[u8; 32]) -> Result<LessSafeKey, KeysError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(unspecified(FAILED))
}

/// Both halves of an uncompressed point.
fn coordinates(point: &[u8]) -> (String, String) {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    (BASE64URL.encode(x), BASE64URL.encode(y))
}

/// The secret half of a key that resources are encrypted to; made for one exchange.
pub(crate) enum TeeSecret {
    Ecdh(PrivateKey),
    Hpke(PrivateKey),
}

impl TeeSecret {
    /// For a JWE.
    pub(crate) fn ecdh(random: &dyn Randomness) -> Result<Self, KeysError> {
        ephemeral(P256, random).map(Self::Ecdh)
    }

    /// For HPKE.
    pub(crate) fn hpke(random: &dyn Randomness) -> Result<Self, KeysError> {
        ephemeral(P256, random).map(Self::Hpke)
    }

    /// The public half.
    pub(crate) fn public(&self) -> Result<TeePubKey, KeysError> {
        let (alg, key) = match self {
            Self::Hpke(key) => (HPKE_ALG, key),
            Self::Ecdh(key) => (ECDH, key),
        };
        let point = key.compute_public_key().map_err(unspecified("no key could be made"))?;
        let (x, y) = coordinates(point.as_ref());
        Ok(TeePubKey::EC { crv: P256.name.to_owned(), alg: alg.to_owned(), x, y })
    }

    /// What [`TeeKey::encrypt`] encrypted. `None` if it was for another key or context, or has been changed.
    pub(crate) fn decrypt(&self, body: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::Hpke(secret) => hpke::open(secret, HPKE_INFO, context, &serde_json::from_slice(body).ok()?),
            Self::Ecdh(secret) => open_jwe(secret, &serde_json::from_slice(body).ok()?),
        }
    }
}

fn open_jwe(secret: &PrivateKey, response: &Response) -> Option<Zeroizing<Vec<u8>>> {
    let Response { protected, encrypted_key, iv, ciphertext, tag, .. } = response;
    if protected.alg != ECDH || protected.enc != A256GCM {
        return None;
    }
    let epk = protected.other_fields.get("epk")?;
    let coordinate = |name: &str| {
        let bytes = BASE64URL.decode(epk.get(name)?.as_str()?.as_bytes()).ok()?;
        Some(bytes).filter(|bytes| bytes.len() == P256.bytes)
    };
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    let kek = shared_kek(secret, P256, &point).ok()?;
    let mut content_key = Zeroizing::new([0; 32]);
    let unwrapped =
        AesKek::new(&AES_256, &kek[..]).ok()?.unwrap(encrypted_key, &mut *content_key).ok()?.len();
    if unwrapped != content_key.len() {
        return None;
    }
    let nonce = Nonce::try_assume_unique_for_key(iv).ok()?;
    let mut plain = Zeroizing::new([ciphertext.as_slice(), tag.as_slice()].concat());
    let aad = protected.generate_aad().ok()?;
    let length =
        content_cipher(&content_key).ok()?.open_in_place(nonce, Aad::from(aad), &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;
    use crate::random::{SeededRandomness, SystemRandomness};

    const PLAIN: &[u8] = b"a secret of any length";

    #[test]
    fn what_is_encrypted_opens_with_its_key_and_context_only() {
        let random = SeededRandomness::new(5);
        for make in
            [|| TeeSecret::ecdh(&SystemRandomness).unwrap(), || TeeSecret::hpke(&SystemRandomness).unwrap()]
        {
            let (secret, other) = (make(), make());
            let key = TeeKey::parse(&secret.public().unwrap()).unwrap();
            let body = key.encrypt(PLAIN, b"here", &random).unwrap();
            assert_eq!(**secret.decrypt(&body, b"here").unwrap(), *PLAIN);
            assert!(other.decrypt(&body, b"here").is_none());
            assert_eq!(secret.decrypt(&body, b"there").is_some(), matches!(secret, TeeSecret::Ecdh(_)));
            for at in 0..body.len() {
                for bit in [0, 3] {
                    let mut changed = body.clone();
                    changed[at] ^= 1 << bit;
                    let opened = secret.decrypt(&changed, b"here");
                    assert!(opened.is_none_or(|plain| **plain == *PLAIN), "byte {at}");
                }
            }
        }
    }

    /// RFC 7518, appendix C: the key agreement of ECDH-ES, for another algorithm and with party information.
    /// Here the same numbers without: computed with Python's hashlib.
    #[test]
    fn the_key_agreement_is_that_of_the_standard() {
        let private = |d: &str| {
            PrivateKey::from_private_key(&ECDH_P256, &BASE64URL.decode(d.as_bytes()).unwrap()).unwrap()
        };
        let alice = private("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
        let bob = private("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
        let point = |key: &PrivateKey| key.compute_public_key().unwrap().as_ref().to_vec();
        let one = shared_kek(&alice, P256, &point(&bob)).unwrap();
        let two = shared_kek(&bob, P256, &point(&alice)).unwrap();
        assert_eq!(one, two);
        // Z of the RFC's appendix.
        let z: [u8; 32] = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163,
            218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let info = [&[0, 0, 0, 1][..], &z, &[0, 0, 0, 14], ECDH.as_bytes(), &[0; 8], &[0, 0, 1, 0]].concat();
        assert_eq!(one.as_slice(), aws_lc_rs::digest::digest(&SHA256, &info).as_ref());
    }

    /// With every curve of JWE clients, opened step by step.
    #[test]
    fn keys_on_both_curves_are_encrypted_to() {
        for curve in [P256, P521] {
            let secret = ephemeral(curve, &SystemRandomness).unwrap();
            let point = secret.compute_public_key().unwrap();
            assert_eq!(point.as_ref().len(), 1 + 2 * curve.bytes);
            let (x, y) = coordinates(point.as_ref());
            let key = TeePubKey::EC { crv: curve.name.to_owned(), alg: ECDH.to_owned(), x, y };
            let body = TeeKey::parse(&key).unwrap().encrypt(PLAIN, b"", &SystemRandomness).unwrap();
            let response: Response = serde_json::from_slice(&body).unwrap();
            let epk = &response.protected.other_fields["epk"];
            assert_eq!((epk["crv"].as_str(), epk["kty"].as_str()), (Some(curve.name), Some("EC")));
            let decode = |name: &str| BASE64URL.decode(epk[name].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!((decode("x").len(), decode("y").len()), (curve.bytes, curve.bytes));
            let epk = [vec![4], decode("x"), decode("y")].concat();
            let open = |secret: &PrivateKey| {
                let kek = shared_kek(secret, curve, &epk).ok()?;
                let mut key = [0; 32];
                AesKek::new(&AES_256, &kek[..]).unwrap().unwrap(&response.encrypted_key, &mut key).ok()?;
                let nonce = Nonce::try_assume_unique_for_key(&response.iv).unwrap();
                let mut plain = [response.ciphertext.clone(), response.tag.clone()].concat();
                let aad = Aad::from(response.protected.generate_aad().unwrap());
                Some(content_cipher(&key).unwrap().open_in_place(nonce, aad, &mut plain).ok()?.to_vec())
            };
            assert_eq!(open(&secret).unwrap(), PLAIN);
            assert!(open(&ephemeral(curve, &SystemRandomness).unwrap()).is_none(), "another key");
        }
    }

    #[test]
    fn rsa_keys_are_encrypted_to_and_weak_ones_refused() {
        let secret = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(
            aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&secret)
                .unwrap()
                .as_ref(),
        )
        .unwrap();
        // PKCS #1: two integers of 257 and 3 bytes, with their headers.
        let public = pair.public_key().as_ref();
        let encode = |bytes: &[u8]| BASE64URL.encode(bytes);
        let modulus = public[9..265].to_vec();
        let exponent = public[267..].to_vec();
        let key = |alg: &str, n: &[u8]| TeePubKey::RSA {
            alg: alg.to_owned(),
            k_mod: encode(n),
            k_exp: encode(&exponent),
        };
        let tee = TeeKey::parse(&key(RSA, &modulus)).unwrap();
        let body = tee.encrypt(PLAIN, b"", &SystemRandomness).unwrap();
        let response: Response = serde_json::from_slice(&body).unwrap();
        let decrypting = OaepPrivateDecryptingKey::new(secret).unwrap();
        let mut content_key = vec![0; decrypting.min_output_size()];
        let content_key = decrypting
            .decrypt(&OAEP_SHA256_MGF1SHA256, &response.encrypted_key, &mut content_key, None)
            .unwrap();
        let cipher = content_cipher((&*content_key).try_into().unwrap()).unwrap();
        let nonce = Nonce::try_assume_unique_for_key(&response.iv).unwrap();
        let mut plain = [response.ciphertext.clone(), response.tag.clone()].concat();
        let aad = Aad::from(response.protected.generate_aad().unwrap());
        assert_eq!(cipher.open_in_place(nonce, aad, &mut plain).unwrap(), PLAIN);
        // What cannot be encrypted to is refused before anything is released to it.
        let even = [&modulus[..255], &[modulus[255] & !1]].concat();
        for (n, e) in [(&even, &[1, 0, 1][..]), (&modulus, &[1]), (&modulus, &[2]), (&modulus, &[0])] {
            let wrong = TeePubKey::RSA { alg: RSA.to_owned(), k_mod: encode(n), k_exp: encode(e) };
            assert!(TeeKey::parse(&wrong).is_err(), "exponent {e:?}");
        }
        for (alg, n) in [("RSA1_5", &modulus[..]), (RSA, &modulus[..128]), (RSA, b""), ("RSA-OAEP", &modulus)]
        {
            assert!(TeeKey::parse(&key(alg, n)).is_err(), "{alg}, {} bytes", n.len());
        }
    }

    #[test]
    fn points_off_the_curve_and_other_keys_are_refused() {
        let TeePubKey::EC { crv, alg, x, y } = TeeSecret::hpke(&SystemRandomness).unwrap().public().unwrap()
        else {
            panic!("a key on a curve")
        };
        let key = |crv: &str, alg: &str, x: &str, y: &str| TeePubKey::EC {
            crv: crv.to_owned(),
            alg: alg.to_owned(),
            x: x.to_owned(),
            y: y.to_owned(),
        };
        assert!(TeeKey::parse(&key(&crv, &alg, &x, &y)).is_ok());
        let zero = BASE64URL.encode(&[0; 32]);
        for wrong in [
            key(&crv, &alg, &y, &x),
            key(&crv, ECDH, &zero, &zero),
            key(&crv, ECDH, &x, ""),
            key("P-384", ECDH, &x, &y),
            key("P-521", ECDH, &x, &y),
            key(&crv, "ECDH-ES", &x, &y),
            key(&crv, ECDH, "=?", &y),
            TeePubKey::AKP { alg: "ML-KEM-768".to_owned(), public_key: x.clone() },
        ] {
            assert!(TeeKey::parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
