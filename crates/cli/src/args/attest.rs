//! Arguments of `attest`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use privet::attest::parse_time;

pub(crate) const ATTEST_HELP: &str = "\
Example:
  privet attest verify quote.dat --collateral collateral.json --policy policy.toml";

const VERIFY_HELP: &str = "\
Examples:
  privet attest verify quote.dat --collateral collateral.json            # SGX, TDX
  privet attest verify report.bin --cert vcek.der --policy policy.toml   # SEV-SNP
  privet attest verify report.bin --cert vlek.der --cert chain.pem --crl crl.der
  privet attest verify quote.dat --collateral c.json --at 2025-07-01T00:00:00Z --json
  privet attest verify server.pem --collateral collateral.json           # a certificate of RA-TLS

Exits with 0 if the evidence is authentic at that time and the policy, if there is one, accepts it; with
4 if not; with 3 if something is missing or malformed. docs/attestation.md describes policies, and where
evidence, collateral and certificates come from.";

#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    #[command(subcommand)]
    pub(crate) command: AttestCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AttestCommand {
    /// Verify evidence of SGX, TDX or SEV-SNP, and appraise it.
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A quote, a report (also in hexadecimal), evidence as Privet stores it, or a certificate with evidence.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// SGX and TDX: TCB information, QE identity and revocation lists of Intel, in a JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// SEV-SNP: certificates in PEM or DER: VCEK or VLEK, and an intermediate that is not built in. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Vec<PathBuf>,
    /// SEV-SNP: revocation list in PEM or DER. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) crl: Vec<PathBuf>,
    /// Verify as if it were this time: RFC 3339 in UTC, a date, or seconds since 1970 [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at: Option<SystemTime>,
    /// Which software and platform are accepted. Without one, only whether the evidence is authentic is looked at.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) policy: Option<PathBuf>,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept development evidence, which proves nothing. Only in builds with the feature sample-attestation-insecure.
    #[arg(long)]
    pub(crate) allow_sample_insecure: bool,
}

fn time(text: &str) -> Result<SystemTime, String> {
    parse_time(text)
        .ok_or_else(|| "expected 2025-07-01T00:00:00Z, 2025-07-01 or seconds since 1970".to_owned())
}
