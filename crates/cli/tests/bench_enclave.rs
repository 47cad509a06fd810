//! `privet bench --exp enclave`: its files, rows and page on small models.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn privet(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_privet")).current_dir(home).args(words).output().unwrap()
}

/// Lines of a CSV file by column names.
fn rows(path: &Path) -> Vec<std::collections::BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let values: Vec<&str> = line.split(',').collect();
        assert_eq!(values.len(), header.len(), "{}: {line}", path.display());
        header.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect()
    };
    lines.map(row).collect()
}

#[test]
fn every_variant_has_rows_and_charts() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let words = [
        "bench",
        "--exp",
        "enclave",
        "--models",
        "lenet,mobilenet-v3-small",
        "--parts",
        "1,3,1000",
        "--iterations",
        "2",
        "--seconds",
        "0",
        "--out",
        "out",
        "--json",
        "--allow-sample-insecure",
    ];
    let output = privet(home, &words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("lenet: has not 1000 places to cut"), "{stderr}");
    let said: Vec<Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let out = home.join("out");
    let summary = rows(&out.join("summary.csv"));
    assert_eq!(summary.len(), said.len(), "--json has the rows of summary.csv");
    let number = |row: &std::collections::BTreeMap<String, String>, name: &str| -> f64 {
        row[name].parse().unwrap_or_else(|_| panic!("{name} of {row:?}"))
    };
    for model in ["lenet", "mobilenet-v3-small"] {
        let own: Vec<_> = summary.iter().filter(|row| row["model"] == model).collect();
        let variants: Vec<(&str, &str)> =
            own.iter().map(|r| (r["variant"].as_str(), r["parts"].as_str())).collect();
        for expected in [
            ("native", "1"),
            ("worker", "1"),
            ("stages", "1"),
            ("stages", "3"),
            ("sealed", "1"),
            ("sealed", "3"),
            ("split-worker", "3"),
        ] {
            assert!(variants.contains(&expected), "{expected:?} of {variants:?}");
        }
        for row in own {
            let backend = if row["variant"].ends_with("worker") { "sample-INSECURE" } else { "native" };
            assert!(number(row, "n") >= 2.0 && row["backend"] == backend, "{row:?}");
            assert!(
                number(row, "compute_s_median") > 0.0
                    && number(row, "compute_s_p95") >= number(row, "compute_s_median")
            );
            assert!(number(row, "total_s_median") >= number(row, "compute_s_median"), "{row:?}");
            let is_sealed = ["sealed", "worker", "split-worker"].contains(&row["variant"].as_str());
            let decrypt = row["decrypt_s_median"].parse::<f64>().ok();
            assert_eq!(decrypt.is_some_and(|seconds| seconds > 0.0), is_sealed, "{row:?}");
            assert!(model == "lenet" || number(row, "peak_rss_bytes") > f64::from(1 << 20), "{row:?}");
            assert!(number(row, "cpu_s") >= 0.0);
        }
        let times = rows(&out.join(format!("{model}.csv")));
        for name in [
            "Time",
            "Cpu_Utilization",
            "Memory_Footprint",
            "Cpu_Util_NOSGX",
            "Mem_F_NOSGX",
            "Power_Time",
            "Power_Consumption",
        ] {
            assert!(!times.is_empty() && times.iter().all(|row| row.contains_key(name)), "{name}");
        }
        assert_eq!(times[0]["Backend"], "sample-INSECURE");
        // Of a process that lasts some milliseconds nothing may be seen.
        if model != "lenet" {
            assert!(number(&times[0], "Mem_F_NOSGX") > f64::from(1 << 20));
            assert!(number(&times[0], "Memory_Footprint") > f64::from(1 << 20));
        }
    }
    let stages = rows(&out.join("stages.csv"));
    assert_eq!(
        stages
            .iter()
            .filter(|r| r["model"] == "lenet" && r["variant"] == "stages" && r["parts"] == "3")
            .count(),
        3
    );
    let decrypted = |variant: &str| {
        let own = stages.iter().filter(|row| row["variant"] == variant);
        own.map(|row| row["decrypt_s"].parse::<f64>().ok()).collect::<Vec<_>>()
    };
    assert!(decrypted("sealed").iter().all(|seconds| seconds.is_some_and(|s| s > 0.0)), "{stages:?}");
    assert!(decrypted("stages").iter().all(Option::is_none), "nothing is sealed");
    assert!(rows(&out.join("samples.csv")).iter().all(|row| !row["backend"].is_empty()));
    let page = fs::read_to_string(out.join("index.html")).unwrap();
    assert!(
        !page.contains("http://") && !page.contains("https://") && !page.contains("<script"),
        "nothing is loaded"
    );
    let names: Vec<&str> =
        page.split("<img src=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let svg = fs::read_to_string(out.join(name)).unwrap();
        assert!(svg.starts_with("<svg"), "{name}");
        let png = fs::read(out.join(name.replace(".svg", ".png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
    }
}

#[test]
fn what_does_not_belong_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let refuse = |words: &[&str], with: &str| {
        let output = privet(home, &[&["bench"], words].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(error.contains(with), "{words:?}: {error}");
    };
    refuse(&["--models", "lenet", "--parts", "2"], "belong to --exp enclave");
    refuse(&["--models", "lenet", "--allow-sample-insecure"], "belong to --exp enclave");
    refuse(&["--exp", "enclave", "--ring", "40"], "--ring does not belong");
    refuse(&["--exp", "enclave", "--parts", "0"], "1 to 10000");
    refuse(&["--exp", "enclave", "--models", "nonsense"], "no model");
}
