//! The ring Z_2^l.

use serde::{Deserialize, Serialize};

/// Why a ring or an encoding could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RingError {
    /// The width is outside 16..=64.
    #[error("ring width must be from 16 to 64 bits, found {0}")]
    Width(u32),
    /// A buffer of packed elements has the wrong size.
    #[error("packed ring elements: expected {expected} bytes, found {found}")]
    PackedLength {
        /// Bytes that the element count and width ask for.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A float does not fit the fixed-point format.
    #[error("value {value} does not fit {bits}-bit fixed point with {frac_bits} fractional bits")]
    OutOfRange {
        /// The offending value.
        value: f64,
        /// Width of the signed integer it must fit.
        bits: u32,
        /// Fractional bits.
        frac_bits: u32,
    },
}

/// The ring of integers modulo 2^l, 16 <= l <= 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Ring {
    bits: u8,
}

impl Ring {
    /// Smallest supported width in bits.
    pub const MIN_BITS: u32 = 16;
    /// Largest supported width in bits.
    pub const MAX_BITS: u32 = 64;

    /// The ring of `bits`-bit integers. Errors unless 16 <= `bits` <= 64.
    pub fn new(bits: u32) -> Result<Self, RingError> {
        if (Self::MIN_BITS..=Self::MAX_BITS).contains(&bits) {
            Ok(Self { bits: bits as u8 })
        } else {
            Err(RingError::Width(bits))
        }
    }

    /// A ring of 4 to 15 bits, small enough for exhaustive tests of formulas. Never valid in a plan.
    #[doc(hidden)]
    pub fn tiny(bits: u32) -> Self {
        assert!((4..Self::MIN_BITS).contains(&bits), "tiny rings have 4 to 15 bits");
        Self { bits: bits as u8 }
    }

    /// Width l in bits.
    pub fn bits(self) -> u32 {
        u32::from(self.bits)
    }

    /// 2^l - 1.
    #[inline]
    pub fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The representative of `value` in [0, 2^l).
    #[inline]
    pub fn reduce(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// Reduces every lane in place.
    pub fn reduce_all(self, values: &mut [u64]) {
        if self.bits < 64 {
            let mask = self.mask();
            values.iter_mut().for_each(|v| *v &= mask);
        }
    }

    /// The representative of `value` in [-2^(l-1), 2^(l-1)); upper bits are ignored.
    #[inline]
    pub fn to_signed(self, value: u64) -> i64 {
        let up = 64 - self.bits();
        ((value << up) as i64) >> up
    }

    /// The ring element of a signed integer.
    #[inline]
    pub fn from_signed(self, value: i64) -> u64 {
        self.reduce(value as u64)
    }

    /// Bytes that `count` elements take when packed to l bits each.
    pub fn packed_len(self, count: usize) -> usize {
        packed_len(self.bits(), count)
    }
}

/// Bytes that `count` values of `bits` bits take, packed without gaps.
pub fn packed_len(bits: u32, count: usize) -> usize {
    (count as u128 * u128::from(bits)).div_ceil(8) as usize
}

impl TryFrom<u8> for Ring {
    type Error = RingError;
    fn try_from(bits: u8) -> Result<Self, RingError> {
        Self::new(u32::from(bits))
    }
}

impl From<Ring> for u8 {
    fn from(ring: Ring) -> u8 {
        ring.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_outside_16_to_64_are_refused() {
        assert_eq!(Ring::new(15), Err(RingError::Width(15)));
        assert_eq!(Ring::new(65), Err(RingError::Width(65)));
        assert!(Ring::new(16).is_ok() && Ring::new(64).is_ok());
    }

    #[test]
    fn signed_round_trip_at_the_boundaries() {
        for bits in 16..=64 {
            let ring = Ring::new(bits).unwrap();
            let low = i64::MIN >> (64 - bits);
            for v in [low, low + 1, -1, 0, 1, -(low + 1)] {
                assert_eq!(ring.to_signed(ring.from_signed(v)), v, "l={bits}");
            }
        }
    }
}
