//! Servers, caches and workers over real sockets.

mod common;

use std::fs::{read, write};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::*;
use privet_attest::Policy;
use privet_keys::cache::{CacheEvent, LeaseBook, Renewal, SealingKey};
use privet_keys::{
    Address, Elapsed, Endpoint, Grant, Handler, KeyPolicy, KeysError, Limits, ManualClock, Server, ServerTls,
    ServerTrust, SystemRandomness, fetch_key, make_certificate,
};

/// A server in threads of this process, which stops when it is dropped.
struct Running {
    address: Address,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn new(server: Server) -> Self {
        let (address, stop) = (server.address().clone(), Arc::new(AtomicBool::new(false)));
        let flag = stop.clone();
        let thread = Some(std::thread::spawn(move || server.run(&flag).unwrap()));
        Self { address, stop, thread }
    }

    fn endpoint(&self, trust: Option<ServerTrust>) -> Endpoint {
        Endpoint { address: self.address.clone(), trust, deadline: Duration::from_secs(60) }
    }

    fn tcp(&self) -> &str {
        match &self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("a Unix socket"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// With time enough for everyone who is honest.
fn limits() -> Limits {
    let patience = Duration::from_secs(60);
    Limits { handshake: patience, request: patience, ..Limits::default() }
}

/// With little time for those who say nothing.
fn impatient() -> Limits {
    Limits { handshake: Duration::from_secs(1), ..limits() }
}

/// A key server with a pinned certificate, and how clients know it.
fn served(owner: &Owner) -> (Running, ServerTrust) {
    make_certificate(owner.dir.path(), &["127.0.0.1".to_owned()]).unwrap();
    let tls = ServerTls::load(owner.dir.path()).unwrap();
    let server = Server::tcp("127.0.0.1:0", tls, owner.broker.clone(), limits()).unwrap();
    (Running::new(server), ServerTrust::pinned(&owner.at("tls.crt")).unwrap())
}

fn fetch(endpoint: &Endpoint, measurement: [u8; 32]) -> Result<Grant, KeysError> {
    fetch_key(endpoint, &*attester(measurement), &owner_keys().release.key_id, None)
}

#[test]
fn a_worker_fetches_its_key_over_pinned_tls() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    let grant = fetch(&server.endpoint(Some(trust.clone())), WORKER).unwrap();
    assert!(grant.key().unwrap() == owner_keys().content);
    assert_eq!((grant.key_version.get(), grant.not_after), (1, None));
    let error = fetch(&server.endpoint(Some(trust)), STRANGER).err().unwrap();
    assert!(matches!(&error, KeysError::Refused { kind, .. } if kind == "PolicyDeny"), "{error}");
    // Another server's certificate, and none.
    let other = tempfile::tempdir().unwrap();
    make_certificate(other.path(), &["127.0.0.1".to_owned()]).unwrap();
    let wrong = ServerTrust::pinned(&other.path().join("tls.crt")).unwrap();
    let error = fetch(&server.endpoint(Some(wrong)), WORKER).err().unwrap().to_string();
    assert!(error.contains("TLS"), "{error}");
    assert!(fetch(&server.endpoint(None), WORKER).err().unwrap().to_string().contains("not known"));
}

#[test]
fn server_and_worker_attest_each_other_in_the_handshake() {
    let owner = Owner::new();
    let policy = |measurement| Policy::parse(&attestation_policy(measurement)).unwrap();
    let tls = ServerTls::attested(attester(CACHE), Some((verifier(), policy(WORKER)))).unwrap();
    let server = Running::new(Server::tcp("127.0.0.1:0", tls, owner.broker.clone(), limits()).unwrap());
    let knows = |measurement| server.endpoint(Some(ServerTrust::attested(verifier(), policy(measurement))));
    assert!(fetch(&knows(CACHE), WORKER).unwrap().key().unwrap() == owner_keys().content);
    let error = fetch(&knows(STRANGER), WORKER).err().unwrap().to_string();
    assert!(error.contains("measurement"), "the server is another: {error}");
    assert!(fetch(&knows(CACHE), STRANGER).is_err(), "the worker is another");
}

/// Raw bytes at a server, and what it answers before it hangs up.
fn talk(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may hang up before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn who_speaks_no_tls_or_nothing_is_hung_up_on() {
    let owner = Owner::new();
    let (_, trust) = served(&owner);
    let serve = |limits| {
        let tls = ServerTls::load(owner.dir.path()).unwrap();
        Running::new(Server::tcp("127.0.0.1:0", tls, owner.broker.clone(), limits).unwrap())
    };
    let server = serve(impatient());
    let plain = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".as_slice();
    for bytes in [plain, b"", &[0x16, 3, 1, 0xff, 0xff], &[0; 4096], b"SSH-2.0-x\r\n"] {
        let answer = talk(server.tcp(), bytes);
        assert!(!answer.windows(4).any(|w| w == b"HTTP" || w == b"kbs/"), "{answer:?}");
    }
    // Others are served all the same, next to one who says nothing.
    let server = serve(limits());
    let _silent = TcpStream::connect(server.tcp()).unwrap();
    assert!(fetch(&server.endpoint(Some(trust)), WORKER).is_ok());
}

/// Connections that are opened and left alone, as many as one address gets and more.
#[test]
fn one_address_does_not_take_all_connections() {
    let owner = Owner::new();
    make_certificate(owner.dir.path(), &["127.0.0.1".to_owned()]).unwrap();
    let tls = ServerTls::load(owner.dir.path()).unwrap();
    let patient = Limits { connections: 8, handshake: Duration::from_secs(600), ..limits() };
    let server = Running::new(Server::tcp("127.0.0.1:0", tls, owner.broker.clone(), patient).unwrap());
    let connect = || {
        let stream = TcpStream::connect(server.tcp()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let silent = [connect(), connect()];
    for _ in 0..8 {
        assert_eq!(connect().read(&mut [0]).unwrap(), 0, "hung up on at once");
    }
    drop(silent);
    let trust = ServerTrust::pinned(&owner.at("tls.crt")).unwrap();
    let endpoint = server.endpoint(Some(trust));
    let mut fetched = fetch(&endpoint, WORKER);
    // The server has to notice first that they have gone.
    while matches!(&fetched, Err(KeysError::Peer { .. })) {
        fetched = fetch(&endpoint, WORKER);
    }
    assert!(fetched.is_ok());
}

#[test]
fn requests_are_bounded() {
    let owner = Owner::new();
    let path = owner.at("s");
    let few = Limits { per_minute: 20, ..impatient() };
    let server = Running::new(Server::unix(&path, owner.broker.clone(), few).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Server::unix(&path, owner.broker.clone(), limits()).is_err(), "somebody listens");
    let request = |bytes: &[u8]| {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let get = |path: &str| {
        request(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    };
    assert!(get("/kbs/v0/auth").starts_with("HTTP/1.1 405"));
    assert!(
        get("/").starts_with("HTTP/1.1 404") && get("/kbs/v0/resource/a/key/1").starts_with("HTTP/1.1 401")
    );
    assert!(request(b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(request(b"").is_empty(), "nobody waits for long");
    let long = format!(
        "POST /kbs/v0/attest HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        3 << 20
    );
    let answer = request(&[long.as_bytes(), &vec![b' '; 3 << 20]].concat());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answers: Vec<_> = (0..30).map(|_| get("/")).collect();
    assert!(answers.iter().any(|answer| answer.starts_with("HTTP/1.1 429")), "{answers:?}");
    drop(server);
    assert!(!path.exists());
}

/// A clock of the process, set by hand.
#[derive(Default)]
struct Hours(AtomicU64);

impl Elapsed for Hours {
    fn elapsed(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A cache over a book of leases that lives in a directory.
struct Cache {
    book: Arc<LeaseBook>,
    running: Running,
    events: Arc<Mutex<Vec<CacheEvent>>>,
}

fn sealing(dir: &Path) -> SealingKey {
    SealingKey::of_file_insecure(&dir.join("sealing.key")).unwrap()
}

impl Cache {
    fn open(dir: &Path, server: Option<Endpoint>, wall: &Arc<ManualClock>) -> Self {
        let renewal = server.map(|endpoint| Renewal { endpoint, attester: attester(CACHE) });
        let policies = vec![KeyPolicy::parse("resnet.toml", &policy()).unwrap()];
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let tell = Arc::new(move |event: &CacheEvent| heard.lock().unwrap().push(event.clone()));
        let elapsed = Arc::new(Hours::default());
        let path = dir.join("leases.sealed");
        let book =
            LeaseBook::open(&path, sealing(dir), policies, renewal, wall.clone(), elapsed, tell).unwrap();
        let book = Arc::new(book);
        let random = Arc::new(SystemRandomness);
        let broker =
            privet_keys::kbs::Broker::new(book.clone(), verifier(), book.clock(), random, &[1; 32], "cache")
                .unwrap();
        let handler: Arc<dyn Handler> = Arc::new(broker);
        let running = Running::new(Server::unix(&dir.join("cache.sock"), handler, limits()).unwrap());
        Self { book, running, events }
    }

    fn fetch(&self, measurement: [u8; 32]) -> Result<Grant, KeysError> {
        fetch(&self.running.endpoint(None), measurement)
    }
}

#[test]
fn a_cache_serves_without_the_server_until_its_lease_ends() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    let dir = tempfile::tempdir().unwrap();
    let wall = Arc::new(ManualClock::new(NOON));
    let endpoint = server.endpoint(Some(trust));
    let cache = Cache::open(dir.path(), Some(endpoint.clone()), &wall);
    cache.book.renew();
    assert_eq!(cache.book.held().len(), 1, "{:?}", cache.events.lock().unwrap());
    let grant = cache.fetch(WORKER).unwrap();
    assert!(grant.key().unwrap() == owner_keys().content);
    assert_eq!(grant.not_after, Some(NOON + 3600));
    for (measurement, detail) in [(STRANGER, "measurement"), (CACHE, "measurement")] {
        let error = cache.fetch(measurement).err().unwrap().to_string();
        assert!(error.contains("PolicyDeny") && error.contains(detail), "{error}");
    }
    // A key outside its policies, though the server has it.
    let other =
        privet_seal::OwnerKeys::generate("other".parse().unwrap(), owner_keys().release.model_id).unwrap();
    owner.store.add(&other.content, &other.release).unwrap();
    let asked = fetch_key(&cache.running.endpoint(None), &*attester(WORKER), &other.release.key_id, None);
    assert!(asked.err().unwrap().to_string().contains("no policy for this key"));
    // Nothing of it is readable on the disk.
    let sealed = read(dir.path().join("leases.sealed")).unwrap();
    let content = owner_keys().content;
    let base64 = data_encoding::BASE64.encode(content.expose());
    assert!(!sealed.windows(32).any(|w| w == content.expose()));
    assert!(!sealed.windows(8).any(|w| w == &base64.as_bytes()[..8]));

    // Without the server, after a restart, with the wall clock turned back.
    drop((server, cache));
    wall.set(NOON - 100_000);
    let cache = Cache::open(dir.path(), Some(endpoint.clone()), &wall);
    assert!(cache.fetch(WORKER).unwrap().key().unwrap() == content);
    assert!(cache.book.clock().now() >= NOON);
    wall.set(NOON + 3599);
    assert!(cache.fetch(WORKER).is_ok());
    wall.set(NOON + 3600);
    let error = cache.fetch(WORKER).err().unwrap().to_string();
    assert!(error.contains("no lease of this key"), "{error}");
    drop(cache);
    wall.set(NOON);
    let cache = Cache::open(dir.path(), None, &wall);
    assert!(cache.book.held().is_empty() && cache.fetch(WORKER).is_err(), "what has ended has ended");
}

#[test]
fn what_the_server_refuses_is_not_kept() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    let dir = tempfile::tempdir().unwrap();
    let wall = Arc::new(ManualClock::new(NOON));
    let cache = Cache::open(dir.path(), Some(server.endpoint(Some(trust))), &wall);
    cache.book.renew();
    assert!(cache.fetch(WORKER).is_ok());
    owner.store.revoke(&owner_keys().release.key_id, None).unwrap();
    cache.book.renew();
    assert!(cache.fetch(WORKER).is_ok(), "it is not yet asked again");
    wall.set(NOON + 1800);
    cache.book.renew();
    assert!(cache.book.held().is_empty());
    let error = cache.fetch(WORKER).err().unwrap().to_string();
    assert!(error.contains("revoked"), "{error}");
}

#[test]
fn a_rotated_key_comes_when_half_of_the_lease_is_over() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    let dir = tempfile::tempdir().unwrap();
    let wall = Arc::new(ManualClock::new(NOON));
    let cache = Cache::open(dir.path(), Some(server.endpoint(Some(trust))), &wall);
    cache.book.renew();
    let (key, release) = rotated(&owner_keys());
    owner.store.rotate(&key, &release).unwrap();
    assert!(cache.fetch(WORKER).unwrap().key().unwrap() == owner_keys().content, "not yet asked again");
    owner.clock.set(NOON + 1800);
    wall.set(NOON + 1800);
    cache.book.renew();
    assert!(cache.fetch(WORKER).unwrap().key().unwrap() == key, "the newest is the new one");
    let held: Vec<_> = cache.book.held().iter().map(|lease| (lease.version.get(), lease.ends)).collect();
    assert_eq!(held, [(2, NOON + 5400), (1, NOON + 5400)], "the old one serves models sealed under it");
}

#[test]
fn both_policies_have_to_accept_a_worker() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    // The owner's policy releases to another worker than the cache's.
    let text = policy().replacen(&"a1".repeat(32), &"b2".repeat(32), 1);
    owner.store.set_policy(&owner_keys().release.key_id, &text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache =
        Cache::open(dir.path(), Some(server.endpoint(Some(trust))), &Arc::new(ManualClock::new(NOON)));
    cache.book.renew();
    assert_eq!(cache.book.held().len(), 1);
    for measurement in [WORKER, [0xb2; 32]] {
        assert!(cache.fetch(measurement).err().unwrap().to_string().contains("measurement"));
    }
}

#[test]
fn leases_that_were_changed_or_sealed_elsewhere_are_refused() {
    let owner = Owner::new();
    let (server, trust) = served(&owner);
    let dir = tempfile::tempdir().unwrap();
    let wall = Arc::new(ManualClock::new(NOON));
    let cache = Cache::open(dir.path(), Some(server.endpoint(Some(trust))), &wall);
    cache.book.renew();
    drop(cache);
    let path = dir.path().join("leases.sealed");
    let sealed = read(&path).unwrap();
    let open = |sealing| {
        let policies = vec![KeyPolicy::parse("p", &policy()).unwrap()];
        let (elapsed, tell) = (Arc::new(Hours::default()), Arc::new(|_: &CacheEvent| {}));
        LeaseBook::open(&path, sealing, policies, None, wall.clone(), elapsed, tell)
    };
    for at in [0, 1, 40, sealed.len() / 2, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        write(&path, &changed).unwrap();
        assert!(open(sealing(dir.path())).is_err(), "byte {at}");
    }
    write(&path, &sealed).unwrap();
    let enclave = dir.path().join("attestation");
    std::fs::create_dir_all(enclave.join("keys")).unwrap();
    write(enclave.join("keys/_sgx_mrenclave"), [7; 16]).unwrap();
    let error = open(SealingKey::of_enclave(&enclave).unwrap()).err().unwrap().to_string();
    assert!(error.contains("another key"), "{error}");
    write(enclave.join("keys/_sgx_mrenclave"), [7; 15]).unwrap();
    assert!(SealingKey::of_enclave(&enclave).is_err());
    assert_eq!(open(sealing(dir.path())).unwrap().held().len(), 1);
    // Without a policy that names it, a lease goes.
    let (elapsed, tell) = (Arc::new(Hours::default()), Arc::new(|_: &CacheEvent| {}));
    let other = KeyPolicy::parse("p", &policy().replace("\"resnet\"", "\"vgg\"")).unwrap();
    let book = LeaseBook::open(&path, sealing(dir.path()), vec![other], None, wall, elapsed, tell).unwrap();
    assert!(book.held().is_empty());
}
