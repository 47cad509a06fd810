//! Claims against a policy.

use std::fmt::Display;

use crate::claims::{Claims, Identity, SgxIdentity, SnpIdentity, TcbStatus, TdxIdentity};
use crate::error::AttestError;
use crate::policy::{Hex, Policy, SampleRules, SgxRules, SnpRules, TcbRules, TdxRules};
use crate::verdict::{Line, Verdict};

/// Guest policy, bit 18: a migration agent may move the guest.
const SNP_POLICY_MIGRATE: u64 = 1 << 18;
/// TD attributes, bit 29: the domain can be migrated.
const TD_MIGRATABLE: u64 = 1 << 29;

/// Whether a policy accepts what verified evidence says, check by check.
pub fn appraise(claims: &Claims, policy: &Policy) -> Verdict {
    let rules = policy.rules();
    let mut lines = Lines(Vec::new());
    match &claims.identity {
        Identity::Sgx(found) => {
            lines.section(claims, "sgx", rules.sgx.as_ref(), |l, r| l.sgx(claims, found, r))
        }
        Identity::Tdx(found) => {
            lines.section(claims, "tdx", rules.tdx.as_ref(), |l, r| l.tdx(claims, found, r))
        }
        Identity::Snp(found) => {
            lines.section(claims, "snp", rules.snp.as_ref(), |l, r| l.snp(claims, found, r))
        }
        Identity::Sample { measurement } => {
            lines.section(claims, "sample", rules.sample.as_ref(), |l, r| l.sample(measurement, r));
        }
    }
    Verdict { lines: lines.0 }
}

impl Verdict {
    /// The verdict as a result.
    ///
    /// # Errors
    /// If the policy does not accept.
    pub fn into_result(self) -> Result<(), AttestError> {
        if self.accepted() { Ok(()) } else { Err(AttestError::Appraisal(Box::new(self))) }
    }
}

struct Lines(Vec<Line>);

impl Lines {
    fn section<R>(
        &mut self,
        claims: &Claims,
        name: &str,
        rules: Option<&R>,
        check: impl FnOnce(&mut Self, &R),
    ) {
        let expected = format!("a section [{name}] in the policy");
        let found = if rules.is_some() { "one" } else { "none" };
        self.add("kind", format!("{}, for which there is {expected}", claims.tee), found, rules.is_some());
        if let Some(rules) = rules {
            check(self, rules);
        }
    }

    fn sgx(&mut self, claims: &Claims, found: &SgxIdentity, rules: &SgxRules) {
        self.debug(claims, rules.allow_debug_insecure);
        self.one_of("mrenclave", &rules.mrenclave, &found.mrenclave);
        self.one_of("mrsigner", &rules.mrsigner, &found.mrsigner);
        if let Some(expected) = rules.product_id {
            self.add("product id", expected, found.product_id, found.product_id == expected);
        }
        if let Some(least) = rules.minimum_svn {
            self.add("security version", format!("at least {least}"), found.svn, found.svn >= least);
        }
        self.tcb(claims, &rules.tcb);
    }

    fn tdx(&mut self, claims: &Claims, found: &TdxIdentity, rules: &TdxRules) {
        self.debug(claims, rules.allow_debug_insecure);
        self.one_of("mrtd", &rules.mrtd, &found.mrtd);
        for (i, (expected, found)) in rules.rtmrs().into_iter().zip(&found.rtmr).enumerate() {
            self.one_of(&format!("rtmr{i}"), expected, found);
        }
        self.one_of("mrconfigid", &rules.mrconfigid, &found.mrconfigid);
        self.one_of("mrseam", &rules.mrseam, &found.mrseam);
        let migratable = u64::from_le_bytes(found.attributes) & TD_MIGRATABLE != 0;
        self.opt_in("migration", "allow_migration", rules.allow_migration, Some(migratable));
        self.tcb(claims, &rules.tcb);
    }

    fn snp(&mut self, claims: &Claims, found: &SnpIdentity, rules: &SnpRules) {
        self.debug(claims, rules.allow_debug_insecure);
        self.one_of("measurement", &rules.measurement, &found.measurement);
        self.one_of("host data", &rules.host_data, &found.host_data);
        self.one_of("id key digest", &rules.id_key_digest, &found.id_key_digest);
        // A policy without this rule is refused when it is read; were it not, nothing would be accepted here.
        let minimum = rules.minimum_tcb;
        let expected =
            minimum.map_or("a minimum in the policy".to_owned(), |least| format!("at least {least}"));
        for (name, tcb) in [("reported TCB", found.reported_tcb), ("launch TCB", found.launch_tcb)] {
            self.add(name, &expected, tcb, minimum.is_some_and(|least| tcb.at_least(&least)));
        }
        let least = rules.minimum_guest_svn;
        self.add(
            "guest security version",
            format!("at least {least}"),
            found.guest_svn,
            found.guest_svn >= least,
        );
        let most = rules.maximum_vmpl;
        self.add("privilege level", format!("at most {most}"), found.vmpl, found.vmpl <= most);
        if !rules.products.is_empty() {
            let known = rules.products.contains(&found.product);
            self.add("product", rules.products.join(" or "), &found.product, known);
        }
        let vlek = found.signing_key != "VCEK";
        self.opt_in("key of a cloud provider (VLEK)", "allow_vlek", rules.allow_vlek, Some(vlek));
        let migratable = found.policy & SNP_POLICY_MIGRATE != 0;
        self.opt_in("migration", "allow_migration", rules.allow_migration, Some(migratable));
        self.opt_in("simultaneous multithreading", "allow_smt", rules.allow_smt, claims.platform.smt);
        if rules.require_crl {
            let found_text = if found.revocation_checked { "checked" } else { "no list supplied" };
            self.add("revocation list", "checked", found_text, found.revocation_checked);
        }
    }

    fn sample(&mut self, measurement: &[u8; 32], rules: &SampleRules) {
        let allowed = rules.allow_sample_insecure;
        self.add("sample, INSECURE", "allow_sample_insecure = true", allowed, allowed);
        self.one_of("measurement (sample, INSECURE)", &rules.measurement, measurement);
    }

    fn tcb(&mut self, claims: &Claims, rules: &TcbRules) {
        let list = |statuses: &[TcbStatus]| {
            statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
        };
        let found = claims.tcb_status.map_or("none".to_owned(), |status| status.to_string());
        let accepted = claims.tcb_status.is_some_and(|status| rules.statuses.contains(&status));
        self.add("TCB status", list(&rules.statuses), found, accepted);
        let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let expected = format!("none but {}", names(&rules.advisories));
        let accepted = claims.advisories.iter().all(|advisory| rules.advisories.contains(advisory));
        self.add(
            "advisories",
            if rules.advisories.is_empty() { "none" } else { &expected },
            names(&claims.advisories),
            accepted,
        );
        let platform = &claims.platform;
        self.opt_in(
            "dynamic platform",
            "allow_dynamic_platform",
            rules.allow_dynamic_platform,
            platform.dynamic,
        );
        self.opt_in("cached keys", "allow_cached_keys", rules.allow_cached_keys, platform.cached_keys);
        self.opt_in("simultaneous multithreading", "allow_smt", rules.allow_smt, platform.smt);
    }

    fn debug(&mut self, claims: &Claims, allowed: bool) {
        self.opt_in("debug mode", "allow_debug_insecure", allowed, Some(claims.debug));
    }

    /// A property that is refused unless the policy allows it. What the platform's certificate does not mention is off.
    fn opt_in(&mut self, check: &str, rule: &str, allowed: bool, found: Option<bool>) {
        let expected = if allowed { format!("any ({rule})") } else { format!("no ({rule} = false)") };
        let text = match found {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not stated",
        };
        self.add(check, expected, text, allowed || found != Some(true));
    }

    fn one_of<const N: usize>(&mut self, check: &str, expected: &[Hex<N>], found: &[u8; N]) {
        if !expected.is_empty() {
            let list: Vec<String> = expected.iter().map(ToString::to_string).collect();
            self.add(check, list.join(" or "), Hex(*found), expected.contains(&Hex(*found)));
        }
    }

    fn add(&mut self, check: &str, expected: impl Display, found: impl Display, passed: bool) {
        self.0.push(Line::new(check, expected.to_string(), found.to_string(), passed));
    }
}
