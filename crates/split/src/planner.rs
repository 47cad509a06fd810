//! Where to cut: dynamic programming over the places where a model can be cut.
//!
//! The peak of a stage is the bytes of the weights that it holds, each once, plus the most that one of its operations takes: all
//! tensors that are alive while it runs, its workspace, and one block of a weight that is not held. Tensors that only pass by
//! are alive too, since all stages run in one process. A weight is not held where its operation alone would not fit
//! into the memory with all of it. Peaks only grow when a stage does, which the search relies on.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::SplitError;

/// Largest block of a weight that is not held.
pub const LARGEST_BLOCK: u64 = 4 << 20;

/// What decides between plans with as many stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// The smallest peak of the largest stage.
    #[default]
    Memory,
    /// The least work in the stage with most.
    Time,
}

/// What one operation takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Name, for messages.
    pub name: String,
    /// Bytes of all tensors alive while it runs, and of its workspace.
    pub active: u64,
    /// Indices of its weights in [`Workload::weights`].
    pub weights: Vec<usize>,
    /// How long it takes, in any unit.
    pub work: u64,
    /// Whether the model can be cut in front of it; of the first one it does not matter.
    pub cut: bool,
}

/// A weight, or another constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightSize {
    /// Bytes.
    pub bytes: u64,
    /// Bytes of a row if it can arrive in blocks of rows.
    pub row: Option<u64>,
}

/// A model, as the planner sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// Operations in order.
    pub operations: Vec<Operation>,
    /// Weights.
    pub weights: Vec<WeightSize>,
}

/// A way to cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Operations of every stage.
    pub stages: Vec<Range<usize>>,
    /// Peak of every stage in bytes.
    pub peaks: Vec<u64>,
    /// For every weight, the bytes of a block if it is not held.
    pub blocks: Vec<Option<u64>>,
}

/// Cuts into `parts` stages, or as few as fit into `memory` bytes, or both.
///
/// # Errors
/// More parts than places allow; memory in which one operation does not fit; fewer parts than the memory asks for.
pub fn plan(
    work: &Workload,
    parts: Option<usize>,
    memory: Option<u64>,
    balance: Balance,
) -> Result<Plan, SplitError> {
    let blocks = blocks(work, memory)?;
    let table = Table::new(work, &blocks, memory.unwrap_or(u64::MAX));
    let most = table.places.len() - 1;
    let fewest = table.fewest();
    let parts = parts.unwrap_or(fewest);
    if parts < 1 || parts > most {
        return Err(SplitError::Parts { most, found: parts, between: String::new() });
    }
    if parts < fewest {
        let memory = memory.unwrap_or(u64::MAX);
        return Err(SplitError::PartsInMemory { least: fewest, found: parts, memory });
    }
    let stages = table.best(parts, balance);
    let peaks = stages.iter().map(|s| peak(work, &blocks, s.clone())).collect();
    Ok(Plan { stages, peaks, blocks })
}

/// The smallest memory that is possible.
pub fn least_memory(work: &Workload) -> u64 {
    work.operations.iter().map(|op| least(work, op)).max().unwrap_or(0)
}

/// What an operation takes with the smallest blocks.
fn least(work: &Workload, op: &Operation) -> u64 {
    let smallest = |&w: &usize| work.weights[w].row.unwrap_or(work.weights[w].bytes);
    op.active + op.weights.iter().map(smallest).sum::<u64>()
}

/// Bytes of a block for all weights that are not held.
fn blocks(work: &Workload, memory: Option<u64>) -> Result<Vec<Option<u64>>, SplitError> {
    let mut blocks = vec![None; work.weights.len()];
    let Some(memory) = memory else { return Ok(blocks) };
    let largest = work.operations.iter().max_by_key(|op| least(work, op));
    if let Some(op) = largest.filter(|op| least(work, op) > memory) {
        return Err(SplitError::Memory { node: op.name.clone(), least: least(work, op), found: memory });
    }
    for op in &work.operations {
        let all: u64 = op.weights.iter().map(|&w| work.weights[w].bytes).sum();
        if op.active + all <= memory {
            continue;
        }
        // What is left for each of its weights beyond their smallest blocks.
        let rows: Vec<(usize, u64)> =
            op.weights.iter().filter_map(|&w| Some((w, work.weights[w].row?))).collect();
        let spare = (memory - least(work, op)) / rows.len().max(1) as u64;
        for (w, row) in rows {
            let most = (row + spare).min(LARGEST_BLOCK).min(work.weights[w].bytes).max(row);
            let own = most / row.max(1) * row;
            blocks[w] = Some(blocks[w].map_or(own, |other: u64| other.min(own)));
        }
    }
    Ok(blocks)
}

/// The peak of a stage.
pub fn peak(work: &Workload, blocks: &[Option<u64>], stage: Range<usize>) -> u64 {
    let mut seen = vec![false; work.weights.len()];
    let (mut held, mut most) = (0, 0);
    for op in &work.operations[stage] {
        for &w in &op.weights {
            if blocks[w].is_none() && !std::mem::replace(&mut seen[w], true) {
                held += work.weights[w].bytes;
            }
        }
        most = most.max(active(op, blocks));
    }
    held + most
}

fn active(op: &Operation, blocks: &[Option<u64>]) -> u64 {
    op.active + op.weights.iter().filter_map(|&w| blocks[w]).sum::<u64>()
}

/// Peak and work of every possible stage.
struct Table {
    /// Where the model begins, can be cut, and ends.
    places: Vec<usize>,
    /// `costs[end][end - 1 - begin]`, as far as stages fit into the memory.
    costs: Vec<Vec<(u64, u64)>>,
}

impl Table {
    fn new(work: &Workload, blocks: &[Option<u64>], memory: u64) -> Self {
        let count = work.operations.len();
        let cut = |&at: &usize| at > 0 && work.operations[at].cut;
        let places: Vec<usize> = [0].into_iter().chain((0..count).filter(cut)).chain([count]).collect();
        let mut costs = vec![Vec::new(); places.len()];
        let mut seen = vec![usize::MAX; work.weights.len()];
        for (end, costs) in costs.iter_mut().enumerate().skip(1) {
            let (mut held, mut most, mut time) = (0u64, 0u64, 0u64);
            for begin in (0..end).rev() {
                for op in &work.operations[places[begin]..places[begin + 1]] {
                    for &w in &op.weights {
                        if blocks[w].is_none() && std::mem::replace(&mut seen[w], end) != end {
                            held += work.weights[w].bytes;
                        }
                    }
                    most = most.max(active(op, blocks));
                    time += op.work;
                }
                if held + most > memory {
                    break;
                }
                costs.push((held + most, time));
            }
        }
        Self { places, costs }
    }

    /// The fewest stages; more than there are places if there is none. Long stages are best, since peaks only grow.
    fn fewest(&self) -> usize {
        let mut least = vec![usize::MAX; self.places.len()];
        least[0] = 0;
        for end in 1..self.places.len() {
            let begins = (0..self.costs[end].len()).map(|back| least[end - 1 - back]);
            least[end] = begins.min().unwrap_or(usize::MAX).saturating_add(1);
        }
        least[self.places.len() - 1]
    }

    /// The best way to cut into `parts` stages; there is one.
    fn best(&self, parts: usize, balance: Balance) -> Vec<Range<usize>> {
        let count = self.places.len();
        // Of the largest stage: what is balanced, then the other measure, so that ties are decided too.
        let value = |(peak, time): (u64, u64)| match balance {
            Balance::Memory => (peak, time),
            Balance::Time => (time, peak),
        };
        const NONE: (u64, u64) = (u64::MAX, u64::MAX);
        let mut best = vec![NONE; count];
        best[0] = (0, 0);
        let mut from = vec![vec![0; count]; parts + 1];
        for from in from.iter_mut().skip(1) {
            let mut next = vec![NONE; count];
            for end in 1..count {
                for (back, &cost) in self.costs[end].iter().enumerate() {
                    let (own, before) = (value(cost), best[end - 1 - back]);
                    if own.0 > next[end].0 {
                        // Longer stages cost at least as much.
                        break;
                    }
                    let joined = (own.0.max(before.0), own.1.max(before.1));
                    if before != NONE && joined < next[end] {
                        next[end] = joined;
                        from[end] = end - 1 - back;
                    }
                }
            }
            best = next;
        }
        let mut stages = Vec::with_capacity(parts);
        let mut end = count - 1;
        for part in (1..=parts).rev() {
            let begin = from[part][end];
            stages.push(self.places[begin]..self.places[end]);
            end = begin;
        }
        stages.reverse();
        stages
    }
}
