//! `2pc`: masked two-party computation with an offline dealer.
//!
//! A wire v is held as m = v + λ, known to both parties, with λ = λ_server + λ_client from seeds that the dealer chose;
//! or as additive shares. The model owner's weights are masked once per client, m_W = W + λ_W with λ_W known to server
//! and dealer; the client's inputs with a mask only it and the dealer know.
//!
//! - Source: the masked evaluation of Turbospeedz and ABY2.0, with a dealer instead of a two-party offline phase; products
//!   `[z]_i = [i=0]·m_x·m_W − m_x·λ_{W,i} − λ_{x,i}·m_W + γ_i` where γ shares λ_x·λ_W. Since λ_W belongs to the server
//!   alone, everything but the server's m_x·W is computed offline ([`prepare`]). A product of two wires is
//!   `[z]_i = [i=0]·m_x·m_y − m_x·λ_{y,i} − λ_{x,i}·m_y + γ_i`, all of it online.
//! - Adversary: one semi-honest party among server, client and dealer, no collusion. The dealer together with the server
//!   learns the inputs, together with the client the weights. A malicious party can falsify results, and a client that
//!   shifts masked values on inner wires can learn more about the weights than the outputs tell.
//! - Correlations: see [`Cost`] and the gates' own headers; each is used once.
//! - Leaks: the plan (architecture, shapes, ranges) to everyone; outputs to whom they are revealed.
//! - Deviates from the papers: exact truncation fused into ReLU, radix-4 trees of dealt monomials.

#[cfg(feature = "audit")]
pub mod audit;
mod borrow;
mod bundle;
mod compare;
pub(crate) mod correlate;
mod cost;
mod deal;
pub(crate) mod evaluator;
pub(crate) mod gate;
mod lanes;
mod maxpool;
mod node;
mod online;
mod prepare;
mod product;
mod schedule;
mod sign;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod walk;

use privet_plan::{Plan, Weights};
use privet_ring::prg::Seed;
use serde::{Deserialize, Serialize};

use gate::Half;

pub use bundle::Bundle;
pub use cost::{Content, Cost, Opening};
pub use deal::deal;
pub use online::{Online, ServerWeights, online};
pub use prepare::prepare;
#[doc(hidden)]
pub use schedule::Sizes;
pub use schedule::{Instruction, Schedule, masked_operands};

pub use crate::inputs::check_inputs;
use crate::{ProtocolError, linear};

/// A party of the online phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Owns the model.
    Server,
    /// Owns the inputs.
    Client,
}

impl From<Role> for Half {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => Self::First,
            Role::Client => Self::Second,
        }
    }
}

/// Who learns the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevealTo {
    /// The owner of the inputs.
    Client,
    /// The owner of the model.
    Server,
    /// Both.
    Both,
}

impl std::fmt::Display for RevealTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        })
    }
}

impl RevealTo {
    /// Whether `role` learns the outputs.
    pub fn includes(self, role: Role) -> bool {
        self == Self::Both || (self == Self::Client) == (role == Role::Client)
    }
}

/// Reads a party's one-time material, in the order of [`Schedule::chunks`]. A chunk is never given twice.
pub trait Source {
    /// The next chunk, which has to be of this instruction and `len` bytes long.
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError>;
}

/// Takes chunks in the order of [`Schedule::chunks`].
pub trait Sink {
    /// Stores or sends the next chunk of an instruction.
    fn chunk(&mut self, instruction: usize, bytes: Vec<u8>) -> Result<(), ProtocolError>;
}

impl<F: FnMut(usize, Vec<u8>) -> Result<(), ProtocolError>> Sink for F {
    fn chunk(&mut self, instruction: usize, bytes: Vec<u8>) -> Result<(), ProtocolError> {
        self(instruction, bytes)
    }
}

/// m_W of every tensor that something is multiplied by; `None` for those that are only added.
pub type MaskedWeights = Vec<Option<Vec<u64>>>;

/// Which private tensors something is multiplied by.
fn factors(plan: &Plan) -> Vec<bool> {
    let mut used = vec![false; plan.params.len()];
    plan.steps.iter().filter_map(|s| linear::factor(&s.op)).for_each(|p| used[p.index()] = true);
    used
}

/// Server: masks the weights with the seed that belongs to (weights, client). The result is what the client gets.
pub fn mask_weights(plan: &Plan, weights: &Weights, seed: &Seed) -> MaskedWeights {
    let masked = |(param, used): (usize, bool)| {
        let values = &weights.tensors[param];
        used.then(|| {
            let mut m = gate::weight_masks(seed, param, values.len(), plan.ring);
            m.iter_mut().zip(values).for_each(|(m, &v)| *m = plan.ring.reduce(m.wrapping_add(v as u64)));
            m
        })
    };
    factors(plan).into_iter().enumerate().map(masked).collect()
}

/// Bytes that [`pack_masked_weights`] gives.
pub fn masked_weights_len(plan: &Plan) -> usize {
    let used = factors(plan);
    let specs = plan.params.iter().zip(used).filter(|(_, used)| *used);
    specs.map(|(spec, _)| plan.ring.packed_len(spec.shape.iter().product())).sum()
}

/// Masked weights as they go to the client: each tensor packed to l bits, in order.
pub fn pack_masked_weights(plan: &Plan, weights: &MaskedWeights) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(masked_weights_len(plan));
    weights.iter().flatten().for_each(|m| privet_ring::pack::pack(m, plan.ring.bits(), &mut bytes));
    bytes
}

/// Parses masked weights. Errors unless `bytes` has exactly the size that the plan asks for.
pub fn unpack_masked_weights(plan: &Plan, bytes: &[u8]) -> Result<MaskedWeights, ProtocolError> {
    let expected = masked_weights_len(plan);
    if bytes.len() != expected {
        return Err(ProtocolError::Size { what: "masked weights".to_owned(), expected, found: bytes.len() });
    }
    let mut rest = bytes;
    let mut unpack = |count: usize| {
        let (own, tail) = rest.split_at(plan.ring.packed_len(count));
        rest = tail;
        privet_ring::pack::unpack(own, plan.ring.bits(), count)
    };
    let specs = plan.params.iter().zip(factors(plan));
    specs
        .map(|(spec, used)| {
            let count = spec.shape.iter().product();
            if used { Ok(Some(unpack(count)?)) } else { Ok(None) }
        })
        .collect()
}
