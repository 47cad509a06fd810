//! Every unsafe habit is named, on its line; what is safe is not.

use privet_manifest::{Finding, MAX_MANIFEST_BYTES, Severity, lint};

const UNSAFE: &str = include_str!("unsafe.manifest.template");

/// The line that begins with a text, from 1.
fn line(of: &str) -> usize {
    let found = UNSAFE.lines().position(|l| l.trim_start().starts_with(of));
    found.unwrap_or_else(|| panic!("no line {of}")) + 1
}

fn has(found: &[Finding], line: usize, rule: &str, severity: Severity) {
    let own: Vec<&Finding> = found.iter().filter(|f| f.line == line).collect();
    assert!(
        own.iter().any(|f| f.rule == rule && f.severity == severity),
        "{rule} ({severity:?}) is not among what is found on line {line}: {own:?}"
    );
}

#[test]
fn every_habit_is_named_on_its_line() {
    use Severity::{Insecure, Note, Weak};
    let found = lint(UNSAFE).unwrap();
    let expected = [
        ("loader.entrypoint", "old-option", Weak),
        ("loader.log_level", "logging", Insecure),
        ("loader.log_file", "logging", Weak),
        ("loader.insecure__use_cmdline_argv", "host-argv", Insecure),
        ("loader.insecure__use_host_env", "host-environment", Insecure),
        ("loader.insecure__disable_aslr", "no-aslr", Insecure),
        ("loader.env.HOME", "host-environment", Insecure),
        ("loader.env_src_file", "host-file", Insecure),
        ("loader.pal_internal_mem_size", "old-option", Weak),
        ("libos.check_invalid_pointers", "unchecked-pointers", Weak),
        ("fs.root.uri", "host-root", Weak),
        ("{ path = \"/models\"", "relative-path", Weak),
        ("{ path = \"/models\"", "host-directory", Note),
        ("{ path = \"/keys\"", "relative-path", Weak),
        ("{ path = \"/keys\"", "untrusted-mount", Note),
        ("{ type = \"encrypted\", path = \"/plain\"", "provisioned-key", Note),
        ("{ type = \"encrypted\", path = \"/a\"", "enclave-key", Note),
        ("{ type = \"encrypted\", path = \"/b\"", "signer-key", Note),
        ("{ type = \"untrusted_shm\"", "shared-memory", Insecure),
        ("{ type = \"overlay\"", "wrong-type", Weak),
        ("{ type = \"overlay\"", "wrong-place", Weak),
        ("fs.insecure__keys", "key-in-manifest", Insecure),
        ("sys.insecure__allow_eventfd", "host-eventfd", Insecure),
        ("sys.enable_sigterm_injection", "sigterm", Note),
        ("sys.enable_extra", "host-names", Note),
        ("sys.experimental__enable_flock", "experimental", Weak),
        ("sys.debug__mock_syscalls", "mocked-calls", Weak),
        ("sys.allowed_ioctls", "ioctls", Weak),
        ("sgx.debug", "debug", Insecure),
        ("sgx.enclave_size", "no-size", Weak),
        ("sgx.thread_num", "no-threads", Weak),
        ("sgx.thread_num", "old-option", Weak),
        ("sgx.enable_stats", "statistics", Insecure),
        ("sgx.profile.enable", "profiling", Insecure),
        ("sgx.vtune_profile", "profiling", Insecure),
        ("sgx.use_exinfo", "exinfo", Note),
        ("sgx.remote_attestation", "no-attestation", Insecure),
        ("sgx.seal_key.flags_mask", "seal-mask", Weak),
        ("sgx.insecure__rpc_thread_num", "exitless", Insecure),
        ("sgx.insecure__allow_memfaults", "injected-faults", Insecure),
        ("sgx.insecure__something_new", "insecure-option", Insecure),
        ("sgx.insecure__something_new", "unknown-option", Weak),
        ("sgx.insecure__protected_files_key", "key-in-manifest", Insecure),
        ("sgx.protected_files", "old-option", Insecure),
        ("sgx.ra_client_spid", "old-option", Weak),
        ("sgx.file_check_polcy", "unknown-option", Weak),
        ("sgx.file_check_policy", "file-check-policy", Insecure),
        ("sgx.max_thread =", "unknown-option", Weak),
        ("sgx.isvsvn", "wrong-type", Weak),
        ("\"file:{{ gramine.runtimedir() }}/\"", "trusted-directory", Weak),
        ("\"file:model.py\"", "unhashed", Weak),
        ("\"file:model.py\"", "relative-path", Weak),
        ("\"https:", "wrong-place", Weak),
        ("{ uri = \"file:/opt/a\"", "unhashed", Insecure),
        ("7,", "wrong-type", Weak),
        ("\"file:results.csv\"", "allowed-file", Insecure),
    ];
    for (start, rule, severity) in expected {
        has(&found, line(start), rule, severity);
    }
    // The second of two hashes, and the second of two lines that begin alike.
    has(&found, line("{ uri = \"file:/opt/b\"") + 1, "two-hashes", Insecure);
    has(&found, line("\"file:results.csv\"") + 1, "allowed-file", Insecure);
    has(&found, 0, "no-tmpfs", Weak);
    has(&found, 0, "subprocesses", Note);
    has(&found, 1, "template", Note);
    // Lines in order, and nothing twice.
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
    let misspelt = found.iter().find(|f| f.key == "sgx.file_check_polcy").unwrap();
    assert!(misspelt.message.contains("a misspelt sgx.file_check_policy"), "{}", misspelt.message);
}

#[test]
fn what_is_left_out_is_named() {
    let found = lint("").unwrap();
    for rule in [
        "no-trusted-files",
        "no-attestation",
        "no-size",
        "no-threads",
        "no-entrypoint",
        "no-argv",
        "host-root",
        "no-tmpfs",
        "subprocesses",
        "no-security-version",
    ] {
        assert!(found.iter().any(|f| f.rule == rule && f.line == 0), "{rule}: {found:?}");
    }
}

#[test]
fn older_tables_of_files_are_understood() {
    let text = "[sgx.allowed_files]\nx = \"file:x\"\n[sgx.trusted_files]\ny = \"file:y\"\n";
    let found = lint(text).unwrap();
    has(&found, 2, "allowed-file", Severity::Insecure);
    assert!(found.iter().any(|f| f.key == "sgx.trusted_files" && f.rule == "old-option"), "{found:?}");
    let found = lint("sgx.remote_attestation = true\nsgx.edmm_enable = true\nsgx.preheat_enclave = true\nsgx.max_threads = 1\n").unwrap();
    has(&found, 1, "old-option", Severity::Weak);
    has(&found, 3, "no-size", Severity::Weak);
    assert!(!found.iter().any(|f| f.rule == "no-threads"), "with EDMM there is no limit: {found:?}");
}

#[test]
fn the_program_has_to_be_trusted() {
    let text = |trusted: &str| {
        format!(
            "libos.entrypoint = \"/bin/a\"\nfs.root.type = \"tmpfs\"\nfs.mounts = [{{ path = \"/bin\", uri = \"file:/opt/bin\" }}]\nsgx.trusted_files = [{{ uri = \"{trusted}\", sha256 = \"{}\" }}]\n",
            "0".repeat(64)
        )
    };
    let is_named =
        |trusted: &str| lint(&text(trusted)).unwrap().iter().any(|f| f.rule == "untrusted-entrypoint");
    assert!(!is_named("file:/opt/bin/a"));
    assert!(is_named("file:/opt/bin/b"));
}

#[test]
fn what_is_no_manifest_is_refused_with_its_line() {
    let error = lint("sgx.debug = false\nsgx = 1\n").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
    let large = "#".repeat(MAX_MANIFEST_BYTES + 1);
    assert!(lint(&large).is_err());
    // As deep as the parser goes, and not deeper.
    assert!(lint(&format!("a = {}", "[".repeat(100_000))).is_err());
}
