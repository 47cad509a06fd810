//! Ring elements packed to l bits each, little-endian bit order, without gaps.

use crate::{RingError, packed_len};

/// Appends the low `bits` bits of every value to `out`, padding the last byte with zeros.
pub fn pack(values: &[u64], bits: u32, out: &mut Vec<u8>) {
    out.reserve(packed_len(bits, values.len()));
    match bits {
        8 => return pack_bytes::<1>(values, out),
        16 => return pack_bytes::<2>(values, out),
        24 => return pack_bytes::<3>(values, out),
        32 => return pack_bytes::<4>(values, out),
        40 => return pack_bytes::<5>(values, out),
        48 => return pack_bytes::<6>(values, out),
        56 => return pack_bytes::<7>(values, out),
        64 => return pack_bytes::<8>(values, out),
        _ => {}
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
    match bits {
        8 => unpack_bytes::<1>(bytes, values),
        16 => unpack_bytes::<2>(bytes, values),
        24 => unpack_bytes::<3>(bytes, values),
        32 => unpack_bytes::<4>(bytes, values),
        40 => unpack_bytes::<5>(bytes, values),
        48 => unpack_bytes::<6>(bytes, values),
        56 => unpack_bytes::<7>(bytes, values),
        64 => unpack_bytes::<8>(bytes, values),
        _ => unpack_bits(bytes, bits, values),
    }
    Ok(())
}

fn unpack_bits(bytes: &[u8], bits: u32, values: &mut [u64]) {
    let mask = u64::MAX >> (64 - bits);
    let (words, tail) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let mut words = words.iter().chain(std::iter::once(&last)).map(|w| u64::from_le_bytes(*w));
    let (mut pending, mut filled) = (0u128, 0u32);
    for value in values {
        if filled < bits {
            // The zero word after the end is only reached for bits that the length check has already accounted for.
            pending |= u128::from(words.next().unwrap_or(0)) << filled;
            filled += 64;
        }
        *value = pending as u64 & mask;
        pending >>= bits;
        filled -= bits;
    }
}

/// Whole bytes: all but the last values are written eight bytes wide, and the next value overwrites what is too much.
fn pack_bytes<const WIDTH: usize>(values: &[u64], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + WIDTH * values.len(), 0);
    let out = &mut out[start..];
    let (wide, narrow) = values.split_at(wide_lanes::<WIDTH>(values.len()));
    for (i, value) in wide.iter().enumerate() {
        if let Some(lane) = out[i * WIDTH..].first_chunk_mut::<8>() {
            *lane = value.to_le_bytes();
        }
    }
    let (lanes, _) = out[wide.len() * WIDTH..].as_chunks_mut::<WIDTH>();
    for (lane, value) in lanes.iter_mut().zip(narrow) {
        lane.copy_from_slice(&value.to_le_bytes()[..WIDTH]);
    }
}

fn unpack_bytes<const WIDTH: usize>(bytes: &[u8], values: &mut [u64]) {
    let mask = u64::MAX >> (64 - 8 * WIDTH);
    let (wide, narrow) = values.split_at_mut(wide_lanes::<WIDTH>(values.len()));
    for (i, value) in wide.iter_mut().enumerate() {
        if let Some(lane) = bytes[i * WIDTH..].first_chunk::<8>() {
            *value = u64::from_le_bytes(*lane) & mask;
        }
    }
    let (lanes, _) = bytes[wide.len() * WIDTH..].as_chunks::<WIDTH>();
    for (value, lane) in narrow.iter_mut().zip(lanes) {
        let mut bytes = [0; 8];
        bytes[..WIDTH].copy_from_slice(lane);
        *value = u64::from_le_bytes(bytes);
    }
}

/// How many of `count` values of `WIDTH` bytes have eight bytes from their start to the end.
fn wide_lanes<const WIDTH: usize>(count: usize) -> usize {
    (count * WIDTH).checked_sub(8).map_or(0, |last| last / WIDTH + 1)
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
