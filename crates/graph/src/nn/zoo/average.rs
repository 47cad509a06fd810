//! The variant of an architecture that systems without a maximum publish.

use super::super::layers::{AvgPool2d, Layer, MaxPool2d};
use super::super::{Kind, Module};

/// The same layers with averages in the place of all maxima, over the same windows (CryptGPU, S&P 2021, and CrypTen
/// measure such variants). Padding counts, as in PyTorch.
pub fn average_pooling(module: Module) -> Module {
    Module(match module.0 {
        Kind::Layer(Layer::MaxPool2d(MaxPool2d { kernel, stride, padding, ceil_mode })) => {
            let pool = AvgPool2d { kernel, stride, padding, ceil_mode, count_include_pad: true };
            Kind::Layer(Layer::AvgPool2d(pool))
        }
        Kind::Layer(layer) => Kind::Layer(layer),
        Kind::Sequence(children) => {
            Kind::Sequence(children.into_iter().map(|(name, child)| (name, average_pooling(child))).collect())
        }
        Kind::Residual { main, shortcut } => Kind::Residual {
            main: Box::new(average_pooling(*main)),
            shortcut: shortcut.map(|(name, module)| (name, Box::new(average_pooling(*module)))),
        },
        Kind::Gated(main) => Kind::Gated(Box::new(average_pooling(*main))),
        Kind::Branches(modules) => Kind::Branches(modules.into_iter().map(average_pooling).collect()),
    })
}
