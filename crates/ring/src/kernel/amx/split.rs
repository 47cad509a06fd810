//! Ring elements split into digits, in the order of tiles.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{CHUNK, Digits, Room, SIDE};
use crate::kernel::LANES;

/// Rows that are brought into the second-level cache ahead.
const AHEAD: usize = 8;

/// Digits of sixteen rows for each of `blocks` and 64 columns for each of `chunks` of a row-major matrix of rows of `k`, as a
/// left side.
pub(crate) fn left(a: &[u64], k: usize, blocks: Range<usize>, chunks: Range<usize>, mut room: Room) {
    for (i, block) in blocks.enumerate() {
        for (p, chunk) in chunks.clone().enumerate() {
            let columns = chunk * CHUNK..k.min((chunk + 1) * CHUNK);
            let rows = a[block * SIDE * k..].chunks_exact(k).map(|row| &row[columns.clone()]);
            left_rows(rows, room.at(i, p));
        }
    }
}

/// Digits of up to 16 rows of up to 64 elements, as a left side; what is missing is zero.
pub(crate) fn left_rows<'a>(rows: impl Iterator<Item = &'a [u64]>, tiles: &mut [Digits]) {
    let mut count = 0;
    for (r, row) in rows.take(SIDE).enumerate() {
        left_row(row, r, tiles);
        count = r + 1;
    }
    no_rows_from(count, tiles);
}

/// Digits of up to 64 elements of a row of the left side, to row `r` of one tile per digit; the rest is zero.
pub(super) fn left_row(row: &[u64], r: usize, tiles: &mut [Digits]) {
    assert!(super::runs());
    // SAFETY: `runs` was asserted.
    unsafe {
        match row.first_chunk() {
            Some(whole) => write_row(by_digit(in_row(whole)), r, tiles),
            None => {
                let mut whole = [0; CHUNK];
                whole[..row.len()].copy_from_slice(row);
                write_row(by_digit(in_row(&whole)), r, tiles);
            }
        }
    }
}

/// Zero from row `r` on.
pub(super) fn no_rows_from(r: usize, tiles: &mut [Digits]) {
    tiles.iter_mut().for_each(|tile| tile.0[r * CHUNK..].fill(0));
}

/// Digits of four by sixteen elements of `filter` as words of four, to row `r` of one tile per digit: word i starts at `words[i]`,
/// its elements are `step` apart.
pub(super) fn left_words(filter: &[u64], words: &[u32; SIDE], step: usize, r: usize, tiles: &mut [Digits]) {
    assert!(super::runs());
    let last = words.iter().max().map_or(0, |&word| word as usize + 3 * step);
    assert!(last < filter.len(), "words of the filter");
    // SAFETY: `runs` was asserted, and the filter has all elements of all words.
    unsafe { write_row(by_digit(in_words(filter, words, step)), r, tiles) };
}

/// Digits of sixteen columns for each of `blocks` and 64 rows for each of `chunks` of a row-major matrix of rows of `n`, as a
/// right side.
pub(crate) fn right(b: &[u64], n: usize, blocks: Range<usize>, chunks: Range<usize>, mut room: Room) {
    assert!(super::runs());
    for (p, chunk) in chunks.enumerate() {
        let rows = &b[chunk * CHUNK * n..b.len().min((chunk + 1) * CHUNK * n)];
        // SAFETY: `runs` was asserted.
        unsafe { right_rows(rows, n, blocks.clone(), p, &mut room) };
    }
}

/// One chunk, to the `p`-th place.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn right_rows(rows: &[u64], n: usize, blocks: Range<usize>, p: usize, room: &mut Room) {
    for (four, rows) in rows.chunks(4 * n).enumerate() {
        for (i, block) in blocks.clone().enumerate() {
            let at = block * SIDE;
            let mut partial = [0; 4 * SIDE];
            let digits = if rows.len() == 4 * n && at + SIDE <= n {
                for r in 0..4 {
                    let later = rows.as_ptr().wrapping_add((AHEAD + r) * n + at);
                    _mm_prefetch::<_MM_HINT_T1>(later.cast());
                    _mm_prefetch::<_MM_HINT_T1>(later.wrapping_add(LANES).cast());
                }
                // SAFETY: four rows of sixteen elements from `at` on.
                unsafe { fours(rows.as_ptr().add(at), n) }
            } else {
                for (copy, row) in partial.chunks_exact_mut(SIDE).zip(rows.chunks_exact(n)) {
                    let columns = SIDE.min(n - at);
                    copy[..columns].copy_from_slice(&row[at..][..columns]);
                }
                // SAFETY: four rows of sixteen elements.
                unsafe { fours(partial.as_ptr(), SIDE) }
            };
            for (tile, digits) in room.at(i, p).iter_mut().zip(digits) {
                let out = &mut tile.0[four * CHUNK..][..CHUNK];
                // SAFETY: 64 bytes; tiles start at multiples of 64.
                unsafe { _mm512_store_si512(out.as_mut_ptr().cast(), digits) };
            }
        }
    }
    let written = rows.len().div_ceil(4 * n) * CHUNK;
    for i in 0..blocks.len() {
        room.at(i, p).iter_mut().for_each(|tile| tile.0[written..].fill(0));
    }
}

/// Byte i of the digits of eight elements is at this place in them, where element `order(i % 8)` comes i % 8-th.
const fn digits_of(order: [u8; LANES]) -> [u8; CHUNK] {
    let mut at = [0; CHUNK];
    let mut i = 0;
    while i < CHUNK {
        at[i] = order[i % LANES] * 8 + (i / LANES) as u8;
        i += 1;
    }
    at
}

/// 64 elements, eight to a vector, in which digits of the same weight lie side by side.
///
/// # Safety
///
/// The CPU has AVX-512 F and VBMI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn in_row(row: &[u64; CHUNK]) -> [__m512i; 8] {
    const ORDER: [u8; CHUNK] = digits_of([0, 1, 2, 3, 4, 5, 6, 7]);
    // SAFETY: 64 bytes.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    let mut eights = [_mm512_setzero_si512(); 8];
    for (eight, values) in eights.iter_mut().zip(row.as_chunks::<LANES>().0) {
        // SAFETY: eight elements.
        *eight = _mm512_permutexvar_epi8(order, unsafe { _mm512_loadu_si512(values.as_ptr().cast()) });
    }
    eights
}

/// The same for words, two to a vector.
///
/// # Safety
///
/// The CPU has AVX-512 F and VBMI; `filter` has elements at 0, 1, 2 and 3 times `step` from each of `words`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn in_words(filter: &[u64], words: &[u32; SIDE], step: usize) -> [__m512i; 8] {
    // Elements of both words alternate.
    const ORDER: [u8; CHUNK] = digits_of([0, 2, 4, 6, 1, 3, 5, 7]);
    // SAFETY: 64 bytes.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    let mut eights = [_mm512_setzero_si512(); 8];
    for (eight, &[one, other]) in eights.iter_mut().zip(words.as_chunks::<2>().0) {
        let first = filter.as_ptr().wrapping_add(one as usize);
        let second = filter.as_ptr().wrapping_add(other as usize);
        let mut pairs = [_mm_setzero_si128(); 4];
        for (e, pair) in pairs.iter_mut().enumerate() {
            // SAFETY: the caller's. Neighbouring words, which most are, are read as one.
            *pair = unsafe {
                if other == one + 1 {
                    _mm_loadu_si128(first.add(e * step).cast())
                } else {
                    let [one, other] = [first, second].map(|word| _mm_loadl_epi64(word.add(e * step).cast()));
                    _mm_unpacklo_epi64(one, other)
                }
            };
        }
        let halves = [[pairs[0], pairs[1]], [pairs[2], pairs[3]]]
            .map(|[p, q]| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(p), q));
        let elements = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(halves[0]), halves[1]);
        *eight = _mm512_permutexvar_epi8(order, elements);
    }
    eights
}

/// Transposed as a matrix of 8 x 8 lanes: digits of the same weight.
///
/// # Safety
///
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn by_digit([a, b, c, d, e, f, g, h]: [__m512i; 8]) -> [__m512i; 8] {
    let even = [(a, b), (c, d), (e, f), (g, h)].map(|(x, y)| _mm512_unpacklo_epi64(x, y));
    let odd = [(a, b), (c, d), (e, f), (g, h)].map(|(x, y)| _mm512_unpackhi_epi64(x, y));
    let quarters = |[p, q, r, s]: [__m512i; 4]| {
        let low = [_mm512_shuffle_i64x2::<0x44>(p, q), _mm512_shuffle_i64x2::<0x44>(r, s)];
        let high = [_mm512_shuffle_i64x2::<0xee>(p, q), _mm512_shuffle_i64x2::<0xee>(r, s)];
        [
            _mm512_shuffle_i64x2::<0x88>(low[0], low[1]),
            _mm512_shuffle_i64x2::<0xdd>(low[0], low[1]),
            _mm512_shuffle_i64x2::<0x88>(high[0], high[1]),
            _mm512_shuffle_i64x2::<0xdd>(high[0], high[1]),
        ]
    };
    let ([a, c, e, g], [b, d, f, h]) = (quarters(even), quarters(odd));
    [a, b, c, d, e, f, g, h]
}

/// To row `r` of one tile per digit.
///
/// # Safety
///
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn write_row(digits: [__m512i; 8], r: usize, tiles: &mut [Digits]) {
    for (tile, digits) in tiles.iter_mut().zip(digits) {
        let out = &mut tile.0[r * CHUNK..][..CHUNK];
        // SAFETY: 64 bytes; tiles start at multiples of 64.
        unsafe { _mm512_store_si512(out.as_mut_ptr().cast(), digits) };
    }
}

/// Digits of four rows of 16 columns, `step` elements apart: four bytes of a column side by side, columns permuted: pairs 0, 4,
/// 1, 5, 2, 6, 3, 7.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW; sixteen elements can be read from each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn fours(rows: *const u64, step: usize) -> [__m512i; 8] {
    // Of 2 x 4 columns, even and odd ones: digits 0 to 3 and 4 to 7, four bytes each.
    let mut low = [_mm512_setzero_si512(); 4];
    let mut high = low;
    for half in 0..2 {
        let mut row = [_mm512_setzero_si512(); 4];
        for (r, eight) in row.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *eight = unsafe { _mm512_loadu_si512(rows.add(r * step + half * LANES).cast()) };
        }
        let even = [_mm512_unpacklo_epi8(row[0], row[1]), _mm512_unpacklo_epi8(row[2], row[3])];
        let odd = [_mm512_unpackhi_epi8(row[0], row[1]), _mm512_unpackhi_epi8(row[2], row[3])];
        low[2 * half] = _mm512_unpacklo_epi16(even[0], even[1]);
        high[2 * half] = _mm512_unpackhi_epi16(even[0], even[1]);
        low[2 * half + 1] = _mm512_unpacklo_epi16(odd[0], odd[1]);
        high[2 * half + 1] = _mm512_unpackhi_epi16(odd[0], odd[1]);
    }
    let mut digits = [_mm512_setzero_si512(); 8];
    for (i, [p, q, r, s]) in [low, high].into_iter().enumerate() {
        let first = [_mm512_unpacklo_epi32(p, q), _mm512_unpacklo_epi32(r, s)];
        let second = [_mm512_unpackhi_epi32(p, q), _mm512_unpackhi_epi32(r, s)];
        digits[4 * i] = _mm512_unpacklo_epi64(first[0], first[1]);
        digits[4 * i + 1] = _mm512_unpackhi_epi64(first[0], first[1]);
        digits[4 * i + 2] = _mm512_unpacklo_epi64(second[0], second[1]);
        digits[4 * i + 3] = _mm512_unpackhi_epi64(second[0], second[1]);
    }
    digits
}
