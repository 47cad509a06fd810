//! Fixed-point codec between floats and signed integers.

use crate::RingError;

/// Encodes `value` with `frac_bits` fractional bits, rounding to nearest (ties away from zero).
///
/// Errors when the result is not in [-2^(bits-1), 2^(bits-1)) or `value` is not finite.
pub fn encode(value: f64, bits: u32, frac_bits: u32) -> Result<i64, RingError> {
    let scaled = (value * (frac_bits as f64).exp2()).round();
    let limit = (f64::from(bits) - 1.0).exp2();
    if scaled >= -limit && scaled < limit {
        Ok(scaled as i64)
    } else {
        Err(RingError::OutOfRange { value, bits, frac_bits })
    }
}

/// Decodes a signed integer with `frac_bits` fractional bits.
pub fn decode(value: i64, frac_bits: u32) -> f64 {
    value as f64 / f64::from(frac_bits).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encode_rounds_and_refuses_what_does_not_fit() {
        assert_eq!(encode(1.5, 32, 16), Ok(98304));
        assert_eq!(encode(-0.25, 32, 2), Ok(-1));
        assert!(encode(32768.0, 32, 16).is_err());
        assert_eq!(encode(-32768.0, 32, 16), Ok(i64::from(i32::MIN)));
        assert!(encode(f64::NAN, 32, 16).is_err());
        assert!(encode(f64::INFINITY, 64, 16).is_err());
    }
}
