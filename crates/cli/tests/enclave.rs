//! Workers, key servers, caches and clients as processes: what a client sends before it has verified, what a worker refuses to
//! open, when it stops, and what it leaves behind.

mod common;
#[cfg(target_os = "linux")]
#[path = "common/dumps.rs"]
mod dumps;
#[path = "common/home.rs"]
mod home;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use common::{digits, finish, output, run_digits, signal, until};
use home::SAMPLE;
use nix::sys::signal::Signal;
use privet::Preprocess;
use privet::reference::FloatReference;
use site::{RELEASE, Site, ask, ends, json};

/// Forwards connections to `target`, and counts the bytes that clients send.
fn proxy(target: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (target, sent) = (target.to_owned(), Arc::new(AtomicUsize::new(0)));
    let counter = sent.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, worker) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), worker.try_clone().unwrap());
            let counter = counter.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 14];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    counter.fetch_add(n, Ordering::SeqCst);
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let (mut from, mut to) = (worker, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    (address, sent)
}

#[test]
fn clients_verify_a_worker_and_get_what_the_model_gives_in_float() {
    let site = Site::new(&digits("digits.onnx"));
    let home = &site.home;
    let (_cache, local) = site.start_cache();
    let from = format!("--keycache {local} --listen 127.0.0.1:0");
    let (worker, address) =
        home.start(&format!("enclave --sealed m.sealed {RELEASE} {from} --allow-swap {SAMPLE}"));

    let found = json(&home.ok(&ask(&address, "--json --repeat 3")));
    assert_eq!((&found["engine"], &found["backend"]), (&"tee".into(), &"sample, INSECURE".into()));
    assert_eq!(found["answers"].as_array().unwrap().len(), 3);
    let preprocess = privet::input::preprocess_from_str_or_file(digits("preprocess.toml").to_str().unwrap());
    let float = FloatReference::read(&digits("digits.onnx"), &preprocess.unwrap()).unwrap();
    let inputs = privet::model::load_inputs_for(float.inputs(), &[digits("7.png")]).unwrap();
    let expected = float.run(&inputs).unwrap();
    let values = found["outputs"]["logits"]["data"].as_array().unwrap();
    assert_eq!(values.len(), expected[0].len());
    for (value, expected) in values.iter().zip(&expected[0]) {
        assert!((value.as_f64().unwrap() - f64::from(*expected)).abs() < 1e-4, "{value} {expected}");
    }
    let text = home.ok(&ask(&address, &format!("--labels {}", digits("labels.txt").display())));
    assert!(text.contains("seven") && text.contains("sample, INSECURE: worker"), "{text}");

    // Several at a time.
    let clients: Vec<_> =
        (0..4).map(|_| home.command(&ask(&address, "--repeat 20")).spawn().unwrap()).collect();
    for client in clients {
        assert_eq!(finish(client).0, Some(0));
    }
    let id = found["model_id"].as_str().unwrap();
    home.ok(&ask(&address, &format!("--model-id {id}")));
    home.fails(
        4,
        &ask(&address, &format!("--model-id {}", id.replace(&id[..8], "00000000"))),
        "serves model",
    );
    home.fails(4, &ask(&address, &format!("--model-digest {}", "ab".repeat(32))), "serves sealed file");
    home.fails(4, &ask(&address, "").replace(SAMPLE, ""), "sample, INSECURE is not accepted here");
    // Whoever does not speak the protocol is hung up on, and others go on.
    let mut stranger = TcpStream::connect(&address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(stranger);
    home.ok(&ask(&address, ""));

    let limits = fs::read_to_string(format!("/proc/{}/limits", worker.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "core dumps are off");
    assert_eq!(worker.end(Signal::SIGTERM), Some(0));
    home.fails(4, &ask(&address, ""), "cannot connect");
}

#[test]
fn nothing_is_sent_to_a_worker_that_the_policy_refuses() {
    let models = tempfile::tempdir().unwrap();
    let model = models.path().join("squeezenet.onnx");
    let exported = output(common::privet(models.path()).args(["export", "squeezenet", "-o"]).arg(&model));
    assert_eq!(exported.0, Some(0), "{exported:?}");
    let site = Site::new(&model);
    let (_worker, address) = site.start(RELEASE);
    let (between, sent) = proxy(&address);
    let input = site.home.at("x.csv");
    fs::write(&input, vec!["0.5"; 3 * 224 * 224].join(",")).unwrap();
    let ask = |policy: &str| {
        format!("enclave ask {between} --policy {policy} --input {} {SAMPLE}", input.display())
    };
    site.home.fails(4, &ask("other.toml"), "nothing was sent to it");
    let before = sent.load(Ordering::SeqCst);
    // A handshake and its end; the input has 602112 bytes.
    assert!(before > 200 && before < 8192, "{before} bytes");
    // Nor to one that it accepts, with another owner's model, or an older one than was asked for.
    site.home.ok("key new --id resnet --out stranger");
    let owner = release_value(&site.home.at("owner/release.toml"), "verifying_key");
    let stranger = release_value(&site.home.at("stranger/release.toml"), "verifying_key");
    let id = release_value(&site.home.at("stranger/release.toml"), "model_id");
    for (pin, found) in [
        ("--release stranger/release.toml".to_owned(), format!("expected a model signed by {stranger}")),
        (format!("--verifying-key {stranger}"), format!("serves a model signed by {owner}")),
        (format!("--verifying-key {owner} --model-id {id}"), format!("expected model {id}")),
        (format!("{RELEASE} --min-version 2"), "expected version 2 or later".to_owned()),
    ] {
        let before = sent.load(Ordering::SeqCst);
        let (code, said) = site.home.run(&format!("{} {pin}", ask("worker.toml")));
        assert!(
            code == Some(4) && said.contains(&found) && said.contains("no input was sent"),
            "{pin}: {said}"
        );
        assert!(sent.load(Ordering::SeqCst) - before < 8192, "{pin}");
    }
    let before = sent.load(Ordering::SeqCst);
    let said = site.home.ok(&ask("worker.toml"));
    assert!(said.contains(&format!("signed by {owner}")) && said.contains("not pinned"), "{said}");
    assert!(sent.load(Ordering::SeqCst) - before > 602_112);
    fs::write(site.home.at("owner.key"), format!("{owner}\n")).unwrap();
    for pin in [format!("{RELEASE} --min-version 1"), "--verifying-key owner.key".to_owned()] {
        let said = site.home.ok(&format!("{} {pin}", ask("worker.toml")));
        assert!(!said.contains("not pinned"), "{said}");
    }
    site.home.fails(3, &format!("{} --verifying-key nothere", ask("worker.toml")), "64 hexadecimal digits");
    site.home.fails(2, &format!("{} {RELEASE} --model-id {id}", ask("worker.toml")), "cannot be used with");
}

#[test]
fn a_worker_opens_only_what_its_owner_signed_and_the_policy_still_accepts() {
    let site = Site::new(&digits("digits.onnx"));
    let home = &site.home;
    let fails = |code, more: &str, word| home.fails(code, &site.worker(more), word);
    // Another owner's model of the same name, under a key that the worker does get.
    home.ok("key new --id resnet --out stranger");
    let model = digits("digits.onnx");
    home.ok(&format!("seal --model {} --key stranger --out stranger.sealed", model.display()));
    let other = site.worker(RELEASE).replace("m.sealed", "stranger.sealed");
    home.fails(3, &other, "not signed by the owner");
    // A worker that is told to trust the stranger does not believe the key server that names the owner.
    let trusting = site.worker("--release stranger/release.toml").replace("m.sealed", "stranger.sealed");
    home.fails(3, &trusting, "this worker accepts only");
    // A changed byte.
    let mut bytes = fs::read(home.at("m.sealed")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(home.at("bad.sealed"), bytes).unwrap();
    home.fails(3, &site.worker(RELEASE).replace("m.sealed", "bad.sealed"), "not what the owner sealed");
    // Rolled back: by the worker's own arguments, and by the owner's policy.
    fails(3, &format!("{RELEASE} --min-version 2"), "version");
    fails(3, &format!("{RELEASE} --model-digest {}", "ab".repeat(32)), "digest");
    let policy = fs::read_to_string(home.at("key.toml")).unwrap();
    fs::write(
        home.at("newer.toml"),
        policy.replace("minimum_model_version = 1", "minimum_model_version = 2"),
    )
    .unwrap();
    home.ok("keyserver policy set --dir keys newer.toml");
    fails(3, RELEASE, "version");
    home.ok(&format!("seal --model {} --key owner --out m2.sealed --version 2", model.display()));
    let (worker, address) = home.start(&site.worker(RELEASE).replace("m.sealed", "m2.sealed"));
    home.ok(&ask(&address, ""));
    assert_eq!(worker.end(Signal::SIGTERM), Some(0));
    // By its parts instead of a release file.
    let key = release_value(&home.at("owner/release.toml"), "verifying_key");
    let by_key = format!("--verifying-key {key} --key-id resnet");
    let (_worker, address) = home.start(&site.worker(&by_key).replace("m.sealed", "m2.sealed"));
    home.ok(&ask(&address, ""));
    fails(2, "", "--release");
}

#[test]
fn a_worker_stops_when_its_key_is_revoked_or_cannot_be_had_again() {
    let site = Site::new(&digits("digits.onnx"));
    let home = &site.home;
    let (cache, local) = site.start_cache();
    let from = format!("--keycache {local} --listen 127.0.0.1:0 --key-lifetime 8");
    let line = format!("enclave --sealed m.sealed {RELEASE} {from} --allow-swap {SAMPLE}");
    let (mut cached, from_cache) = home.start(&line);
    let (mut direct, from_server) = site.start(&format!("{RELEASE} --key-lifetime 8"));
    let (mut patient, _) = site.start(&format!("{RELEASE} --key-lifetime 1000"));
    // They are renewed as long as there is a cache, and the owner wants it ..
    std::thread::sleep(Duration::from_secs(9));
    home.ok(&ask(&from_cache, ""));
    home.ok(&ask(&from_server, ""));
    // .. and not after.
    cache.end(Signal::SIGKILL);
    home.ok("keyserver key revoke --dir keys resnet");
    assert_eq!(ends(&mut cached), Some(4));
    assert_eq!(ends(&mut direct), Some(4));
    home.fails(4, &ask(&from_cache, ""), "cannot connect");
    assert!(patient.child.try_wait().unwrap().is_none(), "asks later");
    home.fails(4, &site.worker(RELEASE), "revoked");
    drop(patient);
    let said = String::from_utf8(home.said.lock().unwrap().clone()).unwrap();
    let own = |line: &&str| {
        line.contains("got the key") || line.contains("in memory") || line.contains("may be used until")
    };
    let lines: Vec<&str> = said.lines().filter(own).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line.starts_with("sample, INSECURE: ")), "{said}");
    assert!(site.server.end(Signal::SIGTERM) == Some(0));
}

#[test]
fn a_killed_worker_ends_its_clients() {
    let site = Site::new(&digits("digits.onnx"));
    // A client whose requests are being answered: a handshake and its end are 8 KiB at most.
    let busy = |worker: &str| {
        let (address, sent) = proxy(worker);
        let client = site.home.command(&ask(&address, "--repeat 1000000")).spawn().unwrap();
        until("requests are answered", || sent.load(Ordering::SeqCst) > 32 << 10);
        (client, address)
    };
    let (worker, address) = site.start(RELEASE);
    let (client, address) = busy(&address);
    worker.end(Signal::SIGKILL);
    let (code, _, errors) = finish(client);
    assert_eq!(code, Some(4), "{errors}");
    let words =
        "the worker broke the connection before it answered (it may have been stopped or killed): ask again";
    assert!(errors.contains(&address) && errors.contains(words), "{errors}");
    // One that is told to stop says so.
    let (worker, address) = site.start(RELEASE);
    let (client, _) = busy(&address);
    signal(&worker.child, Signal::SIGTERM);
    let (code, _, errors) = finish(client);
    assert_eq!(code, Some(4), "{errors}");
    assert!(errors.contains("being stopped"), "{errors}");
}

/// A value of a release file.
fn release_value(path: &Path, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// What a host does to the records of TLS that one worker sends another.
const PASS: u8 = 0;
const FLIP: u8 = 1;
const REPEAT: u8 = 2;
const REORDER: u8 = 3;

/// Forwards connections to `target` record by record; does once what `mode` says, to encrypted records from the client. Counts
/// connections.
fn tamperer(target: &str) -> (String, Arc<AtomicU8>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (mode, connections) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicUsize::new(0)));
    let (target, asked, count) = (target.to_owned(), mode.clone(), connections.clone());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let (client, worker) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), worker.try_clone().unwrap());
            let mode = asked.clone();
            std::thread::spawn(move || {
                let mut held: Option<Vec<u8>> = None;
                let mut head = [0; 5];
                while from.read_exact(&mut head).is_ok() {
                    let mut record = head.to_vec();
                    record.resize(5 + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
                    if from.read_exact(&mut record[5..]).is_err() {
                        break;
                    }
                    // Application data, as all encrypted records are called.
                    let now = if head[0] == 23 { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
                    let sent = match now {
                        FLIP => {
                            *record.last_mut().unwrap() ^= 1;
                            record
                        }
                        REPEAT => [record.clone(), record].concat(),
                        REORDER => {
                            held = Some(record);
                            continue;
                        }
                        _ => [record, held.take().unwrap_or_default()].concat(),
                    };
                    if to.write_all(&sent).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut to) = (worker, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, mode, connections)
}

#[test]
fn stages_run_one_by_one_and_over_workers_that_verify_each_other() {
    let site = Site::new(&digits("digits.onnx"));
    let home = &site.home;
    let model = digits("digits.onnx").display().to_string();
    home.ok(&format!("split --model {model} --parts 3 --key owner --out stages"));
    let logits = |address: &str| {
        json(&home.ok(&ask(address, "--json")))["outputs"]["logits"]["data"].as_array().unwrap().clone()
    };
    let (_whole, address) = site.start(RELEASE);
    let expected = logits(&address);
    let stages = |more: &str| {
        site.worker(&format!("{RELEASE} {more}")).replace("--sealed m.sealed", "--stages stages")
    };
    let (one_by_one, address) = home.start(&stages(""));
    assert_eq!(logits(&address), expected);
    assert_eq!(one_by_one.end(Signal::SIGTERM), Some(0));

    // Three workers, each with a stage, and a host between the first two.
    home.fails(2, &stages("--stage 3"), "--clients policy.toml says which worker");
    home.fails(2, &stages("--stage 1"), "--next HOST:PORT says where it is");
    home.fails(2, &stages("--stage 4"), "expected some of 1 to 3");
    let (_third, address) = home.start(&stages("--stage 3 --clients worker.toml"));
    let next = |address: &str, policy: &str| format!("--next {address} --next-policy {policy}");
    let (_second, second) =
        home.start(&stages(&format!("--stage 2 --clients worker.toml {}", next(&address, "worker.toml"))));
    let (between, mode, connections) = tamperer(&second);
    let (_first, first) = home.start(&stages(&format!("--stage 1 {}", next(&between, "worker.toml"))));
    assert_eq!(logits(&first), expected);
    let text = home.ok(&ask(&first, "--repeat 5"));
    assert!(text.contains("sample, INSECURE: worker"), "{text}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // What was changed, repeated or reordered ends the connection; the inputs go over a new one, under new keys.
    for (i, kind) in [FLIP, REPEAT, REORDER].into_iter().enumerate() {
        mode.store(kind, Ordering::SeqCst);
        assert_eq!(logits(&first), expected, "{kind}");
        // A record that was repeated is noticed with the next message.
        assert_eq!(logits(&first), expected, "{kind}");
        assert_eq!(connections.load(Ordering::SeqCst), 2 + i, "{kind}");
    }
    // Nobody else may give tensors to a later stage, and no other worker gets them.
    home.fails(4, &ask(&second, ""), &second);
    let (_wary, wary) = home.start(&stages(&format!("--stage 1 {}", next(&second, "other.toml"))));
    home.fails(4, &ask(&wary, ""), "the worker with the next stages does not answer");
    let (_lost, lost) = home.start(&stages(&format!("--stage 1 {}", next(&address, "worker.toml"))));
    home.fails(4, &ask(&lost, ""), "the worker with the next stages does not answer");
    // Stages of another version, with an index of their own.
    home.ok(&format!("split --model {model} --parts 3 --key owner --version 2 --out newer"));
    fs::copy(home.at("stages/stage-02.sealed"), home.at("newer/stage-02.sealed")).unwrap();
    let newer = stages("").replace("--stages stages", "--stages newer");
    home.fails(3, &newer, "an old one was put in its place");
    home.fails(3, &stages("--min-version 2"), "version");
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

#[test]
fn neither_weights_nor_inputs_are_written_anywhere() {
    let site = Site::new(&digits("digits.onnx"));
    let home = &site.home;
    // The model itself lies elsewhere; what is looked for are pieces of its largest weight, and of the input.
    let model = fs::read(digits("digits.onnx")).unwrap();
    let weights: Vec<&[u8]> = model.chunks(2000).map(|part| &part[..16.min(part.len())]).collect();
    let preprocess: Preprocess =
        privet::input::preprocess_from_str_or_file(digits("preprocess.toml").to_str().unwrap()).unwrap();
    let float = FloatReference::read(&digits("digits.onnx"), &preprocess).unwrap();
    let inputs = privet::model::load_inputs_for(float.inputs(), &[digits("7.png")]).unwrap();
    let input: Vec<u8> = inputs[0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let secrets: Vec<&[u8]> =
        weights.iter().copied().filter(|part| part.len() == 16).chain([&input[64..96]]).collect();
    assert!(secrets.len() > 10);
    let (worker, address) = site.start(RELEASE);
    home.ok(&ask(&address, "--repeat 5"));
    let search = |when: &str| {
        let mut found = Vec::new();
        // The temporary directory of all these processes is this one.
        files(home.dir.path(), &mut found);
        assert!(found.len() > 5);
        for path in &found {
            let bytes = fs::read(path).unwrap();
            for secret in &secrets {
                let hit = bytes.windows(secret.len()).any(|window| window == *secret);
                assert!(!hit, "{when}: {} holds a part of the model or the input", path.display());
            }
        }
    };
    search("running");
    signal(&worker.child, Signal::SIGABRT);
    drop(worker);
    search("after a crash");
    let said = home.said.lock().unwrap().clone();
    for secret in &secrets {
        assert!(!said.windows(secret.len()).any(|window| window == *secret));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_leaves_no_core_dump() {
    let home = dumps::Ordinary::new();
    home.ok("key new --id resnet --out owner");
    home.ok(&format!("seal --model {} --key owner --out m.sealed", digits("digits.onnx").display()));
    home.ok("keyserver init --dir keys --listen 127.0.0.1:0 --name localhost");
    // A server that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = format!("--keyserver {} --server-certificate keys/tls.crt", silent.local_addr().unwrap());
    home.assert_not_dumped(&format!(
        "enclave --sealed m.sealed {RELEASE} {from} --listen 127.0.0.1:0 {SAMPLE}"
    ));
}

#[test]
fn run_with_engine_tee_needs_a_flag_and_marks_everything() {
    let home = tempfile::tempdir().unwrap();
    let tee = |more: &[&str]| {
        let mut command = run_digits(home.path(), "7.png");
        command.args(["--engine", "tee"]).args(more);
        output(&mut command)
    };
    let (code, out, err) = tee(&[]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("--allow-sample-insecure"), "{err}");
    for more in [["--network", "lan"], ["--ring", "40"], ["--max-keys", "7"]] {
        assert_eq!(tee(&[SAMPLE, more[0], more[1]]).0, Some(2), "{more:?}");
    }
    let mut other = run_digits(home.path(), "7.png");
    assert_eq!(output(other.arg(SAMPLE)).0, Some(2), "without the engine");
    let raw = home.path().join("y.npy");
    let (code, out, err) = tee(&[SAMPLE, "--output", raw.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("seven") && raw.exists(), "{out}");
    let parties = ["key server", "key cache", "worker", "client"];
    let lines: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("party")).skip(2).collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert!(lines.iter().all(|line| line.contains("sample, INSECURE")), "{out}");
    assert!(parties.iter().zip(&lines).all(|(party, line)| line.starts_with(party)), "{out}");
    let (code, out, err) = tee(&[SAMPLE, "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let found = json(&out);
    assert_eq!((&found["engine"], &found["backend"]), (&"tee".into(), &"sample, INSECURE".into()));
    assert!(found["relative_error_vs_float"].as_f64().unwrap() <= 1e-5);
    assert!(found["first_answer_seconds"].as_f64().unwrap() >= found["load_seconds"].as_f64().unwrap());
    assert!(found["parties"].as_array().unwrap().iter().all(|p| p["backend"] == "sample, INSECURE"));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["y.npy"], "temporary files are gone");
}
