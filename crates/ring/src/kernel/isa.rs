//! The instruction sets that there are kernels for, and which of them is the fastest.

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::Ring;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    Portable,
    /// Halves of 32 bits, put together.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2Narrow,
    /// `vpmullq`.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512Narrow,
    #[cfg(target_arch = "x86_64")]
    Ifma,
    /// 52 and 12 bits: IFMA for the products of the low parts, VNNI for those of a low and a high part.
    #[cfg(target_arch = "x86_64")]
    IfmaVnni,
    /// Its digits depend on the ring.
    #[cfg(target_arch = "x86_64")]
    Amx(Ring),
}

/// Order of the right side in a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Lanes of 64 bits.
    Words,
    /// Lanes of 32 bits.
    #[cfg(target_arch = "x86_64")]
    Halves,
    /// Two rows in lanes of 64 bits, then for each lane four words of 16 bits, high and low 12 bits of both rows.
    #[cfg(target_arch = "x86_64")]
    Split,
}

impl Isa {
    /// All that were built, the fastest for `ring` on this CPU first, tiles before vectors.
    ///
    /// The order of vectors follows from micro-ops, of which both makers run two a cycle: AMD multiplies lanes of 32 and 64 bits
    /// (`vpmulld`, `vpmullq`) in one (measured on Zen 5: two a cycle, as many as `vpmadd52luq` and `vpdpwssd`, so that 32 and 16
    /// multiply-adds a cycle come to 13 with IFMA and VNNI); Intel in two and three, besides the addition (published counts of micro-ops, not measured here, Skylake-X to
    /// Sapphire Rapids: 10.7 and 4 a cycle, against 16 of 52 bits and 6.4 with IFMA and VNNI, which ran at 17.6 GMAC/s where
    /// `vpmullq` reached 11.5).
    #[cfg(target_arch = "x86_64")]
    pub(super) fn all(ring: Ring) -> Vec<Self> {
        let vectors = if x86::multiplies_lanes_at_once() {
            [Self::Avx512Narrow, Self::Ifma, Self::Avx512, Self::IfmaVnni]
        } else {
            [Self::Ifma, Self::Avx512Narrow, Self::IfmaVnni, Self::Avx512]
        };
        let rest = [Self::Avx2Narrow, Self::Avx2, Self::Portable];
        [Self::Amx(ring)].into_iter().chain(vectors).chain(rest).collect()
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(super) fn all(_: Ring) -> Vec<Self> {
        vec![Self::Portable]
    }

    /// Whether the running CPU has the instructions.
    pub(super) fn runs(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx2Narrow => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Narrow => {
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Self::Avx512.runs() && is_x86_feature_detected!("avx512ifma"),
            #[cfg(target_arch = "x86_64")]
            Self::IfmaVnni => Self::Ifma.runs() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => Self::Avx512.runs() && amx::runs(),
        }
    }

    /// Widest ring whose products are right.
    pub(super) fn max_bits(self) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Narrow | Self::Avx512Narrow => 32,
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => 52,
            _ => Ring::MAX_BITS,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Narrow => "avx2-32",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Narrow => "avx512-32",
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => "ifma",
            #[cfg(target_arch = "x86_64")]
            Self::IfmaVnni => "ifma-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
        }
    }

    /// How panels are packed for it.
    pub(super) fn form(self) -> Form {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Narrow | Self::Avx512Narrow => Form::Halves,
            #[cfg(target_arch = "x86_64")]
            Self::IfmaVnni => Form::Split,
            _ => Form::Words,
        }
    }
}

impl Form {
    /// What the columns of a panel are rounded up to.
    fn step(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Halves => 2 * super::LANES,
            _ => super::LANES,
        }
    }

    /// Elements of 64 bits that a row of so many columns takes; of two rows, where two are packed together.
    pub(crate) fn row(self, columns: usize) -> usize {
        let width = columns.next_multiple_of(self.step());
        match self {
            Self::Words => width,
            #[cfg(target_arch = "x86_64")]
            Self::Halves => width / 2,
            #[cfg(target_arch = "x86_64")]
            Self::Split => 3 * width,
        }
    }

    /// Elements of 64 bits that a panel takes.
    pub(crate) fn panel(self, depth: usize, columns: usize) -> usize {
        let rows = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Split => depth.div_ceil(2),
            _ => depth,
        };
        rows * self.row(columns)
    }
}
