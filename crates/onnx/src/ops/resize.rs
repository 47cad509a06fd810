//! Resize, and Upsample before it.

use privet_graph::ops::{Aspect, Resize};
use privet_graph::{Coordinates, Interpolation, Rounding, Tensor};

use crate::OnnxError;
use crate::node::{NodeReader, Operand, Parsed};

pub(super) fn upsample_7(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(1, 1)?;
    let resize = simple(node)?;
    let scales = node.floats("scales")?.ok_or_else(|| node.refuse("scales", "is missing", "floats"))?;
    let scales = ndarray::Array1::from_vec(scales).into_dyn();
    let scales = Operand::Constant(Tensor::F32(scales));
    Ok(Parsed::with(resize, vec![Operand::Input(0), Operand::Missing, scales]))
}

pub(super) fn resize_10(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    node.expect_inputs(2, 2)?;
    Ok(Parsed::with(simple(node)?, vec![Operand::Input(0), Operand::Missing, Operand::Input(1)]))
}

/// Opset 10 put Resize in its place.
pub(super) fn upsample_10(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    Err(node.operands("operator", "Resize from opset 10 on", "Upsample"))
}

pub(super) fn resize_11(node: &NodeReader<'_>) -> Result<Parsed, OnnxError> {
    let first = node.opset < 13;
    node.expect_inputs(if first { 3 } else { 1 }, 4)?;
    let rounding = node.choice(
        "nearest_mode",
        "round_prefer_floor",
        &[
            ("round_prefer_floor", Rounding::PreferFloor),
            ("round_prefer_ceil", Rounding::PreferCeil),
            ("floor", Rounding::Floor),
            ("ceil", Rounding::Ceil),
        ],
    )?;
    let cubic = Interpolation::Cubic(node.float("cubic_coeff_a", -0.75)?);
    let interpolation = node.choice(
        "mode",
        "nearest",
        &[("nearest", Interpolation::Nearest(rounding)), ("linear", Interpolation::Linear), ("cubic", cubic)],
    )?;
    let mut coordinates = vec![
        ("half_pixel", Coordinates::HalfPixel),
        ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
        ("align_corners", Coordinates::AlignCorners),
        ("asymmetric", Coordinates::Asymmetric),
        ("tf_crop_and_resize", Coordinates::TfCropAndResize),
    ];
    if first {
        coordinates.push(("tf_half_pixel_for_nn", Coordinates::TfHalfPixelForNn));
    }
    if node.opset >= 19 {
        coordinates.push(("half_pixel_symmetric", Coordinates::HalfPixelSymmetric));
    }
    let aspects = [
        ("stretch", Aspect::Stretch),
        ("not_larger", Aspect::NotLarger),
        ("not_smaller", Aspect::NotSmaller),
    ];
    let mut resize = Resize {
        interpolation,
        coordinates: node.choice("coordinate_transformation_mode", "half_pixel", &coordinates)?,
        antialias: false,
        exclude_outside: node.flag("exclude_outside", false)?,
        extrapolation: node.float("extrapolation_value", 0.0)?,
        aspect: Aspect::Stretch,
        axes: None,
    };
    if node.opset >= 18 {
        resize.antialias = node.flag("antialias", false)?;
        resize.axes = node.ints("axes")?;
        resize.aspect = node.choice("keep_aspect_ratio_policy", "stretch", &aspects)?;
    }
    if resize.antialias && matches!(interpolation, Interpolation::Nearest(_)) {
        return Err(node.refuse("antialias", "is 1 in mode nearest", "antialias in modes linear, cubic"));
    }
    Ok(Parsed::plain(resize, node))
}

/// What resizing meant before opset 11.
fn simple(node: &NodeReader<'_>) -> Result<Resize, OnnxError> {
    let modes =
        [("nearest", Interpolation::Nearest(Rounding::ByDirection)), ("linear", Interpolation::Linear)];
    Ok(Resize {
        interpolation: node.choice("mode", "nearest", &modes)?,
        coordinates: Coordinates::Asymmetric,
        antialias: false,
        exclude_outside: false,
        extrapolation: 0.0,
        aspect: Aspect::Stretch,
        axes: None,
    })
}
