//! The engines on every instruction set that this CPU has, each forced in turn: equal to the reference, which takes portable code.

mod common;

use common::{Builder, law, reference, uniform, window};
use privet_plan::{Op, Plan, Weights};
use privet_protocols::masked::RevealTo;
use privet_ring::prg::{Prg, Seed};
use privet_ring::{Kernel, Ring};

/// Products large enough for every kernel's own loops, of values small enough for the narrowest ring.
fn products(ring: u32) -> (Plan, Weights) {
    let f = 1;
    let mut b = Builder::new(ring, f);
    let x = b.input(&[1, 32, 12, 12]);
    let same = || window(&[3, 3], &[1, 1], &[1, 1], &[1, 1], &[1, 1]);
    let weight = b.param(&[64, 32, 3, 3], f, 3);
    let conv = Op::Conv { weight, bias: None, groups: 1, window: same() };
    let conv = b.step(conv, &[x], &[1, 64, 12, 12], 2 * f);
    b.output(conv);
    for stride in [1, 2] {
        let weight = b.param(&[32, 1, 3, 3], f, 3);
        let side = 12 / stride as usize;
        let sliding = window(&[3, 3], &[stride, stride], &[1, 1], &[1, 1], &[1, 1]);
        let depthwise = Op::Conv { weight, bias: None, groups: 32, window: sliding };
        let depthwise = b.step(depthwise, &[x], &[1, 32, side, side], 2 * f);
        b.output(depthwise);
    }
    for rows in [1, 72] {
        let columns = 32 * 144 / rows;
        let flat = b.step(Op::Reshape, &[x], &[rows, columns], f);
        let weight = b.param(&[columns, 50], f, 1);
        let product = b.step(Op::MatMul { weight, bias: None }, &[flat], &[rows, 50], 2 * f);
        b.output(product);
    }
    b.finish()
}

#[test]
fn every_kernel_gives_the_reference() {
    for bits in [16, 32, 33, 48, 52, 53, 64] {
        let (plan, weights) = products(bits);
        let prg = Prg::new(&Seed::from_bytes([5; 16]));
        let inputs = [uniform(&prg, 0, 32 * 144, 2)];
        Kernel::force(Some("portable"));
        let expected = reference(&plan, &weights, &inputs);
        for kernel in Kernel::available(Ring::new(bits).unwrap()) {
            Kernel::force(Some(kernel.name()));
            assert_eq!(Kernel::best(plan.ring), kernel, "{bits} bits");
            assert_eq!(reference(&plan, &weights, &inputs), expected, "{kernel:?}, {bits} bits");
            law(&plan, &weights, &inputs, RevealTo::Client);
        }
        Kernel::force(None);
    }
}
