//! What an operator does with a store: directly, or through the server that has it open.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::PrivateKey;
use data_encoding::BASE64URL_NOPAD as BASE64URL;
use hyper::Method;
use privet_seal::{ContentKey, KeyId, KeyVersion, Release};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::audit::{Anchor, Entry};
use crate::error::KeysError;
use crate::hpke::{self, Sealed};
use crate::kbs::{Plain, Problem, Refusal, Reply, refused};
use crate::keeper::encode;
use crate::net::client::Connection;
use crate::net::{Address, Handler, Incoming};
use crate::policy::KeyPolicy;
use crate::random::SystemRandomness;
use crate::server::{ServerConfig, check_dir};
use crate::store::{KeyInfo, Store};

/// Name of the socket by which a running server is told what to do; only its user can open it.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// How long a store that is just being opened or closed is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of the log in one answer.
const PAGE: usize = 500;
const PATH: &str = "/admin/v2";
/// What keys are encrypted for.
const INFO: &[u8] = b"privet keyserver admin v2";
/// Public keys that wait to be used. More forget the oldest.
const MAX_RECIPIENTS: usize = 64;

/// Something to do with a store.
pub enum AdminRequest<'a> {
    /// Add a key under a new name.
    Add(OwnerKey<'a>),
    /// Add a newer version of a key.
    Rotate(OwnerKey<'a>),
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
pub struct OwnerKey<'a> {
    key: &'a ContentKey,
    release: &'a Release,
}

impl<'a> OwnerKey<'a> {
    /// Of both.
    pub fn new(key: &'a ContentKey, release: &'a Release) -> Self {
        Self { key, release }
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
pub fn administer(store: &Store, request: &AdminRequest<'_>) -> Result<AdminReply, KeysError> {
    Ok(match request {
        AdminRequest::Add(OwnerKey { key, release }) => {
            store.add(key, release)?;
            AdminReply::Done
        }
        AdminRequest::Rotate(OwnerKey { key, release }) => {
            store.rotate(key, release)?;
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
pub fn administer_at(dir: &Path, request: &AdminRequest<'_>) -> Result<AdminReply, KeysError> {
    check_dir(dir)?;
    let socket = dir.join(ADMIN_SOCKET);
    let started = Instant::now();
    loop {
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return through_server(dir, &socket, request);
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

fn through_server(dir: &Path, socket: &Path, request: &AdminRequest<'_>) -> Result<AdminReply, KeysError> {
    let mut connection = Connection::open(&Address::Unix(socket.to_owned()), None, None, PATIENCE)?;
    // Only the directory's owner can have put a socket there; a server of anybody else is not told anything.
    let owner = fs::metadata(dir).map_err(KeysError::io(dir))?.uid();
    if connection.peer_uid() != Some(owner) {
        let problem = "the process that listens on it is not of the user whom the directory belongs to";
        return Err(KeysError::file(socket, problem));
    }
    let mut encrypted = |purpose, owner| {
        let recipient = exchange(&mut connection, &Message::Recipient)?;
        encrypt(purpose, owner, recipient)
    };
    let message = match request {
        AdminRequest::Add(owner) => Message::Add(encrypted(Purpose::Add, owner)?),
        AdminRequest::Rotate(owner) => Message::Rotate(encrypted(Purpose::Rotate, owner)?),
        AdminRequest::Revoke(id, version) => Message::Revoke(id.clone(), *version),
        AdminRequest::List => Message::List,
        AdminRequest::SetPolicy(text) => Message::SetPolicy(text.clone()),
        AdminRequest::VerifyAudit(noted) => Message::VerifyAudit(*noted),
        AdminRequest::Entries(after) => Message::Entries(*after),
    };
    exchange(&mut connection, &message)
}

fn exchange<T: DeserializeOwned>(connection: &mut Connection, message: &Message) -> Result<T, KeysError> {
    let answer = connection.request(Method::POST, PATH, encode(message)?);
    let answer = answer.map_err(|error| match error {
        KeysError::Refused { detail, .. } => KeysError::Usage(detail),
        other => other,
    })?;
    serde_json::from_slice(&answer).map_err(|_| KeysError::Peer {
        peer: connection.peer().to_owned(),
        problem: "its answer is not what it should be; is it of the same version?".to_owned(),
    })
}

/// The key, encrypted to a public key that the server made for it.
fn encrypt(purpose: Purpose, owner: &OwnerKey<'_>, recipient: Recipient) -> Result<EncryptedKey, KeysError> {
    let Recipient { public } = recipient;
    let release = owner.release.to_toml();
    let point = BASE64URL.decode(public.as_bytes()).unwrap_or_default();
    let context = context(purpose, &public, &release);
    let sealed = hpke::seal(&point, INFO, &context, owner.key.expose(), &SystemRandomness)?;
    Ok(EncryptedKey { recipient: public, release, sealed })
}

/// What an encrypted key is bound to: what is done with it, for whom it was encrypted, and all that is known of it.
fn context(purpose: Purpose, recipient: &str, release: &str) -> Vec<u8> {
    let purpose: &[u8] = match purpose {
        Purpose::Add => b"add",
        Purpose::Rotate => b"rotate",
    };
    // No part but the last contains a zero.
    [purpose, &[0], recipient.as_bytes(), &[0], release.as_bytes()].concat()
}

#[derive(Clone, Copy)]
enum Purpose {
    Add,
    Rotate,
}

/// What goes over the socket. No key goes over it in the clear: buffers of sockets and HTTP are not wiped.
#[derive(Serialize, Deserialize)]
enum Message {
    /// Asks for a [`Recipient`].
    Recipient,
    Add(EncryptedKey),
    Rotate(EncryptedKey),
    Revoke(KeyId, Option<KeyVersion>),
    List,
    SetPolicy(String),
    VerifyAudit(Option<Anchor>),
    Entries(u64),
}

/// A public key to encrypt one content key to.
#[derive(Serialize, Deserialize)]
struct Recipient {
    public: String,
}

/// A content key for a [`Recipient`], and its release file.
#[derive(Serialize, Deserialize)]
struct EncryptedKey {
    recipient: String,
    release: String,
    sealed: Sealed,
}

/// The server's side of the socket.
pub(crate) struct AdminHandler {
    store: Arc<Store>,
    /// Keys that were given out and not yet used, oldest first.
    recipients: Mutex<VecDeque<(String, PrivateKey)>>,
}

impl AdminHandler {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, recipients: Mutex::default() }
    }

    fn recipients(&self) -> MutexGuard<'_, VecDeque<(String, PrivateKey)>> {
        self.recipients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recipient(&self) -> Result<Recipient, KeysError> {
        let private = hpke::private_key(&SystemRandomness)?;
        let public = BASE64URL.encode(&hpke::public_key(&private)?);
        let mut recipients = self.recipients();
        if recipients.len() >= MAX_RECIPIENTS {
            recipients.pop_front();
        }
        recipients.push_back((public.clone(), private));
        Ok(Recipient { public })
    }

    /// What was encrypted to a recipient, which serves once, whatever comes of it.
    fn open(
        &self,
        purpose: Purpose,
        EncryptedKey { recipient, release, sealed }: &EncryptedKey,
    ) -> Result<(ContentKey, Release), KeysError> {
        let private = {
            let mut recipients = self.recipients();
            let place = recipients.iter().position(|(public, _)| public == recipient);
            place.and_then(|place| recipients.remove(place)).map(|(_, private)| private)
        };
        let usage = |problem: &str| KeysError::Usage(problem.to_owned());
        let private = private
            .ok_or_else(|| usage("the key is encrypted for another server, or to what was used already"))?;
        let plain = hpke::open(&private, INFO, &context(purpose, recipient, release), sealed)
            .ok_or_else(|| usage("the key was encrypted for something else, or has been changed"))?;
        let release = Release::from_toml(release)
            .map_err(|e| KeysError::Usage(format!("release file: {}", e.message())))?;
        Ok((ContentKey::from_slice(&plain)?, release))
    }

    fn administer(&self, message: Message) -> Result<Plain, KeysError> {
        let request = match message {
            Message::Recipient => return encode(&self.recipient()?),
            Message::Add(encrypted) => {
                let (key, release) = self.open(Purpose::Add, &encrypted)?;
                let request = AdminRequest::Add(OwnerKey::new(&key, &release));
                return encode(&administer(&self.store, &request)?);
            }
            Message::Rotate(encrypted) => {
                let (key, release) = self.open(Purpose::Rotate, &encrypted)?;
                let request = AdminRequest::Rotate(OwnerKey::new(&key, &release));
                return encode(&administer(&self.store, &request)?);
            }
            Message::Revoke(id, version) => AdminRequest::Revoke(id, version),
            Message::List => AdminRequest::List,
            Message::SetPolicy(text) => AdminRequest::SetPolicy(text),
            Message::VerifyAudit(noted) => AdminRequest::VerifyAudit(noted),
            Message::Entries(after) => AdminRequest::Entries(after),
        };
        encode(&administer(&self.store, &request)?)
    }
}

impl Handler for AdminHandler {
    fn handle(&self, request: &Incoming) -> Reply {
        let done = || {
            if (request.method.as_str(), request.path.as_str()) != ("POST", PATH) {
                let detail = format!("expected POST {PATH}; is it of the same version?");
                return Err(Refusal::new(Problem::InvalidRequestPath, detail));
            }
            let message: Message = serde_json::from_slice(&request.body).map_err(|e| {
                // Without the error's text, which may quote a policy.
                let place = format!("not a command: line {} column {}", e.line(), e.column());
                Refusal::new(Problem::SerdeError, place)
            })?;
            self.administer(message).map_err(|e| Refusal::new(Problem::PolicyDeny, e.to_string()))
        };
        match done() {
            Ok(body) => Reply { status: 200, body: body.to_vec(), cookie: None },
            Err(refusal) => refused(&refusal),
        }
    }
}

#[cfg(test)]
mod tests;
