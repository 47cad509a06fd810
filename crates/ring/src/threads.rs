//! Products divided over threads.

use std::sync::{Mutex, PoisonError};

/// What the sides of parts are multiples of: whole tiles of all kernels.
const SHARE: usize = 48;

/// Rows and columns from `first` on of the result.
struct Part<'a> {
    first: [usize; 2],
    c: Vec<&'a mut [u64]>,
}

/// Gives parts of an m x n result `c` of depth k to `threads` threads: `run(first, c)` has rows `first[0]`..
/// and of them columns `first[1]`.., both multiples of [`SHARE`]. The longer side is divided, since every part packs the whole of
/// the other one.
pub(crate) fn divide(
    threads: usize,
    [m, n, k]: [usize; 3],
    c: &mut [u64],
    run: &(impl Fn([usize; 2], &mut [&mut [u64]]) + Sync),
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let shares = |size: usize| size.div_ceil(threads).next_multiple_of(SHARE);
    let (rows, columns) = if m > n { (shares(m), n) } else { (m, shares(n)) };
    let mut parts: Vec<Part> = Vec::new();
    for (i, c) in c.chunks_mut(rows * n).enumerate() {
        let start = parts.len();
        parts.extend((0..n).step_by(columns).map(|first| Part { first: [i * rows, first], c: Vec::new() }));
        for row in c.chunks_exact_mut(n) {
            parts[start..].iter_mut().zip(row.chunks_mut(columns)).for_each(|(part, row)| part.c.push(row));
        }
    }
    on_threads(parts.len(), parts.into_iter(), &|mut part| run(part.first, &mut part.c));
}

/// Runs `run` for all parts, on up to `threads` threads: this one, and as many others as the system gives.
pub(crate) fn on_threads<T: Send>(
    threads: usize,
    parts: impl Iterator<Item = T> + Send,
    run: &(impl Fn(T) + Sync),
) {
    let parts = Mutex::new(parts);
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(part) = next() {
            run(part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}
