//! Releasing keys of sealed models: `keyserver` and `keycache`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use privet::attest::{Collateral, Policy, check_dcap_collateral, seconds_text};
use privet::keys::audit::Entry;
use privet::keys::cache::{self, CacheConfig, CacheEvent, CacheSetting, LeaseInfo, SealingKey};
use privet::keys::server::{self, ServerConfig, ServerSetting};
use privet::keys::{
    Address, AdminReply, AdminRequest, Endpoint, KeyPolicy, KeysError, Limits, MAX_POLICY_BYTES,
    MasterSource, OwnerKey, SAMPLE_BUILD, ServerTls, ServerTrust, TLS_CERTIFICATE_FILE, TLS_KEY_FILE,
    administer_at, fetch_key, machine_attester, verifier,
};
use privet::seal::{ContentKey, OwnerKeys, read_content};
use serde::Serialize;

use crate::args::keys::{
    AttestationArgs, AuditCommand, CacheInitArgs, CacheServeArgs, FetchArgs, InitArgs, KeyCommand,
    KeycacheArgs, KeycacheCommand, KeyserverArgs, KeyserverCommand, ListArgs, PolicyCommand, RotateArgs,
    ServeArgs,
};
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::given;
use crate::secrets::keep_memory_private;
use crate::show::print;
use crate::signals;

/// Where Gramine keeps the keys of an enclave.
const ATTESTATION_DIR: &str = "/dev/attestation";

pub(crate) fn keyserver(args: &KeyserverArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    match &args.command {
        KeyserverCommand::Init(args) => init(args),
        KeyserverCommand::Serve(args) => serve(args),
        KeyserverCommand::Key { command } => key(command),
        KeyserverCommand::Policy { command } => policy(command),
        KeyserverCommand::Audit { command } => audit(command),
        KeyserverCommand::Fetch(args) => fetch(args),
    }
}

pub(crate) fn keycache(args: &KeycacheArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    match &args.command {
        KeycacheCommand::Init(args) => cache_init(args),
        KeycacheCommand::Serve(args) => cache_serve(args),
    }
}

fn init(args: &InitArgs) -> anyhow::Result<()> {
    let absolute = |path: &PathBuf| {
        let fail = |e| Failure::error(Code::Input, format!("cannot find {}: {e}", path.display()));
        fs::canonicalize(path).map_err(fail)
    };
    let master = match (&args.master_key_file, &args.passphrase_file, &args.master_command) {
        (Some(path), ..) => Some(MasterSource::File(absolute(path)?)),
        (_, Some(path), _) => Some(MasterSource::PassphraseFile(absolute(path)?)),
        (.., Some(command)) => {
            let words = shlex::split(command)
                .ok_or_else(|| Failure::error(Code::Usage, "--master-command: its quotes do not match"))?;
            Some(MasterSource::Command(words))
        }
        _ => None,
    };
    let is_new = master.is_none();
    ServerConfig::create(&args.dir, &args.listen, &args.name, master)?;
    let at = |name: &str| args.dir.join(name).display().to_string();
    print(&format!("store:           {}", at(server::STORE_FILE)))?;
    print(&format!("certificate:     {}, for workers and caches to pin", at(TLS_CERTIFICATE_FILE)))?;
    if is_new {
        let path = at(server::MASTER_KEY_FILE);
        print(&format!(
            "master key:      {path}; keep a copy elsewhere: without it nothing opens the store"
        ))?;
    }
    Ok(())
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    begin(&args.attestation)?;
    let dir = &args.place.dir;
    // The wrong directory is better named than what it lacks.
    ServerConfig::load(dir)?;
    let verifier = verifier(collateral(&args.attestation)?, args.attestation.allow_sample_insecure)?;
    let tls = if args.ra_tls {
        let policy = args.clients.as_deref().map(|path| attestation_policy("--clients", path)).transpose()?;
        let clients = policy.map(|policy| (verifier.clone(), policy));
        ServerTls::attested(machine_attester(args.attestation.allow_sample_insecure)?, clients)?
    } else {
        ServerTls::load(dir)?
    };
    warn_of_sample(&args.attestation);
    let limits = Limits { per_minute: args.rate, ..Limits::default() };
    let stop = signals::stop_flag()?;
    let tell = Arc::new(|error: &KeysError| eprintln!("a request failed: {error}"));
    let setting = ServerSetting { tls, verifier, limits, tell };
    let allow = args.attestation.allow_sample_insecure;
    server::serve(dir, args.listen.as_deref(), setting, &stop, |began| {
        eprintln!("audit log is whole up to {}", began.noted);
        if !allow {
            began.policies.iter().for_each(warn_of_unsatisfiable);
        }
        // Nobody reads it if this fails.
        let _ = print(&format!("listening on {}", began.address));
    })?;
    Ok(())
}

/// A policy that names development evidence alone, where none is accepted.
fn warn_of_unsatisfiable(policy: &KeyPolicy) {
    for part in policy.sample_only() {
        let who = if part == "get" { "no worker gets" } else { "no cache is leased" };
        let advice = if SAMPLE_BUILD {
            "for development, say --allow-sample-insecure"
        } else {
            "for development there are builds with the cargo feature sample-attestation-insecure"
        };
        eprintln!(
            "WARNING: {who} key {}: [{part}] of its policy accepts development evidence (sample, INSECURE) only, which \
             this server does not accept; give it a section [sgx], [tdx] or [snp], or, {advice}",
            policy.key_id
        );
    }
}

fn key(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Add(args) => {
            let (content, release) = read_content(&args.key)?;
            administer_at(&args.place.dir, &AdminRequest::Add(OwnerKey::new(&content, &release)))?;
            let (id, version) = (&release.key_id, release.key_version);
            print(&format!(
                "added key {id} version {version}; it has no policy yet unless one was set before"
            ))
        }
        KeyCommand::List(args) => list(args),
        KeyCommand::Rotate(args) => rotate(args),
        KeyCommand::Revoke(args) => {
            let request = AdminRequest::Revoke(args.id.clone(), args.version);
            match administer_at(&args.place.dir, &request)? {
                AdminReply::Revoked(count) => {
                    let plural = if count == 1 { "" } else { "s" };
                    print(&format!("revoked {count} version{plural} of key {}", args.id))
                }
                _ => Err(unexpected()),
            }
        }
    }
}

fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let old = OwnerKeys::read(&args.key)?;
    let release = &old.release;
    let version = release
        .key_version
        .next()
        .ok_or_else(|| Failure::error(Code::Input, "there is no version after this one"))?;
    let content = ContentKey::generate()?;
    let new = OwnerKeys::new(content, old.signing, release.model_id, release.key_id.clone(), version)?;
    // First where the owner keeps it: a key that only the store has cannot seal a model.
    new.write(&args.out)?;
    administer_at(&args.place.dir, &AdminRequest::Rotate(OwnerKey::new(&new.content, &new.release)))?;
    let out = args.out.display();
    print(&format!(
        "added version {version} of key {}, {out}; seal the model again under it",
        new.release.key_id
    ))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let AdminReply::Keys(keys) = administer_at(&args.place.dir, &AdminRequest::List)? else {
        return Err(unexpected());
    };
    for (info, has_policy) in keys {
        if args.json {
            print_line(&serde_json::json!({ "key": info, "has_policy": has_policy }))?;
            continue;
        }
        let policy = if has_policy { "has a policy" } else { "has no policy, and is released to nobody" };
        print(&format!("{}: model {}, {policy}", info.id, info.model))?;
        for version in info.versions {
            let state = serde_json::to_value(version.state)?;
            let state = state.as_str().unwrap_or_default().to_owned();
            print(&format!("  version {}, {state}, fingerprint {}", version.version, version.fingerprint))?;
        }
    }
    Ok(())
}

fn policy(command: &PolicyCommand) -> anyhow::Result<()> {
    let (file, place) = match command {
        PolicyCommand::Check { file } => (file, None),
        PolicyCommand::Set { place, file } => (file, Some(place)),
    };
    given::file("", file, "a key policy (docs/keys.md#policies)")?;
    let text = read_text(file)?;
    let policy = KeyPolicy::parse(&file.display().to_string(), &text)?;
    for finding in policy.lint() {
        eprintln!("{finding}");
    }
    if !SAMPLE_BUILD {
        warn_of_unsatisfiable(&policy);
    }
    match place {
        None => print(&format!("{}: a policy of key {}", file.display(), policy.key_id)),
        Some(place) => {
            administer_at(&place.dir, &AdminRequest::SetPolicy(text))?;
            print(&format!("set the policy of key {}", policy.key_id))
        }
    }
}

fn audit(command: &AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify { place, noted } => {
            match administer_at(&place.dir, &AdminRequest::VerifyAudit(*noted))? {
                AdminReply::Audit(newest) => print(&format!("whole up to {newest}")),
                _ => Err(unexpected()),
            }
        }
        AuditCommand::List { place } => {
            let mut after = 0;
            loop {
                let AdminReply::Entries(entries) = administer_at(&place.dir, &AdminRequest::Entries(after))?
                else {
                    return Err(unexpected());
                };
                let Some(last) = entries.last() else { return Ok(()) };
                after = last.sequence;
                for entry in &entries {
                    print_line(&Logged { entry, time_utc: seconds_text(entry.time) })?;
                }
            }
        }
    }
}

/// A line of `privet keyserver audit list`.
#[derive(Serialize)]
struct Logged<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    time_utc: String,
}

/// What `privet keyserver fetch --json` prints.
#[derive(Serialize)]
struct Fetched<'a> {
    key_id: String,
    key_version: u32,
    model_id: String,
    fingerprint: String,
    verifying_key: String,
    model_digest: Option<String>,
    minimum_model_version: Option<u64>,
    not_after: Option<u64>,
    not_after_utc: Option<String>,
    sample_insecure: bool,
    from: &'a str,
}

fn fetch(args: &FetchArgs) -> anyhow::Result<()> {
    begin(&args.attestation)?;
    let allow = args.attestation.allow_sample_insecure;
    let trust = trust(
        ("", &args.address),
        args.server_certificate.as_deref(),
        args.server_policy.as_deref(),
        &args.attestation,
    )?;
    let attester = machine_attester(allow)?;
    warn_of_sample(&args.attestation);
    let deadline = Duration::from_secs(args.deadline);
    let endpoint = Endpoint { address: args.address.clone(), trust, deadline };
    let grant = fetch_key(&endpoint, &*attester, &args.key, args.version)?;
    let key = grant.key()?;
    let fetched = Fetched {
        key_id: grant.key_id.to_string(),
        key_version: grant.key_version.get(),
        model_id: grant.model_id.to_string(),
        fingerprint: key.fingerprint().to_string(),
        verifying_key: grant.verifying_key.to_string(),
        model_digest: grant.model_digest.map(|digest| digest.to_string()),
        minimum_model_version: grant.minimum_model_version.map(|version| version.get()),
        not_after: grant.not_after,
        not_after_utc: grant.not_after.map(seconds_text),
        sample_insecure: allow,
        from: &args.address.to_string(),
    };
    if args.json {
        return print_line(&fetched);
    }
    print(&format!(
        "got key {} version {} of model {}",
        fetched.key_id, fetched.key_version, fetched.model_id
    ))?;
    if allow {
        print("  evidence              sample, INSECURE: it proves nothing")?;
    }
    print(&format!("  fingerprint           {}", fetched.fingerprint))?;
    let or_any = |value: Option<String>| value.unwrap_or_else(|| "any".to_owned());
    print(&format!("  sealed model          {}", or_any(fetched.model_digest)))?;
    print(&format!(
        "  oldest model version  {}",
        or_any(fetched.minimum_model_version.map(|v| v.to_string()))
    ))?;
    match fetched.not_after_utc {
        Some(ends) => print(&format!("  leased until          {ends}")),
        None => Ok(()),
    }
}

fn cache_init(args: &CacheInitArgs) -> anyhow::Result<()> {
    let known_by = args.server_certificate.as_ref().or(args.server_policy.as_ref());
    let known_by =
        known_by.ok_or_else(|| Failure::error(Code::Usage, "--server-certificate or --server-policy"))?;
    match &args.server_policy {
        Some(path) => drop(attestation_policy("--server-policy", path)?),
        None => drop(certificate_of(known_by)?),
    }
    let made = CacheConfig::create(&args.dir, &args.listen.to_string(), &args.server, known_by);
    made.map_err(|error| match error {
        KeysError::Usage(problem) => Failure::error(Code::Usage, format!("--{problem}")),
        other => other.into(),
    })?;
    let policies = args.dir.join("policies");
    print(&format!("put a policy for each key to cache into {}", policies.display()))?;
    if matches!(args.listen, Address::Tcp(_)) {
        let at = |name: &str| args.dir.join(name).display().to_string();
        let (key, certificate) = (at(TLS_KEY_FILE), at(TLS_CERTIFICATE_FILE));
        print(&format!(
            "and its TLS key and certificate, {key} and {certificate}:\n  openssl req -x509 -newkey ec -pkeyopt \
             ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=cache -keyout {key} -out {certificate}"
        ))?;
    }
    Ok(())
}

fn cache_serve(args: &CacheServeArgs) -> anyhow::Result<()> {
    begin(&args.attestation)?;
    CacheConfig::load(&args.dir)?.check(&args.dir)?;
    let allow = args.attestation.allow_sample_insecure;
    let verifier = verifier(collateral(&args.attestation)?, allow)?;
    let attester = machine_attester(allow)?;
    let sealing = match &args.sealing_key_file_insecure {
        Some(path) => {
            eprintln!("INSECURE: leases are sealed to {}, which this host can read", path.display());
            SealingKey::of_file_insecure(path)?
        }
        None => SealingKey::of_enclave(Path::new(ATTESTATION_DIR)).context(
            "no sealing key of an enclave; where leases may be readable for the host, there is \
             --sealing-key-file-insecure FILE",
        )?,
    };
    warn_of_sample(&args.attestation);
    let stop = signals::stop_flag()?;
    let listening = |address: &Address| {
        let _ = print(&format!("listening on {address}"));
    };
    let mark = if allow { "sample, INSECURE: " } else { "" };
    let tell = Arc::new(move |event: &CacheEvent| eprintln!("{mark}{}", describe(event)));
    let setting = CacheSetting { attester, verifier, sealing, limits: Limits::default() };
    cache::serve(&args.dir, setting, &stop, listening, tell)?;
    Ok(())
}

fn describe(event: &CacheEvent) -> String {
    let name = |info: &LeaseInfo| format!("key {} version {}", info.key, info.version);
    match event {
        CacheEvent::Leased(info) => format!("leased {} until {}", name(info), seconds_text(info.ends)),
        CacheEvent::Dropped(info, reason) => format!("dropped {}: {reason}", name(info)),
        CacheEvent::NotLeased(key, reason) => format!("no lease of key {key}: {reason}"),
        CacheEvent::Released(info, claims) => format!("released {} to claims {claims}", name(info)),
        CacheEvent::Refused(reason) => format!("refused: {reason}"),
        CacheEvent::NotWritten(reason) => {
            format!("leases could not be written, and end with this process: {reason}")
        }
    }
}

/// How a server at an address, which an argument names, is known: by its certificate, or by a policy for its evidence. A
/// Unix socket needs neither.
pub(crate) fn trust(
    (argument, address): (&str, &Address),
    certificate: Option<&Path>,
    policy: Option<&Path>,
    args: &AttestationArgs,
) -> anyhow::Result<Option<ServerTrust>> {
    Ok(match (certificate, policy) {
        (Some(path), _) => Some(certificate_of(path)?),
        (None, Some(path)) => {
            let verifier = verifier(collateral(args)?, args.allow_sample_insecure)?;
            Some(ServerTrust::attested(verifier, attestation_policy("--server-policy", path)?))
        }
        (None, None) if matches!(address, Address::Tcp(_)) => {
            let text = format!(
                "{argument} {address}: nothing says how it is known; expected --server-certificate FILE, {}, or \
                 --server-policy FILE, {}, for a server with --ra-tls",
                given::CERTIFICATE,
                given::POLICY
            );
            return Err(Failure::error(Code::Usage, text.trim_start()));
        }
        (None, None) => {
            if let Address::Unix(path) = address {
                given::socket(argument, path, "the socket of a `privet keycache serve` that runs")?;
            }
            None
        }
    })
}

/// What `--server-certificate` names.
pub(crate) fn certificate_of(path: &Path) -> anyhow::Result<ServerTrust> {
    given::file("--server-certificate", path, given::CERTIFICATE)?;
    given::by("--server-certificate", ServerTrust::pinned(path))
}

/// Ends with the parent, where the parent asked for it; refuses what this build does not know.
pub(crate) fn begin(args: &AttestationArgs) -> anyhow::Result<()> {
    if args.allow_sample_insecure && !SAMPLE_BUILD {
        let text = "--allow-sample-insecure: this build knows no development evidence (sample, INSECURE); builds with \
                    the cargo feature sample-attestation-insecure do";
        return Err(Failure::error(Code::Usage, text));
    }
    args.exit_with_parent.map_or(Ok(()), signals::exit_with_parent)
}

pub(crate) fn warn_of_sample(args: &AttestationArgs) {
    if args.allow_sample_insecure {
        eprintln!("sample, INSECURE: development evidence is made and accepted; it proves nothing");
    }
}

pub(crate) fn collateral(args: &AttestationArgs) -> anyhow::Result<Collateral> {
    let Some(path) = &args.collateral else { return Ok(Collateral::default()) };
    given::file("--collateral", path, "Intel's collateral in JSON (docs/attestation.md#collateral)")?;
    let fail = |e: &dyn std::fmt::Display| {
        Failure::error(Code::Input, format!("--collateral {}: {e}", path.display()))
    };
    let dcap = fs::read(path).map_err(|e| fail(&e))?;
    check_dcap_collateral(&dcap).map_err(|e| fail(&e))?;
    Ok(Collateral { dcap: Some(dcap), ..Collateral::default() })
}

pub(crate) fn attestation_policy(flag: &str, path: &Path) -> anyhow::Result<Policy> {
    given::file(flag, path, given::POLICY)?;
    let policy = Policy::parse(&given::by(flag, read_text(path))?);
    policy.map_err(|e| Failure::error(Code::Input, format!("{flag} {}: {e}", path.display())))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let fail = |problem: String| Failure::error(Code::Input, format!("{}: {problem}", path.display()));
    let length = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if length > MAX_POLICY_BYTES as u64 {
        return Err(fail(format!("expected at most {MAX_POLICY_BYTES} bytes, found {length}")));
    }
    fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => fail("this is not a text; expected a policy in TOML".to_owned()),
        _ => fail(e.to_string()),
    })
}

fn unexpected() -> anyhow::Error {
    KeysError::Internal("the server answered something else; is it of the same version?").into()
}
