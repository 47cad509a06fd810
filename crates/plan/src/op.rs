//! The closed set of integer operations.

use privet_ring::geometry::Window;
use serde::{Deserialize, Serialize};

/// Index of a wire, which is the index of the step that defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WireId(pub u32);

/// Index of a private tensor of the model owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ParamId(pub u32);

impl WireId {
    /// As an index into `Plan::steps`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ParamId {
    /// As an index into `Plan::params`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One term of a row of [`Op::AxisMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// Position along the operand's axis.
    pub index: u32,
    /// Public factor.
    pub coefficient: i64,
}

/// What a step computes, exactly, on signed integers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The data owner's input of this index.
    Input {
        /// Index into `Plan::inputs`.
        input: u32,
    },
    /// `Σ coefficients[j] · inputs[j] + constant`, elementwise, equal shapes, public integers.
    Combine {
        /// One per operand.
        coefficients: Vec<i64>,
        /// Added to every element.
        constant: i64,
    },
    /// Convolution of `[N, C, spatial..]` with a private kernel `[O, C/groups, kernel..]`; zero padding.
    Conv {
        /// The kernel.
        weight: ParamId,
        /// `[O]`, at the result's scale.
        bias: Option<ParamId>,
        /// Channel groups.
        groups: u32,
        /// The window.
        window: Window,
    },
    /// `[.., k] x [k, n]`, the right side private.
    MatMul {
        /// `[k, n]`.
        weight: ParamId,
        /// `[n]`, at the result's scale.
        bias: Option<ParamId>,
    },
    /// Elementwise product with a private tensor that broadcasts (numpy rule) to the operand's shape.
    Scale {
        /// The factors.
        factor: ParamId,
    },
    /// Elementwise sum with a private tensor that broadcasts (numpy rule) to the operand's shape.
    AddParam {
        /// The addend, at the operand's scale.
        param: ParamId,
    },
    /// Elementwise product of two wires of equal shape; the scales add.
    Multiply,
    /// `[.., m, k] x [.., k, n]` of two wires with equal leading axes; the scales add.
    BatchMatMul,
    /// A public sparse matrix along one axis: element `o` of the result's axis is `Σ coefficient · x[index]` over row `o`.
    /// Gathers, repeats, sums and interpolates; the scale grows by `coefficient_bits`.
    AxisMap {
        /// The axis.
        axis: u32,
        /// One row per element of the result's axis; an empty row gives zeros.
        rows: Vec<Vec<Tap>>,
        /// Fractional bits of the coefficients.
        coefficient_bits: u8,
    },
    /// Average over windows: sum times round(2^`reciprocal_bits` / count); the scale grows by `reciprocal_bits`.
    AveragePool {
        /// The window.
        window: Window,
        /// Whether declared padding counts as elements.
        count_include_pad: bool,
        /// Fractional bits of the reciprocal.
        reciprocal_bits: u8,
    },
    /// `floor(x / 2^shift)`.
    Trunc {
        /// Bits to drop.
        shift: u8,
    },
    /// `floor(max(x, 0) / 2^shift)`, comparing only the low `width` bits.
    Relu {
        /// Bits to drop, 0 for none.
        shift: u8,
        /// Effective width: -2^(width-1) <= x < 2^(width-1).
        width: u8,
    },
    /// 1 where x >= 0 and 0 elsewhere, at scale 0, comparing only the low `width` bits.
    NonNegative {
        /// Effective width: -2^(width-1) <= x < 2^(width-1).
        width: u8,
    },
    /// `[x >= 0] · t` for operands x and t, comparing only the low `width` bits of x. The shape of t is that of x, or has
    /// one more axis in front: several values chosen by one comparison.
    Select {
        /// Effective width: -2^(width-1) <= x < 2^(width-1).
        width: u8,
    },
    /// `entries[x]` for 0 <= x < 2^k, a public table of 2^k entries, 1 <= k <= 16. Beyond 2^8 all engines but the reference look it
    /// up with keys of function secret sharing.
    Table {
        /// At the result's scale.
        entries: Vec<i64>,
    },
    /// Maximum over windows of the positions inside the input (padding never wins).
    MaxPool {
        /// The window.
        window: Window,
        /// Effective width of a difference of two elements.
        width: u8,
    },
    /// The same elements in row-major order under another shape.
    Reshape,
    /// Permutes axes: axis `i` of the result is axis `perm[i]` of the operand.
    Transpose {
        /// The permutation.
        perm: Vec<u32>,
    },
    /// Element `i` of an axis is element `starts + i * steps` of the operand's axis; the result's shape says how many.
    Slice {
        /// First element per axis.
        starts: Vec<u32>,
        /// Step per axis, not zero.
        steps: Vec<i32>,
    },
    /// Zero padding; the result's shape says how much follows.
    Pad {
        /// Zeros before the first element, per axis.
        before: Vec<u32>,
    },
    /// Joins operands along an axis.
    Concat {
        /// The axis.
        axis: u32,
    },
}

/// Most entries of a table that is looked up without keys.
pub const MAX_ENTRIES_WITHOUT_KEYS: usize = 1 << 8;
/// Most entries of a table.
pub const MAX_ENTRIES: usize = 1 << 16;

impl Op {
    /// Whether it compares, truncates or takes signs.
    pub fn compares(&self) -> bool {
        use Op::{MaxPool, NonNegative, Relu, Select, Trunc};
        matches!(self, Trunc { .. } | Relu { .. } | NonNegative { .. } | Select { .. } | MaxPool { .. })
    }

    /// Name of the operation, for people and for tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Combine { .. } => "combine",
            Self::Conv { .. } => "conv",
            Self::MatMul { .. } => "matmul",
            Self::Scale { .. } => "scale",
            Self::AddParam { .. } => "add",
            Self::Multiply => "multiply",
            Self::BatchMatMul => "batch-matmul",
            Self::AxisMap { .. } => "axis-map",
            Self::AveragePool { .. } => "average-pool",
            Self::Trunc { .. } => "trunc",
            Self::Relu { .. } => "relu",
            Self::NonNegative { .. } => "non-negative",
            Self::Select { .. } => "select",
            Self::Table { .. } => "table",
            Self::MaxPool { .. } => "max-pool",
            Self::Reshape => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Slice { .. } => "slice",
            Self::Pad { .. } => "pad",
            Self::Concat { .. } => "concat",
        }
    }
}
