//! TLS whose certificates carry evidence: "Interoperable RA-TLS" of the Confidential Computing Consortium.
//!
//! A certificate is self-signed by a key of its own. Its extension 2.23.133.5.4.9 (not critical) holds CBOR,
//! `tag([evidence, claims buffer])`; the claims buffer has the hash of the key ([`crate::binding`]), the evidence has the
//! hash of the buffer, and the handshake proves that the peer holds the key.
//!
//! | tag | evidence | defined by |
//! |---|---|---|
//! | 60000 | quote of SGX or TDX | IANA, Interoperable RA-TLS |
//! | 0x1a7504 | report of SEV-SNP | librats, not registered; certificates for it are in extension 2.23.133.5.4.2 |
//! | 0x505256 | **sample, INSECURE** | here |
//!
//! The specification knows two kinds of freshness: a nonce that the verifier gave the attester before, in the claims buffer;
//! or none but the certificate's validity, which the attested key signs, so that a verifier can ask for a short one.

mod certificate;
mod tls;

pub use certificate::{AttestedIdentity, EVIDENCE_OID, RaTlsCertificate};
pub use tls::{Attested, Authenticator, Freshness, client_config, server_config};
