//! What an operator does with a store: directly, or through the server that has it open.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use privet_seal::{ContentKey, KeyId, KeyVersion, Release};
use serde::{Deserialize, Serialize};

use crate::audit::{Anchor, Entry};
use crate::error::KeysError;
use crate::kbs::{Problem, Refusal, Reply, refused};
use crate::keeper::{Base64Secret, encode};
use crate::net::client::Connection;
use crate::net::{Address, Handler, Incoming};
use crate::policy::KeyPolicy;
use crate::server::{ServerConfig, check_dir};
use crate::store::{KeyInfo, Store};

/// Name of the socket by which a running server is told what to do; only its user can open it.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// How long a store that is just being opened or closed is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of the log in one answer.
const PAGE: usize = 500;

/// Something to do with a store.
#[derive(Serialize, Deserialize)]
pub enum AdminRequest {
    /// Add a key under a new name.
    Add(OwnerKey),
    /// Add a newer version of a key.
    Rotate(OwnerKey),
    /// Revoke a version of a key, or all.
    Revoke(KeyId, Option<KeyVersion>),
    /// List keys.
    List,
    /// Set the policy of the key that it names.
    SetPolicy(String),
    /// Check the audit log.
    VerifyAudit(Option<Anchor>),
    /// Entries of the audit log after this number.
    Entries(u64),
}

/// A content key and its release file.
#[derive(Serialize, Deserialize)]
pub struct OwnerKey {
    release: String,
    key: Base64Secret,
}

impl OwnerKey {
    /// From both.
    pub fn new(key: &ContentKey, release: &Release) -> Self {
        Self { release: release.to_toml(), key: Base64Secret::new(key.expose()) }
    }

    fn open(&self) -> Result<(ContentKey, Release), KeysError> {
        let fail = |problem: String| KeysError::Usage(problem);
        let release =
            Release::from_toml(&self.release).map_err(|e| fail(format!("release file: {}", e.message())))?;
        let bytes = self.key.decode().ok_or_else(|| fail("the key is not base64".to_owned()))?;
        Ok((ContentKey::from_slice(&bytes)?, release))
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum AdminReply {
    /// It is done, durably.
    Done,
    /// So many versions were revoked.
    Revoked(usize),
    /// Keys, and whether they have a policy.
    Keys(Vec<(KeyInfo, bool)>),
    /// The log is whole up to here.
    Audit(Anchor),
    /// Entries of the log.
    Entries(Vec<Entry>),
}

/// Does something with an open store.
///
/// # Errors
/// If it cannot be done; then nothing was changed.
pub fn administer(store: &Store, request: &AdminRequest) -> Result<AdminReply, KeysError> {
    Ok(match request {
        AdminRequest::Add(owner) => {
            let (key, release) = owner.open()?;
            store.add(&key, &release)?;
            AdminReply::Done
        }
        AdminRequest::Rotate(owner) => {
            let (key, release) = owner.open()?;
            store.rotate(&key, &release)?;
            AdminReply::Done
        }
        AdminRequest::Revoke(id, version) => AdminReply::Revoked(store.revoke(id, *version)?),
        AdminRequest::List => {
            let keys = store.list()?;
            let with_policy = keys.into_iter().map(|info| {
                let has_policy = store.policy(&info.id)?.is_some();
                Ok((info, has_policy))
            });
            AdminReply::Keys(with_policy.collect::<Result<_, KeysError>>()?)
        }
        AdminRequest::SetPolicy(text) => {
            let policy = KeyPolicy::parse("to be set", text)?;
            let id = policy.key_id.clone();
            policy.check_key(&store.info(&id)?.ok_or_else(|| KeysError::NoKey(id.clone()))?)?;
            store.set_policy(&id, text)?;
            AdminReply::Done
        }
        AdminRequest::VerifyAudit(noted) => AdminReply::Audit(store.verify_audit(*noted)?),
        AdminRequest::Entries(after) => AdminReply::Entries(store.entries_after(*after, PAGE)?),
    })
}

/// Does something with the store of a server's directory: through the server if it runs, else directly.
///
/// # Errors
/// As [`administer`]; or if neither server nor store can be reached.
pub fn administer_at(dir: &Path, request: &AdminRequest) -> Result<AdminReply, KeysError> {
    check_dir(dir)?;
    let socket = dir.join(ADMIN_SOCKET);
    let started = Instant::now();
    loop {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return through_server(&socket, request);
        }
        match ServerConfig::load(dir)?.open_store(dir) {
            // It is starting or stopping.
            Err(KeysError::Busy { .. }) if started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            store => return administer(&store?, request),
        }
    }
}

fn through_server(socket: &Path, request: &AdminRequest) -> Result<AdminReply, KeysError> {
    let mut connection = Connection::open(&Address::Unix(socket.to_owned()), None, None, PATIENCE)?;
    let answer = connection.request(Method::POST, "/admin/v1", encode(request)?);
    let answer = answer.map_err(|error| match error {
        KeysError::Refused { detail, .. } => KeysError::Usage(detail),
        other => other,
    })?;
    serde_json::from_slice(&answer).map_err(|_| KeysError::Peer {
        peer: connection.peer().to_owned(),
        problem: "its answer is not what it should be; is it of the same version?".to_owned(),
    })
}

/// The server's side of the socket.
pub(crate) struct AdminHandler(pub(crate) Arc<Store>);

impl Handler for AdminHandler {
    fn handle(&self, request: &Incoming) -> Reply {
        let done = || {
            if (request.method.as_str(), request.path.as_str()) != ("POST", "/admin/v1") {
                return Err(Refusal::new(Problem::InvalidRequestPath, "expected POST /admin/v1"));
            }
            let message: AdminRequest = serde_json::from_slice(&request.body).map_err(|e| {
                // Without the error's text, which may quote a key.
                let place = format!("not a command: line {} column {}", e.line(), e.column());
                Refusal::new(Problem::SerdeError, place)
            })?;
            let reply = administer(&self.0, &message)
                .map_err(|e| Refusal::new(Problem::PolicyDeny, e.to_string()))?;
            serde_json::to_vec(&reply).map_err(|_| Refusal::internal())
        };
        match done() {
            Ok(body) => Reply { status: 200, body, cookie: None },
            Err(refusal) => refused(&refusal),
        }
    }
}
