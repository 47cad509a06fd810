//! The masked engine's phases on one ReLU layer of 2^17 elements: `cargo bench -p privet-protocols`.
//!
//! `deal` is the dealer alone; `online` is both parties together, on two threads over a memory channel.

use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use privet_plan::{
    InputSpec, Op, OutputSpec, Plan, Post, Preprocess, Range, RangeSource, Step, Weights, WireId,
};
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Schedule, ServerWeights, Source};
use privet_protocols::{ProtocolError, Silent};
use privet_ring::Ring;
use privet_ring::prg::Seed;

const ELEMENTS: usize = 1 << 17;

fn main() {
    divan::main();
}

/// Input, fused ReLU and truncation, output.
fn relu(bits: u32) -> Plan {
    let f = 16;
    let step = |op, inputs: &[u32], frac_bits| Step {
        name: "relu".into(),
        op,
        inputs: inputs.iter().map(|&w| WireId(w)).collect(),
        shape: vec![ELEMENTS],
        frac_bits,
        range: Range { bits: 2, source: RangeSource::FullWidth },
    };
    let input = InputSpec { name: "x".into(), shape: vec![ELEMENTS], preprocess: Preprocess::default() };
    let mut plan = Plan {
        model: "relu".into(),
        ring: Ring::new(bits).expect("a supported width"),
        frac_bits: f,
        inputs: vec![input],
        params: Vec::new(),
        steps: vec![step(Op::Input { input: 0 }, &[], f), step(Op::Relu { shift: f, width: 0 }, &[0], 0)],
        outputs: vec![OutputSpec { name: "y".into(), wire: WireId(1), post: Post::None }],
        labels: Vec::new(),
        fss: Vec::new(),
    };
    privet_plan::ranges::assign_full_width(&mut plan);
    plan
}

/// Gives the same chunks again in every inference: fine here, never outside a benchmark.
struct Repeated<'a>(std::slice::Iter<'a, Vec<u8>>);

impl Source for Repeated<'_> {
    fn chunk(&mut self, _: usize, _: usize) -> Result<Vec<u8>, ProtocolError> {
        Ok(self.0.next().cloned().unwrap_or_default())
    }
}

fn dealt(plan: &Plan, schedule: &Schedule, seeds: &[Seed; 3]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut sink = |_: usize, bytes: Vec<u8>| {
        chunks.push(bytes);
        Ok(())
    };
    let [server, client, weights] = seeds;
    masked::deal(plan, schedule, masked::Role::Server, server, client, weights, &mut sink, &mut Silent)
        .expect("dealing to memory");
    chunks
}

fn seeds() -> [Seed; 3] {
    std::array::from_fn(|i| Seed::from_bytes([i as u8; 16]))
}

#[divan::bench(args = [40, 48, 64])]
fn deal(bencher: Bencher, bits: u32) {
    let plan = relu(bits);
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let seeds = seeds();
    bencher.counter(ItemsCount::new(ELEMENTS)).bench_local(|| dealt(black_box(&plan), &schedule, &seeds));
}

#[divan::bench(args = [40, 48, 64])]
fn online(bencher: Bencher, bits: u32) {
    let plan = relu(bits);
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let seeds = seeds();
    let chunks = dealt(&plan, &schedule, &seeds);
    let weights = Weights::new(Vec::new());
    let inputs = [(0..ELEMENTS as i64).map(|i| (i - 60_000) << 5).collect::<Vec<i64>>()];
    bencher.counter(ItemsCount::new(ELEMENTS)).bench_local(|| {
        let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(60));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let own = Online::Client(&inputs);
                masked::online(
                    &plan,
                    &schedule,
                    own,
                    Bundle::new(seeds[1].clone(), Repeated([].iter())),
                    &mut b,
                    &mut Silent,
                )
                .expect("client")
            });
            let own = Online::Server(&ServerWeights::once(&weights));
            masked::online(
                &plan,
                &schedule,
                own,
                Bundle::new(seeds[0].clone(), Repeated(chunks.iter())),
                &mut a,
                &mut Silent,
            )
            .expect("server")
        })
    });
}
