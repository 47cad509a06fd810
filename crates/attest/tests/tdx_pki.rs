//! TDX quotes of version 5 on a synthetic PKI: the way to acceptance, of which there is no real evidence whose collateral is
//! at hand, and what real evidence does not have: revocation, levels of the TCB, and bodies of every type.

mod intel;

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use intel::{ATTRIBUTES, Intel, MRTD, NOW, PRESENT_TCB, SERVICE_TD, SIGNED, Serial, Setup};
use privet_attest::claims::{Identity, TcbStatus};
use privet_attest::verifier::DcapVerifier;
use privet_attest::{AttestError, Claims, Collateral, Evidence, Policy, Tee, Verifier, Verifiers, appraise};

static PLAIN: LazyLock<Intel> = LazyLock::new(|| Intel::new(Setup::default()));

fn verifier(pki: &Intel) -> DcapVerifier {
    DcapVerifier::with_root(pki.root(), Some(pki.collateral()))
}

fn check(verifier: &DcapVerifier, quote: Vec<u8>) -> Result<Claims, AttestError> {
    let evidence = Evidence::new(Tee::Tdx, quote).expect("as large as a quote");
    verifier.verify(&evidence, UNIX_EPOCH + Duration::from_secs(NOW))
}

fn of(setup: Setup, change: impl FnOnce(&mut [u8])) -> Result<Claims, AttestError> {
    let pki = Intel::new(setup);
    check(&verifier(&pki), pki.quote(change))
}

#[track_caller]
fn refused(outcome: Result<Claims, AttestError>, why: &str) {
    let error = outcome.expect_err("it has to be refused");
    assert!(matches!(error, AttestError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(why), "expected {why:?} in {error}");
}

/// The launch TCB and the present one.
fn tcb(body: &mut [u8], launch: u8, present: u8) {
    for (at, svn) in [(0, launch), (PRESENT_TCB, present)] {
        body[at] = svn;
        body[at + 2..at + 16].fill(svn);
    }
}

#[test]
fn a_quote_of_version_5_is_accepted_and_its_claims_are_right() {
    let pki = &*PLAIN;
    let quote = pki.quote(|_| {});
    assert_eq!(Evidence::detect(&quote).expect("found out").tee(), Tee::Tdx);
    let claims = check(&verifier(pki), quote).expect("authentic");
    assert_eq!((claims.tee, claims.report_data, claims.debug), (Tee::Tdx, [0xda; 64], false));
    assert_eq!((claims.tcb_status, claims.advisories.len()), (Some(TcbStatus::UpToDate), 0));
    let platform = &claims.platform;
    assert_eq!(
        (platform.dynamic, platform.cached_keys, platform.smt),
        (Some(false), Some(true), Some(true)),
        "as the platform's certificate says"
    );
    let Identity::Tdx(found) = &claims.identity else { panic!("of TDX") };
    assert_eq!((found.mrtd, found.mrseam, found.mrconfigid), ([0x7d; 48], [0x5e; 48], [0xc1; 48]));
    assert_eq!(found.rtmr, [0xa0, 0xa1, 0xa2, 0xa3].map(|byte| [byte; 48]));
    assert_eq!((found.mrowner, found.attributes), ([0; 48], [0, 0, 0, 0x10, 0, 0, 0, 0]));
    assert!(claims.checks.iter().any(|line| line.to_string().contains("version 5")));

    let policy = |mrtd: u8| {
        let mrtd = format!("{mrtd:02x}").repeat(48);
        let text = format!(
            "version = 1\n[tdx]\nmrtd = [\"{mrtd}\"]\n[tdx.tcb]\nallow_cached_keys = true\nallow_smt = true\n"
        );
        Policy::parse(&text).expect("a policy")
    };
    assert!(appraise(&claims, &policy(0x7d)).accepted());
    assert!(!appraise(&claims, &policy(0x7e)).accepted());
}

#[test]
fn bodies_of_every_type_are_read_to_their_ends() {
    let pki = &*PLAIN;
    let mut of_1_5 = Vec::new();
    pki.quote(|body| of_1_5 = body.to_vec());
    let verifier = verifier(pki);
    let plain = check(&verifier, pki.quote_of(3, &of_1_5)).expect("TD report 1.5");
    // 1.0, of which it is a longer form, and the extended one.
    let extended = [&of_1_5[..], &[0xee; 237]].concat();
    for (kind, body) in [(2, &of_1_5[..584]), (4, &extended)] {
        let claims = check(&verifier, pki.quote_of(kind, body)).expect("a known type");
        assert_eq!((&claims.identity, claims.report_data), (&plain.identity, plain.report_data));
    }
    for (kind, body) in [
        (1, &of_1_5[..]),
        (1, &of_1_5[..384]),
        (2, &of_1_5),
        (3, &of_1_5[..584]),
        (3, &extended),
        (4, &of_1_5),
        (5, &extended),
        (0, &of_1_5),
    ] {
        assert!(check(&verifier, pki.quote_of(kind, body)).is_err(), "type {kind}, {} bytes", body.len());
    }
}

#[test]
fn no_signed_bit_can_be_flipped() {
    let pki = &*PLAIN;
    let (verifier, quote) = (verifier(pki), pki.quote(|_| {}));
    check(&verifier, quote.clone()).expect("authentic as it is");
    for bit in 0..SIGNED * 8 {
        let mut changed = quote.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&verifier, changed).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
    }
}

/// A bit of every byte of signatures, keys, the quoting enclave's report and certificates.
#[test]
fn other_bits_are_refused_or_change_nothing() {
    let pki = &*PLAIN;
    let (verifier, quote) = (verifier(pki), pki.quote(|_| {}));
    let claims = check(&verifier, quote.clone()).expect("authentic");
    let mut unnoticed = Vec::new();
    for at in SIGNED..quote.len() {
        let mut changed = quote.clone();
        changed[at] ^= 1 << (at % 8);
        if let Ok(found) = check(&verifier, changed) {
            assert_eq!(found, claims, "byte {at}");
            unnoticed.push(at);
        }
    }
    // The type of the certification data is not looked at; after lengths, signature and key, the quoting enclave's report,
    // its signature and data comes the certificate chain, with its length, white space and the root, which is not used.
    let kind = SIGNED + 4 + 64 + 64;
    let chain = kind + 6 + 384 + 64 + 2 + 32;
    unnoticed.retain(|at| !(kind..kind + 2).contains(at) && *at < chain);
    assert_eq!(unnoticed, [0; 0]);
}

#[test]
fn nobody_else_trusts_this_pki() {
    let pki = &*PLAIN;
    let evidence = Evidence::new(Tee::Tdx, pki.quote(|_| {})).expect("a quote");
    let at = UNIX_EPOCH + Duration::from_secs(NOW);
    let collateral = Collateral { dcap: Some(pki.collateral()), ..Collateral::default() };
    refused(Verifiers::new(collateral).verify(&evidence, at), "CRL");
    // Another PKI whose authorities have the same names.
    let other = Intel::new(Setup::default());
    let mixed = DcapVerifier::with_root(pki.root(), Some(other.collateral()));
    refused(mixed.verify(&evidence, at), "");
    refused(check(&verifier(&other), pki.quote(|_| {})), "certificate chain");
}

#[test]
fn what_is_revoked_is_refused() {
    for serial in [Serial::Pck, Serial::PckCa, Serial::TcbSigner, Serial::Root] {
        refused(of(Setup { revoked: Some(serial), ..Setup::default() }, |_| {}), "evoked");
    }
    refused(of(Setup { crls: (-60, -1), ..Setup::default() }, |_| {}), "CRL expired");
    // No list of the authority that issued the platform's certificate.
    refused(
        of(Setup { pck_by_root: true, revoked: Some(Serial::Pck), ..Setup::default() }, |_| {}),
        "evoked",
    );
    refused(of(Setup { pck: (-60, -1), ..Setup::default() }, |_| {}), "certificate chain");
    refused(of(Setup { pck: (1, 60), ..Setup::default() }, |_| {}), "certificate chain");
    refused(of(Setup { collateral: (-60, -1), ..Setup::default() }, |_| {}), "TCBInfo expired");
    refused(of(Setup { collateral: (1, 30), ..Setup::default() }, |_| {}), "in the future");
}

#[test]
fn levels_of_the_tcb_are_those_of_the_collateral() {
    use TcbStatus::*;

    let status = |setup: Setup, launch: u8, present: u8| {
        let claims = of(setup, |body| tcb(body, launch, present));
        claims.map(|claims| (claims.tcb_status.expect("stated"), claims.advisories))
    };
    let advisory = vec!["INTEL-SA-09999".to_owned()];
    assert_eq!(status(Setup::default(), 5, 5).expect("current"), (UpToDate, vec![]));
    assert_eq!(status(Setup::default(), 9, 9).expect("newer"), (UpToDate, vec![]));
    assert_eq!(status(Setup::default(), 4, 4).expect("older"), (OutOfDate, advisory.clone()));
    // The module was updated under a running domain: it has to be launched again to profit.
    assert_eq!(status(Setup::default(), 4, 5).expect("updated"), (TDRelaunchAdvised, advisory.clone()));
    assert_eq!(status(Setup { cpu_svn: 4, ..Setup::default() }, 5, 5).expect("older").0, OutOfDate);
    let hardening = Setup { older_level: "SWHardeningNeeded", older_module: "UpToDate", ..Setup::default() };
    assert_eq!(status(hardening, 4, 4).expect("hardening"), (SWHardeningNeeded, advisory));
    let enclave = Setup { quoting_enclave: "OutOfDate", ..Setup::default() };
    assert_eq!(status(enclave, 5, 5).expect("an old quoting enclave").0, OutOfDate);

    refused(of(Setup::default(), |body| tcb(body, 2, 2)), "No matching TCB level");
    refused(of(Setup::default(), |body| tcb(body, 5, 2)), "No matching TCB level");
    refused(of(Setup { cpu_svn: 2, ..Setup::default() }, |_| {}), "No matching TCB level");
    let revoked = Setup { older_level: "Revoked", ..Setup::default() };
    for (launch, present) in [(4, 4), (4, 5), (5, 4)] {
        refused(of(revoked.clone(), |body| tcb(body, launch, present)), "Revoked");
    }
    refused(of(Setup { older_module: "Revoked", ..Setup::default() }, |body| tcb(body, 4, 4)), "Revoked");
    refused(of(Setup { quoting_enclave: "Revoked", ..Setup::default() }, |_| {}), "Revoked");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    refused(of(Setup { tcb_fmspc: "00906ED50001", ..Setup::default() }, |_| {}), "Fmspc mismatch");
    refused(of(Setup { id: "SGX", ..Setup::default() }, |_| {}), "non-TDX");
    refused(of(Setup { qe_mrsigner: 0x78, ..Setup::default() }, |_| {}), "");
    // A module of another signer, with attributes, or of no known version.
    refused(of(Setup::default(), |body| body[64] = 1), "MRSIGNER");
    refused(of(Setup::default(), |body| body[112] = 1), "SEAMATTRIBUTES");
    refused(of(Setup::default(), |body| body[1] = 7), "TDX_07");
    // A domain that is bound to another one, may be migrated, or does not keep its page tables to itself.
    refused(of(Setup::default(), |body| body[SERVICE_TD] = 1), "service TD");
    refused(of(Setup::default(), |body| body[ATTRIBUTES][3] |= 1 << 5), "migration");
    refused(of(Setup::default(), |body| body[ATTRIBUTES][3] = 0), "SEPT_VE_DISABLE");
    refused(of(Setup::default(), |body| body[ATTRIBUTES][1] = 1), "Reserved");
    // Debug is for the policy.
    let claims = of(Setup::default(), |body| body[ATTRIBUTES][0] = 1).expect("authentic");
    assert!(claims.debug);
    let text = format!(
        "version = 1\n[tdx]\nmrtd = [\"{}\"]\n[tdx.tcb]\nallow_cached_keys = true\nallow_smt = true\n",
        "7d".repeat(48)
    );
    let verdict = appraise(&claims, &Policy::parse(&text).expect("a policy"));
    assert!(verdict.failures().contains("debug"), "{}", verdict.failures());
    // Signatures of one quote under the body of another.
    let pki = &*PLAIN;
    let (one, two) = (pki.quote(|_| {}), pki.quote(|body| body[MRTD].fill(1)));
    let spliced = [&two[..SIGNED], &one[SIGNED..]].concat();
    refused(check(&verifier(pki), spliced), "signature");
    // A stranger's attestation key, vouched for by this platform's quoting enclave for another one.
    let other = Intel::new(Setup::default());
    let foreign = other.quote(|_| {});
    let keys = SIGNED + 4 + 128;
    let (length, theirs, ours) = (&one[SIGNED..SIGNED + 4], &foreign[SIGNED + 4..keys], &one[keys..]);
    let foreign = [&foreign[..SIGNED], length, theirs, ours].concat();
    refused(check(&verifier(pki), foreign), "hash mismatch");
}
