//! `privet launch`: a cluster on hosts that a fake ssh makes of directories here and, where there is an sshd, on real ones.

#[path = "../common/mod.rs"]
mod common;
mod odd;
mod site;
mod sshd;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use common::{output, signal};
use nix::sys::signal::Signal;
use serde_json::json;
use site::{Site, files, soon, states};

const PRIVET: &str = env!("CARGO_BIN_EXE_privet");
const HOSTS: [&str; 2] = ["--hosts", "a,b,c"];
/// Says "up" and stays.
const STAY: [&str; 4] = ["--", "sh", "-c", "echo up; sleep 1000 & exec sleep 1000"];

/// The whole way of two pictures, on `site`'s hosts; `dir` is where hosts have their directories.
fn whole_run(site: &Site, args: &[&str], dir: &str) {
    site.share(&[3, 8]);
    let (code, stdout, stderr) = output(site.launch(args).args(["--privet", PRIVET, "--json"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches('\n').count(), 1);
    let results =
        |party: &str| json!(["3", "8"].map(|picture| format!("results/{party}/{picture}.result.share")));
    for (i, host) in
        states(&stdout, &["party", "state", "exit", "error", "log", "results"]).iter().enumerate()
    {
        let party = format!("party{i}");
        let expected = json!([party, "done", 0, null, format!("results/{party}.log"), results(&party)]);
        assert_eq!(json!(host), expected);
        let log = site.read(&format!("results/{party}.log"));
        assert!(log.contains(&format!("{party} online: 2 inferences")), "{log}");
        let line = log.lines().last().unwrap();
        assert!(stderr.lines().any(|l| l.ends_with(&format!(": {line}"))), "{line:?} in {stderr}");
    }
    for picture in ["3", "8"] {
        let shares = [0, 1, 2].map(|i| format!("results/party{i}/{picture}.result.share"));
        let mode = fs::metadata(site.at(&shares[0])).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        site.done(site.privet("reveal").args(["--model", "model", "--output", "y.npy"]).args(shares));
        let mut run = common::run_digits(&site.at(""), &format!("{picture}.png"));
        site.done(run.args(["--engine", "3pc", "--output"]).arg(site.at("expected.npy")));
        assert_eq!(fs::read(site.at("y.npy")).unwrap(), fs::read(site.at("expected.npy")).unwrap());
    }
    site.assert_nothing_is_left(dir);
}

#[test]
fn three_parties_over_ssh() {
    let site = Site::new();
    whole_run(&site, &HOSTS, "hosts");
    let again = ["--input", "8", "--privet", PRIVET];
    let (code, _, stderr) = output(site.launch(&again).args(HOSTS));
    assert!(code == Some(3) && stderr.contains("results/party0: holds results already"), "{stderr}");
    // One of the inputs, for people.
    let (code, stdout, stderr) = output(site.launch(&again).args(HOSTS).args(["--out", "new"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("new/party2/8.result.share") && !stdout.contains("3.result.share"), "{stdout}");
    assert!(stderr.contains("\nb: listening on 127."), "{stderr}");
}

#[test]
fn a_host_that_fails_ends_the_others() {
    let site = Site::new();
    let script = "case {index} in 1) sleep 1; echo no luck >&2; exit 3;; *) echo up; exec sleep 1000;; esac";
    let (code, stdout, stderr) = output(site.launch(&["--json", "--", "sh", "-c", script]).args([""; 0]));
    assert_eq!(code, Some(3), "{stderr}");
    // Without --hosts, those of cluster.toml: one, for all three.
    let address = site::reserve().local_addr().unwrap().ip();
    let failure =
        format!("party1 ({address}/party1): running: exit code 3: no luck\n  its log: results/party1.log");
    assert!(
        stderr.contains(&format!("{address}/party1: no luck\n")) && stderr.contains(&failure),
        "{stderr}"
    );
    let expected = [json!(["stopped", null]), json!(["failed", 3]), json!(["stopped", null])];
    assert_eq!(json!(states(&stdout, &["state", "exit"])), json!(expected));
    assert_eq!(site.read("results/party1.log"), "no luck\n");
    site.assert_nothing_is_left("hosts");

    let launch = |hosts: &str, more: &[&str]| output(site.launch(&["--json", "--hosts", hosts]).args(more));
    let (code, stdout, stderr) = launch("a,b,gone", &STAY);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(
        stderr.contains("party2 (gone): copying: ssh failed: ssh: connect to host gone port 22"),
        "{stderr}"
    );
    assert!(stderr.contains("this has to work without a question: ssh -T -o "), "{stderr}");
    assert_eq!(json!(states(&stdout, &["state"])), json!([["not run"], ["not run"], ["failed"]]));
    site.assert_nothing_is_left("hosts");

    site.share(&[3]);
    // A file that cannot be read here.
    std::os::unix::fs::symlink("nowhere", site.at("shares/party1/x.txt")).unwrap();
    let (code, stdout, stderr) = launch("a,b,c", &STAY);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("party1 (b): copying: tar on this machine: exit status"), "{stderr}");
    assert_eq!(json!(states(&stdout, &["state"])), json!([["not run"], ["failed"], ["not run"]]));
    site.assert_nothing_is_left("hosts");
    fs::remove_file(site.at("shares/party1/x.txt")).unwrap();
    let (code, _, stderr) = launch("a,b,c", &["--privet", "/no/such/privet"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("/no/such/privet: not found on the PATH") && stderr.contains("--privet PATH"));
    site.assert_nothing_is_left("hosts");
}

#[test]
fn a_directory_that_is_there_is_left_alone() {
    let site = Site::new();
    fs::create_dir_all(site.at("hosts/b/d1")).unwrap();
    fs::write(site.at("hosts/b/d1/precious"), "mine").unwrap();
    let (code, _, stderr) = output(site.launch(&["--dir", "d{index}"]).args(HOSTS).args(STAY));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("party1 (b): copying: exit code 1: mkdir"), "{stderr}");
    assert_eq!(files(&site.at("hosts")), [site.at("hosts/b/d1/precious")]);
}

#[test]
fn interruption_ends_everything() {
    let site = Site::new();
    // One does not want to go.
    let stubborn = "[ {index} = 2 ] && trap '' TERM; echo up; sleep 1000 & sleep 1000; sleep 1000";
    for (signal_, command) in [(Signal::SIGINT, &STAY[..]), (Signal::SIGTERM, &["--", "sh", "-c", stubborn])]
    {
        let mut launch = site.start(site.launch(&["--json"]).args(HOSTS).args(command), 3);
        // On each host a shell and one that reads stdin, and of the command two processes at least.
        assert!(soon(|| site.processes("hosts").len() >= 12), "{:?}", site.processes("hosts"));
        assert!(files(&site.at("hosts")).iter().any(|file| file.ends_with("party0/identity.key")));
        signal(launch.child(), signal_);
        assert_eq!(launch.finish(), Some(130), "{}", site.read("stderr"));
        site.assert_nothing_is_left("hosts");
        assert_eq!(
            json!(states(&site.read("stdout"), &["state"])),
            json!([["stopped"], ["stopped"], ["stopped"]])
        );
    }
}

/// `kill -9` of launch, with nobody left to clear up but the hosts themselves.
fn killed(site: &Site, args: &[&str], dir: &str) {
    let stubborn = "[ {index} = 1 ] && trap '' TERM; echo up; sleep 1000 & sleep 1000; sleep 1000";
    let mut launch = site.start(site.launch(args).args(["--out", "killed", "--", "sh", "-c", stubborn]), 3);
    assert!(soon(|| site.processes(dir).len() >= 15), "{:?}", site.processes(dir));
    signal(launch.child(), Signal::SIGKILL);
    assert_eq!(launch.child().wait().unwrap().signal(), Some(9));
    site.assert_nothing_is_left(dir);
}

#[test]
fn killing_launch_ends_everything() {
    killed(&Site::new(), &HOSTS, "hosts");
}

#[test]
fn a_deadline_and_what_is_kept() {
    let site = Site::new();
    let args = ["--keep", "--dir", "here/{index}", "--deadline", "10"];
    let (code, _, stderr) = output(site.launch(&args).args(HOSTS).args(STAY));
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("a: here/0 is kept, with the party's private key"), "{stderr}");
    assert!(soon(|| site.processes("hosts").is_empty()), "{:?}", site.processes("hosts"));
    let mode = |path: &str| fs::metadata(site.at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("hosts/b/here/1"), mode("hosts/b/here/1/party1/identity.key")), (0o700, 0o600));
    assert!(!site.at("hosts/b/here/1/party0").exists(), "each has its own key only");
    // Results of another command, which knows where it is, and what a failed run leaves.
    let script = "printf '%s ' {name} {index} {host} > results/x; cd / && cat '{dir}/results/x'; nproc >&2";
    let args = ["--dir", "there/{index}", "--json", "--", "sh", "-c", script];
    let (code, stdout, stderr) = output(site.launch(&HOSTS).args(args));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(site.read("results/party2/x"), "party2 2 c ");
    assert!(stderr.contains("\nc: party2 2 c\n"), "{stderr}");
    assert_eq!(states(&stdout, &["results"])[1][0], json!(["results/party1/x"]));
    assert!(!site.at("hosts/b/there/1").exists() && site.at("hosts/b/here/1").exists());
}

#[test]
fn what_is_missing_is_named_before_anything_runs() {
    let site = Site::new();
    let refused = |code: i32, args: &[&str], text: &str| {
        let (found, _, stderr) = output(&mut site.launch(args));
        assert!(found == Some(code) && stderr.contains(text), "{args:?}: {found:?} {stderr}");
    };
    let setup = "privet setup --parties 3 --out no --host x:7200 --host y:7200 --host z:7200";
    refused(3, &["--cluster", "no", "--hosts", "x,y,z"], setup);
    refused(3, &HOSTS, "shares/party0/plan.privet: not found; share the weights: privet share ");
    site.share(&[]);
    refused(3, &HOSTS, "shares/party0: no share of an input");
    refused(3, &["--input", "x"], "shares/party0/x.share: not found; share the input");
    refused(2, &["--hosts", "a,b"], "--hosts: expected 3, one for each party, found 2");
    for hosts in ["a,b,-oProxyCommand=id", "a,b,c d", "a,b,me@c", "a,b,"] {
        refused(2, &["--hosts", hosts], "expected");
    }
    for dir in ["~/x", "../x", "x/..", "/", ".", ""] {
        refused(2, &["--dir", dir], "--dir");
    }
    refused(2, &["--ssh=-x"], "expected a user's name");
    refused(2, &["--input", "x", "--", "true"], "cannot be used with");
    fs::remove_file(site.at("cluster/party1/privet.toml")).unwrap();
    refused(3, &HOSTS, "cluster/party1/privet.toml: not found");
    assert!(!site.at("hosts").exists() && !site.at("results").exists());
    let mut without = site.launch(&["--cluster", "c"]);
    site.done(site.privet("setup").args(["--parties", "3", "--out", "c"]));
    let (code, _, stderr) = output(without.args(HOSTS).args(STAY).env("PATH", site.at("model")));
    assert!(code == Some(1) && stderr.contains("ssh: not found on this machine"), "{stderr}");
}
