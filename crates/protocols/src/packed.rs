//! Private tensors in the form that a kernel multiplies by, made once for all inferences of a process.

use std::sync::OnceLock;

use privet_plan::{Op, Plan, Step};
use privet_ring::Kernel;
use privet_ring::packed::{PackedWeights, WeightShape};

use crate::linear;

/// Room for the packed form of every private tensor; keep it with the tensors. A tensor is packed when a product first needs it,
/// by whichever inference comes first. Those that no kernel wants packed (few rows, element by element, depthwise) are not copied.
pub(crate) struct Packed(Vec<OnceLock<Option<PackedWeights>>>);

impl Packed {
    /// For so many tensors.
    pub(crate) fn new(tensors: usize) -> Self {
        Self((0..tensors).map(|_| OnceLock::new()).collect())
    }

    /// Packs nothing.
    pub(crate) fn never() -> Self {
        Self::new(0)
    }

    /// The product of a step's operand with its private tensor `w`, which always has to be the same, as
    /// [`linear::multiply`] gives it.
    pub(crate) fn multiply(
        &self,
        plan: &Plan,
        step: &Step,
        kernel: Kernel,
        x: &[u64],
        w: &[u64],
    ) -> Vec<u64> {
        match self.packed(plan, step, kernel, w) {
            Some(packed) => linear::multiply_packed(plan, step, kernel, x, packed),
            None => linear::multiply(plan, step, kernel, x, w),
        }
    }

    /// The packed form of a step's private tensor, if it is a product's and a kernel wants it.
    pub(crate) fn packed(
        &self,
        plan: &Plan,
        step: &Step,
        kernel: Kernel,
        w: &[u64],
    ) -> Option<&PackedWeights> {
        let (kernel, shape) = wanted(plan, step, kernel)?;
        let place = self.0.get(linear::factor(&step.op)?.index())?;
        let packed = place.get_or_init(|| PackedWeights::transformed(kernel, shape, w));
        // Another step may use the same tensor in another way.
        packed.as_ref().filter(|packed| packed.shape() == shape)
    }

    /// Bytes that all packed forms take.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.iter().filter_map(OnceLock::get).flatten().map(PackedWeights::bytes).sum()
    }
}

/// What takes a step's product, and the shape of its tensor, where that can be packed.
fn wanted(plan: &Plan, step: &Step, kernel: Kernel) -> Option<(Kernel, WeightShape)> {
    match &step.op {
        Op::Conv { .. } => {
            let conv = linear::conv(plan, step);
            Some((conv.kernel(kernel), conv.weight_shape()))
        }
        Op::MatMul { .. } => {
            let [rows, k, n] = linear::matrices(plan, step);
            Some((kernel.for_shape([rows, n, k]), WeightShape::Matrix { k, n }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use privet_plan::{InputSpec, ParamId, ParamSpec, Preprocess, Range, RangeSource, Window, WireId};
    use privet_ring::Ring;
    use privet_ring::prg::{Prg, Seed};

    use super::*;

    /// One step that multiplies an operand of this shape by a tensor of that one.
    fn product(ring: Ring, op: Op, operand: &[usize], weights: &[usize], result: &[usize]) -> Plan {
        let range = Range { bits: ring.bits() as u8 - 1, source: RangeSource::FullWidth };
        let step = |op: Op, inputs: Vec<WireId>, shape: &[usize]| Step {
            name: op.name().to_owned(),
            op,
            inputs,
            shape: shape.to_vec(),
            frac_bits: 1,
            range,
        };
        Plan {
            model: "product".to_owned(),
            ring,
            frac_bits: 1,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: operand.to_vec(),
                preprocess: Preprocess::default(),
            }],
            params: vec![ParamSpec { name: "w".to_owned(), shape: weights.to_vec(), frac_bits: 1 }],
            steps: vec![step(Op::Input { input: 0 }, vec![], operand), step(op, vec![WireId(0)], result)],
            outputs: Vec::new(),
            labels: Vec::new(),
            fss: Vec::new(),
        }
    }

    fn conv(groups: u32, kernel: u32) -> Op {
        let pad = vec![kernel / 2; 2];
        let window = Window {
            kernel: vec![kernel; 2],
            stride: vec![1; 2],
            dilation: vec![1; 2],
            pad_begin: pad.clone(),
            pad_end: pad,
        };
        Op::Conv { weight: ParamId(0), bias: None, groups, window }
    }

    /// Whichever kernel multiplies: the product is the same every time, and only what kernels multiply in another form is copied.
    #[test]
    fn only_what_kernels_want_in_another_form_is_kept() {
        let matrix = || Op::MatMul { weight: ParamId(0), bias: None };
        let scale = Op::Scale { factor: ParamId(0) };
        let prg = Prg::new(&Seed::from_bytes([7; 16]));
        for bits in [32, 48, 64] {
            let ring = Ring::new(bits).unwrap();
            let cases = [
                (conv(1, 3), &[1, 64, 14, 14][..], &[64, 64, 3, 3][..], &[1, 64, 14, 14][..], true),
                (conv(1, 1), &[1, 128, 14, 14], &[64, 128, 1, 1], &[1, 64, 14, 14], true),
                (matrix(), &[192, 256], &[256, 192], &[192, 192], true),
                (matrix(), &[1, 128], &[128, 64], &[1, 64], false),
                (conv(64, 3), &[1, 64, 14, 14], &[64, 1, 3, 3], &[1, 64, 14, 14], false),
                (scale.clone(), &[1, 64, 14, 14], &[64, 1, 1], &[1, 64, 14, 14], false),
            ];
            for (op, operand, weights, result, is_large) in cases {
                let plan = product(ring, op, operand, weights, result);
                let [x, w] = [operand, weights]
                    .map(|shape| prg.stream(shape.len() as u64).words(shape.iter().product(), ring.mask()));
                for kernel in Kernel::available(ring) {
                    let packed = Packed::new(1);
                    let reduced = |mut z: Vec<u64>| {
                        ring.reduce_all(&mut z);
                        z
                    };
                    let expected = reduced(linear::multiply(&plan, &plan.steps[1], kernel, &x, &w));
                    for _ in 0..2 {
                        let z = reduced(packed.multiply(&plan, &plan.steps[1], kernel, &x, &w));
                        assert!(z == expected, "{kernel:?}, {:?}", plan.steps[1].op);
                    }
                    let is_kept = packed.bytes() > 0;
                    assert_eq!(
                        is_kept,
                        is_large && kernel.name() == "amx",
                        "{kernel:?}, {:?}",
                        plan.steps[1].op
                    );
                    assert!(packed.bytes() <= size_of_val(&w[..]));
                    let never = reduced(Packed::never().multiply(&plan, &plan.steps[1], kernel, &x, &w));
                    assert!(never == expected);
                }
            }
        }
    }
}
