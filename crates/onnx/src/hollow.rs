//! Tensors whose data someone else keeps: those of a model that lies sealed.

use std::io;

use crate::OnnxError;
use crate::proto::{GraphProto, NodeProto, TensorProto};
use crate::tensor;

/// Fills the bytes with the little-endian elements of the tensor with this location, from an offset in bytes on. The location
/// is that of the tensor's `external_data`.
pub type Elsewhere = Box<dyn Fn(&str, u64, &mut [u8]) -> io::Result<()> + Send + Sync>;

/// The location of an external tensor.
pub(crate) fn location(proto: &TensorProto) -> Result<String, OnnxError> {
    let entry = |key: &str| proto.external_data.iter().find(|e| e.key == key);
    let other = proto.external_data.iter().find(|e| e.key != "location");
    match (entry("location"), other) {
        (Some(location), None) => Ok(location.value.clone()),
        (found, other) => Err(OnnxError::Tensor {
            tensor: proto.name.clone(),
            what: "external_data",
            expected: "a location alone".to_owned(),
            found: other.or(found).map_or("none", |e| &e.key).to_owned(),
        }),
    }
}

/// Reads part of a tensor's data.
pub(crate) fn read(
    elsewhere: &Elsewhere,
    name: &str,
    location: &str,
    at: u64,
    into: &mut [u8],
) -> Result<(), OnnxError> {
    elsewhere(location, at, into).map_err(|error| OnnxError::Tensor {
        tensor: name.to_owned(),
        what: "data",
        expected: format!("{} bytes of {location:?} from {at} on", into.len()),
        found: error.to_string(),
    })
}

/// Puts the data of a tensor into its message.
pub(crate) fn fill(proto: &mut TensorProto, elsewhere: &Elsewhere) -> Result<(), OnnxError> {
    if !tensor::is_external(proto) {
        return Ok(());
    }
    let (location, bytes) = (location(proto)?, tensor::byte_count(proto)?);
    // Whether there are as many, before there is memory for them.
    read(elsewhere, &proto.name, &location, bytes as u64, &mut [])?;
    let mut data = vec![0; bytes];
    read(elsewhere, &proto.name, &location, 0, &mut data)?;
    proto.raw_data = Some(data);
    proto.external_data.clear();
    proto.data_location = 0;
    Ok(())
}

/// Puts the data of all tensors in the attributes of a node into its message.
pub(crate) fn fill_node(node: &mut NodeProto, elsewhere: &Elsewhere) -> Result<(), OnnxError> {
    for attribute in &mut node.attribute {
        if let Some(tensor) = &mut attribute.t {
            fill(tensor, elsewhere)?;
        }
        if let Some(graph) = &mut attribute.g {
            fill_graph(graph, elsewhere)?;
        }
    }
    Ok(())
}

fn fill_graph(graph: &mut GraphProto, elsewhere: &Elsewhere) -> Result<(), OnnxError> {
    graph.initializer.iter_mut().try_for_each(|tensor| fill(tensor, elsewhere))?;
    graph.node.iter_mut().try_for_each(|node| fill_node(node, elsewhere))
}
