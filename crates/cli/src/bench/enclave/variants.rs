//! A model in one variant after the other, each in processes of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use ndarray::ArrayD;
use privet::nn;
use privet::split::Index;
use serde::Deserialize;
use serde_json::Value;

use super::process::{self, Done};
use super::rows::{Files, Measured, NATIVE, Run, SAMPLE, SAMPLES, StageRun, Variant, sample_line};
use super::sampler::Sampler;
use crate::exit::{Code, Failure};
use crate::plain::{self, Resident};
use crate::tee::{self, Form};
use crate::watch::Watch;

/// Largest difference of an output, in relation to the largest output.
const TOLERANCE: f64 = 1e-5;

/// What all variants of a model have in common.
pub(super) struct Case<'a> {
    pub(super) name: String,
    /// A directory for temporary files.
    pub(super) home: &'a Path,
    pub(super) model: PathBuf,
    pub(super) iterations: u64,
    /// Least time that a variant is run for.
    pub(super) seconds: f64,
    pub(super) threads: u32,
    pub(super) seed: u64,
    pub(super) files: &'a Files<'a>,
    pub(super) watch: &'a Watch,
}

/// What the float model gives, one list for each output.
pub(super) type Outputs = Vec<Vec<f32>>;

const INPUTS: &str = "inputs.json";
const RAW: &str = "raw.json";
/// The directory of the owner's keys.
const OWNER: &str = "owner";

impl Case<'_> {
    /// A sampler whose samples go to the file at once.
    fn sampler(&self, variant: Variant, parts: Option<usize>, backend: &str) -> anyhow::Result<Sampler> {
        use std::io::Write;
        let file = self.files.append(SAMPLES)?;
        let (model, backend) = (self.name.clone(), backend.to_owned());
        Ok(Sampler::start(move |sample| {
            let line = sample_line(&model, variant, parts, &backend, sample) + "\n";
            // A full disk shows when the summary is written.
            let _ = (&file).write_all(line.as_bytes());
        }))
    }

    fn measured(&self, variant: Variant, parts: Option<usize>, backend: &str) -> Measured {
        Measured::new(&self.name, variant, parts, backend, self.threads)
    }

    /// Cuts the model into files in the clear; none if it has not so many places to cut.
    pub(super) fn split(&self, parts: usize) -> anyhow::Result<Option<(String, Index)>> {
        let (out, parts) = (format!("stages-{parts}"), parts.to_string());
        let model = self.model.to_string_lossy().into_owned();
        let words = ["split", "--model", &model, "--parts", &parts, "--onnx", "--out", &out, "--json"];
        match process::json(self.home, &words, self.threads, None, self.watch) {
            Ok((index, _)) => Ok(Some((out, index))),
            Err(error) if Code::of(&error) == Code::Usage => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Random inputs of the shapes that an index says.
    pub(super) fn inputs(&self, index: &Index) -> anyhow::Result<Vec<(String, ArrayD<f32>)>> {
        let mut inputs = Vec::with_capacity(index.inputs.len());
        for (i, input) in index.inputs.iter().enumerate() {
            if input.dtype != "float32" {
                let text =
                    format!("{}: input {:?}: expected float32, found {}", self.name, input.name, input.dtype);
                return Err(Failure::error(Code::Input, text));
            }
            inputs.push((input.name.clone(), nn::random_input(self.seed, i as u64, &input.shape)));
        }
        Ok(inputs)
    }

    /// The whole model in float, weights in memory.
    pub(super) fn native(&self, inputs: &[(String, ArrayD<f32>)]) -> anyhow::Result<(Measured, Outputs)> {
        let tensors = vec![inputs.iter().map(|(_, array)| plain::Tensor::of(array)).collect::<Vec<_>>()];
        plain::write(&self.home.join(INPUTS), &tensors)?;
        let model = self.model.to_string_lossy().into_owned();
        let (iterations, seconds) = ((self.iterations + 1).to_string(), self.seconds.to_string());
        let words = [
            "plain",
            "resident",
            "--model",
            &model,
            "--inputs",
            INPUTS,
            "--raw",
            RAW,
            "--iterations",
            &iterations,
            "--seconds",
            &seconds,
        ];
        let sampler = self.sampler(Variant::Native, None, NATIVE)?;
        let done = process::run(self.home, &words, self.threads, Some(&sampler), self.watch)?;
        let samples = sampler.finish();
        let said: Resident = plain::read(&self.home.join(RAW))?;
        // The first one warms up.
        let counted = said.seconds.get(1..).unwrap_or_default();
        let runs = counted.iter().map(|&compute| Run {
            load: Some(said.load_seconds),
            compute,
            total: compute,
            ..Run::default()
        });
        let measured = Measured {
            bytes: file_bytes(&self.model)?,
            runs: runs.collect(),
            samples,
            peak_rss_bytes: Some(said.peak_memory_bytes),
            cpu_seconds: done.cpu_seconds,
            wall_seconds: done.wall_seconds,
            ..self.measured(Variant::Native, None, NATIVE)
        };
        Ok((measured, said.outputs.into_iter().map(|tensor| tensor.data).collect()))
    }

    /// Seals the model in so many stages. The directory, and the sizes of its stages.
    pub(super) fn split_sealed(&self, parts: usize) -> anyhow::Result<(String, Vec<u64>)> {
        let (out, parts) = (format!("sealed-{parts}"), parts.to_string());
        if !self.home.join(OWNER).exists() {
            let words = ["key", "new", "--id", "bench", "--out", OWNER];
            process::run(self.home, &words, self.threads, None, self.watch)?;
        }
        let model = self.model.to_string_lossy().into_owned();
        let words = ["split", "--model", &model, "--parts", &parts, "--key", OWNER, "--out", &out, "--json"];
        let (index, _): (SealedSaid, Done) =
            process::json(self.home, &words, self.threads, None, self.watch)?;
        Ok((out, index.stages.into_iter().map(|stage| stage.bytes).collect()))
    }

    /// Stages in the clear, or sealed ones with the owner's key, a new process for every inference. `bytes` are those of their
    /// files.
    pub(super) fn stages(
        &self,
        variant: Variant,
        (dir, bytes): (&str, &[u64]),
        inputs: &[(String, ArrayD<f32>)],
        expected: &Outputs,
    ) -> anyhow::Result<Measured> {
        let given = self.input_files(inputs)?;
        let threads = self.threads.to_string();
        let mut words = vec!["stages", dir, "--threads", &threads, "--json"];
        words.extend(if variant == Variant::Sealed { &["--key", OWNER][..] } else { &["--no-check"] });
        for file in &given {
            words.extend(["--input", file]);
        }
        let parts = Some(bytes.len());
        let mut measured = self.measured(variant, parts, NATIVE);
        measured.bytes = bytes.iter().sum();
        let sampler = self.sampler(variant, parts, NATIVE)?;
        let start = Instant::now();
        while (measured.runs.len() as u64) < self.iterations || start.elapsed().as_secs_f64() < self.seconds {
            let (said, done): (StagesSaid, Done) =
                process::json(self.home, &words, self.threads, Some(&sampler), self.watch)?;
            let outputs: Outputs = said.outputs.into_iter().map(|output| output.values).collect();
            self.compare(&measured, &outputs, expected)?;
            let sum = |f: fn(&StageSaid) -> f64| said.stages.iter().map(f).sum::<f64>();
            let decrypt = said.stages.iter().map(|s| s.decrypt_seconds).sum::<Option<f64>>();
            measured.runs.push(Run {
                load: Some(sum(|s| s.load_seconds)),
                decrypt: decrypt.filter(|_| variant == Variant::Sealed),
                compute: sum(|s| s.run_seconds),
                total: said.seconds,
                ..Run::default()
            });
            for (i, (ran, &bytes)) in said.stages.iter().zip(bytes).enumerate() {
                measured.stages.push(StageRun {
                    number: i + 1,
                    bytes,
                    predicted_peak_bytes: ran.predicted_peak_bytes,
                    peak_rss_bytes: ran.measured_peak_bytes,
                    load: ran.load_seconds,
                    decrypt: ran.decrypt_seconds,
                    compute: ran.run_seconds,
                });
            }
            measured.peak_rss_bytes = measured.peak_rss_bytes.max(done.peak_rss_bytes);
            measured.cpu_seconds += done.cpu_seconds;
            measured.wall_seconds += done.wall_seconds;
        }
        measured.samples = sampler.finish();
        Ok(measured)
    }

    /// The sealed model, or so many sealed stages of it, in a worker, with a key server, a key cache and a client, by development
    /// evidence. `seconds` is what an inference is expected to take.
    pub(super) fn worker(
        &self,
        parts: Option<usize>,
        inputs: &[(String, ArrayD<f32>)],
        expected: &Outputs,
        seconds: f64,
    ) -> anyhow::Result<Measured> {
        let (variant, form) = match parts {
            None => (Variant::Worker, Form::Whole),
            Some(parts) => (Variant::SplitWorker, Form::Stages(parts)),
        };
        let home = self.home.join("site");
        std::fs::create_dir(&home).context("cannot make a directory")?;
        let given = self.input_files(inputs)?;
        // One to warm up, and as many as take the time.
        let least = (self.seconds / seconds.max(1e-4)).ceil().clamp(0.0, 100_000.0) as u64;
        let repeat = (self.iterations.max(least) + 1).to_string();
        let mut sampled = None;
        let threads = self.threads.to_string();
        let mut site = tee::start(&home, (&self.model, form), &threads, self.watch, |pid| {
            let sampler = self.sampler(variant, parts, SAMPLE);
            sampled = Some((pid, sampler.inspect(|sampler| sampler.add(pid))));
        })?;
        let (worker, sampler) = sampled.context("a worker that was started")?;
        let (sampler, start) = (sampler?, Instant::now());
        let mut ask: Vec<String> = tee::ask(&site.worker).map(str::to_owned).into();
        ask.extend(["--repeat".to_owned(), repeat]);
        for file in given {
            let (name, file) =
                file.rsplit_once('=').map_or((String::new(), &*file), |(n, f)| (format!("{n}="), f));
            ask.extend(["--input".to_owned(), format!("{name}{}", self.home.join(file).display())]);
        }
        ask.extend(["--deadline".to_owned(), "600".to_owned(), "--json".to_owned()]);
        site.crew.spawn(tee::CLIENT, &home.join("client"), ask)?;
        site.crew.wait_for(tee::CLIENT)?;
        let (spent, said) = site.crew.stop()?;
        let cpu_seconds = spent.iter().filter(|(who, _)| *who == tee::WORKER).map(|(_, cpu)| cpu).sum();
        sampler.ended(worker, cpu_seconds);
        let lines = |who: &'static str| {
            said.iter()
                .filter(move |(party, _)| *party == who)
                .filter_map(|(_, line)| serde_json::from_str(line).ok())
        };
        let answer: Value = lines(tee::CLIENT).next_back().context("the client said nothing")?;
        let events: Vec<Value> = lines(tee::WORKER).collect();
        let number = |event: &str, field: &str| {
            let found = events.iter().find(|line| line["event"] == event);
            found
                .and_then(|line| line[field].as_f64())
                .with_context(|| format!("the worker did not say {event}"))
        };
        let load = number("ready", "seconds_since_key")?;
        // Of a resident model once, before all inferences; of stages with every one.
        let opened = number("ready", "decrypt_seconds")?;
        let answered = events.iter().filter(|line| line["event"] == "answered");
        let decrypted: Vec<Option<f64>> = answered.map(|line| line["decrypt_seconds"].as_f64()).collect();
        let mut measured = Measured {
            bytes: all_bytes(&home.join("worker").join(tee::SEALED))?,
            peak_rss_bytes: Some(number("ended", "peak_memory_bytes")? as u64),
            cpu_seconds,
            samples: sampler.finish(),
            wall_seconds: start.elapsed().as_secs_f64(),
            ..self.measured(variant, parts, SAMPLE)
        };
        let took: Vec<AnswerSaid> = serde_json::from_value(answer["answers"].clone())?;
        measured.runs.extend(took.iter().enumerate().skip(1).map(|(i, took)| Run {
            load: Some(load),
            decrypt: match variant {
                Variant::Worker => Some(opened),
                // One client asks: answers are in its order.
                _ => decrypted.get(i).copied().flatten(),
            },
            compute: took.compute_seconds,
            transfer: Some((took.seconds - took.compute_seconds - took.queue_seconds).max(0.0)),
            total: took.seconds,
        }));
        let names = answer["outputs"].as_object().context("outputs of the client")?;
        // In the model's order, which is that of the worker's answer.
        let ready =
            events.iter().find(|line| line["event"] == "ready").context("the worker was not ready")?;
        let order = ready["model"]["outputs"].as_array().context("outputs of the worker")?;
        let outputs: Outputs = order
            .iter()
            .filter_map(|spec| names.get(spec["name"].as_str()?))
            .map(|output| serde_json::from_value(output["data"].clone()))
            .collect::<Result<_, _>>()?;
        self.compare(&measured, &outputs, expected)?;
        std::fs::remove_dir_all(&home).context("cannot remove the worker's files")?;
        Ok(measured)
    }

    /// The inputs as files, as commands take them.
    fn input_files(&self, inputs: &[(String, ArrayD<f32>)]) -> anyhow::Result<Vec<String>> {
        let mut given = Vec::with_capacity(inputs.len());
        for (i, (name, array)) in inputs.iter().enumerate() {
            let file = format!("input-{i}.npy");
            privet::output::write(&self.home.join(&file), &[(name.clone(), array.mapv(f64::from))])?;
            given.push(if inputs.len() > 1 { format!("{name}={file}") } else { file });
        }
        Ok(given)
    }

    /// Refuses outputs that are not the native ones.
    fn compare(&self, measured: &Measured, outputs: &Outputs, expected: &Outputs) -> anyhow::Result<()> {
        let largest = expected.iter().flatten().fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
        let same = outputs.len() == expected.len()
            && outputs.iter().zip(expected).all(|(own, other)| own.len() == other.len());
        let pairs = outputs.iter().flatten().zip(expected.iter().flatten());
        let apart = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max);
        // Not a number is no agreement.
        if same && apart <= TOLERANCE * largest {
            return Ok(());
        }
        let text = format!(
            "{}, {}: outputs are {apart:e} apart from the native ones, which reach {largest:e}: this is a bug, please report it with the seed",
            self.name,
            measured.label()
        );
        Err(Failure::error(Code::Mismatch, text))
    }
}

/// One answer, as `privet enclave ask --json` says it.
#[derive(Deserialize)]
struct AnswerSaid {
    seconds: f64,
    queue_seconds: f64,
    compute_seconds: f64,
}

/// What `privet stages --json` says.
#[derive(Deserialize)]
struct StagesSaid {
    seconds: f64,
    stages: Vec<StageSaid>,
    outputs: Vec<OutputSaid>,
}

#[derive(Deserialize)]
struct StageSaid {
    predicted_peak_bytes: u64,
    measured_peak_bytes: Option<u64>,
    load_seconds: f64,
    run_seconds: f64,
    decrypt_seconds: Option<f64>,
}

/// The index that `privet split --key --json` prints.
#[derive(Deserialize)]
struct SealedSaid {
    stages: Vec<SealedStageSaid>,
}

#[derive(Deserialize)]
struct SealedStageSaid {
    bytes: u64,
}

#[derive(Deserialize)]
struct OutputSaid {
    values: Vec<f32>,
}

/// Of a file, or of those in a directory.
fn all_bytes(path: &Path) -> anyhow::Result<u64> {
    if !path.is_dir() {
        return file_bytes(path);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    entries.map(|entry| file_bytes(&entry?.path())).sum()
}

fn file_bytes(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
}
