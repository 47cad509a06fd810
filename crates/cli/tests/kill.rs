//! Parties die, two hundred times, on one and the same state: by `kill -9` at random moments, and at named places around the
//! use of a bundle, which random moments hardly hit. No mask hides two messages (the ledger that the program under test keeps
//! proves it), none that has hidden one is kept for another, no answer is wrong, and what was stored and unused stays usable.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PATIENCE, digits, finish, lowering, output, privet, signal};
use nix::sys::signal::Signal;
use privet::client::Outputs;
use privet::model::{self, LoadedModel};
use privet::{PartyConfig, PartyRole};
use privet_protocols::{Silent, cleartext};

const KILLS: usize = 200;
/// More would mean that the moments miss the processes.
const MAX_RUNS: usize = 400;
/// Inferences to hold material for.
const COUNT: &str = "3";

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

/// Places in the program, around everything that has to be durable.
const ONLINE_PLACES: [&str; 9] = [
    "inference agreed",
    "outputs sent",
    "bundle opened",
    "journal written",
    "bundle burnt",
    "bundle unlinked",
    "bundle named",
    "before a message",
    "before the session is confirmed",
];
const OFFLINE_PLACES: [&str; 3] = ["bundle written", "bundle stored", "before the dealer knows"];

/// When the victim dies.
#[derive(Clone, Copy, Debug)]
struct Blow {
    victim: Victim,
    moment: Moment,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After so many of its events, and a moment more.
    Events(usize, Duration),
    /// When it comes to a place for the n-th time. Not every victim comes to every place.
    Place(&'static str, usize),
}

impl Blow {
    const NONE: Blow = Blow { victim: Victim::Nobody, moment: Moment::Events(0, Duration::ZERO) };

    fn draw(random: &mut Random, deck: &mut Vec<(Victim, &'static str)>, online: bool) -> Self {
        let (places, victims): (&[_], &[_]) = match online {
            true => (&ONLINE_PLACES, &[Victim::Server, Victim::Client]),
            false => (&OFFLINE_PLACES, &[Victim::Dealer, Victim::Server, Victim::Client]),
        };
        if random.below(2) == 0 {
            let victim = victims[random.below(victims.len())];
            // Few events of a short session are told: the time after one covers the rest.
            let (events, microseconds) = if online { (4, 8_000) } else { (6, 30_000) };
            let more = Duration::from_micros(random.below(microseconds) as u64);
            return Blow { victim, moment: Moment::Events(random.below(events), more) };
        }
        // Shuffled, not drawn: none of them may be missed, however the moments of the others change what follows.
        if deck.is_empty() {
            deck.extend(victims.iter().flat_map(|&victim| places.iter().map(move |&place| (victim, place))));
            (1..deck.len()).for_each(|i| deck.swap(i, random.below(i + 1)));
        }
        let (victim, place) = deck.pop().expect("filled above");
        // Visits by a second inference of the connection: the test below.
        let visit = if place == "before a message" { random.below(20) } else { 0 };
        Blow { victim, moment: Moment::Place(place, visit) }
    }

    /// Tells the victim where to die.
    fn prepare(self, victim: Victim, command: &mut Command) {
        if let Moment::Place(place, visit) = self.moment
            && victim == self.victim
        {
            command.env("PRIVET_TEST_CRASH", format!("{place}:{visit}"));
        }
    }
}

/// A party's process, its events counted.
struct Party {
    victim: Victim,
    child: Child,
    events: Arc<AtomicUsize>,
    address: Arc<Mutex<Option<String>>>,
    warnings: Arc<Mutex<String>>,
}

impl Party {
    fn start(victim: Victim, mut command: Command, blow: Blow) -> Self {
        blow.prepare(victim, &mut command);
        let mut child = command.arg("--events").spawn().unwrap();
        let (events, address) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let warnings = Arc::new(Mutex::new(String::new()));
        let (counter, found, said) = (events.clone(), Arc::clone(&address), Arc::clone(&warnings));
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Cut short where the process was killed.
                if let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) {
                    if let Some(address) = event["address"].as_str() {
                        *found.lock().unwrap() = Some(address.to_owned());
                    }
                    if event["event"] == "warning" {
                        said.lock().unwrap().push_str(event["text"].as_str().unwrap());
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { victim, child, events, address, warnings }
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

    /// Whether it has ended before it was done.
    fn failed(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| !status.success())
    }

    /// Kills it if the moment has come. Returns whether it has died of it.
    fn strike(&mut self, blow: Blow) -> bool {
        if blow.victim != self.victim {
            return false;
        }
        match blow.moment {
            Moment::Events(events, more) if self.events.load(Ordering::SeqCst) >= events => {
                std::thread::sleep(more);
                let alive = !self.ended();
                let _ = self.child.kill();
                alive
            }
            Moment::Events(..) => false,
            Moment::Place(..) => self.child.try_wait().unwrap().is_some_and(|status| status.code().is_none()),
        }
    }

    fn stop(mut self) -> Ended {
        if !self.ended() {
            signal(&self.child, Signal::SIGTERM);
        }
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

    fn server(&self, args: &[&str], blow: Blow) -> Party {
        let mut command = self.privet();
        command.args(["server", "--config", "server", "--model", "model"]).args(args);
        Party::start(Victim::Server, command, blow)
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
        let mut dealer = Party::start(Victim::Dealer, command, blow);
        let dealer_at = dealer.address().unwrap();
        let mut server =
            self.server(&["--dealer", &dealer_at, "offline", "--count", COUNT, "--sessions", "1"], blow);
        let server_at = server.address().unwrap();
        let mut command = self.privet();
        command.args(["client", "--config", "client", "--server", &server_at, "--dealer", &dealer_at]);
        command.args(["offline", "--count", COUNT]);
        let mut client = Party::start(Victim::Client, command, blow);
        let start = Instant::now();
        while !(server.ended() && client.ended()) {
            assert!(start.elapsed() < PATIENCE, "{blow:?}: still running");
            for party in [&mut dealer, &mut server, &mut client] {
                struck |= !struck && party.strike(blow);
            }
            // A server that nobody asks any more waits for clients, as it should. One whose client got what it wanted ends by
            // itself, perhaps just now.
            if struck && client.failed() && !server.ended() {
                signal(&server.child, Signal::SIGTERM);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let (server, client, dealer) = (finish(server.child), finish(client.child), dealer.stop());
        let ended = [(&server, Victim::Server), (&client, Victim::Client), (&dealer, Victim::Dealer)];
        let struck = has_died(blow, &ended);
        for (text, victim) in ended {
            let well = text.0 == Some(0) || struck;
            assert!(well, "{blow:?}: {victim:?} failed although nobody was killed: {}", text.2);
        }
        struck
    }

    /// Inferences over one connection.
    fn online(&self, blow: Blow, pictures: &[usize]) -> Inferences {
        let mut struck = false;
        let mut server = self.server(&["online", "--sessions", &pictures.len().to_string()], blow);
        let server_at = server.address().unwrap();
        let answer = self.path("revealed.json");
        let _ = fs::remove_file(&answer);
        let mut command = self.privet();
        command.args(["client", "--config", "client", "--server", &server_at, "online", "--raw"]);
        command.arg(&answer);
        for picture in pictures {
            command.arg("--input").arg(digits(&format!("{picture}.png")));
        }
        let mut client = Party::start(Victim::Client, command, blow);
        let start = Instant::now();
        while !client.ended() {
            assert!(start.elapsed() < PATIENCE, "{blow:?}: still running");
            for party in [&mut server, &mut client] {
                struck |= !struck && party.strike(blow);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let warnings = Arc::clone(&client.warnings);
        let client = finish(client.child);
        let server = if client.0 == Some(0) && !struck { finish(server.child) } else { server.stop() };
        let struck = has_died(blow, &[(&server, Victim::Server), (&client, Victim::Client)]);
        let burnt = warnings.lock().unwrap().contains("they were burnt");
        // The last line is cut short where the process was killed.
        let answers = fs::read_to_string(&answer).unwrap_or_default();
        let answers: Vec<Outputs> =
            answers.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let is_done = client.0 == Some(0) && answers.len() == pictures.len();
        assert!(is_done || struck, "{blow:?}: the client failed although nobody was killed: {}", client.2);
        Inferences { struck, answers, burnt }
    }

    /// Lines of the ledger, none of them twice; and no unused bundle whose masks have been seen.
    fn check_ledger(&self) -> usize {
        // The first message makes it, and the first victims may die before. At the end it has to have its lines.
        let ledger = match fs::read_to_string(self.path("ledger")) {
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            read => read.unwrap(),
        };
        let mut seen = HashSet::new();
        for line in ledger.lines() {
            assert!(seen.insert(line), "a mask hides two messages: {line}");
        }
        let used: HashSet<&str> = ledger.lines().map(|line| line.split(' ').next().unwrap()).collect();
        for (party, role) in [("server", PartyRole::Server), ("client", PartyRole::Client)] {
            let config = PartyConfig::load(&self.path(party), role).unwrap();
            for name in privet::status::ledger_names(&config).unwrap() {
                assert!(
                    !used.contains(name.as_str()),
                    "the {party} keeps a bundle that has been used: {name}"
                );
            }
        }
        seen.len()
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

/// Exit code, stdout and stderr of a process; no code if a signal has ended it.
type Ended = (Option<i32>, String, String);

/// What became of a session's inferences.
struct Inferences {
    /// Whether the victim has died of the blow.
    struck: bool,
    /// The results that the client has kept.
    answers: Vec<Outputs>,
    /// Whether the client was told that bundles were lost in an earlier one.
    burnt: bool,
}

/// Whether the victim has died of the blow; nobody else may have died, and nobody panicked.
fn has_died(blow: Blow, ended: &[(&Ended, Victim)]) -> bool {
    let mut died = false;
    for ((code, _, stderr), victim) in ended {
        assert!(!stderr.contains("panicked"), "{blow:?}: {victim:?}: {stderr}");
        assert!(code.is_some() || *victim == blow.victim, "{blow:?}: {victim:?} died: {stderr}");
        died |= code.is_none();
    }
    died
}

#[test]
fn no_kill_makes_a_mask_serve_twice_or_an_answer_wrong() {
    let place = Place::new();
    let references: Vec<Outputs> = (0..3).map(|picture| place.reference(picture)).collect();
    let seed = std::env::var("PRIVET_KILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_120);
    println!("seed {seed} (PRIVET_KILL_SEED)");
    let mut random = Random(seed);
    place.offline(Blow::NONE);
    let (mut kills, mut answers, mut told, mut runs) = (BTreeMap::<String, usize>::new(), 0, 0, 0);
    let mut decks = [Vec::new(), Vec::new()];
    while kills.values().sum::<usize>() < KILLS {
        assert!(runs < MAX_RUNS, "the moments miss the processes: {kills:?}");
        runs += 1;
        let before = place.shared();
        let online = !before.is_empty() && random.below(3) > 0;
        let blow = Blow::draw(&mut random, &mut decks[usize::from(online)], online);
        let struck = if online {
            let count = 1 + random.below(before.len());
            let pictures: Vec<usize> = (runs..runs + count).map(|n| n % references.len()).collect();
            let inferences = place.online(blow, &pictures);
            for (answer, picture) in inferences.answers.iter().zip(&pictures) {
                assert!(*answer == references[*picture], "run {runs}, {blow:?}: a wrong answer");
            }
            let made = inferences.answers.len();
            answers += made;
            told += usize::from(inferences.burnt);
            let lost: Vec<_> = before.difference(&place.shared()).cloned().collect();
            // The one that was under way; and a client may die with an answer that it has not kept, when the next is agreed on.
            let most = made + 1 + usize::from(blow.victim == Victim::Client);
            assert!(
                lost.len() <= most.min(count),
                "run {runs}, {blow:?}: {made} answers of {count} used up {lost:?}"
            );
            inferences.struck
        } else {
            let struck = place.offline(blow);
            let lost: Vec<_> = before.difference(&place.shared()).cloned().collect();
            assert!(lost.is_empty(), "run {runs}, {blow:?}: preparing lost {lost:?}");
            struck
        };
        place.check_ledger();
        if struck {
            let moment = match blow.moment {
                Moment::Events(..) => if online { "online" } else { "offline" }.to_owned(),
                Moment::Place(place, _) => place.to_owned(),
            };
            *kills.entry(format!("{:?}, {moment}", blow.victim)).or_default() += 1;
        }
    }
    println!("{kills:#?}\nin {runs} runs, with {answers} answers nevertheless");
    for place in ONLINE_PLACES.iter().chain(&OFFLINE_PLACES) {
        assert!(kills.keys().any(|k| k.ends_with(place)), "nobody died at {place:?}");
    }
    assert!(told > 0, "nobody was told what was burnt");
    // Afterwards everything works as if nothing had happened.
    place.offline(Blow::NONE);
    assert_eq!(place.shared().len().to_string(), COUNT);
    assert_eq!(place.online(Blow::NONE, &[0, 1, 2]).answers, references);
    let lines = place.check_ledger();
    println!("{lines} masked messages, each under a mask of its own");
    assert!(lines > 1_000, "{lines} lines: the program under test keeps no ledger");
}

/// Both sides die at every place of the second agreement of three: one inference is made, and one bundle lost, not more.
#[test]
fn a_kill_between_two_inferences_costs_one_bundle() {
    let place = Place::new();
    let references: Vec<Outputs> = (0..3).map(|picture| place.reference(picture)).collect();
    let before_the_record = ["bundle opened", "journal written"];
    for (victim, at, visit) in [
        (Victim::Server, "outputs sent", 0),
        (Victim::Server, "before the session is confirmed", 0),
        (Victim::Server, "bundle opened", 1),
        (Victim::Server, "bundle burnt", 1),
        (Victim::Server, "bundle unlinked", 1),
        (Victim::Server, "bundle named", 1),
        (Victim::Client, "bundle opened", 1),
        (Victim::Client, "bundle burnt", 1),
        (Victim::Client, "bundle unlinked", 1),
        (Victim::Client, "inference agreed", 1),
    ] {
        place.offline(Blow::NONE);
        let before = place.shared();
        assert_eq!(before.len().to_string(), COUNT);
        let blow = Blow { victim, moment: Moment::Place(at, visit) };
        let inferences = place.online(blow, &[0, 1, 2]);
        assert!(inferences.struck, "{blow:?}");
        assert_eq!(inferences.answers, references[..1], "{blow:?}");
        let lost = before.difference(&place.shared()).count();
        // Of the first inference; and the next, once the server has recorded it.
        let named = victim == Victim::Client || !(before_the_record.contains(&at) || visit == 0);
        assert_eq!(lost, 1 + usize::from(named), "{blow:?}");
        place.check_ledger();
        let left: Vec<usize> = (0..3 - lost).collect();
        assert_eq!(place.online(Blow::NONE, &left).answers, references[..left.len()], "{blow:?}");
    }
}
