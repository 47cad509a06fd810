//! What the program can load, read and write.

use std::collections::HashMap;

use super::document::{Document, Value};
use super::{Findings, Severity};

use Severity::{Insecure, Note, Weak};

const TRUSTED: &str = "sgx.trusted_files";
const ALLOWED: &str = "sgx.allowed_files";
const MOUNTS: &str = "fs.mounts";

pub(super) fn check(document: &Document, findings: &mut Findings) {
    let trusted = trusted(document, findings);
    allowed(document, findings);
    root(document, findings);
    mounts(document, &trusted, findings);
    entrypoint(document, &trusted, findings);
    for key in ["loader.argv_src_file", "loader.env_src_file"] {
        if let Some((line, uri)) = document.text(key)
            && !trusted.covers(uri)
        {
            let message = format!("{uri} is not among the trusted files: the host writes it");
            findings.add(line, key, Insecure, "host-file", message);
        }
    }
    if let Some((line, policy)) = document.text("sgx.file_check_policy")
        && policy != "strict"
        && !policy.contains(super::document::PLACE)
    {
        let message = if policy == "allow_all_but_log" {
            "every file of the host may be read and loaded, whatever is in it: as if all were allowed; leave it out, or set \"strict\"".to_owned()
        } else {
            format!("expected \"strict\" or \"allow_all_but_log\", found {policy:?}")
        };
        findings.add(line, "sgx.file_check_policy", Insecure, "file-check-policy", message);
    }
}

/// Files and directories whose contents are checked.
struct Trusted<'a> {
    uris: Vec<&'a str>,
}

impl Trusted<'_> {
    /// Whether a file is one of them, or within one.
    fn covers(&self, uri: &str) -> bool {
        let inside = |dir: &&str| dir.ends_with('/') && uri.starts_with(*dir);
        self.uris.iter().any(|known| *known == uri || inside(known))
    }

    /// Whether some file of a directory is one of them.
    fn has_within(&self, uri: &str) -> bool {
        let dir = format!("{}/", uri.trim_end_matches('/'));
        self.uris.iter().any(|known| known.starts_with(&dir))
    }
}

fn trusted<'a>(document: &'a Document, findings: &mut Findings) -> Trusted<'a> {
    let mut hashes: HashMap<&str, &str> = HashMap::new();
    let mut uris = Vec::new();
    match document.get(TRUSTED).map(|option| (option.line, &option.value)) {
        None => {
            findings.add(
                0,
                TRUSTED,
                Weak,
                "no-trusted-files",
                "nothing is trusted: not even the program could be loaded",
            );
        }
        Some((line, Value::Table(_))) => {
            let message = "a table of names is the syntax of older versions; Gramine 1.9 wants a list of { uri, sha256 }";
            findings.add(line, TRUSTED, Weak, "old-option", message);
        }
        Some(_) => {}
    }
    for (line, entry) in document.list(TRUSTED) {
        let Some(uri) = entry.text().or_else(|| entry.field("uri")) else {
            findings.add(
                *line,
                TRUSTED,
                Weak,
                "wrong-type",
                "expected { uri = \"file:..\", sha256 = \"..\" }",
            );
            continue;
        };
        uris.push(uri);
        place(*line, TRUSTED, uri, findings);
        if uri.ends_with('/') {
            let message = format!(
                "{uri} is a directory: whatever lies in it when the manifest is signed is trusted; name the files"
            );
            findings.add(*line, TRUSTED, Weak, "trusted-directory", message);
            continue;
        }
        match entry.field("sha256") {
            None => {
                let message = format!(
                    "{uri} has no sha256: whatever lies there when the manifest is signed is trusted, and who reads the manifest cannot see what that was"
                );
                findings.add(*line, TRUSTED, Weak, "unhashed", message);
            }
            Some(hash) if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let message = format!("{uri}: expected a sha256 of 64 hexadecimal digits, found {hash:?}");
                findings.add(*line, TRUSTED, Insecure, "unhashed", message);
            }
            Some(hash) => {
                if hashes.insert(uri, hash).is_some_and(|other| !other.eq_ignore_ascii_case(hash)) {
                    findings.add(
                        *line,
                        TRUSTED,
                        Insecure,
                        "two-hashes",
                        format!("{uri} is here with two hashes"),
                    );
                }
            }
        }
    }
    Trusted { uris }
}

/// What a place on the host should be like.
fn place(line: usize, key: &str, uri: &str, findings: &mut Findings) {
    let Some(path) = uri.strip_prefix("file:") else {
        findings.add(line, key, Weak, "wrong-place", format!("expected file:PATH, found {uri}"));
        return;
    };
    if path.starts_with(super::document::PLACE) {
        return;
    }
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let message = format!(
            "{uri} depends on where Gramine is started; name the file by an absolute path without \"..\""
        );
        findings.add(line, key, Weak, "relative-path", message);
    }
}

fn allowed(document: &Document, findings: &mut Findings) {
    let message = |uri: &str| {
        format!(
            "{uri}: the host may put anything into an allowed file, and read what the program writes to it; trust it with its sha256, or mount it as \"encrypted\" where it is written"
        )
    };
    for (line, entry) in document.list(ALLOWED) {
        let uri = entry.text().unwrap_or("an entry that is no text");
        findings.add(*line, ALLOWED, Insecure, "allowed-file", message(uri));
    }
    // The older syntax: sgx.allowed_files.NAME = "file:..".
    for option in document.table(ALLOWED) {
        let key = format!("{ALLOWED}.{}", option.name);
        findings.add(option.line, key, Insecure, "allowed-file", message(option.value.text().unwrap_or("?")));
    }
    for (line, entry) in document.list("sgx.protected_files") {
        let uri = entry.text().unwrap_or("?");
        let text = format!(
            "{uri}: protected files are mounts of type \"encrypted\" since Gramine 1.0; this one is not protected"
        );
        findings.add(*line, "sgx.protected_files", Insecure, "old-option", text);
    }
}

fn root(document: &Document, findings: &mut Findings) {
    let kind = document.text("fs.root.type");
    match (kind, document.text("fs.root.uri")) {
        (Some((_, kind)), _) if kind != "chroot" => {}
        (_, Some((line, uri))) => {
            let message = format!(
                "{uri} of the host is the root: names in it, and whether files are there, are the host's to say; set fs.root.type = \"tmpfs\" and mount single files"
            );
            findings.add(line, "fs.root.uri", Weak, "host-root", message);
        }
        _ => {
            let message = "the directory that Gramine is started in is the root; set fs.root.type = \"tmpfs\" and mount single files";
            findings.add(0, "fs.root", Weak, "host-root", message);
        }
    }
    let is_temporary = |entry: &Value| {
        entry.field("type") == Some("tmpfs")
            && entry.field("path").is_some_and(|p| p.trim_end_matches('/') == "/tmp")
    };
    let in_memory = kind.is_some_and(|(_, kind)| kind == "tmpfs");
    if !in_memory && !document.list(MOUNTS).iter().any(|(_, entry)| is_temporary(entry)) {
        let message = "/tmp is not in memory: a program that writes temporary files needs them allowed, in the open on the host; mount { type = \"tmpfs\", path = \"/tmp\" }";
        findings.add(0, MOUNTS, Weak, "no-tmpfs", message);
    }
}

fn mounts(document: &Document, trusted: &Trusted<'_>, findings: &mut Findings) {
    for (line, entry) in document.list(MOUNTS) {
        let path = entry.field("path").unwrap_or_default();
        if !path.starts_with('/') && !path.starts_with(super::document::PLACE) {
            let message = format!("expected an absolute path inside, found {path:?}");
            findings.add(*line, MOUNTS, Weak, "wrong-place", message);
        }
        let uri = entry.field("uri").unwrap_or_default();
        match entry.field("type").unwrap_or("chroot") {
            "tmpfs" => continue,
            "untrusted_shm" => {
                let message = format!(
                    "{path}: memory shared with the host, in the open; whatever passes through it has to be encrypted and authenticated"
                );
                findings.add(*line, MOUNTS, Insecure, "shared-memory", message);
            }
            "encrypted" => {
                place(*line, MOUNTS, uri, findings);
                match entry.field("key_name") {
                    Some("_sgx_mrsigner") => {
                        let message = format!(
                            "{path}: every enclave of the same signer on this machine can read and replace these files"
                        );
                        findings.add(*line, MOUNTS, Note, "signer-key", message);
                    }
                    Some("_sgx_mrenclave") => {
                        let message = format!(
                            "{path}: the program must not use the key _sgx_mrenclave itself as well, and an update of it cannot read these files"
                        );
                        findings.add(*line, MOUNTS, Note, "enclave-key", message);
                    }
                    _ => {
                        let message = format!(
                            "{path}: its key has to come from outside after attestation, before the first file is opened"
                        );
                        findings.add(*line, MOUNTS, Note, "provisioned-key", message);
                    }
                }
            }
            "chroot" => {
                place(*line, MOUNTS, uri, findings);
                if matches!(uri, "file:/" | "file:." | "file:./") || uri.is_empty() {
                    let message =
                        format!("{uri:?} at {path}: a whole file system of the host; mount single files");
                    findings.add(*line, MOUNTS, Weak, "host-directory", message);
                } else if trusted.covers(uri) {
                } else if uri.ends_with('/') || trusted.has_within(uri) {
                    let message = format!(
                        "{uri} at {path} is a directory: which names are in it is the host's to say; mount single files"
                    );
                    findings.add(*line, MOUNTS, Note, "host-directory", message);
                } else if !uri.contains(super::document::PLACE) {
                    let message =
                        format!("nothing trusts {uri}: if it is a file, opening it fails, or it is allowed");
                    findings.add(*line, MOUNTS, Note, "untrusted-mount", message);
                }
            }
            other => {
                let message = format!("expected chroot, encrypted, tmpfs or untrusted_shm, found {other:?}");
                findings.add(*line, MOUNTS, Weak, "wrong-type", message);
            }
        }
    }
}

/// Whether the program itself is trusted.
fn entrypoint(document: &Document, trusted: &Trusted<'_>, findings: &mut Findings) {
    let Some((line, path)) = document.text("libos.entrypoint") else { return };
    let mounted = document.list(MOUNTS).iter().find_map(|(_, entry)| {
        let (inside, uri) = (entry.field("path")?, entry.field("uri")?);
        let rest = path.strip_prefix(inside)?;
        if rest.is_empty() {
            Some(uri.to_owned())
        } else {
            Some(format!("{uri}{rest}")).filter(|_| rest.starts_with('/'))
        }
    });
    let is_known =
        mounted.as_ref().is_some_and(|uri| trusted.covers(uri) || uri.contains(super::document::PLACE));
    if !is_known && !path.contains(super::document::PLACE) {
        let message = match mounted {
            Some(uri) => format!("the program {path} is {uri}, which no trusted file covers"),
            None => format!("no mount has the program {path}: it would come from the root"),
        };
        findings.add(line, "libos.entrypoint", Weak, "untrusted-entrypoint", message);
    }
}
