//! Comparisons as the masked engine deals and evaluates them, both parties as threads over a memory channel.
//!
//! The program: an input, a private addend that makes it additive shares, the step in question, an output. CPU time is that
//! of all of it; bytes and rounds are the step's and its operand's opening, as the channel counted them, without what the
//! input and the output cost.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use privet::resources::cpu_seconds;
use privet_net::{Channel, HEADER_BYTES, Traffic, memory};
use privet_plan::{
    InputSpec, Op, OutputSpec, ParamId, ParamSpec, Plan, Post, Preprocess, Range, RangeSource, Step, Weights,
    Window, WireId, ranges,
};
use privet_protocols::masked::{
    self, Bundle, Cost, Instruction, Online, RevealTo, Schedule, ServerWeights, Source,
};
use privet_protocols::{ProtocolError, Silent, cleartext};
use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};

use super::Job;
use super::measure::{Effort, least_and_median};
use super::row::Row;

const FRAC_BITS: u8 = 16;
/// Longer than any wait.
const DEADLINE: Duration = Duration::from_secs(600);

/// A step to measure.
struct Gate {
    kernel: &'static str,
    op: Op,
    ring: u32,
    /// Inputs are this wide, with a bit to spare for what is added.
    width: u32,
    /// Shape of the operand, and of the result.
    shapes: [Vec<usize>; 2],
    /// CPU seconds of the dealer and of both parties online, bytes online per element.
    targets: Option<[f64; 3]>,
}

pub(super) fn jobs(effort: &Effort) -> Vec<Job> {
    let elements = if effort.quick { 1 << 14 } else { 1_000_000 };
    let (side, channels) = if effort.quick { (16, 16) } else { (64, 256) };
    let flat = || [vec![elements], vec![elements]];
    let relu = |width: u32| Op::Relu { shift: FRAC_BITS, width: width as u8 };
    let window = Window {
        kernel: vec![3; 2],
        stride: vec![2; 2],
        dilation: vec![1; 2],
        pad_begin: vec![1; 2],
        pad_end: vec![0; 2],
    };
    // Limits are for a million elements.
    let targets = |bytes| (!effort.quick).then_some([0.15, 0.12, bytes]);
    let entries = (0..256).map(|i| i * 321 - 999).collect();
    let pooled = [vec![1, channels, 2 * side, 2 * side], vec![1, channels, side, side]];
    let gates = [
        ("relu-trunc", relu(63), 64, 63, flat(), targets(26.0)),
        ("relu-trunc", relu(40), 48, 40, flat(), targets(18.5)),
        ("compare", Op::NonNegative { width: 63 }, 64, 63, flat(), None),
        ("compare", Op::NonNegative { width: 40 }, 48, 40, flat(), None),
        ("table", Op::Table { entries }, 48, 10, flat(), None),
        ("max pool 3x3", Op::MaxPool { window, width: 40 }, 48, 39, pooled, None),
    ];
    let gate = |(kernel, op, ring, width, shapes, targets)| Gate { kernel, op, ring, width, shapes, targets };
    gates.map(|parts| gate(parts).job()).into()
}

impl Gate {
    fn job(self) -> Job {
        let label = format!("{}, {} bits", self.kernel, self.ring);
        Job::new(label, move |effort| self.measure(effort))
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let [input, output] = &self.shapes;
        let step = |op, inputs: &[u32], shape: &[usize], frac_bits| Step {
            name: self.kernel.to_owned(),
            op,
            inputs: inputs.iter().map(|&w| WireId(w)).collect(),
            shape: shape.to_vec(),
            frac_bits,
            range: Range { bits: 2, source: RangeSource::FullWidth },
        };
        // A table's index has no fraction; a comparison's bit and what was shifted have none either.
        let operand = if matches!(self.op, Op::Table { .. }) { 0 } else { FRAC_BITS };
        let result = if matches!(self.op, Op::MaxPool { .. }) { FRAC_BITS } else { 0 };
        let mut plan = Plan {
            model: self.kernel.to_owned(),
            ring: Ring::new(self.ring)?,
            frac_bits: operand,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: input.clone(),
                preprocess: Preprocess::default(),
            }],
            params: vec![ParamSpec { name: "addend".to_owned(), shape: vec![1], frac_bits: operand }],
            steps: vec![
                step(Op::Input { input: 0 }, &[], input, operand),
                step(Op::AddParam { param: ParamId(0) }, &[0], input, operand),
                step(self.op.clone(), &[1], output, result),
            ],
            outputs: vec![OutputSpec { name: "y".to_owned(), wire: WireId(2), post: Post::None }],
            labels: Vec::new(),
            fss: Vec::new(),
        };
        ranges::assign_full_width(&mut plan);
        // Comparisons are as wide as calibration would make them.
        plan.steps[2].op = self.op.clone();
        let range = plan.steps[1].range.bits.min(self.width as u8);
        plan.steps[0].range.bits = range - 1;
        plan.steps[1].range.bits = range;
        plan.validate()?;
        Ok(plan)
    }

    fn measure(&self, effort: &Effort) -> anyhow::Result<Vec<Row>> {
        let plan = self.plan()?;
        let schedule = Schedule::new(&plan, RevealTo::Client);
        let weights = Weights::new(vec![vec![5]]);
        let count = self.shapes[0].iter().product();
        let mut bytes = [3; 16];
        bytes[..8].copy_from_slice(&effort.seed.to_le_bytes());
        let words = Prg::new(&Seed::from_bytes(bytes)).stream(0).words(count, u64::MAX);
        let inputs: Vec<i64> = match self.op {
            Op::Table { .. } => words.into_iter().map(|w| (w % 250) as i64).collect(),
            _ => words.into_iter().map(|w| w as i64 >> (66 - self.width)).collect(),
        };
        let inputs = [inputs];
        let expected = cleartext::run(&plan, &weights, &inputs, &mut Silent)?;
        let (mut dealing, mut online, mut traffic) = (Vec::new(), Vec::new(), [Traffic::default(); 2]);
        for _ in 0..effort.iterations {
            let before = cpu_seconds();
            let (seeds, chunks) = deal(&plan, &schedule)?;
            let between = cpu_seconds();
            let (outputs, sent) = evaluate(&plan, &schedule, &weights, &inputs, seeds, chunks)?;
            dealing.push(between - before);
            online.push(cpu_seconds() - between);
            traffic = sent;
            ensure!(outputs == expected, "{} differs from the cleartext engine: this is a bug", self.kernel);
        }
        Ok(self.rows(&schedule, dealing, online, traffic))
    }

    fn rows(&self, schedule: &Schedule, dealing: Vec<f64>, online: Vec<f64>, sent: [Traffic; 2]) -> Vec<Row> {
        let elements = self.shapes[1].iter().product::<usize>();
        // What is not the gate's: the input, and the output.
        let (mut own, mut rest) = (Cost::default(), Cost::default());
        for (instruction, cost) in &schedule.instructions {
            match instruction {
                Instruction::Step(0) | Instruction::Reveal(_) => rest += *cost,
                Instruction::Step(_) | Instruction::Open(_) => own += *cost,
            }
        }
        let bytes = |cost: &Cost| (cost.server_sends + cost.client_sends) as f64;
        let frames: u64 = sent.iter().map(|t| t.frames_sent).sum();
        let total: u64 = sent.iter().map(|t| t.bytes_sent).sum();
        let payload = total as f64 - (frames * HEADER_BYTES as u64) as f64 - bytes(&rest);
        let rounds = sent[0].rounds.saturating_sub(rest.rounds) as f64;
        let repetitions = dealing.len();
        let detail = match &self.op {
            Op::Table { entries } => format!("{} entries", entries.len()),
            // Of a difference of two values.
            Op::MaxPool { width, .. } => format!("{width} bits compared"),
            _ => format!("{} bits compared", self.width),
        };
        let row = |quantity, unit, (achieved, median)| Row {
            quantity,
            ring: Some(self.ring),
            threads: if quantity == "dealer" { 1 } else { 2 },
            achieved: Some(achieved),
            median: Some(median),
            repetitions,
            ..Row::new(self.kernel, format!("{elements}, {detail}"), unit)
        };
        let exact = |value: f64, count: f64| (value / count, value / count);
        let per_element = elements as f64;
        let target = |i: usize| self.targets.map(|targets| targets[i]);
        vec![
            row("dealer", "CPU-s", least_and_median(dealing)).at_most(target(0)),
            row("online", "CPU-s", least_and_median(online)).at_most(target(1)),
            Row {
                declared: Some(bytes(&own) / per_element),
                ..row("sent", "B/element", exact(payload, per_element)).at_most(target(2))
            },
            Row { declared: Some((own.rounds) as f64), ..row("rounds", "rounds", exact(rounds, 1.0)) },
        ]
    }
}

/// One-time material, each piece of which is taken once.
#[derive(Default)]
struct Chunks(VecDeque<Vec<u8>>);

impl Source for Chunks {
    fn chunk(&mut self, _: usize, _: usize) -> Result<Vec<u8>, ProtocolError> {
        Ok(self.0.pop_front().unwrap_or_default())
    }
}

fn deal(plan: &Plan, schedule: &Schedule) -> anyhow::Result<([Seed; 2], Chunks)> {
    let [server, client, weights] = [Seed::random()?, Seed::random()?, Seed::random()?];
    let mut chunks = Chunks::default();
    let mut sink = |_: usize, bytes: Vec<u8>| {
        chunks.0.push_back(bytes);
        Ok(())
    };
    masked::deal(plan, schedule, masked::Role::Server, &server, &client, &weights, &mut sink, &mut Silent)?;
    Ok(([server, client], chunks))
}

/// What the client learns, and what server and client sent.
fn evaluate(
    plan: &Plan,
    schedule: &Schedule,
    weights: &Weights,
    inputs: &[Vec<i64>],
    [server, client]: [Seed; 2],
    chunks: Chunks,
) -> anyhow::Result<(Vec<Vec<i64>>, [Traffic; 2])> {
    let (mut left, mut right) = memory::pair(DEADLINE);
    let outputs = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let bundle = Bundle::new(client, Chunks::default());
            masked::online(plan, schedule, Online::Client(inputs), bundle, &mut right, &mut Silent)
        });
        let bundle = Bundle::new(server, chunks);
        masked::online(
            plan,
            schedule,
            Online::Server(&ServerWeights::once(weights)),
            bundle,
            &mut left,
            &mut Silent,
        )?;
        let outputs = other.join().map_err(|_| anyhow!("the client's thread panicked"))??;
        anyhow::Ok(outputs.unwrap_or_default())
    })?;
    Ok((outputs, [left.traffic(), right.traffic()]))
}
