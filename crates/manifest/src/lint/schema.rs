//! Options that Gramine 1.9 does not know, or knows by another name or type.

use super::document::{Document, Option_, Value};
use super::{Findings, Severity};

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
    List,
    /// With names that the user chooses.
    Open,
}

/// All options but `fs.mounts` entries and what users name.
const KNOWN: &[(&str, Kind)] = &[
    ("fs.insecure__keys", Kind::Open),
    ("fs.mounts", Kind::List),
    ("fs.root.enable_recovery", Kind::Flag),
    ("fs.root.key_name", Kind::Text),
    ("fs.root.type", Kind::Text),
    ("fs.root.uri", Kind::Text),
    ("fs.start_dir", Kind::Text),
    ("libos.check_invalid_pointers", Kind::Flag),
    ("libos.entrypoint", Kind::Text),
    ("loader.argv", Kind::List),
    ("loader.argv_src_file", Kind::Text),
    ("loader.entrypoint.sha256", Kind::Text),
    ("loader.entrypoint.uri", Kind::Text),
    ("loader.env", Kind::Open),
    ("loader.env_src_file", Kind::Text),
    ("loader.gid", Kind::Number),
    ("loader.insecure__disable_aslr", Kind::Flag),
    ("loader.insecure__use_cmdline_argv", Kind::Flag),
    ("loader.insecure__use_host_env", Kind::Flag),
    ("loader.log_file", Kind::Text),
    ("loader.log_level", Kind::Text),
    ("loader.uid", Kind::Number),
    ("sgx.allowed_files", Kind::List),
    ("sgx.cpu_features.amx", Kind::Text),
    ("sgx.cpu_features.avx", Kind::Text),
    ("sgx.cpu_features.avx512", Kind::Text),
    ("sgx.cpu_features.mpx", Kind::Text),
    ("sgx.cpu_features.pkru", Kind::Text),
    ("sgx.debug", Kind::Flag),
    ("sgx.edmm_enable", Kind::Flag),
    ("sgx.enable_stats", Kind::Flag),
    ("sgx.enclave_size", Kind::Text),
    ("sgx.file_check_policy", Kind::Text),
    ("sgx.insecure__allow_memfaults_without_exinfo", Kind::Flag),
    ("sgx.insecure__rpc_thread_num", Kind::Number),
    ("sgx.isvprodid", Kind::Number),
    ("sgx.isvsvn", Kind::Number),
    ("sgx.max_threads", Kind::Number),
    ("sgx.preheat_enclave", Kind::Flag),
    ("sgx.profile.enable", Kind::Text),
    ("sgx.profile.frequency", Kind::Number),
    ("sgx.profile.mode", Kind::Text),
    ("sgx.profile.with_stack", Kind::Flag),
    ("sgx.remote_attestation", Kind::Text),
    ("sgx.seal_key.flags_mask", Kind::Text),
    ("sgx.seal_key.misc_mask", Kind::Text),
    ("sgx.seal_key.xfrm_mask", Kind::Text),
    ("sgx.trusted_files", Kind::List),
    ("sgx.use_exinfo", Kind::Flag),
    ("sgx.vtune_profile", Kind::Flag),
    ("sys.allowed_ioctls", Kind::List),
    ("sys.brk.max_size", Kind::Text),
    ("sys.debug__mock_syscalls", Kind::List),
    ("sys.disallow_subprocesses", Kind::Flag),
    ("sys.enable_extra_runtime_domain_names_conf", Kind::Flag),
    ("sys.enable_sigterm_injection", Kind::Flag),
    ("sys.experimental__enable_flock", Kind::Flag),
    ("sys.fds.limit", Kind::Number),
    ("sys.insecure__allow_eventfd", Kind::Flag),
    ("sys.ioctl_structs", Kind::Open),
    ("sys.stack.size", Kind::Text),
];

/// Options of older versions, and what they are now.
const OLD: &[(&str, &str)] = &[
    ("fs.experimental__enable_sysfs_topology", "it was removed and is always on"),
    ("fs.mount", "mounts are the list fs.mounts now"),
    ("loader.exec", "it is libos.entrypoint now"),
    ("loader.pal_internal_mem_size", "it was removed; the memory counts towards sgx.enclave_size"),
    ("loader.preload", "it is loader.entrypoint.uri now"),
    ("sgx.allowed_ioctls", "it is sys.allowed_ioctls now"),
    (
        "sgx.insecure__protected_files_key",
        "it is fs.insecure__keys.default now, and a key in the open in either place",
    ),
    ("sgx.ioctl_structs", "it is sys.ioctl_structs now"),
    ("sgx.nonpie_binary", "it was removed"),
    ("sgx.protected_files", "they are mounts of type \"encrypted\" now"),
    ("sgx.ra_client_linkable", "attestation by EPID was removed"),
    ("sgx.ra_client_spid", "attestation by EPID was removed"),
    ("sgx.require_amx", "it is sgx.cpu_features.amx now"),
    ("sgx.require_avx", "it is sgx.cpu_features.avx now"),
    ("sgx.require_avx512", "it is sgx.cpu_features.avx512 now"),
    ("sgx.require_exinfo", "it is sgx.use_exinfo now"),
    ("sgx.require_mpx", "it is sgx.cpu_features.mpx now"),
    ("sgx.require_pkru", "it is sgx.cpu_features.pkru now"),
    ("sgx.thread_num", "it is sgx.max_threads now"),
    ("sgx.trusted_files_cache_size", "Gramine 1.9 does not have it"),
];

pub(super) fn check(document: &Document, findings: &mut Findings) {
    walk(&document.root, "", findings);
}

fn walk(options: &[Option_], above: &str, findings: &mut Findings) {
    for option in options {
        let path = if above.is_empty() { option.name.clone() } else { format!("{above}.{}", option.name) };
        if let Some((_, kind)) = KNOWN.iter().find(|(name, _)| *name == path) {
            typed(&path, *kind, option, findings);
        } else if let Some((_, now)) = OLD.iter().find(|(name, _)| *name == path) {
            let message = format!("an option of older versions, which Gramine 1.9 does not have: {now}");
            findings.add(option.line, &path, Severity::Weak, "old-option", message);
        } else if let (true, Value::Table(inner)) = (has_below(&path), &option.value) {
            walk(inner, &path, findings);
        } else if path == "loader.entrypoint" {
            let message = "a text in older versions; Gramine 1.9 has loader.entrypoint.uri and .sha256, and fills both in where they are left out";
            findings.add(option.line, &path, Severity::Weak, "old-option", message);
        } else {
            let advice = nearest(&path).map_or(String::new(), |name| {
                format!("; is it a misspelt {name}, which then has its default?")
            });
            let message = format!("Gramine 1.9 has no such option{advice}");
            findings.add(option.line, &path, Severity::Weak, "unknown-option", message);
        }
    }
}

fn has_below(path: &str) -> bool {
    KNOWN.iter().any(|(name, _)| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn typed(path: &str, kind: Kind, option: &Option_, findings: &mut Findings) {
    // The rule for attestation explains the old truth values.
    if option.value.is_place() || path == "sgx.remote_attestation" {
        return;
    }
    let (fits, expected) = match kind {
        Kind::Text => (matches!(option.value, Value::Text(_)), "a text in quotes"),
        Kind::Number => (matches!(option.value, Value::Number(_)), "a whole number"),
        Kind::Flag => (matches!(option.value, Value::Flag(_)), "true or false"),
        Kind::List => (matches!(option.value, Value::List(_)), "a list"),
        Kind::Open => (matches!(option.value, Value::Table(_)), "a table"),
    };
    if !fits {
        let message = format!("expected {expected}: Gramine refuses this manifest, or takes the default");
        findings.add(option.line, path, Severity::Weak, "wrong-type", message);
    }
}

/// The known option that differs least, if it differs little.
fn nearest(path: &str) -> Option<&'static str> {
    let known = KNOWN.iter().map(|(name, _)| (distance(path, name), *name)).min()?;
    (known.0 <= 3).then_some(known.1)
}

/// Edits between two short texts (Levenshtein); long ones are far apart.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_listed_in_order_and_once() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(OLD.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn misspelt_options_are_recognised() {
        assert_eq!(nearest("sgx.file_check_polcy"), Some("sgx.file_check_policy"));
        assert_eq!(nearest("sgx.something_else"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
