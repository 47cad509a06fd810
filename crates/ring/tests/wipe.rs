//! What was freed is gone from the process: its memory is searched.
#![cfg(target_os = "linux")]

use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;

use privet_ring::wipe::{WipingAllocator, wipe_freed_memory};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Fills and frees vectors of many sizes with a pattern, one by growing.
fn use_and_free(seed: u64) {
    let mut grown: Vec<u64> = Vec::new();
    for i in 0..3000 {
        grown.push(pattern(seed, i));
    }
    let sizes = [2, 5, 40, 300, 9000];
    let kept: Vec<Vec<u64>> = sizes.iter().map(|&len| (0..len).map(|i| pattern(seed, i)).collect()).collect();
    std::hint::black_box((grown, kept));
}

fn pattern(seed: u64, i: u64) -> u64 {
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1 << 63
}

/// How many words of the pattern lie in writable memory, but for the stack.
fn left(seed: u64) -> usize {
    let words: std::collections::HashSet<u64> = (2..3000).map(|i| pattern(seed, i) ^ u64::MAX).collect();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    for line in read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split_whitespace();
        let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
        if !mode.starts_with("rw") || line.ends_with("[stack]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|n| u64::from_str_radix(n, 16).unwrap());
        let mut page = vec![0; 4096];
        for at in (start..end).step_by(4096) {
            if memory.read_exact_at(&mut page, at).is_ok() {
                let value = |b: &[u8; 8]| u64::from_ne_bytes(*b) ^ u64::MAX;
                found += page.as_chunks::<8>().0.iter().filter(|b| words.contains(&value(b))).count();
            }
        }
    }
    found
}

#[test]
fn freed_memory_is_wiped_once_that_is_asked_for() {
    use_and_free(1);
    assert!(left(1) > 100, "the search finds what is not wiped: {}", left(1));
    wipe_freed_memory();
    use_and_free(2);
    assert_eq!(left(2), 0);
}
