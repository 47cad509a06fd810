//! Ring elements packed to l bits each, little-endian bit order, without gaps.
//!
//! Eight values fill as many bytes as each has bits, so groups of eight do not depend on each other. There is code for each
//! width, in which all positions and shifts are constants; it handles several values per nanosecond.

use crate::{RingError, packed_len};

/// Calls a function of one constant parameter with `$bits`, 1 to 64.
macro_rules! for_width {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        for_width!(@ $bits, $function($($argument),*),
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64)
    };
    (@ $bits:expr, $function:ident $arguments:tt, $($width:literal)*) => {
        match $bits {
            $($width => for_width!(! $function, $width, $arguments),)*
            _ => unreachable!("elements have 1 to 64 bits"),
        }
    };
    (! $function:ident, $width:literal, ($($argument:expr),*)) => { $function::<$width>($($argument),*) };
}

/// Appends the low `bits` bits of every value to `out`, padding the last byte with zeros.
pub fn pack(values: &[u64], bits: u32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + packed_len(bits, values.len()), 0);
    let (groups, rest) = values.as_chunks::<8>();
    let (whole, last) = out[start..].split_at_mut(groups.len() * bits as usize);
    for_width!(bits, pack_groups(groups, whole));
    if !rest.is_empty() {
        let mut group = [0; 8];
        group[..rest.len()].copy_from_slice(rest);
        let mut bytes = [0; 64];
        for_width!(bits, pack_groups(&[group], &mut bytes));
        last.copy_from_slice(&bytes[..last.len()]);
    }
}

/// Reads `count` values of `bits` bits. Errors unless `bytes` has exactly the packed length.
pub fn unpack(bytes: &[u8], bits: u32, count: usize) -> Result<Vec<u64>, RingError> {
    let expected = packed_len(bits, count);
    if bytes.len() != expected {
        return Err(RingError::PackedLength { expected, found: bytes.len() });
    }
    let mut values = vec![0; count];
    unpack_into(bytes, bits, &mut values)?;
    Ok(values)
}

/// Overwrites `values` with as many values of `bits` bits. Errors unless `bytes` has exactly the packed length.
pub fn unpack_into(bytes: &[u8], bits: u32, values: &mut [u64]) -> Result<(), RingError> {
    let expected = packed_len(bits, values.len());
    if bytes.len() != expected {
        return Err(RingError::PackedLength { expected, found: bytes.len() });
    }
    let (groups, rest) = values.as_chunks_mut::<8>();
    let (whole, last) = bytes.split_at(groups.len() * bits as usize);
    for_width!(bits, unpack_groups(whole, groups));
    if !rest.is_empty() {
        let mut bytes = [0; 64];
        bytes[..last.len()].copy_from_slice(last);
        let mut group = [[0; 8]];
        for_width!(bits, unpack_groups(&bytes, &mut group));
        rest.copy_from_slice(&group[0][..rest.len()]);
    }
    Ok(())
}

fn pack_groups<const BITS: usize>(groups: &[[u64; 8]], out: &mut [u8]) {
    let (out, _) = out.as_chunks_mut::<BITS>();
    for (group, out) in groups.iter().zip(out) {
        let mut words = [0u64; 8];
        for (i, v) in group.iter().enumerate() {
            let (v, word, shift) = (v & (u64::MAX >> (64 - BITS)), i * BITS / 64, i * BITS % 64);
            words[word] |= v << shift;
            if shift + BITS > 64 {
                words[word + 1] |= v >> (64 - shift);
            }
        }
        let words = words.map(u64::to_le_bytes);
        out.copy_from_slice(&words.as_flattened()[..BITS]);
    }
}

fn unpack_groups<const BITS: usize>(bytes: &[u8], groups: &mut [[u64; 8]]) {
    let (bytes, _) = bytes.as_chunks::<BITS>();
    for (group, bytes) in groups.iter_mut().zip(bytes) {
        let mut words = [[0u8; 8]; 8];
        words.as_flattened_mut()[..BITS].copy_from_slice(bytes);
        let words = words.map(u64::from_le_bytes);
        for (i, v) in group.iter_mut().enumerate() {
            let (word, shift) = (i * BITS / 64, i * BITS % 64);
            *v = words[word] >> shift;
            if shift + BITS > 64 {
                *v |= words[word + 1] << (64 - shift);
            }
            *v &= u64::MAX >> (64 - BITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn round_trip(bits in 1u32..=64, values in proptest::collection::vec(any::<u64>(), 0..200)) {
            let mut bytes = Vec::new();
            pack(&values, bits, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(bits, values.len()));
            let masked: Vec<u64> = values.iter().map(|v| v & (u64::MAX >> (64 - bits))).collect();
            prop_assert_eq!(unpack(&bytes, bits, values.len()).unwrap(), masked);
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert_eq!(unpack(&[0; 9], 40, 2), Err(RingError::PackedLength { expected: 10, found: 9 }));
    }
}
