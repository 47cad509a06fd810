//! Keys and certificates on disk.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use privet_net::identity::{CERTIFICATE_FILE, KEY_FILE};
use privet_net::{Fingerprint, Identity, NetError, PinnedPeer};
use tempfile::tempdir;

#[test]
fn an_identity_survives_the_disk() {
    let dir = tempdir().unwrap();
    let home = dir.path().join("new").join("party");
    let identity = Identity::generate("hospital no. 1").unwrap();
    identity.write(&home).unwrap();
    let mode = fs::metadata(home.join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = Identity::load(&home).unwrap();
    assert_eq!(loaded.name(), "hospital no. 1");
    assert_eq!(loaded.fingerprint(), identity.fingerprint());
    let pinned = PinnedPeer::load(&home.join(CERTIFICATE_FILE)).unwrap();
    assert_eq!((&*pinned.name, pinned.fingerprint()), ("hospital no. 1", identity.fingerprint()));
    let copy = dir.path().join("hospital.crt");
    pinned.write(&copy).unwrap();
    assert_eq!(PinnedPeer::load(&copy).unwrap().fingerprint(), identity.fingerprint());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o660, 0o610] {
        let dir = tempdir().unwrap();
        Identity::generate("a").unwrap().write(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(KEY_FILE), Permissions::from_mode(mode)).unwrap();
        let error = Identity::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains(&format!("mode {mode:o}")), "{error}");
    }
}

#[test]
fn an_identity_is_never_overwritten() {
    let dir = tempdir().unwrap();
    let first = Identity::generate("a").unwrap();
    first.write(dir.path()).unwrap();
    let error = Identity::generate("b").unwrap().write(dir.path()).unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    assert_eq!(Identity::load(dir.path()).unwrap().fingerprint(), first.fingerprint());
}

#[test]
fn two_identities_of_one_name_differ() {
    let [a, b] = [(); 2].map(|()| Identity::generate("a").unwrap().fingerprint());
    assert_ne!(a, b);
}

#[test]
fn bad_files_are_named() {
    let dir = tempdir().unwrap();
    let problem = |error: NetError| match error {
        NetError::Identity { path, problem } => {
            assert!(path.starts_with(dir.path()), "{}", path.display());
            problem
        }
        other => panic!("{other}"),
    };
    assert!(problem(Identity::load(dir.path()).unwrap_err()).starts_with("missing"));
    let identity = Identity::generate("a").unwrap();
    identity.write(dir.path()).unwrap();
    let certificate = dir.path().join(CERTIFICATE_FILE);
    let pem = fs::read_to_string(&certificate).unwrap();
    for (content, expected) in [
        (String::new(), "found none"),
        ("hello".to_owned(), "found none"),
        (format!("{pem}{pem}"), "found more"),
        (pem.replace("\nMI", "\n!!"), "PEM"),
        ("x".repeat(100_000), "at most"),
        (pem.lines().take(2).collect::<Vec<_>>().join("\n"), ""),
    ] {
        fs::write(&certificate, content).unwrap();
        let found = problem(PinnedPeer::load(&certificate).unwrap_err());
        assert!(found.contains(expected), "{found}");
        Identity::load(dir.path()).unwrap_err();
    }
    fs::write(&certificate, &pem).unwrap();
    fs::write(dir.path().join(KEY_FILE), &pem).unwrap();
    assert!(problem(Identity::load(dir.path()).unwrap_err()).contains("no PEM private key"));
}

#[test]
fn names_are_checked() {
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(Identity::generate(name).is_err(), "{name:?}");
    }
    assert_eq!(Identity::generate(&"x".repeat(64)).unwrap().name().len(), 64);
}

#[test]
fn nothing_shows_the_key() {
    let dir = tempdir().unwrap();
    let identity = Identity::generate("a").unwrap();
    identity.write(dir.path()).unwrap();
    let pem = fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    assert!(!format!("{identity:?} {identity:#?}").contains(&secret[..16]));
}

#[test]
fn fingerprints_are_text_and_back() {
    let fingerprint = Fingerprint::of(b"abc");
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(fingerprint.to_string(), text);
    assert_eq!(fingerprint.short(), "sha256:ba7816bf8f01cfea");
    assert_eq!(text.parse(), Ok(fingerprint));
    assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(fingerprint));
    for bad in
        ["", "ba78", &text[..70], &format!("{text}0"), &text.replace("ba", "g0"), &text.replace("ba", "é")]
    {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
    let bytes = postcard::to_allocvec(&fingerprint).unwrap();
    assert_eq!(postcard::from_bytes::<Fingerprint>(&bytes), Ok(fingerprint));
}
