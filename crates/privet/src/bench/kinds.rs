//! Time per kind of layer: which kind each instruction of an engine belongs to, and how long the instructions took.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use privet_plan::{Op, Plan, Step};
use privet_protocols::masked::{Instruction, Schedule};
use serde::{Deserialize, Serialize};

use crate::events::{Event, Observer};

/// What a layer does, as tables of MPC papers group it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Convolutions.
    Conv,
    /// Matrix products and products of values.
    Linear,
    /// ReLU and other comparisons, truncations that are part of them, tables.
    Relu,
    /// Maximum and average.
    Pooling,
    /// Everything else: inputs, outputs, greetings, sums, movement.
    Other,
}

impl Kind {
    /// All kinds, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Conv, Self::Linear, Self::Relu, Self::Pooling, Self::Other];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Linear => "linear",
            Self::Relu => "relu",
            Self::Pooling => "pooling",
            Self::Other => "other",
        }
    }

    /// The kind of a step. A truncation or addend of its own belongs to what it follows.
    fn of(plan: &Plan, step: &Step) -> Self {
        match &step.op {
            Op::Conv { .. } => Self::Conv,
            Op::MatMul { .. } | Op::BatchMatMul | Op::Multiply | Op::Scale { .. } => Self::Linear,
            Op::Relu { .. } | Op::NonNegative { .. } | Op::Select { .. } | Op::Table { .. } => Self::Relu,
            Op::MaxPool { .. } | Op::AveragePool { .. } => Self::Pooling,
            Op::Trunc { .. } | Op::AddParam { .. } => {
                step.inputs.first().map_or(Self::Other, |wire| Self::of(plan, &plan.steps[wire.index()]))
            }
            Op::Input { .. }
            | Op::Combine { .. }
            | Op::AxisMap { .. }
            | Op::Reshape
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. } => Self::Other,
        }
    }

    /// The kinds of what the cleartext engine reports on: the plan's steps.
    pub fn of_steps(plan: &Plan) -> Vec<Self> {
        plan.steps.iter().map(|step| Self::of(plan, step)).collect()
    }

    /// The kinds of a schedule's instructions. An opening belongs to the step that comes next and needs it.
    pub fn of_schedule(plan: &Plan, schedule: &Schedule) -> Vec<Self> {
        let mut kinds = Vec::with_capacity(schedule.instructions.len());
        let mut next = Self::Other;
        for (instruction, _) in schedule.instructions.iter().rev() {
            let kind = match instruction {
                Instruction::Step(i) => Self::of(plan, &plan.steps[*i]),
                Instruction::Open(_) => next,
                Instruction::Reveal(_) => Self::Other,
            };
            next = kind;
            kinds.push(kind);
        }
        kinds.reverse();
        kinds
    }
}

/// Seconds per kind of layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct KindSeconds {
    /// See [`Kind::Conv`].
    pub conv: f64,
    /// See [`Kind::Linear`].
    pub linear: f64,
    /// See [`Kind::Relu`].
    pub relu: f64,
    /// See [`Kind::Pooling`].
    pub pooling: f64,
    /// See [`Kind::Other`].
    pub other: f64,
}

impl KindSeconds {
    /// Divides `total` seconds of an inference: laps to their instructions' kinds, what is left to [`Kind::Other`].
    pub fn of(kinds: &[Kind], laps: &[f64], total: f64) -> Self {
        let mut seconds = Self::default();
        for (kind, lap) in kinds.iter().zip(laps).filter(|(kind, _)| **kind != Kind::Other) {
            *seconds.of_kind_mut(*kind) += lap;
        }
        seconds.other = (total - seconds.total()).max(0.0);
        seconds
    }

    /// Means of several inferences.
    pub fn mean(all: &[Self]) -> Self {
        let mut mean = Self::default();
        for kind in Kind::ALL {
            let sum: f64 = all.iter().map(|seconds| seconds.of_kind(kind)).sum();
            *mean.of_kind_mut(kind) = sum / all.len().max(1) as f64;
        }
        mean
    }

    /// The seconds of one kind.
    pub fn of_kind(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Conv => self.conv,
            Kind::Linear => self.linear,
            Kind::Relu => self.relu,
            Kind::Pooling => self.pooling,
            Kind::Other => self.other,
        }
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut f64 {
        match kind {
            Kind::Conv => &mut self.conv,
            Kind::Linear => &mut self.linear,
            Kind::Relu => &mut self.relu,
            Kind::Pooling => &mut self.pooling,
            Kind::Other => &mut self.other,
        }
    }

    /// Their sum.
    pub fn total(&self) -> f64 {
        Kind::ALL.iter().map(|&kind| self.of_kind(kind)).sum()
    }
}

/// Notes when an engine says that an instruction is about to run.
///
/// For a party that makes one inference at a time: what runs beside another is not told apart.
#[derive(Debug, Default)]
pub struct Stopwatches(Mutex<Laps>);

#[derive(Debug, Default)]
struct Laps {
    began: Option<Instant>,
    done: Vec<f64>,
}

impl Stopwatches {
    /// Seconds of each instruction of the inference that was begun last, and forgets them. The last instruction ends with the
    /// inference, or when this is asked.
    pub fn take(&self) -> Vec<f64> {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.end();
        std::mem::take(&mut laps.done)
    }
}

impl Laps {
    fn end(&mut self) {
        if let Some(began) = self.began.take() {
            self.done.push(began.elapsed().as_secs_f64());
        }
    }
}

impl Observer for Stopwatches {
    fn event(&self, event: &Event) {
        let Event::Progress { done, total, .. } = event else { return };
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.end();
        if *done == 0 {
            laps.done.clear();
        }
        laps.began = (done < total).then(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use privet_protocols::masked::RevealTo;

    use super::*;
    use crate::bench::{Options, Subject, Workload};
    use crate::events::Phase;

    #[test]
    fn every_instruction_has_a_kind() {
        let options = Options {
            inputs: 0,
            seed: 1,
            calibrate: false,
            ring: None,
            frac_bits: None,
            average_pooling: false,
        };
        let plan = Workload::new(&Subject::find("lenet").unwrap(), &options).unwrap().model.plan;
        let schedule = Schedule::new(&plan, RevealTo::Client);
        let (steps, instructions) = (Kind::of_steps(&plan), Kind::of_schedule(&plan, &schedule));
        assert_eq!((steps.len(), instructions.len()), (plan.steps.len(), schedule.instructions.len()));
        let count = |kinds: &[Kind], kind| kinds.iter().filter(|k| **k == kind).count();
        for kinds in [&steps, &instructions] {
            assert!(count(kinds, Kind::Conv) >= 2 && count(kinds, Kind::Linear) >= 2);
            assert!(count(kinds, Kind::Relu) >= 3 && count(kinds, Kind::Pooling) >= 2);
        }
        // Each of the three comparisons and both maxima opens its operand first.
        assert!(count(&instructions, Kind::Relu) > count(&steps, Kind::Relu));
        assert_eq!(instructions.last(), Some(&Kind::Other), "an output is revealed");
    }

    #[test]
    fn seconds_add_up_to_the_whole() {
        let kinds = [Kind::Other, Kind::Conv, Kind::Relu, Kind::Conv, Kind::Other];
        let seconds = KindSeconds::of(&kinds, &[9.0, 1.0, 2.0, 0.5, 9.0], 5.0);
        assert_eq!((seconds.conv, seconds.relu, seconds.other), (1.5, 2.0, 1.5));
        assert_eq!(seconds.total(), 5.0);
        let twice = KindSeconds { linear: 2.0, ..seconds };
        assert_eq!(KindSeconds::mean(&[seconds, twice]).linear, 1.0);
    }

    #[test]
    fn laps_are_of_the_last_inference() {
        let watches = Stopwatches::default();
        let step = |done| {
            let (phase, name) = (Phase::Online, String::new());
            watches.event(&Event::Progress { phase, inference: 0, done, total: 3, name });
        };
        (0..3).chain(0..2).for_each(step);
        let laps = watches.take();
        assert!(laps.len() == 2 && laps.iter().all(|&s| s >= 0.0), "{laps:?}");
        assert!(watches.take().is_empty());
        // What follows the end of an inference is no part of it.
        (0..=3).for_each(step);
        assert!(watches.0.lock().unwrap().began.is_none());
        assert_eq!(watches.take().len(), 3);
    }
}
