//! `privet bench`: what its rows say, and what it refuses.

mod common;

use std::collections::HashMap;
use std::fs;
use std::process::Child;

use common::{digits, finish, output, privet};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privet_ring::{Kernel, Ring};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

/// The rows that a command prints, as JSON.
fn rows(args: &[&str]) -> Vec<Value> {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = output(privet(home.path()).arg("bench").args(args).arg("--json"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_row_for_every_phase_adds_up() {
    let rows = rows(&["--models", "lenet", "--iterations", "2"]);
    let phases: Vec<_> = rows.iter().map(|r| r["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["setup", "offline", "online"]);
    for row in &rows {
        for (key, value) in
            [("exp", "inference"), ("model", "lenet"), ("engine", "2pc"), ("network", "loopback")]
        {
            assert_eq!(row[key], value);
        }
        assert_eq!((&row["matches_cleartext"], &row["calibrated"]), (&true.into(), &true.into()));
        let error = number(&row["max_abs_err"]);
        assert!(error > 0.0 && error < 0.02, "{error}");
        assert!((20..48).contains(&row["ring"].as_u64().unwrap()), "{row}");
        assert!((4..=24).contains(&row["frac_bits"].as_u64().unwrap()), "{row}");
        assert!(number(&row["widths"]["min"]) <= number(&row["widths"]["max"]));
        assert!(number(&row["widths"]["max"]) < number(&row["ring"]));
        let parties = row["parties"].as_array().unwrap();
        for key in ["cpu_s", "startup_cpu_s", "agreement_cpu_s"] {
            let sum: f64 = parties.iter().map(|p| number(&p[key])).sum();
            let is_there = key != "agreement_cpu_s" || row["phase"] == "online";
            assert!((sum - number(&row[key])).abs() < 1e-9 && (sum > 0.0) == is_there, "{key}: {row}");
        }
        for key in ["agreement_wall_s", "agreement_bytes", "agreement_rounds"] {
            assert_eq!(number(&row[key]) > 0.0, row["phase"] == "online", "{key}: {row}");
        }
        assert_eq!(row["agreement_next_wall_s"].is_number(), row["phase"] == "online", "{row}");
        let sent: f64 = parties.iter().map(|p| number(&p["bytes_sent"])).sum();
        assert_eq!(sent, number(&row["bytes"]));
        for party in parties {
            assert!(number(&party["peak_rss_bytes"]) > 1e6);
            assert!(number(&party["peak_rss_bytes"]) <= number(&row["peak_rss_bytes"]));
            assert!(number(&party["startup_wall_s"]) > 0.0);
        }
        assert!(number(&row["wall_s"]) > 0.0);
        // What the plan declares, and headers, greetings and names.
        let (bytes, declared) = (number(&row["bytes"]), number(&row["declared_bytes"]));
        assert!((declared..declared + 4096.0).contains(&bytes), "{bytes} for {declared}");
        let wire = number(&row["wire_bytes"]);
        assert!((bytes + 1000.0..1.01 * bytes + 40_000.0).contains(&wire), "{wire} for {bytes}");
    }
    let roles = |row: &Value| {
        let parties = row["parties"].as_array().unwrap();
        parties.iter().map(|p| p["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(roles(&rows[0]), ["dealer", "server", "client"]);
    assert_eq!(roles(&rows[1]), ["dealer", "server", "client"]);
    assert_eq!(roles(&rows[2]), ["server", "client"], "the dealer is gone");
    assert_eq!((&rows[0]["iterations"], &rows[2]["iterations"]), (&1.into(), &2.into()));
    let stored = |i: usize| number(&rows[i]["stored_bytes"]);
    assert!(stored(0) >= number(&rows[0]["declared_bytes"]), "the client keeps its masked weights");
    assert!(
        stored(1) > number(&rows[1]["declared_bytes"]),
        "the server keeps what is dealt, the client more"
    );
    assert_eq!(stored(2), 0.0);
    assert!(number(&rows[2]["rounds"]) > 10.0);
    assert_eq!(rows[2]["agreement_rounds"], 2, "one hello, one choice");
}

/// Whatever the machine does, nothing is faster than the link.
#[test]
fn a_network_slows_down_what_it_carries_and_changes_nothing_else() {
    let row = |rows: &[Value], phase: &str| rows.iter().find(|r| r["phase"] == phase).unwrap().clone();
    let slow = rows(&["--models", "lenet", "--iterations", "1", "--network", "0.04gbit:4ms:100us"]);
    let fast = rows(&["--models", "lenet", "--iterations", "1"]);
    assert!(slow.iter().all(|row| row["network"] == "40mbit:4ms:100us"), "{slow:?}");
    for phase in ["setup", "offline", "online"] {
        let (slow, fast) = (row(&slow, phase), row(&fast, phase));
        // Offline, one who waits is told so from time to time.
        let bytes = if phase == "online" { "bytes" } else { "declared_bytes" };
        for same in [bytes, "rounds", "stored_bytes", "max_abs_err"] {
            assert_eq!(slow[same], fast[same], "{phase} {same}");
        }
        assert_eq!((&slow["matches_cleartext"], &fast["network"]), (&true.into(), &"loopback".into()));
    }
    let online = row(&slow, "online");
    // Both send at the same time, so that a round is half a round trip.
    let least = number(&online["rounds"]) * 0.002;
    assert!(number(&online["wall_s"]) >= least, "{online}");
    let (offline, rate) = (row(&slow, "offline"), 40e6 / 8.0);
    assert!(number(&offline["wall_s"]) >= number(&offline["declared_bytes"]) / rate, "{offline}");
}

/// A file's rows say what `privet plan` says of the same file.
#[test]
fn an_onnx_file_costs_what_its_plan_declares() {
    let model = digits("digits.onnx");
    let model = model.to_str().unwrap();
    let rows = rows(&["--models", model, "--iterations", "1", "--uncalibrated"]);
    let home = tempfile::tempdir().unwrap();
    let (_, stdout, _) = output(privet(home.path()).args(["plan", model, "--json"]));
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    let total = |key: &str| number(&plan["totals"][key]);
    let declared: Vec<f64> = rows.iter().map(|r| number(&r["declared_bytes"])).collect();
    let sends = total("server_sends") + total("client_sends");
    assert_eq!(declared, [number(&plan["masked_weights"]), total("dealt"), sends]);
    let stored = number(&rows[1]["stored_bytes"]);
    let stores = total("server_stores") + total("client_stores");
    assert!((stores..stores + 4096.0).contains(&stored), "{stored} for {stores}");
    assert_eq!(number(&rows[2]["rounds"]), total("rounds"));
    assert_eq!(rows[2]["agreement_rounds"], plan["agreement_rounds"]);
    for row in &rows {
        assert_eq!(
            (&row["model"], &row["ring"], &row["frac_bits"]),
            (&"digits".into(), &64.into(), &16.into())
        );
        assert_eq!(row["widths"], serde_json::json!({"min": 63, "max": 63}));
        assert_eq!(row["calibrated"], false);
    }
}

#[test]
fn values_are_separated_by_commas() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "--models", "lenet", "--engine", "cleartext", "--iterations", "3", "--csv"];
    let (code, stdout, stderr) =
        output(privet(home.path()).args(args).args(["--ring", "48", "--frac-bits", "10"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    assert_eq!(lines[0].len(), lines[1].len());
    let row: HashMap<&str, &str> = lines[0].iter().copied().zip(lines[1].iter().copied()).collect();
    let expected = [
        ("engine", "cleartext"),
        ("network", "none"),
        ("phase", "online"),
        ("iterations", "3"),
        ("ring", "48"),
        ("frac_bits", "10"),
        ("bytes", "0"),
        ("matches_cleartext", "true"),
        ("dealer_cpu_s", ""),
        ("p0_bytes_sent", "0"),
    ];
    for (column, value) in expected {
        assert_eq!(row[column], value, "{column}");
    }
    assert!(row["cpu_s"].parse::<f64>().unwrap() > 0.0);
    assert!(row["max_abs_err"].parse::<f64>().unwrap() > 1e-4, "10 bits are few");
}

#[test]
fn people_get_tables_with_other_systems() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) =
        output(privet(home.path()).args(["bench", "--models", "lenet", "--iterations", "1"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for text in
        ["setup", "offline", "online", "MB", "CrypTen 2PC", "CryptGPU 3PC", "this run", "3 V100", "x)"]
    {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    let measured = stdout.split("privet 2pc online").next().unwrap_or_default();
    assert!(measured.contains("wall s") && !measured.contains("predicted"), "{stdout}");
    let asked = ["bench", "--models", "lenet", "--iterations", "1", "--network", "lan", "--predict"];
    let (_, stdout, _) = output(privet(home.path()).args(asked));
    assert!(
        stdout.starts_with("Over connections as slow as lan.\n") && stdout.contains("predicted"),
        "{stdout}"
    );
    let only_wall = stdout.lines().find(|line| line.contains("CryptGPU 3PC")).unwrap();
    assert!(!only_wall.contains("x)"), "times of another network are not compared: {stdout}");
    // The name of a file makes it no architecture.
    let file = home.path().join("resnet50.onnx");
    fs::copy(digits("digits.onnx"), &file).unwrap();
    for args in [[file.to_str().unwrap(), "--engine=2pc"], ["lenet", "--engine=cleartext"]] {
        let (code, stdout, stderr) =
            output(privet(home.path()).args(["bench", "--iterations", "1", "--models"]).args(args));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("No figures of other systems"), "{stdout}");
    }
    // Nor is a program compared that does not compute the model.
    let coarse = ["--ring", "20", "--uncalibrated", "--iterations", "1"];
    let (_, stdout, _) = output(privet(home.path()).args(["bench", "--models", "lenet"]).args(coarse));
    assert!(stdout.contains("INACCURATE") && stdout.contains("SPU") && !stdout.contains("x)"), "{stdout}");
    let (code, stdout, _) = output(privet(home.path()).args(["bench", "--models", "list"]));
    assert_eq!(code, Some(0));
    for name in ["lenet", "minionn-cifar", "vgg16-cifar", "squeezenet", "resnet18", "resnet50", "resnet101"] {
        assert!(stdout.lines().any(|line| line == name), "{name}: {stdout}");
    }
}

/// Every kernel of this CPU is forced in turn, the others say why not, and gates send what their plan declares.
#[test]
fn kernels_are_measured_next_to_their_peak() {
    let rows = rows(&["--exp", "kernels", "--iterations", "1"]);
    let is = |row: &Value, key: &str, value: &str| row[key] == value;
    for (bits, kernels) in [16, 32, 48, 64].map(|bits| (bits, Kernel::all(Ring::new(bits).unwrap()))) {
        let shapes: Vec<_> = rows.iter().filter(|r| is(r, "kernel", "conv") && r["ring"] == bits).collect();
        assert_eq!(shapes.is_empty(), bits == 16);
        for (isa, kernel) in kernels {
            let own: Vec<_> = shapes.iter().filter(|r| r["isa"] == isa).collect();
            assert_eq!(own.is_empty(), bits == 16, "{isa} at {bits} bits");
            // Another kernel may be faster for a shape; then it runs instead.
            let replaced = |row: &Value| row["skipped"].as_str().is_some_and(|why| why.starts_with("takes "));
            for row in own.into_iter().filter(|row| !replaced(row)) {
                assert_eq!(
                    row["skipped"].as_str(),
                    kernel.err().map(|why| why.to_string()).as_deref(),
                    "{row}"
                );
                assert_eq!(row["achieved"].is_null(), kernel.is_err(), "{row}");
            }
        }
    }
    for part in ["gemm", "gemv", "conv", "depthwise", "prg", "memcpy", "pack", "unpack", "transpose", "tls"] {
        assert!(rows.iter().any(|r| is(r, "kernel", part) && r["achieved"].is_number()), "{part}");
    }
    for row in rows.iter().filter(|r| r["skipped"].is_null()) {
        assert!(number(&row["achieved"]) > 0.0 && number(&row["median"]) > 0.0, "{row}");
        assert!(number(&row["threads"]) >= 1.0 && number(&row["repetitions"]) >= 1.0, "{row}");
        if ["gemm", "gemv", "conv", "depthwise"].iter().any(|kernel| is(row, "kernel", kernel)) {
            // No upper bound: a thread's CPU clock errs by a factor of two now and then, and here one repetition counts.
            let (share, peak) = (number(&row["share_of_peak"]), number(&row["peak"]));
            assert!((share * peak / number(&row["achieved"]) - 1.0).abs() < 1e-4, "{row}");
        }
    }
    let declared: Vec<_> = rows.iter().filter(|r| r["declared"].is_number()).collect();
    for quantity in ["sent", "rounds"] {
        let own: Vec<_> = declared.iter().filter(|r| is(r, "quantity", quantity)).collect();
        assert_eq!(own.len(), 6, "{quantity}");
        for row in own {
            assert_eq!(row["achieved"], row["declared"], "{row}");
            assert!(number(&row["achieved"]) > 0.0, "{row}");
        }
    }
}

/// Every part is a table of at most 120 columns.
#[test]
fn people_get_tables_of_kernels() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "--exp", "kernels", "--kernels", "prg,gates,tls", "--iterations", "1"];
    let (code, stdout, stderr) = output(privet(home.path()).args(args));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.lines().all(|line| line.chars().count() <= 120), "{stdout}");
    for text in ["relu-trunc", "dealer", "CPU-s", "B/element", "max pool", "prg", "GB/s", "round trip"] {
        assert!(stdout.contains(text), "{text}: {stdout}");
    }
    let csv = ["bench", "--exp", "kernels", "--kernels", "memory", "--iterations", "1", "--csv"];
    let (code, stdout, _) = output(privet(home.path()).args(csv));
    let columns: Vec<usize> = stdout.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(
        (code, columns),
        (Some(0), vec![18; 1 + 13]),
        "a header, a copy and three times four widths: {stdout}"
    );
}

#[test]
fn wrong_usage_is_2_and_missing_files_are_3() {
    let home = tempfile::tempdir().unwrap();
    let cases: [(&[&str], i32, &str); 17] = [
        (&[], 2, "--models"),
        (&["--models", "list,lenet"], 2, "takes nothing beside it"),
        (&["--models", "lenet,resnet5"], 2, "no model \"resnet5\"; expected a path to an .onnx file"),
        (&["--models", "lenet", "--engine", "4pc"], 2, "possible values: 2pc, fss, auto, 3pc, cleartext"),
        (&["--models", "lenet", "--exp", "training"], 2, "possible values: inference, inference_all"),
        (&["--models", "lenet", "--iterations", "0"], 2, "0 is not in 1..=1000"),
        (&["--models", "lenet", "--json", "--csv"], 2, "cannot be used with"),
        (&["--models", "lenet", "--ring", "20", "--frac-bits", "16"], 2, "takes 1 to 8 fractional bits"),
        (
            &["--models", "lenet", "--network", "1gbit"],
            2,
            "expected RATE:RTT or RATE:RTT:JITTER, such as 200mbit:10ms",
        ),
        (&["--models", "lenet", "--network", "lan", "--engine", "cleartext"], 2, "cleartext sends nothing"),
        (&["--models", "none.onnx"], 3, "none.onnx"),
        (&["--models", "lenet", "--kernels", "gemm"], 2, "--kernels belongs to --exp kernels"),
        (&["--exp", "kernels", "--models", "lenet"], 2, "leave out --models, or take --exp inference"),
        (&["--exp", "kernels", "--predict"], 2, "leave out --predict"),
        (&["--exp", "kernels", "--engine", "cleartext"], 2, "leave out --engine"),
        (&["--models", "lenet", "--predict", "--engine", "cleartext"], 2, "--predict: the engine cleartext"),
        (
            &["--exp", "kernels", "--kernels", "gem"],
            2,
            "possible values: gemm, conv, prg, memory, gates, fss, tls",
        ),
    ];
    for (args, expected, message) in cases {
        let (code, stdout, stderr) = output(privet(home.path()).arg("bench").args(args));
        assert_eq!((code, stdout.as_str()), (Some(expected), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}

#[test]
fn the_deadline_is_5_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "--models", "vgg16", "--deadline", "1"];
    let (code, stdout, stderr) = finish(privet(home.path()).args(args).spawn().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(5), ""), "{stderr}");
    assert!(stderr.contains("not done within 1 s"), "{stderr}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

/// A child of `parent` whose arguments have `words`, once there is one.
#[cfg(target_os = "linux")]
fn child(parent: &mut Child, words: &[&str]) -> Pid {
    loop {
        let threads = fs::read_dir(format!("/proc/{}/task", parent.id())).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        for pid in children.collect::<String>().split_whitespace() {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if words.iter().all(|word| line.split('\0').any(|argument| argument == *word)) {
                return Pid::from_raw(pid.parse().unwrap());
            }
        }
        assert!(parent.try_wait().unwrap().is_none(), "it has ended, and no {words:?} was ever seen");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_party_that_is_killed_ends_the_run_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let args = ["bench", "--models", "lenet", "--iterations", "40", "--json"];
    let mut bench = privet(home.path()).args(args).spawn().unwrap();
    kill(child(&mut bench, &["server", "offline", "40"]), Signal::SIGKILL).unwrap();
    let (code, stdout, stderr) = finish(bench);
    assert!(matches!(code, Some(1 | 4)), "{code:?} {stderr}");
    assert_eq!(stdout, "");
    assert!(stderr.contains("a party failed") && stderr.contains("server (signal: 9"), "{stderr}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "keys and shares are gone");
}
