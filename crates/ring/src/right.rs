//! The right side of a product as vectors of eight neighbouring columns, read where the elements lie.
//!
//! Columns of a matrix lie side by side. Those of a convolution are what the outputs read at one position of the window: side by
//! side or two apart almost everywhere, with lanes missing where a window hangs over the edge.

use crate::conv::{PADDING, Taps};
use crate::kernel::LANES;

/// Rows that elements are fetched ahead for.
const AHEAD: usize = 6;

/// Elements of a plane that are fetched ahead at most, where the columns are spread over more.
const FETCHED: i32 = 1024;

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
                let run = match lanes.try_into() {
                    Ok(eight) => whole(eight, plane, 1).or_else(|| whole(eight, plane, 2)),
                    Err(_) => None,
                };
                let run = run.unwrap_or_else(|| runs.partial(lanes));
                runs.table.push(run);
            }
        }
        runs
    }

    /// With padding, at the end of a row, or of lanes that lie anyhow.
    fn partial(&mut self, lanes: &[u32]) -> Run {
        assert!(lanes.iter().all(|&tap| tap == PADDING || (tap as usize) < self.plane), "taps of a channel");
        run(lanes, 1).or_else(|| run(lanes, 2)).unwrap_or_else(|| self.scatter(lanes))
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

/// Eight lanes that lie `step` apart, no padding among them: nearly all of them, so that this has to be fast.
fn whole(lanes: &[u32; LANES], plane: usize, step: u8) -> Option<Run> {
    let start = lanes[0];
    let apart = (0..LANES as u32)
        .fold(0, |apart, i| apart | (lanes[i as usize] ^ start.wrapping_add(i * u32::from(step))));
    let reach = (LANES - 1) * usize::from(step);
    let is_run = apart == 0 && (start as usize) < plane.saturating_sub(reach);
    let mask = if step == 1 { 0xff } else { 0x5555 };
    is_run.then_some(Run { start: start as i32, mask, step })
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
        let positions = self.positions();
        let (plane, position) = (p / positions, p % positions);
        let runs = &self.runs.table[position * self.runs.vectors + first..][..vectors];
        (&self.x[plane * self.runs.plane..][..self.runs.plane], runs)
    }

    /// Where to fetch elements into the cache before row p is read, for vectors `first`.. of its columns: planes lie far apart, so that
    /// no hardware does it. `is_first` where nothing was read before.
    #[inline(always)]
    pub(crate) fn ahead(
        &self,
        p: usize,
        is_first: bool,
        first: usize,
        vectors: usize,
    ) -> impl Iterator<Item = *const u64> {
        let (plane, position) = (p / self.positions(), p % self.positions());
        let furthest = plane + (AHEAD / self.positions()).max(1);
        let planes = match (is_first, position) {
            (true, _) => plane + 1..furthest + 1,
            (_, 0) => furthest..furthest + 1,
            _ => 0..0,
        };
        let last = self.runs.table.len() - self.runs.vectors + first + vectors - 1;
        let [from, to] = [first, last].map(|at| match self.runs.table[at] {
            run if run.step == 0 => self.scattered(run)[0] as i32,
            run => run.start,
        });
        let columns = from..to.saturating_add(2 * LANES as i32).min(from.saturating_add(FETCHED));
        let columns = columns.step_by(LANES);
        let planes = planes.filter_map(|plane| self.x.get(plane * self.runs.plane..));
        planes.flat_map(move |x| columns.clone().map(|at| x.as_ptr().wrapping_offset(at as isize)))
    }

    /// Rows that read the same plane.
    fn positions(&self) -> usize {
        self.runs.table.len() / self.runs.vectors
    }

    /// Offsets of lanes that have no common distance.
    #[inline(always)]
    pub(crate) fn scattered(&self, run: Run) -> &'a [u32; LANES] {
        &self.runs.scattered[run.start as usize]
    }

    /// Eight lanes that lie side by side.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn whole(&self, plane: &'a [u64], run: Run) -> Option<&'a [u64; LANES]> {
        let is_whole = run.step == 1 && run.mask == 0xff;
        is_whole.then(|| plane[run.start as usize..].first_chunk().expect("lies in the plane"))
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
