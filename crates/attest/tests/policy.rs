//! Each rule of a policy alone accepts and refuses; what makes no sense is refused when it is read.

use privet_attest::claims::{
    Claims, Identity, Platform, SgxIdentity, SnpIdentity, SnpTcb, TcbStatus, TdxIdentity,
};
use privet_attest::policy::Severity;
use privet_attest::{Policy, Tee, appraise};

fn claims(tee: Tee, identity: Identity) -> Claims {
    Claims {
        tee,
        identity,
        report_data: [0; 64],
        debug: false,
        tcb_status: matches!(tee, Tee::Sgx | Tee::Tdx).then_some(TcbStatus::UpToDate),
        advisories: Vec::new(),
        platform: Platform::default(),
        checks: Vec::new(),
    }
}

fn sgx() -> Claims {
    let identity =
        SgxIdentity { mrenclave: [1; 32], mrsigner: [2; 32], product_id: 3, svn: 4, attributes: [0; 16] };
    claims(Tee::Sgx, Identity::Sgx(identity))
}

fn tdx() -> Claims {
    let identity = TdxIdentity {
        mrtd: [1; 48],
        rtmr: [[10; 48], [11; 48], [12; 48], [13; 48]],
        mrseam: [2; 48],
        mrconfigid: [3; 48],
        mrowner: [4; 48],
        attributes: [0; 8],
    };
    claims(Tee::Tdx, Identity::Tdx(Box::new(identity)))
}

fn snp() -> Claims {
    let tcb = SnpTcb { fmc: 0, bootloader: 4, tee: 1, snp: 22, microcode: 213 };
    let identity = SnpIdentity {
        measurement: [1; 48],
        host_data: [2; 32],
        id_key_digest: [3; 48],
        author_key_digest: [4; 48],
        guest_svn: 5,
        vmpl: 0,
        policy: 0x3_0000,
        reported_tcb: tcb,
        committed_tcb: tcb,
        launch_tcb: tcb,
        product: "Milan".to_owned(),
        signing_key: "VCEK".to_owned(),
        provider: None,
        chip_id: [6; 64],
        revocation_checked: false,
    };
    claims(Tee::Snp, Identity::Snp(Box::new(identity)))
}

fn sample() -> Claims {
    Claims { debug: true, ..claims(Tee::Sample, Identity::Sample { measurement: [1; 32] }) }
}

/// `key = ["01.."]`.
fn list(key: &str, byte: u8, length: usize) -> String {
    format!("{key} = [\"{}\", \"{}\"]", "ee".repeat(length), hex::encode(vec![byte; length]))
}

fn policy(text: &str) -> Policy {
    Policy::parse(&format!("version = 1\n{text}")).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// What these rules say about claims: accepted, or the checks that refused.
fn verdict(claims: &Claims, rules: &str) -> Vec<String> {
    let verdict = appraise(claims, &policy(rules));
    let refused: Vec<_> = verdict.lines.iter().filter(|l| !l.passed).map(|l| l.check.clone()).collect();
    assert_eq!(refused.is_empty(), verdict.accepted());
    refused
}

/// A rule that accepts some claims, and refuses them, by this check alone, after a change.
#[track_caller]
fn rule(claims: &Claims, rules: &str, check: &str, change: impl FnOnce(&mut Claims)) {
    assert_eq!(verdict(claims, rules), Vec::<String>::new(), "{rules}");
    let mut changed = claims.clone();
    change(&mut changed);
    assert_eq!(verdict(&changed, rules), [check], "{rules}");
}

/// A property that is refused by this check alone, unless the policy has this line.
#[track_caller]
fn opt_in(claims: &Claims, rules: &str, line: &str, check: &str, change: impl FnOnce(&mut Claims)) {
    let mut changed = claims.clone();
    change(&mut changed);
    assert_eq!(verdict(&changed, rules), [check], "{rules}");
    assert_eq!(verdict(&changed, &format!("{rules}\n{line}")), Vec::<String>::new(), "{line}");
}

fn of_sgx(claims: &mut Claims) -> &mut SgxIdentity {
    let Identity::Sgx(found) = &mut claims.identity else { panic!("of SGX") };
    found
}

fn of_tdx(claims: &mut Claims) -> &mut TdxIdentity {
    let Identity::Tdx(found) = &mut claims.identity else { panic!("of TDX") };
    found
}

fn of_snp(claims: &mut Claims) -> &mut SnpIdentity {
    let Identity::Snp(found) = &mut claims.identity else { panic!("of SEV-SNP") };
    found
}

#[test]
fn rules_of_sgx() {
    let by_enclave = format!("[sgx]\n{}", list("mrenclave", 1, 32));
    rule(&sgx(), &by_enclave, "mrenclave", |c| of_sgx(c).mrenclave[31] ^= 1);
    opt_in(&sgx(), &by_enclave, "allow_debug_insecure = true", "debug mode", |c| c.debug = true);

    let by_signer = format!("[sgx]\n{}\nproduct_id = 3\nminimum_svn = 4", list("mrsigner", 2, 32));
    rule(&sgx(), &by_signer, "mrsigner", |c| of_sgx(c).mrsigner[0] ^= 1);
    rule(&sgx(), &by_signer, "product id", |c| of_sgx(c).product_id = 4);
    rule(&sgx(), &by_signer, "security version", |c| of_sgx(c).svn = 3);
    let mut newer = sgx();
    of_sgx(&mut newer).svn = 5;
    assert!(verdict(&newer, &by_signer).is_empty());

    // Both have to hold where both are there.
    let both = format!("{by_signer}\n{}", list("mrenclave", 1, 32));
    rule(&sgx(), &both, "mrenclave", |c| of_sgx(c).mrenclave[0] ^= 1);
    rule(&sgx(), &both, "mrsigner", |c| of_sgx(c).mrsigner[0] ^= 1);
}

#[test]
fn rules_of_tdx() {
    let rules = format!("[tdx]\n{}", list("mrtd", 1, 48));
    rule(&tdx(), &rules, "mrtd", |c| of_tdx(c).mrtd[0] ^= 1);
    for i in 0..4_u8 {
        let rules = format!("{rules}\n{}", list(&format!("rtmr{i}"), 10 + i, 48));
        rule(&tdx(), &rules, &format!("rtmr{i}"), |c| of_tdx(c).rtmr[usize::from(i)][47] ^= 1);
    }
    rule(&tdx(), &format!("{rules}\n{}", list("mrconfigid", 3, 48)), "mrconfigid", |c| {
        of_tdx(c).mrconfigid[0] ^= 1
    });
    rule(&tdx(), &format!("{rules}\n{}", list("mrseam", 2, 48)), "mrseam", |c| of_tdx(c).mrseam[0] ^= 1);
    opt_in(&tdx(), &rules, "allow_debug_insecure = true", "debug mode", |c| c.debug = true);
    // Bit 29.
    opt_in(&tdx(), &rules, "allow_migration = true", "migration", |c| of_tdx(c).attributes[3] = 1 << 5);
}

#[test]
fn rules_of_platforms() {
    for (claims, rules) in [
        (sgx(), format!("[sgx]\n{}\n[sgx.tcb]", list("mrenclave", 1, 32))),
        (tdx(), format!("[tdx]\n{}\n[tdx.tcb]", list("mrtd", 1, 48))),
    ] {
        let hardening = |c: &mut Claims| c.tcb_status = Some(TcbStatus::SWHardeningNeeded);
        opt_in(&claims, &rules, "statuses = [\"UpToDate\", \"SWHardeningNeeded\"]", "TCB status", hardening);
        for status in [
            TcbStatus::ConfigurationNeeded,
            TcbStatus::ConfigurationAndSWHardeningNeeded,
            TcbStatus::OutOfDate,
            TcbStatus::OutOfDateConfigurationNeeded,
            TcbStatus::TDRelaunchAdvised,
            TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
        ] {
            opt_in(&claims, &rules, &format!("statuses = [\"{status}\"]"), "TCB status", |c| {
                c.tcb_status = Some(status)
            });
        }
        rule(&claims, &rules, "TCB status", |c| c.tcb_status = None);
        let advisory = |c: &mut Claims| c.advisories = vec!["INTEL-SA-00289".to_owned()];
        opt_in(&claims, &rules, "advisories = [\"INTEL-SA-00289\"]", "advisories", advisory);
        let two =
            |c: &mut Claims| c.advisories = vec!["INTEL-SA-00289".to_owned(), "INTEL-SA-00615".to_owned()];
        rule(&claims, &format!("{rules}\nadvisories = [\"INTEL-SA-00289\"]"), "advisories", two);
        opt_in(&claims, &rules, "allow_dynamic_platform = true", "dynamic platform", |c| {
            c.platform.dynamic = Some(true)
        });
        opt_in(&claims, &rules, "allow_cached_keys = true", "cached keys", |c| {
            c.platform.cached_keys = Some(true)
        });
        opt_in(&claims, &rules, "allow_smt = true", "simultaneous multithreading", |c| {
            c.platform.smt = Some(true)
        });
    }
}

#[test]
fn rules_of_snp() {
    let tcb = "minimum_tcb = { bootloader = 4, tee = 1, snp = 22, microcode = 213 }";
    let rules = format!("[snp]\n{}\n{tcb}", list("measurement", 1, 48));
    rule(&snp(), &rules, "measurement", |c| of_snp(c).measurement[0] ^= 1);
    rule(&snp(), &rules, "reported TCB", |c| of_snp(c).reported_tcb.microcode = 212);
    rule(&snp(), &rules, "reported TCB", |c| {
        of_snp(c).reported_tcb = SnpTcb { tee: 0, snp: 255, ..of_snp(c).reported_tcb }
    });
    rule(&snp(), &rules, "reported TCB", |c| of_snp(c).reported_tcb.bootloader = 3);
    rule(&snp(), &rules, "launch TCB", |c| of_snp(c).launch_tcb.snp = 21);
    let with_fmc = rules.replace("bootloader", "fmc = 1, bootloader");
    assert_eq!(verdict(&snp(), &with_fmc), ["reported TCB", "launch TCB"]);
    let optional = [
        (list("host_data", 2, 32), "host data"),
        (list("id_key_digest", 3, 48), "id key digest"),
        ("minimum_guest_svn = 5".to_owned(), "guest security version"),
        ("products = [\"Genoa\", \"Milan\"]".to_owned(), "product"),
    ];
    for (line, check) in optional {
        rule(&snp(), &format!("{rules}\n{line}"), check, |c| {
            let found = of_snp(c);
            match check {
                "host data" => found.host_data[0] ^= 1,
                "id key digest" => found.id_key_digest[0] ^= 1,
                "guest security version" => found.guest_svn = 4,
                _ => found.product = "Turin".to_owned(),
            }
        });
    }
    let mut checked = snp();
    of_snp(&mut checked).revocation_checked = true;
    rule(&checked, &format!("{rules}\nrequire_crl = true"), "revocation list", |c| {
        of_snp(c).revocation_checked = false
    });
    opt_in(&snp(), &rules, "maximum_vmpl = 2", "privilege level", |c| of_snp(c).vmpl = 2);
    opt_in(&snp(), &rules, "allow_debug_insecure = true", "debug mode", |c| c.debug = true);
    // Bit 18 of the guest's policy.
    opt_in(&snp(), &rules, "allow_migration = true", "migration", |c| of_snp(c).policy |= 1 << 18);
    opt_in(&snp(), &rules, "allow_smt = true", "simultaneous multithreading", |c| {
        c.platform.smt = Some(true)
    });
    let vlek = |c: &mut Claims| of_snp(c).signing_key = "VLEK".to_owned();
    opt_in(&snp(), &rules, "allow_vlek = true", "key of a cloud provider (VLEK)", vlek);
}

#[test]
fn rules_of_sample() {
    let rules = format!("[sample]\n{}\nallow_sample_insecure = true", list("measurement", 1, 32));
    rule(&sample(), &rules, "measurement (sample, INSECURE)", |c| {
        c.identity = Identity::Sample { measurement: [2; 32] }
    });
    let verdict = appraise(&sample(), &policy(&rules));
    assert!(verdict.lines.iter().all(|line| line.to_string().contains("INSECURE")), "{verdict}");
}

/// A kind of evidence without a section is refused, whatever the other sections accept.
#[test]
fn only_kinds_with_a_section_are_accepted() {
    let sections = [
        (sgx(), format!("[sgx]\n{}", list("mrenclave", 1, 32))),
        (tdx(), format!("[tdx]\n{}", list("mrtd", 1, 48))),
        (snp(), format!("[snp]\n{}\nminimum_tcb = {{}}", list("measurement", 1, 48))),
        (sample(), format!("[sample]\n{}\nallow_sample_insecure = true", list("measurement", 1, 32))),
    ];
    for (i, (claims, _)) in sections.iter().enumerate() {
        for (j, (_, rules)) in sections.iter().enumerate() {
            let refused = verdict(claims, rules);
            assert_eq!(refused.is_empty(), i == j, "claims {i}, rules {j}");
            assert!(i == j || refused == ["kind"]);
        }
    }
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    let hash = list("mrenclave", 1, 32);
    let measurement = list("measurement", 1, 48);
    let cases = [
        ("", "missing field `version`"),
        ("version = 2", "version 2"),
        ("version = 1", "it accepts nothing"),
        ("version = 1\n[sgx]", "accepts any enclave"),
        (&format!("version = 1\n[sgx]\n{}", list("mrsigner", 2, 32)), "product_id and minimum_svn"),
        (
            &format!("version = 1\n[sgx]\n{}\nproduct_id = 1", list("mrsigner", 2, 32)),
            "product_id and minimum_svn",
        ),
        (&format!("version = 1\n[sgx]\n{hash}\nmr_enclave = []"), "unknown field `mr_enclave`"),
        (
            &format!("version = 1\n[sgx]\n{hash}\n[sgx.tcb]\nallow_debug = true"),
            "unknown field `allow_debug`",
        ),
        (&format!("version = 1\n[sgx]\n{hash}\n[arm]"), "unknown field `arm`"),
        (&format!("version = 1\n[sgx]\n{hash}\n[sgx.tcb]\nstatuses = []"), "statuses is empty"),
        (&format!("version = 1\n[sgx]\n{hash}\n[sgx.tcb]\nstatuses = [\"Revoked\"]"), "Revoked"),
        (&format!("version = 1\n[sgx]\n{hash}\n[sgx.tcb]\nstatuses = [\"Fine\"]"), "unknown variant `Fine`"),
        ("version = 1\n[sgx]\nmrenclave = [\"12\"]", "expected 64 hexadecimal digits"),
        ("version = 1\n[sgx]\nmrenclave = \"12\"", "invalid type"),
        ("version = 1\n[tdx]", "accepts any firmware"),
        ("version = 1\n[snp]", "accepts any guest"),
        (&format!("version = 1\n[snp]\n{measurement}"), "minimum_tcb"),
        (
            &format!("version = 1\n[snp]\n{measurement}\nminimum_tcb = {{ ucode = 1 }}"),
            "unknown field `ucode`",
        ),
        (&format!("version = 1\n[snp]\n{measurement}\nminimum_tcb = {{}}\nmaximum_vmpl = 4"), "0 to 3"),
        (&format!("version = 1\n[sample]\n{}", list("measurement", 1, 32)), "allow_sample_insecure = true"),
        ("version = 1\n[sample]\nallow_sample_insecure = true", "any process"),
    ];
    for (text, why) in cases {
        let error = Policy::parse(text).expect_err(text).to_string();
        assert!(error.contains(why), "expected {why:?} in {error}");
    }
    assert!(Policy::parse(&"#".repeat(2 << 20)).is_err());
}

#[test]
fn lint_names_what_is_weak() {
    let lints = |text: &str| policy(text).lint();
    let rules =
        |found: &[privet_attest::policy::Lint]| found.iter().map(|l| l.rule.clone()).collect::<Vec<_>>();
    let strict = format!("[sgx]\n{}", list("mrenclave", 1, 32));
    assert!(lints(&strict).is_empty());
    let debug = lints(&format!("{strict}\nallow_debug_insecure = true\n[sgx.tcb]\nallow_smt = true"));
    assert_eq!(rules(&debug), ["sgx.allow_debug_insecure", "sgx.tcb.allow_smt"], "the worst comes first");
    assert_eq!(debug[0].severity, Severity::Insecure);
    let old = lints(&format!("[sgx]\n{}\nproduct_id = 1\nminimum_svn = 0", list("mrsigner", 1, 32)));
    assert_eq!(rules(&old), ["sgx.minimum_svn", "sgx.mrsigner"]);
    let outdated = lints(&format!("{strict}\n[sgx.tcb]\nstatuses = [\"OutOfDate\"]"));
    assert_eq!(
        (outdated[0].severity, outdated[0].rule.as_str()),
        (Severity::Weak, "sgx.tcb.statuses = OutOfDate")
    );
    let firmware = lints(&format!("[tdx]\n{}", list("mrtd", 1, 48)));
    assert_eq!(rules(&firmware), ["tdx.rtmr1", "tdx.rtmr2"]);
    let zero = lints(&format!("[snp]\n{}\nminimum_tcb = {{}}", list("measurement", 1, 48)));
    assert_eq!(rules(&zero), ["snp.minimum_tcb", "snp.require_crl"]);
    let sample = lints(&format!("[sample]\n{}\nallow_sample_insecure = true", list("measurement", 1, 32)));
    assert_eq!(sample[0].severity, Severity::Insecure);
    assert!(sample[0].to_string().contains("sample, INSECURE"));
}
