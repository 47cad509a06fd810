//! The right side of a product as vectors of eight neighbouring columns, read where the elements lie.
//!
//! Columns of a matrix lie side by side. Those of a convolution are what the outputs read at one position of the window: side by
//! side or two apart almost everywhere, with lanes missing where a window hangs over the edge.

use crate::conv::{PADDING, Taps};
use crate::kernel::LANES;

/// Eight columns of one row of the right side. Lanes that the mask leaves out are zero.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// Of lane 0 in the plane, whether or not that lane counts; without a step, of an entry of `scattered`.
    pub(crate) start: i32,
    /// Elements that count, from `start` on, one bit each: every lane's, `step` apart. Without a step, lanes.
    pub(crate) mask: u16,
    /// Distance of lanes, 1 or 2; 0 where there is no common one.
    pub(crate) step: u8,
}

/// How the columns of a row are read of a plane, for every position of the window.
pub(crate) struct Runs {
    /// Elements of a plane.
    plane: usize,
    /// Vectors of a row, the last one perhaps partial.
    vectors: usize,
    /// `[position of the window][vector]`; what they read lies in the plane.
    table: Vec<Run>,
    /// Offsets in the plane of lanes that lie anyhow.
    scattered: Vec<[u32; LANES]>,
}

impl Runs {
    /// For the columns of a matrix of n columns, whose rows are planes.
    pub(crate) fn matrix(n: usize) -> Self {
        assert!(i32::try_from(n).is_ok(), "columns of a matrix");
        let run = |start: usize| Run {
            start: start as i32,
            mask: u16::MAX >> (16 - LANES.min(n - start)),
            step: 1,
        };
        let table: Vec<Run> = (0..n).step_by(LANES).map(run).collect();
        Self { plane: n, vectors: table.len(), table, scattered: Vec::new() }
    }

    /// For the outputs of a convolution of channels of `plane` elements.
    pub(crate) fn new(taps: &Taps, plane: usize) -> Self {
        assert!(i32::try_from(plane).is_ok(), "elements of a channel");
        let mut runs = Self {
            plane,
            vectors: taps.positions().div_ceil(LANES),
            table: Vec::new(),
            scattered: Vec::new(),
        };
        for row in taps.rows() {
            for lanes in row.chunks(LANES) {
                assert!(
                    lanes.iter().all(|&tap| tap == PADDING || (tap as usize) < plane),
                    "taps of a channel"
                );
                let run = [1, 2].into_iter().find_map(|step| run(lanes, step));
                let run = run.unwrap_or_else(|| runs.scatter(lanes));
                runs.table.push(run);
            }
        }
        runs
    }

    fn scatter(&mut self, lanes: &[u32]) -> Run {
        let mut offsets = [0; LANES];
        let mut mask = 0;
        for (lane, &tap) in lanes.iter().enumerate().filter(|(_, tap)| **tap != PADDING) {
            offsets[lane] = tap;
            mask |= 1 << lane;
        }
        self.scattered.push(offsets);
        Run { start: i32::try_from(self.scattered.len() - 1).expect("fewer than taps"), mask, step: 0 }
    }
}

/// Lanes that lie `step` apart, as far as they are no padding.
fn run(lanes: &[u32], step: u8) -> Option<Run> {
    let mut taps = lanes.iter().enumerate().filter(|(_, tap)| **tap != PADDING);
    let at = |(lane, tap): (usize, &u32)| i64::from(*tap) - (lane * usize::from(step)) as i64;
    let Some(start) = taps.next().map(at) else { return Some(Run { start: 0, mask: 0, step }) };
    let mut mask = 0;
    for (lane, tap) in lanes.iter().enumerate().filter(|(_, tap)| **tap != PADDING) {
        if at((lane, tap)) != start {
            return None;
        }
        mask |= 1 << (lane * usize::from(step));
    }
    Some(Run { start: start as i32, mask, step })
}

/// Rows of the right side: all positions of the window in one plane, then in the next.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    x: &'a [u64],
    runs: &'a Runs,
}

impl<'a> Right<'a> {
    /// Of planes `x`.
    pub(crate) fn new(x: &'a [u64], runs: &'a Runs) -> Self {
        Self { x, runs }
    }

    /// The plane that row p reads, and how, for vectors `first`.. of its columns.
    #[inline(always)]
    pub(crate) fn row(&self, p: usize, first: usize, vectors: usize) -> (&'a [u64], &'a [Run]) {
        let positions = self.runs.table.len() / self.runs.vectors;
        let (plane, position) = (p / positions, p % positions);
        let runs = &self.runs.table[position * self.runs.vectors + first..][..vectors];
        (&self.x[plane * self.runs.plane..][..self.runs.plane], runs)
    }

    /// Offsets of lanes that have no common distance.
    #[inline(always)]
    pub(crate) fn scattered(&self, run: Run) -> &'a [u32; LANES] {
        &self.runs.scattered[run.start as usize]
    }

    /// The lanes of a run of a plane.
    #[inline(always)]
    pub(crate) fn lanes(&self, plane: &[u64], run: Run) -> [u64; LANES] {
        match run.step {
            0 => {
                let offsets = self.scattered(run);
                std::array::from_fn(|i| if run.mask >> i & 1 == 1 { plane[offsets[i] as usize] } else { 0 })
            }
            1 if run.mask == 0xff => *plane[run.start as usize..].first_chunk().expect("lies in the plane"),
            step => std::array::from_fn(|i| {
                let offset = i * usize::from(step);
                let counts = run.mask >> offset & 1 == 1;
                if counts { plane[run.start.wrapping_add(offset as i32) as usize] } else { 0 }
            }),
        }
    }
}
