//! A synthetic PKI in the form of AMD's, made afresh for each test: nothing in it is real, and no shipped verifier trusts it.

mod der;

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384};
use der::{oid, seq, tlv};
use privet_attest::verifier::SnpRoot;

/// 2025-01-01, in the validity of everything that does not say otherwise.
pub(crate) const NOW: u64 = 1_735_689_600;
const VALID: (&str, &str) = ("20200101000000Z", "20300101000000Z");
const EXPIRED: (&str, &str) = ("20200101000000Z", "20240101000000Z");

/// What is wrong about a chain, a list or a report.
#[derive(Clone, Default)]
pub(crate) struct Flaws {
    pub(crate) leaf_expired: bool,
    pub(crate) intermediate_expired: bool,
    pub(crate) root_expired: bool,
    pub(crate) not_an_authority: bool,
    pub(crate) leaf_signed_by_another: bool,
    pub(crate) microcode_certified: Option<u8>,
    pub(crate) without_tcb: bool,
    pub(crate) chip_certified: Option<u8>,
    pub(crate) without_chip: bool,
    pub(crate) product_certified: Option<&'static str>,
}

/// Root, intermediate, leaf, and reports signed by the leaf.
pub(crate) struct Pki {
    vlek: bool,
    turin: bool,
    root: Authority,
    intermediate: Authority,
    leaf_key: EcdsaKeyPair,
    pub(crate) leaf: Vec<u8>,
}

struct Authority {
    name: String,
    key: &'static RsaKeyPair,
    certificate: Vec<u8>,
}

/// Keys of root and intermediate: ours, and those of strangers with the same names. Made once, as RSA takes its time.
static KEYS: LazyLock<[RsaKeyPair; 4]> =
    LazyLock::new(|| [(); 4].map(|()| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")));

impl Pki {
    pub(crate) fn vcek(flaws: &Flaws) -> Self {
        Self::new(flaws, false, false, 0)
    }

    /// Everything has the same names, but other keys.
    pub(crate) fn stranger() -> Self {
        Self::new(&Flaws::default(), false, false, 2)
    }

    pub(crate) fn vlek(flaws: &Flaws) -> Self {
        Self::new(flaws, true, false, 0)
    }

    /// With versions and chip ids as Turin has them.
    pub(crate) fn turin(flaws: &Flaws) -> Self {
        Self::new(flaws, false, true, 0)
    }

    fn new(flaws: &Flaws, vlek: bool, turin: bool, keys: usize) -> Self {
        let validity = |expired: bool| if expired { EXPIRED } else { VALID };
        let product = if turin { "Turin" } else { "Milan" };
        let root_name = format!("ARK-{product} synthetic");
        let root_key = &KEYS[keys];
        let root_spki = rsa_spki(root_key);
        let root_certificate = certificate(
            &root_name,
            root_key,
            &root_name,
            1,
            &root_spki,
            validity(flaws.root_expired),
            &[authority()],
        );
        let root = Authority { name: root_name, key: root_key, certificate: root_certificate };

        let name = format!("SEV-{product} synthetic");
        let key = &KEYS[keys + 1];
        let extensions = if flaws.not_an_authority { vec![] } else { vec![authority()] };
        let dates = validity(flaws.intermediate_expired);
        let issued = certificate(&root.name, root.key, &name, 2, &rsa_spki(key), dates, &extensions);
        let intermediate = Authority { name, key, certificate: issued };

        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
            .expect("a key");
        let leaf_key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8.as_ref()).expect("a key");
        let spki = seq(&[
            &seq(&[&oid("1.2.840.10045.2.1"), &oid("1.3.132.0.34")]),
            &bits(leaf_key.public_key().as_ref()),
        ]);
        let subject = if vlek { "SEV-VLEK" } else { "SEV-VCEK" };
        let signer = if flaws.leaf_signed_by_another { root.key } else { intermediate.key };
        let extensions = leaf_extensions(flaws, vlek, turin);
        let dates = validity(flaws.leaf_expired);
        let leaf = certificate(&intermediate.name, signer, subject, 3, &spki, dates, &extensions);
        Self { vlek, turin, root, intermediate, leaf_key, leaf }
    }

    pub(crate) fn roots(&self) -> Vec<SnpRoot> {
        let product = if self.turin { "Turin" } else { "Milan" };
        vec![SnpRoot {
            product: product.to_owned(),
            ark: self.root.certificate.clone(),
            intermediates: vec![self.intermediate.certificate.clone()],
        }]
    }

    /// A report with this change made before it is signed.
    pub(crate) fn report(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut report = vec![0; 1184];
        report[0] = if self.turin { 3 } else { 2 };
        report[0x0A] = 3; // Policy: SMT is allowed, and the bit that is always 1.
        report[0x34] = 1;
        report[0x48] = u8::from(self.vlek) << 2;
        report[0x50..0x90].fill(0x11);
        report[0x90..0xC0].fill(0x22);
        for at in [0x38, 0x180, 0x1E0, 0x1F0] {
            report[at..at + 8].copy_from_slice(&TCB[usize::from(self.turin)]);
        }
        if self.turin {
            report[0x188..0x18A].copy_from_slice(&[0x1A, 0x02]);
        }
        let chip = if self.turin { 8 } else { 64 };
        report[0x1A0..0x1A0 + chip].fill(CHIP);
        change(&mut report);
        let signature = self.leaf_key.sign(&SystemRandom::new(), &report[..0x2A0]).expect("signed");
        for (number, at) in signature.as_ref().chunks(48).zip([0x2A0, 0x2A0 + 72]) {
            let reversed: Vec<u8> = number.iter().rev().copied().collect();
            report[at..at + 48].copy_from_slice(&reversed);
        }
        report
    }

    /// A revocation list of the root or the intermediate.
    pub(crate) fn crl(&self, by_root: bool, revoked: &[u8], validity: (&str, &str)) -> Vec<u8> {
        let issuer = if by_root { &self.root } else { &self.intermediate };
        let entries: Vec<Vec<u8>> =
            revoked.iter().map(|&serial| seq(&[&tlv(2, &[serial]), &time("20240101000000Z")])).collect();
        let list = if entries.is_empty() {
            vec![]
        } else {
            seq(&entries.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        let body =
            seq(&[&tlv(2, &[1]), &pss(), &name(&issuer.name), &time(validity.0), &time(validity.1), &list]);
        signed(&body, issuer.key)
    }
}

pub(crate) const CRL_CURRENT: (&str, &str) = ("20241201000000Z", "20250301000000Z");
pub(crate) const CRL_EXPIRED: (&str, &str) = ("20240101000000Z", "20240301000000Z");
pub(crate) const CRL_FUTURE: (&str, &str) = ("20250201000000Z", "20250401000000Z");

/// The byte that ids of chips consist of.
pub(crate) const CHIP: u8 = 0x33;
/// Milan and Genoa: boot loader 4, tee 0, SNP 22, microcode 213. Turin: fmc 1, boot loader 4, tee 0, SNP 22, microcode 213.
const TCB: [[u8; 8]; 2] = [[4, 0, 0, 0, 0, 0, 22, 213], [1, 4, 0, 22, 0, 0, 0, 213]];

fn leaf_extensions(flaws: &Flaws, vlek: bool, turin: bool) -> Vec<Vec<u8>> {
    let amd = |suffix: &str, value: &[u8]| extension(&format!("1.3.6.1.4.1.3704.1.{suffix}"), false, value);
    let number = |value: u8| if value < 128 { tlv(2, &[value]) } else { tlv(2, &[0, value]) };
    let product = flaws.product_certified.unwrap_or(if turin { "Turin-B1" } else { "Milan-B0" });
    let product = if vlek { product.split('-').next().unwrap_or_default() } else { product };
    let mut extensions = vec![amd("1", &number(0)), amd("2", &tlv(0x16, product.as_bytes()))];
    if !flaws.without_tcb {
        let microcode = flaws.microcode_certified.unwrap_or(213);
        for (suffix, value) in [("3.1", 4), ("3.2", 0), ("3.3", 22), ("3.8", microcode)] {
            extensions.push(amd(suffix, &number(value)));
        }
        if turin {
            extensions.push(amd("3.9", &number(1)));
        }
    }
    if vlek {
        extensions.push(amd("5", &tlv(0x16, b"CN=synthetic.example")));
    } else if !flaws.without_chip {
        let chip = vec![flaws.chip_certified.unwrap_or(CHIP); if turin { 8 } else { 64 }];
        // Newer certificates wrap it.
        extensions.push(if turin { amd("4", &tlv(4, &chip)) } else { amd("4", &chip) });
    }
    extensions
}

fn certificate(
    issuer: &str,
    issuer_key: &RsaKeyPair,
    subject: &str,
    serial: u8,
    spki: &[u8],
    validity: (&str, &str),
    extensions: &[Vec<u8>],
) -> Vec<u8> {
    let extensions = match extensions {
        [] => vec![],
        list => tlv(0xA3, &seq(&list.iter().map(Vec::as_slice).collect::<Vec<_>>())),
    };
    let dates = seq(&[&time(validity.0), &time(validity.1)]);
    let version = tlv(0xA0, &tlv(2, &[2]));
    let body = seq(&[
        &version,
        &tlv(2, &[serial]),
        &pss(),
        &name(issuer),
        &dates,
        &name(subject),
        spki,
        &extensions,
    ]);
    signed(&body, issuer_key)
}

fn signed(body: &[u8], key: &RsaKeyPair) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), body, &mut signature).expect("signed");
    seq(&[body, &pss(), &bits(&signature)])
}

fn rsa_spki(key: &RsaKeyPair) -> Vec<u8> {
    seq(&[&seq(&[&oid("1.2.840.113549.1.1.1"), &[5, 0]]), &bits(key.public_key().as_ref())])
}

fn authority() -> Vec<u8> {
    extension("2.5.29.19", true, &seq(&[&tlv(1, &[0xFF])]))
}

fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(1, &[0xFF]) } else { vec![] };
    seq(&[&oid(id), &critical, &tlv(4, value)])
}

/// RSASSA-PSS with SHA-384, MGF1 of SHA-384 and 48 bytes of salt.
fn pss() -> Vec<u8> {
    let sha384 = seq(&[&oid("2.16.840.1.101.3.4.2.2")]);
    let mgf = seq(&[&oid("1.2.840.113549.1.1.8"), &sha384]);
    let parameters = seq(&[&tlv(0xA0, &sha384), &tlv(0xA1, &mgf), &tlv(0xA2, &tlv(2, &[48]))]);
    seq(&[&oid("1.2.840.113549.1.1.10"), &parameters])
}

fn name(common: &str) -> Vec<u8> {
    seq(&[&tlv(0x31, &seq(&[&oid("2.5.4.3"), &tlv(0x0C, common.as_bytes())]))])
}

fn time(text: &str) -> Vec<u8> {
    // UTCTime up to 2049.
    tlv(0x17, &text.as_bytes()[2..])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], bytes].concat())
}
