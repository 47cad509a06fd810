//! Real parties over a bad network: every session ends with a typed error within its deadline, nobody takes a wrong result
//! for a right one, services go on, unused material stays usable, and nothing is leaked.

#![cfg(target_os = "linux")]

mod lab;
mod proxy;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::{Lab, digit};
use privet::client::{self, ClientOptions};
use privet::dealer::{self, DealerOptions};
use privet::events::Silent;
use privet::server::{self, ServerOptions};
use privet::{Error, Event, PartyConfig, PartyRole, Report};
use proxy::{Fault, Harm, Proxy};

/// Most of a case is waiting.
const CLIENTS: [&str; 8] = ["north", "east", "south", "west", "up", "down", "here", "there"];
/// Much longer than any case may take: what is still there is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Panics of any thread, also of those that a party survives.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Open files, threads and panics are counted, so one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        report(info);
    }));
    guard
}

/// Short, as every stalled connection waits for them, but twenty times what a busy machine takes for all of a session.
fn config(lab: &Lab, name: &str, role: PartyRole) -> PartyConfig {
    let mut config = lab.config(name, role);
    let short = Duration::from_secs(8);
    (config.deadlines.connect, config.deadlines.handshake, config.deadlines.wait) = (short, short, short);
    config
}

/// A listening party on a thread.
struct Running {
    address: String,
    /// Everything it told its user.
    said: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report, Error>>>,
}

impl Running {
    fn start(
        run: impl FnOnce(Arc<AtomicBool>, &dyn privet::Observer) -> Result<Report, Error> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = channel();
        let (said, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (own_said, own_stop) = (said.clone(), stop.clone());
        let sender = Mutex::new(sender);
        let thread = std::thread::spawn(move || {
            let observer = move |event: &Event| match event {
                Event::Listening { address } => sender.lock().unwrap().send(address.clone()).unwrap(),
                Event::Message { text } | Event::Warning { text } => {
                    own_said.lock().unwrap().push(text.clone())
                }
                _ => {}
            };
            run(own_stop, &observer)
        });
        let address = receiver.recv_timeout(STUCK).expect("it listens");
        Self { address, said, stop, thread: Some(thread) }
    }

    fn dealer(lab: &Lab) -> Self {
        let config = config(lab, "dealer", PartyRole::Dealer);
        Self::start(move |stop, observer| {
            let options = DealerOptions { listen: Some("127.0.0.1:0".into()), bundles: None, stop };
            dealer::serve(config, &options, observer)
        })
    }

    fn server(lab: &Lab, dealer: Option<&str>, count: u64) -> Self {
        let (config, model) = (config(lab, "server", PartyRole::Server), lab.model("model"));
        let dealer = dealer.map(str::to_owned);
        Self::start(move |stop, observer| {
            let listen = Some("127.0.0.1:0".into());
            let options = ServerOptions { listen, dealer, count, sessions: None, stop };
            if count == 0 {
                server::online(config, model, &options, observer)
            } else {
                server::offline(config, model, &options, observer)
            }
        })
    }

    fn has_said(&self, text: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Waits until it has said something, or has ended.
    fn until(&self, text: &str) {
        let start = Instant::now();
        while !self.has_said(text) && !self.thread.as_ref().unwrap().is_finished() {
            assert!(start.elapsed() < STUCK, "neither {text:?} nor an end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets it drain.
    fn end(mut self) -> Result<Report, Error> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().unwrap();
        let start = Instant::now();
        while !thread.is_finished() {
            assert!(start.elapsed() < STUCK, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().expect("no panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(lab: &Lab, client: &str, server: &str, n: u32) -> Result<Vec<i64>, Error> {
    let config = config(lab, client, PartyRole::Client);
    let inputs = digit(n, &client::plan(&config)?);
    let options = ClientOptions { server: Some(server.to_owned()), ..ClientOptions::default() };
    Ok(client::online(config, &inputs, &options, &Silent)?.0.expect("the client learns the output").remove(0))
}

fn fetch(lab: &Lab, client: &str, server: &str, dealer: &str, count: u64) -> Result<Report, Error> {
    let options = ClientOptions {
        server: Some(server.to_owned()),
        dealer: Some(dealer.to_owned()),
        count,
        ..ClientOptions::default()
    };
    client::offline(config(lab, client, PartyRole::Client), &options, &Silent)
}

/// Open files and threads of this process.
fn resources() -> [usize; 2] {
    ["/proc/self/fd", "/proc/self/task"].map(|dir| std::fs::read_dir(dir).unwrap().count())
}

/// Waits until there are no more files and threads than before. Nothing has panicked.
#[track_caller]
fn expect_no_more_than(before: [usize; 2]) {
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "panics");
    let start = Instant::now();
    loop {
        let now = resources();
        if now[0] <= before[0] && now[1] <= before[1] {
            return;
        }
        let files: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .collect();
        assert!(start.elapsed() < STUCK, "files and threads: {before:?}, now {now:?}: {files:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Files under a party's state; none of them unfinished.
fn whole_files(lab: &Lab, party: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut stack = vec![lab.path("parties").join(party).join("state")];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(
                !name.ends_with(".partial") && !name.starts_with(".privet-"),
                "{} is left",
                path.display()
            );
            if path.is_dir() {
                stack.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

/// Faults at all records of a clean connection, each kind with its own stride. The middle of a record is inside a frame, its
/// beginning between two.
fn harms(records: &[Vec<usize>; 2]) -> Vec<Harm> {
    let mut harms = Vec::new();
    for (outward, starts) in [(true, &records[0]), (false, &records[1])] {
        for (i, pair) in starts.windows(2).enumerate() {
            let middle = pair[0] + (pair[1] - pair[0]) / 2;
            let kinds = [
                (Fault::Flip, middle, 1, 0),
                (Fault::Cut, middle, 1, 0),
                (Fault::Cut, pair[0], 4, 1),
                (Fault::Reset, middle, 4, 2),
                (Fault::HalfClose, pair[0], 4, 3),
                (Fault::Stall, middle, 6, 4),
            ];
            let here = kinds.into_iter().filter(|&(_, _, stride, phase)| i % stride == phase % stride);
            harms.extend(here.map(|(fault, at, _, _)| Harm { fault, outward, at }));
        }
    }
    harms
}

#[test]
fn an_inference_over_a_bad_network_fails_cleanly_or_is_right() {
    let _alone = alone();
    let before_all = resources();
    let lab = Lab::new(&CLIENTS);
    // How the network looks without faults.
    lab.prepare("model", &CLIENTS, 1);
    let records = {
        let server = Running::server(&lab, None, 0);
        let proxy = Proxy::before(&server.address);
        assert_eq!(ask(&lab, CLIENTS[0], &proxy.address, 3).unwrap(), lab.reference("model", 3));
        server.end().unwrap();
        proxy.records()
    };
    assert!(records.iter().all(|starts| starts.len() > 12), "{records:?}");
    let harms = harms(&records);
    let each = harms.len().div_ceil(CLIENTS.len()) as u64 + 2;
    lab.prepare("model", &CLIENTS, each);
    let expected = lab.reference("model", 7);

    let server = Running::server(&lab, None, 0);
    let before = resources();
    let (succeeded, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (worker, client) in CLIENTS.into_iter().enumerate() {
            let (lab, server, expected) = (&lab, &server, &expected);
            let (succeeded, failed) = (&succeeded, &failed);
            let own: Vec<Harm> = harms.iter().copied().skip(worker).step_by(CLIENTS.len()).collect();
            scope.spawn(move || {
                let proxy = Proxy::before(&server.address);
                for harm in own {
                    proxy.harm(harm);
                    let start = Instant::now();
                    match ask(lab, client, &proxy.address, 7) {
                        Ok(answer) => {
                            assert_eq!(answer, *expected, "{harm:?}: a wrong answer");
                            succeeded.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            let is_typed =
                                matches!(error, Error::Net(_) | Error::Protocol(_) | Error::Peer { .. });
                            assert!(is_typed, "{harm:?}: {error}");
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    assert!(start.elapsed() < STUCK, "{harm:?}");
                }
                // The service goes on, and what was not used is usable; slowly is well, too.
                for harm in [None, Some(Harm { fault: Fault::Trickle, outward: false, at: 0 })] {
                    harm.into_iter().for_each(|h| proxy.harm(h));
                    assert_eq!(ask(lab, client, &proxy.address, 7).unwrap(), *expected, "{client}");
                }
            });
        }
    });
    let (succeeded, failed) = (succeeded.into_inner(), failed.into_inner());
    eprintln!("{} faults: {failed} failures, {succeeded} right answers", harms.len());
    // What hits only the goodbye, or after it, comes too late to harm.
    assert!(succeeded <= harms.len() / 5, "{succeeded} of {} faults had no effect", harms.len());
    expect_no_more_than(before);
    server.end().unwrap();
    for party in CLIENTS.into_iter().chain(["server"]) {
        whole_files(&lab, party);
    }
    drop(lab);
    expect_no_more_than(before_all);
}

#[test]
fn a_client_that_prepares_over_a_bad_network_loses_nothing() {
    let _alone = alone();
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let kept: BTreeSet<PathBuf> = whole_files(&lab, "client");
    let dealer = Running::dealer(&lab);
    let to_dealer = Proxy::before(&dealer.address);
    let mut count = 1;
    // One more inference with every call.
    let mut prepare = |harm_dealer: Option<Harm>, harm_server: Option<Harm>| {
        count += 1;
        let server = Running::server(&lab, Some(&dealer.address), count);
        let to_server = Proxy::before(&server.address);
        to_dealer.harm_in_turn([harm_dealer]);
        to_server.harm_in_turn([harm_server]);
        let outcome = fetch(&lab, "client", &to_server.address, &to_dealer.address, count);
        server.end().unwrap();
        whole_files(&lab, "client");
        whole_files(&lab, "server");
        (outcome, to_server.records())
    };
    let (clean, to_server) = prepare(None, None);
    clean.unwrap();
    let of_dealer = to_dealer.records();
    let before = resources();
    let mut failed = 0;
    let thin = |records| harms(records).into_iter().step_by(2);
    let (with_dealer, with_server): (Vec<_>, Vec<_>) =
        (thin(&of_dealer).collect(), thin(&to_server).collect());
    let cases = with_dealer.len() + with_server.len();
    for (dealer, server) in with_dealer
        .into_iter()
        .map(|h| (Some(h), None))
        .chain(with_server.into_iter().map(|h| (None, Some(h))))
    {
        if let (Err(error), _) = prepare(dealer, server) {
            let is_typed =
                matches!(error, Error::Net(_) | Error::Protocol(_) | Error::Peer { .. } | Error::NotReady(_));
            assert!(is_typed, "{dealer:?} {server:?}: {error}");
            failed += 1;
        }
    }
    eprintln!("{cases} faults, {failed} failures");
    assert!(failed > cases / 2, "{failed} of {cases}");
    expect_no_more_than(before);
    prepare(None, None).0.unwrap();
    assert!(kept.is_subset(&whole_files(&lab, "client")), "what was stored is still there");
    lab.answers("model", &[1, 7]);
}

#[test]
fn a_server_that_stocks_over_a_bad_network_loses_nothing() {
    let _alone = alone();
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let kept = whole_files(&lab, "server");
    let dealer = Running::dealer(&lab);
    let proxy = Proxy::before(&dealer.address);
    let mut count = 1;
    let mut stock = |harm: Option<Harm>| {
        count += 1;
        // The first connection agrees on the mask of the weights, the second brings material.
        proxy.harm_in_turn([None, harm]);
        let server = Running::server(&lab, Some(&proxy.address), count);
        server.until("material is prepared");
        let outcome = server.end();
        whole_files(&lab, "server");
        outcome
    };
    stock(None).unwrap();
    let of_material = proxy.records();
    let before = resources();
    let harms: Vec<Harm> = harms(&of_material).into_iter().step_by(2).collect();
    let mut failed = 0;
    for &harm in &harms {
        if let Err(error) = stock(Some(harm)) {
            let is_typed = matches!(error, Error::Net(_) | Error::Protocol(_) | Error::Peer { .. });
            assert!(is_typed, "{harm:?}: {error}");
            failed += 1;
        }
    }
    eprintln!("{} faults, {failed} failures", harms.len());
    assert!(failed > harms.len() / 2, "{failed} of {}", harms.len());
    expect_no_more_than(before);
    let server = Running::server(&lab, Some(&dealer.address), count);
    fetch(&lab, "client", &server.address, &dealer.address, count).unwrap();
    server.end().unwrap();
    assert!(kept.is_subset(&whole_files(&lab, "server")), "what was stored is still there");
    lab.answers("model", &[1, 7]);
}

/// Listens, and does something else than TLS with the first connections.
fn impostor(react: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(|s| react(s.unwrap())));
    address
}

#[test]
fn peers_that_do_not_speak_are_named_within_the_deadline() {
    let _alone = alone();
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let kept = whole_files(&lab, "client");
    let held = Mutex::new(Vec::new());
    let silent = impostor(move |s| held.lock().unwrap().push(s));
    let closing = impostor(drop);
    let babbling = impostor(|mut s| drop(s.write_all(&[0x5a; 4096])));
    for (address, expected) in
        [(&silent, "waiting for the TLS handshake"), (&closing, "closed the connection"), (&babbling, "TLS")]
    {
        let error = ask(&lab, "client", address, 1).unwrap_err();
        assert!(matches!(error, Error::Net(_)) && error.to_string().contains(expected), "{error}");
        let error = fetch(&lab, "client", address, address, 2).unwrap_err();
        assert!(matches!(error, Error::Net(_)) && error.to_string().contains(expected), "{error}");
        let server = Running::server(&lab, Some(address), 2);
        server.until("never said");
        let error = server.end().unwrap_err();
        assert!(matches!(error, Error::Net(_)) && error.to_string().contains(expected), "{error}");
    }
    assert!(kept.is_subset(&whole_files(&lab, "client")));
    lab.answers("model", &[4]);
}

#[test]
fn a_stopping_server_ends_its_session_and_refuses_newcomers() {
    let _alone = alone();
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let server = Running::server(&lab, None, 0);
    let proxy = Proxy::before(&server.address);
    // Slow, so that it is under way when the server is asked to stop.
    proxy.harm(Harm { fault: Fault::Trickle, outward: true, at: 0 });
    std::thread::scope(|scope| {
        let session = scope.spawn(|| ask(&lab, "client", &proxy.address, 2).unwrap());
        let start = Instant::now();
        while proxy.records()[0].len() < 5 {
            assert!(start.elapsed() < STUCK, "no session");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.stop.store(true, Ordering::SeqCst);
        let refused = || std::net::TcpStream::connect(&server.address).is_err();
        while !refused() {
            assert!(start.elapsed() < STUCK, "it still listens");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(session.join().unwrap(), lab.reference("model", 2));
    });
    server.end().unwrap();
}

#[test]
fn a_server_that_waits_for_a_dealer_stops_when_asked() {
    let _alone = alone();
    let lab = Lab::new(&["client"]);
    let (mut config, model) = (config(&lab, "server", PartyRole::Server), lab.model("model"));
    // Nothing but the flag may end it.
    config.deadlines.connect = STUCK * 10;
    let server = Running::start(move |stop, observer| {
        let (listen, dealer) = (Some("127.0.0.1:0".into()), Some("127.0.0.1:1".into()));
        let options = ServerOptions { listen, dealer, count: 1, sessions: None, stop };
        server::offline(config, model, &options, observer)
    });
    server.end().unwrap();
}
