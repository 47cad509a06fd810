//! Weights and graph of a sealed model: opened chunk by chunk, into memory that is wiped.
//!
//! Weights of convolutions and products go to pages of their own ([`SecretBuffer`]), which are left out of core dumps, locked
//! where that is asked for, and wiped when they are dropped. Everything else of a graph lies in ordinary memory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use privet_graph::Graph;
use privet_onnx::ModelFile;
use privet_seal::{OpenedModel, ReadAt, SecretBuffer, Swap};

use crate::ahead::ReadAhead;
use crate::source::Memory;
use crate::{Blocks, SplitError, Stage, WeightSource, weights};

/// The weights of a sealed model. Rows that are asked for in order are opened once, and ahead of time.
pub struct SealedWeights<S> {
    model: Arc<OpenedModel<S>>,
    swap: Swap,
    /// The entry of every weight.
    entries: HashMap<String, usize>,
    /// Weights that were opened already.
    loaded: HashMap<String, SecretBuffer>,
    ahead: Option<ReadAhead>,
}

/// A sealed model whose nodes were read, and whose weights can be opened little by little before it becomes a [`Stage`].
pub struct Opening<S> {
    nodes: Nodes,
    streamable: HashSet<String>,
    /// Weights to be held that are not loaded, with their bytes.
    missing: Vec<(String, u64)>,
    weights: SealedWeights<S>,
    loaded: u64,
}

/// Nodes, without or with the constants that they read.
enum Nodes {
    /// The constants have so many bytes.
    Alone(Box<ModelFile>, u64),
    Whole(Box<Graph>),
}

impl<S: ReadAt + Send + Sync + 'static> Opening<S> {
    /// Reads the nodes.
    ///
    /// # Errors
    /// As [`Stage::open_sealed`].
    pub fn new(model: OpenedModel<S>, blocks: &Blocks, swap: Swap) -> Result<Self, SplitError> {
        let model = Arc::new(model);
        let hollow = model.graph()?;
        let elsewhere = Box::new({
            let model = Arc::clone(&model);
            move |location: &str, at: u64, into: &mut [u8]| read(&model, location, at, into, swap)
        });
        let file = ModelFile::hollow(hollow, model.name(), elsewhere)?;
        let streamable: HashSet<String> = weights::streamable(&file).into_iter().map(str::to_owned).collect();
        let mut constants = 0;
        let mut entries = HashMap::new();
        let mut missing = Vec::new();
        for (name, tensor) in file.tensors() {
            let entry = tensor.location().and_then(entry_number);
            let Some(entry) = entry.filter(|&entry| entry < model.entries().len()) else { continue };
            let bytes = model.entries()[entry].length;
            if !streamable.contains(name) {
                constants += bytes;
                continue;
            }
            entries.insert(name.clone(), entry);
            if !blocks.contains_key(name) {
                missing.push((name.clone(), bytes));
            }
        }
        Ok(Self {
            nodes: Nodes::Alone(Box::new(file), constants),
            streamable,
            missing,
            weights: SealedWeights { model, swap, entries, loaded: HashMap::new(), ahead: None },
            loaded: 0,
        })
    }

    /// Opens what will be held, as much as fits into `most` bytes; what was opened before does not count.
    ///
    /// # Errors
    /// A chunk is not what its owner sealed; there is no memory.
    pub fn load(&mut self, mut most: u64) -> Result<(), SplitError> {
        if let Nodes::Alone(file, bytes) = &self.nodes {
            let Some(left) = most.checked_sub(*bytes) else { return Ok(()) };
            (most, self.loaded) = (left, self.loaded + bytes);
            self.nodes = Nodes::Whole(Box::new(self.graph(file)?));
        }
        for (name, bytes) in std::mem::take(&mut self.missing) {
            if bytes > most {
                self.missing.push((name, bytes));
                continue;
            }
            let buffer = self.weights.model.entry(self.weights.entries[&name], self.weights.swap)?;
            (most, self.loaded) = (most - bytes, self.loaded + bytes);
            self.weights.loaded.insert(name, buffer);
        }
        Ok(())
    }

    /// Bytes that [`Opening::load`] has opened.
    pub fn loaded(&self) -> u64 {
        self.loaded
    }

    /// Opens what is missing.
    ///
    /// # Errors
    /// As [`Opening::load`], and as [`Stage::new`].
    pub fn finish(self, blocks: &Blocks) -> Result<Stage<SealedWeights<S>>, SplitError> {
        let graph = match &self.nodes {
            Nodes::Alone(file, _) => &self.graph(file)?,
            Nodes::Whole(graph) => graph,
        };
        Stage::new(graph, &self.streamable, self.weights, blocks)
    }

    fn graph(&self, file: &ModelFile) -> Result<Graph, SplitError> {
        Ok(file.graph(&self.streamable.iter().map(String::as_str).collect())?.graph)
    }
}

impl<S: ReadAt + Send + Sync + 'static> Stage<SealedWeights<S>> {
    /// A sealed model, or a sealed part of one. Weights in `blocks` are opened when they are needed, so many rows at a time,
    /// the others now; both lie in memory that is locked as `swap` says and wiped when it is dropped.
    ///
    /// # Errors
    /// What was sealed is no model that can be run; a chunk is not what its owner sealed; there is no memory, or it cannot be
    /// locked.
    pub fn open_sealed(model: OpenedModel<S>, blocks: &Blocks, swap: Swap) -> Result<Self, SplitError> {
        Opening::new(model, blocks, swap)?.finish(blocks)
    }
}

impl<S: ReadAt + Send + Sync + 'static> WeightSource for SealedWeights<S> {
    fn rows(&mut self, name: &str, rows: Range<usize>, into: &mut [f32]) -> Result<(), SplitError> {
        let entry = self.entry(name)?;
        let row = if rows.is_empty() { 0 } else { size_of_val(into) / rows.len() };
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(into);
        let at = (rows.start * row) as u64;
        let length = self.model.entries()[entry].length;
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > length) {
            let text = format!("{} bytes from {at} on of {name:?}, which has {length}", bytes.len());
            return Err(SplitError::Kernel(text));
        }
        if !self.ahead.as_ref().is_some_and(|ahead| ahead.reaches(entry, at)) {
            // Its buffers are wiped before there are others.
            self.ahead = None;
            self.ahead = Some(ReadAhead::start(&self.model, entry, at, self.swap)?);
        }
        let read = self.ahead.as_mut().expect("just started").read(at, bytes);
        if read.is_err() {
            self.ahead = None;
        }
        to_native(into);
        read
    }

    fn memory(&self, len: usize) -> Result<Memory, SplitError> {
        Ok(Memory::Secret(SecretBuffer::new(size_of::<f32>() * len, self.swap)?))
    }

    fn whole(&mut self, name: &str, shape: &[usize]) -> Result<Memory, SplitError> {
        let entry = self.entry(name)?;
        let (expected, found) =
            (4 * shape.iter().product::<usize>() as u64, self.model.entries()[entry].length);
        if expected != found {
            let text = format!("{name:?} of shape {shape:?} has {expected} bytes, and {found} were sealed");
            return Err(SplitError::Kernel(text));
        }
        let bytes = match self.loaded.remove(name) {
            Some(bytes) => bytes,
            None => self.model.entry(entry, self.swap)?,
        };
        let mut values = Memory::Secret(bytes);
        to_native(&mut values);
        Ok(values)
    }
}

impl<S: ReadAt> SealedWeights<S> {
    /// Seconds that all threads together have spent with verifying and decrypting so far.
    pub fn opening_seconds(&self) -> f64 {
        self.model.opening_seconds()
    }
}

impl<S> SealedWeights<S> {
    fn entry(&self, name: &str) -> Result<usize, SplitError> {
        let found = self.entries.get(name).copied();
        found.ok_or_else(|| SplitError::Kernel(format!("there is no sealed weight {name:?}")))
    }
}

/// Nothing on little-endian machines.
fn to_native(values: &mut [f32]) {
    if cfg!(target_endian = "big") {
        values.iter_mut().for_each(|v| *v = f32::from_bits(u32::from_le(v.to_bits())));
    }
}

/// The entry of a tensor's location, as [`OpenedModel::graph`] writes it.
fn entry_number(location: &str) -> Option<usize> {
    location.strip_prefix("entry ")?.parse().ok()
}

/// Bytes of the entry with this location.
fn read<S: ReadAt>(
    model: &OpenedModel<S>,
    location: &str,
    at: u64,
    mut into: &mut [u8],
    swap: Swap,
) -> io::Result<()> {
    let number =
        entry_number(location).filter(|&n| model.entries().get(n).is_some_and(|e| e.dtype.is_some()));
    let number = number.ok_or_else(|| io::Error::other("no such tensor was sealed"))?;
    let length = model.entries()[number].length;
    if at.checked_add(into.len() as u64).is_none_or(|end| end > length) {
        return Err(io::Error::other(format!("{length} bytes")));
    }
    let mut buffer = model.buffer_of(number, swap).map_err(io::Error::other)?;
    let most = model.header().chunk_bytes();
    let mut at = at;
    while !into.is_empty() {
        let chunk = model.chunk(number, at / most, &mut buffer).map_err(io::Error::other)?;
        let chunk = &chunk[(at % most) as usize..];
        let (now, rest) = into.split_at_mut(chunk.len().min(into.len()));
        now.copy_from_slice(&chunk[..now.len()]);
        at += now.len() as u64;
        into = rest;
    }
    Ok(())
}
