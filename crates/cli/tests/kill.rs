//! `kill -9` of any party at random moments, two hundred times on one and the same state: no mask hides two messages (the
//! ledger that the program under test keeps proves it), no answer is wrong, and what was stored and unused stays usable.

mod common;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{digits, finish, lowering, output, privet, signal};
use nix::sys::signal::Signal;
use privet::client::Outputs;
use privet::model::{self, LoadedModel};
use privet::{PartyConfig, PartyRole};
use privet_protocols::{Silent, cleartext};

const RUNS: usize = 200;
/// Inferences to hold material for.
const COUNT: &str = "3";
/// How long anything may take that is not killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator: the moments have to be the same for the same seed, nothing more.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Dealer,
    Server,
    Client,
    Nobody,
}

/// When the victim dies: after so many of its events, and a moment more.
#[derive(Clone, Copy, Debug)]
struct Blow {
    victim: Victim,
    events: usize,
    more: Duration,
}

impl Blow {
    const NONE: Blow = Blow { victim: Victim::Nobody, events: 0, more: Duration::ZERO };
}

/// A party's process, its events counted.
struct Party {
    victim: Victim,
    child: Child,
    events: Arc<AtomicUsize>,
    address: Arc<Mutex<Option<String>>>,
}

impl Party {
    fn start(victim: Victim, mut command: Command) -> Self {
        let mut child = command.arg("--events").spawn().unwrap();
        let (events, address) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (counter, found) = (events.clone(), Arc::clone(&address));
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Cut short where the process was killed.
                if let Ok(event) = serde_json::from_str::<serde_json::Value>(&line)
                    && let Some(address) = event["address"].as_str()
                {
                    *found.lock().unwrap() = Some(address.to_owned());
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { victim, child, events, address }
    }

    /// Where it listens; `None` if it has ended.
    fn address(&mut self) -> Option<String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(address) = self.address.lock().unwrap().clone() {
                return Some(address);
            }
            if self.ended() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{:?} does not say where it listens", self.victim);
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it if the moment has come. Returns whether it did.
    fn strike(&mut self, blow: Blow) -> bool {
        if blow.victim != self.victim || self.events.load(Ordering::SeqCst) < blow.events {
            return false;
        }
        std::thread::sleep(blow.more);
        let alive = !self.ended();
        let _ = self.child.kill();
        alive
    }

    fn stop(self) -> (Option<i32>, String, String) {
        signal(&self.child, Signal::SIGTERM);
        finish(self.child)
    }
}

struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { home: tempfile::tempdir().unwrap() };
        let setup = ["--server", "127.0.0.1:0", "--dealer", "127.0.0.1:0"];
        let setup = output(place.privet().args(["setup", "--out", "."]).args(setup));
        assert_eq!(setup.0, Some(0), "{}", setup.2);
        for party in ["server", "client"] {
            let config = place.path(party).join("privet.toml");
            let text = fs::read_to_string(&config).unwrap();
            let hurried = text.replace("connect_seconds = 30.0", "connect_seconds = 1.0");
            assert_ne!(text, hurried);
            fs::write(&config, hurried).unwrap();
        }
        let mut compile = place.privet();
        compile.arg("compile").arg(digits("digits.onnx")).args(["-o", "model"]);
        lowering(&mut compile);
        let compiled = output(compile.args(["--ring", "40", "--frac-bits", "15"]));
        assert_eq!(compiled.0, Some(0), "{}", compiled.2);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn privet(&self) -> Command {
        let mut command = privet(self.home.path());
        command.current_dir(self.home.path()).env("PRIVET_TEST_LEDGER", self.path("ledger"));
        command
    }

    fn server(&self, args: &[&str]) -> Party {
        let mut command = self.privet();
        command.args(["server", "--config", "server", "--model", "model"]).args(args);
        Party::start(Victim::Server, command)
    }

    /// Names of the bundles that both sides hold.
    fn shared(&self) -> BTreeSet<String> {
        let held = |party: &str, role| -> BTreeSet<String> {
            let config = PartyConfig::load(&self.path(party), role).unwrap();
            let unused = privet::status::unused(&config).unwrap();
            unused.into_iter().flat_map(|u| u.bundles).collect()
        };
        let server = held("server", PartyRole::Server);
        server.intersection(&held("client", PartyRole::Client)).cloned().collect()
    }

    /// The offline phase; all parties end, whoever dies.
    fn offline(&self, blow: Blow) -> bool {
        let mut struck = false;
        let mut command = self.privet();
        command.args(["dealer", "--config", "dealer"]);
        let mut dealer = Party::start(Victim::Dealer, command);
        let dealer_at = dealer.address().unwrap();
        let mut server =
            self.server(&["--dealer", &dealer_at, "offline", "--count", COUNT, "--sessions", "1"]);
        let server_at = server.address().unwrap();
        let mut command = self.privet();
        command.args(["client", "--config", "client", "--server", &server_at, "--dealer", &dealer_at]);
        command.args(["offline", "--count", COUNT]);
        let mut client = Party::start(Victim::Client, command);
        let start = Instant::now();
        while !(server.ended() && client.ended()) {
            assert!(start.elapsed() < PATIENCE, "{blow:?}: still running");
            for party in [&mut dealer, &mut server, &mut client] {
                struck |= !struck && party.strike(blow);
            }
            // A server that nobody asks any more waits for clients, as it should.
            if struck && client.ended() && !server.ended() {
                signal(&server.child, Signal::SIGTERM);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let (server, client, dealer) = (finish(server.child), finish(client.child), dealer.stop());
        for (text, victim) in
            [(&server, Victim::Server), (&client, Victim::Client), (&dealer, Victim::Dealer)]
        {
            assert!(!text.2.contains("panicked"), "{blow:?}: {victim:?}: {}", text.2);
            let killed = struck && victim == blow.victim;
            assert!(text.0.is_some() || killed, "{blow:?}: {victim:?} died: {}", text.2);
            let well = text.0 == Some(0) || struck;
            assert!(well, "{blow:?}: {victim:?} failed although nobody was killed: {}", text.2);
        }
        struck
    }

    /// One inference. The result in the client's file, if it ended well.
    fn online(&self, blow: Blow, picture: usize) -> (bool, Option<Outputs>) {
        let mut struck = false;
        let mut server = self.server(&["online", "--sessions", "1"]);
        let server_at = server.address().unwrap();
        let answer = self.path("revealed.json");
        let _ = fs::remove_file(&answer);
        let mut command = self.privet();
        command.args(["client", "--config", "client", "--server", &server_at, "online", "--raw"]);
        command.arg(&answer).arg("--input").arg(digits(&format!("{picture}.png")));
        let mut client = Party::start(Victim::Client, command);
        let start = Instant::now();
        while !client.ended() {
            assert!(start.elapsed() < PATIENCE, "{blow:?}: still running");
            for party in [&mut server, &mut client] {
                struck |= !struck && party.strike(blow);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let client = finish(client.child);
        let server = if client.0 == Some(0) && !struck { finish(server.child) } else { server.stop() };
        for (text, victim) in [(&server, Victim::Server), (&client, Victim::Client)] {
            assert!(!text.2.contains("panicked"), "{blow:?}: {victim:?}: {}", text.2);
            assert!(
                text.0.is_some() || (struck && victim == blow.victim),
                "{blow:?}: {victim:?}: {}",
                text.2
            );
        }
        if client.0 == Some(0) {
            return (struck, Some(serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap()));
        }
        assert!(struck, "{blow:?}: the client failed although nobody was killed: {}", client.2);
        (struck, None)
    }

    /// What the cleartext engine gives.
    fn reference(&self, picture: usize) -> Outputs {
        let model = LoadedModel::load(&self.path("model")).unwrap();
        let files = [digits(&format!("{picture}.png"))];
        let inputs = model::load_inputs(&model.plan, &files).unwrap();
        let inputs = model::fixed_inputs(&model.plan, &inputs).unwrap();
        cleartext::run(&model.plan, &model.weights, &inputs, &mut Silent).unwrap()
    }
}

/// Every line of the ledger, none of them twice.
fn check_ledger(path: &Path) -> usize {
    let ledger = fs::read_to_string(path).unwrap();
    let mut seen = HashSet::new();
    for line in ledger.lines() {
        assert!(seen.insert(line), "a mask hides two messages: {line}");
    }
    seen.len()
}

#[test]
fn no_kill_makes_a_mask_serve_twice_or_an_answer_wrong() {
    let place = Place::new();
    let references: Vec<Outputs> = (0..3).map(|picture| place.reference(picture)).collect();
    let seed = std::env::var("PRIVET_KILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_120);
    println!("seed {seed} (PRIVET_KILL_SEED)");
    let mut random = Random(seed);
    place.offline(Blow::NONE);
    let (mut kills, mut answers) = ([0; 2], 0);
    for run in 0..RUNS {
        let before = place.shared();
        let online = !before.is_empty() && random.below(3) > 0;
        let victims: &[Victim] = match online {
            true => &[Victim::Server, Victim::Client],
            false => &[Victim::Dealer, Victim::Server, Victim::Client],
        };
        let blow = Blow {
            victim: victims[random.below(victims.len())],
            events: random.below(if online { 20 } else { 60 }),
            more: Duration::from_micros(random.below(3_000) as u64),
        };
        let struck = if online {
            let picture = run % references.len();
            let (struck, answer) = place.online(blow, picture);
            if let Some(answer) = answer {
                assert!(answer == references[picture], "run {run}, {blow:?}: a wrong answer");
                answers += 1;
            }
            let lost: Vec<_> = before.difference(&place.shared()).cloned().collect();
            assert!(lost.len() <= 1, "run {run}, {blow:?}: one inference used up {lost:?}");
            struck
        } else {
            let struck = place.offline(blow);
            let lost: Vec<_> = before.difference(&place.shared()).cloned().collect();
            assert!(lost.is_empty(), "run {run}, {blow:?}: preparing lost {lost:?}");
            struck
        };
        kills[usize::from(online)] += usize::from(struck);
    }
    check_ledger(&place.path("ledger"));
    println!("{} kills offline, {} online; {answers} answers nevertheless", kills[0], kills[1]);
    assert!(kills[0] > RUNS / 20 && kills[1] > RUNS / 8, "the moments miss the processes: {kills:?}");
    // Afterwards everything works as if nothing had happened.
    place.offline(Blow::NONE);
    assert_eq!(place.shared().len().to_string(), COUNT);
    for (picture, reference) in references.iter().enumerate() {
        assert_eq!(place.online(Blow::NONE, picture).1.as_ref(), Some(reference));
    }
    let lines = check_ledger(&place.path("ledger"));
    println!("{lines} masked messages, each under a mask of its own");
    assert!(lines > 1_000, "{lines} lines: the program under test keeps no ledger");
}
