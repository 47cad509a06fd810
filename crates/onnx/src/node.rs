//! One node as its operator's reader sees it.

use std::cell::RefCell;
use std::sync::Arc;

use privet_graph::{Operator, Tensor};

use crate::proto::{AttributeProto, GraphProto, NodeProto};
use crate::{OnnxError, tensor};

/// What a node becomes.
pub(crate) enum Parsed {
    /// An operator with its operands, for the first result; the others must not be read.
    Node(Arc<dyn Operator>, Vec<Operand>),
    /// An operator that gives all results.
    Results(Arc<dyn Operator>, Vec<Operand>),
    /// One operator per result.
    Each(Vec<(Arc<dyn Operator>, Vec<Operand>)>),
    /// A choice between two graphs by the first input.
    Branches([Box<GraphProto>; 2]),
    /// A constant.
    Constant(Tensor),
}

/// One operand of a graph node.
pub(crate) enum Operand {
    /// The ONNX node's input of this index, missing if the node leaves it out.
    Input(usize),
    /// Nothing.
    Missing,
    /// What the ONNX node says in an attribute.
    Constant(Tensor),
    /// What another operator gives.
    Computed(Arc<dyn Operator>, Vec<Operand>),
}

impl Parsed {
    /// An operator whose operands are the ONNX node's.
    pub(crate) fn plain(op: impl Operator, node: &NodeReader<'_>) -> Self {
        Self::Node(Arc::new(op), (0..node.input_count()).map(Operand::Input).collect())
    }

    /// An operator with chosen operands.
    pub(crate) fn with(op: impl Operator, operands: Vec<Operand>) -> Self {
        Self::Node(Arc::new(op), operands)
    }

    /// An operator whose operands are the ONNX node's and that gives all results.
    pub(crate) fn results(op: impl Operator, operands: Vec<Operand>) -> Self {
        Self::Results(Arc::new(op), operands)
    }
}

impl Operand {
    /// What another operator gives.
    pub(crate) fn computed(op: impl Operator, operands: Vec<Self>) -> Self {
        Self::Computed(Arc::new(op), operands)
    }
}

/// A node; remembers which attributes its operator asked for, so that the rest can be refused.
pub(crate) struct NodeReader<'a> {
    proto: &'a NodeProto,
    pub(crate) name: &'a str,
    /// Version of the model's operator set.
    pub(crate) opset: i64,
    /// Operands that are constants already.
    constants: Vec<Option<Arc<Tensor>>>,
    asked: RefCell<Vec<&'static str>>,
}

/// `AttributeProto.AttributeType`, by number.
const TYPES: [&str; 15] = [
    "UNDEFINED",
    "FLOAT",
    "INT",
    "STRING",
    "TENSOR",
    "GRAPH",
    "FLOATS",
    "INTS",
    "STRINGS",
    "TENSORS",
    "GRAPHS",
    "SPARSE_TENSOR",
    "SPARSE_TENSORS",
    "TYPE_PROTO",
    "TYPE_PROTOS",
];

impl<'a> NodeReader<'a> {
    pub(crate) fn new(
        proto: &'a NodeProto,
        name: &'a str,
        opset: i64,
        constants: Vec<Option<Arc<Tensor>>>,
    ) -> Self {
        Self { proto, name, opset, constants, asked: RefCell::default() }
    }

    /// Name of the operator.
    pub(crate) fn operator(&self) -> &'a str {
        &self.proto.op_type
    }

    /// Number of input slots, trailing missing ones left out.
    pub(crate) fn input_count(&self) -> usize {
        self.proto.input.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// Whether input `i` is given.
    pub(crate) fn has_input(&self, i: usize) -> bool {
        self.proto.input.get(i).is_some_and(|name| !name.is_empty())
    }

    /// Input `i`, if it is a constant of the file.
    pub(crate) fn constant(&self, i: usize) -> Option<&Tensor> {
        self.constants.get(i)?.as_deref()
    }

    /// Number of result slots, trailing unnamed ones left out.
    pub(crate) fn output_count(&self) -> usize {
        self.proto.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1)
    }

    /// Errors unless there are `min` to `max` inputs and the first `min` are given.
    pub(crate) fn expect_inputs(&self, min: usize, max: usize) -> Result<(), OnnxError> {
        let found = self.input_count();
        if found <= max && (0..min).all(|i| self.has_input(i)) {
            return Ok(());
        }
        Err(self.operands("inputs", format!("{min} to {max}"), found))
    }

    /// Errors when results beyond the first are named.
    pub(crate) fn expect_one_output(&self, what: &str) -> Result<(), OnnxError> {
        match self.proto.output.iter().skip(1).find(|name| !name.is_empty()) {
            None => Ok(()),
            Some(name) => Err(self.operands(what, "none".to_owned(), format!("output {name:?}"))),
        }
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &'static str, default: i64) -> Result<i64, OnnxError> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    /// An integer attribute that may be missing.
    pub(crate) fn optional_int(&self, name: &'static str) -> Result<Option<i64>, OnnxError> {
        self.typed(name, 2, |a| a.i)
    }

    /// An integer attribute that must be there.
    pub(crate) fn required_int(&self, name: &'static str) -> Result<i64, OnnxError> {
        self.optional_int(name)?.ok_or_else(|| self.refuse(name, "is missing", "an integer"))
    }

    /// An integer attribute that is 0 or 1.
    pub(crate) fn flag(&self, name: &'static str, default: bool) -> Result<bool, OnnxError> {
        match self.int(name, i64::from(default))? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.refuse(name, &format!("is {other}"), "0, 1")),
        }
    }

    /// A finite float attribute.
    pub(crate) fn float(&self, name: &'static str, default: f32) -> Result<f32, OnnxError> {
        let found = self.optional_float(name)?.unwrap_or(default);
        if found.is_finite() {
            return Ok(found);
        }
        Err(self.refuse(name, &format!("is {found}"), "finite numbers"))
    }

    /// A float attribute that may be missing, or infinite.
    pub(crate) fn optional_float(&self, name: &'static str) -> Result<Option<f32>, OnnxError> {
        self.typed(name, 1, |a| a.f)
    }

    /// A list of integers.
    pub(crate) fn ints(&self, name: &'static str) -> Result<Option<Vec<i64>>, OnnxError> {
        self.typed(name, 7, |a| Some(a.ints.clone()))
    }

    /// A list of integers that must be there.
    pub(crate) fn required_ints(&self, name: &'static str) -> Result<Vec<i64>, OnnxError> {
        self.ints(name)?.ok_or_else(|| self.refuse(name, "is missing", "a list of integers"))
    }

    /// A list of floats.
    pub(crate) fn floats(&self, name: &'static str) -> Result<Option<Vec<f32>>, OnnxError> {
        self.typed(name, 6, |a| Some(a.floats.clone()))
    }

    /// A string.
    pub(crate) fn string(&self, name: &'static str, default: &str) -> Result<String, OnnxError> {
        let text = self.typed(name, 3, |a| a.s.clone())?;
        let Some(text) = text else { return Ok(default.to_owned()) };
        String::from_utf8(text).map_err(|_| self.refuse(name, "is not UTF-8", "UTF-8 text"))
    }

    /// A tensor.
    pub(crate) fn tensor(&self, name: &'static str) -> Result<Option<Tensor>, OnnxError> {
        let found = self.typed(name, 4, |a| a.t.clone())?;
        // Attributes are small; data of their own in a file next to the model is not worth the risk.
        found.map(|t| tensor::read(*t, None)).transpose()
    }

    /// A graph that must be there.
    pub(crate) fn required_graph(&self, name: &'static str) -> Result<Box<GraphProto>, OnnxError> {
        let found = self.typed(name, 5, |a| a.g.clone())?;
        found.ok_or_else(|| self.refuse(name, "is missing", "a graph"))
    }

    /// A string that is one of several.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &'static str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Result<T, OnnxError> {
        let found = self.string(name, default)?;
        choices.iter().find(|(text, _)| *text == found).map(|(_, value)| *value).ok_or_else(|| {
            let supported: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            self.refuse(name, &format!("is {found:?}"), &supported.join(", "))
        })
    }

    /// Accepts an attribute that changes nothing at inference.
    pub(crate) fn ignore(&self, name: &'static str) {
        self.asked.borrow_mut().push(name);
    }

    /// A refusal of an attribute's value.
    pub(crate) fn refuse(&self, attribute: &str, problem: &str, supported: &str) -> OnnxError {
        OnnxError::Attribute {
            node: self.name.to_owned(),
            operator: self.operator().to_owned(),
            attribute: attribute.to_owned(),
            problem: problem.to_owned(),
            supported: supported.to_owned(),
        }
    }

    /// A refusal of operands or results.
    pub(crate) fn operands(&self, what: &str, expected: impl ToString, found: impl ToString) -> OnnxError {
        OnnxError::Operands {
            node: self.name.to_owned(),
            operator: self.operator().to_owned(),
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Refuses attributes that nobody asked for, and attributes given twice.
    pub(crate) fn finish(&self) -> Result<(), OnnxError> {
        let asked = self.asked.borrow();
        let supported = if asked.is_empty() { "no attributes".to_owned() } else { asked.join(", ") };
        for (i, attribute) in self.proto.attribute.iter().enumerate() {
            if !asked.contains(&attribute.name.as_str()) {
                return Err(self.refuse(&attribute.name, "is not supported", &supported));
            }
            if self.proto.attribute[..i].iter().any(|a| a.name == attribute.name) {
                return Err(self.refuse(&attribute.name, "is given twice", "each attribute once"));
            }
        }
        Ok(())
    }

    fn typed<T>(
        &self,
        name: &'static str,
        expected: i32,
        get: impl Fn(&AttributeProto) -> Option<T>,
    ) -> Result<Option<T>, OnnxError> {
        self.asked.borrow_mut().push(name);
        let Some(attribute) = self.proto.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        if !attribute.ref_attr_name.is_empty() {
            return Err(self.refuse(name, "refers to a function's attribute", "a value"));
        }
        // Old exporters leave the type out.
        let wanted = TYPES[expected as usize];
        if attribute.r#type != expected && attribute.r#type != 0 {
            let found =
                usize::try_from(attribute.r#type).ok().and_then(|t| TYPES.get(t)).unwrap_or(&"unknown");
            return Err(self.refuse(name, &format!("has type {found}"), wanted));
        }
        match get(attribute) {
            Some(value) => Ok(Some(value)),
            None => Err(self.refuse(name, "has no value", wanted)),
        }
    }
}
