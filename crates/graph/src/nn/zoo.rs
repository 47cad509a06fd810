//! Well-known architectures, with the parameter names of torchvision where it has them.
//!
//! Inputs are `[N, channels, H, W]`; `classes` is the number of outputs. Parameter counts are tested against the published
//! ones.

mod average;
mod mobilenet_v3;

pub use average::average_pooling;
pub use mobilenet_v3::{mobilenet_v3_large, mobilenet_v3_small};

use super::{
    Module, Sequence, adaptive_avg_pool2d, avg_pool2d, batch_norm2d, branches, conv2d, dropout, flatten,
    global_avg_pool, linear, max_pool2d, relu, relu6, residual, seq,
};

/// An architecture of the zoo.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// Name, as commands take it.
    pub name: &'static str,
    /// Shape of one input without the batch: channels, height, width.
    pub input: [usize; 3],
    /// Number of outputs.
    pub classes: usize,
    /// Makes it for a number of outputs.
    pub make: fn(usize) -> Module,
}

const fn row(
    name: &'static str,
    input: [usize; 3],
    classes: usize,
    make: fn(usize) -> Module,
) -> Architecture {
    Architecture { name, input, classes, make }
}

/// All architectures.
pub static ARCHITECTURES: &[Architecture] = &[
    row("alexnet", [3, 224, 224], 1000, alexnet),
    row("alexnet-cifar", [3, 32, 32], 10, alexnet_cifar),
    row("alexnet-imagenet", [3, 224, 224], 1000, alexnet_imagenet),
    row("alexnet-tiny", [3, 64, 64], 200, alexnet_tiny),
    row("lenet", [1, 28, 28], 10, lenet),
    row("lenet5", [1, 28, 28], 10, lenet5),
    row("minionn-cifar", [3, 32, 32], 10, minionn_cifar),
    row("mobilenet-v2", [3, 224, 224], 1000, mobilenet_v2),
    row("mobilenet-v3-large", [3, 224, 224], 1000, mobilenet_v3_large),
    row("mobilenet-v3-small", [3, 224, 224], 1000, mobilenet_v3_small),
    row("resnet101", [3, 224, 224], 1000, resnet101),
    row("resnet152", [3, 224, 224], 1000, resnet152),
    row("resnet18", [3, 224, 224], 1000, resnet18),
    row("resnet34", [3, 224, 224], 1000, resnet34),
    row("resnet50", [3, 224, 224], 1000, resnet50),
    row("squeezenet", [3, 224, 224], 1000, squeezenet),
    row("squeezenet1.0", [3, 224, 224], 1000, squeezenet1_0),
    row("vgg16", [3, 224, 224], 1000, vgg16),
    row("vgg16-cifar", [3, 32, 32], 10, vgg16_cifar),
    row("vgg16-imagenet", [3, 224, 224], 1000, vgg16_imagenet),
    row("vgg16-tiny", [3, 64, 64], 200, vgg16_tiny),
    row("vgg19", [3, 224, 224], 1000, vgg19),
];

/// The architecture of a name.
pub fn find(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|a| a.name == name)
}

/// LeNet for 28 x 28 grey pictures as MPC papers measure it (20 and 50 filters, 500 hidden units, max pooling).
pub fn lenet(classes: usize) -> Module {
    seq()
        .named("conv1", conv2d(1, 20, 5))
        .add(relu())
        .add(max_pool2d(2))
        .named("conv2", conv2d(20, 50, 5))
        .add(relu())
        .add(max_pool2d(2))
        .add(flatten())
        .named("fc1", linear(800, 500))
        .add(relu())
        .named("fc2", linear(500, classes))
        .into()
}

/// The smaller LeNet: 6 and 16 filters, 120 and 84 hidden units, on 28 x 28 without padding (after LeCun et al., 1998).
pub fn lenet5(classes: usize) -> Module {
    seq()
        .named("conv1", conv2d(1, 6, 5))
        .add(relu())
        .add(max_pool2d(2))
        .named("conv2", conv2d(6, 16, 5))
        .add(relu())
        .add(max_pool2d(2))
        .add(flatten())
        .named("fc1", linear(256, 120))
        .add(relu())
        .named("fc2", linear(120, 84))
        .add(relu())
        .named("fc3", linear(84, classes))
        .into()
}

/// The CIFAR-10 network of MiniONN (Liu et al., CCS 2017, figure 13).
pub fn minionn_cifar(classes: usize) -> Module {
    let conv =
        |from, to, kernel: usize| seq().inline(conv2d(from, to, kernel).padding(kernel / 2)).inline(relu());
    seq()
        .add(conv(3, 64, 3))
        .add(conv(64, 64, 3))
        .add(avg_pool2d(2))
        .add(conv(64, 64, 3))
        .add(conv(64, 64, 3))
        .add(avg_pool2d(2))
        .add(conv(64, 64, 3))
        .add(conv(64, 64, 1))
        .add(conv(64, 16, 1))
        .add(flatten())
        .add(linear(1024, classes))
        .into()
}

/// AlexNet (Krizhevsky, 2014, one tower).
pub fn alexnet(classes: usize) -> Module {
    let features = seq()
        .add(conv2d(3, 64, 11).stride(4).padding(2))
        .add(relu())
        .add(max_pool2d(3).stride(2))
        .add(conv2d(64, 192, 5).padding(2))
        .add(relu())
        .add(max_pool2d(3).stride(2))
        .add(conv2d(192, 384, 3).padding(1))
        .add(relu())
        .add(conv2d(384, 256, 3).padding(1))
        .add(relu())
        .add(conv2d(256, 256, 3).padding(1))
        .add(relu())
        .add(max_pool2d(3).stride(2));
    let classifier = seq()
        .add(dropout(0.5))
        .add(linear(256 * 36, 4096))
        .add(relu())
        .add(dropout(0.5))
        .add(linear(4096, 4096))
        .add(relu())
        .add(linear(4096, classes));
    seq()
        .named("features", features)
        .add(adaptive_avg_pool2d(6))
        .add(flatten())
        .named("classifier", classifier)
        .into()
}

/// AlexNet for 32 x 32 pictures as MPC papers measure it (Falcon, PETS 2021; CryptGPU), without their two batch
/// normalisations.
pub fn alexnet_cifar(classes: usize) -> Module {
    alexnet_small(seq().add(flatten()), [256, 256], classes)
}

/// AlexNet for the 64 x 64 pictures of Tiny ImageNet (CryptGPU, S&P 2021; Piranha): averages of 2 x 2 before the hidden
/// layers.
pub fn alexnet_tiny(classes: usize) -> Module {
    alexnet_small(seq().add(avg_pool2d(2)).add(flatten()), [1024, 1024], classes)
}

/// AlexNet for 224 x 224 pictures as CryptGPU measures it: the convolutions of [`alexnet_cifar`], averages of 4 x 4. That
/// of torchvision is [`alexnet`].
pub fn alexnet_imagenet(classes: usize) -> Module {
    alexnet_small(seq().add(avg_pool2d(4)).add(flatten()), [9216, 4096], classes)
}

/// AlexNet with the convolutions of Falcon. `flat` joins 256 channels to vectors of `hidden[0]`.
fn alexnet_small(flat: Sequence, hidden: [usize; 2], classes: usize) -> Module {
    let features = seq()
        .add(conv2d(3, 96, 11).stride(4).padding(9))
        .add(relu())
        .add(max_pool2d(3).stride(2))
        .add(conv2d(96, 256, 5).padding(1))
        .add(relu())
        .add(max_pool2d(2).stride(1))
        .add(conv2d(256, 384, 3).padding(1))
        .add(relu())
        .add(conv2d(384, 384, 3).padding(1))
        .add(relu())
        .add(conv2d(384, 256, 3).padding(1))
        .add(relu());
    let classifier = hidden_layers(hidden[0], hidden[1], classes);
    seq().named("features", features).inline(flat).named("classifier", classifier).into()
}

/// Two hidden layers of equal width and the outputs.
fn hidden_layers(from: usize, width: usize, classes: usize) -> Sequence {
    seq()
        .add(linear(from, width))
        .add(relu())
        .add(linear(width, width))
        .add(relu())
        .add(linear(width, classes))
}

/// Convolutions of VGG-16 (Simonyan and Zisserman, 2015), for any size of picture that is a multiple of 32.
fn vgg16_features() -> Sequence {
    vgg_features([2, 2, 3, 3, 3])
}

/// As many convolutions between maxima.
fn vgg_features(convolutions: [usize; 5]) -> Sequence {
    let mut features = seq();
    let mut from = 3;
    for (convolutions, to) in convolutions.into_iter().zip([64, 128, 256, 512, 512]) {
        for _ in 0..convolutions {
            features = features.add(conv2d(from, to, 3).padding(1)).add(relu());
            from = to;
        }
        features = features.add(max_pool2d(2));
    }
    features
}

/// VGG-16 without batch normalisation.
pub fn vgg16(classes: usize) -> Module {
    vgg(vgg16_features(), classes)
}

/// VGG-19 without batch normalisation.
pub fn vgg19(classes: usize) -> Module {
    vgg(vgg_features([2, 2, 4, 4, 4]), classes)
}

fn vgg(features: Sequence, classes: usize) -> Module {
    let classifier = seq()
        .add(linear(512 * 49, 4096))
        .add(relu())
        .add(dropout(0.5))
        .add(linear(4096, 4096))
        .add(relu())
        .add(dropout(0.5))
        .add(linear(4096, classes));
    seq()
        .named("features", features)
        .add(adaptive_avg_pool2d(7))
        .add(flatten())
        .named("classifier", classifier)
        .into()
}

/// VGG-16 for 32 x 32 pictures as MPC papers measure it: two hidden layers of 256 (Falcon, PETS 2021; CryptGPU).
pub fn vgg16_cifar(classes: usize) -> Module {
    vgg16_small(seq().add(flatten()), [512, 256], classes)
}

/// VGG-16 for the 64 x 64 pictures of Tiny ImageNet: averages of 2 x 2, two hidden layers of 512 (CryptGPU, S&P 2021;
/// Piranha).
pub fn vgg16_tiny(classes: usize) -> Module {
    vgg16_small(seq().add(avg_pool2d(2)).add(flatten()), [512, 512], classes)
}

/// VGG-16 for 224 x 224 pictures as CryptGPU measures it: averages of 2 x 2, so that the first hidden layer has a fifth of
/// the weights. CryptGPU's program has no ReLU between the last layers; here they have. That of torchvision is [`vgg16`].
pub fn vgg16_imagenet(classes: usize) -> Module {
    vgg16_small(seq().add(avg_pool2d(2)).add(flatten()), [4608, 4096], classes)
}

/// VGG-16 of which `flat` joins 512 channels to vectors of `hidden[0]`.
fn vgg16_small(flat: Sequence, hidden: [usize; 2], classes: usize) -> Module {
    let classifier = hidden_layers(hidden[0], hidden[1], classes);
    seq().named("features", vgg16_features()).inline(flat).named("classifier", classifier).into()
}

/// A block of SqueezeNet.
fn fire(from: usize, squeeze: usize, expand: usize) -> Sequence {
    let branch = |name, conv| seq().named(name, conv).add(relu());
    seq().named("squeeze", conv2d(from, squeeze, 1)).add(relu()).inline(branches([
        branch("expand1x1", conv2d(squeeze, expand, 1)),
        branch("expand3x3", conv2d(squeeze, expand, 3).padding(1)),
    ]))
}

/// SqueezeNet 1.1 (Iandola et al., 2016).
pub fn squeezenet(classes: usize) -> Module {
    let features = seq()
        .add(conv2d(3, 64, 3).stride(2))
        .add(relu())
        .add(max_pool2d(3).stride(2).ceil_mode(true))
        .add(fire(64, 16, 64))
        .add(fire(128, 16, 64))
        .add(max_pool2d(3).stride(2).ceil_mode(true))
        .add(fire(128, 32, 128))
        .add(fire(256, 32, 128))
        .add(max_pool2d(3).stride(2).ceil_mode(true))
        .add(fire(256, 48, 192))
        .add(fire(384, 48, 192))
        .add(fire(384, 64, 256))
        .add(fire(512, 64, 256));
    squeezenet_of(features, classes)
}

/// SqueezeNet 1.0.
pub fn squeezenet1_0(classes: usize) -> Module {
    let pool = || max_pool2d(3).stride(2).ceil_mode(true);
    let features = seq()
        .add(conv2d(3, 96, 7).stride(2))
        .add(relu())
        .add(pool())
        .add(fire(96, 16, 64))
        .add(fire(128, 16, 64))
        .add(fire(128, 32, 128))
        .add(pool())
        .add(fire(256, 32, 128))
        .add(fire(256, 48, 192))
        .add(fire(384, 48, 192))
        .add(fire(384, 64, 256))
        .add(pool())
        .add(fire(512, 64, 256));
    squeezenet_of(features, classes)
}

fn squeezenet_of(features: Sequence, classes: usize) -> Module {
    let classifier = seq().add(dropout(0.5)).add(conv2d(512, classes, 1)).add(relu()).add(global_avg_pool());
    seq().named("features", features).named("classifier", classifier).add(flatten()).into()
}

/// ResNet-18 (He et al., 2016).
pub fn resnet18(classes: usize) -> Module {
    resnet([2, 2, 2, 2], false, classes)
}

/// ResNet-34.
pub fn resnet34(classes: usize) -> Module {
    resnet([3, 4, 6, 3], false, classes)
}

/// ResNet-50, with the stride on the 3 x 3 convolution as torchvision has it.
pub fn resnet50(classes: usize) -> Module {
    resnet([3, 4, 6, 3], true, classes)
}

/// ResNet-101.
pub fn resnet101(classes: usize) -> Module {
    resnet([3, 4, 23, 3], true, classes)
}

/// ResNet-152.
pub fn resnet152(classes: usize) -> Module {
    resnet([3, 8, 36, 3], true, classes)
}

fn resnet(blocks: [usize; 4], bottleneck: bool, classes: usize) -> Module {
    let expansion = if bottleneck { 4 } else { 1 };
    let mut model = seq()
        .named("conv1", conv2d(3, 64, 7).stride(2).padding(3).bias(false))
        .named("bn1", batch_norm2d(64))
        .add(relu())
        .add(max_pool2d(3).stride(2).padding(1));
    let mut from = 64;
    for (stage, &count) in blocks.iter().enumerate() {
        let width = 64 << stage;
        let mut layer = seq();
        for block in 0..count {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            layer = layer.add(residual_block(from, width, expansion, stride));
            from = width * expansion;
        }
        model = model.named(format!("layer{}", stage + 1), layer);
    }
    model.add(global_avg_pool()).add(flatten()).named("fc", linear(from, classes)).into()
}

fn residual_block(from: usize, width: usize, expansion: usize, stride: usize) -> Sequence {
    let to = width * expansion;
    let three = |from, stride| conv2d(from, width, 3).stride(stride).padding(1).bias(false);
    let main = if expansion > 1 {
        seq()
            .named("conv1", conv2d(from, width, 1).bias(false))
            .named("bn1", batch_norm2d(width))
            .add(relu())
            .named("conv2", three(width, stride))
            .named("bn2", batch_norm2d(width))
            .add(relu())
            .named("conv3", conv2d(width, to, 1).bias(false))
            .named("bn3", batch_norm2d(to))
    } else {
        seq()
            .named("conv1", three(from, stride))
            .named("bn1", batch_norm2d(width))
            .add(relu())
            .named("conv2", three(width, 1))
            .named("bn2", batch_norm2d(width))
    };
    let mut block = residual(main);
    if stride != 1 || from != to {
        let shortcut = seq().add(conv2d(from, to, 1).stride(stride).bias(false)).add(batch_norm2d(to));
        block = block.shortcut("downsample", shortcut);
    }
    seq().inline(block).inline(relu())
}

/// MobileNetV2 (Sandler et al., 2018), width 1.
pub fn mobilenet_v2(classes: usize) -> Module {
    let conv = |from, to, kernel: usize, stride: usize, groups| {
        seq()
            .add(conv2d(from, to, kernel).stride(stride).padding(kernel / 2).groups(groups).bias(false))
            .add(batch_norm2d(to))
            .add(relu6())
    };
    let mut features = seq().add(conv(3, 32, 3, 2, 1));
    let mut from = 32;
    let stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    for (expand, to, count, first_stride) in stages {
        for block in 0..count {
            let stride = if block == 0 { first_stride } else { 1 };
            let hidden = from * expand;
            let mut inverted = seq();
            if expand > 1 {
                inverted = inverted.add(conv(from, hidden, 1, 1, 1));
            }
            let inverted = inverted
                .add(conv(hidden, hidden, 3, stride, hidden))
                .add(conv2d(hidden, to, 1).bias(false))
                .add(batch_norm2d(to));
            let inverted = seq().named("conv", inverted);
            features = if stride == 1 && from == to {
                features.add(residual(inverted))
            } else {
                features.add(inverted)
            };
            from = to;
        }
    }
    let features = features.add(conv(from, 1280, 1, 1, 1));
    let classifier = seq().add(dropout(0.2)).add(linear(1280, classes));
    seq()
        .named("features", features)
        .add(global_avg_pool())
        .add(flatten())
        .named("classifier", classifier)
        .into()
}
