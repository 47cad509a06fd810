//! From an ONNX file to plan and weights, with ranges from calibration inputs.

use std::fs::File;
use std::path::{Path, PathBuf};

use privet_graph::{Compiled, FloatModel};
use privet_plan::{Channels, Layout, Plan, PlanError, Preprocess, Weights, ranges};
use privet_protocols::{Silent, cleartext};
use privet_ring::Ring;

use super::{Model, ModelError, fixed_inputs, load_inputs};
use crate::input::{load_labels, preprocess_from_str_or_file};

/// Fractional bits in a 64-bit ring, and the most that is chosen for a narrower one.
pub const DEFAULT_FRAC_BITS: u32 = 16;

/// Head room over the largest magnitude that calibration sees. Two bits wider rings; in return an input may be four
/// times as extreme as those seen before a wire overflows.
pub const MARGIN: u32 = 4;

/// How a model is compiled.
#[derive(Debug, Clone, Default)]
pub struct CompileOptions {
    /// Ring width in bits. Default: 64, or with calibration the smallest that fits.
    pub ring: Option<u32>,
    /// Fractional bits. Default: 16, in a narrower ring of l bits `min(16, (l - 10) / 2)`.
    pub frac_bits: Option<u32>,
    /// Typical inputs, each as [`load_inputs`] takes it; ranges follow from what the model does with them.
    pub calibrate: Vec<PathBuf>,
    /// `imagenet`, `mnist`, `none` or a TOML file. Default: `none`.
    pub preprocess: Option<String>,
    /// File with one label per line.
    pub labels: Option<PathBuf>,
    /// Shapes of inputs that the model leaves open: `1,3,224,224` for the only one, or `name=1,3,224,224`.
    pub input_shapes: Vec<String>,
}

/// Reads, lowers and, where calibration inputs are given, narrows a model.
///
/// # Errors
/// A file is missing or malformed, an operator is not supported, or values need a wider ring; the message names the
/// layer and the width.
pub fn compile(model: &Path, options: &CompileOptions) -> Result<Model, ModelError> {
    let ring = options.ring.map(Ring::new).transpose()?;
    let frac_bits = options.frac_bits.unwrap_or_else(|| default_frac_bits(ring));
    let narrow = ring.unwrap_or(Ring::new(Ring::MAX_BITS)?);
    let most = (narrow.bits() - 3) / 2;
    if frac_bits == 0 || frac_bits > most {
        return Err(ModelError::Options(format!(
            "a {}-bit ring takes 1 to {most} fractional bits (products carry twice as many), found {frac_bits}; \
             use a wider --ring or other --frac-bits",
            narrow.bits()
        )));
    }
    let preprocess = match &options.preprocess {
        Some(given) => preprocess_from_str_or_file(given)?,
        None => Preprocess::default(),
    };
    let labels = options.labels.as_deref().map(load_labels).transpose()?.unwrap_or_default();
    let input_shapes = options.input_shapes.iter().map(|s| parse_shape(s)).collect::<Result<_, _>>()?;
    let unreadable = |e: std::io::Error| ModelError::Read { path: model.to_owned(), problem: e.to_string() };
    File::open(model).map_err(unreadable)?;
    let graph = privet_onnx::load(model)
        .map_err(|source| ModelError::Onnx { path: model.to_owned(), source: Box::new(source) })?;
    // Calibration looks at values where nothing can overflow; the ring comes afterwards.
    let wide = if options.calibrate.is_empty() { narrow } else { Ring::new(Ring::MAX_BITS)? };
    let graph_options = privet_graph::CompileOptions {
        ring: wide,
        frac_bits: frac_bits as u8,
        input_shapes,
        preprocess,
        labels,
    };
    let Compiled { plan, weights, float } = privet_graph::compile(&graph, &graph_options)
        .map_err(|source| ModelError::Graph { path: model.to_owned(), source: Box::new(source) })?;
    if options.preprocess.is_some() {
        check_fit(&plan)?;
    }
    if options.calibrate.is_empty() {
        return Ok(Model { plan, weights, float });
    }
    calibrate(plan, weights, float, &options.calibrate, ring)
}

/// Refuses a preprocessing whose pictures fit no input: otherwise the data owner finds out, when it is too late.
fn check_fit(plan: &Plan) -> Result<(), ModelError> {
    let Some(p) = plan.inputs.first().map(|input| &input.preprocess) else { return Ok(()) };
    // Without a fixed size it depends on the picture.
    let Some([height, width]) = p.crop.or(p.resize).map(|size| size.map(|side| side as usize)) else {
        return Ok(());
    };
    let channels = if p.channels == Channels::Gray { 1 } else { 3 };
    let made = match p.layout {
        Layout::Nchw => [1, channels, height, width],
        Layout::Nhwc => [1, height, width, channels],
    };
    if plan.inputs.iter().any(|input| input.shape.get(1..) == Some(&made[1..])) {
        return Ok(());
    }
    let expected: Vec<String> = plan.inputs.iter().map(|i| format!("{} {:?}", i.name, i.shape)).collect();
    Err(ModelError::Options(format!(
        "--preprocess makes pictures of shape {made:?}, the model expects {}; choose another preset or a TOML file",
        expected.join(", ")
    )))
}

fn calibrate(
    plan: Plan,
    weights: Weights,
    float: FloatModel,
    files: &[PathBuf],
    ring: Option<Ring>,
) -> Result<Model, ModelError> {
    let mut maxima = vec![0u64; plan.steps.len()];
    for path in files {
        let inputs = fixed_inputs(&plan, &load_inputs(&plan, std::slice::from_ref(path))?)?;
        let observe = |wire: usize, values: &[i64]| {
            let largest = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
            maxima[wire] = maxima[wire].max(largest);
        };
        cleartext::run_observed(&plan, &weights, &inputs, &mut Silent, observe)
            .map_err(|source| ModelError::CalibrationRun { path: path.clone(), source: Box::new(source) })?;
    }
    let plan = match ring {
        Some(ring) => narrowed(&plan, &weights, &maxima, ring),
        None => smallest(&plan, &weights, &maxima),
    };
    Ok(Model { plan: plan.map_err(|e| ModelError::Calibration(Box::new(e)))?, weights, float })
}

/// The plan in `ring`, if everything that calibration saw fits. The steps stay those of the ring it was lowered for; only
/// ranges and widths change.
fn narrowed(plan: &Plan, weights: &Weights, maxima: &[u64], ring: Ring) -> Result<Plan, PlanError> {
    let mut plan = Plan { ring, ..plan.clone() };
    ranges::assign_calibrated(&mut plan, maxima, MARGIN)?;
    plan.validate()?;
    weights.check(&plan)?;
    Ok(plan)
}

/// The plan in the smallest ring that fits; the error is the widest ring's.
fn smallest(plan: &Plan, weights: &Weights, maxima: &[u64]) -> Result<Plan, PlanError> {
    let mut attempt = narrowed(plan, weights, maxima, plan.ring);
    for bits in (Ring::MIN_BITS..plan.ring.bits()).rev() {
        let Some(narrower) = Ring::new(bits).ok().and_then(|r| narrowed(plan, weights, maxima, r).ok())
        else {
            break;
        };
        attempt = Ok(narrower);
    }
    attempt
}

fn default_frac_bits(ring: Option<Ring>) -> u32 {
    match ring {
        Some(ring) if ring.bits() < Ring::MAX_BITS => DEFAULT_FRAC_BITS.min((ring.bits() - 10) / 2),
        _ => DEFAULT_FRAC_BITS,
    }
}

/// Parses `1,3,224,224` or `name=1,3,224,224`.
fn parse_shape(text: &str) -> Result<(Option<String>, Vec<usize>), ModelError> {
    let (name, dims) = match text.rsplit_once('=') {
        Some((name, dims)) => (Some(name.to_owned()), dims),
        None => (None, text),
    };
    let parsed: Result<Vec<usize>, _> = dims.split([',', 'x']).map(|d| d.trim().parse()).collect();
    match parsed {
        Ok(dims) if !dims.contains(&0) => Ok((name, dims)),
        _ => Err(ModelError::Options(format!(
            "--input-shape {text:?}: expected positive numbers, for instance 1,3,224,224 or name=1,3,224,224"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_fractional_bits() {
        let frac = |bits| default_frac_bits(Some(Ring::new(bits).unwrap()));
        assert_eq!(default_frac_bits(None), 16);
        assert_eq!([64, 63, 42, 40, 32, 16].map(frac), [16, 16, 16, 15, 11, 3]);
    }

    #[test]
    fn shapes_parse_with_and_without_names() {
        assert_eq!(parse_shape("1,3,8, 8").unwrap(), (None, vec![1, 3, 8, 8]));
        assert_eq!(parse_shape("a=b=2x4").unwrap(), (Some("a=b".to_owned()), vec![2, 4]));
        for bad in ["", "1,,2", "1,-1", "x=", "0,3", "1;2"] {
            assert!(parse_shape(bad).is_err(), "{bad}");
        }
    }
}
