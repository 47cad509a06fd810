//! The right side of a product, packed in panels as wide as a register tile.

use super::{Form, LANES};
use crate::right::Right;

/// The low and the high 12 bits of two elements on the left, sixteen bits each: low parts meet high ones, those on the right lie the
/// other way round.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn left_parts(a: u64, b: u64) -> u64 {
    let parts = |element: u64| element & 0xfff | element >> 52 << 16;
    parts(a) | parts(b) << 32
}

/// Fetches the line of an element, if there is one, into the cache.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
#[inline(always)]
pub(super) fn fetch(element: *const u64) {
    // SAFETY: fetching reads nothing, wherever the pointer leads.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(element.cast());
    }
}

/// Sizes of a block of the right side: panels of `step` columns, the last one perhaps narrower, one after the other.
pub(crate) struct Panels {
    pub(crate) form: Form,
    pub(crate) depth: usize,
    pub(crate) step: usize,
    pub(crate) columns: usize,
}

/// One of them.
pub(crate) struct Panel {
    /// Its first column in the block.
    pub(crate) first: usize,
    pub(crate) columns: usize,
    /// Elements of 64 bits to a row, or to a pair of rows.
    pub(crate) row: usize,
    /// Where it starts.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Panels {
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Panel> + '_ {
        let full = self.form.panel(self.depth, self.step);
        (0..self.columns).step_by(self.step).enumerate().map(move |(i, first)| {
            let columns = self.step.min(self.columns - first);
            let (row, len) = (self.form.row(columns), self.form.panel(self.depth, columns));
            Panel { first, columns, row, at: i * full, len }
        })
    }

    /// Elements of 64 bits that all take.
    pub(crate) fn len(&self) -> usize {
        let (whole, rest) = (self.columns / self.step, self.columns % self.step);
        whole * self.form.panel(self.depth, self.step) + self.form.panel(self.depth, rest)
    }

    /// Column `j` of a panel, its elements one after the other.
    pub(crate) fn column(&self, room: &[u64], panel: &Panel, j: usize, column: &mut [u64]) {
        let rows = room[panel.at..][..panel.len].chunks_exact(panel.row);
        for (element, row) in column.iter_mut().zip(rows) {
            *element = match self.form {
                Form::Words => row[j],
                #[cfg(target_arch = "x86_64")]
                Form::Halves => row[j / 2] >> (32 * (j % 2)) & 0xffff_ffff,
                #[cfg(target_arch = "x86_64")]
                Form::Split => unreachable!("no column is taken out"),
            };
        }
    }

    /// Packs rows k0.. and vectors `first`.. of their columns; lanes behind the last column hold anything.
    #[inline(always)]
    pub(super) fn pack(&self, right: &Right, k0: usize, first: usize, room: &mut [u64]) {
        let vectors = self.columns.div_ceil(LANES);
        for p in 0..self.depth {
            right.ahead(k0 + p, p == 0, first, vectors).for_each(fetch);
            let (plane, runs) = right.row(k0 + p, first, vectors);
            for panel in self.iter() {
                let vectors = &runs[panel.first / LANES..][..panel.columns.div_ceil(LANES)];
                let row = &mut room[panel.at + p * panel.row..][..panel.row];
                match self.form {
                    Form::Words => {
                        for (out, &run) in row.as_chunks_mut().0.iter_mut().zip(vectors) {
                            *out = right.lanes(plane, run);
                        }
                    }
                    #[cfg(target_arch = "x86_64")]
                    Form::Halves | Form::Split => unreachable!("packed by vectors"),
                }
            }
        }
    }
}
