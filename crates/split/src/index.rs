//! The index of a directory of stages.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use privet_graph::DType;
use privet_onnx::{Declared, ModelFile, Part};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::analysis::Analysis;
use crate::directory::NewDirectory;
use crate::planner::{self, Balance, Plan, Streaming};
use crate::stage::Blocks;
use crate::{SplitError, error::io};

/// Name of the index.
pub const INDEX_FILE: &str = "stages.json";
/// Version of the index.
pub const INDEX_VERSION: u32 = 1;
/// Largest index.
pub(crate) const MAX_INDEX: u64 = 1 << 26;

/// What `stages.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// [`INDEX_VERSION`].
    pub version: u32,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model's file.
    pub digest: String,
    /// Memory that was asked for, in bytes.
    pub memory: Option<u64>,
    /// What was balanced.
    pub balance: Balance,
    /// What the model is given.
    pub inputs: Vec<Shape>,
    /// What it gives; an output that is an input too is no stage's.
    pub outputs: Vec<Shape>,
    /// Stages in order.
    pub stages: Vec<StageEntry>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageEntry {
    /// Its file in the directory.
    pub file: String,
    /// SHA-256 of the file.
    pub digest: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Nodes of the model in it that depend on the input.
    pub nodes: usize,
    /// Predicted peak of weights, tensors and workspace, in bytes.
    pub peak: u64,
    /// What it is given: inputs of the model, and outputs of stages before.
    pub inputs: Vec<Shape>,
    /// What it gives.
    pub outputs: Vec<Shape>,
    /// Rows that are in memory at a time, for weights that are not held.
    #[serde(default)]
    pub blocks: Blocks,
}

/// A tensor's name, element type and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Name.
    pub name: String,
    /// `float32`, `int64` or `bool`.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// How to cut.
#[derive(Debug, Clone, Default)]
pub struct SplitOptions {
    /// Number of stages; otherwise as few as fit.
    pub parts: Option<usize>,
    /// Bytes of weights, tensors and workspace at a time.
    pub memory: Option<u64>,
    /// What decides between plans with as many stages.
    pub balance: Balance,
    /// Shapes of inputs that the model leaves open.
    pub input_shapes: Vec<(Option<String>, Vec<usize>)>,
    /// Once this is set the work ends soon, and what was written is removed.
    pub stop: Arc<AtomicBool>,
}

/// Cuts the model at `model` into ONNX files and an index in the new directory `out`. If that fails nothing is left of it.
///
/// # Errors
/// What [`Analysis::new`] and [`planner::plan`] refuse; `out` exists and is not empty; files cannot be written.
pub fn split(model: &Path, options: &SplitOptions, out: &Path) -> Result<Index, SplitError> {
    let cut = Cut::new(model, options, Streaming::default())?;
    let mut directory = NewDirectory::new(out)?;
    let mut stages = Vec::with_capacity(cut.plan.stages.len());
    for i in 0..cut.plan.stages.len() {
        let part = cut.part(i);
        let name = format!("{}.onnx", part.name);
        let path = directory.file(&name);
        let file = fs::File::create_new(&path).map_err(|e| io(&path, e))?;
        let mut to = Hashing { file, hash: Sha256::new(), stop: &options.stop };
        let written = cut.file.write_part(&part, &mut to, &path);
        options.interrupted()?;
        to.file.sync_all().map_err(|e| io(&path, e))?;
        stages.push(cut.entry(i, &part, name, hex(&to.hash.finalize()), written?));
    }
    let index = Index {
        version: INDEX_VERSION,
        model: cut.file.name().to_owned(),
        digest: digest(model)?,
        memory: options.memory,
        balance: options.balance,
        inputs: cut.inputs(),
        outputs: cut.outputs(),
        stages,
    };
    let path = directory.file(INDEX_FILE);
    let text = serde_json::to_string_pretty(&index).expect("an index is JSON") + "\n";
    options.interrupted()?;
    fs::write(&path, text).map_err(|e| io(&path, e))?;
    directory.keep();
    Ok(index)
}

impl SplitOptions {
    /// An error once the work is to end.
    pub(crate) fn interrupted(&self) -> Result<(), SplitError> {
        if self.stop.load(Ordering::SeqCst) { Err(SplitError::Interrupted) } else { Ok(()) }
    }
}

/// A model, and where it is cut.
pub(crate) struct Cut {
    pub(crate) file: ModelFile,
    analysis: Analysis,
    pub(crate) plan: Plan,
}

impl Cut {
    pub(crate) fn new(
        model: &Path,
        options: &SplitOptions,
        streaming: Streaming,
    ) -> Result<Self, SplitError> {
        let of_file = |error| SplitError::Model { path: model.to_owned(), error: Box::new(error) };
        let file = ModelFile::open(model).map_err(|e| of_file(e.into()))?;
        let mut analysis = Analysis::new(&file, &options.input_shapes).map_err(of_file)?;
        analysis.workload.streaming = streaming;
        let plan = planner::plan(&analysis.workload, options.parts, options.memory, options.balance)?;
        Ok(Self { file, analysis, plan })
    }

    /// What goes into a stage, under the name of its file, without the ending.
    pub(crate) fn part(&self, stage: usize) -> Part {
        let digits = self.plan.stages.len().to_string().len().max(2);
        let name = format!("stage-{:0digits$}", stage + 1);
        self.analysis.part(&self.file, &name, &self.plan.stages[stage])
    }

    /// What the index says of a stage.
    pub(crate) fn entry(
        &self,
        stage: usize,
        part: &Part,
        file: String,
        digest: String,
        bytes: u64,
    ) -> StageEntry {
        let (plan, work) = (&self.plan, &self.analysis.workload);
        let nodes = plan.stages[stage].clone();
        let read: HashSet<usize> =
            work.operations[nodes.clone()].iter().flat_map(|op| op.weights.clone()).collect();
        let rows = |w: &usize| {
            let (block, row) = (plan.blocks[*w]?, work.weights[*w].row?);
            Some((self.analysis.weight_names[*w].clone(), (block / row.max(1)) as usize))
        };
        StageEntry {
            file,
            digest,
            bytes,
            nodes: nodes.len(),
            peak: plan.peaks[stage],
            inputs: part.inputs.iter().map(Shape::of).collect(),
            outputs: part.outputs.iter().map(Shape::of).collect(),
            blocks: read.iter().filter_map(rows).collect(),
        }
    }

    pub(crate) fn inputs(&self) -> Vec<Shape> {
        self.analysis.inputs.iter().map(Shape::of).collect()
    }

    pub(crate) fn outputs(&self) -> Vec<Shape> {
        self.analysis.outputs.iter().map(Shape::of).collect()
    }
}

impl Index {
    /// Reads the index of a directory.
    ///
    /// # Errors
    /// It is not there, of another version, or says something impossible.
    pub fn load(directory: &Path) -> Result<Self, SplitError> {
        let path = directory.join(INDEX_FILE);
        let wrong = |expected: &str, found: String| SplitError::Index {
            path: path.clone(),
            expected: expected.to_owned(),
            found,
        };
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(|e| no_index(directory, &path, e))?;
        file.take(MAX_INDEX).read_to_string(&mut text).map_err(|e| io(&path, e))?;
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let found: Versioned =
            serde_json::from_str(&text).map_err(|e| wrong("an index of stages", e.to_string()))?;
        if found.version != INDEX_VERSION {
            return Err(wrong(&format!("version {INDEX_VERSION}"), found.version.to_string()));
        }
        let index: Self =
            serde_json::from_str(&text).map_err(|e| wrong("an index of stages", e.to_string()))?;
        check_files(&index.stages).map_err(|(expected, found)| wrong(expected, found))?;
        Ok(index)
    }

    /// Whether all stages are the files that the index was written for.
    ///
    /// # Errors
    /// One is not, or cannot be read.
    pub fn check(&self, directory: &Path) -> Result<(), SplitError> {
        for stage in &self.stages {
            let path = directory.join(&stage.file);
            let found = digest(&path)?;
            if found != stage.digest {
                let expected = format!("the digest {}", stage.digest);
                return Err(SplitError::Index { path, expected, found });
            }
        }
        Ok(())
    }
}

/// Whether there are stages, each a file of its own in the directory; what was expected and found otherwise.
pub(crate) fn check_files(stages: &[StageEntry]) -> Result<(), (&'static str, String)> {
    let plain = |s: &StageEntry| Path::new(&s.file).file_name() == Some(s.file.as_ref());
    if let Some(stage) = stages.iter().find(|s| !plain(s)) {
        return Err(("names of files in the directory", stage.file.clone()));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = stages.iter().find(|s| !seen.insert(&s.file)) {
        return Err(("a file of its own for every stage", format!("{} twice", twice.file)));
    }
    if stages.is_empty() { Err(("at least one stage", "none".to_owned())) } else { Ok(()) }
}

/// Why an index cannot be opened.
pub(crate) fn no_index(directory: &Path, path: &Path, error: std::io::Error) -> SplitError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return io(path, error);
    }
    let found = if !directory.is_dir() {
        "no such directory".to_owned()
    } else {
        format!("no {} in it", path.file_name().unwrap_or_default().display())
    };
    let expected = "a directory that privet split wrote".to_owned();
    SplitError::Index { path: directory.to_owned(), expected, found }
}

impl Shape {
    fn of(declared: &Declared) -> Self {
        let dtype = match declared.dtype {
            DType::F32 => "float32",
            DType::I64 => "int64",
            DType::Bool => "bool",
        };
        Self { name: declared.name.clone(), dtype: dtype.to_owned(), shape: declared.shape.clone() }
    }
}

/// SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> Result<String, SplitError> {
    let mut file = fs::File::open(path).map_err(|e| io(path, e))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).map_err(|e| io(path, e))? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&block[..len]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A file, and the hash of what is written to it.
struct Hashing<'a> {
    file: fs::File,
    hash: Sha256,
    stop: &'a AtomicBool,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Not `Interrupted`, after which `write_all` tries again.
        if self.stop.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::Other.into());
        }
        let len = self.file.write(bytes)?;
        self.hash.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
