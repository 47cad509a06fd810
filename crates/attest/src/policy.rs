//! Which evidence is accepted: a TOML file, or a table in one.
//!
//! ```toml
//! version = 1
//!
//! [sgx]                             # evidence of a kind without a section is refused
//! mrenclave = ["65f0…"]             # or: mrsigner, product_id and minimum_svn
//! [sgx.tcb]
//! statuses = ["UpToDate", "SWHardeningNeeded"]
//! advisories = ["INTEL-SA-00615"]
//!
//! [tdx]
//! mrtd = ["0123…"]
//! rtmr1 = ["4567…"]
//!
//! [snp]
//! measurement = ["89ab…"]
//! minimum_tcb = { bootloader = 4, tee = 0, snp = 22, microcode = 213 }
//! ```
//!
//! `docs/attestation.md` describes every rule. Unknown keys are refused. What weakens a policy has to be written down: its
//! key starts with `allow_`, and ends with `_insecure` where nothing is left. [`Policy::lint`] names what is weak.

mod kind;
mod lint;

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub use crate::claims::SnpTcb;
use crate::claims::TcbStatus;
use crate::error::AttestError;
pub use kind::FileKind;
pub use privet_lint::{Lint, Severity};

/// Version of the format; others are refused.
pub const POLICY_VERSION: u32 = 1;
/// Largest policy file.
pub const MAX_POLICY_BYTES: usize = 1 << 20;

/// A policy whose rules make sense together. It deserialises from the table described above.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Rules")]
pub struct Policy {
    rules: Rules,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// If it is too large, not TOML, has unknown keys, or rules that make no sense together.
    pub fn parse(text: &str) -> Result<Self, AttestError> {
        if text.len() > MAX_POLICY_BYTES {
            let problem = format!("{} bytes, at most {MAX_POLICY_BYTES} are allowed", text.len());
            return Err(AttestError::Policy(problem));
        }
        let described =
            |e| format!("{} (docs/attestation.md#policies describes the form)", toml_problem(text, &e));
        let problem = |e| FileKind::AttestationPolicy.mistaken(text).unwrap_or_else(|| described(e));
        toml::from_str(text).map_err(|e| AttestError::Policy(problem(e)))
    }

    /// A policy of these rules.
    ///
    /// # Errors
    /// If they make no sense together.
    pub fn new(rules: Rules) -> Result<Self, AttestError> {
        rules.check().map_err(AttestError::Policy)?;
        Ok(Self { rules })
    }

    /// What it consists of.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What is weak or surprising about it, worst first.
    pub fn lint(&self) -> Vec<Lint> {
        lint::lint(&self.rules)
    }
}

/// What is wrong with a TOML file, and where. The line itself is not quoted: it may be of a key's file, given by mistake.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.split('\n').count(), before.chars().rev().take_while(|&c| c != '\n').count());
    format!("TOML parse error at line {line}, column {}: {}", column + 1, error.message())
}

impl FromStr for Policy {
    type Err = AttestError;

    fn from_str(text: &str) -> Result<Self, AttestError> {
        Self::parse(text)
    }
}

impl TryFrom<Rules> for Policy {
    type Error = String;

    fn try_from(rules: Rules) -> Result<Self, String> {
        rules.check()?;
        Ok(Self { rules })
    }
}

/// The sections of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// [`POLICY_VERSION`].
    pub version: u32,
    /// Enclaves that are accepted.
    pub sgx: Option<SgxRules>,
    /// Trust domains that are accepted.
    pub tdx: Option<TdxRules>,
    /// Guests that are accepted.
    pub snp: Option<SnpRules>,
    /// Development processes that are accepted.
    pub sample: Option<SampleRules>,
}

/// Enclaves that are accepted: by measurement, by signer, or by both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgxRules {
    /// Measurements, one of which the enclave has.
    pub mrenclave: Vec<Hex<32>>,
    /// Signers, one of whom signed the enclave. Needs the two below.
    pub mrsigner: Vec<Hex<32>>,
    /// Product id of the signer.
    pub product_id: Option<u16>,
    /// Least security version of the product.
    pub minimum_svn: Option<u16>,
    /// Accept enclaves whose memory the host can read.
    pub allow_debug_insecure: bool,
    /// What the platform has to be like.
    pub tcb: TcbRules,
}

/// Trust domains that are accepted. A list that is empty is not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxRules {
    /// Measurements of the firmware, one of which the domain has.
    pub mrtd: Vec<Hex<48>>,
    /// Values of run-time measurement 0, by convention the firmware's configuration.
    pub rtmr0: Vec<Hex<48>>,
    /// Of 1, by convention the kernel.
    pub rtmr1: Vec<Hex<48>>,
    /// Of 2, by convention command line and initial file system.
    pub rtmr2: Vec<Hex<48>>,
    /// Of 3, by convention the application.
    pub rtmr3: Vec<Hex<48>>,
    /// Configuration ids.
    pub mrconfigid: Vec<Hex<48>>,
    /// Measurements of the TDX module.
    pub mrseam: Vec<Hex<48>>,
    /// Accept domains whose memory the host can read.
    pub allow_debug_insecure: bool,
    /// Accept domains that can be moved to another platform.
    pub allow_migration: bool,
    /// What the platform has to be like.
    pub tcb: TcbRules,
}

/// What a platform of SGX or TDX has to be like.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcbRules {
    /// Statuses that are accepted; without this rule only `UpToDate`.
    pub statuses: Vec<TcbStatus>,
    /// Advisories that may apply to the platform; without this rule none.
    pub advisories: Vec<String>,
    /// Accept platforms to which packages can be added.
    pub allow_dynamic_platform: bool,
    /// Accept platforms whose keys the vendor's registration service keeps.
    pub allow_cached_keys: bool,
    /// Accept platforms with simultaneous multithreading.
    pub allow_smt: bool,
}

impl Default for TcbRules {
    fn default() -> Self {
        Self {
            statuses: vec![TcbStatus::UpToDate],
            advisories: Vec::new(),
            allow_dynamic_platform: false,
            allow_cached_keys: false,
            allow_smt: false,
        }
    }
}

/// Guests that are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpRules {
    /// Measurements, one of which the guest has.
    pub measurement: Vec<Hex<48>>,
    /// Least version of hardware and firmware, which has to be given.
    pub minimum_tcb: Option<SnpTcb>,
    /// Least security version of the guest.
    pub minimum_guest_svn: u32,
    /// Largest number of the privilege level that asked for the report.
    pub maximum_vmpl: u32,
    /// Values of the host's data; empty: any.
    pub host_data: Vec<Hex<32>>,
    /// Digests of the key that signed the id block; empty: any.
    pub id_key_digest: Vec<Hex<48>>,
    /// Processor families by the names of their roots, `Milan`, `Genoa`, `Turin`; empty: any.
    pub products: Vec<String>,
    /// Ask for a current revocation list.
    pub require_crl: bool,
    /// Accept guests whose memory the host can read.
    pub allow_debug_insecure: bool,
    /// Accept guests that a migration agent can move.
    pub allow_migration: bool,
    /// Accept platforms with simultaneous multithreading.
    pub allow_smt: bool,
    /// Accept keys of a cloud provider (VLEK) in place of the chip's own.
    pub allow_vlek: bool,
}

/// Development processes that are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleRules {
    /// Measurements, one of which the process claims.
    pub measurement: Vec<Hex<32>>,
    /// Has to be true: whoever reads the policy shall see it.
    pub allow_sample_insecure: bool,
}

impl Rules {
    fn check(&self) -> Result<(), String> {
        if self.version != POLICY_VERSION {
            return Err(format!("version {}, this program reads version {POLICY_VERSION}", self.version));
        }
        let Self { version: _, sgx, tdx, snp, sample } = self;
        if sgx.is_none() && tdx.is_none() && snp.is_none() && sample.is_none() {
            return Err("it accepts nothing: add a section [sgx], [tdx] or [snp]".to_owned());
        }
        sgx.as_ref().map_or(Ok(()), SgxRules::check)?;
        tdx.as_ref().map_or(Ok(()), TdxRules::check)?;
        snp.as_ref().map_or(Ok(()), SnpRules::check)?;
        sample.as_ref().map_or(Ok(()), SampleRules::check)
    }
}

impl SgxRules {
    fn check(&self) -> Result<(), String> {
        if self.mrenclave.is_empty() && self.mrsigner.is_empty() {
            return Err(
                "[sgx] accepts any enclave: give mrenclave, or mrsigner with product_id and minimum_svn"
                    .to_owned(),
            );
        }
        let complete = self.product_id.is_some() && self.minimum_svn.is_some();
        if !self.mrsigner.is_empty() && !complete {
            return Err("[sgx] mrsigner accepts everything that this signer ever signs: give product_id and minimum_svn too"
                .to_owned());
        }
        self.tcb.check("sgx")
    }
}

impl TdxRules {
    fn check(&self) -> Result<(), String> {
        if self.mrtd.is_empty() {
            return Err("[tdx] accepts any firmware: give mrtd".to_owned());
        }
        self.tcb.check("tdx")
    }

    /// Run-time measurements 0 to 3.
    pub(crate) fn rtmrs(&self) -> [&[Hex<48>]; 4] {
        [&self.rtmr0, &self.rtmr1, &self.rtmr2, &self.rtmr3]
    }
}

impl TcbRules {
    fn check(&self, section: &str) -> Result<(), String> {
        if self.statuses.is_empty() {
            return Err(format!(
                "[{section}.tcb] statuses is empty, so that no platform is accepted; give [\"UpToDate\"]"
            ));
        }
        if self.statuses.contains(&TcbStatus::Revoked) {
            return Err(format!(
                "[{section}.tcb] statuses has Revoked, which no verifier accepts; remove it"
            ));
        }
        Ok(())
    }
}

impl SnpRules {
    fn check(&self) -> Result<(), String> {
        if self.measurement.is_empty() {
            return Err("[snp] accepts any guest: give measurement".to_owned());
        }
        if self.minimum_tcb.is_none() {
            return Err("[snp] accepts any firmware: give minimum_tcb = { bootloader = .., tee = .., snp = .., microcode = .. }"
                .to_owned());
        }
        if self.maximum_vmpl > 3 {
            return Err(format!("[snp] maximum_vmpl is {}, privilege levels are 0 to 3", self.maximum_vmpl));
        }
        Ok(())
    }
}

impl SampleRules {
    fn check(&self) -> Result<(), String> {
        if !self.allow_sample_insecure {
            return Err("[sample] accepts evidence that proves nothing; for development, say allow_sample_insecure = true".to_owned());
        }
        if self.measurement.is_empty() {
            return Err("[sample] accepts any process: give measurement".to_owned());
        }
        Ok(())
    }
}

/// N bytes, in hexadecimal where they are text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
            D::Error::custom(format!(
                "expected {} hexadecimal digits, found {} characters",
                2 * N,
                text.chars().count()
            ))
        })?;
        Ok(Self(bytes))
    }
}
