//! What is measured of a model, and the files with it: samples as they come, and at the end of each model its stages, its
//! summary, and all its samples side by side.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::sampler::Sample;

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Variant {
    /// In float in one process, weights in memory, nothing sealed.
    Native,
    /// Stages in the clear, one after the other, loaded for every inference.
    Stages,
    /// Sealed stages with their key from a file, one after the other, opened for every inference.
    Sealed,
    /// A sealed model in an attested worker, weights in memory; a client asks.
    Worker,
    /// Sealed stages in an attested worker, one after the other, opened for every inference; a client asks.
    SplitWorker,
}

impl Variant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Stages => "stages",
            Self::Sealed => "sealed",
            Self::Worker => "worker",
            Self::SplitWorker => "split-worker",
        }
    }
}

/// One inference.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Run {
    /// Reading weights; of a resident model once, before all inferences.
    pub(super) load: Option<f64>,
    /// Decrypting, as far as it is not hidden behind computing.
    pub(super) decrypt: Option<f64>,
    pub(super) compute: f64,
    /// Everything else between the client's question and its answer.
    pub(super) transfer: Option<f64>,
    /// All of it.
    pub(super) total: f64,
}

/// A stage, in one inference.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct StageRun {
    /// From 1.
    pub(super) number: usize,
    pub(super) bytes: u64,
    pub(super) predicted_peak_bytes: u64,
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) load: f64,
    pub(super) decrypt: Option<f64>,
    pub(super) compute: f64,
}

/// A model in one variant.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) model: String,
    pub(super) variant: Variant,
    /// Stages; none of a whole model.
    pub(super) parts: Option<usize>,
    /// What protects it: `native`, or the kind of evidence.
    pub(super) backend: String,
    pub(super) threads: u32,
    /// Of the files with its weights.
    pub(super) bytes: u64,
    pub(super) runs: Vec<Run>,
    pub(super) stages: Vec<StageRun>,
    pub(super) samples: Vec<Sample>,
    pub(super) peak_rss_bytes: Option<u64>,
    /// Of all inferences and what belongs to them.
    pub(super) cpu_seconds: f64,
    pub(super) wall_seconds: f64,
}

impl Measured {
    /// Of nothing yet.
    pub(super) fn new(
        model: &str,
        variant: Variant,
        parts: Option<usize>,
        backend: &str,
        threads: u32,
    ) -> Self {
        Self {
            model: model.to_owned(),
            variant,
            parts,
            backend: backend.to_owned(),
            threads,
            bytes: 0,
            runs: Vec::new(),
            stages: Vec::new(),
            samples: Vec::new(),
            peak_rss_bytes: None,
            cpu_seconds: 0.0,
            wall_seconds: 0.0,
        }
    }

    /// As legends have it.
    pub(super) fn label(&self) -> String {
        match self.parts {
            Some(parts) => format!("{} in {parts}", self.variant.name()),
            None => self.variant.name().to_owned(),
        }
    }

    /// [`Measured::label`], and what protected it, if anything did.
    pub(super) fn described(&self) -> String {
        match self.backend.as_str() {
            NATIVE => self.label(),
            backend => format!("{} ({backend})", self.label()),
        }
    }

    /// Median and 95th percentile over all inferences; none where it was not measured.
    pub(super) fn spread(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.runs.iter().map(of).collect::<Option<Vec<f64>>>()?)
    }

    /// Seconds of an inference as a whole, median.
    pub(super) fn seconds(&self) -> f64 {
        self.spread(|run| Some(run.total)).map_or(f64::NAN, |spread| spread.median)
    }

    /// Mean power while it ran.
    fn watts(&self) -> Option<f64> {
        let watts: Vec<f64> = self.samples.iter().filter_map(|s| s.watts).collect();
        (!watts.is_empty()).then(|| watts.iter().sum::<f64>() / watts.len() as f64)
    }

    fn cpu_percent(&self) -> Vec<f64> {
        self.samples.iter().filter_map(|s| s.cpu_percent).collect()
    }

    pub(super) fn summary(&self) -> Summary<'_> {
        let watts = self.watts();
        let cpu = Spread::of(&self.cpu_percent());
        let (load, decrypt) = (self.spread(|r| r.load), self.spread(|r| r.decrypt));
        let (compute, transfer) = (self.spread(|r| Some(r.compute)), self.spread(|r| r.transfer));
        let total = self.spread(|r| Some(r.total));
        let median = |spread: &Option<Spread>| spread.map(|s| s.median);
        let p95 = |spread: &Option<Spread>| spread.map(|s| s.p95);
        Summary {
            model: &self.model,
            variant: self.variant,
            parts: self.parts,
            backend: &self.backend,
            threads: self.threads,
            n: self.runs.len(),
            load_s_median: median(&load),
            load_s_p95: p95(&load),
            decrypt_s_median: median(&decrypt),
            decrypt_s_p95: p95(&decrypt),
            compute_s_median: median(&compute),
            compute_s_p95: p95(&compute),
            transfer_s_median: median(&transfer),
            transfer_s_p95: p95(&transfer),
            total_s_median: median(&total),
            total_s_p95: p95(&total),
            peak_rss_bytes: self.peak_rss_bytes,
            cpu_percent_median: median(&cpu),
            cpu_percent_p95: p95(&cpu),
            cpu_s: self.cpu_seconds / self.runs.len().max(1) as f64,
            wall_s: self.wall_seconds,
            power_w: watts,
            energy_j: watts.map(|watts| watts * self.wall_seconds / self.runs.len().max(1) as f64),
            model_bytes: self.bytes,
        }
    }
}

/// One line of `summary.csv`, and of `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary<'a> {
    pub(super) model: &'a str,
    pub(super) variant: Variant,
    pub(super) parts: Option<usize>,
    pub(super) backend: &'a str,
    pub(super) threads: u32,
    pub(super) n: usize,
    pub(super) load_s_median: Option<f64>,
    pub(super) load_s_p95: Option<f64>,
    pub(super) decrypt_s_median: Option<f64>,
    pub(super) decrypt_s_p95: Option<f64>,
    pub(super) compute_s_median: Option<f64>,
    pub(super) compute_s_p95: Option<f64>,
    pub(super) transfer_s_median: Option<f64>,
    pub(super) transfer_s_p95: Option<f64>,
    pub(super) total_s_median: Option<f64>,
    pub(super) total_s_p95: Option<f64>,
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) cpu_percent_median: Option<f64>,
    pub(super) cpu_percent_p95: Option<f64>,
    pub(super) cpu_s: f64,
    pub(super) wall_s: f64,
    pub(super) power_w: Option<f64>,
    pub(super) energy_j: Option<f64>,
    pub(super) model_bytes: u64,
}

/// Median and 95th percentile, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) p95: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank =
            |share: f64| sorted.get((share * sorted.len() as f64).ceil().max(1.0) as usize - 1).copied();
        Some(Self { median: rank(0.5)?, p95: rank(0.95)? })
    }
}

/// What protects a run in the clear.
pub(super) const NATIVE: &str = "native";

/// What protects a worker on a machine without trusted hardware: nothing.
pub(super) const SAMPLE: &str = "sample-INSECURE";

/// The files of a run.
pub(super) struct Files<'a> {
    pub(super) dir: &'a Path,
}

pub(super) const SAMPLES: &str = "samples.csv";
pub(super) const STAGES: &str = "stages.csv";
pub(super) const SUMMARY: &str = "summary.csv";

impl Files<'_> {
    /// Begins the files that grow.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        let samples = "model,variant,parts,backend,Time,Cpu_Utilization,Memory_Footprint,Power_Time,Power_Consumption\n";
        let stages = "model,variant,parts,backend,stage,n,load_s,decrypt_s,compute_s,peak_rss_bytes,predicted_peak_bytes,bytes\n";
        self.write(SAMPLES, samples)?;
        self.write(STAGES, stages)?;
        self.write(SUMMARY, &(summary_header() + "\n"))
    }

    /// Whatever is written anew.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// For lines of a growing file.
    pub(super) fn append(&self, name: &str) -> anyhow::Result<File> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().append(true).open(&path);
        file.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds what is known when a variant is done.
    pub(super) fn add(&self, measured: &Measured) -> anyhow::Result<()> {
        let mut lines = String::new();
        for stage in stages(measured) {
            lines += &stage;
            lines.push('\n');
        }
        self.append(STAGES)?.write_all(lines.as_bytes()).context("cannot write stages.csv")?;
        let line = summary_line(&measured.summary()) + "\n";
        self.append(SUMMARY)?.write_all(line.as_bytes()).context("cannot write summary.csv")
    }
}

/// A line of `samples.csv`.
pub(super) fn sample_line(
    model: &str,
    variant: Variant,
    parts: Option<usize>,
    backend: &str,
    sample: &Sample,
) -> String {
    let power_time = sample.watts.map(|_| format!("{:.3}", sample.at));
    [
        field(model),
        variant.name().to_owned(),
        parts.map_or_else(|| "1".to_owned(), |p| p.to_string()),
        backend.to_owned(),
        format!("{:.3}", sample.at),
        number(sample.cpu_percent, 1),
        sample.rss_bytes.map_or_else(|| NA.to_owned(), |b| b.to_string()),
        power_time.unwrap_or_else(|| NA.to_owned()),
        number(sample.watts, 2),
    ]
    .join(",")
}

const NA: &str = "NA";

fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| NA.to_owned(), |v| format!("{v:.digits$}"))
}

/// Names of files may hold anything.
fn field(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.contains([',', '"']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
}

/// Lines of `stages.csv`: medians over the inferences, the largest peak.
fn stages(measured: &Measured) -> Vec<String> {
    let count = measured.stages.iter().map(|s| s.number).max().unwrap_or(0);
    let line = |number: usize| {
        let own: Vec<&StageRun> = measured.stages.iter().filter(|s| s.number == number).collect();
        let median = |f: &dyn Fn(&StageRun) -> Option<f64>| {
            let all: Option<Vec<f64>> = own.iter().map(|stage| f(stage)).collect();
            all.and_then(|all| Spread::of(&all)).map(|spread| spread.median)
        };
        let first = own.first().copied().copied().unwrap_or_default();
        let peak = own.iter().map(|s| s.peak_rss_bytes).max().flatten();
        [
            field(&measured.model),
            measured.variant.name().to_owned(),
            measured.parts.map_or_else(|| "1".to_owned(), |p| p.to_string()),
            measured.backend.clone(),
            number.to_string(),
            own.len().to_string(),
            self::number(median(&|s| Some(s.load)), 6),
            self::number(median(&|s| s.decrypt), 6),
            self::number(median(&|s| Some(s.compute)), 6),
            peak.map_or_else(|| NA.to_owned(), |p| p.to_string()),
            first.predicted_peak_bytes.to_string(),
            first.bytes.to_string(),
        ]
        .join(",")
    };
    (1..=count).map(line).collect()
}

/// The fields of a summary and their values, in order.
fn summary_fields(summary: &Summary<'_>) -> Vec<(String, String)> {
    let value = serde_json::to_value(summary).unwrap_or_default();
    // The order of the structure, which a map does not keep.
    let fields = value.as_object().cloned().unwrap_or_default();
    SUMMARY_FIELDS
        .iter()
        .map(|name| {
            let text = match fields.get(*name) {
                None | Some(serde_json::Value::Null) => {
                    if *name == "parts" {
                        "1".to_owned()
                    } else {
                        NA.to_owned()
                    }
                }
                Some(serde_json::Value::String(text)) => field(text),
                Some(serde_json::Value::Number(n)) if n.is_f64() => number(n.as_f64(), 6),
                Some(other) => other.to_string(),
            };
            ((*name).to_owned(), text)
        })
        .collect()
}

/// Columns of `summary.csv`.
const SUMMARY_FIELDS: [&str; 24] = [
    "model",
    "variant",
    "parts",
    "backend",
    "threads",
    "n",
    "load_s_median",
    "load_s_p95",
    "decrypt_s_median",
    "decrypt_s_p95",
    "compute_s_median",
    "compute_s_p95",
    "transfer_s_median",
    "transfer_s_p95",
    "total_s_median",
    "total_s_p95",
    "peak_rss_bytes",
    "cpu_percent_median",
    "cpu_percent_p95",
    "cpu_s",
    "wall_s",
    "power_w",
    "energy_j",
    "model_bytes",
];

fn summary_header() -> String {
    SUMMARY_FIELDS.join(",")
}

fn summary_line(summary: &Summary<'_>) -> String {
    summary_fields(summary).into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(",")
}

/// All samples of a model side by side, a line a second: the columns of the system that this replaces, and as many for every
/// other variant. `Cpu_Utilization` and `Memory_Footprint` are those of `protected`, `_NOSGX` those of the native run.
pub(super) fn side_by_side(all: &[Measured]) -> String {
    let native = all.iter().find(|m| m.variant == Variant::Native);
    let protected = all.iter().find(|m| m.variant == Variant::Worker);
    let others: Vec<&Measured> = all
        .iter()
        .filter(|m| m.variant != Variant::Native && protected.is_none_or(|p| !std::ptr::eq(p, *m)))
        .collect();
    let mut text = "Time,Cpu_Utilization,Memory_Footprint,Cpu_Util_NOSGX,Mem_F_NOSGX,Power_Time,Power_Consumption,Backend".to_owned();
    for other in &others {
        let parts = other.parts.unwrap_or(1);
        let name = other.variant.name();
        let _ = write!(text, ",Cpu_Utilization_{name}_{parts},Memory_Footprint_{name}_{parts}");
    }
    text.push('\n');
    let length = all.iter().map(|m| m.samples.len()).max().unwrap_or(0);
    for i in 0..length {
        let of = |m: Option<&Measured>| m.and_then(|m| m.samples.get(i)).copied();
        let cpu = |s: Option<Sample>| number(s.and_then(|s| s.cpu_percent), 1);
        let memory =
            |s: Option<Sample>| s.and_then(|s| s.rss_bytes).map_or_else(|| NA.to_owned(), |b| b.to_string());
        let (own, plain) = (of(protected), of(native));
        let powered = own.or(plain);
        let power_time = powered.filter(|s| s.watts.is_some()).map(|s| s.at);
        let backend = protected.or(native).map_or(NA, |m| m.backend.as_str());
        let _ = write!(
            text,
            "{},{},{},{},{},{},{},{backend}",
            i + 1,
            cpu(own),
            memory(own),
            cpu(plain),
            memory(plain),
            number(power_time, 3),
            number(powered.and_then(|s| s.watts), 2),
        );
        for other in &others {
            let sample = of(Some(*other));
            let _ = write!(text, ",{},{}", cpu(sample), memory(sample));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let of = |values: &[f64]| Spread::of(values).map(|spread| (spread.median, spread.p95));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some((3.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 3.0, 2.0]), Some((2.0, 4.0)));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some((50.0, 95.0)));
    }

    #[test]
    fn names_of_files_stay_in_their_column() {
        assert_eq!(field("a,\"b\"\n"), "\"a,\"\"b\"\" \"");
        assert_eq!((number(Some(f64::NAN), 2), number(Some(1.0), 2)), ("NA".to_owned(), "1.00".to_owned()));
    }

    #[test]
    fn columns_of_the_summary_are_its_fields() {
        let measured = Measured::new("m", Variant::Native, None, "native", 1);
        let value = serde_json::to_value(measured.summary()).unwrap();
        let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = SUMMARY_FIELDS.to_vec();
        fields.sort_unstable();
        columns.sort_unstable();
        assert_eq!(fields, columns);
    }
}
