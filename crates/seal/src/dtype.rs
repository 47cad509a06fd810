//! Types of a tensor's elements.

/// The type of a tensor's elements. Numbered as `TensorProto.DataType` of ONNX; elements are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DType {
    Float32,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Int32,
    Int64,
    Bool,
    Float16,
    Float64,
    Uint32,
    Uint64,
    Complex64,
    Complex128,
    Bfloat16,
}

/// Type, number, bytes of an element.
const TABLE: [(DType, u8, u64); 15] = [
    (DType::Float32, 1, 4),
    (DType::Uint8, 2, 1),
    (DType::Int8, 3, 1),
    (DType::Uint16, 4, 2),
    (DType::Int16, 5, 2),
    (DType::Int32, 6, 4),
    (DType::Int64, 7, 8),
    (DType::Bool, 9, 1),
    (DType::Float16, 10, 2),
    (DType::Float64, 11, 8),
    (DType::Uint32, 12, 4),
    (DType::Uint64, 13, 8),
    (DType::Complex64, 14, 8),
    (DType::Complex128, 15, 16),
    (DType::Bfloat16, 16, 2),
];

impl DType {
    /// The type of a number.
    pub fn from_code(code: u8) -> Option<DType> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Its number.
    pub fn code(self) -> u8 {
        self.row().1
    }

    /// Bytes of an element.
    pub fn size(self) -> u64 {
        self.row().2
    }

    /// Bytes of a tensor; `None` where they do not fit 64 bits.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        // An axis of length 0 does not make the others' product fit.
        shape.iter().try_fold(self.size(), |product, &d| product.checked_mul(d))
    }

    fn row(self) -> &'static (DType, u8, u64) {
        TABLE.iter().find(|row| row.0 == self).expect("every type has a row")
    }
}
