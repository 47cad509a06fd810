//! A builder for small plans, and both engines run side by side.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

pub mod samples;
pub mod three_party;

use std::collections::BTreeMap;
use std::time::Duration;

use privet_net::{Channel, HEADER_BYTES, Traffic};
use privet_plan::{
    InputSpec, Keys, Op, OutputSpec, ParamId, ParamSpec, Plan, Post, Preprocess, Range, RangeSource, Step,
    Weights, Window, WireId, ranges,
};
use privet_protocols::masked::{
    self, Bundle, MaskedWeights, Online, RevealTo, Role, Schedule, ServerWeights, Sizes, Source,
};
use privet_protocols::{ProtocolError, Silent, cleartext};
use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};

/// Builds a plan step by step.
pub struct Builder {
    pub plan: Plan,
    pub weights: Vec<Vec<i64>>,
    prg: Prg,
}

impl Builder {
    pub fn new(ring: u32, frac_bits: u8) -> Self {
        let plan = Plan {
            model: "test".into(),
            ring: Ring::new(ring).unwrap(),
            frac_bits,
            inputs: Vec::new(),
            params: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            fss: Vec::new(),
        };
        Self { plan, weights: Vec::new(), prg: Prg::new(&Seed::from_bytes([9; 16])) }
    }

    pub fn input(&mut self, shape: &[usize]) -> WireId {
        let input = self.plan.inputs.len() as u32;
        let name = format!("input{input}");
        self.plan.inputs.push(InputSpec { name, shape: shape.to_vec(), preprocess: Preprocess::default() });
        let frac_bits = self.plan.frac_bits;
        self.step(Op::Input { input }, &[], shape, frac_bits)
    }

    /// A private tensor of values in [-magnitude, magnitude].
    pub fn param(&mut self, shape: &[usize], frac_bits: u8, magnitude: i64) -> ParamId {
        let id = self.plan.params.len();
        let count = shape.iter().product();
        self.plan.params.push(ParamSpec { name: format!("w{id}"), shape: shape.to_vec(), frac_bits });
        self.weights.push(uniform(&self.prg, id as u64, count, magnitude));
        ParamId(id as u32)
    }

    pub fn step(&mut self, op: Op, inputs: &[WireId], shape: &[usize], frac_bits: u8) -> WireId {
        self.plan.steps.push(Step {
            name: format!("step{}", self.plan.steps.len()),
            op,
            inputs: inputs.to_vec(),
            shape: shape.to_vec(),
            frac_bits,
            range: Range { bits: 2, source: RangeSource::FullWidth },
        });
        WireId(self.plan.steps.len() as u32 - 1)
    }

    pub fn output(&mut self, wire: WireId) {
        let name = format!("output{}", self.plan.outputs.len());
        self.plan.outputs.push(OutputSpec { name, wire, post: Post::None });
    }

    pub fn finish(mut self) -> (Plan, Weights) {
        ranges::assign_full_width(&mut self.plan);
        self.plan.validate().unwrap();
        let weights = Weights::new(self.weights);
        weights.check(&self.plan).unwrap();
        (self.plan, weights)
    }
}

/// `count` integers in [-magnitude, magnitude].
pub fn uniform(prg: &Prg, stream: u64, count: usize, magnitude: i64) -> Vec<i64> {
    let span = 2 * magnitude as u64 + 1;
    prg.stream(stream).words(count, u64::MAX).into_iter().map(|w| (w % span) as i64 - magnitude).collect()
}

pub fn window(kernel: &[u32], stride: &[u32], dilation: &[u32], begin: &[u32], end: &[u32]) -> Window {
    Window {
        kernel: kernel.into(),
        stride: stride.into(),
        dilation: dilation.into(),
        pad_begin: begin.into(),
        pad_end: end.into(),
    }
}

/// Material by instruction: its chunks one behind the other.
#[derive(Default, Clone)]
pub struct Chunks(pub BTreeMap<usize, Vec<u8>>);

impl Chunks {
    /// The next chunk of an instruction, which is the next of what `expected` gives.
    fn add(&mut self, k: usize, bytes: &[u8], expected: &mut impl Iterator<Item = (usize, usize)>) {
        assert_eq!(Some((k, bytes.len())), expected.next(), "instruction and length of a chunk");
        self.0.entry(k).or_default().extend(bytes);
    }
}

/// Instructions and lengths of the chunks that a party is dealt and stores, in order.
fn expected_chunks(plan: &Plan, schedule: &Schedule, role: Role) -> impl Iterator<Item = (usize, usize)> {
    let of = move |k: usize| schedule.chunks(plan, k, role).into_iter().map(move |len| (k, len));
    (0..schedule.instructions.len()).flat_map(of)
}

impl Source for Chunks {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let left = self.0.entry(instruction).or_default();
        assert!(left.len() >= len, "chunk of instruction {instruction}: {len} bytes of {}", left.len());
        Ok(left.drain(..len).collect())
    }
}

/// What the dealer makes for one inference, and the weights under their mask.
pub struct Dealt {
    pub server: Seed,
    pub client: Seed,
    /// What the server is sent.
    pub chunks: Chunks,
    /// What the client is sent: keys of function secret sharing.
    pub client_chunks: Chunks,
    /// What the client is sent.
    pub masked_weights: Vec<u8>,
}

/// One bundle with fresh seeds, and a fresh mask of the weights.
pub fn deal(plan: &Plan, weights: &Weights, schedule: &Schedule) -> Dealt {
    deal_with(plan, weights, schedule, std::array::from_fn(|_| Seed::random().unwrap()))
}

/// One bundle, and the weights under their mask, from the seeds of server, client and that mask.
pub fn deal_with(
    plan: &Plan,
    weights: &Weights,
    schedule: &Schedule,
    [server, client, weight_seed]: [Seed; 3],
) -> Dealt {
    let [chunks, client_chunks] = [Role::Server, Role::Client].map(|role| {
        let mut chunks = Chunks::default();
        // The client draws its shares of products.
        let mut expected = expected_chunks(plan, schedule, role)
            .filter(|&(k, _)| schedule.instructions[k].1.dealt_to(role) > 0);
        let mut sink = |k: usize, bytes: Vec<u8>| {
            chunks.add(k, &bytes, &mut expected);
            Ok(())
        };
        masked::deal(plan, schedule, role, &server, &client, &weight_seed, &mut sink, &mut Silent).unwrap();
        assert_eq!(expected.next(), None, "all is dealt");
        for (k, bytes) in &chunks.0 {
            assert_eq!(bytes.len(), schedule.instructions[*k].1.dealt_to(role), "dealt for instruction {k}");
        }
        drop(expected);
        chunks
    });
    let m_w = masked::mask_weights(plan, weights, &weight_seed);
    Dealt { server, client, chunks, client_chunks, masked_weights: masked::pack_masked_weights(plan, &m_w) }
}

/// Both halves of a bundle, dealt and prepared.
pub fn offline(plan: &Plan, weights: &Weights, schedule: &Schedule) -> (Bundle<Chunks>, Bundle<Chunks>) {
    prepared(plan, weights, schedule, deal(plan, weights, schedule))
}

/// Both halves of what was dealt.
pub fn prepared(
    plan: &Plan,
    weights: &Weights,
    schedule: &Schedule,
    dealt: Dealt,
) -> (Bundle<Chunks>, Bundle<Chunks>) {
    let m_w = masked::unpack_masked_weights(plan, &dealt.masked_weights).unwrap();
    let server = prepare(plan, schedule, Role::Server, dealt.server, &m_w, Some(weights), dealt.chunks);
    let client = prepare(plan, schedule, Role::Client, dealt.client, &m_w, None, dealt.client_chunks);
    (server, client)
}

fn prepare(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    seed: Seed,
    m_w: &MaskedWeights,
    weights: Option<&Weights>,
    mut dealt: Chunks,
) -> Bundle<Chunks> {
    let mut stored = Chunks::default();
    let mut expected = expected_chunks(plan, schedule, role);
    let mut sink = |k: usize, bytes: Vec<u8>| {
        stored.add(k, &bytes, &mut expected);
        Ok(())
    };
    masked::prepare(plan, schedule, role, &seed, m_w, weights, &mut dealt, &mut sink, &mut Silent).unwrap();
    assert_eq!(expected.next(), None, "all is stored");
    Bundle::new(seed, stored)
}

pub struct Outcome {
    pub server: Option<Vec<Vec<i64>>>,
    pub client: Option<Vec<Vec<i64>>>,
    pub server_traffic: Traffic,
    pub client_traffic: Traffic,
}

/// One inference between two threads over memory channels.
pub fn two_party(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>], reveal_to: RevealTo) -> Outcome {
    two_party_with(plan, &Schedule::new(plan, reveal_to), weights, inputs)
}

/// One inference by this schedule.
pub fn two_party_with(plan: &Plan, schedule: &Schedule, weights: &Weights, inputs: &[Vec<i64>]) -> Outcome {
    online(plan, schedule, offline(plan, weights, schedule), &ServerWeights::new(weights), inputs)
}

/// The online phase of one inference.
pub fn online(
    plan: &Plan,
    schedule: &Schedule,
    (server, client): (Bundle<Chunks>, Bundle<Chunks>),
    weights: &ServerWeights,
    inputs: &[Vec<i64>],
) -> Outcome {
    let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(60));
    let (server_out, client_out) = std::thread::scope(|scope| {
        let own = Online::Client(inputs);
        let run = |own, half: Bundle<Chunks>, channel: &mut dyn Channel| {
            masked::online(plan, schedule, own, half, channel, &mut Silent).unwrap()
        };
        let handle = scope.spawn(move || {
            let out = run(own, client, &mut b);
            (out, b.traffic())
        });
        (run(Online::Server(weights), server, &mut a), handle.join().unwrap())
    });
    Outcome {
        server: server_out,
        client: client_out.0,
        server_traffic: a.traffic(),
        client_traffic: client_out.1,
    }
}

/// The reference result.
pub fn reference(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>]) -> Vec<Vec<i64>> {
    cleartext::run(plan, weights, inputs, &mut Silent).unwrap()
}

type Law = fn(&Plan, &Weights, &[Vec<i64>], RevealTo);

/// The laws that every engine keeps: bit-equal to the cleartext engine, bytes, frames and rounds as declared; whole, and cut
/// into the smallest lanes.
const LAWS: [Law; 4] = [two_party_law, fss_law, products_law, |plan, weights, inputs, _| {
    three_party::law(plan, weights, inputs)
}];

/// Runs all engines; `reveal_to` is for those where a party learns the outputs.
pub fn law(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>], reveal_to: RevealTo) {
    LAWS.iter().for_each(|law| law(plan, weights, inputs, reveal_to));
}

/// The smallest lanes, and no tree is flat.
pub const SMALL: Sizes = Sizes { lane: 1, flat: 0 };
/// Whole instructions with flat trees; the smallest lanes with others; and with both kinds.
pub const SIZES: [Sizes; 3] =
    [Sizes { lane: 1 << 16, flat: usize::MAX }, SMALL, Sizes { lane: 1, flat: 100 }];

/// Checks results, who learns them, bytes, frames and rounds of `2pc`.
fn two_party_law(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>], reveal_to: RevealTo) {
    let expected = reference(plan, weights, inputs);
    let ring = plan.ring.bits();
    for schedule in SIZES.map(|sizes| Schedule::with_sizes(plan, reveal_to, sizes)) {
        let outcome = two_party_with(plan, &schedule, weights, inputs);
        for (role, outputs) in [(Role::Server, &outcome.server), (Role::Client, &outcome.client)] {
            match outputs {
                Some(values) => {
                    assert!(reveal_to.includes(role));
                    assert_eq!(*values, expected, "l={ring}, {role:?}");
                }
                None => assert!(!reveal_to.includes(role)),
            }
        }
        let total = schedule.total();
        let openings: Vec<_> =
            (0..schedule.instructions.len()).flat_map(|k| schedule.openings(plan, k)).collect();
        for (role, peer, traffic) in [
            (Role::Server, Role::Client, outcome.server_traffic),
            (Role::Client, Role::Server, outcome.client_traffic),
        ] {
            let frames = openings.iter().filter(|o| o.to.includes(peer)).count();
            assert_eq!(payload(traffic), total.sends(role), "{role:?} bytes, l={ring}");
            assert_eq!(traffic.frames_sent, frames as u64, "{role:?} frames, l={ring}");
            assert_eq!(traffic.rounds, total.rounds, "{role:?} rounds, l={ring}");
        }
    }
}

/// A plan with keys for all comparisons, whose results are opened.
pub fn with_bits(plan: &Plan) -> Plan {
    plan.with_keys(|_| Keys::Bits)
}

/// A plan with keys for all comparisons, that carry products where they can.
pub fn with_products(plan: &Plan) -> Plan {
    plan.with_keys(|_| Keys::Products)
}

/// `2pc` with keys of function secret sharing wherever there is a comparison, the result of which is opened.
fn fss_law(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>], reveal_to: RevealTo) {
    let plan = with_bits(plan);
    plan.validate().unwrap();
    two_party_law(&plan, weights, inputs, reveal_to);
}

/// The same with keys that carry products, where they can.
fn products_law(plan: &Plan, weights: &Weights, inputs: &[Vec<i64>], reveal_to: RevealTo) {
    let plan = with_products(plan);
    plan.validate().unwrap();
    two_party_law(&plan, weights, inputs, reveal_to);
}

/// Payload bytes without frame headers.
pub fn payload(traffic: Traffic) -> usize {
    traffic.bytes_sent as usize - traffic.frames_sent as usize * HEADER_BYTES
}

/// Frames that each of two parties sends that open these.
pub fn frames(openings: &[masked::Opening]) -> u64 {
    openings.iter().filter(|o| o.to == RevealTo::Both).count() as u64
}
