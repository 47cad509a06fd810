//! What the machine does to a party's process: signals, full and read-only disks, limits, clocks that jump, and pipes.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{
    PATIENCE, digits, finish, lowering, output, privet, run_digits, signal, until, until_it_handles,
};
use nix::sys::signal::Signal;

/// A dealer, a server with the digits model and a client, each in a directory.
struct Lab {
    home: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let lab = Self { home };
        let addresses = ["--server", "127.0.0.1:0", "--dealer", "127.0.0.1:0", "--client", "client"];
        let (code, _, stderr) = output(lab.privet().args(["setup", "--out", "."]).args(addresses));
        assert_eq!(code, Some(0), "{stderr}");
        let mut compile = lab.privet();
        compile.arg("compile").arg(digits("digits.onnx")).args(["-o", "model"]);
        lowering(&mut compile);
        let (code, _, stderr) = output(&mut compile);
        assert_eq!(code, Some(0), "{stderr}");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn privet(&self) -> Command {
        let mut command = privet(self.home.path());
        command.current_dir(self.home.path());
        command
    }

    /// Changes a party's configuration.
    fn configure(&self, party: &str, from: &str, to: &str) {
        let path = self.path(party).join("privet.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    fn dealer(&self) -> Command {
        let mut command = self.privet();
        command.args(["dealer", "--config", "dealer", "--listen", "127.0.0.1:0"]);
        command
    }

    fn server(&self, dealer: &str, phase: &[&str]) -> Command {
        let mut command = self.privet();
        command.args(["server", "--config", "server", "--listen", "127.0.0.1:0", "--dealer", dealer]);
        command.args(phase);
        command
    }

    fn client(&self, server: &str, dealer: &str, phase: &[&str]) -> Command {
        let mut command = self.privet();
        command.args(["client", "--config", "client", "--server", server, "--dealer", dealer]).args(phase);
        command
    }

    /// Prepares `count` inferences; gives the client's outcome.
    fn prepare(&self, count: &str, environment: &dyn Fn(Command, &str) -> Command) -> (Option<i32>, String) {
        let dealer = Service::start(environment(self.dealer(), "dealer"));
        let phase = ["offline", "--count", count];
        let server = Service::start(environment(self.server(&dealer.address, &phase), "server"));
        let client = environment(self.client(&server.address, &dealer.address, &phase), "client");
        let (code, _, stderr) = output(&mut { client });
        (code, stderr)
    }

    /// One inference; gives the client's outcome.
    fn ask(&self, n: u32, environment: &dyn Fn(Command, &str) -> Command) -> (Option<i32>, String, String) {
        let server = Service::start(environment(self.server("127.0.0.1:1", &["online"]), "server"));
        let picture = digits(&format!("{n}.png"));
        let phase = ["online", "--input", picture.to_str().unwrap()];
        output(&mut environment(self.client(&server.address, "127.0.0.1:1", &phase), "client"))
    }

    /// The command of a party under a limit on the size of files, in blocks of 512 bytes, that of others as it is.
    fn limited(&self, whom: &str, blocks: u32, command: Command, party: &str) -> Command {
        if party != whom {
            return command;
        }
        let program = self.privet().get_program().to_owned();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")])
            .arg(program)
            .args(command.get_args());
        shell
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        shell
    }

    fn bundles(&self, party: &str) -> usize {
        fs::read_dir(self.path(party).join("state/bundles")).unwrap().count()
    }
}

fn as_it_is(command: Command, _: &str) -> Command {
    command
}

/// A listening party, killed when it is dropped.
struct Service {
    address: String,
    /// Its events since, as lines of JSON.
    said: Arc<Mutex<Vec<String>>>,
    child: Option<Child>,
}

impl Service {
    fn start(mut command: Command) -> Self {
        let mut child = command.arg("--events").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| {
            let event: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
            event["address"].as_str().map(str::to_owned)
        });
        let said = Arc::new(Mutex::new(Vec::new()));
        let own = said.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| own.lock().unwrap().push(line))
        });
        match address {
            Some(address) => Self { address, said, child: Some(child) },
            None => panic!("no address: {:?}", finish(child)),
        }
    }

    fn signal(&self, sent: Signal) {
        signal(self.child.as_ref().unwrap(), sent);
    }

    fn end(mut self) -> (Option<i32>, String, String) {
        finish(self.child.take().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sockets that a process has open.
fn sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    files.filter_map(target).filter(|t| t.to_string_lossy().starts_with("socket:")).count()
}

/// A small file system in memory, if this machine lets us.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let disk = Self(at.to_owned());
        if disk.run("mount", &["-t", "tmpfs", "-o", "size=4m,mode=0700", "none"]) {
            return Some(disk);
        }
        eprintln!("SKIPPED: tmpfs cannot be mounted here");
        std::mem::forget(disk);
        None
    }

    fn run(&self, program: &str, args: &[&str]) -> bool {
        let status = Command::new(program).args(args).arg(&self.0).stderr(Stdio::null()).status();
        status.is_ok_and(|s| s.success())
    }

    /// Leaves no room but a few pages.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut size = 4 << 20;
        while let Err(e) = fs::write(&filler, vec![1; size]) {
            assert_eq!(e.kind(), std::io::ErrorKind::StorageFull);
            size -= 4096;
        }
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(self.run("umount", &["-l"]), "{} stays mounted", self.0.display());
    }
}

#[test]
fn a_full_disk_is_named_and_what_was_stored_stays_usable() {
    let lab = Lab::new();
    let Some(disk) = Disk::mount(&lab.path("client/state")) else { return };
    let (code, stderr) = lab.prepare("2", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    let filler = disk.fill();
    let (code, stderr) = lab.prepare("40", &as_it_is);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("client/state") && stderr.contains("make room"), "{stderr}");
    fs::remove_file(&filler).unwrap();
    assert!(lab.bundles("client") >= 2);
    let (code, stdout, stderr) = lab.ask(3, &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("three"), "{stdout}");
    let (code, stderr) = lab.prepare("5", &as_it_is);
    assert_eq!((code, lab.bundles("client")), (Some(0), 5), "{stderr}");
    let (code, stdout, stderr) = lab.ask(8, &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("eight"), "{stdout}");
}

#[test]
fn a_service_on_a_full_disk_says_so_and_goes_on_after_a_restart() {
    let lab = Lab::new();
    let Some(disk) = Disk::mount(&lab.path("dealer/state")) else { return };
    let (code, stderr) = lab.prepare("1", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    let dealer = Service::start(lab.dealer());
    let filler = disk.fill();
    let phase = ["offline", "--count", "200"];
    for expected in ["make room", "start this party again"] {
        let server = Service::start(lab.server(&dealer.address, &phase));
        let (code, _, stderr) = server.end();
        assert_eq!(code, Some(4), "{stderr}");
        // It may have told the server first.
        until(expected, || {
            let said = dealer.said.lock().unwrap().join("\n");
            said.contains("dealer/state") && said.contains(expected)
        });
        // That there is room again does not help before a restart.
        let _ = fs::remove_file(&filler);
    }
    dealer.signal(Signal::SIGTERM);
    assert_eq!(dealer.end().0, Some(0));
    let (code, stderr) = lab.prepare("3", &as_it_is);
    assert_eq!((code, lab.bundles("client")), (Some(0), 3), "{stderr}");
    assert_eq!(lab.ask(3, &as_it_is).0, Some(0));
}

#[test]
fn a_read_only_state_is_named() {
    let lab = Lab::new();
    let Some(disk) = Disk::mount(&lab.path("client/state")) else { return };
    let (code, stderr) = lab.prepare("1", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(disk.run("mount", &["-o", "remount,ro"]));
    let (code, _, stderr) = lab.ask(3, &as_it_is);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("client/state") && stderr.contains("writable"), "{stderr}");
    assert!(disk.run("mount", &["-o", "remount,rw"]));
    assert_eq!(lab.ask(3, &as_it_is).0, Some(0));
}

#[test]
fn a_state_that_is_a_file_is_named() {
    let lab = Lab::new();
    fs::write(lab.path("client/state"), "").unwrap();
    let (code, _, stderr) = output(&mut lab.client("127.0.0.1:1", "127.0.0.1:1", &["offline"]));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("client/state"), "{stderr}");
}

/// The signal that comes with it (SIGXFSZ) would end the process without a word.
#[test]
fn a_limit_on_file_sizes_is_a_failed_write() {
    let lab = Lab::new();
    let limited = |command: Command, party: &str| lab.limited("client", 64, command, party);
    let (code, stderr) = lab.prepare("1", &limited);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("state.redb") && stderr.contains("ulimit -f"), "{stderr}");
    let (code, stderr) = lab.prepare("2", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    // The server has burnt its half when the client finds that it cannot: one of two is lost.
    let (code, _, stderr) = lab.ask(3, &limited);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("state.redb") && stderr.contains("ulimit -f"), "{stderr}");
    assert_eq!(lab.ask(3, &as_it_is).0, Some(0));
}

/// A server that cannot note that a bundle is used may use none, and must not burn them one after the other either.
#[test]
fn a_server_that_cannot_write_loses_one_bundle_at_most() {
    let lab = Lab::new();
    assert_eq!(lab.prepare("8", &as_it_is).0, Some(0));
    // Enough to begin with, and too little for a page of the journal.
    let (code, _, stderr) = lab.ask(3, &|command, party| lab.limited("server", 8, command, party));
    assert_eq!(code, Some(4), "{stderr}");
    assert!(lab.bundles("server") >= 7, "{} of 8 are left", lab.bundles("server"));
    assert_eq!(lab.bundles("client"), 8);
    let (code, stdout, stderr) = lab.ask(3, &as_it_is);
    assert!(code == Some(0) && stdout.contains("three"), "{stderr}");
}

/// A clock that is years off, and jumps by years whenever it is looked at.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) {
    static int calls;
    const char *years = getenv("YEARS");
    return (atol(years ? years : "0") + (++calls % 2 ? 9 : -9)) * 31556952L;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += jump();
    return code;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec s;
    int code = clock_gettime(CLOCK_REALTIME, &s);
    t->tv_sec = s.tv_sec;
    t->tv_usec = s.tv_nsec / 1000;
    return code;
}
time_t time(time_t *t) {
    struct timespec s;
    clock_gettime(CLOCK_REALTIME, &s);
    if (t) *t = s.tv_sec;
    return s.tv_sec;
}
"#;

#[test]
fn clocks_that_are_years_apart_and_jump_change_nothing() {
    let lab = Lab::new();
    let (source, library) = (lab.path("clock.c"), lab.path("clock.so"));
    fs::write(&source, CLOCK).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    if !built.as_ref().is_ok_and(|b| b.status.success()) {
        eprintln!("SKIPPED: no C compiler that makes a clock: {built:?}");
        return;
    }
    let years = |party: &str| match party {
        "dealer" => "-30",
        "server" => "150",
        _ => "-12",
    };
    // The clock works: another program sees it.
    let date =
        Command::new("date").arg("+%Y").env("LD_PRELOAD", &library).env("YEARS", "150").output().unwrap();
    let year: u32 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    assert!(year > 2150, "{year}");
    let off = |mut command: Command, party: &str| {
        command.env("LD_PRELOAD", &library).env("YEARS", years(party));
        command
    };
    let (code, stderr) = lab.prepare("2", &off);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stdout, stderr) = lab.ask(4, &off);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("four"), "{stdout}");
    // And back to the present.
    let (code, stderr) = lab.prepare("3", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(lab.ask(4, &as_it_is).0, Some(0));
}

#[test]
fn a_server_drains_at_the_first_signal_and_ends_at_the_second() {
    let lab = Lab::new();
    let server = Service::start(lab.server("127.0.0.1:1", &["online"]));
    server.signal(Signal::SIGTERM);
    let (code, _, stderr) = server.end();
    assert_eq!(code, Some(0), "{stderr}");
    // Someone who connects and says nothing is under way until the handshake's deadline.
    lab.configure("server", "handshake_seconds = 10.0", "handshake_seconds = 600.0");
    let server = Service::start(lab.server("127.0.0.1:1", &["online"]));
    let _idle = TcpStream::connect(&server.address).unwrap();
    let id = server.child.as_ref().unwrap().id();
    until("it has accepted", || sockets(id) >= 2);
    server.signal(Signal::SIGTERM);
    until("it refuses newcomers", || TcpStream::connect(&server.address).is_err());
    server.signal(Signal::SIGINT);
    let (code, _, stderr) = server.end();
    assert_eq!(code, Some(130), "{stderr}");
}

#[test]
fn an_interrupt_ends_a_wait_for_a_peer() {
    let lab = Lab::new();
    for party in ["client", "server"] {
        lab.configure(party, "connect_seconds = 30.0", "connect_seconds = 600.0");
    }
    let server = Service::start(lab.server("127.0.0.1:1", &["offline"]));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().0, Some(0));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, sent) in [
        ("127.0.0.1:1".to_owned(), Signal::SIGINT),
        (silent.local_addr().unwrap().to_string(), Signal::SIGTERM),
    ] {
        let client = lab.client(&address, "127.0.0.1:1", &["offline"]).spawn().unwrap();
        until_it_handles(&client, sent);
        signal(&client, sent);
        let (code, stdout, stderr) = finish(client);
        assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
    }
}

/// A database that is half made could not be told from a damaged one.
#[test]
fn a_client_that_is_killed_while_it_begins_can_begin_again() {
    let lab = Lab::new();
    // It comes to the connection, and no further.
    lab.configure("client", "connect_seconds = 30.0", "connect_seconds = 0.05");
    for delay in (0..40).map(|i| Duration::from_micros(i * 500)) {
        let _ = fs::remove_dir_all(lab.path("client/state"));
        let mut client = lab.client("127.0.0.1:1", "127.0.0.1:1", &["offline"]).spawn().unwrap();
        let start = Instant::now();
        // The directory comes first.
        while !lab.path("client/state").exists() {
            assert!(start.elapsed() < PATIENCE, "it does not begin");
            std::thread::yield_now();
        }
        std::thread::sleep(delay);
        client.kill().unwrap();
        client.wait().unwrap();
        let (code, _, stderr) = output(&mut lab.client("127.0.0.1:1", "127.0.0.1:1", &["offline"]));
        assert_eq!(code, Some(4), "killed after {delay:?}: {stderr}");
    }
}

#[test]
fn a_pipe_that_nobody_writes_to_has_a_deadline() {
    let lab = Lab::new();
    let (code, stderr) = lab.prepare("2", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    lab.configure("client", "wait_seconds = 120.0", "wait_seconds = 1.5");
    assert!(Command::new("mkfifo").arg(lab.path("pipe.png")).status().unwrap().success());
    let server = Service::start(lab.server("127.0.0.1:1", &["online"]));
    let phase = ["online", "--input", "pipe.png"];
    let ask = || lab.client(&server.address, "127.0.0.1:1", &phase).spawn().unwrap();
    let (code, _, stderr) = finish(ask());
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("a pipe that nobody writes to"), "{stderr}");
    assert_eq!(lab.bundles("client"), 1, "it was agreed on before");
    // Opening a pipe waits for the other side.
    let client = ask();
    fs::write(lab.path("pipe.png"), fs::read(digits("5.png")).unwrap()).unwrap();
    let (code, stdout, stderr) = finish(client);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("five"), "{stdout}");
    drop(server);
    assert_eq!((lab.bundles("client"), lab.bundles("server")), (0, 0));
}

/// Files are read before anything is agreed on.
#[test]
fn several_inputs_are_answered_over_one_connection() {
    let lab = Lab::new();
    let (code, stderr) = lab.prepare("3", &as_it_is);
    assert_eq!(code, Some(0), "{stderr}");
    let server = Service::start(lab.server("127.0.0.1:1", &["online", "--sessions", "2"]));
    let picture = |n: u32| digits(&format!("{n}.png")).to_str().unwrap().to_owned();
    let ask = |inputs: &[&str], more: &[&str]| {
        let inputs = inputs.iter().flat_map(|input| ["--input", *input]);
        let phase: Vec<&str> = ["online"].into_iter().chain(inputs).chain(more.iter().copied()).collect();
        output(&mut lab.client(&server.address, "127.0.0.1:1", &phase))
    };
    let (three, eight) = (picture(3), picture(8));
    let (code, _, stderr) = ask(&[&three, "none.png"], &[]);
    assert_eq!(code, Some(3), "{stderr}");
    let (code, _, stderr) = ask(&[three.as_str(); 4], &[]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("one-time material for 3 of 4 inferences is left"), "{stderr}");
    let (code, _, stderr) = ask(&[three.as_str(); 3], &[]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("makes only 2 more (its --sessions)"), "{stderr}");
    assert_eq!(lab.bundles("client"), 3, "none of it has cost anything");
    let (code, stdout, stderr) = ask(&[&three, &eight], &["--json", "--output", "y.npy"]);
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let labels: Vec<_> = lines.iter().map(|line| &line["top"][0]["label"]).collect();
    assert_eq!(
        labels,
        ["three", "eight"]
            .map(serde_json::Value::from)
            .iter()
            .chain([&serde_json::Value::Null])
            .collect::<Vec<_>>()
    );
    assert_eq!((&lines[2]["inferences"], &lines[2]["agreement"]["rounds"]), (&2.into(), &2.into()));
    assert!(lines[2]["online"]["rounds"].as_u64().unwrap() > 2 && lines[0]["online"].is_null());
    assert!(lab.path("y-1.npy").exists() && lab.path("y-2.npy").exists() && !lab.path("y.npy").exists());
    assert_eq!(lab.bundles("client"), 1);
}

#[test]
fn addresses_without_a_port_are_wrong_usage() {
    let home = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 4] = [
        &["dealer", "--listen", "foo"],
        &["server", "--listen", "foo:x", "online"],
        &["server", "--dealer", ":70", "offline"],
        &["client", "--server", "foo:70000", "offline"],
    ];
    for args in cases {
        let (code, _, stderr) = output(privet(home.path()).args(args));
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("expected HOST:PORT"), "{args:?}: {stderr}");
    }
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let home = tempfile::tempdir().unwrap();
    let left = || fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let mut run = run_digits(home.path(), "6.png").spawn().unwrap();
    let start = Instant::now();
    while left().is_empty() {
        assert!(start.elapsed() < PATIENCE, "no directory");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(left().len(), 1, "keys of the killed run");
    let (code, _, stderr) = output(&mut run_digits(home.path(), "6.png"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(left().is_empty(), "{:?}", left());
}
