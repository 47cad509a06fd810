//! The encoding of evidence, and what is recognised without it.

use privet_attest::evidence::{MAX_BODY_BYTES, MAX_CERTIFICATES, MAX_COLLATERAL_BYTES, MAX_EVIDENCE_BYTES};
use privet_attest::{Collateral, Evidence, Tee, parse_time, time_text};

fn whole() -> Evidence {
    let collateral = Collateral {
        dcap: Some(b"{}".to_vec()),
        certificates: vec![vec![1; 300], vec![]],
        crls: vec![vec![2; 5]],
    };
    let evidence = Evidence::new(Tee::Tdx, vec![4; 700]).expect("small enough");
    evidence.with_collateral(collateral).expect("small enough")
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = Evidence::decode(bytes).expect_err("it has to be refused").to_string();
    assert!(error.contains(why), "expected {why:?} in {error}");
}

#[test]
fn evidence_survives_its_encoding() {
    for tee in [Tee::Sgx, Tee::Tdx, Tee::Snp, Tee::Sample] {
        let evidence = Evidence::new(tee, vec![9; 10]).expect("small enough");
        assert_eq!(Evidence::decode(&evidence.encode()).expect("a round trip"), evidence);
    }
    assert_eq!(Evidence::detect(&whole().encode()).expect("a round trip"), whole());
    assert!(whole().encode().len() <= MAX_EVIDENCE_BYTES);
}

#[test]
fn other_bytes_are_refused() {
    let bytes = whole().encode();
    for length in 0..bytes.len() {
        assert!(Evidence::decode(&bytes[..length]).is_err(), "the first {length} bytes");
    }
    refused(&[bytes.as_slice(), &[0]].concat(), "1 bytes too many");
    refused(&[b"PRIVEVID\x02\x00".as_slice(), &bytes[10..]].concat(), "version 2");
    refused(&[b"PRIVSHAR".as_slice(), &bytes[8..]].concat(), "PRIVEVID");
    refused(&[&bytes[..10], &[4], &bytes[11..]].concat(), "unknown kind");
    refused(&vec![0; MAX_EVIDENCE_BYTES + 1], "at most");
    // A length of 2^63.
    refused(&[&bytes[..11], &[0x80; 9], &[1]].concat(), "malformed evidence");
}

#[test]
fn sizes_are_limited() {
    assert!(Evidence::new(Tee::Sgx, vec![]).is_err());
    assert!(Evidence::new(Tee::Sgx, vec![0; MAX_BODY_BYTES]).is_ok());
    assert!(Evidence::new(Tee::Sgx, vec![0; MAX_BODY_BYTES + 1]).is_err());
    let with =
        |collateral| Evidence::new(Tee::Sgx, vec![0]).expect("small enough").with_collateral(collateral);
    assert!(with(Collateral { dcap: Some(vec![0; MAX_COLLATERAL_BYTES]), ..Collateral::default() }).is_ok());
    assert!(
        with(Collateral { dcap: Some(vec![0; MAX_COLLATERAL_BYTES + 1]), ..Collateral::default() }).is_err()
    );
    assert!(
        with(Collateral { crls: vec![vec![0; MAX_COLLATERAL_BYTES]; 2], ..Collateral::default() }).is_err()
    );
    assert!(
        with(Collateral { certificates: vec![vec![]; MAX_CERTIFICATES + 1], ..Collateral::default() })
            .is_err()
    );
}

/// Everything that prints development evidence says what it is; nothing prints evidence's bytes.
#[test]
fn sample_is_called_insecure() {
    let evidence = Evidence::new(Tee::Sample, vec![0xAB; 40]).expect("small enough");
    assert!(format!("{evidence:?}").contains("sample, INSECURE") && !format!("{evidence:?}").contains("171"));
    assert_eq!(Tee::Sample.to_string(), "sample, INSECURE");
    assert_eq!(serde_json::to_string(&Tee::Sample).expect("a string"), "\"sample, INSECURE\"");
}

#[test]
fn times_as_text() {
    for (text, seconds) in [
        ("2025-07-01T00:00:00Z", 1_751_328_000),
        ("2025-07-01", 1_751_328_000),
        ("1751328000", 1_751_328_000),
        ("0", 0),
    ] {
        let time = parse_time(text).expect(text);
        assert_eq!(
            time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs(),
            seconds,
            "{text}"
        );
    }
    for text in ["", "yesterday", "2025-07-01 00:00:00", "2025-13-01", "-1", "2025-07-0é"] {
        assert!(parse_time(text).is_none(), "{text}");
    }
    assert_eq!(time_text(parse_time("2025-07-01").expect("a date")), "2025-07-01T00:00:00Z");
}
