//! From an ONNX file or a graph to plan and weights, with ranges from calibration inputs.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use privet_graph::{Graph, GraphError};
use privet_plan::{Channels, Layout, Plan, Preprocess};
use privet_ring::Ring;

use super::calibrate::{Calibration, Samples, declare};
use super::declared::Declared;
use super::options::{CompileOptions, DEFAULT_FRAC_BITS, Lowered};
use super::{Model, ModelError, check_size};
use crate::input::{load_labels, preprocess_from_str_or_file};

/// Reads, lowers and, where calibration inputs are given, narrows a model.
///
/// # Errors
/// A file is missing or malformed, an operator is not supported, or values need a wider ring; the message names the
/// layer and the width. A plan that is too large for readers of its file is refused.
pub fn compile(model: &Path, options: &CompileOptions) -> Result<Model, ModelError> {
    let settings = Settings::read(options)?;
    let unreadable = |e: std::io::Error| ModelError::Read { path: model.to_owned(), problem: e.to_string() };
    let mut start = Vec::new();
    File::open(model)
        .map_err(unreadable)?
        .take(privet_seal::MAGIC.len() as u64)
        .read_to_end(&mut start)
        .map_err(unreadable)?;
    if start == privet_seal::MAGIC {
        let problem = "a sealed model; open it first: privet unseal --in .. --key .. --out ..".to_owned();
        return Err(ModelError::Read { path: model.to_owned(), problem });
    }
    let graph = privet_onnx::load(model)
        .map_err(|source| ModelError::Onnx { path: model.to_owned(), source: Box::new(source) })?;
    settings.compile(&graph, model)
}

impl Model {
    /// As [`compile`], from a graph in memory, for instance one that [`privet_graph::nn`] built.
    ///
    /// # Errors
    /// As [`compile`]; the graph's name stands where messages have the file's.
    pub fn from_graph(graph: &Graph, options: &CompileOptions) -> Result<Self, ModelError> {
        Settings::read(options)?.compile(graph, Path::new(&graph.name))
    }
}

/// Options, checked, with the files they name.
struct Settings<'a> {
    options: &'a CompileOptions,
    ring: Option<Ring>,
    preprocess: Preprocess,
    labels: Vec<String>,
    input_shapes: Vec<(Option<String>, Vec<usize>)>,
    declared: Declared,
}

impl<'a> Settings<'a> {
    fn read(options: &'a CompileOptions) -> Result<Self, ModelError> {
        let ring = options.ring.map(Ring::new).transpose()?;
        check_options(options, ring)?;
        let preprocess = match &options.preprocess {
            Some(given) => preprocess_from_str_or_file(given)?,
            None => Preprocess::default(),
        };
        let labels = options.labels.as_deref().map(load_labels).transpose()?.unwrap_or_default();
        let input_shapes = options.input_shapes.iter().map(|s| parse_shape(s)).collect::<Result<_, _>>()?;
        let declared = Declared::parse(&options.input_ranges)?;
        Ok(Self { options, ring, preprocess, labels, input_shapes, declared })
    }

    /// Lowers the graph that came from `origin`, and narrows it where there is evidence.
    fn compile(&self, graph: &Graph, origin: &Path) -> Result<Model, ModelError> {
        let lower = |graph: &Graph, ring, frac_bits| self.lower(graph, origin, ring, frac_bits);
        let model = if !self.options.is_calibrated() {
            let frac_bits = self.options.frac_bits.unwrap_or_else(|| default_frac_bits(self.ring));
            let ring = self.ring.unwrap_or(Ring::new(Ring::MAX_BITS)?);
            let Lowered { mut plan, weights, float } = lower(graph, ring, frac_bits)?;
            if !self.declared.is_empty() {
                let intervals = self.declared.encode(&plan)?;
                declare(&mut plan, &weights, &intervals)?;
            }
            Model { plan, weights, float, accuracy: None }
        } else {
            let calibration = Calibration {
                graph,
                lowered: &lower,
                samples: &Samples { files: &self.options.calibrate, arrays: &self.options.samples },
                declared: &self.declared,
                margin: self.options.margin,
                ring: self.ring,
            };
            match self.options.frac_bits {
                Some(frac_bits) => calibration.with_frac_bits(frac_bits)?,
                None => calibration.within(self.options.tolerance)?,
            }
        };
        check_size(&model.plan)?;
        Ok(model)
    }

    fn lower(&self, graph: &Graph, origin: &Path, ring: Ring, frac_bits: u32) -> Result<Lowered, ModelError> {
        let options = privet_graph::CompileOptions {
            ring,
            frac_bits: frac_bits as u8,
            input_shapes: self.input_shapes.clone(),
            preprocess: self.preprocess.clone(),
            labels: self.labels.clone(),
        };
        let lowered = privet_graph::compile(graph, &options).map_err(|source| match source {
            // Nothing else names inputs, and a name that is none is wrong usage, as it is of --input-range.
            GraphError::NoSuchInput { .. } => ModelError::Options(format!("--input-shape: {source}")),
            source => ModelError::Graph { path: origin.to_owned(), source: Box::new(source) },
        })?;
        if self.options.preprocess.is_some() {
            check_fit(&lowered.plan)?;
        }
        check_labels(&lowered.plan)?;
        Ok(lowered)
    }
}

/// Refuses options that contradict each other, before anything is read.
fn check_options(options: &CompileOptions, ring: Option<Ring>) -> Result<(), ModelError> {
    let refuse = |text: String| Err(ModelError::Options(text));
    if let Some(frac_bits) = options.frac_bits {
        let bits = ring.map_or(Ring::MAX_BITS, Ring::bits);
        let most = (bits - 3) / 2;
        if frac_bits == 0 || frac_bits > most {
            return refuse(format!(
                "a {bits}-bit ring takes 1 to {most} fractional bits (products carry twice as many), found {frac_bits}; \
                 use a wider --ring or other --frac-bits"
            ));
        }
    }
    if !options.is_calibrated() {
        let given = [("--margin", options.margin.is_some()), ("--tolerance", options.tolerance.is_some())];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return refuse(format!("{option} is about calibration: give typical inputs with --calibrate"));
        }
    }
    if options.frac_bits.is_some() && options.tolerance.is_some() {
        return refuse("--tolerance chooses fractional bits: leave it or --frac-bits out".to_owned());
    }
    if options.margin == Some(0) {
        return refuse("--margin 0: expected 1 or more".to_owned());
    }
    match options.tolerance {
        Some(t) if !(t > 0.0 && t.is_finite()) => {
            refuse(format!("--tolerance {t}: expected a positive number, for instance 1e-3"))
        }
        _ => Ok(()),
    }
}

/// Refuses labels of which no output has as many classes, or one more for the background: they would name the wrong ones.
fn check_labels(plan: &Plan) -> Result<(), ModelError> {
    let labels = plan.labels.len();
    let fits = |&size: &usize| size == labels || size == labels + 1;
    if labels == 0 || plan.outputs.iter().any(|o| plan.shape(o.wire).iter().any(fits)) {
        return Ok(());
    }
    let found: Vec<String> =
        plan.outputs.iter().map(|o| format!("{} {:?}", o.name, plan.shape(o.wire))).collect();
    Err(ModelError::Options(format!(
        "{labels} labels, but no output has as many classes, or one more for the background: {}",
        found.join(", ")
    )))
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

fn default_frac_bits(ring: Option<Ring>) -> u32 {
    match ring {
        Some(ring) if ring.bits() < Ring::MAX_BITS => DEFAULT_FRAC_BITS.min((ring.bits() - 10) / 2),
        _ => DEFAULT_FRAC_BITS,
    }
}

/// Parses `1,3,224,224` or `name=1,3,224,224`.
///
/// # Errors
/// Something else.
pub fn parse_shape(text: &str) -> Result<(Option<String>, Vec<usize>), ModelError> {
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
