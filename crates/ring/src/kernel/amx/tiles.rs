//! The tiles themselves: products of digits, and where their sums are kept.
//!
//! Compiled code uses no tiles, so sums stay where they are from one block of assembler to the next.

use std::arch::asm;

use super::{CHUNK, Digits, SIDE, SUMS};

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut config = [0; 64];
    config[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        config[16 + 2 * tile] = CHUNK as u8;
        config[48 + tile] = SIDE as u8;
        tile += 1;
    }
    Config(config)
};

/// While it lives, this thread's tiles are configured.
pub(super) struct Configured;

impl Configured {
    pub(super) fn new() -> Self {
        assert!(super::runs());
        // SAFETY: the CPU has tiles; compiled code knows nothing of them.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly, preserves_flags)) };
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: `new` asserted that the CPU has tiles. Without this, the system would go on saving their 8 KiB.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Sets the tiles of sums to zero.
///
/// # Safety
///
/// The CPU has tiles, and this thread has configured them as [`Configured`] does.
#[inline]
pub(super) unsafe fn zero() {
    // SAFETY: the caller's. Tiles are no registers that compiled code uses: they keep their values until the next block.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "tilezero tmm4", "tilezero tmm5",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
            options(nostack, nomem, preserves_flags)
        );
    }
}

/// Writes the first tiles, three or six of them.
///
/// # Safety
///
/// As for [`zero`].
#[inline]
pub(super) unsafe fn store(tiles: usize, sums: &mut [[u32; SIDE * SIDE]]) {
    assert!(sums.len() == SUMS);
    // SAFETY: there is room for six tiles.
    unsafe {
        asm!(
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            sums = in(reg) sums.as_mut_ptr(),
            row = in(reg) CHUNK,
            options(nostack, preserves_flags)
        );
        if tiles > 3 {
            asm!(
                "tilestored [{sums} + {row} + 3072], tmm3",
                "tilestored [{sums} + {row} + 4096], tmm4",
                "tilestored [{sums} + {row} + 5120], tmm5",
                sums = in(reg) sums.as_mut_ptr(),
                row = in(reg) CHUNK,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Products of some digits of a chunk.
pub(super) struct Pass {
    /// Tiles that they are added to.
    pub(super) tiles: usize,
    pub(super) run: unsafe fn(&[Digits], &[Digits]),
}

pub(super) fn passes(limbs: usize) -> &'static [Pass] {
    const fn pass(tiles: usize, run: unsafe fn(&[Digits], &[Digits])) -> Pass {
        Pass { tiles, run }
    }
    match limbs {
        2 => const { &[pass(3, below_2)] },
        3 => const { &[pass(6, below_3)] },
        4 => const { &[pass(6, below_4)] },
        5 => const { &[pass(6, below_5)] },
        6 => const { &[pass(6, below_6)] },
        7 => const { &[pass(6, below_5), pass(6, from_5_below_7)] },
        8 => const { &[pass(6, below_6), pass(6, from_6_below_8)] },
        _ => unreachable!("rings have 16 to 64 bits"),
    }
}

/// A pass: for every digit of the right side (at its offset) those of the left that it is multiplied by, and the tile that this
/// adds to: what [`parts`](super::parts) says.
macro_rules! pass {
    ($name:ident: $limbs:literal; $($right:literal: $($left:literal > $sum:literal),+;)+) => {
        /// # Safety
        ///
        /// The CPU has tiles, and this thread has configured them as [`Configured`] does.
        unsafe fn $name(left: &[Digits], right: &[Digits]) {
            assert!(left.len() >= $limbs && right.len() >= $limbs);
            // SAFETY: both have the tiles that are read. Sums stay in tiles from block to block, which compiled code
            // knows nothing of.
            unsafe {
                asm!(
                    $(
                        concat!("tileloadd tmm7, [{right} + {row} + 1024 * ", $right, "]"),
                        $(
                            concat!("tileloadd tmm6, [{left} + {row} + 1024 * ", $left, "]"),
                            concat!("tdpbuud tmm", $sum, ", tmm6, tmm7"),
                        )+
                    )+
                    left = in(reg) left.as_ptr(),
                    right = in(reg) right.as_ptr(),
                    row = in(reg) CHUNK,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly, preserves_flags),
                );
            }
        }
    };
}

pass!(below_2: 2; 0: 0 > 0, 1 > 1; 1: 0 > 2;);
pass!(below_3: 3; 0: 0 > 0, 1 > 1, 2 > 2; 1: 0 > 3, 1 > 4; 2: 0 > 5;);
pass!(below_4: 4; 0: 0 > 0, 1 > 1, 2 > 2, 3 > 3; 1: 0 > 1, 1 > 4, 2 > 5; 2: 0 > 2, 1 > 3; 3: 0 > 5;);
pass!(below_5: 5;
    0: 0 > 0, 1 > 1, 2 > 2, 3 > 3, 4 > 4;
    1: 0 > 1, 1 > 2, 2 > 3, 3 > 5;
    2: 0 > 2, 1 > 3, 2 > 4;
    3: 0 > 3, 1 > 5;
    4: 0 > 4;
);
pass!(below_6: 6;
    0: 0 > 0, 1 > 1, 2 > 2, 3 > 3, 4 > 4, 5 > 5;
    1: 0 > 1, 1 > 2, 2 > 3, 3 > 4, 4 > 5;
    2: 0 > 2, 1 > 3, 2 > 4, 3 > 5;
    3: 0 > 3, 1 > 4, 2 > 5;
    4: 0 > 4, 1 > 5;
    5: 0 > 5;
);
pass!(from_5_below_7: 7;
    0: 5 > 0, 6 > 3;
    1: 4 > 1, 5 > 4;
    2: 3 > 2, 4 > 5;
    3: 2 > 0, 3 > 3;
    4: 1 > 1, 2 > 4;
    5: 0 > 2, 1 > 5;
    6: 0 > 3;
);
pass!(from_6_below_8: 8;
    0: 6 > 0, 7 > 3;
    1: 5 > 1, 6 > 4;
    2: 4 > 2, 5 > 5;
    3: 3 > 0, 4 > 3;
    4: 2 > 1, 3 > 4;
    5: 1 > 2, 2 > 5;
    6: 0 > 0, 1 > 3;
    7: 0 > 4;
);
