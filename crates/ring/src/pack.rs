//! Ring elements packed to l bits each, little-endian bit order, without gaps.

use crate::{RingError, packed_len};

/// Appends the low `bits` bits of every value to `out`, padding the last byte with zeros.
pub fn pack(values: &[u64], bits: u32, out: &mut Vec<u8>) {
    out.reserve(packed_len(bits, values.len()));
    if bits.is_multiple_of(8) {
        let bytes = bits as usize / 8;
        values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()[..bytes]));
        return;
    }
    let mask = u64::MAX >> (64 - bits);
    let (mut pending, mut filled) = (0u128, 0u32);
    for v in values {
        pending |= u128::from(v & mask) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            filled -= 64;
        }
    }
    out.extend_from_slice(&pending.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// Reads `count` values of `bits` bits. Errors unless `bytes` has exactly the packed length.
pub fn unpack(bytes: &[u8], bits: u32, count: usize) -> Result<Vec<u64>, RingError> {
    let expected = packed_len(bits, count);
    if bytes.len() != expected {
        return Err(RingError::PackedLength { expected, found: bytes.len() });
    }
    let mut values = Vec::with_capacity(count);
    if bits.is_multiple_of(8) {
        let width = bits as usize / 8;
        values.extend(bytes.chunks_exact(width).map(|chunk| {
            let mut lane = [0; 8];
            lane[..width].copy_from_slice(chunk);
            u64::from_le_bytes(lane)
        }));
        return Ok(values);
    }
    let mask = u64::MAX >> (64 - bits);
    let (words, tail) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let mut words = words.iter().chain(std::iter::once(&last)).map(|w| u64::from_le_bytes(*w));
    let (mut pending, mut filled) = (0u128, 0u32);
    for _ in 0..count {
        if filled < bits {
            // The zero word after the end is only reached for bits that the length check has already accounted for.
            pending |= u128::from(words.next().unwrap_or(0)) << filled;
            filled += 64;
        }
        values.push(pending as u64 & mask);
        pending >>= bits;
        filled -= bits;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
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
