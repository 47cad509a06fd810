//! Both engines in one process: the private one over memory channels, its material in memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use privet_net::Channel;
use privet_plan::{Plan, Weights};
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Role, Schedule, Source};
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
}

/// One private inference.
#[derive(Debug, Clone, Serialize)]
pub struct Private {
    /// What the client learns.
    #[serde(skip)]
    pub outputs: Vec<Vec<i64>>,
    /// Seconds of dealing and preparing.
    pub offline_seconds: f64,
    /// Seconds of the online phase.
    pub online_seconds: f64,
    /// Online bytes that both parties send, with frame headers.
    pub online_bytes: u64,
    /// Online rounds.
    pub rounds: u64,
    /// One-time bytes that server and client store.
    pub material: [usize; 2],
}

/// Deals, prepares and runs one inference that the client learns.
///
/// # Errors
/// Those of the engine, or of a party that has gone.
pub fn two_party(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> Result<Private> {
    let schedule = Schedule::new(plan, RevealTo::Client);
    let start = Instant::now();
    let [server_seed, client_seed, weight_seed] = [Seed::random()?, Seed::random()?, Seed::random()?];
    let mut dealt = Chunks::default();
    masked::deal(
        plan,
        &schedule,
        Role::Server,
        &server_seed,
        &client_seed,
        &weight_seed,
        &mut dealt.sink(),
        &mut Silent,
    )?;
    let m_w = masked::mask_weights(plan, weights, &weight_seed);
    let (mut server, mut client) = (Chunks::default(), Chunks::default());
    let prepare = |role, seed, weights, dealt: &mut Chunks, to: &mut Chunks| {
        masked::prepare(plan, &schedule, role, seed, &m_w, weights, dealt, &mut to.sink(), &mut Silent)
    };
    prepare(Role::Server, &server_seed, Some(weights), &mut dealt, &mut server)?;
    prepare(Role::Client, &client_seed, None, &mut Chunks::default(), &mut client)?;
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
        let own = Online::Server(weights);
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
        outputs: outputs?.ok_or_else(|| anyhow!("the client learnt nothing"))?,
        offline_seconds,
        online_seconds: start.elapsed().as_secs_f64(),
        online_bytes: server_traffic.bytes_sent + client_traffic.bytes_sent,
        rounds: server_traffic.rounds,
        material,
    })
}

/// Material by instruction.
#[derive(Default)]
struct Chunks(BTreeMap<usize, Vec<u8>>);

impl Chunks {
    fn sink(&mut self) -> impl FnMut(usize, Vec<u8>) -> Result<(), ProtocolError> {
        |instruction, bytes| {
            self.0.insert(instruction, bytes);
            Ok(())
        }
    }

    fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl Source for Chunks {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let bytes = self.0.remove(&instruction).unwrap_or_default();
        if bytes.len() == len {
            return Ok(bytes);
        }
        let what = format!("material of instruction {instruction}");
        Err(ProtocolError::Size { what, expected: len, found: bytes.len() })
    }
}
