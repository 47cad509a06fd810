//! How an image becomes an input: declared data, never a script.

use serde::{Deserialize, Serialize};

/// Turns a decoded image into a float tensor: resize, crop, scale, normalise, lay out; in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// Colour channels the model expects.
    pub channels: Channels,
    /// Resize so that the shorter side has this many pixels (antialiased bilinear), keeping the aspect ratio.
    pub resize_short: Option<u32>,
    /// Resize to exactly `[height, width]` (antialiased bilinear), after `resize_short`.
    pub resize: Option<[u32; 2]>,
    /// Centre crop to `[height, width]`.
    pub crop: Option<[u32; 2]>,
    /// Dark-on-light pictures of models trained light-on-dark: v becomes 255 - v.
    pub invert: bool,
    /// Bytes are multiplied by this first; 1/255 gives [0, 1].
    pub scale: f64,
    /// Subtracted per channel, after `scale`.
    pub mean: Vec<f64>,
    /// Divided by per channel, last.
    pub std: Vec<f64>,
    /// Order of axes.
    pub layout: Layout,
}

/// Colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luma (ITU-R BT.601, as PIL's "L").
    Gray,
}

/// Order of axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, height, width.
    Nchw,
    /// Batch, height, width, channel.
    Nhwc,
}

impl Default for Preprocess {
    /// `none`: the pixels as they are, 0 to 255, RGB, NCHW.
    fn default() -> Self {
        Self {
            channels: Channels::Rgb,
            resize_short: None,
            resize: None,
            crop: None,
            invert: false,
            scale: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
            layout: Layout::Nchw,
        }
    }
}

impl Preprocess {
    /// `imagenet`: short side to 256, centre crop 224, RGB in [0, 1], torchvision's mean and deviation.
    pub fn imagenet() -> Self {
        Self {
            resize_short: Some(256),
            crop: Some([224, 224]),
            scale: 1.0 / 255.0,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            ..Self::default()
        }
    }

    /// `mnist`: grey, 28 x 28, [0, 1], mean 0.1307, deviation 0.3081 (PyTorch's example).
    pub fn mnist() -> Self {
        Self {
            channels: Channels::Gray,
            resize: Some([28, 28]),
            scale: 1.0 / 255.0,
            mean: vec![0.1307],
            std: vec![0.3081],
            ..Self::default()
        }
    }
}
