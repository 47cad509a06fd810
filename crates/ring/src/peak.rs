//! Peaks for benchmarks: the instructions of a kernel's inner loop, with all operands in registers.
//!
//! A [`Peak`] runs a burst of independent chains, more than latency times ports, without touching memory. What a kernel
//! reaches in relation to it says how much packing, loads, stores and dependencies cost.

use crate::{Kernel, Ring};

/// A loop that computes nothing of use, as fast as the CPU can.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    isa: &'static str,
    instructions: &'static str,
    work: u64,
    burst: fn(),
}

impl Peak {
    /// Of multiply-accumulates modulo 2^l: what `kernel` is made of in this ring, `None` if nobody has written that loop.
    pub fn macs(kernel: Kernel, ring: Ring) -> Option<Self> {
        match (kernel.name(), ring.bits()) {
            ("portable", _) => Some(scalar()),
            #[cfg(target_arch = "x86_64")]
            (name, bits) => x86::macs(name, bits),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// Of bytes of AES-128 in counter mode, by the widest AES instructions of this CPU; `None` where it has none.
    pub fn aes() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return x86::aes();
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Name of the kernel, or of the AES instructions, for reports.
    pub fn isa(&self) -> &'static str {
        self.isa
    }

    /// What the loop consists of.
    pub fn instructions(&self) -> &'static str {
        self.instructions
    }

    /// Runs the loop once, about a millisecond at most; gives the multiply-accumulates or bytes that it stands for.
    pub fn burst(&self) -> u64 {
        (self.burst)();
        self.work
    }
}

/// Rounds of a loop.
const STEPS: u32 = 1 << 17;

/// One multiplication and one addition of registers of 64 bits.
#[cfg(target_arch = "x86_64")]
fn scalar() -> Peak {
    Peak { isa: "portable", instructions: "imul, add", work: 8 * u64::from(STEPS), burst: x86::scalar }
}

/// As the compiler does it: chains through the multiplication, which is why there have to be many.
#[cfg(not(target_arch = "x86_64"))]
fn scalar() -> Peak {
    fn burst() {
        let mut chains = std::hint::black_box([3u64; 12]);
        let factor = std::hint::black_box(5);
        for _ in 0..STEPS {
            chains.iter_mut().for_each(|x| *x = x.wrapping_mul(factor).wrapping_add(factor));
        }
        std::hint::black_box(chains);
    }
    Peak { isa: "portable", instructions: "multiply-add", work: 12 * u64::from(STEPS), burst }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    use super::{Peak, STEPS};

    /// Chains of the vector loops.
    const CHAINS: u64 = 12;

    /// A line of assembler for each of twelve chains, whose number is put between the parts.
    macro_rules! chains {
        ($($part:literal),*) => { chains!(@ 0 1 2 3 4 5 6 7 8 9 10 11; $($part),*) };
        (@ $($i:literal)*; $a:literal, $b:literal) => { concat!($($a, $i, $b, "\n"),*) };
        (@ $($i:literal)*; $a:literal, $b:literal, $c:literal) => { concat!($($a, $i, $b, $i, $c, "\n"),*) };
    }

    /// A function that runs `body` [`STEPS`] times, needing `features`. Vectors 12 to 15 and 28 to 31 are factors or take
    /// results that are added at once; renaming keeps those apart.
    macro_rules! looped {
        ($name:ident, $features:literal, $end:literal, $($body:expr),*) => {
            #[target_feature(enable = $features)]
            fn $name() {
                // SAFETY: neither memory nor the stack is touched, and all registers that are count as clobbered; no value
                // matters.
                unsafe {
                    asm!(
                        "2:", $($body,)* "sub ecx, 1", "jnz 2b", $end,
                        inout("ecx") STEPS => _, clobber_abi("sysv64"), options(nomem, nostack)
                    )
                }
            }
        };
    }

    // Products of all 64 bits have two parts in AVX2: low by low, and the halves of both cross products, added in 32 bits.
    looped!(
        avx2_loop,
        "avx2",
        "vzeroupper",
        chains!("vpmuludq ymm12, ymm14, ymm15 \n vpaddq ymm", ", ymm", ", ymm12"),
        chains!("vpmulld ymm13, ymm14, ymm15 \n vpaddd ymm", ", ymm", ", ymm13")
    );
    looped!(
        avx2_narrow_loop,
        "avx2",
        "vzeroupper",
        chains!("vpmulld ymm13, ymm14, ymm15 \n vpaddd ymm", ", ymm", ", ymm13")
    );
    looped!(
        mullo_loop,
        "avx512f,avx512dq",
        "vzeroupper",
        chains!("vpmullq zmm28, zmm30, zmm31 \n vpaddq zmm", ", zmm", ", zmm28")
    );
    looped!(
        narrow_loop,
        "avx512f",
        "vzeroupper",
        chains!("vpmulld zmm28, zmm30, zmm31 \n vpaddd zmm", ", zmm", ", zmm28")
    );
    // Cross products of two steps of the depth take one multiplication.
    looped!(
        split_loop,
        "avx512f,avx512ifma,avx512vnni",
        "vzeroupper",
        chains!("vpmadd52luq zmm", ", zmm30, zmm31"),
        chains!(@ 12 13 14 15 16 17 18 19 20 21 22 23; "vpmadd52huq zmm", ", zmm30, zmm31"),
        chains!(@ 24 25 26 27 28 29; "vpdpwssd zmm", ", zmm30, zmm31")
    );
    looped!(ifma_loop, "avx512f,avx512ifma", "vzeroupper", chains!("vpmadd52luq zmm", ", zmm30, zmm31"));
    looped!(aesni_loop, "aes", "", chains!("aesenc xmm", ", xmm15"));
    looped!(vaes256_loop, "avx2,vaes", "vzeroupper", chains!("vaesenc ymm", ", ymm", ", ymm15"));
    looped!(vaes512_loop, "avx512f,vaes", "vzeroupper", chains!("vaesenc zmm", ", zmm", ", zmm31"));

    /// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
    #[repr(align(64))]
    struct TileConfig([u8; 64]);

    static TILES: TileConfig = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut tile = 0;
        while tile < 8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
            tile += 1;
        }
        TileConfig(bytes)
    };

    /// Rounds of six tiles of sums; each takes sixteen cycles.
    const TILE_STEPS: u32 = STEPS / 16;

    /// # Safety
    ///
    /// The CPU has AMX tiles and products of bytes, and the operating system lets this process use them.
    unsafe fn tiles() {
        // SAFETY: the caller's; only the configuration is read, the tiles are given back.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbuud tmm0, tmm6, tmm7", "tdpbuud tmm1, tmm6, tmm7", "tdpbuud tmm2, tmm6, tmm7",
                "tdpbuud tmm3, tmm6, tmm7", "tdpbuud tmm4, tmm6, tmm7", "tdpbuud tmm5, tmm6, tmm7",
                "sub ecx, 1", "jnz 2b",
                "tilerelease",
                config = in(reg) &raw const TILES.0,
                inout("ecx") TILE_STEPS => _, clobber_abi("sysv64"), options(nostack, readonly)
            )
        }
    }

    pub(super) fn scalar() {
        // SAFETY: as in `looped`; the flags count as clobbered.
        unsafe {
            asm!(
                "2:",
                "imul {t}, {a}, 12345", "add {x0}, {t}",
                "imul {t}, {a}, 12345", "add {x1}, {t}",
                "imul {t}, {a}, 12345", "add {x2}, {t}",
                "imul {t}, {a}, 12345", "add {x3}, {t}",
                "imul {t}, {a}, 12345", "add {x0}, {t}",
                "imul {t}, {a}, 12345", "add {x1}, {t}",
                "imul {t}, {a}, 12345", "add {x2}, {t}",
                "imul {t}, {a}, 12345", "add {x3}, {t}",
                "sub {n:e}, 1", "jnz 2b",
                n = inout(reg) STEPS => _, a = in(reg) 3u64, t = out(reg) _,
                x0 = inout(reg) 0u64 => _, x1 = inout(reg) 0u64 => _,
                x2 = inout(reg) 0u64 => _, x3 = inout(reg) 0u64 => _,
                options(nomem, nostack)
            )
        }
    }

    /// `burst` does `work` for every chain in every round.
    fn peak(isa: &'static str, instructions: &'static str, work: u64, burst: fn()) -> Option<Peak> {
        Some(Peak { isa, instructions, work: CHAINS * u64::from(STEPS) * work, burst })
    }

    pub(super) fn macs(kernel: &'static str, bits: u32) -> Option<Peak> {
        match kernel {
            // Both parts of four products are added to each of the twelve registers.
            // SAFETY: a kernel of this name exists only where the running CPU reported the features.
            "avx2" => peak(kernel, "vpmuludq, vpaddq, vpmulld, vpaddd", 4, || unsafe { avx2_loop() }),
            // SAFETY: as above.
            "avx2-32" => peak(kernel, "vpmulld, vpaddd", 8, || unsafe { avx2_narrow_loop() }),
            // SAFETY: as above.
            "avx512-32" => peak(kernel, "vpmulld, vpaddd", 16, || unsafe { narrow_loop() }),
            // SAFETY: as above.
            "ifma-vnni" => {
                peak(kernel, "vpmadd52luq, vpmadd52huq, 1/2 vpdpwssd", 8, || unsafe { split_loop() })
            }
            // SAFETY: as above.
            "avx512" => peak(kernel, "vpmullq, vpaddq", 8, || unsafe { mullo_loop() }),
            // SAFETY: as above.
            "amx" => {
                // 16 x 16 sums of 64 products of bytes; an element takes one for every pair of digits that count.
                let digits = u64::from(bits.div_ceil(8));
                let work = 6 * u64::from(TILE_STEPS) * (16 * 16 * 64) / (digits * (digits + 1) / 2);
                // SAFETY: as above; such a kernel has asked for the tiles.
                Some(Peak { isa: kernel, instructions: "tdpbuud", work, burst: || unsafe { tiles() } })
            }
            // SAFETY: as above.
            "ifma" if bits <= 52 => peak(kernel, "vpmadd52luq", 8, || unsafe { ifma_loop() }),
            _ => None,
        }
    }

    /// Ten rounds make a block.
    pub(super) fn aes() -> Option<Peak> {
        let bytes = |isa, instructions, vector: u64, burst| {
            let work = CHAINS * u64::from(STEPS) * vector / 10;
            Some(Peak { isa, instructions, work, burst })
        };
        if is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx512f") {
            // SAFETY: the features were just detected.
            return bytes("vaes512", "vaesenc zmm", 64, || unsafe { vaes512_loop() });
        }
        if is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return bytes("vaes256", "vaesenc ymm", 32, || unsafe { vaes256_loop() });
        }
        if is_x86_feature_detected!("aes") {
            // SAFETY: as above.
            return bytes("aesni", "aesenc xmm", 16, || unsafe { aesni_loop() });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_peak_that_runs() {
        for bits in [16, 32, 33, 48, 52, 53, 64] {
            let ring = Ring::new(bits).expect("in range");
            for kernel in Kernel::available(ring) {
                let peak = Peak::macs(kernel, ring).unwrap_or_else(|| panic!("{kernel:?} at {bits} bits"));
                assert!(peak.burst() > 0 && !peak.instructions().is_empty());
            }
        }
        if let Some(peak) = Peak::aes() {
            assert!(peak.burst() > 1 << 20 && peak.instructions().contains("aesenc"));
        }
    }
}
