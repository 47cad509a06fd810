//! Models built in Rust, layer by layer, as in PyTorch.
//!
//! ```
//! use privet_graph::nn::{self, Parameters};
//!
//! let block = nn::seq()
//!     .add(nn::conv2d(8, 8, 3).padding(1).bias(false))
//!     .add(nn::batch_norm2d(8));
//! let model = nn::seq()
//!     .add(nn::conv2d(3, 8, 7).stride(2).padding(3))
//!     .add(nn::relu())
//!     .add(nn::max_pool2d(3).stride(2).padding(1))
//!     .add(nn::residual(block))
//!     .add(nn::relu())
//!     .add(nn::global_avg_pool())
//!     .add(nn::flatten())
//!     .add(nn::linear(8, 10));
//! let built = model.build("small", &[1, 3, 32, 32], Parameters::random(7)).unwrap();
//! assert_eq!(built.parameter_count(), 3 * 8 * 49 + 8 + 8 * 8 * 9 + 2 * 8 + 8 * 10 + 10);
//! ```
//!
//! Shapes are inferred from the input's; a layer that does not fit is named by its path. Parameters have the names that
//! PyTorch's `state_dict` gives them: a layer added without a name is called by its index. They are drawn at random, each
//! layer scaled so that its outputs have unit variance on a random input, or come from a map of named tensors.
//! [`zoo`] holds well-known architectures.

mod apply;
mod build;
mod layers;
mod parameters;
pub mod zoo;

pub use build::{Built, NnError};
pub use layers::{
    AvgPool2d, BatchNorm2d, Conv2d, ConvTranspose2d, InstanceNorm2d, Linear, MaxPool2d, Pair,
    adaptive_avg_pool2d, avg_pool2d, batch_norm1d, batch_norm2d, conv_transpose2d, conv2d, dropout, flatten,
    global_avg_pool, hardsigmoid, hardswish, identity, instance_norm2d, leaky_relu, linear, log_softmax,
    max_pool2d, prelu, relu, relu6, sigmoid, softmax, upsample_bilinear, upsample_nearest,
};
pub use parameters::{Parameters, random_input};

use layers::Layer;

/// A layer, or layers joined.
#[derive(Debug, Clone)]
pub struct Module(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Layer(Layer),
    /// One after the other. A child without a name has its parent's.
    Sequence(Vec<(Option<String>, Module)>),
    /// `main(x) + shortcut(x)`.
    Residual {
        main: Box<Module>,
        shortcut: Option<(String, Box<Module>)>,
    },
    /// `x · main(x)`.
    Gated(Box<Module>),
    /// Results joined along the channels.
    Branches(Vec<Module>),
}

/// Layers one after the other, empty at first.
pub fn seq() -> Sequence {
    Sequence { children: Vec::new() }
}

/// Layers one after the other.
#[derive(Debug, Clone)]
pub struct Sequence {
    children: Vec<(Option<String>, Module)>,
}

impl Sequence {
    /// Appends a layer, called by its index.
    #[expect(clippy::should_implement_trait, reason = "PyTorch's name for it; nothing is added up")]
    pub fn add(self, module: impl Into<Module>) -> Self {
        let name = self.children.len().to_string();
        self.named(name, module)
    }

    /// Appends a layer under a name.
    pub fn named(mut self, name: impl Into<String>, module: impl Into<Module>) -> Self {
        self.children.push((Some(name.into()), module.into()));
        self
    }

    /// Appends a layer whose parameters are named as if they were the sequence's own.
    pub fn inline(mut self, module: impl Into<Module>) -> Self {
        self.children.push((None, module.into()));
        self
    }

    /// See [`Module::build`].
    pub fn build(self, name: &str, input: &[usize], parameters: Parameters) -> Result<Built, NnError> {
        Module::from(self).build(name, input, parameters)
    }
}

impl From<Sequence> for Module {
    fn from(sequence: Sequence) -> Self {
        Module(Kind::Sequence(sequence.children))
    }
}

/// `main(x) + x`, or `main(x) + shortcut(x)` with [`Residual::shortcut`].
pub fn residual(main: impl Into<Module>) -> Residual {
    Residual { main: main.into(), shortcut: None }
}

/// A residual block. Its main branch is named as if it were the block.
#[derive(Debug, Clone)]
pub struct Residual {
    main: Module,
    shortcut: Option<(String, Module)>,
}

impl Residual {
    /// What the block adds instead of its input, under a name.
    pub fn shortcut(mut self, name: impl Into<String>, module: impl Into<Module>) -> Self {
        self.shortcut = Some((name.into(), module.into()));
        self
    }
}

impl From<Residual> for Module {
    fn from(residual: Residual) -> Self {
        let shortcut = residual.shortcut.map(|(name, module)| (name, Box::new(module)));
        Module(Kind::Residual { main: Box::new(residual.main), shortcut })
    }
}

/// `x · main(x)`, where `main(x)` may have axes of length 1: squeeze and excitation. `main` is named as if it were the whole.
pub fn gated(main: impl Into<Module>) -> Module {
    Module(Kind::Gated(Box::new(main.into())))
}

/// Modules that read the same input, their results joined along the channels. They are named as if each were the whole.
pub fn branches(modules: impl IntoIterator<Item = impl Into<Module>>) -> Module {
    Module(Kind::Branches(modules.into_iter().map(Into::into).collect()))
}
