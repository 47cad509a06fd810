//! A server: connections with deadlines and limits, each request handed to a [`Handler`].

use std::convert::Infallible;
use std::fs::{Permissions, remove_file, set_permissions};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderName, SET_COOKIE};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::limits::{Crowd, Limits, Place, Rates, TooMany, network};
use super::tls::ServerTls;
use super::{Address, Handler, Incoming, session_cookie};
use crate::error::KeysError;
use crate::kbs::{Problem, Refusal, Reply, refused, wire};

/// How long requests under way may take when the server is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often a server looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);
/// The user who may do anything.
const ROOT: u32 = 0;
/// Longest path and headers.
const MAX_HEADER_BYTES: usize = 32 << 10;

enum Listener {
    Tcp(TcpListener, Arc<ServerTls>),
    /// With the user whose socket it is.
    Unix(UnixListener, u32),
}

/// A socket that is listened on.
pub struct Server {
    runtime: Runtime,
    listener: Listener,
    address: Address,
    shared: Arc<Shared>,
}

/// A TLS connection that was accepted.
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// The public key (DER of its SubjectPublicKeyInfo) of the attested certificate that was shown on it; none for a fixed
    /// certificate.
    pub public_key: Option<Arc<[u8]>>,
    /// The peer's address.
    pub from: IpAddr,
}

/// What speaks a protocol of its own on the connections of a [`Server`].
pub trait Speaker: Send + Sync + 'static {
    /// Speaks until the connection ends. Deadlines are its own.
    fn speak(self: Arc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

enum Speech {
    Http(Arc<dyn Handler>),
    Other(Arc<dyn Speaker>),
}

struct Shared {
    speech: Speech,
    limits: Limits,
    rates: Rates,
    crowd: Arc<Crowd>,
    workers: Arc<Semaphore>,
}

impl Server {
    /// Listens on TCP, over TLS.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn tcp(
        address: &str,
        tls: ServerTls,
        handler: Arc<dyn Handler>,
        limits: Limits,
    ) -> Result<Self, KeysError> {
        Self::listen(address, tls, Speech::Http(handler), limits)
    }

    /// Listens on TCP, over TLS, for another protocol than HTTP. Of the limits, the time for a request counts only when the server
    /// is told to stop, and an address may connect as often a minute as it could send requests.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn speaking(
        address: &str,
        tls: ServerTls,
        speaker: Arc<dyn Speaker>,
        limits: Limits,
    ) -> Result<Self, KeysError> {
        Self::listen(address, tls, Speech::Other(speaker), limits)
    }

    fn listen(address: &str, tls: ServerTls, speech: Speech, limits: Limits) -> Result<Self, KeysError> {
        let runtime = runtime(&limits)?;
        let fail = |source| KeysError::Listen { address: address.to_owned(), source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?.to_string();
        let listener = Listener::Tcp(listener, Arc::new(tls));
        Ok(Self { runtime, listener, address: Address::Tcp(bound), shared: Shared::new(speech, limits) })
    }

    /// Listens on a Unix socket that only this user can open. A socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// If something else is there, somebody listens, or the system fails.
    pub fn unix(path: &Path, handler: Arc<dyn Handler>, limits: Limits) -> Result<Self, KeysError> {
        if let Ok(found) = path.symlink_metadata() {
            if !found.file_type().is_socket() {
                return Err(KeysError::file(path, "expected a socket or nothing, found something else"));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(KeysError::file(path, "another process listens on this socket; stop it first"));
            }
            remove_file(path).map_err(KeysError::io(path))?;
        }
        let runtime = runtime(&limits)?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(path).map_err(KeysError::io(path))?
        };
        set_permissions(path, Permissions::from_mode(0o600)).map_err(KeysError::io(path))?;
        let owner = path.symlink_metadata().map_err(KeysError::io(path))?.uid();
        let shared = Shared::new(Speech::Http(handler), limits);
        Ok(Self {
            runtime,
            listener: Listener::Unix(listener, owner),
            address: Address::Unix(path.to_owned()),
            shared,
        })
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves until `stop` is set; then requests under way are finished.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn run(self, stop: &AtomicBool) -> Result<(), KeysError> {
        let Self { runtime, listener, address, shared } = self;
        let connections = Arc::new(Semaphore::new(shared.limits.connections));
        let served = runtime.block_on(async {
            loop {
                let Some(place) = until(stop, connections.clone().acquire_owned()).await else { break };
                let place = place.map_err(|_| KeysError::Internal("a semaphore was closed"))?;
                let Some(accepted) = until(stop, accept(&listener)).await else { break };
                match accepted {
                    Ok(connection) => {
                        // Who has too many already is hung up on.
                        let Ok(seat) = connection.seat(&shared) else { continue };
                        let shared = shared.clone();
                        tokio::spawn(async move {
                            connection.serve(&shared).await;
                            drop((place, seat));
                        });
                    }
                    // Of one connection, or for want of files: others may fare better, a little later.
                    Err(_) => tokio::time::sleep(GLANCE).await,
                }
            }
            let all = u32::try_from(shared.limits.connections).unwrap_or(u32::MAX);
            let _ = timeout(DRAIN.min(shared.limits.request), connections.acquire_many(all)).await;
            Ok(())
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        if let Address::Unix(path) = address {
            let _ = remove_file(path);
        }
        served
    }
}

impl Shared {
    fn new(speech: Speech, limits: Limits) -> Arc<Self> {
        let (rates, workers) = (Rates::new(limits.per_minute), Arc::new(Semaphore::new(limits.workers)));
        Arc::new(Self { speech, limits, rates, crowd: Arc::default(), workers })
    }

    async fn answer(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        request: Request<Body>,
        from: Option<IpAddr>,
    ) -> Reply {
        if !self.rates.take(from, Instant::now()) {
            let detail = format!("more than {} requests a minute; wait", self.limits.per_minute);
            return refused(&Refusal::new(Problem::TooManyRequests, detail));
        }
        let deadline = self.limits.request;
        let late = || refused(&Refusal::new(Problem::Deadline, format!("not done within {deadline:?}")));
        timeout(deadline, self.work(handler, request, from.map(network))).await.unwrap_or_else(|_| late())
    }

    async fn work(
        self: Arc<Self>,
        handler: Arc<dyn Handler>,
        request: Request<Body>,
        from: Option<IpAddr>,
    ) -> Reply {
        let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let cookie = header(COOKIE).and_then(session_cookie).map(str::to_owned);
        let bearer = header(AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")).map(str::to_owned);
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let body = match Limited::new(request.into_body(), wire::MAX_ATTESTATION_BYTES).collect().await {
            Ok(body) => Zeroizing::new(body.to_bytes().to_vec()),
            Err(error) => {
                let too_long = error.is::<http_body_util::LengthLimitError>();
                let problem = if too_long { Problem::PayloadTooLarge } else { Problem::SerdeError };
                let detail = format!("expected a body of at most {} bytes", wire::MAX_ATTESTATION_BYTES);
                return refused(&Refusal::new(problem, detail));
            }
        };
        let incoming = Incoming { method, path, cookie, bearer, body, from };
        let Ok(place) = self.workers.clone().acquire_owned().await else {
            return refused(&Refusal::internal());
        };
        let work = tokio::task::spawn_blocking(move || {
            let reply = handler.handle(&incoming);
            drop(place);
            reply
        });
        work.await.unwrap_or_else(|_| refused(&Refusal::internal()))
    }
}

/// A connection that was accepted.
enum Connection {
    Tcp(TcpStream, SocketAddr, Arc<ServerTls>),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> std::io::Result<Connection> {
    Ok(match listener {
        Listener::Tcp(listener, tls) => {
            let (stream, from) = listener.accept().await?;
            Connection::Tcp(stream, from, tls.clone())
        }
        Listener::Unix(listener, owner) => {
            let stream = listener.accept().await?.0;
            // The socket's mode keeps others out, but for the moment before it was set, and if it was changed.
            let is_stranger = |uid: u32| uid != *owner && uid != ROOT;
            if stream.peer_cred().is_ok_and(|peer| is_stranger(peer.uid())) {
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            Connection::Unix(stream)
        }
    })
}

impl Connection {
    /// Its address's place among the connections; none is needed on a Unix socket.
    fn seat(&self, shared: &Shared) -> Result<Option<Place>, TooMany> {
        match self {
            Self::Unix(_) => Ok(None),
            Self::Tcp(_, from, _) => {
                shared.crowd.enter(from.ip(), shared.limits.connections_of_one()).map(Some)
            }
        }
    }

    async fn serve(self, shared: &Arc<Shared>) {
        match self {
            Self::Unix(stream) => {
                if let Speech::Http(handler) = &shared.speech {
                    speak(stream, None, handler, shared).await;
                }
            }
            Self::Tcp(stream, from, tls) => {
                let _ = stream.set_nodelay(true);
                // Of HTTP each request counts; of others, a connection: evidence may have to be made for it.
                let is_other = matches!(shared.speech, Speech::Other(_));
                if is_other && !shared.rates.take(Some(from.ip()), Instant::now()) {
                    return;
                }
                // Making evidence takes time, now and then.
                let Ok(offer) = tokio::task::spawn_blocking(move || tls.offer()).await else { return };
                let acceptor = TlsAcceptor::from(offer.config);
                // Who does not speak TLS, or shows the wrong certificate, is told so by an alert.
                let accepted = timeout(shared.limits.handshake, acceptor.accept(stream)).await;
                let Ok(Ok(stream)) = accepted else { return };
                match &shared.speech {
                    Speech::Http(handler) => speak(stream, Some(from.ip()), handler, shared).await,
                    Speech::Other(speaker) => {
                        let connection = Accepted { stream, public_key: offer.public_key, from: from.ip() };
                        speaker.clone().speak(connection).await;
                    }
                }
            }
        }
    }
}

/// HTTP/1.1 on one connection, which ends by itself after some requests' time.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: Option<IpAddr>,
    handler: &Arc<dyn Handler>,
    shared: &Arc<Shared>,
) {
    let limits = shared.limits;
    let service = service_fn(|request: Request<Body>| {
        let (shared, handler) = (shared.clone(), handler.clone());
        async move { Ok::<_, Infallible>(response(shared.answer(handler, request, from).await)) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let whole = (limits.handshake + limits.request) * 8;
    let _ = timeout(whole, connection).await;
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, "application/json")
        .header(CACHE_CONTROL, "no-store");
    if let Some(cookie) = reply.cookie {
        response =
            response.header(SET_COOKIE, format!("{}={cookie}; Path=/kbs; HttpOnly; Secure", wire::COOKIE));
    }
    let body = Full::new(Bytes::from(reply.body));
    response.body(body).unwrap_or_else(|_| Response::new(Full::default()))
}

/// The outcome, or `None` as soon as `stop` is set.
async fn until<T>(stop: &AtomicBool, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    loop {
        if stop.load(Ordering::SeqCst) {
            return None;
        }
        if let Ok(done) = timeout(GLANCE, &mut work).await {
            return Some(done);
        }
    }
}

fn runtime(limits: &Limits) -> Result<Runtime, KeysError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Those that work on requests, and two that make evidence for handshakes; every one has a stack.
        .max_blocking_threads(limits.workers + 2)
        .enable_all()
        .build()
        .map_err(|_| KeysError::Internal("the operating system gave no threads"))
}
