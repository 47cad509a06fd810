//! All engines in one process: the private ones over memory channels, material in memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use privet_net::Channel;
use privet_net::memory::MemoryChannel;
use privet_plan::{Plan, Weights};
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Role, Schedule, ServerWeights, Source};
use privet_protocols::replicated::{self, Links, PARTIES, Position, Share, SharedWeights};
use privet_protocols::{ProtocolError, Silent};
use privet_ring::prg::Seed;
use serde::Serialize;

/// How long a party waits for the other; both live in this process.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What runs a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The integer program in the clear.
    Cleartext,
    /// Masked, between two parties with a dealer.
    #[value(name = "2pc")]
    #[serde(rename = "2pc")]
    TwoParty,
    /// `2pc` with keys of function secret sharing for comparisons.
    Fss,
    /// Replicated shares among three parties.
    #[value(name = "3pc")]
    #[serde(rename = "3pc")]
    ThreeParty,
}

impl Engine {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cleartext => "cleartext",
            Self::TwoParty => "2pc",
            Self::Fss => "fss",
            Self::ThreeParty => "3pc",
        }
    }

    /// Runs one private inference; `None` in the clear.
    ///
    /// # Errors
    /// Those of the engine, or of a party that has gone.
    pub fn run(self, plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> Result<Option<Private>> {
        Ok(match self {
            Self::Cleartext => None,
            Self::TwoParty => Some(two_party(self, plan, weights, inputs)?),
            Self::Fss => Some(two_party(self, &plan.with_fss(), weights, inputs)?),
            Self::ThreeParty => Some(three_party(plan, weights, inputs)?),
        })
    }
}

/// One private inference.
#[derive(Debug, Clone, Serialize)]
pub struct Private {
    /// Which engine.
    pub engine: Engine,
    /// What the client learns, or the three parties' shares stand for.
    #[serde(skip)]
    pub outputs: Vec<Vec<i64>>,
    /// Seconds of dealing and preparing; of sharing weights and inputs among three parties.
    pub offline_seconds: f64,
    /// Seconds of the online phase.
    pub online_seconds: f64,
    /// Online bytes that all parties send, with frame headers.
    pub online_bytes: u64,
    /// Online rounds.
    pub rounds: u64,
    /// One-time bytes that server and client store; three parties store nothing.
    pub material: [usize; 2],
}

/// Deals, prepares and runs one inference that the client learns.
fn two_party(engine: Engine, plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> Result<Private> {
    let schedule = Schedule::new(plan, RevealTo::Client);
    let start = Instant::now();
    let [server_seed, client_seed, weight_seed] = [Seed::random()?, Seed::random()?, Seed::random()?];
    let deal = |role| -> Result<Chunks> {
        let mut dealt = Chunks::default();
        masked::deal(
            plan,
            &schedule,
            role,
            &server_seed,
            &client_seed,
            &weight_seed,
            &mut dealt.sink(),
            &mut Silent,
        )?;
        Ok(dealt)
    };
    let m_w = masked::mask_weights(plan, weights, &weight_seed);
    let prepare = |role, seed, weights| -> Result<Chunks> {
        let mut stored = Chunks::default();
        let mut dealt = deal(role)?;
        let mut sink = stored.sink();
        masked::prepare(plan, &schedule, role, seed, &m_w, weights, &mut dealt, &mut sink, &mut Silent)?;
        drop(sink);
        Ok(stored)
    };
    let server = prepare(Role::Server, &server_seed, Some(weights))?;
    let client = prepare(Role::Client, &client_seed, None)?;
    drop(m_w);
    let material = [server.len(), client.len()];
    let (server, client) = (Bundle::new(server_seed, server), Bundle::new(client_seed, client));
    let offline_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let (mut a, mut b) = privet_net::memory::pair(PATIENCE);
    let (own, theirs) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let own = Online::Client(inputs);
            let outputs = masked::online(plan, &schedule, own, client, &mut b, &mut Silent);
            (outputs, b.traffic())
        });
        let own = Online::Server(&ServerWeights::once(weights));
        let server = masked::online(plan, &schedule, own, server, &mut a, &mut Silent);
        // A server that fails hangs up, so that the client does not wait.
        let traffic = a.traffic();
        drop(a);
        ((server, traffic), client.join())
    });
    let (outputs, client_traffic) = theirs.map_err(|_| anyhow!("the client panicked"))?;
    let (nothing, server_traffic) = own;
    ensure!(nothing?.is_none(), "the server learnt the outputs");
    Ok(Private {
        engine,
        outputs: outputs?.ok_or_else(|| anyhow!("the client learnt nothing"))?,
        offline_seconds,
        online_seconds: start.elapsed().as_secs_f64(),
        online_bytes: server_traffic.bytes_sent + client_traffic.bytes_sent,
        rounds: server_traffic.rounds,
        material,
    })
}

/// Shares weights and inputs and runs one inference, in which party 0 deals.
fn three_party(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> Result<Private> {
    let schedule = Schedule::three_party(plan);
    let start = Instant::now();
    let (weights, inputs) = (share(plan, &weights.tensors)?, share(plan, inputs)?);
    let offline_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let [(a0, a1), (b1, b2), (c2, c0)] = [(); PARTIES].map(|()| privet_net::memory::pair(PATIENCE));
    let channels = [(a0, c0), (b1, a1), (c2, b2)];
    let ended = std::thread::scope(|scope| {
        let (weights, inputs, schedule) = (&weights, &inputs, &schedule);
        let spawn = |(i, (mut next, mut previous)): (usize, (MemoryChannel, MemoryChannel))| {
            // Whoever fails hangs up, so that the others do not wait.
            scope.spawn(move || {
                let links = Links { next: &mut next, previous: &mut previous };
                let position = Position::of(i, 0);
                let (weights, inputs) = (SharedWeights::once(&weights[i]), &inputs[i]);
                let outputs =
                    replicated::infer(plan, schedule, position, &weights, inputs, links, &mut Silent)?;
                Ok::<_, ProtocolError>((outputs, [next.traffic(), previous.traffic()]))
            })
        };
        let threads: Vec<_> = channels.into_iter().enumerate().map(spawn).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let online_seconds = start.elapsed().as_secs_f64();
    let mut parties = Vec::new();
    for ended in ended {
        parties.push(ended.map_err(|_| anyhow!("a party panicked"))??);
    }
    let traffic = || parties.iter().flat_map(|(_, traffic)| traffic);
    let output = |i: usize| {
        let shares = [0, 1, 2].map(|party: usize| &parties[party].0[i]);
        let agree = (0..PARTIES).all(|party| shares[party].next == shares[(party + 1) % PARTIES].own);
        ensure!(agree, "the parties contradict each other");
        Ok(replicated::join(shares.map(|share| &share.own[..]), plan.ring))
    };
    Ok(Private {
        engine: Engine::ThreeParty,
        outputs: (0..plan.outputs.len()).map(output).collect::<Result<_>>()?,
        offline_seconds,
        online_seconds,
        online_bytes: traffic().map(|t| t.bytes_sent).sum(),
        rounds: traffic().map(|t| t.rounds).max().unwrap_or(0),
        material: [0, 0],
    })
}

/// Every party's shares of some tensors.
fn share(plan: &Plan, tensors: &[Vec<i64>]) -> Result<[Vec<Share>; PARTIES]> {
    let seeds = [Seed::random()?, Seed::random()?];
    let mut parties: [Vec<Share>; PARTIES] = Default::default();
    for (i, values) in tensors.iter().enumerate() {
        let x = replicated::components(values, i, plan.ring, &seeds);
        for (party, shares) in parties.iter_mut().enumerate() {
            shares.push(Share { own: x[party].clone(), next: x[(party + 1) % PARTIES].clone() });
        }
    }
    Ok(parties)
}

/// Chunks of material and their instructions, in order.
#[derive(Default)]
struct Chunks(VecDeque<(usize, Vec<u8>)>);

impl Chunks {
    fn sink(&mut self) -> impl FnMut(usize, Vec<u8>) -> Result<(), ProtocolError> {
        |instruction, bytes| {
            self.0.push_back((instruction, bytes));
            Ok(())
        }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

impl Source for Chunks {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        match self.0.pop_front() {
            Some((of, bytes)) if of == instruction && bytes.len() == len => Ok(bytes),
            other => {
                let what = format!("material of instruction {instruction}");
                let found = other.map_or(0, |(_, bytes)| bytes.len());
                Err(ProtocolError::Size { what, expected: len, found })
            }
        }
    }
}
