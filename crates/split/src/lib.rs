//! Cuts models into stages for machines with little memory, and runs models and stages in float.
//!
//! [`split`] writes the stages of an ONNX file as ONNX files with an [`Index`]. The [`planner`] decides where to cut, from what
//! an [`Analysis`] says about the model. A [`Stage`] runs in float, with weights from a [`WeightSource`]: as a whole, or block by
//! block where they do not fit. Cutting is for small memories, such as those of enclaves; it protects nothing.

#![forbid(unsafe_code)]

mod ahead;
mod analysis;
mod chain;
mod directory;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hop;
mod index;
mod kernels;
mod memory;
pub mod planner;
mod process;
mod sealed;
mod sealed_index;
mod source;
mod stage;
mod weights;

pub use analysis::Analysis;
pub use chain::{Outputs, SealedStages, Taken, run_sealed_stages, run_stages, to_floats};
pub use error::SplitError;
pub use hop::{HOP_VERSION, HopSession, TensorOpener, TensorSealer};
pub use index::{INDEX_FILE, INDEX_VERSION, Index, Shape, SplitOptions, StageEntry, split};
pub use privet_graph::Tensor;
pub use sealed::{Opening, SealedWeights};
pub use sealed_index::{SEALED_INDEX_FILE, SEALED_INDEX_VERSION, SealedIndex, split_sealed};
pub use source::{Memory, WeightSource};
pub use stage::{Blocks, OutputFact, Stage, Tensors};
