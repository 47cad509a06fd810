//! Arguments of `key`, `seal` and `unseal`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use privet::seal::{KeyId, ModelId};

use super::common::model_version;

pub(crate) const KEY_HELP: &str = "\
Examples:
  privet key new --id resnet50 --out owner       # owner/content.key, signing.key and release.toml
  privet key kek --out kek                       # or 32 bytes of a key-management system, mode 0600
  privet key wrap --key owner --kek kek --out resnet50.wrapped
  privet key unwrap --in resnet50.wrapped --kek kek --release owner/release.toml --out worker

Whoever has the content key can read the model; whoever has the signing key can make models that are
accepted as this owner's. release.toml is public. Keys are never overwritten; keep a copy of the
directory where you keep secrets: a model whose content key is lost cannot be opened.";

pub(crate) const SEAL_HELP: &str = "\
Examples:
  privet seal --model resnet50.onnx --key owner --out resnet50.sealed
  privet seal --model resnet50.onnx --key owner --out resnet50.sealed --version 2 --json

Names and shapes of tensors, model and key ids, versions and a SHA-256 of the graph stay readable; weights
and graph do not. Raise --version with every model that is to replace an older one: readers refuse what
is older than they were told. --json: cpu_seconds are of the whole process, peak_memory_bytes as well.";

pub(crate) const UNSEAL_HELP: &str = "\
Examples:
  privet unseal --in resnet50.sealed --key owner --out resnet50.onnx
  privet unseal --in resnet50.sealed --key worker --out resnet50.onnx --min-version 2

Writes the file that was sealed, byte for byte, with mode 0600. It appears when all of it has been
verified. The directory needs content.key and release.toml only.";

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Make an owner's keys, and the public release file.
    New(KeyNewArgs),
    /// Make a key-encryption key.
    Kek(KeyKekArgs),
    /// Encrypt the content key under a key-encryption key.
    Wrap(KeyWrapArgs),
    /// Decrypt a wrapped content key into a directory that opens models.
    Unwrap(KeyUnwrapArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KeyNewArgs {
    /// Name under which the content key is asked for: letters, digits, '-', '_' and '.'.
    #[arg(long, value_name = "ID")]
    pub(crate) id: KeyId,
    /// Directory for the keys; it is made, closed to others.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The model the keys are for [default: a new UUID].
    #[arg(long, value_name = "UUID")]
    pub(crate) model_id: Option<ModelId>,
}

#[derive(Debug, Args)]
pub(crate) struct KeyKekArgs {
    /// File for the key: 32 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KeyWrapArgs {
    /// The owner's directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: PathBuf,
    /// The key-encryption key: 32 bytes or 64 hexadecimal digits, mode 0600.
    #[arg(long, value_name = "FILE")]
    pub(crate) kek: PathBuf,
    /// File for the wrapped key.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KeyUnwrapArgs {
    /// The wrapped key.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The key-encryption key.
    #[arg(long, value_name = "FILE")]
    pub(crate) kek: PathBuf,
    /// The owner's release file: the key has to be the one it names.
    #[arg(long, value_name = "release.toml")]
    pub(crate) release: PathBuf,
    /// Directory for content key and release file; it is made, closed to others.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(crate) struct SealArgs {
    /// ONNX model, in one file.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// The owner's directory, made by `privet key new`.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: PathBuf,
    /// The sealed model.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Version of the model.
    #[arg(long, value_name = "N", default_value = "1", value_parser = model_version)]
    pub(crate) version: NonZeroU64,
    /// Kilobytes of a chunk, a power of two: what a reader holds at a time.
    #[arg(long, value_name = "64..1024", default_value = "256", value_parser = chunk_bits)]
    pub(crate) chunk: u8,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnsealArgs {
    /// The sealed model.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Directory with content.key and release.toml.
    #[arg(long, value_name = "DIR")]
    pub(crate) key: PathBuf,
    /// The ONNX model.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Refuse older versions of the model.
    #[arg(long, value_name = "N", default_value = "1", value_parser = model_version)]
    pub(crate) min_version: NonZeroU64,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Base-2 logarithm of the bytes in so many kilobytes.
fn chunk_bits(text: &str) -> Result<u8, String> {
    let kilobytes: u32 = text.parse().map_err(|_| "expected 64, 128, 256, 512 or 1024")?;
    match kilobytes {
        64 | 128 | 256 | 512 | 1024 => Ok(10 + kilobytes.ilog2() as u8),
        _ => Err("expected 64, 128, 256, 512 or 1024".to_owned()),
    }
}
