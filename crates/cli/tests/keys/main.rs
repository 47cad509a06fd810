//! Key server, key cache and workers as processes: what the documentation shows, what is refused, and that no word of
//! theirs holds a key.

#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
#[path = "../common/dumps.rs"]
mod dumps;
#[path = "../common/home.rs"]
mod home;
mod kill;
#[cfg(target_os = "linux")]
mod memory;

use std::fs;

use home::{Home, SAMPLE, own_measurement, policy};
use nix::sys::signal::Signal;
use privet::keys::make_certificate;
use privet::seal::read_content;

/// A server's directory with a key, its policy, and a file of a policy that accepts nobody.
fn set_up(home: &Home) {
    home.ok("key new --id resnet --out owner");
    home.ok("keyserver init --dir keys --listen 127.0.0.1:0 --name localhost --name 127.0.0.1");
    home.ok("keyserver key add --dir keys --key owner");
    let (own, nobody) = (own_measurement(), "00".repeat(32));
    let release = home.at("owner/release.toml");
    fs::write(home.at("resnet.toml"), policy(&release, &own, &own)).unwrap();
    fs::write(home.at("nobody.toml"), policy(&release, &nobody, &nobody)).unwrap();
    home.ok("keyserver policy check resnet.toml");
    home.ok("keyserver policy set --dir keys resnet.toml");
}

#[test]
fn from_a_new_key_to_a_worker_and_through_a_cache() {
    let home = Home::new();
    set_up(&home);
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let fetch =
        format!("keyserver fetch {address} --key resnet --server-certificate keys/tls.crt --json {SAMPLE}");
    let fingerprint = |text: &str| {
        let line = text.lines().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["fingerprint"].as_str().unwrap().to_owned()
    };
    let of = |dir: &str| read_content(&home.at(dir)).unwrap().0.fingerprint().to_string();
    let text = home.ok(&fetch);
    assert!(text.contains("sample, INSECURE"), "{text}");
    assert_eq!(fingerprint(&text), of("owner"));

    // Without the flag there is neither evidence nor anyone who accepts it.
    home.fails(1, &fetch.replace(SAMPLE, ""), "cannot attest");
    home.fails(4, &fetch.replace("--key resnet", "--key vgg"), "InvalidRequestPath");
    home.fails(
        2,
        &fetch.replace("--server-certificate keys/tls.crt", ""),
        "expected --server-certificate FILE",
    );
    // Changes while the server runs: through it.
    home.ok("keyserver key rotate --dir keys --key owner --out owner2");
    assert_eq!(fingerprint(&home.ok(&fetch)), of("owner2"));
    assert_eq!(fingerprint(&home.ok(&format!("{fetch} --version 1"))), of("owner"));
    home.fails(3, "keyserver key add --dir keys --key owner", "there is a key resnet already");
    home.ok("keyserver policy set --dir keys nobody.toml");
    home.fails(4, &fetch, "PolicyDeny");
    home.ok("keyserver policy set --dir keys resnet.toml");
    let list = home.ok("keyserver key list --dir keys");
    assert!(list.contains("version 1, active") && list.contains("version 2, active"), "{list}");

    // A cache, and workers of its host.
    home.ok(&format!("keycache init --dir cache --server {address} --server-certificate keys/tls.crt"));
    let serve = format!("keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}");
    home.fails(3, &serve, "found none");
    fs::copy(home.at("resnet.toml"), home.at("cache/policies/resnet.toml")).unwrap();
    home.fails(3, &format!("keycache serve --dir cache {SAMPLE}"), "--sealing-key-file-insecure");
    let (cache, local) = home.start(&serve);
    let locally = format!("keyserver fetch {local} --key resnet --json {SAMPLE}");
    assert_eq!(fingerprint(&home.ok(&locally)), of("owner2"));
    home.fails(4, &locally.replace("--key resnet", "--key vgg"), "no policy for this key");

    // Without the server, after a crash.
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
    home.fails(4, &fetch, "cannot connect");
    cache.end(Signal::SIGKILL);
    let (cache, _) = home.start(&serve);
    assert_eq!(fingerprint(&home.ok(&locally)), of("owner2"));
    home.fails(4, &format!("{locally} --version 1"), "no lease of this key");
    assert!(home.ok(&locally.replace("--json", "")).contains("evidence              sample, INSECURE"));
    assert_eq!(cache.end(Signal::SIGTERM), Some(0));
    let said = String::from_utf8(home.said.lock().unwrap().clone()).unwrap();
    let of_cache = |line: &&str| line.contains("leased key") || line.contains("released key");
    let of_cache: Vec<&str> = said.lines().filter(of_cache).collect();
    assert!(
        of_cache.len() >= 3 && of_cache.iter().all(|line| line.starts_with("sample, INSECURE: ")),
        "{said}"
    );
    let leases = fs::read(home.at("cache/leases.sealed")).unwrap();
    fs::write(home.at("cache/leases.sealed"), [&leases[..], b"x"].concat()).unwrap();
    home.fails(3, &serve, "have been changed");

    // Revoked; the log tells it all.
    home.ok("keyserver key revoke --dir keys resnet");
    let (server, address) = home.start(&format!("keyserver serve --dir keys --listen 127.0.0.1:0 {SAMPLE}"));
    let (_, port) = address.rsplit_once(':').unwrap();
    let fetch = fetch.replace(fetch.split_whitespace().nth(2).unwrap(), &format!("localhost:{port}"));
    home.fails(4, &fetch, "all versions of this key are revoked");
    let whole = home.ok("keyserver audit verify --dir keys");
    let anchor = whole.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
    home.ok(&format!("keyserver audit verify --dir keys --noted {anchor}"));
    let other = anchor.replace(|c: char| c.is_ascii_digit(), "1");
    home.fails(3, &format!("keyserver audit verify --dir keys --noted {other}"), "has been changed");
    let log = home.ok("keyserver audit list --dir keys");
    for event in [
        "created",
        "key-added",
        "policy-set",
        "started",
        "attested",
        "released",
        "leased",
        "refused",
        "key-revoked",
    ] {
        assert!(log.contains(&format!("\"{event}\"")), "{event} in {log}");
    }
}

#[test]
fn server_and_workers_attest_each_other() {
    let home = Home::new();
    set_up(&home);
    let accepts = |measurement: &str| {
        format!("version = 1\n[sample]\nallow_sample_insecure = true\nmeasurement = [\"{measurement}\"]\n")
    };
    fs::write(home.at("peer.toml"), accepts(&own_measurement())).unwrap();
    fs::write(home.at("other.toml"), accepts(&"11".repeat(32))).unwrap();
    let serve = format!("keyserver serve --dir keys --ra-tls --clients peer.toml {SAMPLE}");
    let (_server, address) = home.start(&serve);
    let fetch = format!("keyserver fetch {address} --key resnet {SAMPLE}");
    home.ok(&format!("{fetch} --server-policy peer.toml"));
    let (code, text) = home.run(&format!("{fetch} --server-policy other.toml"));
    assert_eq!(code, Some(4), "{text}");
    // In words, with both measurements whole.
    let whole = [own_measurement(), "11".repeat(32)];
    assert!(
        text.contains("TLS: the evidence is authentic, but the policy") && !text.contains("Verdict"),
        "{text}"
    );
    assert!(whole.iter().all(|measurement| text.contains(measurement)), "{text}");
    home.fails(4, &format!("{fetch} --server-certificate keys/tls.crt"), "TLS");
}

/// On a host where workers cannot see the cache's files.
#[test]
fn a_cache_on_a_loopback_address_speaks_tls() {
    let home = Home::new();
    set_up(&home);
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let init = format!("keycache init --dir cache --server {address} --server-certificate keys/tls.crt");
    home.fails(2, &format!("{init} --listen 0.0.0.0:0"), "loopback");
    home.ok(&format!("{init} --listen 127.0.0.1:0"));
    fs::copy(home.at("resnet.toml"), home.at("cache/policies/resnet.toml")).unwrap();
    let serve = format!("keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}");
    home.fails(3, &serve, "tls.key");
    make_certificate(&home.at("cache"), &["127.0.0.1".to_owned()]).unwrap();
    let (cache, local) = home.start(&serve);
    assert!(local.starts_with("127.0.0.1:"), "{local}");
    let fetch = format!("keyserver fetch {local} --key resnet {SAMPLE}");
    let text = home.ok(&format!("{fetch} --server-certificate cache/tls.crt"));
    let leased = text.lines().find(|line| line.contains("leased until")).unwrap();
    let at = leased.split_whitespace().last().unwrap();
    assert!(at.ends_with('Z') && privet::attest::parse_time(at).is_some(), "{leased}");
    home.fails(
        4,
        &format!("{fetch} --server-certificate keys/tls.crt"),
        "its certificate is not the pinned one",
    );
    home.fails(2, &fetch, "expected --server-certificate FILE");
    // Without TLS nobody is talked to.
    let mut stream = std::net::TcpStream::connect(&local).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(!answer.windows(4).any(|w| w == b"HTTP"), "{answer:?}");
    assert_eq!((server.end(Signal::SIGTERM), cache.end(Signal::SIGTERM)), (Some(0), Some(0)));
}

/// What people get wrong, and whether they are told what to do.
#[test]
fn mistakes_are_named() {
    let home = Home::new();
    set_up(&home);
    home.fails(
        3,
        "keyserver init --dir other --name bad/name",
        "\"bad/name\" is not the name or address of a host",
    );
    assert!(!home.at("other/tls.key").exists());
    home.fails(
        3,
        &format!("keyserver serve --dir owner {SAMPLE}"),
        "a directory that privet keyserver init has made",
    );
    home.fails(
        3,
        &format!("keycache serve --dir keys {SAMPLE}"),
        "a directory that privet keycache init has made",
    );
    home.fails(3, "keyserver key add --dir keys --key keys", "a directory that privet key new");
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    home.ok("keyserver init --dir second");
    home.fails(
        1,
        &format!("keyserver serve --dir second --listen {address}"),
        &format!("cannot listen on {address}"),
    );
    fs::write(home.at("empty"), "").unwrap();
    let with_empty = format!("keyserver serve --dir second {SAMPLE} --collateral empty");
    home.fails(3, &with_empty, "empty: malformed collateral");
    home.fails(3, "attest verify --collateral empty empty", "empty: malformed collateral");
    home.ok("keyserver key rotate --dir keys --key owner --out owner2");
    assert!(
        home.ok("keyserver key revoke --dir keys resnet --version 1").contains("revoked 1 version of key")
    );
    assert!(home.ok("keyserver key revoke --dir keys resnet").contains("revoked 1 version of key"));
    assert!(home.ok("keyserver key revoke --dir keys resnet").contains("revoked 0 versions of key"));
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
}

/// A socket that others can open, by mistake, does not serve them, and one of others is not told anything.
#[cfg(target_os = "linux")]
#[test]
fn the_admin_socket_is_its_users_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: to be somebody else takes root");
        return;
    }
    let home = Home::new();
    set_up(&home);
    let (server, _) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    for (name, mode) in [(".", 0o711), ("keys", 0o711), ("keys/admin.sock", 0o666)] {
        fs::set_permissions(home.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let other = dumps::Ordinary::new();
    let list = format!("keyserver key list --dir {}", home.at("keys").display());
    let (code, out, err) = common::text(other.command(&list).output().unwrap());
    assert!(
        code == Some(4) && out.is_empty() && err.contains("broke the connection before it answered"),
        "{code:?} {out} {err}"
    );
    assert!(home.ok(&list).contains("resnet"), "its own user");
    // A directory of somebody else's, in which this user's process listens.
    chown(home.at("keys"), Some(65534), Some(65534)).unwrap();
    home.fails(
        3,
        "keyserver key add --dir keys --key owner",
        "not of the user whom the directory belongs to",
    );
    chown(home.at("keys"), Some(0), Some(0)).unwrap();
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
}

#[test]
fn policies_are_linted_and_stores_closed() {
    let home = Home::new();
    set_up(&home);
    let text = home.ok("keyserver policy check resnet.toml");
    assert!(text.contains("INSECURE: get.sample") && text.contains("INSECURE: lease.to.sample"), "{text}");
    let good = fs::read_to_string(home.at("resnet.toml")).unwrap();
    for (from, to, word) in [
        ("version = 1\nkey_id", "version = 9\nkey_id", "version 9"),
        ("[lease]\nseconds", "[lease]\nhours", "unknown field"),
        ("minimum_model_version = 1", "minimum_model_version = -1", "line 4, column 25: invalid value"),
        ("key_id = ", "key_id == ", "TOML parse error"),
    ] {
        assert!(good.contains(from), "{good}");
        fs::write(home.at("bad.toml"), good.replacen(from, to, 1)).unwrap();
        home.fails(3, "keyserver policy check bad.toml", word);
        home.fails(3, "keyserver policy set --dir keys bad.toml", word);
    }
    fs::write(home.at("bad.toml"), good.replace("\"resnet\"", "\"vgg\"")).unwrap();
    home.fails(3, "keyserver policy set --dir keys bad.toml", "no key vgg");
    home.fails(3, "keyserver policy check missing.toml", "missing.toml");
    home.fails(3, "keyserver key list --dir nowhere", "keyserver.toml");
    home.fails(3, "keyserver init --dir keys", "already");
    fs::remove_file(home.at("keys/master.key")).unwrap();
    home.fails(3, "keyserver key list --dir keys", "master.key");
    let (code, text) = home.run("keyserver init --dir kms --master-command false");
    assert!(code == Some(3) && text.contains("exit status: 1"), "{text}");
    // What failed can be done again; nothing of it is left, and nothing that was there is touched.
    home.fails(3, "keyserver init --dir kms --passphrase-file missing", "cannot find missing");
    home.ok("keyserver init --dir kms");
    home.ok("keyserver key list --dir kms");
    fs::remove_file(home.at("kms/keyserver.toml")).unwrap();
    home.fails(3, "keyserver init --dir kms", "keys.redb: exists already");
    assert!(home.at("kms/master.key").exists() && home.at("kms/keys.redb").exists());
    // Others could put a socket of their own into it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(home.at("keys"), open).unwrap();
    home.fails(3, "keyserver key add --dir keys --key owner", "chmod 700");
    home.fails(3, &format!("keyserver serve --dir keys {SAMPLE}"), "chmod 700");
    // A key's file where a policy is expected is not quoted.
    let key = "0123456789abcdef".repeat(4);
    fs::write(home.at("key.hex"), &key).unwrap();
    for line in [
        "keyserver policy check key.hex",
        "attest verify --policy key.hex resnet.toml",
        "dealer --config key.hex",
        "share --model m --to key.hex --out x",
    ] {
        let (code, text) = home.run(line);
        assert!(code == Some(3) && text.contains("line 1, column 65") && !text.contains(&key), "{text}");
    }
}

/// Nothing that is said, written or stored holds a key as bytes, hexadecimal, base64 or a list of numbers.
#[test]
fn no_key_is_said_or_stored_in_the_clear() {
    use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

    let home = Home::new();
    set_up(&home);
    let words = "correct horse battery staple 7";
    fs::write(home.at("words"), words).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(home.at("words"), closed).unwrap();
    home.ok("keyserver init --dir other --passphrase-file words");
    home.ok("keyserver key add --dir other --key owner");
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let fetch = format!("keyserver fetch {address} --key resnet --server-certificate keys/tls.crt {SAMPLE}");
    home.ok(&fetch);
    home.ok("keyserver key rotate --dir keys --key owner --out owner2");
    home.ok(&fetch);
    home.ok("keyserver policy set --dir keys nobody.toml");
    home.fails(4, &fetch, "PolicyDeny");
    home.ok("keyserver policy set --dir keys resnet.toml");
    home.ok(&format!("keycache init --dir cache --server {address} --server-certificate keys/tls.crt"));
    fs::copy(home.at("resnet.toml"), home.at("cache/policies/resnet.toml")).unwrap();
    let (cache, local) =
        home.start(&format!("keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}"));
    home.ok(&format!("keyserver fetch {local} --key resnet {SAMPLE}"));
    // What a process may say when it breaks: files that hold keys where something else is expected.
    for line in [
        "keyserver policy check owner/content.key",
        "keyserver policy check keys/master.key",
        "keyserver policy set --dir keys keys/master.key",
        "keyserver init --dir third --master-key-file owner/content.key",
        "keyserver key add --dir keys --key owner",
    ] {
        assert_ne!(home.run(line).0, Some(0), "{line}");
    }
    home.ok("keyserver key list --dir keys --json");
    home.ok("keyserver audit list --dir keys");
    assert_eq!((server.end(Signal::SIGTERM), cache.end(Signal::SIGTERM)), (Some(0), Some(0)));

    let key = |dir: &str| read_content(&home.at(dir)).unwrap().0.expose().to_vec();
    let mut looks: Vec<(&str, Vec<u8>)> = vec![("passphrase", words.as_bytes().to_vec())];
    for (name, secret) in [
        ("content key", key("owner")),
        ("content key 2", key("owner2")),
        ("master key", fs::read(home.at("keys/master.key")).unwrap()),
        ("sealing key", fs::read(home.at("seal.key")).unwrap()),
    ] {
        assert_eq!(secret.len(), 32);
        let list: Vec<String> = secret.iter().map(u8::to_string).collect();
        looks.extend([
            (name, secret.clone()),
            (name, HEXLOWER.encode(&secret).into_bytes()),
            (name, HEXLOWER.encode(&secret).to_uppercase().into_bytes()),
            // The last characters depend on what follows.
            (name, BASE64.encode(&secret).into_bytes()[..42].to_vec()),
            (name, BASE64URL_NOPAD.encode(&secret).into_bytes()[..42].to_vec()),
            (name, list.join(", ").into_bytes()),
            (name, list.join(",").into_bytes()),
        ]);
    }
    let said = home.said.lock().unwrap();
    assert!(said.len() > 5000, "they have said a lot");
    let absent = |place: &str, text: &[u8]| {
        for (name, look) in &looks {
            let found = text.windows(look.len()).any(|w| w == look);
            assert!(!found, "{name} in {place}");
        }
    };
    absent("what was said", &said);
    for file in [
        "keys/keys.redb",
        "other/keys.redb",
        "cache/leases.sealed",
        "keys/keyserver.toml",
        "cache/keycache.toml",
    ] {
        absent(file, &fs::read(home.at(file)).unwrap());
    }
}
