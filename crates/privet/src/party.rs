//! One of three parties that compute on shares: none knows weights, inputs or outputs.
//!
//! The three connect to each other, every pair over a connection of its own that the third cannot read, compare what they
//! have been given shares of, and run one inference after the other. They take turns as dealer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use privet_net::{Channel, Deadlines, Fingerprint, NetError, TlsChannel, TlsConnector, TlsListener};
use privet_plan::Plan;
use privet_protocols::Progress;
use privet_protocols::masked::Schedule;
use privet_protocols::replicated::{self, Links, Position, SharedWeights};

use crate::config::{PartyConfig, PeerConfig};
use crate::error::{Error, StoreError};
use crate::events::{Event, Observer, Phase, PlanSummary, Report};
use crate::files;
use crate::model::{self, PLAN_FILE};
use crate::session::{self, Meter, Steps, Stopwatch, message};
use crate::sharing::{self, ShareFile, ShareKind, WEIGHTS_SHARE_FILE};
use crate::store::fresh_seed;
use crate::wire::{self, PartyAgrees, PartyHello, refusal};

/// How many times longer than for other messages a party waits in the inference after one in which it dealt.
const PATIENCE: u32 = 10;
/// Handshakes at a time; whoever connects takes one.
const MAX_PENDING: usize = 64;
/// How often a party that waits for others looks at those that are shaking hands.
const POLL: Duration = Duration::from_millis(50);

/// How a party runs.
#[derive(Debug, Clone, Default)]
pub struct PartyOptions {
    /// Listen here instead of on the configured address.
    pub listen: Option<String>,
    /// Addresses of other parties by name, instead of the configured ones.
    pub peers: Vec<(String, String)>,
    /// The directory of `plan.privet` and `weights.share`.
    pub model: PathBuf,
    /// This party's shares of inputs; one inference for each.
    pub inputs: Vec<PathBuf>,
    /// Where its shares of the outputs go: `NAME.result.share` for `NAME.share`.
    pub out: PathBuf,
}

/// Runs the inferences of `options`. The two others have to be given the shares of the same inputs, in the same order.
///
/// # Errors
/// Shares that do not belong to this party, the plan or each other's, and failures of peers and connections.
pub fn run(config: PartyConfig, options: &PartyOptions, observer: &dyn Observer) -> Result<Report, Error> {
    let (index, [next, previous]) = config.cluster()?;
    let plan = model::load_plan(&options.model.join(PLAN_FILE))?;
    observer.event(&Event::Plan(PlanSummary::of(&plan)));
    let own = Own { plan: &plan, index, fingerprint: config.identity.fingerprint() };
    let weights = own.read(&options.model.join(WEIGHTS_SHARE_FILE), ShareKind::Weights)?;
    let inputs = options.inputs.iter().map(|path| own.read(path, ShareKind::Inputs));
    let inputs: Vec<ShareFile> = inputs.collect::<Result<_, _>>()?;
    let results = options.inputs.iter().map(|path| result_path(&options.out, path));
    let results: Vec<PathBuf> = results.collect::<Result<_, _>>()?;
    for (n, path) in results.iter().enumerate() {
        if results[..n].contains(path) || path.symlink_metadata().is_ok() {
            let problem = "would be overwritten: give every input a name of its own, or another directory for the results".to_owned();
            return Err(StoreError::Share { path: path.clone(), problem }.into());
        }
    }
    if !options.out.exists() {
        files::private_dir(&options.out).map_err(StoreError::io(&options.out))?;
    }

    let [mut next, mut previous] = connect(&config, options, index, [next, previous], observer)?;
    let nonce = *fresh_seed()?.expose();
    let hello = |component: usize| PartyHello {
        index: index as u8,
        plan: plan.digest(),
        weights: weights.sharing,
        inputs: inputs.iter().map(|file| file.sharing).collect(),
        common: std::iter::once(&weights).chain(&inputs).map(|file| file.components[component]).collect(),
        nonce,
    };
    // The next party holds component i+1 too, the previous one component i.
    let session = agree([(&hello(1), &mut next), (&hello(0), &mut previous)])?;
    // Waiting for others to be started is not this party's work.
    let meter = Meter::start();
    let schedule = Schedule::three_party(&plan);
    let shared = match inputs.len() {
        1 => SharedWeights::once(&weights.shares),
        _ => SharedWeights::new(&weights.shares),
    };
    for (n, (input, result)) in inputs.iter().zip(&results).enumerate() {
        let inference = n as u64;
        let mut stopwatch = Stopwatch::start();
        // Who deals first is as random as the session's name.
        let turn = inference + u64::from(session[0]);
        let position = Position::of(index, turn);
        // Who has dealt is done early, and waits for two others to finish before it hears from the next dealer.
        let has_dealt = n > 0 && Position::of(index, turn + 2) == Position::Dealer;
        let patience = if has_dealt { PATIENCE } else { 1 } * config.deadlines.wait;
        next.set_deadline(patience);
        previous.set_deadline(patience);
        let links = Links { next: &mut next, previous: &mut previous };
        let steps = Steps { observer, phase: Phase::Online, inference };
        let mut steps = Begun { steps, stopwatch: &mut stopwatch };
        let shares = &input.shares;
        let outputs = replicated::infer(&plan, &schedule, position, &shared, shares, links, &mut steps)?;
        meter.worked(&stopwatch);
        meter.inference();
        let id = sharing::outputs_of(weights.sharing, input.sharing, session, inference);
        sharing::write_outputs(result, &plan, id, index, &outputs)?;
        message(observer, format!("{}: this party's share, as {}", result.display(), position.name()));
    }
    // Each side of a shutdown waits for the other: 0-1 first, then 1-2, then 2-0, or all would wait in a circle.
    let in_order = if index == 0 { [next, previous] } else { [previous, next] };
    for mut channel in in_order {
        channel.shutdown()?;
        meter.connection(&channel);
    }
    Ok(meter.report(&config.name, Phase::Online, observer))
}

/// An inference begins when its dealer says so, and for the others when they hear from it: until then they wait for the end of the
/// one before.
struct Begun<'a> {
    steps: Steps<'a>,
    stopwatch: &'a mut Stopwatch,
}

impl Progress for Begun<'_> {
    fn step(&mut self, done: usize, total: usize, name: &str) {
        if done == 0 {
            self.stopwatch.wait_is_over();
        }
        self.steps.step(done, total, name);
    }
}

/// What files have to belong to.
struct Own<'a> {
    plan: &'a Plan,
    index: usize,
    fingerprint: Fingerprint,
}

impl Own<'_> {
    fn read(&self, path: &Path, kind: ShareKind) -> Result<ShareFile, Error> {
        let file = ShareFile::read(path, self.plan, kind)?;
        let problem = |problem: String| StoreError::Share { path: path.to_owned(), problem }.into();
        if file.party != self.index {
            let (found, expected) = (file.party, self.index);
            return Err(problem(format!(
                "party {found}'s share, this is party {expected}: give it to party {found} only"
            )));
        }
        if file.recipient.is_some_and(|recipient| recipient != self.fingerprint) {
            let text = "shared for another cluster: its party has another certificate; share it again with --to this cluster's cluster.toml";
            return Err(problem(text.to_owned()));
        }
        Ok(file)
    }
}

fn result_path(out: &Path, input: &Path) -> Result<PathBuf, Error> {
    let stem = input.file_stem().ok_or_else(|| {
        let problem = "not the name of a file".to_owned();
        StoreError::Share { path: input.to_owned(), problem }
    })?;
    let mut name = stem.to_owned();
    name.push(".result.share");
    Ok(out.join(name))
}

/// Connects to the next and the previous party: to those of lower numbers, and accepts those of higher ones.
fn connect(
    config: &PartyConfig,
    options: &PartyOptions,
    index: usize,
    peers: [&PeerConfig; 2],
    observer: &dyn Observer,
) -> Result<[TlsChannel; 2], Error> {
    let is_lower = |peer: &PeerConfig| peer.index.is_some_and(|i| i < index);
    // Operators start the three one after the other.
    let Deadlines { connect, wait, .. } = config.deadlines;
    let deadlines = Deadlines { connect: connect.max(wait), ..config.deadlines };
    let higher: Vec<&PeerConfig> = peers.into_iter().filter(|peer| !is_lower(peer)).collect();
    let listener = match &higher[..] {
        [] => None,
        higher => {
            let pinned = higher.iter().map(|peer| peer.pinned.clone()).collect();
            Some(session::listen_for(config, options.listen.as_deref(), pinned, observer)?)
        }
    };
    let mut channels: [Option<TlsChannel>; 2] = [None, None];
    for (channel, peer) in channels.iter_mut().zip(peers).filter(|(_, peer)| is_lower(peer)) {
        let given = options.peers.iter().find(|(name, _)| *name == peer.name).map(|(_, address)| address);
        let address = given.or(peer.address.as_ref()).ok_or_else(|| {
            let (dir, name) = (config.dir.display(), &peer.name);
            Error::NotReady(format!(
                "{dir}: {name} has no address; add `address = \"HOST:PORT\"` to its [[peers]]"
            ))
        })?;
        message(observer, format!("waiting for {} at {address}", peer.name));
        *channel = Some(TlsConnector::connect_unless(
            address,
            &config.identity,
            &peer.pinned,
            deadlines,
            config.link,
            &|| false,
        )?);
    }
    if let Some(listener) = listener {
        accept(&Arc::new(listener), deadlines, peers, &mut channels, observer)?;
    }
    let [Some(next), Some(previous)] = channels else { unreachable!("each was connected or accepted") };
    Ok([next, previous])
}

/// Accepts the parties whose channels are missing. Strangers are turned away, and hold nobody up. Whoever connects twice, as
/// after a restart, is heard on the newer connection.
fn accept(
    listener: &Arc<TlsListener>,
    deadlines: Deadlines,
    peers: [&PeerConfig; 2],
    channels: &mut [Option<TlsChannel>; 2],
    observer: &dyn Observer,
) -> Result<(), Error> {
    let (started, stop) = (Instant::now(), AtomicBool::new(false));
    let (sender, finished) = channel();
    let mut pending = 0;
    while channels.iter().any(Option::is_none) {
        let left = deadlines.connect.saturating_sub(started.elapsed());
        if left.is_zero() {
            let missing = peers.iter().zip(&*channels).filter(|(_, c)| c.is_none());
            let names: Vec<&str> = missing.map(|(peer, _)| peer.name.as_str()).collect();
            let address = listener.local_addr();
            let what = format!("waiting for a connection on {address}, of {}", names.join(" and "));
            return Err(NetError::Timeout { what, waited: started.elapsed() }.into());
        }
        match listener.accept_tcp(Some(left.min(POLL)), &stop) {
            Ok(stream) if pending < MAX_PENDING => {
                pending += 1;
                let (listener, sender) = (Arc::clone(listener), sender.clone());
                // Ends with its deadline; nobody listens to it any more once all are there.
                std::thread::spawn(move || drop(sender.send(listener.handshake(stream))));
            }
            Ok(_) | Err(NetError::Timeout { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        for outcome in finished.try_iter() {
            pending -= 1;
            match outcome {
                Ok(channel) => {
                    let fingerprint = channel.peer().fingerprint;
                    let place = peers.iter().position(|p| p.pinned.fingerprint() == fingerprint);
                    if let Some(place) = place {
                        channels[place] = Some(channel);
                    }
                }
                Err(e) => observer.event(&Event::Warning { text: e.to_string() }),
            }
        }
    }
    Ok(())
}

/// Compares what the parties were given. Returns the name of this session, which all three have a part in.
fn agree(channels: [(&PartyHello, &mut TlsChannel); 2]) -> Result<[u8; 16], Error> {
    let [(own, next), (other, previous)] = channels;
    let mut session = own.nonce;
    wire::greet(&mut *next, own)?;
    wire::greet(&mut *previous, other)?;
    let (after, before) = ((own.index + 1) % 3, (own.index + 2) % 3);
    for (own, channel, expected) in [(own, &mut *next, after), (other, &mut *previous, before)] {
        let theirs: PartyHello = wire::greeted(channel)?;
        if let Some((code, reason)) = own.refuses(&theirs, expected) {
            return Err(wire::refuse(channel, code, &reason));
        }
        session.iter_mut().zip(theirs.nonce).for_each(|(s, n)| *s ^= n);
    }
    // Two who hold what does not belong together are found by each other only: nobody begins before all three agree.
    wire::send(&mut *next, &PartyAgrees)?;
    wire::send(&mut *previous, &PartyAgrees)?;
    let PartyAgrees = wire::receive(next)?;
    let PartyAgrees = wire::receive(previous)?;
    Ok(session)
}

impl PartyHello {
    /// Why this party does not compute with the sender of another hello, if so.
    fn refuses(&self, theirs: &PartyHello, expected: u8) -> Option<(u16, String)> {
        if theirs.index != expected {
            let found = theirs.index;
            return Some((
                refusal::ROLE,
                format!("this is party {expected} by its certificate, but it says {found}"),
            ));
        }
        if theirs.plan != self.plan {
            let (own, theirs) = (self.plan.short(), theirs.plan.short());
            return Some((
                refusal::PLAN,
                format!("party {} has plan {own}, party {expected} {theirs}", self.index),
            ));
        }
        if theirs.weights != self.weights {
            let text = format!("parties {} and {expected} have shares of different weights", self.index);
            return Some((refusal::SHARES, text));
        }
        if theirs.inputs.len() != self.inputs.len() {
            let (own, theirs) = (self.inputs.len(), theirs.inputs.len());
            let text =
                format!("party {} has shares of {own} inputs, party {expected} of {theirs}", self.index);
            return Some((refusal::SHARES, text));
        }
        if let Some(differs) = self.inputs.iter().zip(&theirs.inputs).position(|(a, b)| a != b) {
            let text = format!(
                "parties {} and {expected} have shares of different inputs: number {} of --input; give all parties the same, in the \
                 same order",
                self.index,
                differs + 1
            );
            return Some((refusal::SHARES, text));
        }
        if self.common == theirs.common {
            return None;
        }
        let text = format!(
            "the shares of parties {} and {expected} do not belong together although they have one name: whoever shared the data \
             gave out different ones, or a file was changed",
            self.index
        );
        Some((refusal::SHARES, text))
    }
}
