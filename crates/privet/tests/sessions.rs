//! Inferences over one connection: what they use up and cost, what happens when either side leaves, and peers that break the
//! rules of agreeing.

mod lab;

use std::time::Duration;

use lab::{Lab, Service, copy, digit};
use privet::client::{self, Agreed, ClientOptions, Session};
use privet::events::Silent;
use privet::explain::{Opening, Setting, explain};
use privet::{Error, Event, NetError, Observer, PROTOCOL_VERSION, PartyRole, Plan, RevealTo};
use privet_net::handshake::{Hello, recv_hello, send_hello};
use privet_net::{Channel, Frame, FrameKind, HEADER_BYTES, TlsChannel, TlsConnector, TlsListener};
use privet_protocols::masked::Role;
use serde::{Deserialize, Serialize};

fn open<'a>(
    lab: &Lab,
    address: &str,
    inferences: u64,
    observer: &'a dyn Observer,
) -> Result<Agreed<'a>, Error> {
    let options = ClientOptions { server: Some(address.to_owned()), ..ClientOptions::default() };
    Session::open(lab.config("client", PartyRole::Client), &options, inferences, observer)
}

/// The answer to one digit, and what can be agreed on next.
fn ask<'a>(agreed: Agreed<'a>, n: u32) -> Result<(Vec<i64>, Session<'a>), Error> {
    let inputs = digit(n, agreed.plan());
    let (outputs, session) = agreed.infer(&inputs)?;
    Ok((outputs.expect("the client learns the output").remove(0), session))
}

/// Bundles that are unused, at the server and at the client.
fn unused(lab: &Lab) -> [usize; 2] {
    unused_in(lab, "parties")
}

fn unused_in(lab: &Lab, parties: &str) -> [usize; 2] {
    [("server", PartyRole::Server), ("client", PartyRole::Client)].map(|(party, role)| {
        let files = std::fs::read_dir(lab.path(parties).join(party).join("state/bundles")).unwrap().count();
        let unused = privet::status::unused(&lab.config_in(parties, party, role)).unwrap();
        let names: usize = unused.iter().map(|u| u.bundles.len()).sum();
        assert_eq!(names, files, "{party}: what is recorded as unused is what is there");
        names
    })
}

fn plan(lab: &Lab) -> Plan {
    lab.model("model").plan
}

fn openings(plan: &Plan) -> Vec<Opening> {
    explain(plan, Setting::TwoParty(RevealTo::Client)).rows.into_iter().flat_map(|r| r.openings).collect()
}

#[test]
fn every_inference_of_a_session_uses_up_one_bundle_and_costs_what_its_plan_declares() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 7);
    let server = lab.server_online_for("model", 6);
    let mut agreed = open(&lab, &server.address, 6, &Silent).unwrap();
    let mut n = 0;
    let client = loop {
        let (answer, session) = ask(agreed, n).unwrap();
        assert!(answer == lab.reference("model", n), "the result is wrong");
        n += 1;
        if session.left() == 0 {
            break session.close().unwrap();
        }
        agreed = session.agree().unwrap();
    };
    let server = server.join();
    assert_eq!(unused(&lab), [1, 1]);
    let plan = plan(&lab);
    let explained = explain(&plan, Setting::TwoParty(RevealTo::Client));
    for (report, role, sends) in [
        (&server, Role::Server, explained.totals.server_sends),
        (&client, Role::Client, explained.totals.client_sends),
    ] {
        let peer = if role == Role::Server { Role::Client } else { Role::Server };
        let frames = openings(&plan).iter().filter(|o| o.to.includes(peer)).count();
        assert_eq!(report.bytes_sent as usize, 6 * (sends + frames * HEADER_BYTES), "{role:?}");
        assert_eq!((report.inferences, report.rounds), (6, 6 * explained.totals.rounds), "{role:?}");
        assert_eq!((report.work.len(), report.agreement.work.len()), (6, 6));
        // Four bundles are on offer at a time.
        assert_eq!(report.agreement.rounds, explained.agreement_rounds + 2, "{role:?}");
        assert!(report.agreement.bytes_sent > 0 && report.agreement.work.iter().all(|w| w.seconds > 0.0));
    }
    assert_eq!(client.agreement.bytes_sent, server.agreement.bytes_received);
    assert_eq!(client.bytes_sent, server.bytes_received);
}

/// The states as they would be found after both have died.
#[test]
fn what_is_agreed_on_is_burnt_on_both_sides_before_there_is_an_input() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 3);
    let server = lab.server_online("model");
    let mut agreed = open(&lab, &server.address, 3, &Silent).unwrap();
    for left in [2, 1] {
        copy(&lab.path("parties"), &lab.path("dead"));
        assert_eq!(unused_in(&lab, "dead"), [left, left]);
        std::fs::remove_dir_all(lab.path("dead")).unwrap();
        agreed = ask(agreed, 5).unwrap().1.agree().unwrap();
    }
}

/// Tells what it was warned of.
#[derive(Default)]
struct Warnings(std::sync::Mutex<Vec<String>>);

impl Observer for Warnings {
    fn event(&self, event: &Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[test]
fn a_client_that_leaves_costs_one_bundle_and_the_server_goes_on() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 10);
    let server = lab.server_online("model");
    // Without an input, with a goodbye and without: both sides have burnt one.
    open(&lab, &server.address, 3, &Silent).unwrap().close().unwrap();
    drop(open(&lab, &server.address, 3, &Silent).unwrap());
    // After one of three: the server has burnt the next, and the client is told so when it comes again.
    for polite in [true, false] {
        let (answer, session) = ask(open(&lab, &server.address, 3, &Silent).unwrap(), 3).unwrap();
        assert_eq!(answer, lab.reference("model", 3));
        // Until the server has chosen the next.
        std::thread::sleep(Duration::from_millis(200));
        if polite {
            drop(session.close().unwrap())
        } else {
            drop(session)
        }
        let warnings = Warnings::default();
        let (answer, session) = ask(open(&lab, &server.address, 1, &warnings).unwrap(), 4).unwrap();
        assert_eq!(answer, lab.reference("model", 4));
        session.close().unwrap();
        let told = warnings.0.into_inner().unwrap().join("\n");
        assert!(told.contains("used or lost 1 bundles"), "{told}");
    }
    drop(server);
    assert_eq!(unused(&lab), [2, 2]);
    lab.answers("model", &[8]);
}

#[test]
fn a_client_gets_no_more_than_what_the_server_has_left_to_make() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 4);
    let error = open(&lab, "127.0.0.1:1", 5, &Silent).err().unwrap().to_string();
    assert!(error.contains("one-time material for 4 of 5 inferences is left"), "{error}");
    let error = open(&lab, "127.0.0.1:1", 0, &Silent).err().unwrap().to_string();
    assert!(error.contains("at least one inference"), "{error}");
    let server = lab.server_online_for("model", 3);
    let refused = |n, left| {
        let error = open(&lab, &server.address, n, &Silent).err().unwrap().to_string();
        assert!(error.contains(&format!("makes only {left} more (its --sessions)")), "{error}");
    };
    refused(4, 3);
    let (answer, session) = ask(open(&lab, &server.address, 1, &Silent).unwrap(), 1).unwrap();
    assert_eq!(answer, lab.reference("model", 1));
    assert!(session.agree().err().unwrap().to_string().contains("opened for 1 inferences"));
    refused(3, 2);
    assert_eq!(lab.client_online("client", &server, 2).unwrap(), lab.reference("model", 2));
    assert_eq!(lab.client_online("client", &server, 3).unwrap(), lab.reference("model", 3));
    assert_eq!(server.join().inferences, 3);
    assert_eq!(unused(&lab), [1, 1], "what was refused has cost nothing");
}

#[test]
fn a_server_that_is_to_stop_makes_the_inference_that_is_agreed_on() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 3);
    let server = lab.server_online("model");
    let agreed = open(&lab, &server.address, 3, &Silent).unwrap();
    server.ask_to_stop();
    let (answer, session) = ask(agreed, 3).unwrap();
    assert_eq!(answer, lab.reference("model", 3));
    let error = session.agree().err().unwrap().to_string();
    assert!(error.contains("the server is stopping"), "{error}");
    assert_eq!(server.join().inferences, 1);
    assert_eq!(unused(&lab), [2, 2]);
}

#[test]
fn an_input_that_does_not_come_is_given_up_with_a_reason_on_both_sides() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let server = lab.server_online_hurried("model", Duration::from_secs(3));
    let agreed = open(&lab, &server.address, 2, &Silent).unwrap();
    server.expect_warning("no input within ");
    let error = ask(agreed, 1).err().unwrap().to_string();
    assert!(error.contains("no input within ") && error.contains("its one-time material lost"), "{error}");
    drop(server);
    assert_eq!(unused(&lab), [1, 1]);
    lab.answers("model", &[6]);
}

/// Inputs that do not fit cost nothing where they are known before.
#[test]
fn inputs_that_do_not_fit_are_refused() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let server = lab.server_online("model");
    let options = ClientOptions { server: Some(server.address.clone()), ..ClientOptions::default() };
    let config = || lab.config("client", PartyRole::Client);
    assert!(client::online(config(), &[vec![0; 3]], &options, &Silent).is_err());
    assert_eq!(bundles_of_client(&lab), 2);
    let agreed = Session::open(config(), &options, 1, &Silent).unwrap();
    assert!(matches!(agreed.infer(&[vec![0; 3]]), Err(Error::Protocol(_))));
    assert_eq!(bundles_of_client(&lab), 1);
    lab.client_online("client", &server, 2).unwrap();
}

fn bundles_of_client(lab: &Lab) -> usize {
    std::fs::read_dir(lab.path("parties/client/state/bundles")).unwrap().count()
}

// The messages, written down once more.

#[derive(Serialize, Deserialize)]
enum ClientHello {
    Offline(Option<u64>, Option<[u8; 16]>),
    Online {
        plan: [u8; 32],
        epoch: [u8; 16],
        session: u64,
        inferences: u64,
        offer: [[u8; 16]; 4],
        reveal_to: RevealTo,
    },
}

#[derive(Serialize, Deserialize)]
enum ServerHello {
    Offline([u8; 32], u64, [u8; 16], u64),
    Online,
}

#[derive(Serialize, Deserialize)]
struct Choice {
    gone: Vec<[u8; 16]>,
    take: Option<([u8; 16], u64)>,
}

const CONTROL: FrameKind = FrameKind::new(0x100);
const OPENING: FrameKind = FrameKind::new(0x200);

fn greet(channel: &mut TlsChannel, body: &impl Serialize) {
    let body = postcard::to_stdvec(body).unwrap();
    let hello = Hello { protocol_version: PROTOCOL_VERSION, software: "test".to_owned(), body };
    send_hello(channel, &hello).unwrap();
}

fn send(channel: &mut TlsChannel, message: &impl Serialize) {
    channel.send(Frame::new(CONTROL, postcard::to_stdvec(message).unwrap())).unwrap();
}

/// A server of its own making, that answers one client: what it does with the offer, and the client's number.
fn impostor<T: Send>(
    lab: &Lab,
    serve: impl FnOnce(&mut TlsChannel, ClientHello) -> T + Send,
    client: impl FnOnce(&str),
) -> T {
    let config = lab.config("server", PartyRole::Server);
    let clients = config.peers(PartyRole::Client).map(|p| p.pinned.clone()).collect();
    let listener = TlsListener::bind("127.0.0.1:0", &config.identity, clients).unwrap();
    let address = listener.local_addr().to_string();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut channel = listener.accept(None, &Default::default()).unwrap();
            let hello = postcard::from_bytes(&recv_hello(&mut channel).unwrap().body).unwrap();
            let done = serve(&mut channel, hello);
            let _ = channel.shutdown();
            done
        });
        client(&address);
        server.join().unwrap()
    })
}

/// Plays the server's part of an inference, with zeros for everything.
fn play(channel: &mut TlsChannel, openings: &[Opening]) {
    for opening in openings {
        if opening.to.includes(Role::Client) {
            channel.send(Frame::new(OPENING, vec![0; opening.bytes()])).unwrap();
        }
        if opening.to.includes(Role::Server) {
            channel.recv_kind(OPENING, 1 << 24).unwrap();
        }
    }
}

#[test]
fn a_server_that_breaks_the_rules_is_refused_by_the_client() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 6);
    let openings = openings(&plan(&lab));
    type Next = fn([[u8; 16]; 4], u64) -> ([u8; 16], u64);
    let cases: [(Next, &str); 4] = [
        (|offer, number| (offer[0], number + 2), "chose a bundle that is not on offer"),
        (|_, number| ([7; 16], number + 2), "chose a bundle that is not on offer"),
        (|offer, number| (offer[1], number + 1), "numbers this inference like an earlier one"),
        (|offer, _| (offer[1], 0), "numbers this inference like an earlier one"),
    ];
    for (i, (next, problem)) in cases.into_iter().enumerate() {
        let serve = |channel: &mut TlsChannel, hello| {
            let ClientHello::Online { session, offer, inferences: 3, .. } = hello else {
                panic!("another hello")
            };
            greet(channel, &ServerHello::Online);
            send(channel, &Choice { gone: Vec::new(), take: Some((offer[0], session + 1)) });
            play(channel, &openings);
            send(channel, &Choice { gone: Vec::new(), take: Some(next(offer, session)) });
            channel.recv(1 << 24).map(|frame| frame.kind)
        };
        let ask = |address: &str| {
            let (_, session) = ask(open(&lab, address, 3, &Silent).unwrap(), 1).unwrap();
            let error = session.agree().err().unwrap();
            assert!(matches!(&error, Error::Peer { .. }) && error.to_string().contains(problem), "{error}");
        };
        let heard = impostor(&lab, serve, ask);
        assert!(matches!(heard, Err(NetError::Closed { .. })), "the client sends nothing more: {heard:?}");
        assert_eq!(bundles_of_client(&lab), 5 - i, "nothing is burnt for a choice that is refused");
    }
}

/// What the client of this laboratory says to a server.
fn hello(lab: &Lab) -> ClientHello {
    impostor(lab, |_, hello| hello, |address| drop(open(lab, address, 1, &Silent).err().unwrap()))
}

/// Says hello as the client would, but for other numbers, and more.
fn say(lab: &Lab, server: &Service, wanted: u64, offers: usize) -> Result<Vec<Frame>, NetError> {
    let ClientHello::Online { plan, epoch, session, offer, reveal_to, .. } = hello(lab) else {
        panic!("another hello")
    };
    let config = lab.config("client", PartyRole::Client);
    let pinned = &config.peer(PartyRole::Server).unwrap().pinned;
    let mut channel =
        TlsConnector::connect(&server.address, &config.identity, pinned, config.deadlines).unwrap();
    greet(&mut channel, &ClientHello::Online { plan, epoch, session, inferences: wanted, offer, reveal_to });
    (0..offers).for_each(|_| send(&mut channel, &offer));
    let mut frames = Vec::new();
    loop {
        match channel.recv(1 << 24) {
            Ok(frame) => frames.push(frame),
            Err(NetError::Closed { .. }) => return Ok(frames),
            Err(other) => return Err(other),
        }
    }
}

#[test]
fn offers_of_nothing_do_not_keep_a_server_that_is_to_stop() {
    let lab = Lab::new(&["client"]);
    lab.prepare("model", &["client"], 2);
    let server = lab.server_online("model");
    let ClientHello::Online { plan, epoch, session, reveal_to, .. } = hello(&lab) else {
        panic!("another hello")
    };
    let config = lab.config("client", PartyRole::Client);
    let pinned = &config.peer(PartyRole::Server).unwrap().pinned;
    let mut channel =
        TlsConnector::connect(&server.address, &config.identity, pinned, config.deadlines).unwrap();
    let nothing = |n: u8| [0, 1, 2, 3].map(|i| [16 * n + i; 16]);
    greet(
        &mut channel,
        &ClientHello::Online { plan, epoch, session, inferences: 1, offer: nothing(1), reveal_to },
    );
    recv_hello(&mut channel).unwrap();
    for n in 2..5 {
        let choice = channel.recv(1 << 16).unwrap();
        let choice: Choice = postcard::from_bytes(&choice.payload).unwrap();
        assert!(choice.take.is_none());
        if n == 4 {
            server.ask_to_stop();
        }
        send(&mut channel, &nothing(n));
    }
    match channel.recv(1 << 16) {
        Err(NetError::Refused { reason, .. }) => {
            assert!(reason.contains("the server is stopping"), "{reason}")
        }
        other => panic!("expected a refusal, found {:?}", other.map(|frame| frame.kind)),
    }
    assert_eq!(server.join().inferences, 0);
    assert_eq!(unused(&lab), [2, 2]);
}

#[test]
fn a_client_that_breaks_the_rules_is_refused_by_the_server() {
    let lab = Lab::new(&["client", "other"]);
    lab.prepare("model", &["client", "other"], 3);
    let server = lab.server_online("model");
    for wanted in [0, 10_001, 1 << 32, u64::MAX] {
        match say(&lab, &server, wanted, 0) {
            Err(NetError::Refused { reason, .. }) => {
                assert!(reason.contains(&format!("{wanted} inferences over one connection")), "{reason}");
            }
            other => panic!("expected a refusal, found {:?}", other.map(|frames| frames.len())),
        }
    }
    // An offer that nobody has asked for stands where the input belongs: one bundle is lost, and nothing but the choice is sent.
    let frames = say(&lab, &server, 2, 2).unwrap();
    assert_eq!(frames.iter().map(|f| f.kind).collect::<Vec<_>>(), [FrameKind::HELLO, CONTROL]);
    server.expect_warning("expected");
    assert_eq!(lab.client_online("other", &server, 5).unwrap(), lab.reference("model", 5));
    drop(server);
    assert_eq!(unused(&lab), [4, 3]);
}
