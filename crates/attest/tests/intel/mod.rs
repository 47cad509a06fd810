//! A synthetic PKI in the form of Intel's, with collateral and quotes, made afresh for each test: nothing in it is real, and
//! no shipped verifier trusts it.

#[path = "../pki/der.rs"]
mod der;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use der::{oid, seq, tlv};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SerialNumber,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// 2025-01-01, in the validity of everything that does not say otherwise.
pub(crate) const NOW: u64 = 1_735_689_600;
const DAY: i64 = 86_400;

/// Days before and after [`NOW`] between which something is valid.
pub(crate) type Validity = (i64, i64);
const CERTIFICATES: Validity = (-1000, 1000);

/// Header, type and length of the body, and the body of a TD report 1.5: what the attestation key signs.
pub(crate) const SIGNED: usize = 48 + 6 + 648;
/// Where things are in the body.
const SEAM: std::ops::Range<usize> = 16..64;
pub(crate) const ATTRIBUTES: std::ops::Range<usize> = 120..128;
pub(crate) const MRTD: std::ops::Range<usize> = 136..184;
const CONFIG_ID: std::ops::Range<usize> = 184..232;
const RTMR0: usize = 328;
const REPORT_DATA: std::ops::Range<usize> = 520..584;
/// The present TCB, after an update of the module that keeps domains.
pub(crate) const PRESENT_TCB: usize = 584;
pub(crate) const SERVICE_TD: usize = 600;

/// Numbers of the certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serial {
    Root = 1,
    PckCa = 2,
    TcbSigner = 3,
    Pck = 4,
}

/// What of all this is not as it should be.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Of the levels of the platform: up to date at 5, something else from 3.
    pub(crate) older_level: &'static str,
    /// Of the module's levels, likewise.
    pub(crate) older_module: &'static str,
    /// Of the quoting enclave that there is.
    pub(crate) quoting_enclave: &'static str,
    pub(crate) revoked: Option<Serial>,
    pub(crate) crls: Validity,
    pub(crate) collateral: Validity,
    pub(crate) pck: Validity,
    pub(crate) tcb_fmspc: &'static str,
    pub(crate) qe_mrsigner: u8,
    pub(crate) cpu_svn: u8,
    pub(crate) pck_by_root: bool,
    pub(crate) id: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            older_level: "OutOfDate",
            older_module: "OutOfDate",
            quoting_enclave: "UpToDate",
            revoked: None,
            crls: (-1, 30),
            collateral: (-1, 30),
            pck: CERTIFICATES,
            tcb_fmspc: "00906ED50000",
            qe_mrsigner: 0x77,
            cpu_svn: 5,
            pck_by_root: false,
            id: "TDX",
        }
    }
}

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// Root, authority of the platforms' keys, signer of TCB information, and the key of one platform.
pub(crate) struct Intel {
    setup: Setup,
    root: Authority,
    pck_ca: Authority,
    tcb_signer: Certificate,
    tcb_key: EcdsaKeyPair,
    pck: Certificate,
    pck_key: EcdsaKeyPair,
    attestation_key: EcdsaKeyPair,
}

impl Intel {
    pub(crate) fn new(setup: Setup) -> Self {
        let root = authority("Synthetic SGX Root CA", Serial::Root, None);
        let pck_ca = authority("Synthetic SGX PCK Platform CA", Serial::PckCa, Some(&root));
        let (key, tcb_key) = key();
        let mut parameters = parameters("Synthetic SGX TCB Signing", Serial::TcbSigner, CERTIFICATES);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let tcb_signer = parameters.signed_by(&key, &root.issuer).expect("issued");
        let (key, pck_key) = self::key();
        let mut parameters = self::parameters("Synthetic SGX PCK Certificate", Serial::Pck, setup.pck);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.custom_extensions = vec![platform(setup.cpu_svn)];
        let by = if setup.pck_by_root { &root.issuer } else { &pck_ca.issuer };
        let pck = parameters.signed_by(&key, by).expect("issued");
        let (_, attestation_key) = self::key();
        Self { setup, root, pck_ca, tcb_signer, tcb_key, pck, pck_key, attestation_key }
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.root.certificate.der().to_vec()
    }

    /// What a service of Intel's would give, as JSON.
    pub(crate) fn collateral(&self) -> Vec<u8> {
        let Setup { older_level, older_module, quoting_enclave, collateral, tcb_fmspc, .. } = self.setup;
        let zeros = |bytes: usize| "00".repeat(bytes);
        let [issued, next] = [collateral.0, collateral.1].map(date);
        let level = |svn: u8, status: &str, advisories: Value| {
            let components = vec![json!({ "svn": svn }); 16];
            json!({
                "tcb": { "sgxtcbcomponents": components, "pcesvn": 13, "tdxtcbcomponents": components },
                "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories
            })
        };
        let module_level = |svn: u8, status: &str| json!({ "tcb": { "isvsvn": svn }, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status });
        let tcb_info = json!({
            "id": self.setup.id, "version": 3, "issueDate": issued, "nextUpdate": next,
            "fmspc": tcb_fmspc, "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 18,
            "tdxModule": { "mrsigner": zeros(48), "attributes": zeros(8), "attributesMask": "FF".repeat(8) },
            "tdxModuleIdentities": [{
                "id": "TDX_01", "mrsigner": zeros(48), "attributes": zeros(8), "attributesMask": "FF".repeat(8),
                "tcbLevels": [module_level(5, "UpToDate"), module_level(3, older_module)]
            }],
            "tcbLevels": [level(5, "UpToDate", json!([])), level(3, older_level, json!(["INTEL-SA-09999"]))]
        });
        let qe_identity = json!({
            "id": "TD_QE", "version": 2, "issueDate": issued, "nextUpdate": next, "tcbEvaluationDataNumber": 18,
            "miscselect": zeros(4), "miscselectMask": "FF".repeat(4),
            "attributes": "11".to_owned() + &zeros(15), "attributesMask": "FB".to_owned() + &"FF".repeat(7) + &zeros(8),
            "mrsigner": "77".repeat(32), "isvprodid": 2,
            "tcbLevels": [{ "tcb": { "isvsvn": 4 }, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": quoting_enclave }]
        });
        let [tcb_info, qe_identity] = [tcb_info, qe_identity].map(|value| value.to_string());
        let signed = |text: &str| hex::encode(sign(&self.tcb_key, text.as_bytes()));
        let signer = self.tcb_signer.pem() + &self.root.certificate.pem();
        let collateral = json!({
            "pck_crl_issuer_chain": self.pck_ca.certificate.pem() + &self.root.certificate.pem(),
            "root_ca_crl": hex::encode(self.crl(&self.root, 1)),
            "pck_crl": hex::encode(self.crl(&self.pck_ca, 2)),
            "tcb_info_issuer_chain": signer, "tcb_info": tcb_info, "tcb_info_signature": signed(&tcb_info),
            "qe_identity_issuer_chain": signer, "qe_identity": qe_identity,
            "qe_identity_signature": signed(&qe_identity),
        });
        collateral.to_string().into_bytes()
    }

    /// With the revoked certificate on both lists: each list counts for its issuer's certificates only.
    fn crl(&self, by: &Authority, number: u64) -> Vec<u8> {
        let revoked = self.setup.revoked.map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial as u64),
            revocation_time: day(-2),
            reason_code: None,
            invalidity_date: None,
        });
        let parameters = CertificateRevocationListParams {
            this_update: day(self.setup.crls.0),
            next_update: day(self.setup.crls.1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        parameters.signed_by(&by.issuer).expect("a list").der().to_vec()
    }

    /// A quote of version 5 of a TD report 1.5, with this change of the body made before it is signed.
    pub(crate) fn quote(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut body = vec![0; 648];
        for at in [0, PRESENT_TCB] {
            body[at..at + 16].fill(5);
            // The module's version: TDX_01.
            body[at + 1] = 1;
        }
        body[SEAM].fill(0x5e);
        // SEPT_VE_DISABLE.
        body[ATTRIBUTES][3] = 1 << 4;
        body[MRTD].fill(0x7d);
        body[CONFIG_ID].fill(0xc1);
        for register in 0..4 {
            body[RTMR0 + 48 * register..][..48].fill(0xa0 + register as u8);
        }
        body[REPORT_DATA].fill(0xda);
        change(&mut body);
        self.quote_of(3, &body)
    }

    /// A quote of a body of this type.
    pub(crate) fn quote_of(&self, kind: u16, body: &[u8]) -> Vec<u8> {
        let mut quote = Vec::new();
        quote.extend(5u16.to_le_bytes());
        quote.extend(2u16.to_le_bytes());
        quote.extend(0x81u32.to_le_bytes());
        quote.extend([0; 4]);
        quote.extend(hex::decode("939a7233f79c4ca9940a0db3957f0607").expect("the vendor's id"));
        quote.extend([0x1d; 20]);
        quote.extend(kind.to_le_bytes());
        quote.extend((body.len() as u32).to_le_bytes());
        quote.extend(body);

        let public = &self.attestation_key.public_key().as_ref()[1..];
        let auth_data = [0xad; 32];
        let mut report = vec![0; 384];
        report[48] = 0x11;
        report[128..160].fill(self.setup.qe_mrsigner);
        report[256] = 2;
        report[258] = 4;
        let bound = digest(&SHA256, &[public, &auth_data].concat());
        report[320..352].copy_from_slice(bound.as_ref());

        let chain = self.pck.pem() + &self.pck_ca.certificate.pem() + &self.root.certificate.pem();
        let sized = |kind: u16, bytes: &[u8]| {
            [&kind.to_le_bytes(), &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
        };
        let certification = [
            &report[..],
            &sign(&self.pck_key, &report),
            &(auth_data.len() as u16).to_le_bytes(),
            &auth_data,
            &sized(5, chain.as_bytes()),
        ]
        .concat();
        let signature =
            [&sign(&self.attestation_key, &quote)[..], public, &sized(6, &certification)].concat();
        quote.extend((signature.len() as u32).to_le_bytes());
        quote.extend(signature);
        quote
    }
}

fn authority(name: &str, serial: Serial, by: Option<&Authority>) -> Authority {
    let mut parameters = parameters(name, serial, CERTIFICATES);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (key, _) = key();
    let certificate = match by {
        Some(by) => parameters.signed_by(&key, &by.issuer),
        None => parameters.self_signed(&key),
    };
    Authority { certificate: certificate.expect("issued"), issuer: Issuer::new(parameters, key) }
}

fn parameters(name: &str, serial: Serial, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.remove(DnType::CommonName);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.serial_number = Some(SerialNumber::from(serial as u64));
    (parameters.not_before, parameters.not_after) = (day(validity.0), day(validity.1));
    parameters
}

/// What a platform's certificate says about it: synthetic values in Intel's form.
fn platform(cpu_svn: u8) -> CustomExtension {
    const SGX: &str = "1.2.840.113741.1.13.1";
    let entry = |suffix: &str, value: &[u8]| seq(&[&oid(&format!("{SGX}.{suffix}")), value]);
    let tcb = seq(&[&entry("2.17", &tlv(2, &[13])), &entry("2.18", &tlv(4, &[cpu_svn; 16]))]);
    let flag = |on: bool| tlv(1, &[if on { 0xff } else { 0 }]);
    let configuration =
        seq(&[&entry("7.1", &flag(false)), &entry("7.2", &flag(true)), &entry("7.3", &flag(true))]);
    let content = seq(&[
        &entry("1", &tlv(4, &[0x99; 16])),
        &entry("2", &tcb),
        &entry("3", &tlv(4, &[0, 0])),
        &entry("4", &tlv(4, &[0x00, 0x90, 0x6e, 0xd5, 0, 0])),
        &entry("5", &tlv(10, &[1])),
        &entry("7", &configuration),
    ]);
    CustomExtension::from_oid_content(&[1, 2, 840, 113741, 1, 13, 1], content)
}

/// One key in two forms: to issue with, and to sign bytes with.
fn key() -> (KeyPair, EcdsaKeyPair) {
    let issuing = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let signing =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &issuing.serialize_der()).expect("a key");
    (issuing, signing)
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec()
}

fn day(days: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW as i64).expect("a date") + Duration::seconds(days * DAY)
}

fn date(days: i64) -> String {
    let (date, time) = (day(days).date(), day(days).time());
    format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
}
