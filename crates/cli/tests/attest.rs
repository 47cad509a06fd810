//! `privet attest verify`: exit codes, lines, JSON, and that development evidence takes a flag and is called what it is.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{output, privet};
use privet::attest::sample::{AllowSampleInsecure, SampleAttester};
use privet::attest::{Attester, Binding};
use serde_json::Value;

type Outcome = (Option<i32>, String, String);

fn verify(home: &Path, args: &[&str]) -> Outcome {
    output(privet(home).args(["attest", "verify"]).args(args))
}

/// The directory of foreign evidence, or `None`, said loudly.
fn foreign() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/evidence");
    if !dir.is_dir() {
        eprintln!("SKIPPED: no attestation evidence in {}", dir.display());
        return None;
    }
    Some(dir.canonicalize().unwrap())
}

/// With the paths of files in `dir` where an argument starts with `@`.
fn verify_foreign(dir: &Path, home: &Path, args: &str) -> Outcome {
    let args: Vec<String> = args
        .split(' ')
        .map(|arg| arg.strip_prefix('@').map_or(arg.to_owned(), |name| dir.join(name).display().to_string()))
        .collect();
    verify(home, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

const SGX: &str = "@sgx/sgx_quote --collateral @sgx/sgx_quote_collateral.json";
const JULY: &str = "--at 2025-07-01";

#[test]
fn foreign_evidence_gives_the_verdicts_of_its_readme() {
    let Some(dir) = foreign() else { return };
    let home = tempfile::tempdir().unwrap();
    let tdx = "@tdx/tdx_quote --collateral @tdx/tdx_quote_collateral.json";
    let outdated = "@tdx/tdx_quote_outdated --collateral @tdx/tdx_quote_outdated_collateral.json";
    let vlek = "@snp/test-vlek-report.bin --cert @snp/test-vlek.der --cert @snp/milan_ask_ark_asvk.pem";
    let cases = [
        (format!("{SGX} {JULY}"), 0, "INTEL-SA-00289, INTEL-SA-00615"),
        (format!("{SGX} --at 1748736000"), 4, "in the future"),
        (format!("{SGX} --at 2025-09-01T12:00:00Z"), 4, "xpired"),
        (SGX.to_owned(), 4, "xpired"),
        (format!("@sgx/sgx_quote {JULY}"), 3, "collateral is missing"),
        (format!("{tdx} {JULY}"), 0, "UpToDate"),
        (format!("{outdated} --at 2026-03-01"), 4, "No matching TCB level"),
        (
            format!("@snp/report_milan.hex --cert @snp/vcek_milan.der {JULY}"),
            0,
            "SEV-VCEK -> SEV-Milan -> ARK-Milan",
        ),
        (format!("@snp/test-report.bin --cert @snp/test-vcek.der {JULY}"), 0, "microcode 115"),
        (
            format!("@snp/test-report.bin --cert @snp/test-vcek-invalid-new.der {JULY}"),
            4,
            "certificate chain",
        ),
        (
            format!("@snp/test-report.bin --cert @snp/test-vcek-invalid-legacy.der {JULY}"),
            4,
            "certificate chain",
        ),
        (format!("@snp/test-report.bin {JULY}"), 3, "SEV-VCEK"),
        (format!("{vlek} {JULY}"), 0, "amazonaws"),
        (format!("{vlek} --at 2026-11-30"), 4, "expired 2025-12-10"),
        ("@ra-tls/gramine-cert.pem --at 2023-02-22T17:00:00Z".to_owned(), 3, "collateral is missing"),
        (
            "@ra-tls/intel-sgxsdk-cert.pem --at 2023-02-22T17:00:00Z".to_owned(),
            3,
            "SGX, 4600 bytes of quote or report, no nonce",
        ),
        (format!("@ra-tls/rats-tls-cert.pem {JULY}"), 4, "expired"),
    ];
    for (args, expected, text) in cases {
        let (code, stdout, stderr) = verify_foreign(&dir, home.path(), &args);
        assert_eq!(code, Some(expected), "{args}: {stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains(text), "{args}: expected {text:?} in: {stdout}{stderr}");
        assert_eq!(stdout.contains("REFUSED"), expected == 4, "{args}: {stdout}");
    }
}

#[test]
fn json_is_one_line_with_every_check() {
    let Some(dir) = foreign() else { return };
    let home = tempfile::tempdir().unwrap();
    let policy = home.path().join("policy.toml");
    fs::write(&policy, format!("version = 1\n[sgx]\nmrenclave = [\"{}\"]\n", "00".repeat(32))).unwrap();
    let args = format!("{SGX} {JULY} --json --policy {}", policy.display());
    let (code, stdout, stderr) = verify_foreign(&dir, home.path(), &args);
    assert_eq!(code, Some(4), "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&found["authentic"], &found["accepted"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(found["claims"]["tcb_status"], "ConfigurationAndSWHardeningNeeded");
    let refused: Vec<&str> = found["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["passed"] == false)
        .map(|line| line["check"].as_str().unwrap())
        .collect();
    assert_eq!(refused[..3], ["mrenclave", "TCB status", "advisories"]);

    // What was found makes a policy that accepts.
    let mrenclave = found["claims"]["identity"]["sgx"]["mrenclave"].as_str().unwrap();
    let text = format!(
        "version = 1\n[sgx]\nmrenclave = [\"{mrenclave}\"]\n[sgx.tcb]\nstatuses = [\"ConfigurationAndSWHardeningNeeded\"]\n\
         advisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]\nallow_smt = true\nallow_dynamic_platform = true\nallow_cached_keys = true\n"
    );
    fs::write(&policy, text).unwrap();
    let (code, stdout, stderr) = verify_foreign(&dir, home.path(), &args);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["accepted"], true);
}

#[test]
fn nonsense_is_3_and_says_what_was_expected() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let (quote, report) = (file("quote", &[3, 0, 2, 0, 0, 0, 0, 0].repeat(100)), file("report", &[2; 1184]));
    let policy = file("policy.toml", b"version = 1\n[sgx]\nmrenclaves = []\n");
    let huge = file("huge", &vec![0; 5 << 20]);
    let empty = file("empty", b"");
    let der = file("cert.der", &[0x30, 0x82, 0xff, 0xff, 0x30]);
    let cases: [(&[&str], &str); 10] = [
        (&["absent"], "absent: there is no such file"),
        (&[&empty], "expected a quote of SGX"),
        (&[&file("text", b"hello")], "expected a quote of SGX"),
        (&[&huge], "more than"),
        (&[&der], "malformed certificate"),
        (
            &[&file("x.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")],
            "malformed certificate",
        ),
        (&[&file("evidence", b"PRIVEVID\x09\x00")], "version 9"),
        (&[&quote, "--policy", &policy], "unknown field `mrenclaves`"),
        (&[&quote, "--collateral", &empty], "malformed"),
        (&[&report, "--cert", &empty], "malformed certificate file"),
    ];
    for (args, text) in cases {
        let (code, _, stderr) = verify(home.path(), args);
        assert_eq!(code, Some(3), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: expected {text:?} in {stderr}");
    }
    let (code, _, stderr) = verify(home.path(), &[&quote, "--at", "yesterday"]);
    assert!(code == Some(2) && stderr.contains("2025-07-01T00:00:00Z"), "{stderr}");
}

/// Development evidence is refused without the flag, needs a policy that says the word, and is called INSECURE everywhere.
#[test]
fn sample_takes_a_flag_and_a_policy_that_says_so() {
    let home = tempfile::tempdir().unwrap();
    let allow = AllowSampleInsecure::from_flag(true).unwrap();
    let binding = Binding::new(b"a key", Some(b"a nonce")).unwrap();
    let evidence = SampleAttester::new(allow, [5; 32]).evidence(&binding.report_data()).unwrap();
    let (file, policy) = (home.path().join("evidence"), home.path().join("policy.toml"));
    fs::write(&file, evidence.encode()).unwrap();
    let (file, policy_path) = (file.to_str().unwrap(), policy.to_str().unwrap());

    let (code, stdout, stderr) = verify(home.path(), &[file]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(
        stderr.contains("--allow-sample-insecure") && stdout.contains("sample, INSECURE"),
        "{stdout}{stderr}"
    );

    let (code, stdout, _) = verify(home.path(), &[file, "--allow-sample-insecure"]);
    assert_eq!(code, Some(0));
    assert!(stdout.lines().last().unwrap().contains("sample, INSECURE: it proves nothing"), "{stdout}");

    let rules =
        |allowed: &str| format!("version = 1\n[sample]\nmeasurement = [\"{}\"]\n{allowed}", "05".repeat(32));
    let with_policy = [file, "--allow-sample-insecure", "--policy", policy_path, "--json"];
    fs::write(&policy, rules("")).unwrap();
    let (code, _, stderr) = verify(home.path(), &with_policy);
    assert!(code == Some(3) && stderr.contains("allow_sample_insecure = true"), "{stderr}");
    fs::write(&policy, rules("allow_sample_insecure = true\n")).unwrap();
    let (code, stdout, _) = verify(home.path(), &with_policy);
    assert_eq!(code, Some(0), "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&found["evidence"], &found["accepted"]), (&"sample, INSECURE".into(), &Value::Bool(true)));
    assert_eq!(found["claims"]["tee"], "sample, INSECURE");
    assert!(found["claims"]["identity"]["sample, INSECURE"].is_object(), "{stdout}");
    assert_eq!(found["lints"][0]["severity"], "insecure");
    fs::write(&policy, format!("version = 1\n[sgx]\nmrenclave = [\"{}\"]\n", "05".repeat(32))).unwrap();
    let (code, ..) = verify(home.path(), &with_policy);
    assert_eq!(code, Some(4), "a policy of real hardware");
}
