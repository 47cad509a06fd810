//! What is left of keys in the memory of servers and caches, in all that the kernel shows of it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use memchr::memmem;
use privet::seal::read_content;

use nix::sys::signal::Signal;

use super::set_up;
use crate::dumps::Ordinary;
use crate::home::{Home, SAMPLE, Service, policy};

/// How often each form of a secret is found, in parts: freed memory loses its first bytes to the allocator.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
struct Found {
    raw: usize,
    base64: usize,
    hexadecimal: usize,
    list: usize,
}

const NOWHERE: Found = Found { raw: 0, base64: 0, hexadecimal: 0, list: 0 };

/// Looks through all readable memory of a process. `None`, said loudly, if this user may not.
fn look(service: &Service, secret: &[u8; 32]) -> Option<Found> {
    let pid = service.child.id();
    let mut memory = match fs::File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(e) => {
            eprintln!("SKIPPED: the memory of the process cannot be read, this takes root: {e}");
            return None;
        }
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let list = |part: &[u8]| part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes();
    // Halves for halves of the key, and of its base64 those characters that no other bytes decide.
    let parts = |form: &dyn Fn(&[u8]) -> Vec<u8>| [form(&secret[..15]), form(&secret[15..30])];
    let raw = parts(&|part| part.to_vec());
    let base64 = [parts(&|part| BASE64.encode(part).into()), parts(&|part| BASE64URL.encode(part).into())];
    let hexadecimal =
        [parts(&|part| HEXLOWER.encode(part).into()), parts(&|part| HEXUPPER.encode(part).into())];
    let mut found = Found::default();
    let mut bytes_read = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with('r') || line.contains("[vvar") || line.contains("[vsyscall") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        memory.seek(SeekFrom::Start(from)).unwrap();
        // It may have gone since.
        if memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        bytes_read += bytes.len();
        // Both parts of one copy count once.
        let count = |parts: &[Vec<u8>; 2]| {
            parts.iter().map(|part| memmem::find_iter(&bytes, part).count()).max().unwrap_or(0)
        };
        found.raw += count(&raw);
        // Two alphabets that agree on most keys.
        found.base64 += base64.iter().map(count).max().unwrap_or(0);
        found.hexadecimal += hexadecimal.iter().map(count).sum::<usize>();
        found.list += count(&parts(&list));
    }
    assert!(bytes_read > 1 << 20, "it has memory");
    Some(found)
}

/// Looks until it is as expected: a request's last buffers are dropped a moment after its answer.
#[track_caller]
fn assert_found(service: &Service, what: &str, secret: &[u8; 32], expected: Found) {
    assert!(is_found(service, what, secret, expected, || false), "nothing ends this");
}

/// The same, unless `is_over` comes first: then whether it is does not matter any more.
#[track_caller]
fn is_found(
    service: &Service,
    what: &str,
    secret: &[u8; 32],
    expected: Found,
    is_over: impl Fn() -> bool,
) -> bool {
    let start = Instant::now();
    for looks in 1.. {
        let found = look(service, secret);
        if is_over() {
            return false;
        }
        let Some(found) = found.filter(|found| *found != expected) else { break };
        let is_late = looks > 20 && start.elapsed() > Duration::from_secs(10);
        assert!(!is_late, "{what}: {found:?}, expected {expected:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    true
}

fn content(home: &Home, dir: &str) -> [u8; 32] {
    *read_content(&home.at(dir)).unwrap().0.expose()
}

#[test]
fn a_server_keeps_no_content_key_and_one_master_key() {
    let home = Home::new();
    set_up(&home);
    home.ok("key new --id vgg --out vgg");
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let fetch = format!("keyserver fetch {address} --server-certificate keys/tls.crt {SAMPLE} --key");
    home.ok("keyserver key add --dir keys --key vgg");
    assert_found(&server, "after key add", &content(&home, "vgg"), NOWHERE);
    home.ok("keyserver key rotate --dir keys --key owner --out owner2");
    assert_found(&server, "after key rotate", &content(&home, "owner2"), NOWHERE);
    home.fails(3, "keyserver key add --dir keys --key vgg", "there is a key vgg already");
    assert_found(&server, "after a refused key add", &content(&home, "vgg"), NOWHERE);
    home.ok(&format!("{fetch} resnet"));
    home.ok(&format!("{fetch} resnet --version 1"));
    home.fails(4, &format!("{fetch} vgg"), "no policy");
    for dir in ["owner", "owner2", "vgg"] {
        assert_found(&server, "after releases", &content(&home, dir), NOWHERE);
    }
    // That all this can be seen: the one key that it has to have.
    let master = fs::read(home.at("keys/master.key")).unwrap().try_into().unwrap();
    assert_found(&server, "the master key", &master, Found { raw: 1, ..NOWHERE });
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
}

/// And the lease ends, by the system's own clock, with the server gone.
#[test]
fn a_cache_keeps_a_leased_key_in_one_place_until_the_lease_ends() {
    // A machine that is too slow for a lease gets a longer one.
    let long_enough = [15, 60, 240].into_iter().find(|&seconds| a_lease_is_kept_until_it_ends(seconds));
    assert!(long_enough.is_some(), "this machine is too slow for a lease of 240 s");
}

/// Whether the lease lasted until all was seen that has to be while it does.
fn a_lease_is_kept_until_it_ends(seconds: u64) -> bool {
    let home = Home::new();
    set_up(&home);
    let lease = format!("seconds = {seconds}");
    let short = fs::read_to_string(home.at("resnet.toml")).unwrap().replace("seconds = 3600", &lease);
    fs::write(home.at("resnet.toml"), &short).unwrap();
    home.ok("keyserver policy set --dir keys resnet.toml");
    let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    home.ok(&format!("keycache init --dir cache --server {address} --server-certificate keys/tls.crt"));
    fs::write(home.at("cache/policies/resnet.toml"), &short).unwrap();
    let serve = format!("keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}");
    let (cache, local) = home.start(&serve);
    let fetch = format!("keyserver fetch {local} --key resnet --json {SAMPLE}");
    let fetched = home.ok(&fetch);
    let line = fetched.lines().find(|line| line.starts_with('{')).unwrap();
    let ends = serde_json::from_str::<serde_json::Value>(line).unwrap()["not_after"].as_u64().unwrap();
    let key = content(&home, "owner");
    let held = Found { base64: 1, ..NOWHERE };
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // What the machine did too late says nothing.
    let is_over = || now() + 1 >= ends;
    if !is_found(&cache, "a lease", &key, held, is_over) {
        return false;
    }
    assert_eq!(server.end(Signal::SIGTERM), Some(0));

    // A restart without the server, as long as the lease lasts.
    cache.end(Signal::SIGKILL);
    let (cache, _) = home.start(&serve);
    let (code, text) = home.run(&fetch);
    if is_over() {
        return false;
    }
    assert_eq!(code, Some(0), "{text}");
    if !is_found(&cache, "a lease after a restart", &key, held, is_over) {
        return false;
    }
    while now() <= ends {
        std::thread::sleep(Duration::from_millis(50));
    }
    home.fails(4, &fetch, "no lease of this key");
    assert_found(&cache, "after the lease", &key, NOWHERE);
    cache.end(Signal::SIGKILL);
    let (cache, _) = home.start(&serve);
    home.fails(4, &fetch, "no lease of this key");
    assert_eq!(cache.end(Signal::SIGTERM), Some(0));
    true
}

#[test]
fn servers_and_caches_leave_no_core_dump() {
    let home = Ordinary::new();
    home.ok("key new --id resnet --out owner");
    home.ok("keyserver init --dir keys --listen 127.0.0.1:0 --name localhost");
    home.ok("keyserver key add --dir keys --key owner");
    home.assert_not_dumped(&format!("keyserver serve --dir keys {SAMPLE}"));
    home.ok("keycache init --dir cache --server 127.0.0.1:1 --server-certificate keys/tls.crt");
    let (own, release) = (super::own_measurement(), home.path().join("owner/release.toml"));
    fs::write(home.path().join("cache/policies/resnet.toml"), policy(&release, &own, &own)).unwrap();
    home.give("cache/policies/resnet.toml");
    home.assert_not_dumped(&format!(
        "keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}"
    ));
}
