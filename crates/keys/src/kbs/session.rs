//! Sessions: who was challenged with which nonce, and who has answered.
//!
//! A session is found by a hash of its cookie, so that the time of a search tells nothing about cookies that there are. A
//! nonce is taken out of the table by the first answer, right or wrong: there is no second one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64URL_NOPAD as BASE64URL, HEXLOWER};
use kbs_types::Tee;

use super::jwe::TeeKey;
use crate::keeper::Peer;

/// How long a challenge may be answered, in seconds. Making evidence takes seconds where a service of the vendor is asked.
pub(crate) const CHALLENGE_SECONDS: u64 = 120;
/// How long who has answered may ask for keys, in seconds.
pub(crate) const SESSION_SECONDS: u64 = 300;
/// Sessions at a time; each takes some kilobytes.
pub(crate) const MAX_SESSIONS: usize = 4096;

/// What a table finds a session by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; 32]);

impl SessionId {
    /// Of a cookie's value.
    pub(crate) fn of_cookie(cookie: &str) -> Self {
        let hash = digest(&SHA256, cookie.as_bytes());
        Self(hash.as_ref().try_into().unwrap_or_default())
    }

    /// As a token names it; whoever knows this name does not know the cookie.
    pub(crate) fn name(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(Self(HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok()?))
    }
}

/// A cookie's value: 256 random bits.
pub(crate) fn cookie(bytes: &[u8; 32]) -> String {
    BASE64URL.encode(bytes)
}

/// Someone who was challenged.
pub(crate) struct Challenged {
    pub(crate) tee: Tee,
    pub(crate) nonce: String,
    /// Where from, if that is known.
    pub(crate) from: Option<IpAddr>,
}

/// Someone who has answered.
pub(crate) struct Attested {
    pub(crate) peer: Peer,
    pub(crate) key: TeeKey,
    pub(crate) nonce: String,
}

enum State {
    Challenged(Challenged),
    Attested(Arc<Attested>),
}

struct Session {
    expires: u64,
    from: Option<IpAddr>,
    state: State,
}

/// All sessions of a server.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionId, Session>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session. `false` if there are too many. Where there are, the address that has most loses its oldest one,
    /// unless that is the one that asks: few addresses do not keep others out.
    pub(crate) fn challenge(&self, id: SessionId, challenged: Challenged, now: u64) -> bool {
        let from = challenged.from;
        let mut sessions = self.lock();
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| now < session.expires);
        }
        if sessions.len() >= MAX_SESSIONS && !make_room(&mut sessions, from) {
            return false;
        }
        let expires = now.saturating_add(CHALLENGE_SECONDS);
        sessions.insert(id, Session { expires, from, state: State::Challenged(challenged) });
        true
    }

    /// Takes an open challenge away.
    pub(crate) fn answer(&self, id: SessionId, now: u64) -> Option<Challenged> {
        let mut sessions = self.lock();
        match sessions.remove(&id)? {
            Session { expires, state: State::Challenged(challenged), .. } if now < expires => {
                Some(challenged)
            }
            Session { state: State::Challenged(_), .. } => None,
            // Who has answered stays, but does not answer twice.
            attested => {
                sessions.insert(id, attested);
                None
            }
        }
    }

    /// Keeps someone who has answered rightly. Gives when that ends.
    pub(crate) fn attest(&self, id: SessionId, attested: Attested, from: Option<IpAddr>, now: u64) -> u64 {
        let expires = now.saturating_add(SESSION_SECONDS);
        let session = Session { expires, from, state: State::Attested(Arc::new(attested)) };
        self.lock().insert(id, session);
        expires
    }

    /// Who has answered in this session.
    pub(crate) fn attested(&self, id: SessionId, now: u64) -> Option<Arc<Attested>> {
        match self.lock().get(&id)? {
            Session { expires, state: State::Attested(attested), .. } if now < *expires => {
                Some(attested.clone())
            }
            _ => None,
        }
    }
}

/// Takes the oldest session of the address that has most of them, if that is more than `asking` has.
fn make_room(sessions: &mut HashMap<SessionId, Session>, asking: Option<IpAddr>) -> bool {
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for session in sessions.values() {
        *counts.entry(session.from).or_default() += 1;
    }
    let own = counts.get(&asking).copied().unwrap_or(0);
    let most = counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > own);
    let Some((from, _)) = most else { return false };
    let of_it = sessions.iter().filter(|(_, session)| session.from == from);
    let oldest = of_it.min_by_key(|(_, session)| session.expires).map(|(id, _)| *id);
    oldest.is_some_and(|id| sessions.remove(&id).is_some())
}
