//! Bit planes: bit k of 64 elements in one word, so that Boolean gates work on whole vectors.

use crate::RingError;

/// Words that one plane of `elements` bits takes.
pub fn words(elements: usize) -> usize {
    elements.div_ceil(64)
}

/// Bytes that one plane of `elements` bits takes on the wire.
pub fn plane_bytes(elements: usize) -> usize {
    elements.div_ceil(8)
}

/// Transposes a 64 x 64 bit matrix in place: bit j of word i moves to bit i of word j.
pub fn transpose64(block: &mut [u64; 64]) {
    // Recursive block swap (Warren, Hacker's Delight, 7-3), for bit 0 as the first column.
    let mut width = 32;
    let mut mask = 0x0000_0000_ffff_ffffu64;
    while width != 0 {
        for base in (0..64).step_by(2 * width) {
            for i in base..base + width {
                let swap = ((block[i] >> width) ^ block[i + width]) & mask;
                block[i] ^= swap << width;
                block[i + width] ^= swap;
            }
        }
        width >>= 1;
        mask ^= mask << width;
    }
}

/// Planes `0..count` of the low bits of `values`: plane-major, `words(values.len())` words each; bits of absent
/// elements are zero.
pub fn from_values(values: &[u64], count: usize) -> Vec<u64> {
    let stride = words(values.len());
    let mut planes = vec![0; count * stride];
    for (w, chunk) in values.chunks(64).enumerate() {
        let mut block = [0; 64];
        block[..chunk.len()].copy_from_slice(chunk);
        transpose64(&mut block);
        for (k, &plane) in block.iter().enumerate().take(count) {
            planes[k * stride + w] = plane;
        }
    }
    planes
}

/// Bit `i` of a plane as 0 or 1, for every element.
pub fn to_bits(plane: &[u64], elements: usize) -> impl Iterator<Item = u64> + '_ {
    (0..elements).map(|i| (plane[i / 64] >> (i % 64)) & 1)
}

/// Clears the bits of absent elements in the last word of every plane.
pub fn clear_tail(planes: &mut [u64], elements: usize) {
    let used = elements % 64;
    if used != 0 {
        let mask = (1u64 << used) - 1;
        planes.chunks_exact_mut(words(elements)).for_each(|p| p[p.len() - 1] &= mask);
    }
}

/// Appends planes to `out`, 8 bits to a byte, each plane starting at a byte. Bits of absent elements must be zero.
pub fn pack(planes: &[u64], elements: usize, out: &mut Vec<u8>) {
    let bytes = plane_bytes(elements);
    if bytes == 0 {
        return;
    }
    let start = out.len();
    out.resize(start + planes.len() / words(elements) * bytes, 0);
    for (packed, plane) in out[start..].chunks_exact_mut(bytes).zip(planes.chunks_exact(words(elements))) {
        let (whole, tail) = packed.as_chunks_mut::<8>();
        whole.iter_mut().zip(plane).for_each(|(packed, word)| *packed = word.to_le_bytes());
        if let Some(last) = plane.last() {
            tail.copy_from_slice(&last.to_le_bytes()[..tail.len()]);
        }
    }
}

/// Reads `count` planes. Errors unless `bytes` has exactly the packed length.
pub fn unpack(bytes: &[u8], elements: usize, count: usize) -> Result<Vec<u64>, RingError> {
    let width = plane_bytes(elements);
    if bytes.len() != width * count {
        return Err(RingError::PackedLength { expected: width * count, found: bytes.len() });
    }
    let mut planes = Vec::with_capacity(words(elements) * count);
    for plane in bytes.chunks_exact(width.max(1)) {
        let start = planes.len();
        planes.resize(start + words(elements), 0);
        unpack_words(plane, &mut planes[start..]);
    }
    clear_tail(&mut planes, elements);
    Ok(planes)
}

/// Overwrites `words` with as much of a packed plane as `bytes` holds.
pub fn unpack_words(bytes: &[u8], words: &mut [u64]) {
    let (whole, tail) = bytes.as_chunks::<8>();
    words.iter_mut().zip(whole).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
    if let (Some(last), false) = (words.get_mut(whole.len()), tail.is_empty()) {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        *last = u64::from_le_bytes(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(8), ..ProptestConfig::default() })]

        #[test]
        fn planes_hold_the_bits(values in proptest::collection::vec(any::<u64>(), 1..200), count in 1usize..=64) {
            let planes = from_values(&values, count);
            let stride = words(values.len());
            for k in 0..count {
                let bits: Vec<u64> = to_bits(&planes[k * stride..(k + 1) * stride], values.len()).collect();
                let expected: Vec<u64> = values.iter().map(|v| (v >> k) & 1).collect();
                prop_assert_eq!(bits, expected);
            }
            let mut bytes = Vec::new();
            pack(&planes, values.len(), &mut bytes);
            prop_assert_eq!(bytes.len(), count * plane_bytes(values.len()));
            prop_assert_eq!(unpack(&bytes, values.len(), count).unwrap(), planes);
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert_eq!(unpack(&[0; 5], 17, 2), Err(RingError::PackedLength { expected: 6, found: 5 }));
    }
}
