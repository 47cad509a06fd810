//! The attributes that convolution and pooling share.

use privet_graph::{AutoPad, WindowSpec};

use crate::OnnxError;
use crate::node::NodeReader;

/// Kernel, strides, pads and auto_pad; dilations and ceil_mode where the operator has them.
pub(super) fn window(
    node: &NodeReader<'_>,
    dilations: bool,
    ceil_mode: bool,
) -> Result<WindowSpec, OnnxError> {
    let auto_pad = match node.string("auto_pad", "NOTSET")?.as_str() {
        "NOTSET" => AutoPad::NotSet,
        "SAME_UPPER" => AutoPad::SameUpper,
        "SAME_LOWER" => AutoPad::SameLower,
        "VALID" => AutoPad::Valid,
        other => {
            let supported = "NOTSET, SAME_UPPER, SAME_LOWER, VALID";
            return Err(node.refuse("auto_pad", &format!("is {other:?}"), supported));
        }
    };
    Ok(WindowSpec {
        kernel: node.ints("kernel_shape")?,
        strides: node.ints("strides")?,
        dilations: if dilations { node.ints("dilations")? } else { None },
        pads: node.ints("pads")?,
        auto_pad,
        ceil_mode: ceil_mode && node.flag("ceil_mode", false)?,
    })
}
