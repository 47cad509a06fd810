//! Certificates and revocation lists, as far as attestation needs them. Signatures are checked over the bytes as they came.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{BitStringRef, ObjectIdentifier, SequenceRef};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierRef;
use x509_cert::time::Time;

use crate::error::AttestError;
use crate::evidence::MAX_COLLATERAL_BYTES;

/// RSASSA-PSS.
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// RSA keys.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a signature is over, as the bytes came, and the signature.
struct Signed {
    body: Vec<u8>,
    algorithm: ObjectIdentifier,
    signature: Vec<u8>,
}

impl Signed {
    fn parse(der: &[u8]) -> x509_cert::der::Result<Self> {
        let mut reader = SliceReader::new(<&SequenceRef>::from_der(der)?.as_bytes())?;
        let body = reader.tlv_bytes()?.to_vec();
        let algorithm = AlgorithmIdentifierRef::decode(&mut reader)?.oid;
        let signature = BitStringRef::decode(&mut reader)?;
        let signature = signature.as_bytes().ok_or(x509_cert::der::ErrorKind::Failed)?.to_vec();
        reader.finish()?;
        Ok(Self { body, algorithm, signature })
    }

    /// RSA-PSS with SHA-384 is the only algorithm: what AMD signs certificates and lists with.
    fn verify(&self, issuer: &Certificate) -> Result<(), String> {
        if self.algorithm != RSA_PSS {
            return Err(format!("a signature of algorithm {}", self.algorithm));
        }
        if !issuer.has_rsa_key() {
            return Err("an issuer without an RSA key".to_owned());
        }
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, issuer.public_key());
        key.verify(&self.body, &self.signature).map_err(|_| "a signature that is not the issuer's".to_owned())
    }
}

/// A certificate.
pub(crate) struct Certificate {
    parsed: CertificateInner<Raw>,
    signed: Signed,
}

/// Its subject.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.name()).finish()
    }
}

impl Certificate {
    /// Reads DER.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, AttestError> {
        let parsed = CertificateInner::from_der(der).and_then(|parsed| Ok((parsed, Signed::parse(der)?)));
        let (parsed, signed) = parsed.map_err(|e| AttestError::malformed("certificate", e))?;
        if parsed.signature_algorithm() != parsed.tbs_certificate().signature() {
            return Err(AttestError::malformed("certificate", "it names two signature algorithms"));
        }
        Ok(Self { parsed, signed })
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &SerialNumber<Raw> {
        self.parsed.tbs_certificate().serial_number()
    }

    /// The subject's common name, or the whole subject.
    pub(crate) fn name(&self) -> String {
        common_name(self.subject())
    }

    /// The SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, AttestError> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        spki.to_der().map_err(|e| AttestError::malformed("certificate", e))
    }

    /// The bits of the public key.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    pub(crate) fn has_rsa_key(&self) -> bool {
        self.parsed.tbs_certificate().subject_public_key_info().algorithm.oid == RSA
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.parsed.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    /// The value of an extension, which may be there once.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, AttestError> {
        let mut found = self.extensions().iter().filter(|extension| extension.extn_id == oid);
        let first = found.next();
        if found.next().is_some() {
            return Err(AttestError::malformed("certificate", format!("extension {oid} is there twice")));
        }
        Ok(first.map(|extension| extension.extn_value.as_bytes()))
    }

    /// Whether it may issue certificates.
    pub(crate) fn is_authority(&self) -> Result<bool, AttestError> {
        let Some(value) = self.extension(BasicConstraints::OID)? else { return Ok(false) };
        BasicConstraints::from_der(value)
            .map(|constraints| constraints.ca)
            .map_err(|e| AttestError::malformed("certificate", e))
    }

    /// Whether this time is in its validity.
    pub(crate) fn check_time(&self, at: SystemTime) -> Result<(), String> {
        let validity = self.parsed.tbs_certificate().validity();
        check_window(at, &validity.not_before, Some(&validity.not_after))
    }

    /// How long it is valid in all.
    pub(crate) fn lifetime(&self) -> Duration {
        let validity = self.parsed.tbs_certificate().validity();
        validity.not_after.to_unix_duration().saturating_sub(validity.not_before.to_unix_duration())
    }

    /// Whether it is signed by its own key, with an algorithm that TLS has.
    pub(crate) fn check_self_signed(&self) -> Result<(), String> {
        let (Ok(key), Ok(signature)) = (self.algorithm_of_key(), self.parsed.signature_algorithm().to_der())
        else {
            return Err("an algorithm that does not encode".to_owned());
        };
        let known = webpki::ALL_VERIFICATION_ALGS.iter().find(|known| {
            has_content(&key, known.public_key_alg_id().as_ref())
                && has_content(&signature, known.signature_alg_id().as_ref())
        });
        let known = known.ok_or_else(|| format!("a signature of algorithm {}", self.signed.algorithm))?;
        known
            .verify_signature(self.public_key(), &self.signed.body, &self.signed.signature)
            .map_err(|_| "a signature that is not its own key's".to_owned())
    }

    fn algorithm_of_key(&self) -> x509_cert::der::Result<Vec<u8>> {
        self.parsed.tbs_certificate().subject_public_key_info().algorithm.to_der()
    }

    /// Whether it names this issuer and has its signature.
    pub(crate) fn check_issuer(&self, issuer: &Certificate) -> Result<(), String> {
        if self.issuer() != issuer.subject() {
            return Err(format!("issuer {}", common_name(self.issuer())));
        }
        self.signed.verify(issuer)
    }
}

/// A certificate revocation list.
pub(crate) struct RevocationList {
    parsed: CertificateList<Raw>,
    signed: Signed,
}

impl RevocationList {
    /// Reads DER.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, AttestError> {
        let parsed = CertificateList::from_der(der).and_then(|parsed| Ok((parsed, Signed::parse(der)?)));
        let (parsed, signed) = parsed.map_err(|e| {
            AttestError::malformed("revocation list", format!("expected one in DER or PEM; {e}"))
        })?;
        let critical =
            parsed.tbs_cert_list.crl_extensions.iter().flatten().find(|extension| extension.critical);
        if let Some(extension) = critical {
            // It could say that the list is not of everything.
            let problem = format!("critical extension {}, which is not understood", extension.extn_id);
            return Err(AttestError::malformed("revocation list", problem));
        }
        Ok(Self { parsed, signed })
    }

    pub(crate) fn issuer(&self) -> &Name {
        &self.parsed.tbs_cert_list.issuer
    }

    /// Whether it is current, and its issuer's.
    pub(crate) fn check(&self, issuer: &Certificate, at: SystemTime) -> Result<(), String> {
        let list = &self.parsed.tbs_cert_list;
        check_window(at, &list.this_update, list.next_update.as_ref())?;
        if list.next_update.is_none() {
            return Err("a list without a next update".to_owned());
        }
        self.signed.verify(issuer)
    }

    /// Whether it has this serial number.
    pub(crate) fn revokes(&self, serial: &SerialNumber<Raw>) -> bool {
        self.parsed
            .tbs_cert_list
            .revoked_certificates
            .iter()
            .flatten()
            .any(|entry| entry.serial_number == *serial)
    }
}

/// Certificates in a file: one in DER, or any number in PEM.
///
/// # Errors
/// If there is none, or one that is malformed.
pub fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, AttestError> {
    let list = der_or_pem(bytes, "certificate file", CertificateDer::pem_slice_iter(bytes))?;
    list.iter().try_for_each(|der| Certificate::parse(der).map(|_| ()))?;
    Ok(list)
}

/// Certificate revocation lists in a file: one in DER, or any number in PEM.
///
/// # Errors
/// If there is none, or one that is malformed.
pub fn revocation_lists(bytes: &[u8]) -> Result<Vec<Vec<u8>>, AttestError> {
    let list =
        der_or_pem(bytes, "revocation list file", CertificateRevocationListDer::pem_slice_iter(bytes))?;
    list.iter().try_for_each(|der| RevocationList::parse(der).map(|_| ()))?;
    Ok(list)
}

fn der_or_pem<T: AsRef<[u8]>, E: fmt::Display>(
    bytes: &[u8],
    what: &'static str,
    pem: impl Iterator<Item = Result<T, E>>,
) -> Result<Vec<Vec<u8>>, AttestError> {
    if bytes.len() > MAX_COLLATERAL_BYTES {
        return Err(AttestError::malformed(what, format!("it has more than {MAX_COLLATERAL_BYTES} bytes")));
    }
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.to_vec()]);
    }
    let list: Result<Vec<_>, _> = pem.map(|der| der.map(|der| der.as_ref().to_vec())).collect();
    let list = list.map_err(|e| AttestError::malformed(what, e))?;
    if list.is_empty() {
        return Err(AttestError::malformed(what, "expected DER or PEM, found neither"));
    }
    Ok(list)
}

pub(crate) fn common_name(name: &Name) -> String {
    let attribute = name.iter().find(|attribute| attribute.oid == COMMON_NAME);
    let text = attribute.and_then(|attribute| std::str::from_utf8(attribute.value.value()).ok());
    let text = text.map_or_else(|| name.to_string(), str::to_owned);
    text.chars().take(64).filter(|c| !c.is_control()).collect()
}

/// Whether a SEQUENCE of algorithm and parameters has this content: the tables of TLS have it without the header. Some writers
/// of certificates add a NULL where there should be no parameters.
fn has_content(sequence: &[u8], content: &[u8]) -> bool {
    const NULL: &[u8] = &[5, 0];
    <&SequenceRef>::from_der(sequence).is_ok_and(|sequence| {
        let found = sequence.as_bytes();
        found == content || found.strip_suffix(NULL) == Some(content)
    })
}

fn check_window(at: SystemTime, from: &Time, to: Option<&Time>) -> Result<(), String> {
    let instant = |time: &Time| UNIX_EPOCH + time.to_unix_duration();
    if at < instant(from) {
        return Err(format!("not valid before {from}"));
    }
    match to.filter(|to| at > instant(to)) {
        Some(to) => Err(format!("expired {to}")),
        None => Ok(()),
    }
}
