//! Where to cut: dynamic programming over the places where a model can be cut.
//!
//! The peak of a stage is the bytes of the weights that it holds, each once, plus the most that one of its operations takes: all
//! tensors that are alive while it runs, its workspace, and one block of a weight that is not held. Tensors that only pass by
//! are alive too, since all stages run in one process. A weight is not held where its operation alone would not fit
//! into the memory with all of it. Peaks only grow when a stage does, which the search relies on.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::SplitError;

/// How weights that are not held arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streaming {
    /// Bytes of the largest block.
    pub largest_block: u64,
    /// Bytes that reading takes besides the block.
    pub overhead: u64,
}

/// From a file: blocks are large.
impl Default for Streaming {
    fn default() -> Self {
        Self { largest_block: 4 << 20, overhead: 0 }
    }
}

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
    /// How blocks of them arrive.
    pub streaming: Streaming,
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

/// What an operation takes if all of its weights are there, or with the smallest blocks, whichever is less.
fn least(work: &Workload, op: &Operation) -> u64 {
    let streams = |w: usize| work.weights[w].row.is_some();
    smallest(work, op, |_| false).min(smallest(work, op, streams))
}

/// What an operation takes with the smallest blocks of the weights that are not held.
fn smallest(work: &Workload, op: &Operation, streamed: impl Fn(usize) -> bool) -> u64 {
    let WeightSizes { held, rows } = op.weights.iter().fold(WeightSizes::default(), |sum, &w| {
        let size = &work.weights[w];
        match size.row.filter(|_| streamed(w)) {
            Some(row) => WeightSizes { rows: Some(sum.rows.unwrap_or(work.streaming.overhead) + row), ..sum },
            None => WeightSizes { held: sum.held + size.bytes, ..sum },
        }
    });
    op.active + held + rows.unwrap_or(0)
}

/// Bytes of weights that are held, and of a row of each of the others, if there are any, with what reading takes.
#[derive(Default)]
struct WeightSizes {
    held: u64,
    rows: Option<u64>,
}

/// Bytes of a block for all weights that are not held.
fn blocks(work: &Workload, memory: Option<u64>) -> Result<Vec<Option<u64>>, SplitError> {
    let mut blocks = vec![None; work.weights.len()];
    let Some(memory) = memory else { return Ok(blocks) };
    let largest = work.operations.iter().max_by_key(|op| least(work, op));
    if let Some(op) = largest.filter(|op| least(work, op) > memory) {
        return Err(SplitError::Memory { node: op.name.clone(), least: least(work, op), found: memory });
    }
    let mut streamed = vec![false; work.weights.len()];
    let mut more = true;
    // A weight that one operation streams is streamed by all that read it, which takes more than a row.
    while std::mem::take(&mut more) {
        for op in &work.operations {
            let least = smallest(work, op, |w| streamed[w]);
            if least <= memory {
                continue;
            }
            let mut marked = false;
            for &w in op.weights.iter().filter(|&&w| work.weights[w].row.is_some()) {
                marked |= !std::mem::replace(&mut streamed[w], true);
            }
            if !marked {
                return Err(SplitError::Memory { node: op.name.clone(), least, found: memory });
            }
            more = true;
        }
    }
    for op in &work.operations {
        // What is left for each of its weights beyond their smallest blocks.
        let rows: Vec<(usize, u64)> = op
            .weights
            .iter()
            .filter_map(|&w| Some((w, work.weights[w].row.filter(|_| streamed[w])?)))
            .collect();
        let spare = (memory - smallest(work, op, |w| streamed[w])) / rows.len().max(1) as u64;
        for (w, row) in rows {
            let most = (row + spare).min(work.streaming.largest_block).min(work.weights[w].bytes).max(row);
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
        most = most.max(active(work, op, blocks));
    }
    held + most
}

fn active(work: &Workload, op: &Operation, blocks: &[Option<u64>]) -> u64 {
    let blocks = op.weights.iter().filter_map(|&w| blocks[w]);
    let overhead = if blocks.clone().next().is_some() { work.streaming.overhead } else { 0 };
    op.active + overhead + blocks.sum::<u64>()
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
                    most = most.max(active(work, op, blocks));
                    time = time.saturating_add(op.work);
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
