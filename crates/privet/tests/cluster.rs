//! Three parties over real TLS and real files: sharing, computing, revealing, and everything that has to be refused.

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use lab::{PATIENCE, assets, digit};
use privet::model::{CompileOptions, LoadedModel, Model, PLAN_FILE, WEIGHTS_FILE, compile};
use privet::party::{self, PartyOptions};
use privet::setup::setup_cluster;
use privet::sharing::{self, Cluster, ShareFile, ShareKind, WEIGHTS_SHARE_FILE};
use privet::{Error, Event, PartyConfig, PartyRole, Report};

const ANYWHERE: &str = "127.0.0.1:0";
const NAMES: [&str; 3] = ["party0", "party1", "party2"];

/// A cluster with shares of the digit model.
struct Lab {
    dir: tempfile::TempDir,
    model: Model,
    cluster: Cluster,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = compile(&assets().join("digits.onnx"), &CompileOptions::default()).unwrap();
        model.save(&dir.path().join("model")).unwrap();
        let cluster = set_up(&dir.path().join("cluster"));
        let lab = Self { dir, model, cluster };
        lab.share_weights("shares");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn share_weights(&self, out: &str) {
        let model = LoadedModel::load(&self.path("model")).unwrap();
        sharing::share_weights(&model, &self.cluster, &self.path(out)).unwrap();
    }

    fn share_digit(&self, n: u32) {
        let inputs = digit(n, &self.model.plan);
        let (plan, out) = (&self.model.plan, self.path("shares"));
        sharing::share_inputs(plan, &inputs, &self.cluster, &out, &n.to_string()).unwrap();
    }

    /// What a party is started with, to classify these digits.
    fn options(&self, party: usize, digits: &[u32]) -> PartyOptions {
        let shares = self.path("shares").join(NAMES[party]);
        PartyOptions {
            listen: Some(ANYWHERE.to_owned()),
            peers: Vec::new(),
            inputs: digits.iter().map(|n| shares.join(format!("{n}.share"))).collect(),
            model: shares,
            out: self.path("results").join(NAMES[party]),
        }
    }

    fn result(&self, party: usize, digit: u32) -> PathBuf {
        self.path("results").join(NAMES[party]).join(format!("{digit}.result.share"))
    }

    fn reference(&self, n: u32) -> Vec<Vec<i64>> {
        let inputs = digit(n, &self.model.plan);
        let (plan, weights) = (&self.model.plan, &self.model.weights);
        privet_protocols::cleartext::run(plan, weights, &inputs, &mut privet_protocols::Silent).unwrap()
    }

    fn config(&self, party: usize) -> PartyConfig {
        config(&self.path("cluster"), party)
    }

    /// Runs these parties, started in turn; each gets what it is to run with. Says how each ended.
    fn run(&self, parties: [Option<(PartyConfig, PartyOptions)>; 3]) -> [Option<Result<Report, Error>>; 3] {
        std::thread::scope(|scope| {
            let mut known: Vec<(String, String)> = Vec::new();
            let threads = parties.map(|party| {
                let (config, mut options) = party?;
                options.peers.clone_from(&known);
                let (name, listens) = (config.name.clone(), config.index != Some(2));
                let (sender, receiver) = channel();
                let sender = Mutex::new(Some(sender));
                let thread = scope.spawn(move || {
                    let observer = |event: &Event| {
                        if let Event::Listening { address } = event
                            && let Some(sender) = sender.lock().unwrap().take()
                        {
                            sender.send(address.clone()).unwrap();
                        }
                    };
                    let outcome = party::run(config, &options, &observer);
                    // Without an address nobody waits for one any more.
                    drop(sender.lock().unwrap().take());
                    outcome
                });
                if listens && let Ok(address) = receiver.recv() {
                    known.push((name, address));
                }
                Some(thread)
            });
            threads.map(|thread| thread.map(|thread| thread.join().expect("no panic")))
        })
    }

    /// Runs all three on the same digits.
    fn classify(&self, digits: &[u32]) -> [Report; 3] {
        let party = |i| Some((self.config(i), self.options(i, digits)));
        self.run([0, 1, 2].map(party)).map(|outcome| outcome.unwrap().unwrap())
    }

    /// Runs all three and expects all to fail. Returns what they say.
    fn failures(&self, parties: [Option<(PartyConfig, PartyOptions)>; 3]) -> String {
        let outcomes = self.run(parties).into_iter().flatten();
        let texts = outcomes.map(|outcome| outcome.expect_err("every party fails").to_string());
        texts.collect::<Vec<_>>().join("\n")
    }
}

fn set_up(out: &Path) -> Cluster {
    setup_cluster(out, &[ANYWHERE; 3].map(str::to_owned)).unwrap();
    Cluster::load(out).unwrap()
}

fn config(cluster: &Path, party: usize) -> PartyConfig {
    let mut config = PartyConfig::load(&cluster.join(NAMES[party]), PartyRole::Party).unwrap();
    config.deadlines.wait = PATIENCE;
    config.deadlines.connect = PATIENCE;
    config.deadlines.handshake = PATIENCE;
    config
}

#[test]
fn three_parties_compute_what_the_reference_does_and_take_turns() {
    let lab = Lab::new();
    let digits = [3, 8, 5, 1];
    digits.iter().for_each(|&n| lab.share_digit(n));
    let reports = lab.classify(&digits);
    for n in digits {
        let plan = &lab.model.plan;
        let all = [0, 1, 2].map(|party| lab.result(party, n));
        assert_eq!(sharing::reveal(plan, &all).unwrap(), lab.reference(n));
        for two in [[0, 1], [1, 2], [2, 0]] {
            let two = two.map(|party| all[party].clone());
            assert_eq!(sharing::reveal(plan, &two).unwrap(), lab.reference(n), "{two:?}");
        }
        let alone = sharing::reveal(plan, &all[..1]).unwrap_err().to_string();
        assert!(alone.contains("two or three parties"), "{alone}");
        let same = sharing::reveal(plan, &[all[1].clone(), all[1].clone()]).unwrap_err().to_string();
        assert!(same.contains("same party"), "{same}");
    }
    // Of four inferences each party deals in at least one, and evaluates in at least two.
    let rounds: Vec<u64> = reports.iter().map(|r| r.rounds).collect();
    let each = rounds.iter().sum::<u64>() / 8;
    assert!(each > 10 && rounds.iter().all(|&r| r == 2 * each || r == 3 * each), "{rounds:?}");
    let shares = [lab.result(0, 3), lab.result(1, 8)];
    let error = sharing::reveal(&lab.model.plan, &shares).unwrap_err().to_string();
    assert!(error.contains("shares of different outputs"), "{error}");
}

#[test]
fn outputs_of_one_inference_repeated_share_nothing() {
    let lab = Lab::new();
    lab.share_digit(4);
    let components = || {
        lab.classify(&[4]);
        let results = lab.path("results");
        let shares = [0, 1, 2].map(|party| {
            ShareFile::read(&lab.result(party, 4), &lab.model.plan, ShareKind::Outputs).unwrap().shares
        });
        fs::remove_dir_all(results).unwrap();
        shares.map(|shares| shares[0].own.clone())
    };
    let (first, second) = (components(), components());
    for (a, b) in first.iter().zip(&second) {
        assert!(a.iter().zip(b).all(|(a, b)| a != b), "fresh masks");
    }
}

#[test]
fn what_two_parties_hold_alike_is_compared() {
    let lab = Lab::new();
    lab.share_digit(6);
    lab.classify(&[6]);
    // Flips a bit of an element, and mends the checksum: a party that computed something else.
    let path = lab.result(2, 6);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last - 1] ^= 1;
    let checksum = crc32fast::hash(&bytes[..last]).to_le_bytes();
    bytes[last..].copy_from_slice(&checksum);
    fs::write(&path, bytes).unwrap();
    let all = [0, 1, 2].map(|party| lab.result(party, 6));
    let error = sharing::reveal(&lab.model.plan, &all).unwrap_err().to_string();
    assert!(error.contains("contradict each other"), "{error}");
}

#[test]
fn a_share_is_refused_by_all_but_its_party() {
    let lab = Lab::new();
    lab.share_digit(7);
    let failure = |change: fn(&Lab, &mut PartyOptions)| {
        let mut options = lab.options(1, &[7]);
        change(&lab, &mut options);
        party::run(lab.config(1), &options, &privet::events::Silent).unwrap_err().to_string()
    };
    let error = failure(|lab, options| options.inputs = lab.options(0, &[7]).inputs);
    assert!(error.contains("party 0's share, this is party 1"), "{error}");
    let error =
        failure(|lab, options| options.inputs = vec![lab.options(1, &[]).model.join(WEIGHTS_SHARE_FILE)]);
    assert!(error.contains("a share of weights, expected one of inputs"), "{error}");
    let error = failure(|_, options| options.inputs[0].set_file_name("none.share"));
    assert!(error.contains("none.share: no such file"), "{error}");
    let error = failure(|lab, options| {
        let other = set_up(&lab.path("other"));
        let inputs = digit(7, &lab.model.plan);
        sharing::share_inputs(&lab.model.plan, &inputs, &other, &lab.path("foreign"), "7").unwrap();
        options.inputs = vec![lab.path("foreign/party1/7.share")];
    });
    assert!(error.contains("shared for another cluster"), "{error}");
    let error = failure(|lab, options| {
        let wide = CompileOptions { frac_bits: Some(9), ..CompileOptions::default() };
        let plan = compile(&assets().join("digits.onnx"), &wide).unwrap().plan;
        let inputs = digit(7, &plan);
        sharing::share_inputs(&plan, &inputs, &lab.cluster, &lab.path("foreign"), "plan").unwrap();
        options.inputs = vec![lab.path("foreign/party1/plan.share")];
    });
    assert!(error.contains("a share for plan"), "{error}");
}

#[test]
fn parties_that_were_given_different_things_say_so() {
    let lab = Lab::new();
    [1, 2].iter().for_each(|&n| lab.share_digit(n));
    let all = |digits: [&[u32]; 3]| [0, 1, 2].map(|i| Some((lab.config(i), lab.options(i, digits[i]))));
    let text = lab.failures(all([&[1, 2], &[1, 2], &[2, 1]]));
    assert!(text.contains("shares of different inputs: number 1 of --input"), "{text}");
    let text = lab.failures(all([&[1, 2], &[1], &[1, 2]]));
    assert!(text.contains("shares of 2 inputs") && text.contains("of 1"), "{text}");
    lab.share_weights("again");
    let mut parties = all([&[1], &[1], &[1]]);
    let foreign = lab.path("again").join(NAMES[2]);
    parties[2].as_mut().unwrap().1.model = foreign;
    let text = lab.failures(parties);
    assert!(text.contains("shares of different weights"), "{text}");
    assert!(!lab.result(0, 1).exists() && !lab.result(2, 1).exists(), "nothing was computed");
}

/// An owner that gives two parties different versions of a component would learn weights from the outputs.
#[test]
fn shares_that_do_not_belong_together_are_refused() {
    let lab = Lab::new();
    lab.share_digit(3);
    for (party, component) in [(1, 2), (2, 2)] {
        let path = lab.options(party, &[3]).inputs[0].clone();
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let last = bytes.len() - 4;
        bytes[last - 1] ^= 1;
        let checksum = crc32fast::hash(&bytes[..last]).to_le_bytes();
        bytes[last..].copy_from_slice(&checksum);
        fs::write(&path, bytes).unwrap();
        let parties = [0, 1, 2].map(|i| Some((lab.config(i), lab.options(i, &[3]))));
        let text = lab.failures(parties);
        assert!(text.contains("do not belong together"), "component {component} of party {party}: {text}");
        fs::write(&path, whole).unwrap();
    }
    lab.classify(&[3]);
}

/// Idle connections of strangers cost the parties nothing.
#[test]
fn strangers_that_say_nothing_hold_nobody_up() {
    let lab = Lab::new();
    lab.share_digit(5);
    let (sender, receiver) = channel();
    let sender = Mutex::new(Some(sender));
    std::thread::scope(|scope| {
        // Whoever waited for a handshake of theirs would do so for longer than a test may take.
        let (mut config, options) = (lab.config(0), lab.options(0, &[5]));
        config.deadlines.handshake = 60 * PATIENCE;
        let first = scope.spawn(move || {
            let observer = |event: &Event| {
                if let Event::Listening { address } = event
                    && let Some(sender) = sender.lock().unwrap().take()
                {
                    sender.send(address.clone()).unwrap();
                }
            };
            party::run(config, &options, &observer)
        });
        let address: String = receiver.recv().unwrap();
        let idle: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(200));
        let known = vec![("party0".to_owned(), address)];
        let second = (lab.config(1), PartyOptions { peers: known.clone(), ..lab.options(1, &[5]) });
        let (sender, receiver) = channel();
        let sender = Mutex::new(Some(sender));
        let second = scope.spawn(move || {
            let observer = |event: &Event| {
                if let Event::Listening { address } = event
                    && let Some(sender) = sender.lock().unwrap().take()
                {
                    sender.send(address.clone()).unwrap();
                }
            };
            party::run(second.0, &second.1, &observer)
        });
        let peers = known.into_iter().chain([("party1".to_owned(), receiver.recv().unwrap())]).collect();
        let options = PartyOptions { peers, ..lab.options(2, &[5]) };
        let third = party::run(lab.config(2), &options, &privet::events::Silent);
        // They end when their handshakes have, which parties do not wait for longer than that takes.
        drop(idle);
        for outcome in [first.join().unwrap(), second.join().unwrap(), third] {
            outcome.unwrap();
        }
    });
}

#[test]
fn a_party_that_does_not_come_is_named() {
    let lab = Lab::new();
    lab.share_digit(2);
    let party = |i| {
        let mut config = lab.config(i);
        config.deadlines.wait = Duration::from_secs(1);
        config.deadlines.connect = Duration::from_secs(1);
        Some((config, lab.options(i, &[2])))
    };
    let text = lab.failures([party(0), party(1), None]);
    assert!(text.contains("of party2"), "{text}");
}

#[test]
fn a_stranger_is_turned_away_and_the_others_go_on() {
    let lab = Lab::new();
    lab.share_digit(9);
    // Party 2 of another cluster knows the names and addresses, but not the keys.
    set_up(&lab.path("other"));
    let mut stranger = config(&lab.path("other"), 2);
    stranger.peers = lab.config(2).peers;
    let mut parties = [0, 1, 2].map(|i| {
        let mut config = lab.config(i);
        config.deadlines.wait = Duration::from_secs(2);
        config.deadlines.connect = Duration::from_secs(2);
        Some((config, lab.options(i, &[9])))
    });
    parties[2].as_mut().unwrap().0 = stranger;
    let text = lab.failures(parties);
    assert!(text.contains("of party2") || text.contains("party2"), "{text}");
    // Nothing has been used up: the right ones still can.
    lab.classify(&[9]);
    let all = [0, 1, 2].map(|party| lab.result(party, 9));
    assert_eq!(sharing::reveal(&lab.model.plan, &all).unwrap(), lab.reference(9));
}

/// Every byte of a small file, changed in turn; every length shorter than it should be.
#[test]
fn a_damaged_share_is_refused() {
    let lab = Lab::new();
    lab.share_digit(0);
    lab.classify(&[0]);
    let path = lab.result(1, 0);
    let whole = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        ShareFile::read(&path, &lab.model.plan, ShareKind::Outputs).map(|_| ())
    };
    read(&whole).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(read(&bytes).is_err(), "byte {at}");
        assert!(read(&whole[..at]).is_err(), "{at} bytes");
    }
    let error = read(&[&whole[..], &[0]].concat()).unwrap_err().to_string();
    assert!(error.contains("bytes, found"), "{error}");
}

/// One party's file is uniform, whatever was shared: chi-square over its elements' bytes.
#[test]
fn a_share_alone_is_uniform() {
    let lab = Lab::new();
    let plan = &lab.model.plan;
    for value in [0, -1] {
        let mut counts = [[[0u32; 256]; 2]; 3];
        for n in 0..40 {
            let elements = plan.inputs[0].shape.iter().product();
            let inputs = vec![vec![value; elements]];
            let (out, name) = (lab.path("uniform"), format!("{value}-{n}"));
            let paths = sharing::share_inputs(plan, &inputs, &lab.cluster, &out, &name).unwrap();
            for (party, path) in paths.iter().enumerate() {
                let file = ShareFile::read(path, plan, ShareKind::Inputs).unwrap();
                for (component, values) in [&file.shares[0].own, &file.shares[0].next].into_iter().enumerate()
                {
                    let bytes = values.iter().flat_map(|v| v.to_le_bytes());
                    bytes.for_each(|b| counts[party][component][usize::from(b)] += 1);
                }
            }
        }
        for (party, components) in counts.iter().enumerate() {
            for (component, counts) in components.iter().enumerate() {
                let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
                assert!(expected > 50.0);
                let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
                // 255 degrees of freedom: beyond this with a probability below 2^-45, already with 5 expected of each.
                assert!(chi < 500.0, "{value}: party {party}, component {component}: {chi}");
            }
        }
    }
}

#[test]
fn setup_never_overwrites_and_shares_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let error = setup_cluster(&lab.path("cluster"), &[ANYWHERE; 3].map(str::to_owned)).unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in NAMES {
        let dir = lab.path("shares").join(name);
        assert_eq!((mode(&dir), mode(&dir.join(WEIGHTS_SHARE_FILE))), (0o700, 0o600));
        assert!(dir.join(PLAN_FILE).exists() && !dir.join(WEIGHTS_FILE).exists());
    }
    for (i, name) in NAMES.iter().enumerate() {
        let config = lab.config(i);
        let (index, [next, previous]) = config.cluster().unwrap();
        assert_eq!((index, config.name.as_str()), (i, *name));
        assert_eq!((next.index, previous.index), (Some((i + 1) % 3), Some((i + 2) % 3)));
    }
}
