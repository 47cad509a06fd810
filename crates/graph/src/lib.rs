//! The float model graph and its way to a plan.
//!
//! A [`Graph`] comes from an importer or is built by hand. [`FloatModel`] resolves its shapes, folds its constants
//! and evaluates it in float. [`compile`] lowers it onto a [`privet_plan::Plan`] and its private weights.
//! Every operator is one file in [`ops`]: its facts, its evaluation and its lowering.

#![forbid(unsafe_code)]

mod broadcast;
mod error;
mod facts;
mod float;
mod graph;
mod interpolation;
mod lower;
pub mod nn;
mod op;
pub mod ops;
mod passes;
mod tensor;
mod window;

pub use error::{GraphError, OpError};
pub use float::FloatModel;
pub use graph::{Body, Dim, Graph, GraphInput, GraphOutput, Node, ValueId};
pub use interpolation::{Coordinates, Interpolation, Rounding};
pub use lower::{CompileOptions, Compiled, Lowering, compile};
pub use op::{Affine, Args, Channel, Fact, Operator};
pub use tensor::{DType, MAX_ELEMENTS, MAX_RANK, Tensor, element_count};
pub use window::{AutoPad, WindowSpec};
