//! Requests to a server, one connection for an exchange, with a deadline over all of it.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use privet_attest::Attester;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::handshake::{Wanted, answer_problem, connect_problem, handshake_problem};
use super::tls::ServerTrust;
use super::{Address, session_cookie};
use crate::error::KeysError;
use crate::kbs::{printable, wire};

/// A connection to a server.
pub(crate) struct Connection {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    peer: String,
    host: String,
    cookie: Option<String>,
    deadline: Duration,
    peer_uid: Option<u32>,
}

impl Connection {
    /// Connects; TCP needs to know whom to trust.
    pub(crate) fn open(
        address: &Address,
        trust: Option<&ServerTrust>,
        attester: Option<&dyn Attester>,
        deadline: Duration,
    ) -> Result<Self, KeysError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| KeysError::Internal("the operating system gave no sockets"))?;
        let peer = address.to_string();
        let fail = |problem: String| KeysError::Peer { peer: peer.clone(), problem };
        let connect = async {
            match address {
                Address::Tcp(address) => {
                    let host = host_of(address);
                    let unknown = "its certificate is not known: --server-certificate names it, or --server-policy for \
                                   a server with --ra-tls";
                    let trust = trust.ok_or_else(|| fail(unknown.to_owned()))?;
                    let name = ServerName::try_from(host)
                        .map_err(|_| fail("this is not the name or address of a host".to_owned()))?;
                    let connector = TlsConnector::from(trust.config(attester)?);
                    let stream = TcpStream::connect(address)
                        .await
                        .map_err(|e| fail(connect_problem(&e, Wanted::Keys)))?;
                    let _ = stream.set_nodelay(true);
                    let stream = connector
                        .connect(name, stream)
                        .await
                        .map_err(|e| fail(handshake_problem(&e, Wanted::Keys)))?;
                    Ok::<_, KeysError>((converse(stream).await.map_err(fail)?, None))
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path)
                        .await
                        .map_err(|e| fail(connect_problem(&e, Wanted::Keys)))?;
                    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                    Ok((converse(stream).await.map_err(fail)?, uid))
                }
            }
        };
        let connecting = runtime.block_on(async { timeout(deadline, connect).await });
        let host = match address {
            Address::Tcp(address) => host_of(address),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let late = |_| KeysError::Deadline { peer: peer.clone(), seconds: deadline.as_secs() };
        let (sender, peer_uid) = connecting.map_err(late)??;
        Ok(Self { runtime, sender, peer, host, cookie: None, deadline, peer_uid })
    }

    /// The body of the answer to a request; a refusal is an error.
    pub(crate) fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let peer = self.peer.clone();
        let fail = |problem: String| KeysError::Peer { peer: peer.clone(), problem };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("{}={cookie}", wire::COOKIE));
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(&body)))
            .map_err(|_| KeysError::Internal("a request does not encode"))?;
        let sender = &mut self.sender;
        let exchange = async {
            let unanswered = |e: hyper::Error| fail(answer_problem(&e, Wanted::Keys));
            let response = sender.send_request(request).await.map_err(unanswered)?;
            let status = response.status();
            let cookie =
                response.headers().get(SET_COOKIE).and_then(|v| v.to_str().ok()).and_then(session_cookie);
            let cookie = cookie.map(str::to_owned);
            let body = Limited::new(response.into_body(), wire::MAX_REPLY_BYTES).collect().await;
            let body = body.map_err(|e| {
                let is_long = e.is::<http_body_util::LengthLimitError>();
                let long = || format!("its answer is longer than {} bytes", wire::MAX_REPLY_BYTES);
                fail(if is_long { long() } else { answer_problem(&*e, Wanted::Keys) })
            })?;
            Ok::<_, KeysError>((status, cookie, Zeroizing::new(body.to_bytes().to_vec())))
        };
        let late = |_| KeysError::Deadline { peer: peer.clone(), seconds: self.deadline.as_secs() };
        let (status, cookie, body) =
            self.runtime.block_on(async { timeout(self.deadline, exchange).await }).map_err(late)??;
        if let Some(cookie) = cookie {
            self.cookie = Some(cookie);
        }
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<kbs_types::ErrorInformation>(&body) {
            Ok(information) => {
                let kind = information.error_type.rsplit('/').next().unwrap_or_default();
                let (kind, detail) = (printable(kind), printable(&information.detail));
                Err(KeysError::Refused { peer, kind, detail })
            }
            Err(_) => Err(fail(format!("answered with status {status}"))),
        }
    }

    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    /// Whose process listens, on a Unix socket.
    pub(crate) fn peer_uid(&self) -> Option<u32> {
        self.peer_uid
    }
}

/// Without port, and without the brackets of IPv6.
fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// HTTP/1.1 on a stream; the connection's own work is done while a request waits.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its errors are those of the request under way.
        let _ = connection.await;
    });
    Ok(sender)
}
