//! What switches protection off, and what is left out.

use super::document::{Document, Value};
use super::{Findings, Severity};
use crate::size;

use Severity::{Insecure, Note, Weak};

/// Options that are unsafe when they are true.
const SWITCHES: &[(&str, Severity, &str, &str)] = &[
    (
        "loader.insecure__use_cmdline_argv",
        Insecure,
        "host-argv",
        "the host chooses the arguments of the program, and with them files, addresses and keys; write them into loader.argv",
    ),
    (
        "loader.insecure__use_host_env",
        Insecure,
        "host-environment",
        "all variables of the host reach the program, LD_PRELOAD and those of its libraries as well; set what it needs by loader.env.NAME",
    ),
    (
        "loader.insecure__disable_aslr",
        Insecure,
        "no-aslr",
        "everything lies where the host expects it, which makes a fault of the program easier to use; leave it out",
    ),
    (
        "sgx.debug",
        Insecure,
        "debug",
        "the host can read and change all memory of a debug enclave: it protects nothing, and verifiers refuse its evidence; set false",
    ),
    (
        "sgx.enable_stats",
        Insecure,
        "statistics",
        "lets the host profile the threads of the enclave, and works in debug enclaves only; leave it out",
    ),
    (
        "sgx.vtune_profile",
        Insecure,
        "profiling",
        "lets the host profile the enclave, and works in debug enclaves only; leave it out",
    ),
    (
        "sgx.insecure__allow_memfaults_without_exinfo",
        Insecure,
        "injected-faults",
        "the host can make the program handle faults that never happened; leave it out",
    ),
    (
        "sys.insecure__allow_eventfd",
        Insecure,
        "host-eventfd",
        "events between threads then go through the host, which can invent and withhold them; Gramine has its own within a process: leave it out",
    ),
    (
        "sys.experimental__enable_flock",
        Weak,
        "experimental",
        "a system call that Gramine calls experimental and possibly vulnerable; use fcntl locks, or leave it out",
    ),
    (
        "sys.enable_sigterm_injection",
        Note,
        "sigterm",
        "the host can send SIGTERM at any moment, once: the program's handler has to be safe at every one",
    ),
    (
        "sys.enable_extra_runtime_domain_names_conf",
        Note,
        "host-names",
        "the host says which address a name has: connections are safe only if the peer proves who it is, as by a pinned certificate",
    ),
    (
        "sgx.use_exinfo",
        Note,
        "exinfo",
        "addresses of faults reach handlers; some of them print registers and stacks",
    ),
    (
        "fs.root.enable_recovery",
        Note,
        "recovery",
        "Gramine keeps a log beside the encrypted files, and rolls back to older contents after a crash",
    ),
];

pub(super) fn check(document: &Document, findings: &mut Findings) {
    for (key, severity, rule, message) in SWITCHES {
        if let Some(line) = document.is_true(key) {
            findings.add(line, *key, *severity, rule, *message);
        }
    }
    any_other_insecure(document, findings);
    arguments(document, findings);
    environment(document, findings);
    logging(document, findings);
    attestation(document, findings);
    sizes(document, findings);
    system(document, findings);
}

/// Gramine calls by this name whatever is unsafe: also what this lint does not know.
fn any_other_insecure(document: &Document, findings: &mut Findings) {
    for section in ["fs", "libos", "loader", "sgx", "sys"] {
        for option in document.table(section) {
            let key = format!("{section}.{}", option.name);
            let is_explained = SWITCHES.iter().any(|(name, ..)| *name == key)
                || key == "fs.insecure__keys"
                || key == "sgx.insecure__rpc_thread_num"
                || key == "sgx.insecure__protected_files_key";
            let is_off = matches!(option.value, Value::Flag(false) | Value::Number(0));
            if option.name.starts_with("insecure__") && !is_explained && !is_off {
                let message = "Gramine itself calls this option insecure; leave it out";
                findings.add(option.line, key, Insecure, "insecure-option", message);
            }
        }
    }
    if let Some(option) = document.get("sgx.insecure__rpc_thread_num")
        && option.value != Value::Number(0)
    {
        let message = "system calls then go through memory that the host changes at will (CVE-2022-21233, CVE-2022-21166); leave it out";
        findings.add(option.line, "sgx.insecure__rpc_thread_num", Insecure, "exitless", message);
    }
    for option in document.table("fs.insecure__keys") {
        let key = format!("fs.insecure__keys.{}", option.name);
        let message = "a key in the manifest, which everyone can read; have it provisioned after attestation, or use _sgx_mrenclave";
        findings.add(option.line, key, Insecure, "key-in-manifest", message);
    }
    if let Some(option) = document.get("sgx.insecure__protected_files_key") {
        let message = "a key in the manifest, which everyone can read; have it provisioned after attestation";
        findings.add(option.line, "sgx.insecure__protected_files_key", Insecure, "key-in-manifest", message);
    }
}

fn arguments(document: &Document, findings: &mut Findings) {
    let given = ["loader.argv", "loader.argv_src_file", "loader.insecure__use_cmdline_argv"];
    if given.iter().all(|key| document.get(key).is_none()) {
        let message = "no arguments are given: the program gets its own name alone; say so with loader.argv";
        findings.add(0, "loader.argv", Note, "no-argv", message);
    }
    if document.get("libos.entrypoint").is_none() {
        let message = "the program is missing; Gramine refuses the manifest";
        findings.add(0, "libos.entrypoint", Weak, "no-entrypoint", message);
    }
}

fn environment(document: &Document, findings: &mut Findings) {
    for option in document.table("loader.env") {
        let key = format!("loader.env.{}", option.name);
        let Value::Table(fields) = &option.value else { continue };
        if let Some(field) = fields.iter().find(|f| f.name == "passthrough") {
            let message = "the host chooses the value of this variable; give it one here";
            findings.add(field.line, key, Insecure, "host-environment", message);
        }
    }
}

fn logging(document: &Document, findings: &mut Findings) {
    if let Some((line, level)) = document.text("loader.log_level")
        && matches!(level, "warning" | "debug" | "trace" | "all")
    {
        let message = format!(
            "{level} messages tell the host what the program does, arguments of system calls included; set \"error\""
        );
        let severity = if level == "warning" { Weak } else { Insecure };
        findings.add(line, "loader.log_level", severity, "logging", message);
    }
    if let Some((line, _)) = document.text("loader.log_file") {
        let message = "Gramine appends to a file of the host, outside of all protection; leave it out";
        findings.add(line, "loader.log_file", Weak, "logging", message);
    }
}

fn attestation(document: &Document, findings: &mut Findings) {
    let key = "sgx.remote_attestation";
    match document.get(key).map(|option| (option.line, &option.value)) {
        None => {
            let message = "nobody can verify what runs, so no key can be released to it; set \"dcap\"";
            findings.add(0, key, Insecure, "no-attestation", message);
        }
        Some((line, Value::Text(kind))) if kind == "none" => {
            let message = "nobody can verify what runs, so no key can be released to it; set \"dcap\"";
            findings.add(line, key, Insecure, "no-attestation", message);
        }
        Some((line, Value::Text(kind))) if kind == "epid" => {
            let message =
                "attestation by EPID is discontinued, and Gramine 1.9 does not have it; set \"dcap\"";
            findings.add(line, key, Weak, "no-attestation", message);
        }
        Some((line, Value::Flag(_))) => {
            let message = "true and false are of older versions; set \"dcap\"";
            findings.add(line, key, Weak, "old-option", message);
        }
        Some(_) => {}
    }
    if document.get("sgx.isvsvn").is_none_or(|option| option.value == Value::Number(0)) {
        let line = document.get("sgx.isvsvn").map_or(0, |option| option.line);
        let message = "the security version is 0: a policy that names the signer cannot tell a repaired program from the one before";
        findings.add(line, "sgx.isvsvn", Note, "no-security-version", message);
    }
    for mask in ["flags_mask", "xfrm_mask", "misc_mask"] {
        let key = format!("sgx.seal_key.{mask}");
        if let Some(option) = document.get(&key) {
            let message = "sealing keys then are the same for enclaves that differ in what the mask leaves out, such as debug; leave it out";
            findings.add(option.line, key, Weak, "seal-mask", message);
        }
    }
    if let Some((line, mode)) = document.text("sgx.profile.enable")
        && mode != "none"
    {
        let message = "lets the host profile the enclave, and works in debug enclaves only; leave it out";
        findings.add(line, "sgx.profile.enable", Insecure, "profiling", message);
    }
}

fn sizes(document: &Document, findings: &mut Findings) {
    let is_edmm = document.is_true("sgx.edmm_enable").is_some();
    let key = "sgx.enclave_size";
    match document.get(key) {
        None if is_edmm => {
            let message = "the enclave may grow to 1 TB; say how much it needs";
            findings.add(0, key, Weak, "no-size", message);
        }
        None => {
            let message = "the default of 256 MB is used, whatever the program needs; say how much that is";
            findings.add(0, key, Weak, "no-size", message);
        }
        Some(option) if option.value.is_place() => {}
        Some(option) => match option.value.text().and_then(size::parse) {
            None => {
                let message = "expected a size such as \"512M\"; Gramine refuses this one";
                findings.add(option.line, key, Weak, "no-size", message);
            }
            Some(bytes) if !bytes.is_power_of_two() => {
                let message = "SGX takes powers of two only";
                findings.add(option.line, key, Weak, "no-size", message);
            }
            Some(_) => {}
        },
    }
    let key = "sgx.max_threads";
    let given = document.get(key).or_else(|| document.get("sgx.thread_num"));
    match given.map(|option| (option.line, &option.value)) {
        None => {
            let message = "the default of 4 is used up by Gramine's own threads: a program with a second one stops where it starts it";
            findings.add(0, key, Weak, "no-threads", message);
        }
        Some((line, Value::Number(threads))) if !is_edmm && *threads < 4 => {
            let message = format!(
                "Gramine itself uses up to four threads, of which {threads} leave no room; set at least 4 and one for each further thread"
            );
            findings.add(line, key, Weak, "no-threads", message);
        }
        Some(_) => {}
    }
    if let (true, Some(line)) = (is_edmm, document.is_true("sgx.preheat_enclave")) {
        let message = "there is nothing to pre-fault with sgx.edmm_enable; Gramine refuses both";
        findings.add(line, "sgx.preheat_enclave", Weak, "no-size", message);
    }
}

fn system(document: &Document, findings: &mut Findings) {
    if document.is_true("sys.disallow_subprocesses").is_none() {
        let line = document.get("sys.disallow_subprocesses").map_or(0, |option| option.line);
        let message =
            "the program may start others, each an enclave of the same size; set true where it starts none";
        findings.add(line, "sys.disallow_subprocesses", Note, "subprocesses", message);
    }
    if let Some(option) = document.get("libos.check_invalid_pointers")
        && option.value == Value::Flag(false)
    {
        let message =
            "pointers of system calls are not checked: a wrong one ends the program, or worse; leave it out";
        findings.add(option.line, "libos.check_invalid_pointers", Weak, "unchecked-pointers", message);
    }
    if let Some(option) = document.get("sys.debug__mock_syscalls") {
        let message = "system calls that pretend to have worked break programs in silent ways, locks for instance; for debugging only";
        findings.add(option.line, "sys.debug__mock_syscalls", Weak, "mocked-calls", message);
    }
    for key in ["sys.allowed_ioctls", "sgx.allowed_ioctls"] {
        if let Some(option) = document.get(key) {
            let message = "these requests go to the host as they are, with what they carry, and the host changes what comes back";
            findings.add(option.line, key, Weak, "ioctls", message);
        }
    }
}
