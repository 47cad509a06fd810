//! An owner's keys and sealed models: `key`, `seal` and `unseal`.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Instant;

use privet::resources;
use privet::seal::{
    self, Accepted, ModelId, ModelVersion, OwnerKeys, Release, SealOptions, SealedModel, WrappedKey,
    WrappingKey,
};
use serde::Serialize;

use crate::args::seal::{KeyAction, KeyArgs, KeyNewArgs, KeyUnwrapArgs, KeyWrapArgs, SealArgs, UnsealArgs};
use crate::commands::print_line;
use crate::given;
use crate::secrets::keep_memory_private;
use crate::show::{print, table};
use crate::signals;

/// What `--kek` names.
const KEK: &str = "a key-encryption key, which `privet key kek` makes";

pub(crate) fn key(args: &KeyArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    match &args.action {
        KeyAction::New(args) => new(args),
        KeyAction::Kek(args) => {
            WrappingKey::generate()?.write(&args.out)?;
            print(&format!("{}: key-encryption key, secret", args.out.display()))
        }
        KeyAction::Wrap(args) => wrap(args),
        KeyAction::Unwrap(args) => unwrap(args),
    }
}

fn new(args: &KeyNewArgs) -> anyhow::Result<()> {
    let model_id = args.model_id.map_or_else(ModelId::random, Ok)?;
    let keys = OwnerKeys::generate(args.id.clone(), model_id)?;
    keys.write(&args.out)?;
    let at = |name: &str| args.out.join(name).display().to_string();
    print(&describe(&keys.release))?;
    print(&format!(
        "opens the model:  {}\nsigns the model:  {}",
        at(seal::CONTENT_KEY_FILE),
        at(seal::SIGNING_KEY_FILE)
    ))?;
    print(&format!("public:           {}", at(seal::RELEASE_FILE)))
}

fn wrap(args: &KeyWrapArgs) -> anyhow::Result<()> {
    given::directory("--key", &args.key, given::OWNER)?;
    given::file("--kek", &args.kek, KEK)?;
    let (content, release) = seal::read_content(&args.key)?;
    let kek = WrappingKey::read(&args.kek)?;
    WrappedKey::wrap(&content, &release.key_id, release.key_version, &kek)?.write(&args.out)?;
    let (id, version) = (&release.key_id, release.key_version);
    print(&format!("{}: key {id} version {version}, wrapped", args.out.display()))
}

fn unwrap(args: &KeyUnwrapArgs) -> anyhow::Result<()> {
    given::file("--in", &args.input, "a wrapped key, which `privet key wrap` makes")?;
    given::file("--kek", &args.kek, KEK)?;
    given::file("--release", &args.release, given::RELEASE)?;
    let release = seal::unwrap_into(&args.out, &args.input, &args.kek, &args.release)?;
    print(&describe(&release))?;
    print(&format!("opens the model:  {}", args.out.join(seal::CONTENT_KEY_FILE).display()))
}

fn describe(release: &Release) -> String {
    format!(
        "key {} version {} of model {}\n  key fingerprint {}\n  verifying key   {}",
        release.key_id, release.key_version, release.model_id, release.fingerprint, release.verifying_key
    )
}

/// What `privet seal --json` and `privet unseal --json` print.
#[derive(Debug, Serialize)]
struct SealResult {
    model_id: String,
    model_version: u64,
    key_id: String,
    key_version: u32,
    /// SHA-256 that names the sealed file.
    digest: String,
    tensors: usize,
    graph_bytes: u64,
    /// Of the model.
    bytes: u64,
    sealed_bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_memory_bytes: u64,
}

impl SealResult {
    fn print(&self, is_json: bool, what: &str, out: &Path) -> anyhow::Result<()> {
        if is_json {
            return print_line(self);
        }
        print(&format!(
            "{what}: model {} version {}, key {} version {}\n  {} tensors and a graph of {}, {} in {:.2} s ({:.2} s CPU), \
             {} of memory\n  digest {}\n{}",
            self.model_id,
            self.model_version,
            self.key_id,
            self.key_version,
            self.tensors,
            table::bytes(self.graph_bytes),
            table::bytes(self.bytes),
            self.seconds,
            self.cpu_seconds,
            table::bytes(self.peak_memory_bytes),
            self.digest,
            out.display()
        ))
    }
}

pub(crate) fn seal(args: &SealArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    given::file("--model", &args.model, "an ONNX file")?;
    given::directory("--key", &args.key, given::OWNER)?;
    let start = Instant::now();
    let keys = OwnerKeys::read(&args.key)?;
    let options =
        SealOptions { version: version(args.version), chunk_bits: args.chunk, ..SealOptions::default() };
    let stop = signals::short_flag()?;
    let sealed = seal::seal_onnx_until(&args.model, &args.out, &keys, &options, &stop)?;
    let release = &keys.release;
    let result = SealResult {
        model_id: release.model_id.to_string(),
        model_version: args.version.get(),
        key_id: release.key_id.to_string(),
        key_version: release.key_version.get(),
        digest: sealed.digest.to_string(),
        tensors: sealed.tensors,
        graph_bytes: sealed.graph_bytes,
        bytes: sealed.plain_bytes,
        sealed_bytes: sealed.sealed_bytes,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: resources::cpu_seconds(),
        peak_memory_bytes: resources::peak_memory_bytes(),
    };
    result.print(args.json, "sealed", &args.out)
}

pub(crate) fn unseal(args: &UnsealArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    given::file("--in", &args.input, given::SEALED)?;
    given::directory("--key", &args.key, given::OWNER)?;
    let start = Instant::now();
    let (content, release) = seal::read_content(&args.key)?;
    let accepted = Accepted::new(&release, version(args.min_version));
    let model = SealedModel::verify_file(&args.input, &accepted)?;
    let sealed_bytes = std::fs::metadata(&args.input).map_or(0, |m| m.len());
    let model = model.open(&content)?;
    // What is written until then is the model in the clear: it must not stay.
    let stop = signals::quiet_flag()?;
    let bytes = seal::unseal_onnx_until(&model, &args.out, &stop)?;
    let header = model.header();
    let result = SealResult {
        model_id: header.model_id.to_string(),
        model_version: header.model_version.get(),
        key_id: header.key_id.to_string(),
        key_version: header.key_version.get(),
        digest: model.digest().to_string(),
        tensors: header.entries.len() - 1,
        graph_bytes: header.entries[0].length,
        bytes,
        sealed_bytes,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: resources::cpu_seconds(),
        peak_memory_bytes: resources::peak_memory_bytes(),
    };
    result.print(args.json, "unsealed", &args.out)
}

pub(crate) fn version(number: NonZeroU64) -> ModelVersion {
    ModelVersion::new(number.get()).expect("not zero")
}
