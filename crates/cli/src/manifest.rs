//! `privet manifest`: writes and lints Gramine manifests.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use privet::attest::policy::FileKind;
use privet::enclave::Pinned;
use privet::keys::cache::{CacheConfig, LEASES_FILE};
use privet::manifest::{self, Finding, MAX_MANIFEST_BYTES, ManifestOptions, Severity, TrustedFile, Written};
use privet::seal::ModelVersion;
use serde::Serialize;

use crate::args::manifest::{ManifestArgs, ManifestCommand, ManifestRole};
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::given;
use crate::keys::{attestation_policy, certificate_of};
use crate::show::{print, table};
use crate::worker_files;

/// Activations and workspace of a model whose peak nobody predicted.
const ACTIVATIONS: u64 = 128 << 20;
/// What servers of keys hold.
const SERVER_MEMORY: u64 = 64 << 20;
/// Of a worker besides those that multiply: main, connections, keys and their renewal, decryption of what comes next, its lines.
const WORKER_THREADS: u32 = 17;
/// Of servers of keys: main, connections, requests, handshakes.
const SERVER_THREADS: u32 = 60;
/// Most files of a directory.
const MAX_FILES: usize = 10_000;

/// What `--json` prints.
#[derive(Serialize)]
struct ManifestResult<'a> {
    role: &'a str,
    file: String,
    enclave_size_bytes: u64,
    threads: u32,
    trusted_files: usize,
    dynamic: bool,
}

/// What `lint --json` prints.
#[derive(Serialize)]
struct LintResult<'a> {
    file: String,
    findings: &'a [Finding],
    insecure: usize,
    weak: usize,
}

pub(crate) fn manifest(args: &ManifestArgs) -> anyhow::Result<()> {
    if let Some(ManifestCommand::Lint { file, json }) = &args.command {
        return lint(file, *json);
    }
    let (Some(role), Some(out)) = (args.role, &args.out) else {
        return Err(Failure::error(Code::Usage, "--role and --out say what to write and where"));
    };
    misplaced(args, role)?;
    let options = options(args, role)?;
    let written = manifest::manifest(&options)?;
    let path = out.join(format!("{}.manifest", role.name()));
    if out.exists() {
        given::directory("--out", out, "a directory for the manifest")?;
    }
    write(out, &path, &written.text)?;
    if args.json {
        return print_line(&ManifestResult {
            role: role.name(),
            file: path.display().to_string(),
            enclave_size_bytes: written.enclave_size,
            threads: written.threads,
            trusted_files: written.files,
            dynamic: written.dynamic,
        });
    }
    print(&describe(args, &written, &path))
}

/// Refuses what belongs to another role.
fn misplaced(args: &ManifestArgs, role: ManifestRole) -> anyhow::Result<()> {
    use ManifestRole::{Keycache, Keyserver, Worker};
    let given: [(&str, bool, &[ManifestRole]); 9] = [
        ("--sealed", args.sealed.is_some(), &[Worker]),
        ("--stages", args.stages.is_some(), &[Worker]),
        ("--release", args.release.is_some(), &[Worker]),
        ("--keycache", args.keycache.is_some(), &[Worker]),
        ("--keyserver", args.keyserver.is_some(), &[Worker]),
        ("--server-certificate", args.server_certificate.is_some(), &[Worker]),
        ("--server-policy", args.server_policy.is_some(), &[Worker]),
        ("--dir", args.dir.is_some(), &[Keycache]),
        ("--state", args.state.is_some(), &[Keycache, Keyserver]),
    ];
    for (option, is_given, roles) in given {
        if is_given && !roles.contains(&role) {
            let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            let text = format!("{option} belongs to --role {}, not {}", roles.join(" and "), role.name());
            return Err(Failure::error(Code::Usage, text));
        }
    }
    Ok(())
}

fn options(args: &ManifestArgs, role: ManifestRole) -> anyhow::Result<ManifestOptions> {
    if let Some(gramine) = &args.gramine {
        let expected = "Gramine's directory, in which it has its libsysdb.so";
        given::directory("--gramine", gramine, expected)?;
        given::file("--gramine", &gramine.join("libsysdb.so"), expected)?;
    }
    let program = match &args.binary {
        Some(binary) => {
            given::file("--binary", binary, "the program to run in the enclave")?;
            binary.clone()
        }
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    let mut library_paths = args.library_path.clone();
    library_paths.extend(args.gramine.iter().map(|gramine| gramine.join("runtime/glibc")));
    let mut options = ManifestOptions {
        title: format!("privet {}", role.name()),
        program,
        library_paths,
        gramine: args.gramine.clone(),
        threads: args.threads,
        edmm: args.edmm,
        product: args.product,
        security_version: args.svn,
        ..ManifestOptions::default()
    };
    match role {
        ManifestRole::Worker => worker(args, &mut options)?,
        ManifestRole::Keycache => keycache(args, &mut options)?,
        ManifestRole::Keyserver => keyserver(args, &mut options)?,
    }
    if let Some(memory) = args.memory {
        options.memory = memory;
    }
    if !args.arguments.is_empty() {
        options.argv = std::iter::once("privet")
            .chain(args.arguments.iter().map(String::as_str))
            .map(str::to_owned)
            .collect();
    }
    for given in &args.trust {
        let Some((host, inside)) = given.rsplit_once('=') else {
            let text = format!("--trust {given}: expected FILE=PATH, such as tls.crt=/tls.crt");
            return Err(Failure::error(Code::Usage, text));
        };
        given::file("--trust", Path::new(host), "FILE=PATH, with a file that is there")?;
        options.files.push(TrustedFile { host: host.into(), inside: inside.to_owned() });
    }
    Ok(options)
}

fn worker(args: &ManifestArgs, options: &mut ManifestOptions) -> anyhow::Result<()> {
    let usage = |text: &str| Failure::error(Code::Usage, text);
    let (keys, address) = match (&args.keycache, &args.keyserver) {
        (Some(address), _) => ("--keycache", address),
        (None, Some(address)) => ("--keyserver", address),
        (None, None) => return Err(usage("--keycache or --keyserver says where the worker gets its key")),
    };
    let Some(release) = &args.release else {
        return Err(usage("--release FILE says whose models the worker opens"));
    };
    let (trust, option, known_by) = match (&args.server_certificate, &args.server_policy) {
        (Some(file), _) => (file, "--server-certificate", "/keys/server.crt"),
        (None, Some(file)) => (file, "--server-policy", "/keys/server.toml"),
        (None, None) => {
            return Err(usage(
                "--server-certificate or --server-policy says how the worker knows that cache or server",
            ));
        }
    };
    let pinned = Pinned::of_release(&worker_files::release(release)?, ModelVersion::FIRST, None);
    match (&args.server_certificate, &args.server_policy) {
        (Some(path), _) => drop(certificate_of(path)?),
        (None, path) => {
            path.iter().try_for_each(|path| attestation_policy("--server-policy", path).map(drop))?
        }
    }
    options.names = address.parse::<SocketAddr>().is_err();
    let release_inside = "/model/release.toml";
    for (host, inside) in [(release, release_inside), (trust, known_by)] {
        options.files.push(TrustedFile { host: host.clone(), inside: inside.to_owned() });
    }
    options.threads += WORKER_THREADS;
    options.environment.push(("RAYON_NUM_THREADS".to_owned(), args.threads.to_string()));
    let model = match (&args.sealed, &args.stages) {
        (Some(sealed), _) => {
            worker_files::sealed(sealed, &pinned)?;
            let name = sealed.file_name().and_then(|n| n.to_str()).unwrap_or("model.sealed");
            let inside = format!("/model/{name}");
            options.memory = bytes(sealed)?.saturating_add(ACTIVATIONS);
            options.files.push(TrustedFile { host: sealed.clone(), inside: inside.clone() });
            ["--sealed".to_owned(), inside]
        }
        (None, Some(stages)) => {
            options.memory = check_stages(args, stages, &pinned)?;
            for (host, name) in files(stages)? {
                options.files.push(TrustedFile { host, inside: format!("/stages/{name}") });
            }
            ["--stages".to_owned(), "/stages".to_owned()]
        }
        (None, None) => return Err(usage("--sealed or --stages says which model the worker runs")),
    };
    options.argv = ["privet", "enclave"].map(str::to_owned).into();
    options.argv.extend(model);
    // The memory of an enclave is encrypted, also where the system swaps it out, which Gramine cannot forbid.
    let threads = args.threads.to_string();
    let rest = [
        ["--release", release_inside],
        [keys, address],
        [option, known_by],
        ["--listen", &args.listen],
        ["--threads", &threads],
        ["--attester", "gramine"],
    ];
    options.argv.extend(rest.into_iter().flatten().map(str::to_owned));
    options.argv.push("--allow-swap".to_owned());
    Ok(())
}

/// Refuses stages that such a worker would not open; what they take, in bytes: the memory that was asked for, or the largest
/// peak. Arguments of one's own may leave stages to other workers.
fn check_stages(args: &ManifestArgs, directory: &Path, pinned: &Pinned) -> anyhow::Result<u64> {
    let stages = worker_files::signed_stages(directory, pinned)?;
    let index = stages.index();
    for (i, stage) in index.stages.iter().enumerate() {
        if args.arguments.is_empty() || directory.join(&stage.file).exists() {
            given::by("--stages", stages.check_stage(i + 1))?;
        }
    }
    let largest = || index.stages.iter().map(|stage| stage.peak).max().unwrap_or(0);
    Ok(index.memory.unwrap_or_else(largest))
}

fn keycache(args: &ManifestArgs, options: &mut ManifestOptions) -> anyhow::Result<()> {
    let usage = |text: &str| Failure::error(Code::Usage, text);
    let Some(dir) = &args.dir else {
        return Err(usage("--dir DIR says which directory of privet keycache init the cache has"));
    };
    let Some(state) = &args.state else {
        return Err(usage(
            "--state DIR says where the cache keeps its leases: an empty directory of the host, with encrypted files later",
        ));
    };
    let config = CacheConfig::load(dir)?;
    state_directory(state, "a directory of the host that is empty, for the cache's leases")?;
    if config.listen.starts_with("unix:") {
        let text = format!(
            "{}: listen is {}; sockets of Gramine's are not seen outside of the enclave: expected 127.0.0.1:PORT, with tls.key and tls.crt next to the file",
            dir.display(),
            config.listen
        );
        return Err(Failure::error(Code::Input, text));
    }
    config.check(dir)?;
    options.names = config.server.parse::<SocketAddr>().is_err();
    for (host, name) in files(dir)?.into_iter().filter(|(_, name)| name != LEASES_FILE) {
        options.files.push(TrustedFile { host, inside: format!("/cache/{name}") });
    }
    options.state = Some((state.clone(), "/cache".to_owned()));
    options.memory = SERVER_MEMORY;
    options.threads += SERVER_THREADS;
    options.argv = ["privet", "keycache", "serve", "--dir", "/cache"].map(str::to_owned).into();
    Ok(())
}

fn keyserver(args: &ManifestArgs, options: &mut ManifestOptions) -> anyhow::Result<()> {
    let Some(state) = &args.state else {
        let text = "--state DIR says where the server keeps its store: a directory of the host, with encrypted files later";
        return Err(Failure::error(Code::Usage, text));
    };
    state_directory(state, "a directory of the host, for the server's store and configuration")?;
    options.state = Some((state.clone(), "/keys".to_owned()));
    options.memory = SERVER_MEMORY;
    options.threads += SERVER_THREADS;
    options.argv = ["privet", "keyserver", "serve", "--dir", "/keys", "--ra-tls"].map(str::to_owned).into();
    Ok(())
}

/// Whether there is what `--state` names.
fn state_directory(state: &Path, expected: &str) -> anyhow::Result<()> {
    let made = format!("{expected}, which has to exist: mkdir -m 700 {}", state.display());
    given::directory("--state", state, &made)
}

/// Files below a directory and their names in it, by name. Sockets and the like are left out.
fn files(dir: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), String::new())];
    while let Some((place, prefix)) = open.pop() {
        let fail = |e| Failure::error(Code::Input, format!("cannot read {}: {e}", place.display()));
        for entry in fs::read_dir(&place).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else {
                let text = format!("{}: expected names in UTF-8", entry.path().display());
                return Err(Failure::error(Code::Input, text));
            };
            let kind = fs::metadata(entry.path()).map_err(fail)?;
            if kind.is_dir() {
                open.push((entry.path(), format!("{name}/")));
            } else if kind.is_file() {
                found.push((entry.path(), name));
            }
            if found.len() + open.len() > MAX_FILES {
                let text = format!("{}: expected at most {MAX_FILES} files", dir.display());
                return Err(Failure::error(Code::Input, text));
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::error(Code::Input, format!("{}: expected files, found none", dir.display())));
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

fn bytes(path: &Path) -> anyhow::Result<u64> {
    let fail = |e| Failure::error(Code::Input, format!("cannot read {}: {e}", path.display()));
    Ok(fs::metadata(path).map_err(fail)?.len())
}

fn write(out: &Path, path: &Path, text: &str) -> anyhow::Result<()> {
    let fail = |e| Failure::error(Code::Input, format!("cannot write {}: {e}", path.display()));
    fs::create_dir_all(out).map_err(fail)?;
    let exists = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let text = "it exists already, and is never overwritten; move it away, or give another --out";
            Failure::error(Code::Input, format!("cannot write {}: {text}", path.display()))
        }
        _ => fail(e),
    };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(exists)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)
}

fn describe(args: &ManifestArgs, written: &Written, path: &Path) -> String {
    let name = path.with_extension("");
    let linked = match (written.dynamic, &args.gramine) {
        (false, _) => "the program is static: Gramine traps each of its system calls, which is slow",
        (true, Some(_)) => "with Gramine's C library",
        (true, None) => {
            "with the host's C library, whose system calls Gramine traps one by one; --gramine DIR takes Gramine's"
        }
    };
    format!(
        "{}: {} trusted files, none allowed; enclave of {}, {} threads\n{linked}\nsign:  gramine-sgx-sign --manifest {} --output {}.sgx --key KEY\nrun:   gramine-sgx {}",
        path.display(),
        written.files,
        table::bytes(written.enclave_size),
        written.threads,
        path.display(),
        path.display(),
        name.display()
    )
}

fn lint(path: &Path, json: bool) -> anyhow::Result<()> {
    let fail = |e: &dyn std::fmt::Display| Failure::error(Code::Input, format!("{}: {e}", path.display()));
    given::file("", path, "a manifest, or a template of one")?;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| fail(&e))?;
    let read = file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_string(&mut text);
    read.map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => {
            fail(&"this is not a text; expected a manifest, or a template of one")
        }
        _ => fail(&e),
    })?;
    if let Some(problem) = FileKind::Manifest.mistaken(&text) {
        return Err(fail(&problem));
    }
    let findings = manifest::lint(&text).map_err(|e| fail(&e))?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (insecure, weak) = (count(Severity::Insecure), count(Severity::Weak));
    let file = path.display().to_string();
    if json {
        print_line(&LintResult { file: file.clone(), findings: &findings, insecure, weak })?;
    } else {
        for finding in &findings {
            let line = if finding.line == 0 { "-".to_owned() } else { finding.line.to_string() };
            print(&format!("{file}:{line}: {finding}"))?;
        }
    }
    if insecure + weak == 0 {
        return if json { Ok(()) } else { print(&format!("{file}: nothing insecure or weak")) };
    }
    Err(Failure::error(
        Code::Input,
        format!("{file}: {insecure} insecure and {weak} weak options, see above"),
    ))
}
