//! Panels of the right side, by vectors of AVX-512.

use std::arch::x86_64::*;

use crate::kernel::panel::fetch;
use crate::kernel::{Form, LANES, Panels};
use crate::right::{Right, Run};

/// Packs rows k0.. and vectors `first`.. of their columns; lanes behind the last column hold anything.
///
/// # Safety
///
/// `room` has at least `panels.len()` elements.
#[target_feature(enable = "avx512f,avx512dq")]
pub(in crate::kernel) unsafe fn panels(
    right: &Right,
    k0: usize,
    first: usize,
    panels: &Panels,
    room: &mut [u64],
) {
    // SAFETY: passed on.
    unsafe {
        match panels.form {
            Form::Words => rows::<{ Form::Words as u8 }>(right, k0, first, panels, room),
            Form::Halves => rows::<{ Form::Halves as u8 }>(right, k0, first, panels, room),
            Form::Split => rows::<{ Form::Split as u8 }>(right, k0, first, panels, room),
        }
    }
}

/// For the form of this number.
///
/// # Safety
///
/// As for `panels`.
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn rows<const FORM: u8>(right: &Right, k0: usize, first: usize, panels: &Panels, room: &mut [u64]) {
    let room = room.as_mut_ptr();
    let vectors = panels.columns.div_ceil(LANES);
    for p in 0..panels.depth {
        right.ahead(k0 + p, p == 0, first, vectors).for_each(fetch);
        let (plane, runs) = right.row(k0 + p, first, vectors);
        for panel in panels.iter() {
            let runs = &runs[panel.first / LANES..][..panel.columns.div_ceil(LANES)];
            for (v, &run) in runs.iter().enumerate() {
                let lanes = lanes(right, plane, run);
                // SAFETY: a panel has `row` elements for each row, or for each two where that is its form, which is what
                // `Form::row` counts for so many vectors; all panels lie in the room.
                unsafe {
                    if FORM == Form::Words as u8 {
                        _mm512_storeu_epi64(room.add(panel.at + p * panel.row + v * LANES).cast(), lanes);
                    } else if FORM == Form::Halves as u8 {
                        let at = room.add(panel.at + p * panel.row + v * (LANES / 2));
                        _mm256_storeu_si256(at.cast(), _mm512_cvtepi64_epi32(lanes));
                    } else {
                        let (third, at) = (panel.row / 3, room.add(panel.at + p / 2 * panel.row + v * LANES));
                        _mm512_storeu_epi64(at.add(p % 2 * third).cast(), lanes);
                        // High and low 12 bits of this row; the second row's go above those of the first.
                        let low = _mm512_and_si512(lanes, _mm512_set1_epi64(0xfff));
                        let parts =
                            _mm512_or_si512(_mm512_srli_epi64::<52>(lanes), _mm512_slli_epi64::<16>(low));
                        let at: *mut i64 = at.add(2 * third).cast();
                        let parts = if p % 2 == 0 {
                            parts
                        } else {
                            _mm512_or_si512(_mm512_loadu_epi64(at), _mm512_slli_epi64::<32>(parts))
                        };
                        _mm512_storeu_epi64(at, parts);
                    }
                }
            }
        }
    }
}

/// The lanes of a run of a plane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn lanes(right: &Right, plane: &[u64], run: Run) -> __m512i {
    let at: *const i64 = plane.as_ptr().wrapping_offset(run.start as isize).cast();
    let low = run.mask as u8;
    // SAFETY: every element that the mask names lies in the plane, as `Runs` checks for all rows; others are not read.
    unsafe {
        match run.step {
            1 => _mm512_maskz_loadu_epi64(low, at),
            2 => {
                let high = _mm512_maskz_loadu_epi64((run.mask >> 8) as u8, at.wrapping_add(LANES));
                let even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
                _mm512_permutex2var_epi64(_mm512_maskz_loadu_epi64(low, at), even, high)
            }
            _ => {
                let offsets = _mm256_loadu_si256(right.scattered(run).as_ptr().cast());
                let none = _mm512_setzero_si512();
                _mm512_mask_i32gather_epi64::<8>(none, low, offsets, plane.as_ptr().cast())
            }
        }
    }
}
