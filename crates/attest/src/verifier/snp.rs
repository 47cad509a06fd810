//! Reports of AMD SEV-SNP: "SEV Secure Nested Paging Firmware ABI Specification" (56860), and "VCEK Certificate and KDS
//! Interface Specification" (57230).
//!
//! The signature is checked over the bytes 0..0x2A0 as they came, and everything after it has to be zero. What signs is a key of
//! the chip (VCEK, under an ASK) or of a cloud provider (VLEK, under an ASVK), whose certificate has to be issued by a pinned
//! root, valid at the time, not revoked, and of exactly the versions (and for a VCEK the chip) that the report states.

mod report;

use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};

use super::Verifier;
use crate::claims::{Claims, Identity, Platform, SnpIdentity};
use crate::clock::time_text;
use crate::error::AttestError;
use crate::evidence::{Collateral, Evidence, Tee};
use crate::verdict::Line;
use crate::x509::{Certificate, RevocationList, common_name};
use report::{Layout, Report, SigningKey};

const OID_PREFIX: &str = "1.3.6.1.4.1.3704.1";

/// A root that chains of certificates may end in.
#[derive(Debug, Clone)]
pub struct SnpRoot {
    /// Family of processors: `Milan`, `Genoa`, `Turin`.
    pub product: String,
    /// Certificate of the root (ARK) in DER.
    pub ark: Vec<u8>,
    /// Certificates of intermediates that need not come with evidence, in DER.
    pub intermediates: Vec<Vec<u8>>,
}

impl SnpRoot {
    /// AMD's roots.
    pub fn amd() -> Vec<Self> {
        let root = |product: &str, ark: &[u8], ask: &[u8]| Self {
            product: product.to_owned(),
            ark: ark.to_vec(),
            intermediates: vec![ask.to_vec()],
        };
        vec![
            root(
                "Milan",
                include_bytes!("../../roots/ark-milan.der"),
                include_bytes!("../../roots/ask-milan.der"),
            ),
            root(
                "Genoa",
                include_bytes!("../../roots/ark-genoa.der"),
                include_bytes!("../../roots/ask-genoa.der"),
            ),
            root(
                "Turin",
                include_bytes!("../../roots/ark-turin.der"),
                include_bytes!("../../roots/ask-turin.der"),
            ),
        ]
    }
}

/// Verifies reports of SEV-SNP.
#[derive(Debug)]
pub struct SnpVerifier {
    roots: Vec<SnpRoot>,
    collateral: Collateral,
}

impl SnpVerifier {
    /// With AMD's roots, and certificates and revocation lists in addition to those that come with evidence.
    pub fn new(collateral: Collateral) -> Self {
        Self::with_roots(SnpRoot::amd(), collateral)
    }

    /// With other roots: for tests.
    pub fn with_roots(roots: Vec<SnpRoot>, collateral: Collateral) -> Self {
        Self { roots, collateral }
    }
}

impl Verifier for SnpVerifier {
    fn verify(&self, evidence: &Evidence, at: SystemTime) -> Result<Claims, AttestError> {
        if evidence.tee() != Tee::Snp {
            return Err(AttestError::no_verifier(evidence.tee()));
        }
        let report = Report::parse(evidence.body())?;
        let chain = Chain::find(self, evidence.collateral(), report.signing_key)?;
        chain.check(at)?;
        let revocation_checked = self.check_revocation(&chain, evidence.collateral(), at)?;
        check_signature(&report, &chain.leaf)?;

        let layout = if chain.product == "Turin" { Layout::Turin } else { Layout::Milan };
        report.check_processor(&chain.product)?;
        let extensions = Extensions { certificate: &chain.leaf };
        extensions.check_tcb(&report, layout)?;
        extensions.check_product(&chain.product)?;
        let (signing_key, provider) = match report.signing_key {
            SigningKey::Vcek => {
                extensions.check_chip(&report, layout)?;
                ("VCEK", None)
            }
            SigningKey::Vlek => ("VLEK", Some(extensions.provider()?)),
        };
        let identity = SnpIdentity {
            measurement: report.field(0x90),
            host_data: report.field(0xC0),
            id_key_digest: report.field(0xE0),
            author_key_digest: report.field(0x110),
            guest_svn: report.guest_svn(),
            vmpl: report.vmpl(),
            policy: report.policy(),
            reported_tcb: report.tcb(0x180, layout),
            committed_tcb: report.tcb(0x1E0, layout),
            launch_tcb: report.tcb(0x1F0, layout),
            product: chain.product.clone(),
            signing_key: signing_key.to_owned(),
            provider,
            chip_id: report.field(0x1A0),
            revocation_checked,
        };
        Ok(Claims {
            tee: Tee::Snp,
            report_data: report.field(0x50),
            debug: report.debug(),
            tcb_status: None,
            advisories: Vec::new(),
            platform: Platform { smt: Some(report.smt()), ..Platform::default() },
            checks: checks(&report, &chain, &identity, at),
            identity: Identity::Snp(Box::new(identity)),
        })
    }
}

impl SnpVerifier {
    /// Whether the root's list was at hand. Each list has to be current and of one of the chain's authorities.
    fn check_revocation(
        &self,
        chain: &Chain,
        also: &Collateral,
        at: SystemTime,
    ) -> Result<bool, AttestError> {
        const CHECK: &str = "revocation list";
        let mut by_root = false;
        for der in self.collateral.crls.iter().chain(&also.crls) {
            let list = RevocationList::parse(der)?;
            let authorities = [(&chain.root, &chain.intermediate), (&chain.intermediate, &chain.leaf)];
            let authority = authorities.into_iter().find(|(issuer, _)| issuer.subject() == list.issuer());
            let (issuer, subject) = authority.ok_or_else(|| {
                let expected = format!("one of {} or {}", chain.root.name(), chain.intermediate.name());
                AttestError::refused(CHECK, expected, format!("one of {}", common_name(list.issuer())))
            })?;
            list.check(issuer, at).map_err(|found| {
                let expected = format!("one signed by {} and current at {}", issuer.name(), time_text(at));
                AttestError::refused(CHECK, expected, found)
            })?;
            if list.revokes(subject.serial()) {
                let expected = format!("certificates that {} has not revoked", issuer.name());
                return Err(AttestError::refused(CHECK, expected, format!("{} is revoked", subject.name())));
            }
            by_root |= std::ptr::eq(issuer, &chain.root);
        }
        Ok(by_root)
    }
}

/// The key that signed a report, up to the root.
struct Chain {
    product: String,
    root: Certificate,
    intermediate: Certificate,
    leaf: Certificate,
}

impl Chain {
    /// Looks for the chain by names; nothing is verified yet.
    fn find(verifier: &SnpVerifier, also: &Collateral, key: SigningKey) -> Result<Self, AttestError> {
        let supplied = verifier.collateral.certificates.iter().chain(&also.certificates);
        let mut supplied = supplied.map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>()?;
        let is_leaf = |certificate: &Certificate| certificate.name() == key.subject();
        let missing = |what: &'static str, subject: &str| AttestError::Missing {
            what,
            advice: format!(
                "supply that of {subject}: --cert FILE (docs/attestation.md#collateral says where to get it)"
            ),
        };
        let at = supplied
            .iter()
            .position(is_leaf)
            .ok_or_else(|| missing("the certificate of the signing key", key.subject()))?;
        let leaf = supplied.swap_remove(at);
        // The same certificate may come twice; which of two is right is not for us to guess.
        if supplied.iter().any(|other| is_leaf(other) && other.public_key() != leaf.public_key()) {
            let expected = format!("one certificate of {}", key.subject());
            return Err(AttestError::refused("certificates", expected, "several with different keys"));
        }
        for root in &verifier.roots {
            for der in &root.intermediates {
                supplied.push(Certificate::parse(der)?);
            }
        }
        let intermediate = supplied.into_iter().find(|certificate| certificate.subject() == leaf.issuer());
        let intermediate = intermediate
            .ok_or_else(|| missing("the intermediate certificate", &common_name(leaf.issuer())))?;
        for pinned in &verifier.roots {
            let root = Certificate::parse(&pinned.ark)?;
            if root.subject() == intermediate.issuer() {
                return Ok(Self { product: pinned.product.clone(), root, intermediate, leaf });
            }
        }
        let known: Vec<&str> = verifier.roots.iter().map(|root| root.product.as_str()).collect();
        let expected = format!("a root of {}", known.join(", "));
        Err(AttestError::refused("certificate chain", expected, common_name(intermediate.issuer())))
    }

    fn check(&self, at: SystemTime) -> Result<(), AttestError> {
        let Self { product: _, root, intermediate, leaf } = self;
        for (subject, issuer) in [(intermediate, root), (leaf, intermediate)] {
            subject.check_issuer(issuer).map_err(|found| {
                let expected = format!("{} signed by {}", subject.name(), issuer.name());
                AttestError::refused("certificate chain", expected, found)
            })?;
        }
        for certificate in [root, intermediate, leaf] {
            certificate.check_time(at).map_err(|found| {
                let expected = format!("{} valid at {}", certificate.name(), time_text(at));
                AttestError::refused("certificate validity", expected, found)
            })?;
        }
        if !intermediate.is_authority()? {
            let found = format!("{}, which is none", intermediate.name());
            return Err(AttestError::refused("certificate chain", "a certificate authority", found));
        }
        Ok(())
    }
}

fn check_signature(report: &Report, leaf: &Certificate) -> Result<(), AttestError> {
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, leaf.public_key());
    key.verify(report.signed(), &report.signature()?).map_err(|_| {
        let expected = format!("one of {} over bytes 0 to 0x2A0", leaf.name());
        AttestError::refused("report signature", expected, "one that does not verify")
    })
}

/// What AMD writes into the certificates of signing keys.
struct Extensions<'a> {
    certificate: &'a Certificate,
}

impl<'a> Extensions<'a> {
    fn check_tcb(&self, report: &Report, layout: Layout) -> Result<(), AttestError> {
        let tcb = report.tcb(0x180, layout);
        let mut expected = vec![
            ("bootloader", "3.1", tcb.bootloader),
            ("tee", "3.2", tcb.tee),
            ("snp", "3.3", tcb.snp),
            ("microcode", "3.8", tcb.microcode),
        ];
        if layout == Layout::Turin {
            expected.push(("fmc", "3.9", tcb.fmc));
        }
        for (name, oid, reported) in expected {
            let value = self.required(oid)?;
            let certified = u8::from_der(value)
                .map_err(|e| AttestError::malformed("certificate", format!("its version of {name}: {e}")))?;
            if certified != reported {
                let expected = format!("{name} {reported}, as in the report");
                return Err(AttestError::refused(
                    "TCB of the certificate",
                    expected,
                    format!("{name} {certified}"),
                ));
            }
        }
        Ok(())
    }

    fn check_chip(&self, report: &Report, layout: Layout) -> Result<(), AttestError> {
        let chip: [u8; 64] = report.field(0x1A0);
        let length = match layout {
            Layout::Milan => 64,
            Layout::Turin => 8,
        };
        let (expected, rest) = chip.split_at(length);
        let value = self.required("4")?;
        // Older certificates have the bytes themselves in the extension, newer ones an OCTET STRING of them.
        let found = if value.len() == length {
            value
        } else {
            <&OctetStringRef>::from_der(value)
                .map_err(|e| AttestError::malformed("certificate", format!("its chip id: {e}")))?
                .as_bytes()
        };
        if found != expected || rest.iter().any(|&byte| byte != 0) {
            let masked = if chip == [0; 64] { " (the host hides it)" } else { "" };
            let expected = format!("{}{masked}, as in the report", hex::encode(chip));
            return Err(AttestError::refused("chip of the certificate", expected, hex::encode(found)));
        }
        Ok(())
    }

    /// The product's name, which has a stepping after it in VCEKs.
    fn check_product(&self, product: &str) -> Result<(), AttestError> {
        let found = self.text("2")?;
        if found.split('-').next() != Some(product) {
            return Err(AttestError::refused("product of the certificate", product, found));
        }
        Ok(())
    }

    fn provider(&self) -> Result<String, AttestError> {
        self.text("5")
    }

    fn text(&self, oid: &str) -> Result<String, AttestError> {
        let text = Ia5StringRef::from_der(self.required(oid)?).map_err(|e| {
            AttestError::malformed("certificate", format!("its text {OID_PREFIX}.{oid}: {e}"))
        })?;
        Ok(text.as_str().chars().take(128).filter(|c| !c.is_control()).collect())
    }

    fn required(&self, oid: &str) -> Result<&'a [u8], AttestError> {
        let oid = format!("{OID_PREFIX}.{oid}");
        let parsed = ObjectIdentifier::new(&oid).expect("a constant");
        self.certificate.extension(parsed)?.ok_or_else(|| {
            AttestError::refused("certificate of the signing key", format!("the extension {oid}"), "none")
        })
    }
}

fn checks(report: &Report, chain: &Chain, identity: &SnpIdentity, at: SystemTime) -> Vec<Line> {
    let Chain { product, root, intermediate, leaf } = chain;
    let path = format!("{} -> {} -> {}", leaf.name(), intermediate.name(), root.name());
    let when = time_text(at);
    let mut checks = vec![
        Line::new(
            "report",
            "version 2 to 5, signed with ECDSA P-384",
            format!("version {}", report.version()),
            true,
        ),
        Line::new("certificate chain", format!("up to AMD's root of {product}"), path, true),
        Line::new("certificate validity", format!("valid at {when}"), "all three are", true),
        Line::new("report signature", format!("of {}", leaf.name()), "valid", true),
        Line::new("TCB of the certificate", "as in the report", identity.reported_tcb.to_string(), true),
    ];
    checks.push(match &identity.provider {
        None => Line::new("chip of the certificate", "as in the report", "the same", true),
        Some(provider) => Line::new("provider of the certificate", "any", provider, true),
    });
    let revocation =
        if identity.revocation_checked { "not revoked" } else { "not checked: no list of the root supplied" };
    checks.push(Line::new("revocation list", "current, if there is one", revocation, true));
    checks
}
