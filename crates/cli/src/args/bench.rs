//! What benchmarks take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Engine, LoweringArgs};
use crate::network::Network;

pub(super) const BENCH_HELP: &str = "\
Examples:
  privet bench --models lenet,minionn-cifar --iterations 5
  privet bench --models all --json
  privet bench --models resnet18 --network lan
  privet bench --models lenet --network 200mbit:10ms    # or 1gbit:500us:100us, with jitter
  privet bench --models resnet50 --ring 64              # a forced ring; calibrated widths
  privet bench --models resnet50 --uncalibrated         # 64 bits, 16 fractional, full widths
  privet bench --models list
  privet bench --exp inference_all --plot suite.svg     # CryptGPU's models next to plain runs
  privet bench --exp inference_all --models lenet,vgg16-cifar --engine 2pc --avgpool --csv
  privet bench --exp inference_plaintext --models resnet50
  privet bench --exp micro --ring 64                    # single operations on a million elements
  privet bench --exp kernels                            # products, comparisons, TLS on this machine
  privet bench --exp kernels --kernels gemm,gates --json
  privet bench --exp enclave --models resnet50,vgg16 --parts 1,2,4,12 --out charts   # whole and in stages, with a page

Weights and inputs are random, from --seed. Ring, fractional bits and widths are calibrated on two
inputs other than the measured ones. Parties are processes of their own, connected
by TLS over 127.0.0.1; --network makes these connections as slow as others. Three phases are
measured: setup, the one-time sharing of plan and weights; offline, the material of an inference;
online, the inference, from the client's hello to the result. CPU seconds and bytes are sums over
all parties. docs/benchmarks.md explains every field.";

pub(super) const COMPARE_HELP: &str = "\
Examples:
  privet compare --model assets/digits/digits.onnx --input assets/digits/7.png \\
      --preprocess assets/digits/preprocess.toml
  privet compare --model m.onnx --input x.npy --engines cleartext,2pc,3pc --plot engines.png
  privet compare --model m.onnx --input x.npy --network wan --json

Every engine runs as `privet run --engine` runs it. All of them have to give the same integers.";

pub(super) const EXPORT_HELP: &str = "\
Examples:
  privet export lenet -o lenet.onnx
  privet export resnet50 -o resnet50.onnx --seed 7 --avgpool

The weights are those that `privet bench --models NAME --seed N` measures.";

/// A part of the experiment `kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelPart {
    /// Matrix products, by every instruction set in turn.
    Gemm,
    /// Convolutions, by every instruction set in turn.
    Conv,
    /// The pseudorandom generator.
    Prg,
    /// Packing and bit transposition, next to copying.
    Memory,
    /// Dealing and evaluating comparisons.
    Gates,
    /// Making and evaluating keys of function secret sharing.
    Fss,
    /// The TLS channel over loopback.
    Tls,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Experiment {
    /// Private inferences, with setup and offline phase.
    Inference,
    /// CryptGPU's models by every engine, next to plain runs: 6 inferences, the first dropped.
    #[value(name = "inference_all", alias = "inference-all")]
    InferenceAll,
    /// The same models without privacy: a float runtime, and the cleartext engine.
    #[value(name = "inference_plaintext", alias = "inference-plaintext")]
    InferencePlaintext,
    /// Single operations: ReLU, multiplication, comparison, maxima of a million elements, matrix products of 1024^3.
    Micro,
    /// Products, convolutions, comparisons, randomness, packing and transport, each next to the machine's peak.
    Kernels,
    /// Models in float, whole and in stages, in the clear and sealed: time, CPU, memory and power over time, as CSV and charts.
    Enclave,
}

impl Experiment {
    /// As it is asked for, and as rows have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::InferenceAll => "inference_all",
            Self::InferencePlaintext => "inference_plaintext",
            Self::Micro => "micro",
            Self::Kernels => "kernels",
            Self::Enclave => "enclave",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[arg(long, value_enum, default_value = "inference")]
    pub(crate) exp: Experiment,
    /// Architectures or ONNX files; `all` for lenet, minionn-cifar, vgg16-cifar, squeezenet, resnet18 and resnet50, `list` to
    /// see all names [default of the suite: CryptGPU's ten].
    #[arg(long, value_name = "NAMES|FILES", value_delimiter = ',')]
    pub(crate) models: Vec<String>,
    /// Parts of --exp kernels, separated by commas [default: all].
    #[arg(long, value_enum, value_name = "PARTS", value_delimiter = ',')]
    pub(crate) kernels: Vec<KernelPart>,
    /// What computes, separated by commas [default: 2pc; in inference_all and micro all engines].
    #[arg(long, value_enum, value_name = "ENGINES", value_delimiter = ',')]
    pub(crate) engine: Vec<Engine>,
    /// Average pooling in the place of max pooling, as CryptGPU and CrypTen publish.
    #[arg(long)]
    pub(crate) avgpool: bool,
    /// Make the connections as slow as this network: lan is 1gbit:1ms, wan 100mbit:40ms.
    #[arg(long, value_name = "lan|wan|RATE:RTT[:JITTER]", default_value = Network::LOOPBACK, value_parser = Network::parse)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) keys: super::AutoArgs,
    /// Predict wall times as well, as `privet plan --network` does.
    #[arg(long)]
    pub(crate) predict: bool,
    /// Inferences of each model, every one with another input; repetitions of each kernel at least [default: 3; in the suite 6,
    /// of which the first is dropped].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) iterations: Option<u64>,
    /// Ring width in bits [default: the smallest that fits the calibrated ranges; in micro 48].
    #[arg(long, value_name = "16..64", value_parser = clap::value_parser!(u32).range(16..=64))]
    pub(crate) ring: Option<u32>,
    /// Fractional bits [default: the fewest that keep the error on the calibration inputs within 0.001].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30))]
    pub(crate) frac_bits: Option<u32>,
    /// No calibration: ranges and comparisons have the full width of the ring.
    #[arg(long)]
    pub(crate) uncalibrated: bool,
    /// Elements of the operands in --exp micro [default: 1000000, and matrices of 1024 x 1024].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(4..=1 << 24))]
    pub(crate) elements: Option<u64>,
    /// Numbers of stages in --exp enclave, separated by commas [default: 1,2,4,12].
    #[arg(long, value_name = "K,..", value_delimiter = ',', value_parser = parts)]
    pub(crate) parts: Vec<usize>,
    /// Directory for files and charts of --exp enclave [default: privet-bench-enclave].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Seconds for which --exp enclave runs each variant of a model, at least.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Threads that multiply, in --exp enclave.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// In --exp enclave run workers by development evidence, which proves nothing. Only in builds with the feature
    /// sample-attestation-insecure.
    #[arg(long)]
    pub(crate) allow_sample_insecure: bool,
    /// Decides weights and inputs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Bound on the whole run.
    #[arg(long, value_name = "SECONDS", default_value_t = 7200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) deadline: u64,
    /// Draw the results: .svg or .png. Of the suite: time per kind of layer, overhead over a plain run, bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// One line of JSON for every model and phase, or every kernel, on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Comma-separated values on stdout, a line for every model and phase, or every kernel; everything else goes to stderr.
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
}

impl BenchArgs {
    /// Inferences or repetitions.
    pub(crate) fn iterations(&self) -> u64 {
        self.iterations.unwrap_or(match self.exp {
            Experiment::Inference | Experiment::Kernels => 3,
            Experiment::Enclave => 5,
            Experiment::InferenceAll | Experiment::InferencePlaintext | Experiment::Micro => 6,
        })
    }

    /// How many of them, the first ones, warm up and do not count.
    pub(crate) fn dropped(&self) -> u64 {
        match self.exp {
            Experiment::Inference | Experiment::Kernels | Experiment::Enclave => 0,
            _ => u64::from(self.iterations() > 1),
        }
    }

    /// Whether tables are asked for, and not lines for programs.
    pub(crate) fn is_table(&self) -> bool {
        !self.json && !self.csv
    }
}

/// A number of stages.
fn parts(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected whole numbers from 1 to 10000, such as 1,2,4,12".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=3600.0).contains(number));
    number.ok_or_else(|| "expected from 0 to 3600 seconds".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// ONNX model.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// JPEG, PNG, .npy, .npz or .csv; NAME=FILE where the model has several inputs, or one .npz with all of them.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// What computes, separated by commas [default: all engines].
    #[arg(long, value_enum, value_name = "ENGINES", value_delimiter = ',')]
    pub(crate) engines: Vec<Engine>,
    /// Make the connections as slow as this network: lan is 1gbit:1ms, wan 100mbit:40ms.
    #[arg(long, value_name = "lan|wan|RATE:RTT[:JITTER]", default_value = Network::LOOPBACK, value_parser = Network::parse)]
    pub(crate) network: Network,
    #[command(flatten)]
    pub(crate) keys: super::AutoArgs,
    #[command(flatten)]
    pub(crate) lowering: LoweringArgs,
    /// Bound on the whole run.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) deadline: u64,
    /// Draw seconds, CPU seconds and bytes of every engine: .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// One line of JSON for every engine on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// An architecture; `privet bench --models list` shows all names.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The file to write.
    #[arg(short, long, value_name = "FILE.onnx")]
    pub(crate) output: PathBuf,
    /// Decides the weights.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Average pooling in the place of max pooling.
    #[arg(long)]
    pub(crate) avgpool: bool,
}

/// What runs a model without privacy, in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// An ONNX file in float.
    Float,
    /// The cleartext engine, on a directory made by `privet compile`.
    Cleartext,
    /// An ONNX file in float by the kernels that run sealed models, with all weights in memory.
    Resident,
}

#[derive(Debug, Args)]
pub(crate) struct PlainArgs {
    /// What runs it.
    #[arg(value_enum)]
    pub(crate) runtime: Runtime,
    /// ONNX model, or a compiled model's directory.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// The inputs of all inferences, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) inputs: PathBuf,
    /// Where the outputs of all inferences are written, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) raw: PathBuf,
    /// Of a resident model: least number of inferences.
    #[arg(long, default_value_t = 1)]
    pub(crate) iterations: u64,
    /// Of a resident model: least seconds.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) process: super::ProcessArgs,
}
