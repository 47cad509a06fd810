//! What a kernel's multiply-add reaches with all operands in registers.

use privet_ring::Kernel;

/// Multiply-accumulates of one run of independent chains of `kernel`'s instruction; `None` where that is not one vector instruction.
pub(crate) fn macs(kernel: Kernel) -> Option<usize> {
    match kernel.name() {
        // SAFETY: a kernel of this name exists only where the running CPU reported the features.
        #[cfg(target_arch = "x86_64")]
        "ifma" => Some(unsafe { x86::ifma() }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        "avx512" => Some(unsafe { x86::mullo() }),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent chains: more than latency times ports.
    const CHAINS: usize = 16;
    const STEPS: usize = 1 << 17;

    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn ifma() -> usize {
        let (a, b) = (_mm512_set1_epi64(black_box(3)), _mm512_set1_epi64(black_box(5)));
        let mut sums = black_box([_mm512_setzero_si512(); CHAINS]);
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_madd52lo_epu64(*sum, a, b);
            }
        }
        black_box(sums);
        8 * CHAINS * STEPS
    }

    /// The products are chained themselves, so that none can be left out; the additions run on another port.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) fn mullo() -> usize {
        let a = _mm512_set1_epi64(black_box(3));
        let mut products = black_box([_mm512_set1_epi64(7); CHAINS]);
        for _ in 0..STEPS / 4 {
            for product in &mut products {
                *product = _mm512_mullo_epi64(*product, a);
            }
        }
        black_box(products);
        8 * CHAINS * STEPS / 4
    }
}
