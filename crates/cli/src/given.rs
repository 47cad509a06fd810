//! Files that arguments name: what is wrong with them is said with the argument, what was expected there, and what makes one.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::exit::{Code, Failure, one_line};

pub(crate) const SEALED: &str = "a sealed model, which `privet seal` makes";
pub(crate) const STAGES: &str = "a directory of sealed stages, which `privet split --key` makes";
pub(crate) const RELEASE: &str = "the release.toml of the model's owner, which `privet key new` makes";
pub(crate) const OWNER: &str = "a directory that privet key new, key unwrap or keyserver key rotate has made";
pub(crate) const POLICY: &str = "an attestation policy (docs/attestation.md#policies)";
pub(crate) const CERTIFICATE: &str =
    "the tls.crt of that server or cache (`privet keyserver init` makes a server's)";

/// Whether there is a file. The argument's name is empty where it has none.
pub(crate) fn file(flag: &str, path: &Path, expected: &str) -> anyhow::Result<()> {
    let problem = match fs::metadata(path) {
        Ok(found) if found.is_dir() => "this is a directory".to_owned(),
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(wrong(flag, path, &problem, expected))
}

/// Whether there is a directory.
pub(crate) fn directory(flag: &str, path: &Path, expected: &str) -> anyhow::Result<()> {
    let problem = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "this is a file".to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        Err(e) => e.to_string(),
    };
    Err(wrong(flag, path, &problem, expected))
}

/// Whether somebody may listen on a Unix socket.
pub(crate) fn socket(flag: &str, path: &Path, expected: &str) -> anyhow::Result<()> {
    let problem = match fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => return Ok(()),
        Ok(_) => "this is not a socket".to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        Err(e) => e.to_string(),
    };
    let text = format!("{flag} unix:{}: {problem}; expected {expected}", path.display());
    Err(Failure::error(Code::Peer, text.trim_start()))
}

/// The same error, with the argument that it is about.
pub(crate) fn by<T, E: Into<anyhow::Error>>(flag: &str, outcome: Result<T, E>) -> anyhow::Result<T> {
    outcome.map_err(|error| {
        let error = error.into();
        Failure::error(Code::of(&error), format!("{flag} {}", one_line(&error)))
    })
}

fn wrong(flag: &str, path: &Path, problem: &str, expected: &str) -> anyhow::Error {
    let text = format!("{flag} {}: {problem}; expected {expected}", path.display());
    Failure::error(Code::Input, text.trim_start())
}
