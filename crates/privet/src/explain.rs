//! What a plan is and costs, layer by layer: shapes, ranges, widths, rounds, bytes, and what is opened to whom.
//!
//! Everything follows from the plan alone, before anything runs. Bytes are payload: frames add their headers, sessions
//! their greetings. Costs are those of the schedule, which the engine keeps to exactly.

use privet_plan::{Op, Plan, Post, RangeSource, WireId};
use privet_protocols::masked::{self, Instruction, RevealTo, Schedule};
pub use privet_protocols::masked::{Content, Cost, Opening};
use serde::Serialize;

use crate::postprocess;
use crate::wire::AGREEMENT_ROUNDS;

/// Who would compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// One process, in the clear.
    Cleartext,
    /// Server and client, with a dealer beforehand; who learns the outputs.
    TwoParty(RevealTo),
    /// Three parties on shares, one of which deals. What is called the server's is the first one's of the two others.
    ThreeParty,
}

impl Setting {
    /// The name of the engine for a plan.
    pub fn engine(self, plan: &Plan) -> &'static str {
        match self {
            Self::Cleartext => "cleartext",
            Self::TwoParty(_) if !plan.fss.is_empty() => "fss",
            Self::TwoParty(_) => "2pc",
            Self::ThreeParty => "3pc",
        }
    }
}

/// A plan explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Name of the model.
    pub model: String,
    /// `2pc`, `fss`, `3pc` or `cleartext`; whoever has chosen the plan's keys by `auto` says so here.
    pub engine: &'static str,
    /// Hexadecimal digest of the plan.
    pub digest: String,
    /// Ring width in bits.
    pub ring: u32,
    /// Fractional bits of inputs, weights and truncated wires.
    pub frac_bits: u8,
    /// Values of all private tensors.
    pub parameters: usize,
    /// Multiplications with weights and of wires.
    pub multiply_accumulates: u64,
    /// Outputs of the model.
    pub outputs: Vec<Output>,
    /// Steps and revealed outputs, in execution order.
    pub rows: Vec<Row>,
    /// Sums over the rows.
    pub totals: Cost,
    /// Bytes of masked weights that every client gets once; none in the clear.
    pub masked_weights: usize,
    /// Messages one after the other that a server and a client exchange before there is an input: hello and choice. Not in the
    /// totals; in other settings there are none.
    pub agreement_rounds: u64,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Output {
    /// Name in the model.
    pub name: String,
    /// The float function that the receiver applies to what is revealed, if the model ends in one.
    pub final_function: Option<&'static str>,
}

/// A step, or the revealing of an output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Index of the step; of an output's wire where it is revealed.
    pub step: usize,
    /// The model's layer or output.
    pub layer: String,
    /// The operation, or `reveal`.
    pub op: &'static str,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Fractional bits of the result.
    pub frac_bits: u8,
    /// Signed width that the result is safe for.
    pub range_bits: u8,
    /// Where the range comes from: `full`, `proved` or `calibrated`.
    pub range_source: &'static str,
    /// Bits between the largest magnitude that calibration saw and the range.
    pub head_room: Option<u8>,
    /// Width of the step's comparisons.
    pub width: Option<u8>,
    /// What it costs, openings of operands that it needs included, or an early opening of its result.
    #[serde(flatten)]
    pub costs: Cost,
    /// What is opened for it.
    pub opened: Option<Opened>,
    /// The same round by round: all that the parties exchange, in order.
    pub openings: Vec<Opening>,
}

/// Something that a party gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// `masked` (uniformly random, whatever the value) or `value`.
    pub what: &'static str,
    /// `server`, `client` or `both`.
    pub to: &'static str,
}

/// Explains a validated plan.
pub fn explain(plan: &Plan, setting: Setting) -> Explanation {
    let (rows, totals) = match setting {
        Setting::TwoParty(reveal_to) => {
            let opened = Opened { what: "value", to: name(reveal_to) };
            masked_rows(plan, &Schedule::new(plan, reveal_to), Some(opened))
        }
        Setting::ThreeParty => masked_rows(plan, &Schedule::three_party(plan), None),
        Setting::Cleartext => ((0..plan.steps.len()).map(|i| row(plan, i)).collect(), Cost::default()),
    };
    let output = |o: &privet_plan::OutputSpec| Output {
        name: o.name.clone(),
        final_function: (o.post != Post::None).then(|| postprocess::name(o.post)),
    };
    Explanation {
        model: plan.model.clone(),
        engine: setting.engine(plan),
        digest: plan.digest().to_string(),
        ring: plan.ring.bits(),
        frac_bits: plan.frac_bits,
        parameters: plan.params.iter().map(|p| p.shape.iter().product::<usize>()).sum(),
        multiply_accumulates: plan.multiply_accumulates() as u64,
        outputs: plan.outputs.iter().map(output).collect(),
        rows,
        totals,
        masked_weights: match setting {
            Setting::TwoParty(_) => masked::masked_weights_len(plan),
            Setting::ThreeParty | Setting::Cleartext => 0,
        },
        agreement_rounds: match setting {
            Setting::TwoParty(_) => AGREEMENT_ROUNDS,
            Setting::ThreeParty | Setting::Cleartext => 0,
        },
    }
}

/// One row per step and output, which is `revealed` so. An opening belongs to the step that needs it; where wires are opened early, for several
/// steps that need what is made of them, to the step that makes them.
fn masked_rows(plan: &Plan, schedule: &Schedule, revealed: Option<Opened>) -> (Vec<Row>, Cost) {
    let mut rows: Vec<Row> = Vec::new();
    let mut pending = (Cost::default(), Vec::new());
    for (i, (instruction, cost)) in schedule.instructions.iter().enumerate() {
        let mut row = match instruction {
            Instruction::Open(wires) => {
                let openings = schedule.openings(plan, i);
                match (rows.last_mut(), schedule.instructions.get(i + 1)) {
                    (Some(made), Some((next @ Instruction::Step(_), _))) if !needs(plan, next, wires) => {
                        charge(made, *cost, openings)
                    }
                    _ => {
                        pending.0 += *cost;
                        pending.1.extend(openings);
                    }
                }
                continue;
            }
            Instruction::Step(i) => row(plan, *i),
            Instruction::Reveal(o) => {
                let output = &plan.outputs[*o];
                let (layer, op) = (output.name.clone(), "reveal");
                Row { layer, op, width: None, opened: revealed, ..row(plan, output.wire.index()) }
            }
        };
        let (cost_before, openings_before) = std::mem::take(&mut pending);
        charge(&mut row, cost_before, openings_before);
        charge(&mut row, *cost, schedule.openings(plan, i));
        rows.push(row);
    }
    (rows, schedule.total())
}

/// Whether an instruction needs one of `wires` masked.
fn needs(plan: &Plan, instruction: &Instruction, wires: &[WireId]) -> bool {
    let Instruction::Step(i) = instruction else { return false };
    let step = &plan.steps[*i];
    step.inputs[..masked::masked_operands(&step.op)].iter().any(|wire| wires.contains(wire))
}

/// Adds to what a row costs; whatever is sent before the outputs is masked.
fn charge(row: &mut Row, cost: Cost, openings: Vec<Opening>) {
    row.costs += cost;
    row.openings.extend(openings);
    let to = match (row.costs.server_sends > 0, row.costs.client_sends > 0) {
        (true, true) => "both",
        (true, false) => "client",
        (false, true) => "server",
        (false, false) => return,
    };
    row.opened.get_or_insert(Opened { what: "masked", to }).to = to;
}

fn name(reveal_to: RevealTo) -> &'static str {
    match reveal_to {
        RevealTo::Client => "client",
        RevealTo::Server => "server",
        RevealTo::Both => "both",
    }
}

/// A step without its costs.
fn row(plan: &Plan, index: usize) -> Row {
    let step = &plan.steps[index];
    let (range_source, head_room) = match step.range.source {
        RangeSource::FullWidth => ("full", None),
        RangeSource::Proved => ("proved", None),
        RangeSource::Calibrated { seen } => ("calibrated", Some(step.range.bits.saturating_sub(seen))),
    };
    let width = match step.op {
        Op::Relu { width, .. }
        | Op::NonNegative { width }
        | Op::Select { width }
        | Op::MaxPool { width, .. } => Some(width),
        _ => None,
    };
    Row {
        step: index,
        layer: step.name.clone(),
        op: step.op.name(),
        shape: step.shape.clone(),
        frac_bits: step.frac_bits,
        range_bits: step.range.bits,
        range_source,
        head_room,
        width,
        costs: Cost::default(),
        opened: None,
        openings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{CompileOptions, compile};

    fn digits(calibrate: bool) -> Plan {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits");
        let calibrate = if calibrate { vec![assets.join("7.png")] } else { Vec::new() };
        let preprocess = Some(assets.join("preprocess.toml").to_str().unwrap().to_owned());
        let options = CompileOptions { calibrate, preprocess, ..CompileOptions::default() };
        compile(&assets.join("digits.onnx"), &options).unwrap().plan
    }

    #[test]
    fn rows_add_up_to_the_schedule() {
        let plan = digits(false);
        for reveal_to in [RevealTo::Client, RevealTo::Server, RevealTo::Both] {
            let explanation = explain(&plan, Setting::TwoParty(reveal_to));
            let expected = Schedule::new(&plan, reveal_to).total();
            assert_eq!(explanation.totals, expected);
            let sum =
                |part: fn(&Cost) -> usize| explanation.rows.iter().map(|r| part(&r.costs)).sum::<usize>();
            assert_eq!(sum(|c| c.server_sends), expected.server_sends);
            assert_eq!(sum(|c| c.client_sends), expected.client_sends);
            assert_eq!(sum(|c| c.dealt), expected.dealt);
            assert_eq!(sum(|c| c.server_stores), expected.server_stores);
            assert_eq!(sum(|c| c.client_stores), expected.client_stores);
            assert_eq!(explanation.rows.iter().map(|r| r.costs.rounds).sum::<u64>(), expected.rounds);
            let values: Vec<_> =
                explanation.rows.iter().filter_map(|r| r.opened).filter(|o| o.what == "value").collect();
            assert_eq!(values, [Opened { what: "value", to: name(reveal_to) }]);
            assert!(explanation.rows.iter().all(|r| r.opened.is_some() || r.costs.rounds == 0));
            assert!(explanation.rows.iter().all(|r| r.opened.is_some() != r.openings.is_empty()));
        }
    }

    /// Both bounds of a Clip need what is made of one value: that of the product is opened, before the Neg.
    #[test]
    fn an_early_opening_is_charged_to_the_step_whose_result_it_opens() {
        use privet_graph::ops::{Clip, MatMul, Neg};
        use privet_graph::{CompileOptions, Dim, Graph, Tensor};
        let mut graph = Graph::new("test");
        let x = graph.input("x", vec![Dim::Fixed(1), Dim::Fixed(4)]);
        let w = ndarray::Array2::<f32>::eye(4).into_dyn();
        let [w, low, high] = [w, ndarray::arr0(-1.0).into_dyn(), ndarray::arr0(1.0).into_dyn()]
            .map(|values| graph.constant(Tensor::F32(values)));
        let product = graph.node("matmul", MatMul, &[x, w]);
        let negated = graph.node("neg", Neg, &[product]);
        let clipped = graph.node("clip", Clip, &[negated, low, high]);
        graph.output("y", clipped);
        let options = CompileOptions {
            ring: privet_ring::Ring::new(40).unwrap(),
            frac_bits: 8,
            input_shapes: Vec::new(),
            preprocess: privet_plan::Preprocess::default(),
            labels: Vec::new(),
        };
        let plan = privet_graph::compile(&graph, &options).unwrap().plan;
        let explanation = explain(&plan, Setting::TwoParty(RevealTo::Client));
        let costly: Vec<&Row> = explanation.rows.iter().filter(|r| !r.costs.is_free()).collect();
        assert_eq!(costly.iter().map(|r| r.op).collect::<Vec<_>>(), ["input", "matmul", "relu", "reveal"]);
        let bytes = plan.ring.packed_len(4);
        let product = costly[1];
        assert_eq!(product.opened, Some(Opened { what: "masked", to: "both" }));
        let Cost { rounds, server_sends, client_sends, .. } = product.costs;
        assert_eq!((rounds, server_sends, client_sends), (1, bytes, bytes));
        let mut instructions = Schedule::new(&plan, RevealTo::Client).instructions.into_iter();
        let (_, relu) = instructions.find(|(i, _)| *i == Instruction::Step(costly[2].step)).unwrap();
        assert_eq!((costly[2].costs.rounds, costly[2].costs.server_sends), (relu.rounds, relu.server_sends));
    }

    #[test]
    fn widths_and_head_room_follow_from_ranges() {
        let full = explain(&digits(false), Setting::Cleartext);
        assert!(full.totals.is_free() && full.masked_weights == 0);
        assert!(full.rows.iter().all(|r| r.range_source == "full" && r.head_room.is_none()));
        let relu = full.rows.iter().find(|r| r.op == "relu").unwrap();
        assert_eq!(relu.width, Some(63));
        let narrow = explain(&digits(true), Setting::Cleartext);
        let input = &narrow.rows[0];
        assert_eq!((input.op, input.range_source, input.head_room), ("input", "calibrated", Some(2)));
        assert!(narrow.rows.iter().filter_map(|r| r.width).all(|width| u32::from(width) < narrow.ring));
    }
}
