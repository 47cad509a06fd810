//! Arguments of `enclave`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use privet::keys::Address;
use privet::seal::{KeyId, KeyVersion, ModelId, SealDigest, VerifyingKey};

use super::common::{AnswerArgs, address, model_version};
use super::keys::{AttestationArgs, version};
use super::split::size;

/// With the alternatives, of which clap would name the first only.
pub(crate) const ENCLAVE_USAGE: &str = "\
privet enclave (--sealed FILE | --stages DIR) (--release FILE | --verifying-key HEX --key-id ID)
                      (--keycache ADDRESS | --keyserver HOST:PORT) [OPTIONS]
       privet enclave ask HOST:PORT --policy policy.toml --input [NAME=]FILE [OPTIONS]";

pub(crate) const ENCLAVE_HELP: &str = "\
Examples, in an enclave on the worker's host:
  privet enclave --sealed resnet.sealed --release release.toml --keycache unix:cache/cache.sock
  privet enclave --sealed resnet.sealed --release release.toml --keyserver keys.example:7300 \\
      --server-certificate tls.crt --listen 0.0.0.0:7400
and wherever the input is:
  privet enclave ask worker.example:7400 --policy worker.toml --release release.toml --input dog.jpg --preprocess imagenet

The release file says whose signature a model has to have: in an enclave it is a part of what is measured.
The client verifies what runs on the other side, and whose model that has, before it sends anything. docs/enclave.md has the rest.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EnclaveArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EnclaveCommand>,
    #[command(flatten)]
    pub(crate) worker: WorkerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnclaveCommand {
    /// Verify a worker, send it an input, and show the answer.
    #[command(disable_version_flag = true)]
    Ask(AskArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The sealed model.
    #[arg(long, value_name = "FILE", required_unless_present = "stages", conflicts_with = "stages")]
    pub(crate) sealed: Option<PathBuf>,
    /// Instead of one file: a directory of sealed stages (privet split --key), which are run one by one.
    #[arg(long, value_name = "DIR")]
    pub(crate) stages: Option<PathBuf>,
    /// With --stages: hold only these stages, counted from 1, in memory; other workers have those before and behind.
    #[arg(long, value_name = "FIRST-LAST", requires = "stages", value_parser = stage_range)]
    pub(crate) stage: Option<(usize, usize)>,
    /// With --stage: the worker that has the stages behind.
    #[arg(long, value_name = "HOST:PORT", requires_all = ["stage", "next_policy"], value_parser = address)]
    pub(crate) next: Option<String>,
    /// Attestation policy of the worker behind.
    #[arg(long, value_name = "policy.toml", requires = "next")]
    pub(crate) next_policy: Option<PathBuf>,
    /// Accept only clients whom this attestation policy accepts; needed where there are stages before.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) clients: Option<PathBuf>,
    /// The owner's release file: who has to have signed the model, which model, and under which key.
    #[arg(long, value_name = "FILE", required_unless_present = "verifying_key")]
    pub(crate) release: Option<PathBuf>,
    /// Instead of a release file: who has to have signed the model.
    #[arg(long, value_name = "HEX", conflicts_with = "release", requires = "key_id")]
    pub(crate) verifying_key: Option<VerifyingKey>,
    /// With --verifying-key: which key opens the model.
    #[arg(long, value_name = "ID", conflicts_with = "release")]
    pub(crate) key_id: Option<KeyId>,
    /// With --verifying-key: which version of the key [default: the newest].
    #[arg(long, value_name = "N", conflicts_with = "release", value_parser = version)]
    pub(crate) key_version: Option<KeyVersion>,
    /// The only sealed model that is opened, whatever the key's policy says.
    #[arg(long, value_name = "HEX")]
    pub(crate) model_digest: Option<SealDigest>,
    /// Oldest version of the model that is opened, whatever the key's policy says.
    #[arg(long, value_name = "N", default_value_t = NonZeroU64::MIN, value_parser = model_version)]
    pub(crate) min_version: NonZeroU64,
    /// The key cache of this host: unix:PATH, or a loopback address.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "keyserver", conflicts_with = "keyserver")]
    pub(crate) keycache: Option<Address>,
    /// A key server, instead of a cache.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) keyserver: Option<Address>,
    /// The certificate of server or cache; a Unix socket needs none.
    #[arg(long, value_name = "FILE", conflicts_with = "server_policy")]
    pub(crate) server_certificate: Option<PathBuf>,
    /// Attestation policy of a key server that runs with --ra-tls.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) server_policy: Option<PathBuf>,
    /// How long to wait for the connection to server or cache, and for each answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) key_deadline: u64,
    /// Longest time for which a key is used without asking for it again: the worker asks after half of it, and ends after all of
    /// it, or when the lease ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) key_lifetime: u64,
    /// Where clients reach this worker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400", value_parser = address)]
    pub(crate) listen: String,
    /// Clients at a time; a quarter of them for one address.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) sessions: u16,
    /// Inputs that may wait for the one that is computed, a quarter of them from one address; who comes later is told to come back.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) queue: u16,
    /// Threads that multiply.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// With --stages, one by one: hold the process to so much memory for weights, tensors and workspace, and a constant for the rest
    /// (docs/enclave.md): `plan` is what the stages were cut for, a SIZE may be more.
    #[arg(long, value_name = "SIZE|plan", requires = "stages", conflicts_with_all = ["sealed", "stage"], value_parser = held)]
    pub(crate) memory: Option<Held>,
    /// This is the process that is held.
    #[arg(long, hide = true, requires = "memory")]
    pub(crate) is_held: bool,
    /// What attests this machine.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) attester: AttesterKind,
    /// Leave memory that the system does not lock to its swapping. In an SGX enclave it is encrypted either way.
    #[arg(long)]
    pub(crate) allow_swap: bool,
    /// What happens, as lines of JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) attestation: AttestationArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttesterKind {
    /// Gramine's interface where it is there, else the kernel's; with --allow-sample-insecure development evidence.
    Auto,
    /// SGX under Gramine.
    Gramine,
    /// TDX or SEV-SNP, by the kernel's configfs-tsm.
    Tsm,
    /// Development evidence, which proves nothing; takes --allow-sample-insecure.
    Sample,
}

/// How much memory sealed stages are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// What they were cut for.
    Plan,
    /// So many bytes.
    Bytes(u64),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("owner").args(["release", "verifying_key", "model_digest"]).multiple(true))]
pub(crate) struct AskArgs {
    /// The worker.
    #[arg(value_name = "HOST:PORT", value_parser = address)]
    pub(crate) address: String,
    /// Attestation policy: which worker may see the input.
    #[arg(long, value_name = "policy.toml")]
    pub(crate) policy: PathBuf,
    /// JPEG, PNG, .npy, .npz or .csv; NAME=FILE where the model has several inputs, or one .npz with all of them.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// How a picture becomes an input: imagenet, mnist, none, or a TOML file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) preprocess: Option<String>,
    /// Labels, one per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// The owner's release file: who has to have signed the model that is asked, and which model.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["verifying_key", "model_id"])]
    pub(crate) release: Option<PathBuf>,
    /// Instead of a release file: who has to have signed it, as 64 hexadecimal digits or a file with them.
    #[arg(long, value_name = "HEX|FILE")]
    pub(crate) verifying_key: Option<String>,
    /// Oldest version of the model that is asked, with --release, --verifying-key or --model-digest: numbers without an owner say nothing.
    #[arg(long, value_name = "N", value_parser = model_version, requires = "owner")]
    pub(crate) min_version: Option<NonZeroU64>,
    /// The only model that is asked.
    #[arg(long, value_name = "UUID")]
    pub(crate) model_id: Option<ModelId>,
    /// The only sealed file that is asked (privet seal prints it).
    #[arg(long, value_name = "HEX")]
    pub(crate) model_digest: Option<SealDigest>,
    /// Ask as often, and show the last answer; 1 to 1000000.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) repeat: u32,
    /// How long a worker is asked after it was verified; then it is verified again, over a new connection.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) evidence_age: u64,
    /// How long to wait for the connection, and for each answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
    #[command(flatten)]
    pub(crate) attestation: AttestationArgs,
}

/// `plan` or bytes.
fn held(text: &str) -> Result<Held, String> {
    if text == "plan" { Ok(Held::Plan) } else { size(text).map(Held::Bytes) }
}

/// `2` or `2-5`.
fn stage_range(text: &str) -> Result<(usize, usize), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<usize>().ok().filter(|&n| (1..=100_000).contains(&n));
    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    range.ok_or_else(|| "expected a stage, or FIRST-LAST, counted from 1".to_owned())
}
