//! Weights in the form in which a kernel multiplies by them: made once, used for many products.

use zeroize::Zeroize;

use crate::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::amx::{self, Digits, Room, Side, Sizes, image::Depth, split};
#[cfg(target_arch = "x86_64")]
use crate::threads::divide;

/// Shape of a tensor of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightShape {
    /// A matrix that others are multiplied by from the left, row-major.
    Matrix {
        /// Rows.
        k: usize,
        /// Columns.
        n: usize,
    },
    /// Filters of a convolution, `[out_channels, channels, taps]`.
    Filters {
        /// Output channels of all groups.
        out_channels: usize,
        /// Input channels of a group.
        channels: usize,
        /// Positions of the window.
        taps: usize,
        /// Channel groups.
        groups: usize,
    },
}

impl WeightShape {
    /// Elements of the tensor.
    pub fn len(&self) -> usize {
        match *self {
            Self::Matrix { k, n } => k * n,
            Self::Filters { out_channels, channels, taps, .. } => out_channels * channels * taps,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of weights as a kernel wants it, never larger than its elements: digits in the order of tiles where the kernel
/// multiplies tiles (l / 8 bytes an element, rounded up), otherwise the elements, which vectors read where they lie. Wiped
/// when dropped.
pub struct PackedWeights {
    kernel: Kernel,
    shape: WeightShape,
    form: Form,
}

enum Form {
    Elements(Vec<u64>),
    #[cfg(target_arch = "x86_64")]
    Tiles(Vec<Digits>),
}

impl PackedWeights {
    /// Packs row-major `elements` for products by `kernel`, which is right modulo 2^l; bits above l do not matter.
    pub fn new(kernel: Kernel, shape: WeightShape, elements: &[u64]) -> Self {
        assert_eq!(elements.len(), shape.len(), "elements of {shape:?}");
        let as_they_are = || Self { kernel, shape, form: Form::Elements(elements.to_vec()) };
        Self::transformed(kernel, shape, elements).unwrap_or_else(as_they_are)
    }

    /// The same where that is another form than the elements; otherwise nothing is copied.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub fn transformed(kernel: Kernel, shape: WeightShape, elements: &[u64]) -> Option<Self> {
        assert_eq!(elements.len(), shape.len(), "elements of {shape:?}");
        #[cfg(target_arch = "x86_64")]
        return Some(Self { kernel, shape, form: Form::Tiles(in_tiles(kernel, shape, elements)?) });
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// What it was made of.
    pub fn shape(&self) -> WeightShape {
        self.shape
    }

    /// Whether it is another form than the elements.
    pub fn is_transformed(&self) -> bool {
        self.elements().is_none()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Elements(elements) => size_of_val(&elements[..]),
            #[cfg(target_arch = "x86_64")]
            Form::Tiles(tiles) => size_of_val(&tiles[..]),
        }
    }

    /// The elements, where they were left as they are.
    pub(crate) fn elements(&self) -> Option<&[u64]> {
        match &self.form {
            Form::Elements(elements) => Some(elements),
            #[cfg(target_arch = "x86_64")]
            Form::Tiles(_) => None,
        }
    }

    /// Rows and columns.
    pub(crate) fn matrix(&self) -> [usize; 2] {
        match self.shape {
            WeightShape::Matrix { k, n } => [k, n],
            shape => panic!("a product of matrices by {shape:?}"),
        }
    }

    /// `kernel`, once it was checked to be the one that this was packed for; threads may differ.
    pub(crate) fn kernel(&self, kernel: Kernel) -> Kernel {
        assert!(kernel.is_like(self.kernel), "packed for {:?}, not for {kernel:?}", self.kernel);
        kernel
    }

    /// `c += a · self` for `a` of m rows, from tiles.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn tiled_product(&self, kernel: Kernel, m: usize, a: &[u64], c: &mut [u64]) {
        let ([k, n], kernel) = (self.matrix(), self.kernel(kernel));
        let (Some(ring), Form::Tiles(tiles)) = (kernel.tiles(), &self.form) else {
            unreachable!("the caller looked for elements")
        };
        let sizes = Sizes { limbs: amx::limbs(ring), chunks: k.div_ceil(amx::CHUNK) };
        let split = |blocks, chunks, room: Room| split::left(a, k, blocks, chunks, room);
        let (left, right) = (Side::Split(&split), Side::Ready(tiles));
        divide(kernel.threads_for(m * n * k), [m, n, k], c, &|first, c| {
            amx::product(sizes, &left, &right, first, c)
        });
    }

    /// Never called: without tiles there are elements.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn tiled_product(&self, _: Kernel, _: usize, _: &[u64], _: &mut [u64]) {
        unreachable!("elements")
    }

    /// Tiles of a group of filters.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn filters(&self, group: usize) -> Option<&[Digits]> {
        match (&self.form, self.shape) {
            (Form::Tiles(tiles), WeightShape::Filters { groups, .. }) => {
                let len = tiles.len() / groups;
                Some(&tiles[group * len..][..len])
            }
            _ => None,
        }
    }
}

impl Drop for PackedWeights {
    fn drop(&mut self) {
        match &mut self.form {
            Form::Elements(elements) => elements.zeroize(),
            #[cfg(target_arch = "x86_64")]
            Form::Tiles(tiles) => tiles.iter_mut().for_each(Zeroize::zeroize),
        }
    }
}

/// Tiles of all digits, unless the kernel has none or padding would make them larger than the elements.
#[cfg(target_arch = "x86_64")]
fn in_tiles(kernel: Kernel, shape: WeightShape, elements: &[u64]) -> Option<Vec<Digits>> {
    let limbs = amx::limbs(kernel.tiles()?);
    let (groups, side, chunks) = match shape {
        WeightShape::Matrix { k, n } => (1, n, k.div_ceil(amx::CHUNK)),
        WeightShape::Filters { out_channels, channels, taps, groups } => {
            let side = out_channels / groups;
            (groups, side, Depth::new(channels, taps).chunks())
        }
    };
    let blocks = side.div_ceil(amx::SIDE);
    let len = groups * blocks * chunks * limbs;
    if len == 0 || len * size_of::<Digits>() > size_of_val(elements) {
        return None;
    }
    let mut tiles = Digits::room(len);
    let of_group = |group: usize| &elements[group * (elements.len() / groups)..][..elements.len() / groups];
    for (group, tiles) in tiles.chunks_exact_mut(blocks * chunks * limbs).enumerate() {
        let room = Room::new(tiles, chunks * limbs, limbs);
        match shape {
            WeightShape::Matrix { n, .. } => split::right(elements, n, 0..blocks, 0..chunks, room),
            WeightShape::Filters { channels, taps, .. } => {
                Depth::new(channels, taps).split_filters(of_group(group), 0..blocks, 0..chunks, room);
            }
        }
    }
    Some(tiles)
}
