//! Kinds of trusted execution environments.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of trusted execution environment. Encoded by its number: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// An Intel SGX enclave.
    Sgx,
    /// An Intel TDX trust domain.
    Tdx,
    /// An AMD SEV-SNP guest.
    Snp,
    /// The development backend, which proves nothing.
    #[serde(rename = "sample, INSECURE")]
    Sample,
}

impl Tee {
    /// `SGX`, `TDX`, `SEV-SNP`, or `sample, INSECURE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgx => "SGX",
            Self::Tdx => "TDX",
            Self::Snp => "SEV-SNP",
            Self::Sample => "sample, INSECURE",
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
