//! From files to the integers that an engine takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use privet_plan::{InputSpec, Op, Plan};
use privet_ring::fixed;

use super::ModelError;
use crate::input::{fit_to_shape, load, load_npz};

/// Loads the plan's inputs, in its order.
///
/// `given` is one file for a model with one input; one `.npz` file with an array per input; or `name=FILE` for each
/// input. A path that exists is a path even if it contains `=`.
///
/// # Errors
/// An input is missing, unknown or given twice, or its file cannot be used.
pub fn load_inputs(plan: &Plan, given: &[PathBuf]) -> Result<Vec<ArrayD<f32>>, ModelError> {
    load_inputs_for(&plan.inputs, given)
}

/// [`load_inputs`] of a model of which only the inputs are known.
///
/// # Errors
/// As there.
pub fn load_inputs_for(inputs: &[InputSpec], given: &[PathBuf]) -> Result<Vec<ArrayD<f32>>, ModelError> {
    if let ([only], [file]) = (inputs, given) {
        check_name(only, file)?;
        return Ok(vec![load_one(&NamedFile::parse(inputs, file).file, only)?]);
    }
    if let [file] = given
        && file.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"))
        && NamedFile::parse(inputs, file).name.is_none()
    {
        return from_npz(inputs, file);
    }
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for argument in given {
        let NamedFile { name: Some(name), file } = NamedFile::parse(inputs, argument) else {
            return Err(ModelError::Inputs(format!(
                "--input {}: expected NAME=FILE, where NAME is one of {}; or one .npz file with an array per input",
                argument.display(),
                names(inputs)
            )));
        };
        if files.insert(name.clone(), file).is_some() {
            return Err(ModelError::Inputs(format!("input {name:?} is given twice")));
        }
    }
    let load = |spec: &InputSpec| match files.get(&spec.name) {
        Some(file) => load_one(file, spec),
        None => Err(ModelError::Inputs(format!(
            "input {:?} is missing: the model's inputs are {}",
            spec.name,
            names(inputs)
        ))),
    };
    inputs.iter().map(load).collect()
}

/// Divides what is given for several inferences, one after the other, into what [`load_inputs`] takes for each: a file without a name
/// is an inference, and so are files for several inputs until a name comes again.
pub fn group_inputs(inputs: &[InputSpec], given: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut groups: Vec<Vec<PathBuf>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for argument in given {
        let name = NamedFile::parse(inputs, argument).name;
        match (&name, groups.last_mut()) {
            (Some(name), Some(group)) if !names.is_empty() && !names.contains(name) => {
                group.push(argument.clone());
            }
            _ => {
                names.clear();
                groups.push(vec![argument.clone()]);
            }
        }
        names.extend(name);
    }
    groups
}

/// Encodes inputs as fixed-point integers for an engine. Refuses values outside the range that the plan declares safe:
/// an engine on masked values could not notice.
///
/// # Errors
/// [`ModelError::InputRange`] names the input and the value's place, not the value; [`ModelError::Inputs`] a wrong count or shape.
pub fn fixed_inputs(plan: &Plan, arrays: &[ArrayD<f32>]) -> Result<Vec<Vec<i64>>, ModelError> {
    if arrays.len() != plan.inputs.len() {
        return Err(ModelError::Inputs(format!(
            "expected {} inputs, found {}",
            plan.inputs.len(),
            arrays.len()
        )));
    }
    let encode = |(i, (spec, array)): (usize, (&InputSpec, &ArrayD<f32>))| {
        if array.shape() != spec.shape {
            let (name, expected, found) = (&spec.name, &spec.shape, array.shape());
            return Err(ModelError::Inputs(format!(
                "input {name:?}: expected shape {expected:?}, found {found:?}"
            )));
        }
        let reads = |op: &Op| matches!(op, Op::Input { input } if *input as usize == i);
        let step = plan.steps.iter().find(|s| reads(&s.op));
        let bits = step.map_or(plan.ring.bits() - 1, |s| u32::from(s.range.bits));
        let frac_bits = u32::from(plan.frac_bits);
        let encode = |(index, &value): (usize, &f32)| {
            let misfit = |_| {
                let name = spec.name.clone();
                if value.is_finite() {
                    let needed = needed_bits(value, frac_bits);
                    ModelError::InputRange { name, index, needed, bits, frac_bits }
                } else {
                    ModelError::Inputs(format!(
                        "input {name:?}: {value} at flat index {index} is no finite number"
                    ))
                }
            };
            fixed::encode(f64::from(value), bits, frac_bits).map_err(misfit)
        };
        array.iter().enumerate().map(encode).collect()
    };
    plan.inputs.iter().zip(arrays).enumerate().map(encode).collect()
}

/// Refuses `NAME=FILE` where the model's only input has another name.
fn check_name(only: &InputSpec, given: &Path) -> Result<(), ModelError> {
    let named = given.to_str().and_then(|text| text.split_once('='));
    match named.filter(|(name, file)| *name != only.name && !given.exists() && Path::new(file).exists()) {
        Some((name, _)) => Err(ModelError::Inputs(format!(
            "--input {}: the model has no input {name:?}, its only input is {:?}; the file's name alone will do",
            given.display(),
            only.name
        ))),
        None => Ok(()),
    }
}

fn load_one(file: &Path, spec: &InputSpec) -> Result<ArrayD<f32>, ModelError> {
    Ok(load(file, &spec.preprocess, &spec.shape)?)
}

fn from_npz(specs: &[InputSpec], file: &Path) -> Result<Vec<ArrayD<f32>>, ModelError> {
    let mut arrays = load_npz(file)?;
    let found = arrays.keys().cloned().collect::<Vec<_>>().join(", ");
    let take = |spec: &InputSpec| {
        let Some(array) = arrays.remove(&spec.name) else {
            return Err(ModelError::Inputs(format!(
                "{} has no array {:?}: the model's inputs are {}, the file has {found}",
                file.display(),
                spec.name,
                names(specs)
            )));
        };
        Ok(fit_to_shape(format!("{}, array {:?}", file.display(), spec.name), array, &spec.shape)?)
    };
    let inputs = specs.iter().map(take).collect::<Result<_, _>>()?;
    match arrays.first_key_value() {
        None => Ok(inputs),
        Some((name, _)) => Err(ModelError::Inputs(format!(
            "{}: the model has no input {name:?}; its inputs are {}",
            file.display(),
            names(specs)
        ))),
    }
}

/// `[NAME=]FILE` as a user gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Name of an input of the model.
    pub name: Option<String>,
    /// The file.
    pub file: PathBuf,
}

impl NamedFile {
    /// Splits off `NAME=` where it names one of the inputs and the whole is no file that exists.
    pub fn parse(inputs: &[InputSpec], argument: &Path) -> Self {
        let whole = Self { name: None, file: argument.to_owned() };
        let Some(text) = argument.to_str() else { return whole };
        let matches =
            |spec: &&InputSpec| text.strip_prefix(&spec.name).is_some_and(|rest| rest.starts_with('='));
        // Longest first: names may contain `=`.
        match inputs.iter().filter(matches).max_by_key(|spec| spec.name.len()) {
            Some(spec) if !argument.exists() => {
                Self { name: Some(spec.name.clone()), file: PathBuf::from(&text[spec.name.len() + 1..]) }
            }
            _ => whole,
        }
    }
}

/// Signed width of a finite value's fixed-point integer.
fn needed_bits(value: f32, frac_bits: u32) -> u32 {
    let scaled = (f64::from(value).abs() * f64::from(frac_bits).exp2()).round();
    (scaled + 1.0).log2().ceil() as u32 + 1
}

pub(super) fn names(inputs: &[InputSpec]) -> String {
    inputs.iter().map(|i| format!("{:?}", i.name)).collect::<Vec<_>>().join(", ")
}
