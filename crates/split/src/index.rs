//! The index of a directory of stages.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use privet_graph::DType;
use privet_onnx::{Declared, ModelFile};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::analysis::Analysis;
use crate::planner::{self, Balance};
use crate::stage::Blocks;
use crate::{SplitError, error::io};

/// Name of the index.
pub const INDEX_FILE: &str = "stages.json";
/// Version of the index.
pub const INDEX_VERSION: u32 = 1;
/// Largest index.
const MAX_INDEX: u64 = 1 << 26;

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
}

/// Cuts the model at `model` into ONNX files and an index in the new directory `out`.
///
/// # Errors
/// What [`Analysis::new`] and [`planner::plan`] refuse; `out` exists and is not empty; files cannot be written.
pub fn split(model: &Path, options: &SplitOptions, out: &Path) -> Result<Index, SplitError> {
    let file = ModelFile::open(model)?;
    let analysis = Analysis::new(&file, &options.input_shapes)?;
    let plan = planner::plan(&analysis.workload, options.parts, options.memory, options.balance)?;
    fs::create_dir_all(out).map_err(|e| io(out, e))?;
    if fs::read_dir(out).map_err(|e| io(out, e))?.next().is_some() {
        let (expected, found) = ("an empty directory".to_owned(), "one with files".to_owned());
        return Err(SplitError::Index { path: out.to_owned(), expected, found });
    }
    let digits = plan.stages.len().to_string().len().max(2);
    let mut stages = Vec::with_capacity(plan.stages.len());
    for (i, (stage, &peak)) in plan.stages.iter().zip(&plan.peaks).enumerate() {
        let name = format!("stage-{:0digits$}", i + 1);
        let part = analysis.part(&file, &name, stage);
        let name = format!("{name}.onnx");
        let path = out.join(&name);
        let mut to =
            Hashing { file: fs::File::create_new(&path).map_err(|e| io(&path, e))?, hash: Sha256::new() };
        let bytes = file.write_part(&part, &mut to, &path)?;
        to.file.sync_all().map_err(|e| io(&path, e))?;
        let read: HashSet<usize> =
            analysis.workload.operations[stage.clone()].iter().flat_map(|op| op.weights.clone()).collect();
        let rows = |w: &usize| {
            let (block, row) = (plan.blocks[*w]?, analysis.workload.weights[*w].row?);
            Some((analysis.weight_names[*w].clone(), (block / row.max(1)) as usize))
        };
        stages.push(StageEntry {
            file: name,
            digest: hex(&to.hash.finalize()),
            bytes,
            nodes: stage.len(),
            peak,
            inputs: part.inputs.iter().map(Shape::of).collect(),
            outputs: part.outputs.iter().map(Shape::of).collect(),
            blocks: read.iter().filter_map(rows).collect(),
        });
    }
    let index = Index {
        version: INDEX_VERSION,
        model: file.name().to_owned(),
        digest: digest(model)?,
        memory: options.memory,
        balance: options.balance,
        inputs: analysis.inputs.iter().map(Shape::of).collect(),
        outputs: analysis.outputs.iter().map(Shape::of).collect(),
        stages,
    };
    let path = out.join(INDEX_FILE);
    let text = serde_json::to_string_pretty(&index).expect("an index is JSON") + "\n";
    fs::write(&path, text).map_err(|e| io(&path, e))?;
    Ok(index)
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
        let file = fs::File::open(&path).map_err(|e| io(&path, e))?;
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
        let plain = |s: &StageEntry| Path::new(&s.file).file_name() == Some(s.file.as_ref());
        if let Some(stage) = index.stages.iter().find(|s| !plain(s)) {
            return Err(wrong("names of files in the directory", stage.file.clone()));
        }
        if index.stages.is_empty() {
            return Err(wrong("at least one stage", "none".to_owned()));
        }
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A file, and the hash of what is written to it.
struct Hashing {
    file: fs::File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.hash.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
