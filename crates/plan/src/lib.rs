//! The plan: what a model means as an integer program.
//!
//! A model lowers onto a [`Plan`] from above, engines execute plans from below. A plan is data only: steps with
//! shapes, ring, scales and ranges. It is public (architecture without weights); the matching private
//! integers are [`Weights`]. Both have versioned files ([`mod@file`]).

#![forbid(unsafe_code)]

mod digest;
pub mod file;
pub mod interval;
mod op;
mod preprocess;
pub mod ranges;
pub mod validate;
mod weights;

use privet_ring::Ring;
use serde::{Deserialize, Serialize};

pub use digest::Digest;
pub use op::{MAX_ENTRIES, MAX_ENTRIES_WITHOUT_KEYS, Op, ParamId, Tap, WireId};
pub use preprocess::{Channels, Layout, Preprocess};
pub use privet_ring::geometry::Window;
pub use weights::Weights;

/// Version of the plan's meaning and encoding; other versions are refused.
pub const PLAN_VERSION: u16 = 5;

/// What is wrong with a plan, its weights or their files.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file is not what it should be (magic, version, length, checksum).
    #[error("{what}: {problem}")]
    File {
        /// Kind of file.
        what: &'static str,
        /// What was expected and found.
        problem: String,
    },
    /// A step contradicts itself or its inputs.
    #[error("plan step {step} ({name}): {problem}")]
    Step {
        /// Index of the step.
        step: usize,
        /// Name of the model node it came from.
        name: String,
        /// What was expected and found.
        problem: String,
    },
    /// Something else in the plan is inconsistent.
    #[error("plan: {0}")]
    Invalid(String),
    /// The weights do not belong to the plan.
    #[error("weights: {0}")]
    Weights(String),
}

/// A model as a list of integer steps over Z_2^l. Step `i` defines wire `i`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the model, for people.
    pub model: String,
    /// The ring all wires live in.
    pub ring: Ring,
    /// Fractional bits of inputs, weights and truncated wires.
    pub frac_bits: u8,
    /// What the data owner provides.
    pub inputs: Vec<InputSpec>,
    /// Shapes of the model owner's private tensors.
    pub params: Vec<ParamSpec>,
    /// The program, in execution order.
    pub steps: Vec<Step>,
    /// What is revealed, and to be done with it in the clear by the receiver.
    pub outputs: Vec<OutputSpec>,
    /// Class labels, in output order; may be empty.
    pub labels: Vec<String>,
    /// Steps, in ascending order, whose comparisons two parties make with keys of function secret sharing; all others take trees
    /// of masked bits. Results are the same. Tables of more than 2^8 entries take keys in any case and are not listed.
    pub fss: Vec<Keyed>,
}

/// A step that takes keys of function secret sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// The step.
    pub step: WireId,
    /// What its keys share.
    pub keys: Keys,
}

/// What keys of function secret sharing share of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// The bit, which is opened under a mask before it is used.
    Bits,
    /// What the bit is multiplied with, as ring elements: nothing is opened. About twice the bytes.
    Products,
}

/// Most elements of a step's first operand for which [`Plan::with_fss`] takes keys that carry products: those of more are
/// bound by bytes and arithmetic, not by messages.
pub const MAX_ELEMENTS_WITH_PRODUCTS: usize = 1 << 14;

/// One input of the data owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Name in the model.
    pub name: String,
    /// Shape, batch included.
    pub shape: Vec<usize>,
    /// How an image becomes this input.
    pub preprocess: Preprocess,
}

/// One private tensor of the model owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// Name in the model.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Fractional bits of the integers.
    pub frac_bits: u8,
}

/// One step; its result is the wire of the same index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the model node it came from, for people.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Operand wires, all of smaller index.
    pub inputs: Vec<WireId>,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Fractional bits of the result.
    pub frac_bits: u8,
    /// What values the result is safe for.
    pub range: Range,
}

/// Bounds of a wire: every value v satisfies -2^(bits-1) <= v < 2^(bits-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Signed width.
    pub bits: u8,
    /// Where the bound comes from.
    pub source: RangeSource,
}

/// Where a range comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeSource {
    /// The widest the protocols allow; nothing is known about the model.
    FullWidth,
    /// No input in its range leads outside: interval arithmetic. Of an input itself: its owner keeps to it.
    Proved,
    /// Largest magnitude on calibration inputs times a margin.
    Calibrated {
        /// Signed width of that largest magnitude; what the range has beyond it is head room.
        seen: u8,
    },
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Name in the model.
    pub name: String,
    /// The wire that is revealed.
    pub wire: WireId,
    /// Float function that the receiver applies after the reveal.
    pub post: Post,
}

/// A final float function that the receiver applies to revealed values. It costs nothing; the receiver learns its operand,
/// which for softmax is one number a sample more than the probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Post {
    /// Nothing.
    None,
    /// Softmax along an axis.
    Softmax {
        /// The axis.
        axis: u32,
    },
    /// Logarithm of softmax along an axis.
    LogSoftmax {
        /// The axis.
        axis: u32,
    },
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Plan {
    /// Shape of a wire.
    pub fn shape(&self, wire: WireId) -> &[usize] {
        &self.steps[wire.index()].shape
    }

    /// Number of elements of a wire.
    pub fn len(&self, wire: WireId) -> usize {
        self.shape(wire).iter().product()
    }

    /// The same program with keys of function secret sharing for all comparisons: with those that carry products for steps of few
    /// elements that can have them.
    #[must_use]
    pub fn with_fss(&self) -> Plan {
        self.with_keys(|step| {
            let few = self.len(self.steps[step].inputs[0]) <= MAX_ELEMENTS_WITH_PRODUCTS;
            if few { Keys::Products } else { Keys::Bits }
        })
    }

    /// The same program with keys of function secret sharing for all comparisons, of the kind that `wanted` says for a step. One
    /// that can have no products gets bits.
    #[must_use]
    pub fn with_keys(&self, wanted: impl Fn(usize) -> Keys) -> Plan {
        let compares = (0..self.steps.len()).filter(|&i| self.steps[i].op.compares());
        let keyed = |i: usize| {
            let keys = if self.can_carry_products(i) { wanted(i) } else { Keys::Bits };
            Keyed { step: WireId(i as u32), keys }
        };
        Plan { fss: compares.map(keyed).collect(), ..self.clone() }
    }

    /// Which keys of function secret sharing a step's comparisons take, if any.
    pub fn keys(&self, step: usize) -> Option<Keys> {
        let at = self.fss.binary_search_by_key(&WireId(step as u32), |keyed| keyed.step);
        at.ok().map(|at| self.fss[at].keys)
    }

    /// Whether a step's comparisons take keys of function secret sharing.
    pub fn uses_fss(&self, step: usize) -> bool {
        self.keys(step).is_some()
    }

    /// Whether keys can carry what a step multiplies its comparisons with. A ReLU that truncates multiplies two of them with each
    /// other, a choice of several values by one sign has more products than a key carries.
    pub fn can_carry_products(&self, step: usize) -> bool {
        let step = &self.steps[step];
        match step.op {
            Op::Relu { shift, .. } => shift == 0,
            Op::Select { .. } => self.len(step.inputs[0]) == self.len(step.inputs[1]),
            _ => step.op.compares(),
        }
    }

    /// For every step, the wires that no later step and no output reads.
    pub fn last_uses(&self) -> Vec<Vec<WireId>> {
        let mut last: Vec<Option<usize>> = vec![None; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for w in &step.inputs {
                last[w.index()] = Some(i);
            }
        }
        for output in &self.outputs {
            last[output.wire.index()] = None;
        }
        let mut dead = vec![Vec::new(); self.steps.len()];
        for (w, at) in last.into_iter().enumerate() {
            if let Some(i) = at {
                dead[i].push(WireId(w as u32));
            }
        }
        dead
    }
}
