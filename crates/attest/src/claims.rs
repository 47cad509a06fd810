//! What verified evidence says.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::tee::Tee;
use crate::verdict::Line;

/// What verified evidence says. A verifier makes these from signed bytes only, so that two pieces of evidence that differ in
/// unsigned bytes give equal claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Of what.
    pub tee: Tee,
    /// Who runs there.
    pub identity: Identity,
    /// 64 bytes that the attested software chose: see [`crate::binding`].
    #[serde(serialize_with = "as_hex")]
    pub report_data: [u8; 64],
    /// Whether the host may read and change the environment's memory: then nothing else here means anything.
    pub debug: bool,
    /// SGX and TDX: how current hardware and microcode are.
    pub tcb_status: Option<TcbStatus>,
    /// SGX and TDX: security advisories that apply to this platform.
    pub advisories: Vec<String>,
    /// What is known of the platform.
    pub platform: Platform,
    /// What the verifier checked, all passed.
    pub checks: Vec<Line>,
}

/// Which software, by its vendor's measurements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// An enclave.
    Sgx(SgxIdentity),
    /// A trust domain.
    Tdx(Box<TdxIdentity>),
    /// A guest.
    Snp(Box<SnpIdentity>),
    /// A process that says so itself.
    #[serde(rename = "sample, INSECURE")]
    Sample {
        /// SHA-256 of binary and manifest, as the process claims.
        #[serde(serialize_with = "as_hex")]
        measurement: [u8; 32],
    },
}

/// An SGX enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SgxIdentity {
    /// Measurement of code, data and layout.
    #[serde(serialize_with = "as_hex")]
    pub mrenclave: [u8; 32],
    /// SHA-256 of the signing key's modulus.
    #[serde(serialize_with = "as_hex")]
    pub mrsigner: [u8; 32],
    /// Product id that the signer gave.
    pub product_id: u16,
    /// Security version that the signer gave.
    pub svn: u16,
    /// Attribute flags and XFRM.
    #[serde(serialize_with = "as_hex")]
    pub attributes: [u8; 16],
}

/// A TDX trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TdxIdentity {
    /// Measurement of the initial memory (the firmware).
    #[serde(serialize_with = "as_hex")]
    pub mrtd: [u8; 48],
    /// Run-time measurements: by convention firmware configuration, kernel, command line and initial file system, application.
    #[serde(serialize_with = "as_hexes")]
    pub rtmr: [[u8; 48]; 4],
    /// Measurement of the TDX module.
    #[serde(serialize_with = "as_hex")]
    pub mrseam: [u8; 48],
    /// Configuration id, set by the host.
    #[serde(serialize_with = "as_hex")]
    pub mrconfigid: [u8; 48],
    /// Owner, set by the host.
    #[serde(serialize_with = "as_hex")]
    pub mrowner: [u8; 48],
    /// TD attributes.
    #[serde(serialize_with = "as_hex")]
    pub attributes: [u8; 8],
}

/// A SEV-SNP guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnpIdentity {
    /// Measurement of the initial memory.
    #[serde(serialize_with = "as_hex")]
    pub measurement: [u8; 48],
    /// 32 bytes that the host chose at launch.
    #[serde(serialize_with = "as_hex")]
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the guest's id block; zero without one.
    #[serde(serialize_with = "as_hex")]
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the id key; zero without one.
    #[serde(serialize_with = "as_hex")]
    pub author_key_digest: [u8; 48],
    /// Security version that the guest's owner gave.
    pub guest_svn: u32,
    /// Privilege level that asked for the report: 0 is the highest.
    pub vmpl: u32,
    /// Guest policy.
    pub policy: u64,
    /// Version of hardware and firmware that the signing key stands for.
    pub reported_tcb: SnpTcb,
    /// Version that the platform cannot go back behind.
    pub committed_tcb: SnpTcb,
    /// Version when the guest was launched.
    pub launch_tcb: SnpTcb,
    /// Which family of processors, by the root of the certificate chain.
    pub product: String,
    /// Which key signed: `VCEK` (of the chip) or `VLEK` (of a cloud provider).
    pub signing_key: String,
    /// The cloud provider of a VLEK, as its certificate says.
    pub provider: Option<String>,
    /// The chip.
    #[serde(serialize_with = "as_hex")]
    pub chip_id: [u8; 64],
    /// Whether a revocation list was at hand, and is current.
    pub revocation_checked: bool,
}

/// Security versions of a SEV-SNP platform, each of which a policy can ask for. A missing one counts as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpTcb {
    /// Firmware management controller (Turin and later; 0 before).
    pub fmc: u8,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl SnpTcb {
    /// Whether no component is older than `minimum`'s.
    pub fn at_least(&self, minimum: &Self) -> bool {
        self.components().into_iter().zip(minimum.components()).all(|((_, found), (_, least))| found >= least)
    }

    fn components(&self) -> [(&'static str, u8); 5] {
        let Self { fmc, bootloader, tee, snp, microcode } = *self;
        [("fmc", fmc), ("bootloader", bootloader), ("tee", tee), ("snp", snp), ("microcode", microcode)]
    }
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.components().map(|(name, value)| format!("{name} {value}"));
        f.write_str(&text.join(", "))
    }
}

/// What is known of the platform. `None`: its certificate does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// Packages can be added to it (SGX, TDX).
    pub dynamic: Option<bool>,
    /// Its keys are kept by the vendor's registration service (SGX, TDX).
    pub cached_keys: Option<bool>,
    /// Threads of two owners can share a core.
    pub smt: Option<bool>,
}

/// How current hardware, firmware and microcode are, in Intel's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing known is missing.
    UpToDate,
    /// Software has to mitigate something.
    SWHardeningNeeded,
    /// The platform's configuration is weaker than it could be.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// Updates are missing.
    OutOfDate,
    /// Updates are missing, and the configuration is weak.
    OutOfDateConfigurationNeeded,
    /// The trust domain should be launched again, on what is current now.
    TDRelaunchAdvised,
    /// The same, and the configuration is weak.
    TDRelaunchAdvisedConfigurationNeeded,
    /// Keys of this version are known to be compromised.
    Revoked,
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn as_hex<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn as_hexes<S: Serializer, const N: usize, const M: usize>(
    list: &[[u8; N]; M],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(hex::encode))
}
