//! `3pc`: three parties, of which at most one is semi-honest and curious, compute on inputs and weights that none of them
//! knows. No material is made beforehand.
//!
//! Everything is shared replicated, v = x_0 + x_1 + x_2, and party i holds x_i and x_(i+1): [`Share`]. In every inference one
//! party deals to the two others, and the three take turns at that ([`Position`]). Let party 0 deal. Then m = x_2 and
//! λ = −(x_0 + x_1) is a masked wire as `2pc` has it: m is known to parties 1 and 2, −x_1 and −x_0 are their shares of λ, and
//! the dealer knows λ, but never an m. Nothing is converted, and all gates are those of [`masked`](crate::masked):
//! exact truncation, ReLU, max pool, signs, tables.
//!
//! A product of a wire x with weights w is the masked product. Party 1 computes
//! `m_x·(m_w − λ_w1) − λ_x1·m_w + γ_1`, party 2 `−m_x·λ_w2 − λ_x2·m_w + γ_2`; the dealer computes γ = λ_x·λ_w, draws γ_2 from
//! the seed it shares with party 2, and sends γ_1 to party 1. The results are opened under a fresh λ_z.
//!
//! - Source: the three-party product of ASTRA (CCSW 2019) with a dealer that never waits, as in Trio (Harth-Kitzerow et al.,
//!   PoPETs 2025). Against replicated multiplication (Araki et al., CCS 2016): five products of matrices instead of six, the
//!   same three ring elements for every result, and no message *to* the dealer, which can therefore run ahead: rounds are those
//!   of the two others. There a zero share hides the terms of a product when they are sent; here each share is sent under its
//!   half of the fresh mask λ_z, which the receiver does not know.
//! - Adversary: one semi-honest party of three, no collusion. Two parties together know everything. A malicious party can
//!   falsify results.
//! - Correlations: streamed by the dealer while the others compute; its seeds are fresh for every inference.
//! - Cost: see [`Schedule::three_party`](crate::masked::Schedule::three_party) and [`Cost`](crate::masked::Cost).
//! - Leaks: the plan (architecture, shapes, ranges) to all three; nothing else. Outputs stay shared, under masks of their own.
//! - Deviates from the papers: replicated storage, so that the parties can take turns as dealer with the same weights; exact
//!   truncation fused into ReLU.

mod dealer;
mod evaluate;
mod share;

use privet_net::{Channel, FrameKind};
use privet_plan::Plan;

pub use share::{Share, SharedWeights, components, drawn, join};

use crate::masked::Schedule;
use crate::{Progress, ProtocolError};

/// Number of parties.
pub const PARTIES: usize = 3;

/// The seed that dealer and receiver share for one inference.
const SEED: FrameKind = FrameKind::new(0x201);
/// What the dealer sends for an instruction, or a lane of it.
const DEALT: FrameKind = FrameKind::new(0x202);

/// What a party does in one inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Deals; learns no masked value.
    Dealer,
    /// Evaluates, adds public terms, and is sent what was dealt.
    First,
    /// Evaluates, and draws its shares of what was dealt.
    Second,
}

impl Position {
    /// Of `party` (0, 1 or 2) in the inference of this number: the parties take turns.
    pub fn of(party: usize, inference: u64) -> Self {
        match (party as u64 + 3 - inference % 3) % 3 {
            0 => Self::Dealer,
            1 => Self::First,
            _ => Self::Second,
        }
    }

    /// `dealer`, `first` or `second`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dealer => "dealer",
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// Channels to the two other parties: of party i to i+1 and to i−1, modulo 3. No party may be able to read what the two
/// others send each other.
pub struct Links<'a> {
    /// To the next party.
    pub next: &'a mut dyn Channel,
    /// To the previous party.
    pub previous: &'a mut dyn Channel,
}

/// One inference. `weights` has a share for every private tensor, `inputs` for every input. Returns this party's shares of
/// the outputs.
///
/// `schedule` is [`Schedule::three_party`], the same for all.
///
/// # Errors
/// Shares that do not fit the plan, a failed connection, or messages that are not the plan's.
pub fn infer(
    plan: &Plan,
    schedule: &Schedule,
    position: Position,
    weights: &SharedWeights,
    inputs: &[Share],
    links: Links,
    progress: &mut dyn Progress,
) -> Result<Vec<Share>, ProtocolError> {
    let shapes = plan.params.iter().map(|p| (&p.name, &p.shape));
    share::check(weights.shares, shapes)?;
    share::check(inputs, plan.inputs.iter().map(|i| (&i.name, &i.shape)))?;
    match position {
        Position::Dealer => dealer::deal(plan, schedule, weights, inputs, links, progress),
        Position::First | Position::Second => {
            evaluate::evaluate(plan, schedule, position, weights, inputs, links, progress)
        }
    }
}
