//! A model file whose large tensors stay on disk, for those who have less memory than the model has weights.
//!
//! Only lengths are followed: nodes, declarations and small tensors are read, the data of large ones are skipped, and
//! their place is kept. So a model can be cut ([`ModelFile::write_part`]) and run without ever being in memory as a whole.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use privet_graph::{DType, Tensor, element_count};
use prost::Message;
use zeroize::Zeroizing;

use crate::hollow::{self, Elsewhere};
use crate::import::{self, Imported};
use crate::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::scan::{Content, Scanner};
use crate::{MAX_FILE, OnnxError, tensor};

/// A tensor whose message, or data, is at most this long is read at once.
const SMALL: u64 = 4096;

/// Fields of `TensorProto` that hold data.
const FLOAT_DATA: u32 = 4;
const RAW_DATA: u32 = 9;
const DATA: [u32; 7] = [FLOAT_DATA, 5, 6, 7, RAW_DATA, 10, 11];

/// An open model file, or the bytes of one.
#[derive(Debug)]
pub struct ModelFile {
    pub(crate) path: PathBuf,
    pub(crate) source: Source,
    name: String,
    pub(crate) head: ModelProto,
    nodes: Vec<FileNode>,
    protos: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    tensors: BTreeMap<String, StoredTensor>,
}

/// Where the bytes of a model are.
pub(crate) enum Source {
    File(File),
    /// Without the data of tensors.
    Hollow(Zeroizing<Vec<u8>>, Elsewhere),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Hollow(..) => "Hollow",
        })
    }
}

/// A node of the file, by the names of what it reads and makes.
#[derive(Debug, Clone)]
pub struct FileNode {
    /// Name, which may be empty.
    pub name: String,
    /// Operator.
    pub operator: String,
    /// Names of its operands, empty for those left out, and of what its subgraphs read of the graph around them.
    pub inputs: Vec<String>,
    /// Names of its results, empty for those left out.
    pub outputs: Vec<String>,
    /// Where its message lies.
    pub(crate) place: Place,
}

/// An initialiser.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// Element type of the schema.
    pub(crate) element: i32,
    /// Element type in the graph.
    pub dtype: DType,
    /// Where its message lies.
    pub(crate) place: Place,
    pub(crate) data: Data,
}

/// Bytes of the model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Where a tensor's data are.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Little-endian elements in the model file.
    Here(Place),
    /// Little-endian elements in another file.
    External(PathBuf, Place),
    /// Little-endian elements that [`Elsewhere`] gives for this name.
    Elsewhere(String),
    /// In a form that has to be decoded.
    Message,
}

impl StoredTensor {
    /// Whether it can be read block by block: floats, as they are in memory, and not few.
    pub fn is_streamable(&self) -> bool {
        self.dtype == DType::F32
            && !matches!(self.data, Data::Message)
            && size_of::<f32>() as u64 * self.len() as u64 > SMALL
    }

    /// What [`crate::Elsewhere`] is asked for, if the data come from there.
    pub fn location(&self) -> Option<&str> {
        match &self.data {
            Data::Elsewhere(location) => Some(location),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModelFile {
    /// Opens a model. External data must lie in the model's directory.
    ///
    /// # Errors
    /// The file cannot be read or is no ONNX model; tensors whose data do not fit their shapes.
    pub fn open(path: &Path) -> Result<Self, OnnxError> {
        let io = |source| OnnxError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size > MAX_FILE {
            return Err(OnnxError::Malformed(format!(
                "a model file holds at most {MAX_FILE} bytes, found {size}"
            )));
        }
        let mut scan = Scanner::new(path, file.try_clone().map_err(io)?, size);
        let name = path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy()).into_owned();
        Self::read_from(&mut scan, size, path, name, Source::File(file))
    }

    /// Takes the bytes of a model, called `name`, whose external tensors are not in files but come from `elsewhere`.
    ///
    /// # Errors
    /// As [`ModelFile::open`]; data that `elsewhere` refuses.
    pub fn hollow(bytes: Zeroizing<Vec<u8>>, name: &str, elsewhere: Elsewhere) -> Result<Self, OnnxError> {
        let (size, path) = (bytes.len() as u64, PathBuf::from(name));
        let mut copy = Zeroizing::new(Vec::with_capacity(bytes.len()));
        copy.extend_from_slice(&bytes);
        let mut scan = Scanner::new(&path, Cursor::new(&copy[..]), size);
        Self::read_from(&mut scan, size, &path, name.to_owned(), Source::Hollow(bytes, elsewhere))
    }

    fn read_from<R: Read + Seek>(
        scan: &mut Scanner<R>,
        size: u64,
        path: &Path,
        name: String,
        source: Source,
    ) -> Result<Self, OnnxError> {
        let (mut head, mut graph) = (Vec::new(), None);
        while let Some(field) = scan.field(size)? {
            match (field.tag, field.content) {
                (7, Content::Bytes(place)) if graph.is_none() => graph = Some(place),
                (7, _) => return Err(OnnxError::Malformed("there are two graphs".to_owned())),
                (1 | 8, _) => head.extend(scan.read(field.whole())?),
                _ => {}
            }
            scan.seek(field.end)?;
        }
        let head = ModelProto::decode(head.as_slice()).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
        let graph = graph.ok_or_else(|| OnnxError::Malformed("there is no graph".to_owned()))?;
        let mut model = Self {
            path: path.to_owned(),
            source,
            name,
            head,
            nodes: Vec::new(),
            protos: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            tensors: BTreeMap::new(),
        };
        model.scan(scan, graph)?;
        let tensors = &model.tensors;
        model.inputs.retain(|input| !tensors.contains_key(&input.name));
        Ok(model)
    }

    /// Name of the model: of its file, without the ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its nodes, in execution order.
    pub fn nodes(&self) -> &[FileNode] {
        &self.nodes
    }

    /// Its initialisers by name.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// Names of its inputs, initialisers left out.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|i| i.name.as_str())
    }

    /// Names of its outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|o| o.name.as_str())
    }

    /// Whether integers narrower than 64 bits occur, which the graph does not tell from others.
    pub fn has_narrow_integers(&self) -> bool {
        const INT32: i64 = 6;
        let stored = self.tensors.values().any(|t| is_narrow(t.element));
        let element = |input: &ValueInfoProto| tensor::tensor_type(input.r#type.clone()).map(|(e, _)| e);
        let declared = self.inputs.iter().filter_map(element).any(is_narrow);
        let made = self.protos.iter().flat_map(|n| &n.attribute).any(|a| {
            let constant = a.t.as_ref().is_some_and(|t| is_narrow(t.data_type));
            constant || a.name == "to" && a.i == Some(INT32) || a.g.is_some()
        });
        stored || declared || made
    }

    /// The graph. Initialisers in `on_disk` become inputs of it, in front of the model's own, under their names.
    ///
    /// # Errors
    /// As [`crate::load`].
    pub fn graph(&self, on_disk: &HashSet<&str>) -> Result<Imported, OnnxError> {
        let (mut given, mut initializer) = (Vec::new(), Vec::new());
        for (name, stored) in &self.tensors {
            if on_disk.contains(name.as_str()) {
                given.push((name.clone(), stored.shape.clone()));
            } else {
                initializer.push((name.clone(), self.tensor(name)?));
            }
        }
        let graph = GraphProto {
            node: self.protos.clone(),
            input: self.inputs.clone(),
            output: self.outputs.clone(),
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph), ..self.head.clone() };
        import::named(model, &self.name, self.directory(), given, initializer)
    }

    /// A whole initialiser.
    ///
    /// # Errors
    /// There is none of this name, or the file cannot be read.
    pub fn tensor(&self, name: &str) -> Result<Tensor, OnnxError> {
        let stored = self.stored(name)?;
        if stored.is_streamable() {
            let mut values = vec![0.0f32; stored.len()];
            self.read(name, 0, &mut values)?;
            return Ok(tensor::array(&stored.shape, values).into());
        }
        let mut message = Zeroizing::new(vec![0; stored.place.len as usize]);
        self.read_own(stored.place.offset, &mut message)?;
        let mut proto = TensorProto::decode(&message[..]).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
        if let Source::Hollow(_, elsewhere) = &self.source {
            hollow::fill(&mut proto, elsewhere)?;
        }
        tensor::read(proto, self.directory())
    }

    /// Elements of an initialiser from `first` on, as many as `into` holds; it has to be streamable.
    ///
    /// # Errors
    /// There are not as many, or the file cannot be read.
    pub fn read(&self, name: &str, first: usize, into: &mut [f32]) -> Result<(), OnnxError> {
        let stored = self.stored(name)?;
        let end = first.checked_add(into.len()).filter(|&end| end <= stored.len());
        if end.is_none() || !stored.is_streamable() {
            let expected = format!("a range of its {} floats", stored.len());
            let found = format!("{} from {first} on", into.len());
            return Err(OnnxError::Tensor { tensor: name.to_owned(), what: "elements", expected, found });
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(into);
        let skip = 4 * first as u64;
        match &stored.data {
            Data::External(path, place) => {
                let io = |source| OnnxError::Io { path: path.clone(), source };
                let file = File::open(path).map_err(io)?;
                file.read_exact_at(bytes, place.offset + skip).map_err(io)?;
            }
            Data::Elsewhere(location) => {
                let Source::Hollow(_, elsewhere) = &self.source else { unreachable!("a hollow model") };
                hollow::read(elsewhere, name, location, skip, bytes)?;
            }
            Data::Here(place) => self.read_own(place.offset + skip, bytes)?,
            Data::Message => unreachable!("streamable tensors have a place"),
        }
        // Nothing on little-endian machines.
        into.iter_mut().for_each(|v| *v = f32::from_bits(u32::from_le(v.to_bits())));
        Ok(())
    }

    fn stored(&self, name: &str) -> Result<&StoredTensor, OnnxError> {
        self.tensors
            .get(name)
            .ok_or_else(|| OnnxError::Malformed(format!("there is no initialiser {name:?}")))
    }

    /// Where external data may lie.
    fn directory(&self) -> Option<&Path> {
        match self.source {
            Source::File(_) => self.path.parent(),
            Source::Hollow(..) => None,
        }
    }

    /// The model's own bytes from `at` on.
    pub(crate) fn read_own(&self, at: u64, into: &mut [u8]) -> Result<(), OnnxError> {
        let read = match &self.source {
            Source::File(file) => file.read_exact_at(into, at),
            Source::Hollow(bytes, _) => {
                let mut cursor = Cursor::new(&bytes[..]);
                cursor.set_position(at);
                cursor.read_exact(into)
            }
        };
        read.map_err(|source| OnnxError::Io { path: self.path.clone(), source })
    }

    /// Reads the graph's message, but for the data of large tensors.
    fn scan<R: Read + Seek>(&mut self, scan: &mut Scanner<R>, graph: Place) -> Result<(), OnnxError> {
        let end = graph.offset + graph.len;
        scan.seek(graph.offset)?;
        while let Some(field) = scan.field(end)? {
            if let Content::Bytes(place) = field.content {
                match field.tag {
                    1 => self.node(scan, place)?,
                    5 => self.initializer(scan, place)?,
                    11 => self.inputs.push(message(scan, place)?),
                    12 => self.outputs.push(message(scan, place)?),
                    15 => {
                        let text = "sparse initializers are not supported; supported: dense ones";
                        return Err(OnnxError::Malformed(text.to_owned()));
                    }
                    _ => {}
                }
            }
            scan.seek(field.end)?;
        }
        Ok(())
    }

    fn node<R: Read + Seek>(&mut self, scan: &mut Scanner<R>, place: Place) -> Result<(), OnnxError> {
        let mut proto: NodeProto = message(scan, place)?;
        if let Source::Hollow(_, elsewhere) = &self.source {
            hollow::fill_node(&mut proto, elsewhere)?;
        }
        let mut inputs = proto.input.clone();
        proto.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| captures(g, &mut inputs));
        let (name, operator, outputs) = (proto.name.clone(), proto.op_type.clone(), proto.output.clone());
        self.nodes.push(FileNode { name, operator, inputs, outputs, place });
        self.protos.push(proto);
        Ok(())
    }

    fn initializer<R: Read + Seek>(&mut self, scan: &mut Scanner<R>, place: Place) -> Result<(), OnnxError> {
        let (proto, found) = head(scan, place)?;
        let name = proto.name.clone();
        let what = format!("tensor {name:?}");
        let (dtype, size) = (tensor::dtype(&what, proto.data_type)?, tensor::element_size(&proto)?);
        let shape: Option<Vec<usize>> = proto.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| wrong(&name, "dims", "sizes of at least 0", &proto.dims))?;
        let count = element_count("tensor", &shape)
            .map_err(|e| wrong(&name, "dims", "a bounded size", &e.to_string()))?;
        let bytes = count as u64 * size as u64;
        let data = if let (Source::Hollow(..), true) = (&self.source, tensor::is_external(&proto)) {
            Data::Elsewhere(hollow::location(&proto)?)
        } else if tensor::is_external(&proto) {
            let (path, offset) = tensor::place(&proto, self.path.parent(), bytes as usize)?;
            Data::External(path, Place { offset, len: bytes })
        } else {
            match found {
                Some(found) if found.len == bytes => Data::Here(found),
                Some(found) => {
                    return Err(wrong(&name, "bytes of data", &bytes.to_string(), &found.len));
                }
                None => Data::Message,
            }
        };
        let stored = StoredTensor { shape, element: proto.data_type, dtype, place, data };
        match self.tensors.insert(name.clone(), stored) {
            None => Ok(()),
            Some(_) => Err(OnnxError::Malformed(format!("value {name:?} is defined twice"))),
        }
    }
}

/// Whether an element type of the schema is an integer that the graph widens.
fn is_narrow(element: i32) -> bool {
    const INT64: i32 = 7;
    element != INT64 && tensor::dtype("", element).is_ok_and(|dtype| dtype == DType::I64)
}

/// A tensor's message without its data, and where these are if they can be used as they are.
fn head<R: Read + Seek>(
    scan: &mut Scanner<R>,
    place: Place,
) -> Result<(TensorProto, Option<Place>), OnnxError> {
    if place.len <= SMALL {
        return Ok((message(scan, place)?, None));
    }
    let (mut rest, mut found) = (Vec::new(), Vec::new());
    scan.seek(place.offset)?;
    while let Some(field) = scan.field(place.offset + place.len)? {
        match field.content {
            Content::Bytes(data) if DATA.contains(&field.tag) => {
                found.push(Some(data).filter(|_| field.tag == RAW_DATA || field.tag == FLOAT_DATA))
            }
            _ if DATA.contains(&field.tag) => found.push(None),
            _ => rest.extend(scan.read(field.whole())?),
        }
        scan.seek(field.end)?;
    }
    let proto = TensorProto::decode(rest.as_slice()).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
    let data = match found.as_slice() {
        [Some(data)] => Some(*data),
        _ => None,
    };
    Ok((proto, data))
}

fn message<M: Message + Default, R: Read + Seek>(
    scan: &mut Scanner<R>,
    place: Place,
) -> Result<M, OnnxError> {
    let bytes = scan.read(place)?;
    M::decode(bytes.as_slice()).map_err(|e| OnnxError::Protobuf(e.to_string()))
}

/// Names that a subgraph reads and does not define.
fn captures(graph: &GraphProto, into: &mut Vec<String>) {
    let mut reads = Vec::new();
    for node in &graph.node {
        reads.extend(node.input.iter().cloned());
        node.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| captures(g, &mut reads));
    }
    reads.extend(graph.output.iter().map(|o| o.name.clone()));
    let own: HashSet<&str> = graph.node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    let initial: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let foreign =
        |name: &String| !name.is_empty() && !own.contains(name.as_str()) && !initial.contains(name.as_str());
    for name in reads.into_iter().filter(foreign) {
        if !into.contains(&name) {
            into.push(name);
        }
    }
}

fn wrong(tensor: &str, what: &'static str, expected: &str, found: &impl std::fmt::Debug) -> OnnxError {
    let (tensor, expected) = (tensor.to_owned(), expected.to_owned());
    OnnxError::Tensor { tensor, what, expected, found: format!("{found:?}") }
}
