//! Arguments of `manifest`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::common::address;
use super::split::size;

pub(crate) const MANIFEST_HELP: &str = "\
Examples:
  privet manifest --role worker --sealed vgg16.sealed --release release.toml \\
      --keycache 127.0.0.1:7401 --server-certificate cache/tls.crt --out worker
  privet manifest --role keycache --dir cache --state cache-state --out keycache
  privet manifest --role keyserver --state keys-state --out keyserver
  privet manifest --role keyserver --state keys-state --out init -- keyserver init --dir /keys --name keys.example
  privet manifest lint worker/worker.manifest

The manifest trusts this program, its libraries and what the role reads, each by its SHA-256, and allows
nothing else. Arguments and environment are fixed in it. The same files and options give the same bytes.
Sign it with gramine-sgx-sign; docs/manifest.md has the steps, and what is chosen and why.";

/// Whose manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestRole {
    /// Runs a sealed model.
    Worker,
    /// Holds leased keys.
    Keycache,
    /// Releases keys.
    Keyserver,
}

impl ManifestRole {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Keycache => "keycache",
            Self::Keyserver => "keyserver",
        }
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ManifestArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ManifestCommand>,
    /// Whose manifest.
    #[arg(long, value_enum, required = true)]
    pub(crate) role: Option<ManifestRole>,
    /// Directory for ROLE.manifest, which is made if needed.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) out: Option<PathBuf>,
    /// Worker: the sealed model.
    #[arg(long, value_name = "FILE", conflicts_with = "stages")]
    pub(crate) sealed: Option<PathBuf>,
    /// Worker: directory of sealed stages.
    #[arg(long, value_name = "DIR")]
    pub(crate) stages: Option<PathBuf>,
    /// Worker: the owner's release file, which says whose models it opens.
    #[arg(long, value_name = "FILE")]
    pub(crate) release: Option<PathBuf>,
    /// Worker: its key cache.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with = "keyserver")]
    pub(crate) keycache: Option<String>,
    /// Worker: a key server, instead of a cache.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) keyserver: Option<String>,
    /// Worker: the certificate of cache or server.
    #[arg(long, value_name = "FILE", conflicts_with = "server_policy")]
    pub(crate) server_certificate: Option<PathBuf>,
    /// Worker: attestation policy of a key server that runs with --ra-tls.
    #[arg(long, value_name = "FILE")]
    pub(crate) server_policy: Option<PathBuf>,
    /// Worker: where it listens.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, default_value = "0.0.0.0:7500")]
    pub(crate) listen: String,
    /// Key cache: its directory, made by privet keycache init.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Key cache and key server: directory of the host for what they write, encrypted.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Bytes of weights, tensors and workspace at a time [default: of a worker the largest predicted peak, or the model and
    /// 128 MiB; else 64 MiB].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// Threads that multiply.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// A file that may be read as well, and its place inside.
    #[arg(long, value_name = "FILE=PATH")]
    pub(crate) trust: Vec<String>,
    /// The program to run [default: this one].
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Gramine's directory with libsysdb.so: its library OS and C library are trusted. Without it the host's C library is, and
    /// Gramine's signing tool fills in the library OS.
    #[arg(long, value_name = "DIR")]
    pub(crate) gramine: Option<PathBuf>,
    /// Where libraries are searched first.
    #[arg(long, value_name = "DIR")]
    pub(crate) library_path: Vec<PathBuf>,
    /// Add memory while the program runs, instead of all at its start; takes SGX2 and Linux 6.0.
    #[arg(long)]
    pub(crate) edmm: bool,
    /// Product number, which policies can name.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) product: u16,
    /// Security version, which policies can demand: raise it with every repair.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) svn: u16,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Arguments of the program, instead of the role's.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Explain what is unsafe in a manifest or template. Exits with 3 if anything is.
    Lint {
        /// The manifest.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// One line of JSON on stdout.
        #[arg(long)]
        json: bool,
    },
}
