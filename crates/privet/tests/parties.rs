//! Dealer, server and clients over real TLS and real files: the whole path, and everything that has to be refused.

mod lab;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use lab::{Lab, copy, digit};
use privet::client::{self, ClientOptions};
use privet::events::Silent;
use privet::model::LoadedModel;
use privet::{Error, PROTOCOL_VERSION, PartyRole, RevealTo};
use privet_net::handshake::{Hello, recv_hello, send_hello};
use privet_net::{NetError, TlsConnector};

fn bundles(lab: &Lab, party: &str) -> Vec<PathBuf> {
    let dir = lab.path("parties").join(party).join("state/bundles");
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn every_inference_equals_the_reference_and_uses_up_one_bundle() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    assert_eq!((bundles(&lab, "server").len(), bundles(&lab, "client").len()), (2, 2));
    let server = lab.server_online("model");
    for n in [3, 8] {
        assert_eq!(lab.client_online("client", &server, n).unwrap(), lab.reference("model", n));
    }
    assert_eq!((bundles(&lab, "server").len(), bundles(&lab, "client").len()), (0, 0));
    let error = lab.client_online("client", &server, 1).unwrap_err().to_string();
    assert!(error.contains("no one-time material is left") && error.contains("client offline"), "{error}");
}

#[test]
fn offline_tops_up_to_the_count_asked_for() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let first = bundles(&lab, "client");
    lab.prepare("model", &["client"], 3);
    let all = bundles(&lab, "client");
    assert_eq!(all.len(), 3);
    assert!(all.contains(&first[0]), "what was there is kept");
    assert_eq!(bundles(&lab, "server").len(), 3);
}

#[test]
fn a_client_gets_no_more_inferences_than_the_server_allows() {
    let lab = Lab::new(&["client"]);
    let dealer = lab.dealer();
    let server = lab.server_offline("model", &dealer, 1);
    let error = lab.client_offline("client", &server, &dealer, 3).unwrap_err().to_string();
    assert!(error.contains("only 1 of 3 inferences are ready"), "{error}");
    server.join();
    assert_eq!((bundles(&lab, "server").len(), bundles(&lab, "client").len()), (1, 3));
    // What the client holds in advance is used when the server allows more.
    let server = lab.server_offline("model", &dealer, 3);
    lab.client_offline("client", &server, &dealer, 3).unwrap();
    server.join();
    assert_eq!((bundles(&lab, "server").len(), bundles(&lab, "client").len()), (3, 3));
    lab.answers("model", &[0, 6, 9]);
}

#[test]
fn two_clients_have_their_own_masks_and_answers() {
    let lab = Lab::new(&["north", "south"]);
    lab.prepare("model", &["north", "south"], 1);
    let masked = |party: &str| {
        let dir = lab.path("parties").join(party).join("state/models");
        let mut files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        std::fs::read(files.find(|p| p.extension().is_some_and(|e| e == "masked")).unwrap()).unwrap()
    };
    assert_ne!(
        masked("north"),
        masked("south"),
        "one mask for two clients reveals nothing yet, but must not happen"
    );
    let server = lab.server_online("model");
    std::thread::scope(|scope| {
        let south = scope.spawn(|| lab.client_online("south", &server, 5).unwrap());
        assert_eq!(lab.client_online("north", &server, 4).unwrap(), lab.reference("model", 4));
        assert_eq!(south.join().unwrap(), lab.reference("model", 5));
    });
}

/// A party's state, to go back to.
struct Backup<'a> {
    lab: &'a Lab,
    party: &'static str,
}

impl<'a> Backup<'a> {
    fn of(lab: &'a Lab, party: &'static str) -> Self {
        copy(&lab.path("parties").join(party).join("state"), &lab.path(&format!("backup-{party}")));
        Self { lab, party }
    }

    fn restore(self) {
        self.lab.forget(self.party);
        let backup = self.lab.path(&format!("backup-{}", self.party));
        copy(&backup, &self.lab.path("parties").join(self.party).join("state"));
    }
}

#[test]
fn a_client_that_was_restored_from_a_backup_is_refused_on_both_sides() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let backup = Backup::of(&lab, "client");
    let server = lab.server_online("model");
    lab.client_online("client", &server, 3).unwrap();
    backup.restore();
    let error = lab.client_online("client", &server, 4).unwrap_err().to_string();
    assert!(
        error.contains("the client's state is an old copy") && error.contains("has been at 1"),
        "{error}"
    );
    server.expect_warning("the client's state is an old copy");
    drop(server);
    let (dealer, error) = (lab.dealer(), "the client's state is an old copy");
    let server = lab.server_offline("model", &dealer, 2);
    let refused = lab.client_offline("client", &server, &dealer, 2).unwrap_err().to_string();
    assert!(refused.contains(error) && refused.contains("run the offline phase again"), "{refused}");
    // What the message says is what helps.
    lab.forget("client");
    lab.client_offline("client", &server, &dealer, 2).unwrap();
    server.join();
    lab.answers("model", &[4, 5]);
}

#[test]
fn a_server_that_was_restored_from_a_backup_is_refused_on_both_sides() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let backup = Backup::of(&lab, "server");
    lab.answers("model", &[3]);
    backup.restore();
    let server = lab.server_online("model");
    let error = lab.client_online("client", &server, 4).unwrap_err().to_string();
    assert!(error.contains("the server's state is an old copy"), "{error}");
    server.expect_warning("the server's state is an old copy");
    drop(server);
    assert_eq!(bundles(&lab, "client").len(), 1, "nothing was burnt");
    let dealer = lab.dealer();
    let server = lab.server_offline("model", &dealer, 2);
    let refused = lab.client_offline("client", &server, &dealer, 2).unwrap_err().to_string();
    assert!(refused.contains("the server's state is an old copy"), "{refused}");
    drop(server);
    drop(dealer);
    lab.forget("server");
    lab.prepare("model", &["client"], 2);
    lab.answers("model", &[4, 5]);
}

#[test]
fn a_dealer_that_was_restored_from_a_backup_deals_nothing_twice() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let backup = Backup::of(&lab, "dealer");
    lab.prepare("model", &["client"], 3);
    lab.answers("model", &[0, 1]);
    backup.restore();
    lab.prepare("model", &["client"], 3);
    lab.answers("model", &[2, 3, 4]);
}

/// Then the server remembers no session at all, and the client does.
#[test]
fn a_server_restored_to_before_its_first_client_is_refused() {
    let lab = Lab::new(&["client"]);
    let dealer = lab.dealer();
    let server = lab.server_offline("model", &dealer, 2);
    while bundles(&lab, "server").len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(server);
    let backup = Backup::of(&lab, "server");
    let server = lab.server_offline("model", &dealer, 2);
    lab.client_offline("client", &server, &dealer, 2).unwrap();
    server.join();
    lab.answers("model", &[3]);
    backup.restore();
    let server = lab.server_online("model");
    let error = lab.client_online("client", &server, 4).unwrap_err().to_string();
    assert!(error.contains("the server's state is an old copy"), "{error}");
    drop(server);
    let server = lab.server_offline("model", &dealer, 2);
    let error = lab.client_offline("client", &server, &dealer, 2).unwrap_err().to_string();
    assert!(error.contains("the server's state is an old copy"), "{error}");
}

/// The server and the dealer know nothing of what the client has used, and the client has forgotten it.
#[test]
fn a_new_client_state_gets_no_material_that_was_made_before() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let backups = [Backup::of(&lab, "server"), Backup::of(&lab, "dealer")];
    let before: Vec<_> = bundles(&lab, "server").iter().map(|p| p.file_name().unwrap().to_owned()).collect();
    lab.answers("model", &[3, 4]);
    backups.into_iter().for_each(Backup::restore);
    lab.forget("client");
    lab.prepare("model", &["client"], 2);
    for party in ["server", "client"] {
        let names: Vec<_> = bundles(&lab, party).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert!(names.len() == 2 && !names.iter().any(|n| before.contains(n)), "{party}: {names:?}");
    }
    lab.answers("model", &[5, 6]);
}

#[test]
fn another_plan_is_refused_on_both_sides() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    lab.compile("other", Some(12));
    let server = lab.server_online("other");
    let error = lab.client_online("client", &server, 3).unwrap_err().to_string();
    assert!(error.contains("the client has plan") && error.contains("client offline"), "{error}");
    server.expect_warning("the client has plan");
    assert_eq!(bundles(&lab, "client").len(), 1, "nothing was burnt");
}

/// m_W − m_W' would be the difference of the weights if two versions shared a mask.
#[test]
fn changed_weights_get_a_fresh_mask_and_burn_what_was_prepared() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let mut model = lab.model("model");
    model.weights.tensors[0][0] += 1;
    copy(&lab.path("model"), &lab.path("retrained"));
    let bytes = model.weights.to_bytes(&model.plan).unwrap();
    std::fs::write(lab.path("retrained/weights.safetensors"), bytes).unwrap();
    let server = lab.server_online("retrained");
    let error = lab.client_online("client", &server, 3).unwrap_err().to_string();
    assert!(error.contains("weights have changed"), "{error}");
    drop(server);
    lab.prepare("retrained", &["client"], 1);
    let masked: Vec<Vec<u8>> = std::fs::read_dir(lab.path("parties/client/state/models"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "masked"))
        .map(|p| std::fs::read(p).unwrap())
        .collect();
    assert_eq!(masked.len(), 2);
    let equal = masked[0].iter().zip(&masked[1]).filter(|(a, b)| a == b).count();
    assert!(equal < masked[0].len() / 32, "{equal} of {} bytes of two masked copies agree", masked[0].len());
    assert_eq!(bundles(&lab, "client").len(), 1);
    let server = lab.server_online("retrained");
    assert_eq!(lab.client_online("client", &server, 3).unwrap(), lab.reference("retrained", 3));
}

#[test]
fn another_protocol_version_is_refused_on_both_sides() {
    let lab = Lab::new(&["client"]);
    let server = lab.server_online("model");
    let config = lab.config("client", PartyRole::Client);
    let pinned = &config.peer(PartyRole::Server).unwrap().pinned;
    let mut channel =
        TlsConnector::connect(&server.address, &config.identity, pinned, config.deadlines).unwrap();
    let hello =
        Hello { protocol_version: PROTOCOL_VERSION + 1, software: "privet 9".into(), body: Vec::new() };
    let named = format!("protocol version {}", PROTOCOL_VERSION + 1);
    send_hello(&mut channel, &hello).unwrap();
    match recv_hello(&mut channel) {
        Err(NetError::Refused { reason, .. }) => assert!(reason.contains(&named), "{reason}"),
        other => panic!("expected a refusal, found {other:?}"),
    }
    server.expect_warning(&named);
}

#[test]
fn a_plaintext_peer_is_refused_and_the_next_one_served() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let server = lab.server_online("model");
    let mut plain = TcpStream::connect(&server.address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: privet\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|w| w == b"HTTP"), "no plaintext answer");
    server.expect_warning("did not speak TLS");
    assert_eq!(lab.client_online("client", &server, 3).unwrap(), lab.reference("model", 3));
}

#[test]
fn an_unknown_certificate_is_refused_on_both_sides() {
    let lab = Lab::new(&["client"]);
    lab.set_up("strangers", &["client"]);
    let server = lab.server_online("model");
    let stranger = lab.config_in("strangers", "client", PartyRole::Client);
    let known = lab.config("client", PartyRole::Client);
    let pinned = &known.peer(PartyRole::Server).unwrap().pinned;
    let refused =
        TlsConnector::connect(&server.address, &stranger.identity, pinned, stranger.deadlines).err().unwrap();
    assert!(matches!(refused, NetError::CertificateRefused { .. }), "{refused}");
    server.expect_warning("not pinned here");
    let strange_server = &stranger.peer(PartyRole::Server).unwrap().pinned;
    let refused = TlsConnector::connect(&server.address, &known.identity, strange_server, known.deadlines);
    assert!(matches!(refused.err().unwrap(), NetError::UnknownCertificate { .. }));
}

#[test]
fn a_client_that_lost_its_state_can_prepare_again() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    lab.forget("client");
    lab.prepare("model", &["client"], 2);
    assert_eq!(
        bundles(&lab, "server").len(),
        2,
        "what the client no longer holds makes room: two stay the limit"
    );
    lab.answers("model", &[1, 2]);
}

#[test]
fn a_dealer_that_lost_its_state_deals_under_a_new_mask() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    lab.forget("dealer");
    lab.prepare("model", &["client"], 2);
    lab.answers("model", &[1, 2]);
}

#[test]
fn a_damaged_bundle_of_the_server_is_passed_over() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 3);
    for bundle in &bundles(&lab, "server")[..2] {
        let whole = std::fs::read(bundle).unwrap();
        std::fs::write(bundle, &whole[..whole.len() / 2]).unwrap();
    }
    let server = lab.server_online("model");
    assert_eq!(lab.client_online("client", &server, 5).unwrap(), lab.reference("model", 5));
}

#[test]
fn strangers_without_a_certificate_do_not_take_the_places_of_clients() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let server = lab.server_online("model");
    let idle: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    assert_eq!(lab.client_online("client", &server, 5).unwrap(), lab.reference("model", 5));
    drop(idle);
}

#[test]
fn damaged_and_missing_files_are_named() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let server = lab.server_online("model");
    let bundle = bundles(&lab, "client").remove(0);
    let whole = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, &whole[..whole.len() - 1]).unwrap();
    let error = lab.client_online("client", &server, 3).unwrap_err().to_string();
    assert!(error.contains("cut short") && error.contains(".bundle"), "{error}");
    drop(server);
    let load = |dir: &str| LoadedModel::load(&lab.path(dir)).err().unwrap().to_string();
    assert!(load("nowhere").contains("nowhere"));
    for file in ["plan.privet", "weights.safetensors"] {
        copy(&lab.path("model"), &lab.path("damaged"));
        let path = lab.path("damaged").join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = load("damaged");
        assert!(error.contains(file), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(load("damaged").contains(file));
        std::fs::remove_dir_all(lab.path("damaged")).unwrap();
    }
}

#[test]
fn outputs_go_to_the_server_only_where_both_allow_it() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let ask = |lab: &Lab, server: &lab::Service, reveal_to| -> Result<Option<Vec<Vec<i64>>>, Error> {
        let config = lab.config("client", PartyRole::Client);
        let inputs = digit(7, &client::plan(&config)?);
        let options =
            ClientOptions { server: Some(server.address.clone()), reveal_to, ..ClientOptions::default() };
        Ok(client::online(config, &inputs, &options, &Silent)?.0)
    };
    let allow = |lab: &Lab, party: &str| {
        let path = lab.path("parties").join(party).join("privet.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("reveal_to = [\"client\"]"), "{text}");
        std::fs::write(
            &path,
            text.replace("reveal_to = [\"client\"]", "reveal_to = [\"client\", \"server\"]"),
        )
        .unwrap();
    };
    let server = lab.server_online("model");
    let error = ask(&lab, &server, RevealTo::Server).unwrap_err().to_string();
    assert!(error.contains("reveal_to"), "{error}");
    allow(&lab, "client");
    let error = ask(&lab, &server, RevealTo::Server).unwrap_err().to_string();
    assert!(error.contains("does not allow"), "{error}");
    drop(server);
    allow(&lab, "server");
    let server = lab.server_online("model");
    assert!(ask(&lab, &server, RevealTo::Server).unwrap().is_none());
}

#[test]
fn a_server_in_its_offline_phase_says_so() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let dealer = lab.dealer();
    let server = lab.server_offline("model", &dealer, 1);
    let error = lab.client_online("client", &server, 3).unwrap_err().to_string();
    assert!(error.contains("offline phase"), "{error}");
}

#[test]
fn nothing_private_is_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 1);
    let mut stack = vec![lab.path("parties")];
    let mut files = 0;
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            let public = path.extension().is_some_and(|e| e == "crt" || e == "toml");
            if path.is_dir() {
                stack.push(path);
            } else if !public {
                files += 1;
                assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
            }
        }
    }
    assert!(files >= 6, "{files} private files");
}
