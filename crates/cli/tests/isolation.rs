//! What the processes of `privet run` have: each its own files, and nothing else.

#![cfg(target_os = "linux")]

mod common;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use common::{digits, finish, run_digits, signal, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One look at a process; open files come and go.
#[derive(Debug)]
struct Seen {
    arguments: Vec<String>,
    environment: String,
    directory: PathBuf,
    files: BTreeSet<PathBuf>,
}

/// The children of `parent` that have become parties, by process id.
fn children(parent: u32) -> BTreeMap<i32, Seen> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    let list =
        |thread: std::io::Result<fs::DirEntry>| fs::read_to_string(thread.ok()?.path().join("children")).ok();
    let pids: Vec<i32> = threads
        .filter_map(list)
        .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.into_iter().filter_map(|pid| Some((pid, look(pid)?))).collect()
}

/// `None` when the process has vanished meanwhile.
fn look(pid: i32) -> Option<Seen> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let read = |file: &str| fs::read(proc.join(file)).ok().map(|b| String::from_utf8_lossy(&b).into_owned());
    let arguments: Vec<String> = read("cmdline")?.split_terminator('\0').map(str::to_owned).collect();
    // Between fork and exec it is still a copy of its parent, for a moment of exec a mixture.
    let is_party = ["dealer", "server", "client", "party"]
        .iter()
        .any(|role| arguments.get(1).is_some_and(|a| a == role));
    if !is_party || !arguments.iter().any(|a| a == "--exit-with-parent") {
        return None;
    }
    let descriptors = fs::read_dir(proc.join("fd")).ok()?;
    let files = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
    Some(Seen {
        arguments,
        environment: read("environ")?,
        directory: fs::read_link(proc.join("cwd")).ok()?,
        files,
    })
}

/// Runs the digits model and looks at its processes all the time. Also checks that no dealer lives beside an online
/// party.
fn watch(mut run: Command) -> Vec<Seen> {
    let mut run = run.spawn().unwrap();
    let mut seen: BTreeMap<i32, Seen> = BTreeMap::new();
    while run.try_wait().unwrap().is_none() {
        let now = children(run.id());
        let is = |word: &str| now.values().any(|s| s.arguments.iter().any(|a| a == word));
        assert!(!(is("dealer") && is("online")), "the dealer has to be gone before the online phase");
        for (pid, state) in now {
            match seen.entry(pid) {
                // The first look may have met the process in the middle of exec.
                Entry::Vacant(entry) => {
                    let (environment, files) = (String::new(), BTreeSet::new());
                    entry.insert(Seen { environment, files, ..state });
                }
                Entry::Occupied(mut entry) => {
                    let all = entry.get_mut();
                    all.environment.push_str(&state.environment);
                    all.files.extend(state.files);
                }
            }
        }
    }
    let (code, _, stderr) = finish(run);
    assert_eq!(code, Some(0), "{stderr}");
    seen.into_values().collect()
}

/// A run over a network so slow that it is not over before something is done to it.
fn slow_run(home: &Path) -> Child {
    run_digits(home, "6.png").args(["--network", "1mbit:500ms"]).spawn().unwrap()
}

/// Waits for the first parties of a run; the dealer is there first.
fn first_children(run: &mut Child) -> Vec<i32> {
    loop {
        let mut seen: Vec<(i32, Seen)> = children(run.id()).into_iter().collect();
        seen.sort_by_key(|(_, seen)| seen.arguments[1] != "dealer");
        if seen.first().is_some_and(|(_, seen)| seen.arguments[1] == "dealer") {
            return seen.into_iter().map(|(pid, _)| pid).collect();
        }
        assert!(run.try_wait().unwrap().is_none(), "the run has ended, and no party was ever seen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_process_gets_only_its_own_files() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let (model, picture) = (digits("digits.onnx"), digits("6.png"));
    let mut opened = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    let expected =
        [("client", false), ("client", true), ("dealer", false), ("server", false), ("server", true)];
    let expected: BTreeSet<_> = expected.iter().map(|&(role, online)| (role.to_owned(), online)).collect();
    let mut parties = BTreeSet::new();
    // Processes and open files last for moments only: several runs see more of them.
    for run in 0..10 {
        if run >= 3 && parties == expected && opened.len() == 3 {
            break;
        }
        let seen = watch(run_digits(&home, "6.png"));
        let party = |s: &Seen| (s.arguments[1].clone(), s.arguments.iter().any(|a| a == "online"));
        parties.extend(seen.iter().map(party));
        for process in &seen {
            let role = &process.arguments[1];
            assert_eq!(process.environment, "", "{role} inherits nothing");
            let own = &process.directory;
            assert!(own.starts_with(&home) && own.ends_with(role), "{role} works in {}", own.display());
            let run_dir = own.parent().unwrap();
            for argument in &process.arguments[1..] {
                let is_input = argument.ends_with("6.png");
                assert!(!is_input || role == "client", "{role}: {argument}");
                assert!(is_input || !argument.contains('/'), "{role} is given a path: {argument}");
            }
            for file in &process.files {
                let is_foreign = file.starts_with(run_dir) && !file.starts_with(own);
                assert!(!is_foreign, "{role} opened {}", file.display());
                assert!(*file != model, "{role} opened the model");
                assert!(*file != picture || role == "client", "{role} opened the input");
                let is_weights = file.ends_with("weights.safetensors");
                assert!(!is_weights || role == "server", "{role} opened the weights");
                if let Ok(inside) = file.strip_prefix(own) {
                    opened.entry(role.clone()).or_default().insert(inside.to_owned());
                }
            }
        }
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "nothing is left");
    }
    // Not vacuous: every process was seen, every party with files of its own.
    assert_eq!(parties, expected);
    assert_eq!(opened.len(), 3, "{opened:?}");
}

/// Of three parties none sees model, weights, input or another's share.
#[test]
fn each_of_three_parties_gets_only_its_own_shares() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    let names = ["party0", "party1", "party2"];
    let (mut parties, mut opened) = (BTreeSet::new(), BTreeSet::new());
    for run in 0..20 {
        if run >= 3 && parties.len() == 3 && opened.len() == 3 {
            break;
        }
        let mut command = run_digits(&home, "6.png");
        command.args(["--engine", "3pc"]);
        for process in watch(command) {
            assert_eq!(process.environment, "", "nothing is inherited");
            let own = &process.directory;
            let name = names.into_iter().find(|name| own.ends_with(name)).expect("a party's directory");
            parties.insert(name);
            for argument in &process.arguments[1..] {
                assert!(!argument.starts_with('/') && !argument.contains(".."), "{name}: {argument}");
            }
            for file in process.files.iter().filter(|file| file.starts_with(own.parent().unwrap())) {
                assert!(file.starts_with(own), "{name} opened {}", file.display());
                opened.insert(name);
            }
            let foreign = [digits("digits.onnx"), digits("6.png")];
            assert!(foreign.iter().all(|file| !process.files.contains(file)), "{name}: {:?}", process.files);
        }
    }
    assert_eq!((parties.len(), opened.len()), (3, 3), "every process was seen, with files of its own");
}

#[test]
fn a_party_that_is_killed_ends_the_run_and_its_fellows() {
    let home = tempfile::tempdir().unwrap();
    let mut run = slow_run(home.path());
    let victim = first_children(&mut run)[0];
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    let id = run.id();
    let (code, stdout, stderr) = finish(run);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("a party failed") && stderr.contains("dealer (signal: 9"), "{stderr}");
    assert!(children(id).is_empty());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "identities are gone");
}

#[test]
fn an_interrupted_run_takes_its_parties_along() {
    for sent in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let home = tempfile::tempdir().unwrap();
        let mut run = slow_run(home.path());
        let pids = first_children(&mut run);
        signal(&run, sent);
        // Impatience changes nothing: the parties are still ended and their keys removed.
        let _ = kill(Pid::from_raw(run.id() as i32), sent);
        let (code, stdout, stderr) = finish(run);
        let expected = if sent == Signal::SIGKILL { None } else { Some(130) };
        assert_eq!((code, stdout.as_str()), (expected, ""), "{sent}: {stderr}");
        // The kernel ends orphans a moment later.
        let is_alive = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(privet)") && !stat.contains(") Z ")
        };
        until(&format!("{sent}: no party survives"), || !pids.iter().any(is_alive));
        if sent != Signal::SIGKILL {
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "{sent}: identities are gone");
        }
    }
}
