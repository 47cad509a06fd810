//! Arguments of `split` and `stages`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::common::model_version;

pub(super) const SPLIT_HELP: &str = "\
Examples:
  privet split --model vgg16.onnx --parts 12 --onnx --out vgg16-stages
  privet split --model vgg16.onnx --memory 64MiB --onnx --out vgg16-stages
  privet split --model resnet50.onnx --parts 4 --balance time --onnx --out resnet50-stages --json
  privet split --model vgg16.onnx --memory 64MiB --key owner --version 2 --out vgg16-sealed

--memory is for weights, tensors and workspace together; a weight that does not fit beside what its operation
reads and makes arrives block by block. Splitting is for machines with little memory. It protects nothing:
what protects a model is --key, which seals every stage and signs the index (`privet key new` makes the keys).";

pub(super) const STAGES_HELP: &str = "\
Examples:
  privet stages vgg16-stages --input dog.jpg --preprocess imagenet
  privet stages vgg16-stages --input x.npy --output y.npz --threads 2 --json
  privet stages vgg16-sealed --key owner --min-version 2 --input dog.jpg --preprocess imagenet

The stages of `privet split` run one by one in one process, in float and without any privacy. The process is held to the
memory that was asked for, or else the largest predicted peak, and 24 MiB for the program itself. With --key,
sealed stages are verified, and opened in memory only: for their owner, to see what they take.";

/// What decides between plans with as many stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Balance {
    /// The smallest peak of the largest stage.
    Memory,
    /// The least work in the stage with most.
    Time,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("how").args(["parts", "memory"]).required(true).multiple(true))]
#[command(group = ArgGroup::new("kind").args(["onnx", "key"]).required(true), disable_version_flag = true)]
pub(crate) struct SplitArgs {
    /// ONNX model.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// Number of stages.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parts: Option<u32>,
    /// Bytes of weights, tensors and workspace at a time; as few stages as keep to it, unless --parts says how many.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,
    /// What decides between plans with as many stages.
    #[arg(long, value_enum, default_value = "memory")]
    pub(crate) balance: Balance,
    /// Write the stages as ONNX files, in the clear.
    #[arg(long)]
    pub(crate) onnx: bool,
    /// Seal the stages with the keys of this owner's directory, and sign the index.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: Option<PathBuf>,
    /// Version of the sealed model.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "onnx", value_parser = model_version)]
    pub(crate) version: NonZeroU64,
    /// Shape of an input that the model leaves open (a batch that it leaves open is 1).
    #[arg(long, value_name = "[NAME=]D0,D1,..")]
    pub(crate) input_shape: Vec<String>,
    /// New directory for the stages and their index.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The index on stdout, as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Directory that `privet split` wrote.
    #[arg(value_name = "DIR")]
    pub(crate) stages: PathBuf,
    /// Directory with the content key and the release file of sealed stages.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: Option<PathBuf>,
    /// Refuse sealed stages of an older version.
    #[arg(long, value_name = "N", default_value = "1", requires = "key", value_parser = model_version)]
    pub(crate) min_version: NonZeroU64,
    /// Lock the weights of sealed stages into memory, so that they are not swapped out (`ulimit -l` has to allow it).
    #[arg(long, requires = "key")]
    pub(crate) lock: bool,
    /// JPEG, PNG, .npy, .npz or .csv; NAME=FILE where the model has several inputs.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// How a picture becomes an input: imagenet, mnist, none, or a TOML file.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) preprocess: Option<String>,
    /// Write the outputs: .npz, or .npy and .csv for a single one.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Threads that multiply.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Run as often; the last run is shown.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Do not check that the stages are the files that the index was written for.
    #[arg(long, conflicts_with = "key")]
    pub(crate) no_check: bool,
    /// One line of JSON on stdout.
    #[arg(long)]
    pub(crate) json: bool,
    /// This is the process that computes, held to as many bytes.
    #[arg(long, hide = true, value_name = "BYTES")]
    pub(crate) within: Option<u64>,
}

/// Bytes, or `64MiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("expected a whole number of bytes, KiB, MiB or GiB, such as 64MiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number, such as 64MiB".to_owned())?;
    let bytes = number.checked_mul(1 << shift).filter(|&bytes| bytes > 0 && bytes <= 1 << 48);
    bytes.ok_or_else(|| "expected from 1 byte to 256 TiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        for wrong in ["", "MiB", "64MB", "-1", "0", "18446744073709551615GiB", "1.5MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
