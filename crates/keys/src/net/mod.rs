//! HTTP over TLS or a Unix socket: servers, and the client's side.

pub(crate) mod client;
pub(crate) mod handshake;
mod limits;
mod server;
pub(crate) mod tls;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::kbs::{Broker, Credential, Problem, Refusal, Reply, refused, wire};
pub use limits::{Crowd, Limits, Place, TooMany};
pub use server::{Accepted, Server, Speaker};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`, over TLS.
    Tcp(String),
    /// `unix:PATH`: a socket on this host, without TLS; keys are encrypted to the attested key all the same.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("expected unix:PATH".to_owned())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT or unix:PATH")?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err("expected HOST:PORT, with a port from 0 to 65535, or unix:PATH".to_owned());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A request, read whole.
pub struct Incoming {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) cookie: Option<String>,
    pub(crate) bearer: Option<String>,
    pub(crate) body: zeroize::Zeroizing<Vec<u8>>,
    /// The peer's address, or its network; none on a Unix socket.
    pub(crate) from: Option<std::net::IpAddr>,
}

/// What answers requests. It may block.
pub trait Handler: Send + Sync + 'static {
    /// The answer.
    fn handle(&self, request: &Incoming) -> Reply;
}

/// The paths of the KBS protocol.
impl Handler for Broker {
    fn handle(&self, request: &Incoming) -> Reply {
        let Incoming { method, path, cookie, bearer, body, from } = request;
        let cookie = cookie.as_deref();
        let resource = path.strip_prefix("/kbs/v0/resource/");
        match (method.as_str(), path.as_str(), resource) {
            ("POST", "/kbs/v0/auth", _) => self.auth_from(*from, body),
            ("POST", "/kbs/v0/attest", _) => self.attest(cookie, body),
            ("GET", _, Some(resource)) => {
                let credential = match (bearer, cookie) {
                    (Some(token), _) => Credential::Bearer(token),
                    (None, Some(cookie)) => Credential::Cookie(cookie),
                    (None, None) => Credential::None,
                };
                self.resource(&credential, resource)
            }
            (_, "/kbs/v0/auth" | "/kbs/v0/attest", _) | (_, _, Some(_)) => refused(&Refusal::new(
                Problem::MethodNotAllowed,
                "expected POST for auth and attest, GET for resource",
            )),
            _ => refused(&Refusal::new(
                Problem::InvalidRequestPath,
                "expected /kbs/v0/auth, /kbs/v0/attest or /kbs/v0/resource/KEY/KIND/VERSION",
            )),
        }
    }
}

/// The value of the session's cookie in a `Cookie` header.
fn session_cookie(header: &str) -> Option<&str> {
    let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wire::COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_cookies() {
        for text in ["keys.example:7300", "127.0.0.1:0", "[::1]:7300", "unix:/run/keys.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "keys.example", ":7300", "a:70000", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(session_cookie("a=b; kbs-session-id=x; c=d"), Some("x"));
        assert_eq!(session_cookie("kbs-session-id"), None);
        assert_eq!(session_cookie("xkbs-session-id=1"), None);
    }
}
