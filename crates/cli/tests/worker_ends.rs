//! Workers as processes: how they are stopped, and what holds them.

mod common;
#[path = "common/home.rs"]
mod home;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use common::{digits, output, privet, signal, until};
use home::SAMPLE;
use nix::sys::signal::Signal;
use site::{RELEASE, Site, ask, ends, json};

#[test]
fn a_worker_that_waits_for_its_key_stops_when_it_is_told_to() {
    let site = Site::new(&digits("digits.onnx"));
    // A server that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = site.worker(&format!("{RELEASE} --key-deadline 3600"));
    let line = line.replace(&site.address, &silent.local_addr().unwrap().to_string());
    let (mut worker, _) = site.home.start(&line);
    let _asks = silent.accept().unwrap();
    signal(&worker.child, Signal::SIGTERM);
    assert_eq!(ends(&mut worker), Some(0));
}

#[test]
fn lines_that_nobody_reads_do_not_keep_a_worker() {
    let site = Site::new(&digits("digits.onnx"));
    let line = format!("{} --json", site.worker(RELEASE));
    let mut worker = site.home.command(&line).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The first line only: what comes behind it fills the pipe, whose other end stays open.
    let mut out = BufReader::with_capacity(1, worker.stdout.take().unwrap());
    let mut listening = String::new();
    out.read_line(&mut listening).unwrap();
    let address = json(&listening)["address"].as_str().unwrap().to_owned();
    // More lines than the pipe (64 KiB) and the worker keep.
    site.home.ok(&ask(&address, &format!("{RELEASE} --repeat 3000")));
    signal(&worker, Signal::SIGTERM);
    until("the worker ends", || worker.try_wait().unwrap().is_some());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    // What was kept is whole lines.
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.len() >= 60_000, "{} bytes: the pipe was never full", rest.len());
    assert!(rest.lines().filter(|line| json(line)["event"] == "answered").count() >= 300);
}

#[test]
fn a_long_ask_verifies_the_worker_again() {
    let site = Site::new(&digits("digits.onnx"));
    let (_worker, address) = site.start(RELEASE);
    // As many as take more than a second.
    let mut repeat = 1000;
    loop {
        let found = json(
            &site.home.ok(&ask(&address, &format!("{RELEASE} --json --evidence-age 1 --repeat {repeat}"))),
        );
        assert_eq!(found["owner_pinned"], true);
        let answers = found["answers"].as_array().unwrap();
        assert_eq!(answers.len(), repeat);
        let seconds: f64 = answers.iter().map(|answer| answer["seconds"].as_f64().unwrap()).sum();
        let verifications = found["verifications"].as_u64().unwrap();
        if seconds > 1.5 {
            assert!(verifications >= 2, "{verifications} in {seconds} s");
            return;
        }
        assert!(repeat < 1_000_000);
        repeat *= 2;
    }
}

#[test]
fn a_worker_of_stages_is_held_to_its_memory_and_stops_while_it_loads() {
    const MEBIBYTE: u64 = 1 << 20;
    let models = tempfile::tempdir().unwrap();
    let model = models.path().join("alexnet.onnx");
    let exported = output(privet(models.path()).args(["export", "alexnet", "-o"]).arg(&model));
    assert_eq!(exported.0, Some(0), "{exported:?}");
    let site = Site::new(&model);
    let home = &site.home;
    let input = home.at("x.csv");
    let picture: Vec<String> =
        (0..3 * 224 * 224).map(|i| format!("{}", f64::from(i * 31 % 255) / 255.0)).collect();
    fs::write(&input, picture.join(",")).unwrap();
    home.ok(&format!("split --model {} --memory 24MiB --key owner --out stages", model.display()));
    let worker = |memory: &str| {
        let line = site.worker(&format!("{RELEASE} --memory {memory} --sessions 4"));
        line.replace("--sealed m.sealed", "--stages stages")
    };
    home.fails(3, &worker("1MiB"), "these stages take 25165824 bytes (24.00 MiB); expected --memory plan");
    home.fails(2, &worker("24MB"), "64MiB");
    home.fails(2, &site.worker(&format!("{RELEASE} --memory plan")), "cannot be used with");
    home.fails(2, &format!("{} --stage 1", worker("plan")), "cannot be used with");
    let (held, address) = home.start(&worker("plan"));
    let ask = |address: &str| {
        let line =
            format!("enclave ask {address} --policy worker.toml {RELEASE} --input x.csv {SAMPLE} --json");
        let found = json(&home.ok(&line));
        found["outputs"].as_object().unwrap().values().next().unwrap()["data"].clone()
    };
    let outputs = ask(&address);
    // Weights and activations, the program, and four connections with 602112 bytes of input and 4000 of output, twice.
    let limit = (24 + 48) * MEBIBYTE + 4 * ((128 << 10) + 2 * (602_112 + 4000));
    let limits = fs::read_to_string(format!("/proc/{}/limits", held.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    let values: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values, [limit.to_string(), limit.to_string()]);
    // Its weights alone have 233 MiB.
    assert!(fs::metadata(home.at("m.sealed")).unwrap().len() > 3 * limit);
    let status = fs::read_to_string(format!("/proc/{}/status", held.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    eprintln!("resident at most {} kB, {} allowed", peak.trim(), limit >> 10);
    assert_eq!(held.end(Signal::SIGTERM), Some(0));

    let (whole, address) = site.start(RELEASE);
    let at_once: Vec<f64> = serde_json::from_value(ask(&address)).unwrap();
    let by_blocks: Vec<f64> = serde_json::from_value(outputs).unwrap();
    let largest = at_once.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    assert_eq!(at_once.len(), by_blocks.len());
    assert!(at_once.iter().zip(&by_blocks).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
    assert_eq!(whole.end(Signal::SIGTERM), Some(0));
    // Told to stop at whatever moment of asking, loading and serving, it ends well.
    for step in 0..12 {
        let (mut worker, _) = site.start(RELEASE);
        std::thread::sleep(Duration::from_millis(25 * step));
        signal(&worker.child, Signal::SIGTERM);
        assert_eq!(ends(&mut worker), Some(0), "after {} ms", 25 * step);
    }
}
