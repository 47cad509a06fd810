//! The steps of a plan that are gates: comparisons, truncations, tables and max pools; how each is cut into lanes, what a
//! lane costs, deals and computes.

use std::ops::Range;

use privet_plan::{Keys, Op, Plan};
use privet_ring::Ring;

use super::borrow::Way;
use super::compare::Gate;
use super::cost::GateCost;
use super::gate::{Dealing, Party};
use super::lanes;
use super::maxpool::Tournament;
use super::product::{Compare, Product};
use super::sign::{Masked, Sign};
use super::table::Table;
use crate::ProtocolError;

/// Comparisons that are made at once, of a step or of a level of a max pool, from which on their trees are not flat. A round costs
/// what some thousand elements cost in material. All parties have to decide alike, days apart: with it, change the
/// versions of the protocol and of bundle files.
pub(super) const FLAT: usize = (1 << 11) + 1;

/// A step that is a gate.
pub(super) enum GateStep<'a> {
    Compare(Compare),
    Sign(Sign),
    /// `values` values are chosen by each sign.
    Select {
        sign: Sign,
        values: usize,
    },
    /// A value is chosen by each sign, without opening it.
    Choice(Product),
    Table(Table<'a>),
    /// `area` elements a channel.
    MaxPool {
        tournament: Tournament,
        area: usize,
    },
}

impl<'a> GateStep<'a> {
    /// The gate of a step, if it is one, with the keys that its comparisons take. Without, fewer than `flat` take flat trees.
    pub(super) fn of(plan: &'a Plan, index: usize, keys: Option<Keys>, flat: usize) -> Option<Self> {
        let step = &plan.steps[index];
        let products = keys == Some(Keys::Products);
        let way = |comparisons| match keys {
            Some(_) => Way::Keys,
            None => Way::Tree { flat: comparisons < flat },
        };
        let elements = step.inputs.first().map_or(0, |wire| plan.len(*wire));
        let each = way(elements);
        let compare = |gate: Gate, product: Product| {
            Self::Compare(if products { Compare::Product(product) } else { Compare::Opened(gate) })
        };
        Some(match &step.op {
            Op::Trunc { shift } => {
                let shift = u32::from(*shift);
                compare(Gate::Trunc { shift, way: each }, Product::Trunc { shift })
            }
            Op::Relu { shift, width } => {
                let (shift, width) = (u32::from(*shift), u32::from(*width));
                compare(Gate::Relu { shift, width, way: each }, Product::Relu { width })
            }
            Op::NonNegative { width } if products => {
                Self::Compare(Compare::Product(Product::Sign { width: u32::from(*width) }))
            }
            Op::NonNegative { width } => Self::Sign(Sign { width: u32::from(*width), way: each }),
            Op::Select { width } if products => Self::Choice(Product::Select { width: u32::from(*width) }),
            Op::Select { width } => Self::Select {
                sign: Sign { width: u32::from(*width), way: each },
                values: plan.len(step.inputs[1]) / plan.len(step.inputs[0]),
            },
            Op::Table { entries } => Self::Table(Table { entries }),
            Op::MaxPool { window, width } => {
                let (input, width) = (&plan.shape(step.inputs[0])[2..], u32::from(*width));
                let area = input.iter().product();
                let relu = |pairs: usize| {
                    if products {
                        return Compare::Product(Product::Relu { width });
                    }
                    Compare::Opened(Gate::Relu { shift: 0, width, way: way(pairs * (elements / area)) })
                };
                Self::MaxPool { tournament: Tournament::new(window, input, &step.shape[2..], relu), area }
            }
            _ => return None,
        })
    }

    /// Ranges of the first operand's `elements`, about `lane` each.
    pub(super) fn lanes(&self, elements: usize, lane: usize) -> Vec<Range<usize>> {
        match self {
            // Channels stay whole.
            Self::MaxPool { area, .. } => {
                let whole = |channels: Range<usize>| channels.start * area..channels.end * area;
                lanes::cut(elements / area, *area, lane).into_iter().map(whole).collect()
            }
            // What one sign chooses does not lie together.
            Self::Select { values: 2.., .. } => std::iter::once(0..elements).collect(),
            _ => lanes::cut(elements, 1, lane),
        }
    }

    /// What is opened, and bytes dealt, for a lane of `elements` elements.
    pub(super) fn lane_cost(&self, ring: Ring, elements: usize) -> GateCost {
        match self {
            Self::Compare(gate) => gate.cost(ring, elements),
            Self::Sign(sign) => sign.cost(ring, elements, 0),
            Self::Select { sign, values } => sign.cost(ring, elements, values * elements),
            Self::Choice(product) => product.cost(ring, elements),
            Self::Table(table) => table.cost(ring, elements),
            Self::MaxPool { tournament, area } => tournament.cost(ring, elements / area),
        }
    }

    /// What is opened, and bytes dealt, for the whole step.
    pub(super) fn cost(&self, ring: Ring, elements: usize, lane: usize) -> GateCost {
        let lanes = self.lanes(elements, lane).into_iter();
        GateCost::side_by_side(lanes.map(|lane| self.lane_cost(ring, lane.len())).collect())
    }

    /// Dealer: shares the correlation of a lane for the masks of its operands; all but a choice have one.
    pub(super) async fn deal(
        &self,
        r: &[u64],
        t: &[u64],
        mut dealing: Dealing<'_>,
    ) -> Result<(), ProtocolError> {
        match self {
            Self::Compare(gate) => gate.deal(r, &mut dealing)?,
            Self::Sign(sign) => sign.deal(r, &mut dealing)?,
            Self::Select { sign, .. } => sign.deal_select(r, t, &mut dealing)?,
            Self::Choice(product) => product.deal(r, t, &mut dealing)?,
            Self::Table(table) => table.deal(r, &mut dealing)?,
            Self::MaxPool { tournament, .. } => tournament.deal(r, &mut dealing).await?,
        }
        dealing.hand_on()
    }

    /// Party: own shares of a lane's results, from its operands; all but a choice have one.
    pub(super) async fn evaluate(
        &self,
        x: Masked<'_>,
        t: Masked<'_>,
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        match self {
            Self::Compare(gate) => gate.evaluate(x, party).await,
            Self::Sign(sign) => sign.bit(x.m, party).await,
            Self::Select { sign, .. } => sign.select(x.m, t, party).await,
            Self::Choice(product) => product.evaluate(x, t, party),
            Self::Table(table) => table.evaluate(x.m, party).await,
            Self::MaxPool { tournament, .. } => tournament.evaluate(x.m, x.lambda, party).await,
        }
    }
}
