//! The inner loops of products, one per instruction set, chosen at run time by the ring's width and the CPU ([`isa`]).
//!
//! Every kernel is right modulo 2^l for the ring it was chosen for and leaves garbage above bit l. For l <= 52 there is
//! AVX-512 IFMA: one `vpmadd52luq` multiplies the low 52 bits of eight lanes and adds the low 52 bits of the products; sums wrap
//! modulo 2^64, which 2^52 divides, so nothing has to be reduced in between. For l <= 32 lanes of 32 bits are enough, sixteen to a
//! vector. All 64 bits take `vpmullq` and an addition or, where that is slow, IFMA and VNNI (`x86::split`).
//! Where the CPU has AMX, products that are worth packing into bytes go there instead, in every ring.
//! Elsewhere there are loops for AVX2, and plain Rust for the target's baseline, which is also what ARM runs.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(feature = "force")]
mod force;
mod isa;
mod panel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::num::NonZero;

pub(crate) use isa::Form;
use isa::Isa;
pub(crate) use panel::Panels;

use crate::Ring;
use crate::right::Right;
#[cfg(target_arch = "x86_64")]
use crate::threads::divide;

/// Rows of a full register tile.
pub(crate) const MR: usize = 8;
/// Lanes of a vector; panels are whole vectors wide.
pub(crate) const LANES: usize = 8;

/// Columns that [`Kernel::dots`] sums at most.
pub(crate) const LONE: usize = 2;

/// Multiply-adds that are worth a thread.
const THREAD_WORK: usize = 4 << 20;

/// A way to compute products modulo 2^l that the running CPU supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    isa: Isa,
    threads: usize,
}

/// Why there is no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The running CPU lacks instructions.
    #[error("this CPU lacks its instructions")]
    Cpu,
    /// Products would be wrong.
    #[error("wrong in rings of more than {max_bits} bits")]
    Ring {
        /// The widest ring it is right for.
        max_bits: u32,
    },
}

/// The left rows and the right panel of one tile of a product.
pub(crate) struct Tile<'a> {
    /// Some rows of the left side, all as deep as the panel.
    pub(crate) rows: &'a [&'a [u64]],
    /// What [`Kernel::complement`] made of the rows.
    pub(crate) complement: &'a [u64],
    /// The right side, in the kernel's form.
    pub(crate) panel: &'a [u64],
    /// Distance of two rows of the panel, or of two pairs of them, at least [`Form::row`].
    pub(crate) step: usize,
    /// Columns of the result that the panel has.
    pub(crate) columns: usize,
    /// First column of the result.
    pub(crate) at: usize,
}

/// Plain loops to be compiled for the instructions of each kernel.
pub(crate) trait Loops {
    /// Has to be `#[inline(always)]`: only what is inlined is compiled for them.
    fn run(self);
}

impl Kernel {
    /// The fastest kernel for `ring` on this CPU.
    pub fn best(ring: Ring) -> Self {
        #[cfg(feature = "force")]
        if let Some(kernel) = force::forced(ring) {
            return kernel;
        }
        Self::available(ring)[0]
    }

    /// Every kernel that is right for `ring` and that this CPU runs, the fastest first.
    pub fn available(ring: Ring) -> Vec<Self> {
        Self::all(ring).into_iter().filter_map(|(_, kernel)| kernel.ok()).collect()
    }

    /// Names of all kernels that were built, the fastest first, each with the kernel or why there is none for `ring` here.
    pub fn all(ring: Ring) -> Vec<(&'static str, Result<Self, Unavailable>)> {
        let usable = |isa: Isa| match isa.max_bits() {
            max_bits if ring.bits() > max_bits => Err(Unavailable::Ring { max_bits }),
            _ if !isa.runs() => Err(Unavailable::Cpu),
            _ => Ok(Self::of(isa)),
        };
        Isa::all(ring).into_iter().map(|isa| (isa.name(), usable(isa))).collect()
    }

    fn of(isa: Isa) -> Self {
        Self { isa, threads: 1 }
    }

    /// The same kernel on up to `threads` threads, which large products are divided over; the result is the same.
    pub fn with_threads(self, threads: NonZero<usize>) -> Self {
        Self { threads: threads.get(), ..self }
    }

    /// Threads that a product of so many multiply-adds is worth.
    pub(crate) fn threads_for(self, multiply_adds: usize) -> usize {
        self.threads.min(multiply_adds / THREAD_WORK).max(1)
    }

    /// Threads for as many equal parts.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn threads_up_to(self, parts: usize) -> usize {
        self.threads.min(parts).max(1)
    }

    /// Whether both compute alike, on however many threads.
    pub(crate) fn is_like(self, other: Self) -> bool {
        self.isa == other.isa
    }

    /// Name for reports.
    pub fn name(self) -> &'static str {
        self.isa.name()
    }

    /// What computes products of a shape [m, n, k]: tiles of digits, or the vectors that are best. Few rows read the right side where
    /// it lies, which kernels that want it in another form than elements cannot.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn for_shape(self, shape: [usize; 3]) -> Self {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(ring) => {
                let vectors = Isa::all(ring).into_iter().skip(1);
                let isa = vectors.into_iter().find(|isa| ring.bits() <= isa.max_bits() && isa.runs());
                let isa = isa.expect("portable code runs everywhere");
                // Multiply-adds a cycle that vectors reach: three quarters of what they could.
                let rate = match isa {
                    Isa::Ifma => 12.0,
                    Isa::IfmaVnni => 4.8,
                    _ => 4.0,
                };
                if amx::pays(ring, shape, rate) { self } else { Self { isa, ..self }.for_shape(shape) }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow if shape[0] <= MR && Isa::Ifma.runs() => Self { isa: Isa::Ifma, ..self },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow | Isa::IfmaVnni if shape[0] <= MR => Self { isa: Isa::Avx512, ..self },
            _ => self,
        }
    }

    /// The ring whose digits this kernel multiplies in tiles, if it does.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn tiles(self) -> Option<Ring> {
        match self.isa {
            Isa::Amx(ring) => Some(ring),
            _ => None,
        }
    }

    /// `c += a · b` for matrices where this kernel has loops of its own; otherwise nothing happens, and false is returned.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub(crate) fn tiled_product(self, [m, n, k]: [usize; 3], a: &[u64], b: &[u64], c: &mut [u64]) -> bool {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(ring) => {
                use amx::Room;
                let sizes = amx::Sizes { limbs: amx::limbs(ring), chunks: k.div_ceil(amx::CHUNK) };
                let split_left = |blocks, chunks, room: Room| amx::split::left(a, k, blocks, chunks, room);
                let split_right = |blocks, chunks, room: Room| amx::split::right(b, n, blocks, chunks, room);
                let (left, right) = (amx::Side::Split(&split_left), amx::Side::Split(&split_right));
                divide(self.threads_for(m * n * k), [m, n, k], c, &|first, c| {
                    amx::product(sizes, &left, &right, first, c)
                });
                true
            }
            _ => false,
        }
    }

    /// Rows of a full register tile.
    pub(crate) fn rows(self) -> usize {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::IfmaVnni => x86::split::ROWS,
            _ => MR,
        }
    }

    /// Columns of a full register tile.
    pub(crate) fn columns(self) -> usize {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Ifma => 3 * LANES,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow => 6 * LANES,
            _ => 2 * LANES,
        }
    }

    /// How panels are packed.
    pub(crate) fn form(self) -> Form {
        self.isa.form()
    }

    /// Packs rows k0.. of the right side and vectors `first`.. of their columns into panels.
    pub(crate) fn pack(self, right: &Right, k0: usize, first: usize, panels: &Panels, room: &mut [u64]) {
        assert!(room.len() >= panels.len());
        match self.isa {
            // SAFETY: `available` made this variant only after the running CPU reported the features; the room was checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Narrow | Isa::Ifma | Isa::IfmaVnni => unsafe {
                x86::pack::panels(right, k0, first, panels, room)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Narrow => unsafe { x86::avx2::narrow_panels(right, k0, first, panels, room) },
            _ => self.run(|| panels.pack(right, k0, first, room)),
        }
    }

    /// What tiles need of the rows on the left besides the rows themselves: one element for every two, row after row, for a kernel
    /// that multiplies parts of two at once. `room` is as long as that takes for the rows of a full tile.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub(crate) fn complement<'a>(self, rows: &[&[u64]], room: &'a mut [u64]) -> &'a [u64] {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::IfmaVnni => {
                let pairs = rows[0].len().div_ceil(2);
                let room = &mut room[..rows.len() * pairs];
                self.run(|| {
                    for (row, out) in rows.iter().zip(room.chunks_exact_mut(pairs)) {
                        let (whole, rest) = row.as_chunks::<2>();
                        out.iter_mut().zip(whole).for_each(|(out, &[a, b])| *out = panel::left_parts(a, b));
                        if let (Some(last), &[a]) = (out.last_mut(), rest) {
                            *last = panel::left_parts(a, 0);
                        }
                    }
                });
                room
            }
            _ => &[],
        }
    }

    /// What plain loops are compiled for.
    pub(crate) fn of_loops(self) -> Self {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow | Isa::Ifma | Isa::IfmaVnni | Isa::Amx(_) => Self { isa: Isa::Avx512, ..self },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Narrow => Self { isa: Isa::Avx2, ..self },
            _ => self,
        }
    }

    /// Runs plain code compiled for this kernel's instructions.
    #[inline]
    pub(crate) fn run<T>(self, code: impl FnOnce() -> T) -> T {
        match self.isa {
            Isa::Portable => code(),
            // SAFETY: `available` made this variant only after the running CPU reported the feature.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx2Narrow => unsafe { x86::run_avx2(code) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { x86::run_avx512(code) },
        }
    }

    /// Runs loops compiled for this kernel's instructions.
    pub(crate) fn run_loops(self, loops: impl Loops) {
        match self.isa {
            Isa::Portable => loops.run(),
            // SAFETY: `available` made this variant only after the running CPU reported the feature.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx2Narrow => unsafe { x86::loops_avx2(loops) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { x86::loops_avx512(loops) },
        }
    }

    /// Adds the products of a tile to rows of the result.
    pub(crate) fn tile(self, tile: &Tile, out: &mut [&mut [u64]]) {
        let depth = tile.rows[0].len();
        let row = self.form().row(tile.columns);
        assert!((1..=self.rows()).contains(&tile.rows.len()) && (1..=self.columns()).contains(&tile.columns));
        assert!(tile.rows.iter().all(|row| row.len() == depth));
        let steps = self.form().panel(depth, tile.columns) / row;
        assert!(depth == 0 || (tile.step >= row && tile.panel.len() >= (steps - 1) * tile.step + row));
        match self.isa {
            // SAFETY: `available` made this variant only after the running CPU reported the features; the lengths were
            // checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::avx2::tile(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Narrow => unsafe { x86::avx2::narrow_tile(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::avx512::tile(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow => unsafe { x86::narrow::tile(tile, depth, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma => unsafe { x86::ifma::tile(tile, depth, out) },
            #[cfg(target_arch = "x86_64")]
            Isa::IfmaVnni => {
                assert!(tile.complement.len() >= tile.rows.len() * depth.div_ceil(2));
                // SAFETY: as above, and so was the length of the complement.
                unsafe { x86::split::tile(tile, depth, out) }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => unreachable!("tiles of digits have their own loops"),
            Isa::Portable => portable::tile(tile, out),
        }
    }

    /// Columns of a panel that are summed by [`Self::dots`], because a vector for so few is mostly for nothing: those behind its
    /// last whole vectors.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub(crate) fn lone_columns(self, columns: usize) -> usize {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Ifma => Some(columns % LANES),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow | Isa::Avx2Narrow => Some(columns % (2 * LANES)),
            _ => None,
        }
        .filter(|lone| *lone <= LONE)
        .unwrap_or(0)
    }

    /// Adds the products of some rows and one column, its elements one after the other, to column `at` of the result.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub(crate) fn dots(self, rows: &[&[u64]], column: &[u64], at: usize, out: &mut [&mut [u64]]) {
        assert!((1..=MR).contains(&rows.len()) && rows.iter().all(|row| row.len() == column.len()));
        let sums: [u64; MR] = match self.isa {
            // SAFETY: `available` made this variant only after the running CPU reported the features; the lengths were
            // checked.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::avx512::dots(rows, column) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Narrow => unsafe { x86::narrow::dots(rows, column) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma => unsafe { x86::ifma::dots(rows, column) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Narrow => unsafe { x86::avx2::narrow_dots(rows, column) },
            _ => unreachable!("no lone columns"),
        };
        out.iter_mut().zip(sums).for_each(|(out, sum)| out[at] = out[at].wrapping_add(sum));
    }

    /// Up to how many rows on the left it is faster to read the right side where it lies than to pack it.
    pub(crate) fn few_rows(self) -> usize {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) | Isa::Avx512Narrow | Isa::IfmaVnni => 0,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Ifma => MR,
            _ => 3,
        }
    }

    /// `out += factor · row`.
    pub(crate) fn axpy(self, factor: u64, row: &[u64], out: &mut [u64]) {
        self.run(|| out.iter_mut().zip(row).for_each(|(o, r)| *o = o.wrapping_add(factor.wrapping_mul(*r))));
    }
}
