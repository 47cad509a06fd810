//! Certificates that carry evidence: making them, and taking them apart.

use std::fmt;
use std::time::{Duration, SystemTime};

use ciborium::Value;
use rcgen::{CustomExtension, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_cert::der::asn1::ObjectIdentifier;
use zeroize::Zeroize;

use crate::attester::Attester;
use crate::binding::{Binding, cbor, report_data, to_cbor};
use crate::clock::time_text;
use crate::error::AttestError;
use crate::evidence::{Collateral, Evidence, MAX_CERTIFICATES, MAX_EVIDENCE_BYTES, Tee};
use crate::x509::Certificate;

/// The extension of evidence, `tcg-dice-conceptual-message-wrapper`.
pub const EVIDENCE_OID: &str = "2.23.133.5.4.9";
const EVIDENCE_PATH: &[u64] = &[2, 23, 133, 5, 4, 9];
/// The extension of endorsements, `tcg-dice-endorsement-manifest`.
const ENDORSEMENT_OID: &str = "2.23.133.5.4.2";
const ENDORSEMENT_PATH: &[u64] = &[2, 23, 133, 5, 4, 2];

const TAG_TEE_QUOTE: u64 = 60000;
const TAG_TEE_REPORT: u64 = 60001;
const TAG_SGX_REPORT: u64 = 60002;
const TAG_SNP: u64 = 0x1a_7504;
const TAG_SAMPLE_INSECURE: u64 = 0x50_5256;

/// Clocks of peers may be this much behind ours.
const BACKDATED: Duration = Duration::from_secs(300);

/// A certificate with evidence, taken apart; nothing is verified yet but that its parts are well-formed.
#[derive(Debug)]
pub struct RaTlsCertificate {
    certificate: Certificate,
    evidence: Evidence,
    claims_buffer: Vec<u8>,
    binding: Binding,
}

impl RaTlsCertificate {
    /// Takes a certificate in DER apart.
    ///
    /// # Errors
    /// If it is malformed, has no evidence, or evidence of a form that is not supported.
    pub fn parse(der: &[u8]) -> Result<Self, AttestError> {
        if der.len() > 2 * MAX_EVIDENCE_BYTES {
            return Err(AttestError::malformed("certificate", format!("{} bytes are too many", der.len())));
        }
        let certificate = Certificate::parse(der)?;
        let extension = |oid: &str| certificate.extension(ObjectIdentifier::new(oid).expect("a constant"));
        let value = extension(EVIDENCE_OID)?.ok_or_else(|| {
            let found = "none: its owner does not attest";
            AttestError::refused("certificate", format!("evidence in the extension {EVIDENCE_OID}"), found)
        })?;
        let (tag, [body, claims_buffer]) = tagged_pair("evidence in a certificate", value)?;
        let (Value::Bytes(body), Value::Bytes(claims_buffer)) = (body, claims_buffer) else {
            return Err(AttestError::malformed("evidence in a certificate", "expected two byte strings"));
        };
        let evidence = match tag {
            TAG_TEE_QUOTE => {
                Evidence::detect_bare(&body).filter(|e| matches!(e.tee(), Tee::Sgx | Tee::Tdx)).ok_or_else(
                    || AttestError::malformed("evidence in a certificate", "its quote is none of SGX or TDX"),
                )?
            }
            TAG_SNP => Evidence::new(Tee::Snp, body)?,
            TAG_SAMPLE_INSECURE => Evidence::new(Tee::Sample, body)?,
            TAG_TEE_REPORT | TAG_SGX_REPORT => {
                let found = format!("tag {tag}, a report for the same machine only");
                return Err(AttestError::refused("evidence in a certificate", "a quote", found));
            }
            _ => {
                return Err(AttestError::malformed(
                    "evidence in a certificate",
                    format!("unknown tag {tag}"),
                ));
            }
        };
        let evidence = match extension(ENDORSEMENT_OID)? {
            // Those of SGX and TDX have a form of their own; whoever verifies has collateral anyway.
            Some(value) if tag == TAG_SNP => evidence.with_collateral(endorsements(value)?)?,
            _ => evidence,
        };
        let binding = Binding::decode(&claims_buffer)?;
        Ok(Self { certificate, evidence, claims_buffer, binding })
    }

    /// The evidence, not verified.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What the evidence is said to be bound to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Checks everything but the evidence itself: dates, signature, key.
    ///
    /// # Errors
    /// If the certificate is not valid at this time, not self-signed, or its key is not the one in the claims buffer.
    pub fn check(&self, at: SystemTime) -> Result<(), AttestError> {
        const CHECK: &str = "attested certificate";
        self.certificate.check_time(at).map_err(|found| {
            let expected = format!("one that is valid at {}", time_text(at));
            AttestError::refused(CHECK, expected, found)
        })?;
        self.certificate
            .check_self_signed()
            .map_err(|found| AttestError::refused(CHECK, "one that its own key signed", found))?;
        self.binding.check_key(&self.certificate.spki()?)
    }

    /// Checks that verified report data is that of the claims buffer.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_report_data(&self, found: &[u8; 64]) -> Result<(), AttestError> {
        let expected = report_data(&self.claims_buffer);
        if *found != expected {
            return Err(AttestError::refused("report data", hex::encode(expected), hex::encode(found)));
        }
        Ok(())
    }

    /// The certificate's public key: DER of its SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// If it does not encode.
    pub fn public_key(&self) -> Result<Vec<u8>, AttestError> {
        self.certificate.spki()
    }

    /// How long the certificate is valid in all.
    pub fn lifetime(&self) -> Duration {
        self.certificate.lifetime()
    }
}

/// A key, and a certificate that proves where it was made. The key never leaves this process.
pub struct AttestedIdentity {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivatePkcs8KeyDer<'static>,
    public_key: Vec<u8>,
}

/// Without the private key.
impl fmt::Debug for AttestedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttestedIdentity")
            .field("certificate", &self.certificate.len())
            .finish_non_exhaustive()
    }
}

impl Drop for AttestedIdentity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl AttestedIdentity {
    /// Makes a P-256 key and a certificate with evidence for it, valid from shortly before `at` for `lifetime`.
    ///
    /// # Errors
    /// If the attester fails, or the nonce is too long.
    pub fn generate(
        attester: &dyn Attester,
        nonce: Option<&[u8]>,
        at: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, AttestError> {
        let tls = |e: rcgen::Error| AttestError::Tls(e.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(tls)?;
        let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
        let binding = Binding::new(&public_key, nonce)?;
        let evidence = attester.evidence(&binding.report_data())?;
        let from = at.checked_sub(BACKDATED).unwrap_or(at);
        let until = at
            .checked_add(lifetime)
            .ok_or_else(|| AttestError::Tls("its lifetime is too long".to_owned()))?;
        let mut params = privet_tls::self_signed("Privet RA-TLS", &[]).map_err(tls)?;
        if evidence.tee() == Tee::Sample {
            params.distinguished_name.push(DnType::OrganizationName, Tee::Sample.name());
        }
        params.not_before = OffsetDateTime::from(from);
        params.not_after = OffsetDateTime::from(until);
        params.custom_extensions = extensions(&evidence, &binding);
        let certificate = params.self_signed(&key).map_err(tls)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            public_key,
        })
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The public key: DER of its SubjectPublicKeyInfo.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

fn extensions(evidence: &Evidence, binding: &Binding) -> Vec<CustomExtension> {
    let tag = match evidence.tee() {
        Tee::Sgx | Tee::Tdx => TAG_TEE_QUOTE,
        Tee::Snp => TAG_SNP,
        Tee::Sample => TAG_SAMPLE_INSECURE,
    };
    let pair = |first, second| to_cbor(&Value::Tag(tag, Box::new(Value::Array(vec![first, second]))));
    let content = pair(Value::Bytes(evidence.body().to_vec()), Value::Bytes(binding.encode()));
    let mut extensions = vec![CustomExtension::from_oid_content(EVIDENCE_PATH, content)];
    if evidence.tee() == Tee::Snp && !evidence.collateral().is_empty() {
        let list = |list: &[Vec<u8>]| Value::Array(list.iter().cloned().map(Value::Bytes).collect());
        let content = pair(list(&evidence.collateral().certificates), list(&evidence.collateral().crls));
        extensions.push(CustomExtension::from_oid_content(ENDORSEMENT_PATH, content));
    }
    extensions
}

fn endorsements(value: &[u8]) -> Result<Collateral, AttestError> {
    const WHAT: &str = "endorsements in a certificate";
    let (tag, [certificates, crls]) = tagged_pair(WHAT, value)?;
    if tag != TAG_SNP {
        return Err(AttestError::malformed(WHAT, format!("expected tag {TAG_SNP}, found {tag}")));
    }
    let list = |value: Value| match value {
        Value::Array(items) if items.len() <= MAX_CERTIFICATES => {
            let items: Option<Vec<_>> = items.into_iter().map(|item| item.into_bytes().ok()).collect();
            items.ok_or_else(|| AttestError::malformed(WHAT, "expected byte strings"))
        }
        _ => Err(AttestError::malformed(WHAT, format!("expected an array of at most {MAX_CERTIFICATES}"))),
    };
    Ok(Collateral { dcap: None, certificates: list(certificates)?, crls: list(crls)? })
}

/// `tag([first, second])`.
fn tagged_pair(what: &'static str, value: &[u8]) -> Result<(u64, [Value; 2]), AttestError> {
    let malformed = || AttestError::malformed(what, "expected a CBOR tag on an array of two");
    let Value::Tag(tag, array) = cbor(what, value)? else { return Err(malformed()) };
    let pair = array.into_array().ok().and_then(|array| <[Value; 2]>::try_from(array).ok());
    Ok((tag, pair.ok_or_else(malformed)?))
}
