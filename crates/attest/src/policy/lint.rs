//! What is weak about a policy.

use privet_lint::{Lint, Severity};

use super::{Rules, SgxRules, SnpRules, TcbRules, TdxRules};
use crate::claims::TcbStatus;

pub(super) fn lint(rules: &Rules) -> Vec<Lint> {
    let mut found = Vec::new();
    let mut add = |severity, rule: String, message: &str| {
        found.push(Lint { severity, rule, message: message.to_owned() });
    };
    if rules.sample.is_some() {
        let message =
            "sample, INSECURE: any process on any machine can make this evidence; remove the section";
        add(Severity::Insecure, "sample".to_owned(), message);
    }
    if let Some(sgx) = &rules.sgx {
        lint_sgx(sgx, &mut add);
    }
    if let Some(tdx) = &rules.tdx {
        lint_tdx(tdx, &mut add);
    }
    if let Some(snp) = &rules.snp {
        lint_snp(snp, &mut add);
    }
    found.sort_by_key(|lint| lint.severity);
    found
}

const DEBUG: &str = "the host can read and change the memory of what it accepts; remove it";

fn lint_sgx(sgx: &SgxRules, add: &mut impl FnMut(Severity, String, &str)) {
    if sgx.allow_debug_insecure {
        add(Severity::Insecure, "sgx.allow_debug_insecure".to_owned(), DEBUG);
    }
    if sgx.mrenclave.is_empty() && sgx.minimum_svn == Some(0) {
        let message = "every version that the signer ever released is accepted, including those with known holes; raise it";
        add(Severity::Weak, "sgx.minimum_svn".to_owned(), message);
    }
    if !sgx.mrsigner.is_empty() && sgx.mrenclave.is_empty() {
        let message =
            "whoever holds the signing key can make enclaves that are accepted; pin mrenclave to exclude it";
        add(Severity::Note, "sgx.mrsigner".to_owned(), message);
    }
    lint_tcb("sgx", &sgx.tcb, add);
}

fn lint_tdx(tdx: &TdxRules, add: &mut impl FnMut(Severity, String, &str)) {
    if tdx.allow_debug_insecure {
        add(Severity::Insecure, "tdx.allow_debug_insecure".to_owned(), DEBUG);
    }
    for (i, what) in [(1, "the kernel"), (2, "command line and initial file system")] {
        if tdx.rtmrs()[i].is_empty() {
            let message = format!(
                "mrtd covers the firmware only, and this is where it measures {what}: any is accepted"
            );
            add(Severity::Weak, format!("tdx.rtmr{i}"), &message);
        }
    }
    if tdx.allow_migration {
        let message = "a migration domain, which this policy does not check, can move the domain";
        add(Severity::Weak, "tdx.allow_migration".to_owned(), message);
    }
    lint_tcb("tdx", &tdx.tcb, add);
}

fn lint_tcb(section: &str, tcb: &TcbRules, add: &mut impl FnMut(Severity, String, &str)) {
    for status in &tcb.statuses {
        let (severity, message) = match status {
            TcbStatus::UpToDate => continue,
            TcbStatus::Revoked => {
                (Severity::Insecure, "keys of these platforms are known to be compromised; remove it")
            }
            TcbStatus::OutOfDate | TcbStatus::OutOfDateConfigurationNeeded => (
                Severity::Weak,
                "platforms with known, unfixed holes are accepted; have them updated instead",
            ),
            TcbStatus::TDRelaunchAdvised | TcbStatus::TDRelaunchAdvisedConfigurationNeeded => (
                Severity::Weak,
                "domains launched on an outdated platform are accepted; have them launched again",
            ),
            TcbStatus::SWHardeningNeeded
            | TcbStatus::ConfigurationNeeded
            | TcbStatus::ConfigurationAndSWHardeningNeeded => (
                Severity::Note,
                "read the advisories: software or the platform's configuration have to mitigate them",
            ),
        };
        add(severity, format!("{section}.tcb.statuses = {status}"), message);
    }
    for advisory in &tcb.advisories {
        let message = "accepted, although it applies to the platform; say why in a comment";
        add(Severity::Note, format!("{section}.tcb.advisories = {advisory}"), message);
    }
    let flags = [
        (
            tcb.allow_dynamic_platform,
            "allow_dynamic_platform",
            "packages can be added to the platform while it runs",
        ),
        (
            tcb.allow_cached_keys,
            "allow_cached_keys",
            "the vendor's registration service keeps the platform's keys",
        ),
        (tcb.allow_smt, "allow_smt", "a neighbour on the same core can observe caches and ports"),
    ];
    for (_, name, message) in flags.into_iter().filter(|(set, ..)| *set) {
        add(Severity::Note, format!("{section}.tcb.{name}"), message);
    }
}

fn lint_snp(snp: &SnpRules, add: &mut impl FnMut(Severity, String, &str)) {
    if snp.allow_debug_insecure {
        add(Severity::Insecure, "snp.allow_debug_insecure".to_owned(), DEBUG);
    }
    if snp.minimum_tcb == Some(super::SnpTcb::default()) {
        let message = "all zero: any firmware is accepted, including those with known holes; copy that of a current platform";
        add(Severity::Weak, "snp.minimum_tcb".to_owned(), message);
    }
    if snp.allow_migration {
        let message = "a migration agent, which this policy does not check, can move the guest";
        add(Severity::Weak, "snp.allow_migration".to_owned(), message);
    }
    let notes = [
        (snp.maximum_vmpl > 0, "maximum_vmpl", "less privileged software in the guest can speak for it"),
        (snp.allow_smt, "allow_smt", "a neighbour on the same core can observe caches and ports"),
        (snp.allow_vlek, "allow_vlek", "the cloud provider's key does not say which chip it is"),
        (
            !snp.require_crl,
            "require_crl",
            "without it, revoked certificates are found only when a list happens to be supplied",
        ),
    ];
    for (_, name, message) in notes.into_iter().filter(|(applies, ..)| *applies) {
        add(Severity::Note, format!("snp.{name}"), message);
    }
}
