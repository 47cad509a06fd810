//! What shells would misread, and what `--dry-run` shows.

use std::fs;
use std::process::Command;

use crate::common::output;
use crate::site::{Site, files};
use crate::{HOSTS, PRIVET};

const ODD: &str = "it's $(touch pwned); `id` \"x\" \\ & !";

#[test]
fn odd_names_stay_names() {
    let site = Site::new();
    site.share(&[3]);
    fs::create_dir(site.at(ODD)).unwrap();
    for dir in ["cluster", "shares"] {
        fs::rename(site.at(dir), site.at(ODD).join(dir)).unwrap();
    }
    for i in 0..3 {
        let share = site.at(ODD).join(format!("shares/party{i}"));
        fs::rename(share.join("3.share"), share.join("$(touch pwned) it's.share")).unwrap();
    }
    let program = site.at("a 'program'; touch pwned");
    std::os::unix::fs::symlink(PRIVET, &program).unwrap();
    let at = |name: &str| format!("{ODD}/{name}");
    let (cluster, shares, out) = (at("cluster"), at("shares"), at("results"));
    let dir = format!("{ODD}/{ODD} {{index}}");
    let args = ["--cluster", &cluster, "--shares", &shares, "--out", &out, "--dir", &dir, "--privet"];
    let (code, _, stderr) = output(site.launch(&args).arg(&program).args(HOSTS));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(site.at(ODD).join("results/party2/$(touch pwned) it's.result.share").exists());
    let made = |name: &str| files(&site.at("")).iter().any(|file| file.ends_with(name));
    assert!(!made("pwned") && !made("identity.key.pub"));
    assert!(site.processes("hosts").is_empty() && files(&site.at("hosts")).is_empty());
}

#[test]
fn dry_run_shows_the_commands_and_runs_none() {
    let site = Site::new();
    let args = [
        "--dry-run",
        "--hosts",
        "a,b:2222,[::1]:22",
        "--ssh",
        "me",
        "--dir",
        "w k/{index}",
        "--",
        "id",
        "it's",
    ];
    let (code, stdout, stderr) = output(&mut site.launch(&args));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!site.at("hosts").exists() && !site.at("results").exists());
    let home = site.at("").canonicalize().unwrap();
    let home = home.to_str().unwrap().trim_end_matches('/');
    let ssh =
        "ssh -T -o 'BatchMode=yes' -o 'ConnectTimeout=10' -o 'ServerAliveInterval=15' -o 'ControlMaster=no'";
    let to = ["-l me -- a", "-p 2222 -l me -- b", "-p 22 -l me -- ::1"];
    let mut expected = Vec::new();
    // The words that follow are told apart by what a shell makes of them, below.
    for (i, to) in to.iter().enumerate() {
        expected.push(format!("tar -chf - -C {home}/cluster party{i} | {ssh} {to} "));
    }
    to.iter().for_each(|to| expected.push(format!("{ssh} {to} ")));
    to.iter().for_each(|to| expected.push(format!("{ssh} {to} ")));
    to.iter().for_each(|to| expected.push(format!("{ssh} {to} ")));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 12);
    for (line, start) in lines.iter().zip(&expected) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
    assert!(lines[8].ends_with(&format!(" | tar -xof - -C {home}/results/party2")), "{}", lines[8]);
    // What host b is sent, word by word.
    let script = |line: &str| {
        let line = line.split_once(" -l me -- b ").unwrap().1;
        let line = line.split(" | tar").next().unwrap();
        let shown = Command::new("sh").arg("-c").arg(format!("printf %s {line}")).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    let inner = |line: &str| {
        let script = script(line);
        let words = script.strip_prefix("exec sh -c ").unwrap();
        let shown = Command::new("sh").arg("-c").arg(format!("printf %s {words}")).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    assert_eq!(
        inner(lines[1]),
        "umask 077; mkdir -p -- 'w k' && mkdir -- 'w k/1' && cd -- 'w k/1' || exit; \
         mkdir results && tar -xof - || { s=$?; rm -rf -- \"$PWD\"; exit $s; }; \
         command -v id >/dev/null || { rm -rf -- \"$PWD\"; exit 127; }"
    );
    assert_eq!(
        inner(lines[4]),
        "umask 077; cd -- 'w k/1' && exec 3<&0 || exit; id \"it's\" </dev/null 3<&- & c=$!; trap \"\" TERM PIPE; \
         ( while read -r _ <&3; do :; done; trap \"\" USR1; kill -s TERM -- -$$ || kill -s TERM $c; \
         ( sleep 3; kill -s KILL $c ) & exit 0 ) >/dev/null 2>&1 & w=$!; \
         wait $c; s=$?; exec >/dev/null 2>&1; kill -s USR1 $w; \
         if wait $w; then rm -rf -- \"$PWD\"; kill -s KILL -- -$$; fi; kill -s TERM -- -$$; exit $s"
    );
    assert_eq!(inner(lines[7]), "cd -- 'w k/1'/results && tar -cf - .");
    assert_eq!(inner(lines[10]), "rm -rf -- 'w k/1'");

    // Run by hand, the lines do what launch does.
    fs::create_dir_all(site.at("results/party0")).unwrap();
    let shell = |line: &str| {
        let mut sh = Command::new("sh");
        let path = format!("{}:{}", site.at("bin").display(), std::env::var("PATH").unwrap());
        let line = line.replace(" -l me -- a ", " -- a ");
        site.done(sh.arg("-c").arg(line).env("PATH", path).env("SITE", site.at("")).current_dir(site.at("")))
    };
    let args =
        ["--dry-run", "--hosts", "a,b,c", "--ssh", "me", "--", "sh", "-c", "echo out; echo $0 > results/r"];
    let lines = site.done(&mut site.launch(&args));
    let lines: Vec<&str> = lines.lines().collect();
    shell(lines[0]);
    assert!(files(&site.at("hosts/a")).iter().any(|file| file.ends_with("party0/identity.key")));
    // Its stdin stays open for as long as it runs.
    assert_eq!(shell(&format!("sleep 5 | {}", lines[3])), "out\n");
    shell(lines[6]);
    assert_eq!(site.read("results/party0/r"), "sh\n");
    shell(lines[9]);
    assert!(files(&site.at("hosts/a")).is_empty());
}
