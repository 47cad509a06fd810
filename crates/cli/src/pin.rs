//! Whose model `privet enclave ask` asks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use privet::enclave::ModelPin;
use privet::seal::{ModelVersion, VerifyingKey};

use crate::args::enclave::AskArgs;
use crate::exit::{Code, Failure};
use crate::worker_files::release;

/// A key's file has 64 digits; more than this is none.
const MAX_BYTES: u64 = 4096;

/// What the arguments say about the model.
pub(crate) fn pin(args: &AskArgs) -> anyhow::Result<ModelPin> {
    let owner = match (&args.release, &args.verifying_key) {
        (Some(path), _) => ModelPin::of_release(&release(path)?),
        (None, Some(key)) => ModelPin { verifying_key: Some(verifying_key(key)?), ..ModelPin::default() },
        (None, None) => ModelPin::default(),
    };
    Ok(ModelPin {
        id: args.model_id.or(owner.id),
        min_version: args.min_version.and_then(|version| ModelVersion::new(version.get())),
        digest: args.model_digest,
        ..owner
    })
}

/// A key, or that of a file.
fn verifying_key(given: &str) -> anyhow::Result<VerifyingKey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let fail = |problem: &str| {
        let text = format!(
            "--verifying-key {given}: {problem}; expected 64 hexadecimal digits or a file with them (`verifying_key` of the \
             owner's release file, which --release takes as it is)"
        );
        Failure::error(Code::Input, text)
    };
    let mut text = String::new();
    let read = File::open(Path::new(given)).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| fail(&error.to_string()))?;
    text.trim().parse().map_err(|_| fail("not a verifying key"))
}
