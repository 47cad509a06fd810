//! The command line.

pub(crate) mod attest;
mod bench;
pub(crate) mod cluster;
mod common;
pub(crate) mod enclave;
pub(crate) mod hosts;
pub(crate) mod keys;
pub(crate) mod launch;
pub(crate) mod manifest;
pub(crate) mod seal;
pub(crate) mod split;

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::EXIT_CODES;
use crate::network::Network;
use attest::{ATTEST_HELP, AttestArgs};
use bench::{BENCH_HELP, COMPARE_HELP, EXPORT_HELP};
pub(crate) use bench::{BenchArgs, CompareArgs, Experiment, ExportArgs, KernelPart, PlainArgs, Runtime};
use cluster::{PARTY_HELP, PartyArgs, REVEAL_HELP, RevealArgs, SHARE_HELP, ShareArgs};
use common::address;
pub(crate) use common::{AnswerArgs, AutoArgs, ProcessArgs};
use enclave::{ENCLAVE_HELP, ENCLAVE_USAGE, EnclaveArgs};
use keys::{KEYCACHE_HELP, KEYSERVER_HELP, KeycacheArgs, KeyserverArgs};
use launch::{LAUNCH_HELP, LaunchArgs};
use manifest::{MANIFEST_HELP, ManifestArgs};
use seal::{KEY_HELP, KeyArgs, SEAL_HELP, SealArgs, UNSEAL_HELP, UnsealArgs};
pub(crate) use split::{Balance, SplitArgs, StagesArgs};
use split::{SPLIT_HELP, STAGES_HELP};

/// Runs machine-learning models on data and weights that stay private.
#[derive(Debug, Parser)]
#[command(name = "privet", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole private inference on this machine: dealer, server and client, each its own process.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Make identities and configurations: for a dealer, a server and clients, or for three parties.
    #[command(after_help = SETUP_HELP)]
    Setup(SetupArgs),
    /// Turn an ONNX model into a public plan and private weights.
    #[command(after_help = COMPILE_HELP)]
    Compile(CompileArgs),
    /// Show what a model becomes: ranges, widths, rounds, bytes and openings of every layer, before anything runs.
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// Measure models with random weights: time, CPU, bytes, rounds, memory and accuracy, next to published systems.
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArgs),
    /// Run one model on one input with several engines, and show what each of them takes.
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Write an architecture with random weights as an ONNX file.
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArgs),
    /// Run a model without privacy: what `privet bench` compares with.
    #[command(hide = true)]
    Plain(PlainArgs),
    /// Show how many inferences a server or client has material for.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Deal one-time material to server and clients.
    #[command(after_help = DEALER_HELP)]
    Dealer(DealerArgs),
    /// Own the model: prepare inferences with the dealer, then answer clients.
    #[command(after_help = SERVER_HELP)]
    Server(ServerArgs),
    /// Own the input: prepare inferences, then ask.
    #[command(after_help = CLIENT_HELP)]
    Client(ClientArgs),
    /// Share a model's weights or an inference's inputs among the three parties of a cluster.
    #[command(after_help = SHARE_HELP)]
    Share(ShareArgs),
    /// Compute on shares, as one of three parties.
    #[command(after_help = PARTY_HELP)]
    Party(PartyArgs),
    /// Put outputs together from the parties' shares of them.
    #[command(after_help = REVEAL_HELP)]
    Reveal(RevealArgs),
    /// Start the three parties of a cluster on their hosts over ssh, and fetch logs and results.
    #[command(after_help = LAUNCH_HELP)]
    Launch(LaunchArgs),
    /// Cut a model into stages for a machine with little memory, such as an enclave. It protects nothing.
    #[command(after_help = SPLIT_HELP)]
    Split(SplitArgs),
    /// Run the stages of `privet split` one by one within their memory, in float and without privacy.
    #[command(after_help = STAGES_HELP)]
    Stages(StagesArgs),
    /// Verify evidence of trusted execution environments.
    #[command(after_help = ATTEST_HELP)]
    Attest(AttestArgs),
    /// Keep keys of sealed models, and release them to those who prove what they run.
    #[command(after_help = KEYSERVER_HELP)]
    Keyserver(KeyserverArgs),
    /// Hold leased keys for workers of this host.
    #[command(after_help = KEYCACHE_HELP)]
    Keycache(KeycacheArgs),
    /// Run a sealed model in an enclave for clients that verify it first; and ask such a worker.
    #[command(after_help = ENCLAVE_HELP, override_usage = ENCLAVE_USAGE)]
    Enclave(Box<EnclaveArgs>),
    /// Make, wrap and unwrap the keys of a model's owner.
    #[command(after_help = KEY_HELP)]
    Key(KeyArgs),
    /// Encrypt and sign an ONNX model.
    #[command(after_help = SEAL_HELP)]
    Seal(SealArgs),
    /// Verify and decrypt a sealed model.
    #[command(after_help = UNSEAL_HELP)]
    Unseal(UnsealArgs),
    /// Write a Gramine manifest that trusts exact files and allows nothing, or explain what is unsafe in one.
    #[command(after_help = MANIFEST_HELP)]
    Manifest(ManifestArgs),
}

const RUN_HELP: &str = "\
Examples:
  privet run --model assets/digits/digits.onnx --input assets/digits/7.png \\
      --preprocess assets/digits/preprocess.toml --labels assets/digits/labels.txt
  privet run --model squeezenet.onnx --input dog.jpg --preprocess imagenet --json
  privet run --model m.onnx --input image=x.npy --input mask=m.npy --output y.npz
  privet run --model m.onnx --input x.npy --ring 40 --frac-bits 15
  privet run --model m.onnx --input x.npy --network wan       # as over 100 Mbit/s and 40 ms

Dealer, server and client are processes with their own keys, directories and TLS connections over
127.0.0.1; only this command, which holds model and input anyway, compares with the result in the
clear. Probabilities are the model's own where it ends in softmax, otherwise the softmax of its
values. The largest difference to float is that of the outputs as shown, final functions included.

--json: seconds of a phase are those of its slowest party, rounds of the party with most; bytes and
CPU seconds are sums over the parties.";

const SETUP_HELP: &str = "\
Example:
  privet setup --out parties --server vendor.example:7101 --dealer dealer.example:7100 --client clinic
  scp -r parties/clinic clinic.example:   # and so on; afterwards delete the copies here

Each directory holds one private key, which never leaves it, and the others' certificates.

Three parties that compute on shares (see privet party):
  privet setup --parties 3 --out cluster --host a.example:7200 --host b.example:7200 --host c.example:7200";

const COMPILE_HELP: &str = "\
Examples:
  privet compile squeezenet.onnx -o model --preprocess imagenet --labels synset_words.txt
  privet compile m.onnx -o model --calibrate samples/*.png   # narrows the ring to what these inputs need
  privet compile m.onnx -o model --calibrate samples/*.npy --tolerance 1e-4 --margin 8
  privet compile m.onnx -o model --input-shape 1,3,224,224 --ring 40 --frac-bits 15

With --calibrate the error is measured on the calibration inputs: the largest difference of an output to the
model in float, before a final softmax or sigmoid, in relation to the output's largest value. The fewest of 4
to 24 fractional bits are chosen that keep it within --tolerance, then the smallest ring.

Ranges are public: with --calibrate or --input-range the plan tells everyone a few bits per layer about the
weights and the calibration inputs. Without both it does not depend on them, but for whether a concatenated
constant or a pad's value is all zeros.";

const PLAN_HELP: &str = "\
Examples:
  privet plan squeezenet.onnx
  privet plan squeezenet.onnx --calibrate dog.jpg --preprocess imagenet --all
  privet plan model                  # a directory made by privet compile
  privet plan model/plan.privet --reveal-to both --json
  privet plan squeezenet.onnx --network wan   # and predict how long it takes there
  privet plan squeezenet.onnx --engine auto --network wan   # where keys pay off, and why

Columns: f, fractional bits; range, the signed width that values are safe for and where it comes
from (full width, proved from the range of the input, calibrated); room, bits between the largest
value that calibration saw and the range; width, that of comparisons; bytes are payload. \"masked\"
values that are opened are uniformly random, whatever is behind them; a \"value\" is an output.";

const STATUS_HELP: &str = "\
Example:
  privet status --config parties/clinic

What counts is what both sides hold; they compare it at the next session.";

const DEALER_HELP: &str = "\
Example:
  privet dealer --config parties/dealer   # stop it with Ctrl-C when server and clients are prepared";

const SERVER_HELP: &str = "\
Examples:
  privet server --config parties/server --model model offline --count 10
  privet server --config parties/server --model model online";

const CLIENT_HELP: &str = "\
Examples:
  privet client --config parties/clinic offline --count 10
  privet client --config parties/clinic online --input x.jpg
  privet client --config parties/clinic online --input x.jpg --output y.npz --json
  privet client --config parties/clinic online --input x.jpg --input y.jpg   # two inferences, one connection";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Masked computation between server and client, with an offline dealer.
    #[value(name = "2pc")]
    TwoParty,
    /// The same, with keys of function secret sharing for comparisons: fewer rounds, more material.
    Fss,
    /// The same, with keys where they are predicted to save time over --network.
    Auto,
    /// Three parties compute on shares; none knows weights, inputs or outputs.
    #[value(name = "3pc")]
    ThreeParty,
    /// The same integers without privacy, in this process.
    Cleartext,
}

impl Engine {
    /// Whether it protects anything, and with that whether anything is sent.
    pub(crate) fn is_private(self) -> bool {
        self != Self::Cleartext
    }

    /// All engines, those without privacy first. `auto` is none of its own.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Self::value_variants().to_vec();
        all.retain(|engine| *engine != Self::Auto);
        all.sort_by_key(|engine| engine.is_private());
        all
    }

    /// The number of the engine of this name, in the order of [`Self::all`], for colours.
    pub(crate) fn hue(name: &str) -> usize {
        Self::all().iter().position(|engine| engine.name() == name).unwrap_or(Self::value_variants().len())
    }

    /// Its name on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TwoParty => "2pc",
            Self::Fss => "fss",
            Self::Auto => "auto",
            Self::ThreeParty => "3pc",
            Self::Cleartext => "cleartext",
        }
    }
}

/// What `privet run` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEngine {
    /// An engine on integers.
    Of(Engine),
    /// A sealed model in a worker that proves what it runs, in float.
    Tee,
}

impl ValueEnum for RunEngine {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: &[RunEngine] = &[
            RunEngine::Of(Engine::TwoParty),
            RunEngine::Of(Engine::Fss),
            RunEngine::Of(Engine::Auto),
            RunEngine::Of(Engine::ThreeParty),
            RunEngine::Of(Engine::Cleartext),
            RunEngine::Tee,
        ];
        ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Of(engine) => engine.to_possible_value(),
            Self::Tee => Some(PossibleValue::new("tee").help(
                "A sealed model in a worker that proves to its client what it runs; in float. Here without trusted hardware: \
                 takes --allow-sample-insecure",
            )),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// ONNX model.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// JPEG, PNG, .npy, .npz or .csv; NAME=FILE where the model has several inputs, or one .npz with all of them.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// What computes.
    #[arg(long, value_enum, default_value = "2pc")]
    pub(crate) engine: RunEngine,
    /// With --engine tee: threads that multiply [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// With --engine tee, which has no trusted hardware here: make and accept development evidence, which proves nothing. Only
    /// in builds with the feature sample-attestation-insecure.
    #[arg(long)]
    pub(crate) allow_sample_insecure: bool,
    /// Make the connections as slow as this network: lan is 1gbit:1ms, wan 100mbit:40ms.
    #[arg(long, value_name = "lan|wan|RATE:RTT[:JITTER]", default_value = Network::LOOPBACK, value_parser = Network::parse)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) keys: AutoArgs,
    #[command(flatten)]
    pub(crate) lowering: LoweringArgs,
    /// Bound on the whole run.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
}

/// How a model becomes a plan.
#[derive(Debug, Default, PartialEq, Args)]
pub(crate) struct LoweringArgs {
    /// Labels, one per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// How a picture becomes an input: imagenet, mnist, none, or a TOML file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) preprocess: Option<String>,
    /// Typical inputs; ranges, and without --ring and --frac-bits also ring and fractional bits, follow from them.
    #[arg(long, value_name = "FILES", num_args = 1..)]
    pub(crate) calibrate: Vec<PathBuf>,
    /// Head room: how many times larger than with the calibration inputs values may be [default: 4].
    #[arg(long, value_name = "FACTOR", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) margin: Option<u32>,
    /// With --calibrate, the fewest fractional bits are chosen whose error on these inputs, relative to an output's largest
    /// value, is at most this [default: 0.001].
    #[arg(long, value_name = "ERROR", conflicts_with = "frac_bits")]
    pub(crate) tolerance: Option<f64>,
    /// Values that an input may have; others are refused, and ranges of layers are proved from it.
    #[arg(long, value_name = "[NAME=]LOW,HIGH", allow_hyphen_values = true)]
    pub(crate) input_range: Vec<String>,
    /// Ring width in bits [default: 64, with --calibrate the smallest that fits].
    #[arg(long, value_name = "16..64", value_parser = clap::value_parser!(u32).range(16..=64))]
    pub(crate) ring: Option<u32>,
    /// Fractional bits [default: 16, less in a narrow ring; with --calibrate what --tolerance asks for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub(crate) frac_bits: Option<u32>,
    /// Shape of an input that the model leaves open (a batch that it leaves open is 1).
    #[arg(long, value_name = "[NAME=]D0,D1,..")]
    pub(crate) input_shape: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Where the parties' directories are made.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where clients reach the server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7101", conflicts_with = "parties")]
    pub(crate) server: String,
    /// Where server and clients reach the dealer.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7100", conflicts_with = "parties")]
    pub(crate) dealer: String,
    /// Name of a client; may be repeated.
    #[arg(long, value_name = "NAME", default_value = "client", conflicts_with = "parties")]
    pub(crate) client: Vec<String>,
    /// Make a cluster of three parties that compute on shares, instead.
    #[arg(long, value_name = "3", value_parser = clap::value_parser!(u8).range(3..=3))]
    pub(crate) parties: Option<u8>,
    /// Where a party is reached by the two others; three times, in their order.
    #[arg(long, value_name = "HOST:PORT", requires = "parties",
          default_values = ["127.0.0.1:7200", "127.0.0.1:7201", "127.0.0.1:7202"])]
    pub(crate) host: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompileArgs {
    /// ONNX model.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Directory for the public plan.privet and the private weights.safetensors.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What will compute: for fss and auto the plan asks for keys, all others take the same plan.
    #[arg(long, value_enum, default_value = "2pc")]
    pub(crate) engine: Engine,
    /// The network that --engine auto chooses for, after four seconds of calibrating this machine [default: lan].
    #[arg(long, value_name = "loopback|lan|wan|RATE:RTT[:JITTER]", value_parser = Network::parse)]
    pub(crate) network: Option<Network>,
    #[command(flatten)]
    pub(crate) keys: AutoArgs,
    #[command(flatten)]
    pub(crate) lowering: LoweringArgs,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// ONNX model, directory made by `privet compile`, or plan.privet.
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// What computes.
    #[arg(long, value_enum, default_value = "2pc")]
    pub(crate) engine: Engine,
    #[command(flatten)]
    pub(crate) lowering: LoweringArgs,
    /// Who learns the outputs.
    #[arg(long, value_enum, default_value = "client")]
    pub(crate) reveal_to: Reveal,
    /// Predict wall times over this network, after two seconds of calibrating this machine; with --engine auto, choose for it
    /// [default of auto: lan].
    #[arg(long, value_name = "loopback|lan|wan|RATE:RTT[:JITTER]", value_parser = Network::parse)]
    pub(crate) network: Option<Network>,
    #[command(flatten)]
    pub(crate) keys: AutoArgs,
    /// Show also the steps that cost nothing and open nothing.
    #[arg(long)]
    pub(crate) all: bool,
    /// One line of JSON on stdout, with all steps; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The party's directory or privet.toml.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(crate) config: PathBuf,
    /// One line of JSON on stdout, with the names of the bundles.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DealerArgs {
    /// The dealer's directory or privet.toml.
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(crate) config: PathBuf,
    /// Listen here instead of the configured address.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen: Option<String>,
    /// Exit after material for this many inferences was delivered to both sides.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bundles: Option<u64>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The server's directory or privet.toml.
    #[arg(long, value_name = "PATH", default_value = ".", global = true)]
    pub(crate) config: PathBuf,
    /// Directory made by `privet compile`.
    #[arg(long, value_name = "DIR", default_value = "model", global = true)]
    pub(crate) model: PathBuf,
    /// Listen here instead of the configured address.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, global = true)]
    pub(crate) listen: Option<String>,
    /// The dealer's address, instead of the configured one.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, global = true)]
    pub(crate) dealer: Option<String>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(subcommand)]
    pub(crate) phase: ServerPhase,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServerPhase {
    /// Fetch material from the dealer and hand the plan to clients, until each is prepared.
    Offline {
        /// Inferences to hold material for, per client. With 0, plan and weights are shared, and nothing is prepared.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=10_000))]
        count: u64,
        /// Exit after this many clients instead of all configured ones.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        sessions: Option<u64>,
    },
    /// Answer clients until told to stop.
    Online {
        /// Exit after this many inferences.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        sessions: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Reveal {
    /// The owner of the input.
    Client,
    /// The owner of the model.
    Server,
    /// Both.
    Both,
}

impl From<Reveal> for privet::RevealTo {
    fn from(reveal: Reveal) -> Self {
        match reveal {
            Reveal::Client => Self::Client,
            Reveal::Server => Self::Server,
            Reveal::Both => Self::Both,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The client's directory or privet.toml.
    #[arg(long, value_name = "PATH", default_value = ".", global = true)]
    pub(crate) config: PathBuf,
    /// The server's address, instead of the configured one.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, global = true)]
    pub(crate) server: Option<String>,
    /// The dealer's address, instead of the configured one.
    #[arg(long, value_name = "HOST:PORT", value_parser = address, global = true)]
    pub(crate) dealer: Option<String>,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
    #[command(subcommand)]
    pub(crate) phase: ClientPhase,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientPhase {
    /// Fetch the plan from the server and material from the dealer; continues where a broken run stopped.
    Offline {
        /// Inferences to hold material for. With 0, plan and weights are fetched, and nothing else.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=10_000))]
        count: u64,
    },
    /// Private inferences, one after the other.
    Online(OnlineArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OnlineArgs {
    /// JPEG, PNG, .npy, .npz or .csv; NAME=FILE where the model has several inputs, or one .npz with all of them. Repeated for more
    /// inferences over the same connection, each agreed on before its input is read from a pipe.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// Who learns the outputs; both configurations have to allow it.
    #[arg(long, value_enum, default_value = "client")]
    pub(crate) reveal_to: Reveal,
    /// Write the revealed integers as JSON, a line for each inference.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) raw: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
}
