//! `kill -9` at random moments: what was acknowledged is there, policies are whole, the log is unbroken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use privet::keys::server::ServerConfig;
use privet::keys::{AdminRequest, KeyPolicy, OwnerKey, administer_at};
use privet::seal::{ContentKey, KeyId, OwnerKeys, Release};

use super::{Home, SAMPLE, Signal, policy, set_up};

const KILLS: usize = 200;
/// The same moments in every run, as far as the machine goes.
const SEED: u64 = 20261130;

/// A linear congruential generator (Knuth, MMIX): only moments are drawn.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn two_hundred_kills_lose_no_acknowledged_key_and_leave_no_half_policy() {
    println!("seed {SEED}");
    let home = Home::new();
    set_up(&home);
    let dir = home.at("keys");
    let resnet: KeyId = "resnet".parse().unwrap();
    let base = policy(&home.at("owner/release.toml"), &"aa".repeat(32), &"bb".repeat(32));
    let first = OwnerKeys::read(&home.at("owner")).unwrap();
    let mut draw = Draw(SEED);
    let mut added: Vec<(KeyId, ContentKey)> = Vec::new();
    let mut set = std::fs::read_to_string(home.at("resnet.toml")).unwrap();
    // Moments within a dozen requests: on a slow disk as on a fast one, some are acknowledged and one is under way.
    let (server, _) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
    let start = Instant::now();
    assert!(administer_socket(&dir, &AdminRequest::SetPolicy(set.clone())));
    let span = (12 * start.elapsed()).clamp(Duration::from_millis(80), Duration::from_secs(1));
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
    let (mut mid_work, mut numbers) = (0, 0u64..);
    for kill in 0..KILLS {
        let (server, _) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
        let moment = Duration::from_micros(draw.below(span.as_micros() as u64));
        let dead = Arc::new(AtomicBool::new(false));
        let executioner = std::thread::spawn({
            let dead = dead.clone();
            move || {
                std::thread::sleep(moment);
                dead.store(true, Ordering::SeqCst);
                server.end(Signal::SIGKILL)
            }
        });
        let (mut tried_key, mut tried_policy) = (None, None);
        while !dead.load(Ordering::SeqCst) {
            let n = numbers.next().unwrap();
            if n % 3 == 0 {
                // Of very different lengths, with a mark at the end.
                let text = format!("# {n}\n{base}#{}\n# end {n}\n", "x".repeat((n as usize * 977) % 40_000));
                tried_policy = Some(text.clone());
                if administer_socket(&dir, &AdminRequest::SetPolicy(text.clone())) {
                    (set, tried_policy) = (text, None);
                }
            } else {
                let id: KeyId = format!("key-{n}").parse().unwrap();
                let content = ContentKey::generate().unwrap();
                let release = Release {
                    key_id: id.clone(),
                    fingerprint: content.fingerprint(),
                    ..first.release.clone()
                };
                tried_key = Some(id.clone());
                if administer_socket(&dir, &AdminRequest::Add(OwnerKey::new(&content, &release))) {
                    added.push((id, content));
                    tried_key = None;
                }
            }
        }
        assert_eq!(executioner.join().unwrap(), None, "it was killed");
        mid_work += usize::from(tried_key.is_some() || tried_policy.is_some());

        let store = ServerConfig::load(&dir).unwrap().open_store(&dir).unwrap();
        let newest = added.len().saturating_sub(40);
        // All of them at the end, the newest after every kill.
        let looked_at = if kill + 1 == KILLS { &added[..] } else { &added[newest..] };
        for (id, content) in looked_at {
            let info = store.info(id).unwrap().unwrap_or_else(|| panic!("kill {kill}: {id} is lost"));
            assert!(store.secret(id, info.versions[0].version).unwrap().unwrap() == *content, "{id}");
        }
        let found = store.policy(&resnet).unwrap().unwrap();
        KeyPolicy::parse("after the kill", &found).unwrap();
        assert!(
            found == set || tried_policy.as_ref() == Some(&found),
            "kill {kill}: a policy that nobody set"
        );
        set = found;
        store.verify_audit(None).unwrap();
    }
    println!("{} keys acknowledged, {mid_work} of {KILLS} kills in the middle of something", added.len());
    assert!(added.len() >= KILLS / 5 && mid_work >= KILLS / 4, "{} keys, {mid_work}", added.len());
}

/// Whether it was acknowledged, by the running server (or, where that has just died, by the store itself).
fn administer_socket(dir: &std::path::Path, request: &AdminRequest) -> bool {
    let socket = dir.join(privet::keys::ADMIN_SOCKET);
    std::os::unix::net::UnixStream::connect(socket).is_ok() && administer_at(dir, request).is_ok()
}
