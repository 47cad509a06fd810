//! MobileNetV3 (Howard et al., ICCV 2019), width 1.

use super::super::{
    Module, Sequence, batch_norm2d, conv2d, dropout, flatten, gated, global_avg_pool, hardsigmoid, hardswish,
    linear, relu, residual, seq,
};

/// A block: size of the depthwise kernel, channels inside and after it, whether it has squeeze and excitation and hardswish (else
/// ReLU), stride.
type Block = (usize, usize, usize, bool, bool, usize);

const LARGE: [Block; 15] = [
    (3, 16, 16, false, false, 1),
    (3, 64, 24, false, false, 2),
    (3, 72, 24, false, false, 1),
    (5, 72, 40, true, false, 2),
    (5, 120, 40, true, false, 1),
    (5, 120, 40, true, false, 1),
    (3, 240, 80, false, true, 2),
    (3, 200, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 480, 112, true, true, 1),
    (3, 672, 112, true, true, 1),
    (5, 672, 160, true, true, 2),
    (5, 960, 160, true, true, 1),
    (5, 960, 160, true, true, 1),
];

const SMALL: [Block; 11] = [
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

/// MobileNetV3 Large.
pub fn mobilenet_v3_large(classes: usize) -> Module {
    model(&LARGE, 1280, classes)
}

/// MobileNetV3 Small.
pub fn mobilenet_v3_small(classes: usize) -> Module {
    model(&SMALL, 1024, classes)
}

fn model(blocks: &[Block], hidden: usize, classes: usize) -> Module {
    let mut features = seq().add(convolution([3, 16], 3, 2, 1).add(hardswish()));
    let mut from = 16;
    for &(kernel, inside, to, excites, swishes, stride) in blocks {
        let activation = || if swishes { hardswish() } else { relu() };
        let mut block = seq();
        if inside != from {
            block = block.add(convolution([from, inside], 1, 1, 1).add(activation()));
        }
        block = block.add(convolution([inside; 2], kernel, stride, inside).add(activation()));
        if excites {
            block = block.add(squeeze_excitation(inside));
        }
        let block = seq().named("block", block.add(convolution([inside, to], 1, 1, 1)));
        features =
            if stride == 1 && from == to { features.add(residual(block)) } else { features.add(block) };
        from = to;
    }
    let features = features.add(convolution([from, 6 * from], 1, 1, 1).add(hardswish()));
    let classifier =
        seq().add(linear(6 * from, hidden)).add(hardswish()).add(dropout(0.2)).add(linear(hidden, classes));
    seq()
        .named("features", features)
        .add(global_avg_pool())
        .add(flatten())
        .named("classifier", classifier)
        .into()
}

/// Convolution and normalisation, same padding.
fn convolution([from, to]: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Sequence {
    seq()
        .add(conv2d(from, to, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false))
        .add(batch_norm2d(to).epsilon(1e-3))
}

/// Channels times what follows from their means (Hu et al., CVPR 2018), with a quarter of them in between, as a multiple of 8.
fn squeeze_excitation(channels: usize) -> Module {
    let quarter = channels / 4;
    let rounded = ((quarter + 4) / 8 * 8).max(8);
    // Never less than nine tenths.
    let between = if 10 * rounded < 9 * quarter { rounded + 8 } else { rounded };
    gated(
        seq()
            .inline(global_avg_pool())
            .named("fc1", conv2d(channels, between, 1))
            .inline(relu())
            .named("fc2", conv2d(between, channels, 1))
            .inline(hardsigmoid()),
    )
}
