//! Nine image classifiers of the ONNX model zoo on both engines.
//!
//! The models of the ONNX backend suite's `light` set have constant weights, with which values grow from layer to layer. In six
//! of them they grow beyond any ring, and the cleartext engine has to refuse them by name of the layer; in three, batch
//! normalisation holds them back, and they have to give the suite's output. The same architectures with seeded weights, scaled
//! to unit variance of every layer's output (`scripts/architectures.py`), have to run: private engine bit-equal to the
//! cleartext one, and both float evaluation and engines close to ONNX Runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ndarray::ArrayD;
use privet::input::load_npz;
use privet::model::{CompileOptions, Model, compile, fixed_inputs};
use privet::postprocess::decode;
use privet_graph::Tensor;
use privet_plan::{Plan, WireId};
use privet_protocols::{ProtocolError, Silent, cleartext};
use privet_ring::fixed;
use serde::Serialize;

use crate::engine::{Engine, Private};

/// Architectures whose originals overflow.
const OVERFLOWING: [&str; 6] =
    ["bvlc_alexnet", "inception_v1", "resnet50", "squeezenet", "vgg19", "zfnet512"];
/// Fractional bits with seeded weights, whose values are small: networks of many layers amplify every rounding.
const FRAC_BITS: u32 = 20;
/// Largest error of the originals that do not overflow.
const ORIGINAL_TOLERANCE: f64 = 1e-3;

/// Largest error of a logit in float, and of the engines; logits have a deviation of about one.
pub const FLOAT_TOLERANCE: f64 = 1e-3;
/// See [`FLOAT_TOLERANCE`].
pub const TOLERANCE: f64 = 2e-2;

/// How large the architectures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// As published.
    Full,
    /// Smaller pictures, fewer channels, the same graph.
    Reduced,
}

impl Size {
    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reduced => "reduced",
        }
    }
}

/// What became of all of them.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Their size.
    pub size: Size,
    /// One per architecture.
    pub architectures: Vec<Architecture>,
}

/// One architecture that runs.
#[derive(Debug, Serialize)]
pub struct Architecture {
    /// Name.
    pub name: String,
    /// Where the original with constant weights overflows, or how far its output is off.
    pub original: String,
    /// Number of weights.
    pub parameters: usize,
    /// Steps of the plan.
    pub steps: usize,
    /// Ring and fractional bits.
    pub ring: (u32, u8),
    /// Largest error of a logit in float, compared with ONNX Runtime.
    pub float_error: f64,
    /// Largest error of a logit of the engines, compared with ONNX Runtime.
    pub error: f64,
    /// Seconds of the cleartext engine.
    pub cleartext_seconds: f64,
    /// The private engines, bit-equal to the cleartext one.
    pub private: Vec<Private>,
    /// Peak memory of this process, which plays all parties, in bytes.
    pub peak_bytes: Option<u64>,
}

/// Python 3: the environment that `.ci/run` makes, or the system's.
pub fn python() -> PathBuf {
    let own = crate::root().join("target/venv/bin/python");
    if own.is_file() { own } else { PathBuf::from("python3") }
}

/// Whether that Python has what `scripts/architectures.py` needs.
pub fn is_ready(python: &Path) -> bool {
    let import = Command::new(python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    import.is_ok_and(|o| o.status.success())
}

/// Directory with the originals: the given one's or the shared test data's.
///
/// # Errors
/// It is not there.
pub fn originals(data: Option<PathBuf>) -> Result<PathBuf> {
    let data = data.unwrap_or_else(|| crate::root().join("../shared/data/conformance"));
    let light = data.join("onnx_light");
    ensure!(
        light.is_dir(),
        "no {}: the architectures come from the ONNX backend suite's light set",
        light.display()
    );
    Ok(light)
}

/// Checks all architectures, or the one called `only`.
///
/// # Errors
/// The first thing that does not hold: something is not supported or not refused, engines differ, an error is too large.
pub fn run(
    size: Size,
    engines: &[Engine],
    only: Option<&str>,
    python: &Path,
    data: Option<PathBuf>,
) -> Result<Report> {
    let light = originals(data)?;
    let made = crate::root().join("target/architectures").join(size.name());
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => names(&light)?,
    };
    ensure!(!names.is_empty(), "no light_*.onnx in {}", light.display());
    let bar = crate::progress((names.len() * (3 + engines.len())) as u64);
    let mut architectures = Vec::new();
    for name in names {
        let say = |what: &str| bar.set_message(format!("{name}: {what}"));
        say("making seeded weights");
        make(python, &light, &made, size, &name)?;
        bar.inc(1);
        let checked = check(&name, engines, &light, &made, &|what| {
            say(what);
            bar.inc(1);
        });
        architectures.push(checked.with_context(|| name.clone())?);
    }
    bar.finish_and_clear();
    Ok(Report { size, architectures })
}

fn names(light: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(light)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let own = name.strip_prefix("light_").and_then(|n| n.strip_suffix(".onnx"));
        names.extend(own.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Has the model, its input and ONNX Runtime's answer made.
fn make(python: &Path, light: &Path, out: &Path, size: Size, name: &str) -> Result<()> {
    let mut command = Command::new(python);
    command.arg(crate::root().join("scripts/architectures.py"));
    command.args(["--only", name, "--light"]).arg(light).arg("--out").arg(out);
    if size == Size::Full {
        command.arg("--full");
    }
    let output = command.output().with_context(|| format!("{} does not start", python.display()))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("scripts/architectures.py failed: {}", String::from_utf8_lossy(&output.stderr))
}

fn check(
    name: &str,
    engines: &[Engine],
    light: &Path,
    made: &Path,
    step: &dyn Fn(&str),
) -> Result<Architecture> {
    step("the original");
    let original = original(name, light).context("the original with constant weights")?;

    step("float and cleartext");
    reset_peak();
    let model = compile(&made.join(format!("{name}.onnx")), &seeded())?;
    let data = load_npz(&made.join(format!("{name}.npz")))?;
    let get = |key: &str| data.get(key).ok_or_else(|| anyhow!("{name}.npz has no array {key:?}"));
    let (input, logits) = (get("input")?, get("logits")?.mapv(f64::from));
    let float = model.float.run(std::slice::from_ref(input))?;
    let float = float.first().context("the model has no output")?;
    // Probabilities are far smaller than logits, so their logarithms are what is compared.
    let float_error = probability_error(float, get("output")?)?;
    ensure!(float_error <= FLOAT_TOLERANCE, "float is off by {float_error}, {FLOAT_TOLERANCE} allowed");

    let fixed = fixed_inputs(&model.plan, std::slice::from_ref(input))?;
    let start = Instant::now();
    let clear = cleartext::run(&model.plan, &model.weights, &fixed, &mut Silent)?;
    let cleartext_seconds = start.elapsed().as_secs_f64();
    let error = logit_error(&model.plan, &clear, &logits)?;
    ensure!(error <= TOLERANCE, "the cleartext engine is off by {error}, {TOLERANCE} allowed");

    let Model { plan, weights, float, .. } = model;
    drop(float);
    let mut private = Vec::new();
    for engine in engines {
        step(engine.name());
        if let Some(ran) = engine.run(&plan, &weights, &fixed)? {
            ensure!(ran.outputs == clear, "{} differs from the cleartext engine", engine.name());
            private.push(ran);
        }
    }
    Ok(Architecture {
        name: name.to_owned(),
        original,
        parameters: weights.tensors.iter().map(Vec::len).sum(),
        steps: plan.steps.len(),
        ring: (plan.ring.bits(), plan.frac_bits),
        float_error,
        error,
        cleartext_seconds,
        private,
        peak_bytes: peak(),
    })
}

fn seeded() -> CompileOptions {
    CompileOptions { frac_bits: Some(FRAC_BITS), ..CompileOptions::default() }
}

/// The layer in which the original overflows on a picture of ones, or how far it is off where it does not.
fn original(name: &str, light: &Path) -> Result<String> {
    let mut graph = privet_onnx::load(&light.join(format!("light_{name}.onnx")))?;
    // The file describes its weights: VGG-19 has 2^27 of them.
    graph.folding = 1 << 28;
    let model = Model::from_graph(&graph, &CompileOptions::default())?;
    let ones: Vec<_> = model.plan.inputs.iter().map(|i| ArrayD::from_elem(i.shape.clone(), 1.0)).collect();
    let fixed = fixed_inputs(&model.plan, &ones)?;
    let overflows = OVERFLOWING.contains(&name);
    match cleartext::run(&model.plan, &model.weights, &fixed, &mut Silent) {
        Err(ProtocolError::Overflow(overflow)) if overflows => {
            let layer = &model.plan.steps[overflow.step];
            let named = !layer.name.is_empty() && overflow.to_string().contains(&layer.name);
            ensure!(named, "the layer is not named: {overflow}");
            Ok(format!("refused: {} ({})", layer.name, layer.op.name()))
        }
        Ok(_) if overflows => bail!("it has to overflow, and does not"),
        Ok(revealed) => {
            let bytes = fs::read(light.join(format!("light_{name}_output_0.pb")))?;
            let Tensor::F32(expected) = privet_onnx::parse_tensor(&bytes)? else {
                bail!("its output is not float")
            };
            let found =
                decode(&model.plan, &revealed).map_err(anyhow::Error::msg)?.remove(0).values.to_floats();
            let expected = expected.mapv(f64::from);
            let error =
                largest(found.shape(), expected.shape(), found.iter().copied(), expected.iter().copied())?;
            ensure!(error <= ORIGINAL_TOLERANCE, "it is off by {error}, {ORIGINAL_TOLERANCE} allowed");
            Ok(format!("runs, {error:.0e} off"))
        }
        Err(other) => Err(other.into()),
    }
}

/// Largest difference of the logarithms of probabilities.
fn probability_error(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> Result<f64> {
    let is_distribution = (expected.sum() - 1.0).abs() < 1e-3 && expected.iter().all(|&p| p > 0.0);
    let scale = |v: f32| if is_distribution { f64::from(v).ln() } else { f64::from(v) };
    largest(
        found.shape(),
        expected.shape(),
        found.iter().map(|&v| scale(v)),
        expected.iter().map(|&v| scale(v)),
    )
}

/// Largest error of the first output, before its final function.
fn logit_error(plan: &Plan, outputs: &[Vec<i64>], expected: &ArrayD<f64>) -> Result<f64> {
    let (spec, values) = plan.outputs.first().zip(outputs.first()).context("the plan has no output")?;
    let scale = |wire: WireId| u32::from(plan.steps[wire.index()].frac_bits);
    let found = values.iter().map(|&v| fixed::decode(v, scale(spec.wire)));
    largest(plan.shape(spec.wire), expected.shape(), found, expected.iter().copied())
}

fn largest(
    shape: &[usize],
    expected_shape: &[usize],
    found: impl Iterator<Item = f64>,
    expected: impl Iterator<Item = f64>,
) -> Result<f64> {
    let elements = |shape: &[usize]| shape.iter().product::<usize>();
    ensure!(elements(shape) == elements(expected_shape), "shape {shape:?}, expected {expected_shape:?}");
    let errors: Vec<f64> = found.zip(expected).map(|(a, b)| (a - b).abs()).collect();
    ensure!(errors.iter().all(|e| e.is_finite()), "an output is no number");
    Ok(errors.into_iter().fold(0.0, f64::max))
}

/// Starts a new measurement of peak memory (Linux).
fn reset_peak() {
    // Where this is not possible the peak is that of all architectures so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

impl Report {
    /// For people: a table in Markdown, as docs/architectures.md has it.
    pub fn text(&self) -> String {
        let mut lines = vec![
            "| model | parameters | steps | ring, f | float error | error | cleartext s | engine | offline s | online s \
             | online MB | rounds | material MB (server, client) | peak GB | original |"
                .to_owned(),
            "|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|".to_owned(),
        ];
        let mega = |bytes: f64| format!("{:.1}", bytes / 1e6);
        let line = |a: &Architecture, p: &Private| {
            format!(
                "| {} | {} | {} | {}, {} | {:.1e} | {:.1e} | {:.1} | {} | {:.1} | {:.1} | {} | {} | {}, {} | {} | {} |",
                a.name,
                a.parameters,
                a.steps,
                a.ring.0,
                a.ring.1,
                a.float_error,
                a.error,
                a.cleartext_seconds,
                p.engine.name(),
                p.offline_seconds,
                p.online_seconds,
                mega(p.online_bytes as f64),
                p.rounds,
                mega(p.material[0] as f64),
                mega(p.material[1] as f64),
                a.peak_bytes.map_or("?".to_owned(), |b| format!("{:.1}", b as f64 / 1e9)),
                a.original
            )
        };
        lines.extend(self.architectures.iter().flat_map(|a| a.private.iter().map(move |p| line(a, p))));
        lines.join("\n") + "\n"
    }
}
