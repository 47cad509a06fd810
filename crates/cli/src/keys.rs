//! Releasing keys of sealed models: `keyserver` and `keycache`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use privet::attest::{Collateral, Policy, check_dcap_collateral, time_text};
use privet::keys::cache::{self, CacheConfig, CacheEvent, CacheSetting, LeaseInfo, SealingKey};
use privet::keys::server::{self, ServerConfig, ServerSetting};
use privet::keys::{
    AdminReply, AdminRequest, Endpoint, KeyPolicy, KeysError, Limits, MAX_POLICY_BYTES, MasterSource,
    OwnerKey, ServerTls, ServerTrust, administer_at, fetch_key, machine_attester, verifier,
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
    print(&format!(
        "certificate:     {}, for workers and caches to pin",
        at(privet::keys::TLS_CERTIFICATE_FILE)
    ))?;
    if is_new {
        let path = at(server::MASTER_KEY_FILE);
        print(&format!(
            "master key:      {path}; keep a copy elsewhere: without it nothing opens the store"
        ))?;
    }
    Ok(())
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    follow_parent(&args.attestation)?;
    let dir = &args.place.dir;
    // The wrong directory is better named than what it lacks.
    ServerConfig::load(dir)?;
    let verifier = verifier(collateral(&args.attestation)?, args.attestation.allow_sample_insecure)?;
    let tls = if args.ra_tls {
        let policy = args.clients.as_deref().map(attestation_policy).transpose()?;
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
    server::serve(dir, args.listen.as_deref(), setting, &stop, |address, noted| {
        eprintln!("audit log is whole up to {noted}");
        // Nobody reads it if this fails.
        let _ = print(&format!("listening on {address}"));
    })?;
    Ok(())
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
    let text = read_text(file)?;
    let policy = KeyPolicy::parse(&file.display().to_string(), &text)?;
    for finding in policy.lint() {
        eprintln!("{finding}");
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
                    print_line(entry)?;
                }
            }
        }
    }
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
    sample_insecure: bool,
    from: &'a str,
}

fn fetch(args: &FetchArgs) -> anyhow::Result<()> {
    follow_parent(&args.attestation)?;
    let allow = args.attestation.allow_sample_insecure;
    let attester = machine_attester(allow)?;
    let trust = trust(args.server_certificate.as_deref(), args.server_policy.as_deref(), &args.attestation)?;
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
    match fetched.not_after {
        Some(ends) => print(&format!("  leased until          {}", moment(ends))),
        None => Ok(()),
    }
}

fn cache_init(args: &CacheInitArgs) -> anyhow::Result<()> {
    let known_by = args.server_certificate.as_ref().or(args.server_policy.as_ref());
    let known_by =
        known_by.ok_or_else(|| Failure::error(Code::Usage, "--server-certificate or --server-policy"))?;
    CacheConfig::create(&args.dir, &args.listen.to_string(), &args.server, known_by)?;
    let policies = args.dir.join("policies");
    print(&format!("put a policy for each key to cache into {}", policies.display()))
}

fn cache_serve(args: &CacheServeArgs) -> anyhow::Result<()> {
    follow_parent(&args.attestation)?;
    CacheConfig::load(&args.dir)?;
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
    let listening = |address: &privet::keys::Address| {
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
        CacheEvent::Leased(info) => format!("leased {} until {}", name(info), moment(info.ends)),
        CacheEvent::Dropped(info, reason) => format!("dropped {}: {reason}", name(info)),
        CacheEvent::NotLeased(key, reason) => format!("no lease of key {key}: {reason}"),
        CacheEvent::Released(info, claims) => format!("released {} to claims {claims}", name(info)),
        CacheEvent::Refused(reason) => format!("refused: {reason}"),
        CacheEvent::NotWritten(reason) => {
            format!("leases could not be written, and end with this process: {reason}")
        }
    }
}

/// A time in seconds since 1970, in words as well.
fn moment(seconds: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    at.map_or_else(|| seconds.to_string(), |at| format!("{} ({seconds} s after 1970)", time_text(at)))
}

/// How a server is known: by its certificate, or by a policy for its evidence.
pub(crate) fn trust(
    certificate: Option<&Path>,
    policy: Option<&Path>,
    args: &AttestationArgs,
) -> anyhow::Result<Option<ServerTrust>> {
    Ok(match (certificate, policy) {
        (Some(path), _) => Some(ServerTrust::pinned(path)?),
        (None, Some(path)) => {
            let verifier = verifier(collateral(args)?, args.allow_sample_insecure)?;
            Some(ServerTrust::attested(verifier, attestation_policy(path)?))
        }
        (None, None) => None,
    })
}

/// Ends with the parent, where the parent asked for it.
pub(crate) fn follow_parent(args: &AttestationArgs) -> anyhow::Result<()> {
    args.exit_with_parent.map_or(Ok(()), signals::exit_with_parent)
}

pub(crate) fn warn_of_sample(args: &AttestationArgs) {
    if args.allow_sample_insecure {
        eprintln!("sample, INSECURE: development evidence is made and accepted; it proves nothing");
    }
}

pub(crate) fn collateral(args: &AttestationArgs) -> anyhow::Result<Collateral> {
    let Some(path) = &args.collateral else { return Ok(Collateral::default()) };
    let fail = |e| Failure::error(Code::Input, format!("cannot read {}: {e}", path.display()));
    let dcap = fs::read(path).map_err(fail)?;
    check_dcap_collateral(&dcap)
        .map_err(|e| Failure::error(Code::Input, format!("{}: {e}", path.display())))?;
    Ok(Collateral { dcap: Some(dcap), ..Collateral::default() })
}

pub(crate) fn attestation_policy(path: &Path) -> anyhow::Result<Policy> {
    let policy = Policy::parse(&read_text(path)?);
    policy.map_err(|e| Failure::error(Code::Input, format!("{}: {e}", path.display())))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let fail = |problem: String| Failure::error(Code::Input, format!("{}: {problem}", path.display()));
    let length = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if length > MAX_POLICY_BYTES as u64 {
        return Err(fail(format!("expected at most {MAX_POLICY_BYTES} bytes, found {length}")));
    }
    fs::read_to_string(path).map_err(|e| fail(e.to_string()))
}

fn unexpected() -> anyhow::Error {
    KeysError::Internal("the server answered something else; is it of the same version?").into()
}
