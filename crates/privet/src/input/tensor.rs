//! From a decoded picture to a tensor: channels, resize, crop, then bytes to floats in the model's layout.
//!
//! The steps and their rounding are those of PIL and torchvision: `Resize` (antialiased bilinear), `CenterCrop`,
//! `ToTensor`, `Normalize`. One deviation: torchvision pads a picture smaller than the crop with black, here it is
//! refused.

use std::path::Path;

use ::image::DynamicImage;
use ndarray::{ArrayD, ArrayView3, Axis, IxDyn};
use privet_plan::{Channels, Layout, Preprocess};

use super::{InputError, MAX_PIXELS, preset, resize};

/// Applies `preprocess` and checks that the result fits `shape` before doing any work.
pub(super) fn from_picture(
    path: &Path,
    picture: &DynamicImage,
    preprocess: &Preprocess,
    shape: &[usize],
) -> Result<ArrayD<f32>, InputError> {
    let geometry = Geometry::new(path, picture.width(), picture.height(), preprocess)?;
    let [height, width] = geometry.result.map(|side| side as usize);
    let found = match preprocess.layout {
        Layout::Nchw => [1, preset::channel_count(preprocess), height, width],
        Layout::Nhwc => [1, height, width, preset::channel_count(preprocess)],
    };
    if shape != found && shape != &found[1..] {
        let (expected, found) = (shape.to_vec(), found.to_vec());
        return Err(InputError::PictureShape { path: path.into(), expected, found });
    }
    let mut bytes = match preprocess.channels {
        Channels::Gray => to_gray(picture),
        Channels::Rgb | Channels::Bgr => picture.to_rgb8().into_raw(),
    };
    let mut size = [picture.height(), picture.width()];
    for &next in &geometry.resizes {
        bytes = resize::bilinear(bytes, preset::channel_count(preprocess), size, next);
        size = next;
    }
    Ok(to_floats(&bytes, size, &geometry, preprocess, shape))
}

/// Sizes, known before any pixel is touched.
#[derive(Debug, PartialEq)]
struct Geometry {
    /// Successive sizes `[height, width]` to resize to.
    resizes: Vec<[u32; 2]>,
    /// Top and left of the crop.
    origin: [u32; 2],
    /// Height and width of the result.
    result: [u32; 2],
}

impl Geometry {
    fn new(path: &Path, width: u32, height: u32, preprocess: &Preprocess) -> Result<Self, InputError> {
        let mut size = [height, width];
        let mut resizes = Vec::new();
        for step in
            [preprocess.resize_short.map(|short| short_side(size, short)), preprocess.resize.map(wide)]
        {
            let Some(next) = step else { continue };
            // Also the half-resized picture between the two passes.
            let too_large = next[1] * next[0].max(u64::from(size[0])) > MAX_PIXELS;
            let [height, width] = next;
            size = match (u32::try_from(height), u32::try_from(width)) {
                (Ok(height), Ok(width)) if !too_large => [height, width],
                _ => {
                    return Err(InputError::PictureTooLarge {
                        path: path.into(),
                        width,
                        height,
                        limit: MAX_PIXELS,
                    });
                }
            };
            resizes.push(size);
        }
        let Some(crop) = preprocess.crop else { return Ok(Self { resizes, origin: [0, 0], result: size }) };
        if crop[0] > size[0] || crop[1] > size[1] {
            return Err(InputError::Crop { path: path.into(), crop, found: size });
        }
        // torchvision: int(round((size - crop) / 2.0)), and Python rounds halves to even.
        let start = |axis: usize| (f64::from(size[axis] - crop[axis]) / 2.0).round_ties_even() as u32;
        Ok(Self { resizes, origin: [start(0), start(1)], result: crop })
    }
}

/// The shorter side becomes `short`, the longer one `int(short * long / short_before)` as in torchvision.
fn short_side([height, width]: [u32; 2], short: u32) -> [u64; 2] {
    let (height, width, short) = (u64::from(height), u64::from(width), u64::from(short));
    if width <= height { [short * height / width, short] } else { [short, short * width / height] }
}

fn wide(size: [u32; 2]) -> [u64; 2] {
    size.map(u64::from)
}

/// Luma as PIL's "L": ITU-R BT.601 in 16-bit fixed point.
fn to_gray(picture: &DynamicImage) -> Vec<u8> {
    if !picture.color().has_color() {
        return picture.to_luma8().into_raw();
    }
    let luma = |rgb: &[u8; 3]| {
        let [r, g, b] = rgb.map(u32::from);
        ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
    };
    picture.to_rgb8().as_chunks().0.iter().map(luma).collect()
}

/// Crops the `size` pixels in `bytes` and maps them through one table of 256 floats per channel.
fn to_floats(
    bytes: &[u8],
    size: [u32; 2],
    geometry: &Geometry,
    preprocess: &Preprocess,
    shape: &[usize],
) -> ArrayD<f32> {
    let channels = preset::channel_count(preprocess);
    let [[height, width], [top, left], [rows, columns]] =
        [size, geometry.origin, geometry.result].map(|pair| pair.map(|side| side as usize));
    let mut pixels = ArrayView3::from_shape((height, width, channels), bytes)
        .expect("a picture has height x width x channels bytes");
    // Not the macro `s!`: it allows unsafe code where it is used, which this crate forbids.
    pixels.slice_axis_inplace(Axis(0), (top..top + rows).into());
    pixels.slice_axis_inplace(Axis(1), (left..left + columns).into());
    if preprocess.channels == Channels::Bgr {
        pixels.invert_axis(Axis(2));
    }
    let (pixels, channel_axis) = match preprocess.layout {
        Layout::Nchw => (pixels.permuted_axes([2, 0, 1]), 0),
        Layout::Nhwc => (pixels, 2),
    };
    let table = |channel| (0..=255).map(|byte| preset::value(preprocess, channel, byte)).collect();
    let tables: Vec<Vec<f32>> = (0..channels).map(table).collect();
    let values =
        pixels.indexed_iter().map(|((a, b, c), &byte)| tables[[a, b, c][channel_axis]][usize::from(byte)]);
    ArrayD::from_shape_vec(IxDyn(shape), values.collect()).expect("the shape was compared with the geometry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::{ImageBuffer, Luma, Rgb};

    fn geometry(height: u32, width: u32, preprocess: &Preprocess) -> Result<Geometry, InputError> {
        Geometry::new(Path::new("x.png"), width, height, preprocess)
    }

    fn tensor(picture: impl Into<DynamicImage>, preprocess: &Preprocess, shape: &[usize]) -> Vec<f32> {
        let tensor = from_picture(Path::new("x.png"), &picture.into(), preprocess, shape).unwrap();
        assert_eq!(tensor.shape(), shape);
        tensor.into_raw_vec_and_offset().0
    }

    #[test]
    fn sizes_are_torchvisions() {
        let imagenet = Preprocess::imagenet();
        // dog.jpg: int(256 * 1546 / 1213) = 326.
        let dog = geometry(1213, 1546, &imagenet).unwrap();
        assert_eq!(dog, Geometry { resizes: vec![[256, 326]], origin: [16, 51], result: [224, 224] });
        let upright = geometry(1546, 1213, &imagenet).unwrap();
        assert_eq!(upright, Geometry { resizes: vec![[326, 256]], origin: [51, 16], result: [224, 224] });
        // round() of Python rounds 0.5 to 0, 1.5 to 2 and 2.5 to 2.
        let crop = |side| Preprocess { crop: Some([side, side]), ..Preprocess::default() };
        for (side, origin) in [(9, 0), (8, 1), (7, 2), (6, 2), (5, 2)] {
            assert_eq!(geometry(10, 10, &crop(side)).unwrap().origin, [origin, origin], "{side}");
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let error =
            geometry(223, 300, &Preprocess { resize_short: None, ..Preprocess::imagenet() }).unwrap_err();
        assert!(
            error.to_string().contains("crops x.png to 224x224 (height x width), but it has only 223x300")
        );
        let error = geometry(1, 2_000_000, &Preprocess::imagenet()).unwrap_err();
        assert!(error.to_string().contains("512000000 x 256 pixels"), "{error}");
        // Small before and after, but not in between.
        let wide = Preprocess { resize: Some([1, 4096]), ..Preprocess::default() };
        assert!(matches!(geometry(40_000, 1, &wide), Err(InputError::PictureTooLarge { .. })));
    }

    #[test]
    fn luma_is_pils() {
        // Pillow: Image.new("RGB", (1, 1), rgb).convert("L").
        let cases = [
            ([255u8, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([1, 2, 3], 2),
            ([200, 100, 50], 124),
            ([255, 255, 255], 255),
        ];
        for (rgb, luma) in cases {
            assert_eq!(to_gray(&ImageBuffer::from_pixel(1, 1, Rgb(rgb)).into()), [luma], "{rgb:?}");
        }
        assert_eq!(to_gray(&ImageBuffer::from_pixel(1, 1, Luma([99u8])).into()), [99]);
    }

    #[test]
    fn channels_and_axes_are_laid_out_as_declared() {
        let picture: ImageBuffer<Rgb<u8>, _> =
            ImageBuffer::from_fn(2, 1, |x, _| if x == 0 { Rgb([1, 2, 3]) } else { Rgb([4, 5, 6]) });
        let none = Preprocess::default();
        let bgr = Preprocess { channels: Channels::Bgr, ..none.clone() };
        let nhwc = |p: &Preprocess| Preprocess { layout: Layout::Nhwc, ..p.clone() };
        assert_eq!(tensor(picture.clone(), &none, &[1, 3, 1, 2]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(tensor(picture.clone(), &none, &[3, 1, 2]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(tensor(picture.clone(), &bgr, &[1, 3, 1, 2]), [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]);
        assert_eq!(tensor(picture.clone(), &nhwc(&none), &[1, 1, 2, 3]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(tensor(picture, &nhwc(&bgr), &[1, 1, 2, 3]), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    }

    #[test]
    fn values_are_inverted_scaled_and_normalised() {
        let gray: ImageBuffer<Luma<u8>, _> = ImageBuffer::from_pixel(1, 1, Luma([55]));
        let declared = Preprocess {
            channels: Channels::Gray,
            invert: true,
            scale: 0.5,
            mean: vec![90.0],
            std: vec![4.0],
            ..Preprocess::default()
        };
        assert_eq!(tensor(gray.clone(), &declared, &[1, 1, 1, 1]), [2.5]);
        let per_channel = Preprocess { mean: vec![5.0, 15.0, 25.0], std: vec![2.0], ..Preprocess::default() };
        assert_eq!(tensor(gray.clone(), &per_channel, &[1, 3, 1, 1]), [25.0, 20.0, 15.0]);
        // PyTorch: (torch.tensor(55 / 255) - 0.1307) / 0.3081.
        let mnist = Preprocess { resize: None, ..Preprocess::mnist() };
        assert!((tensor(gray, &mnist, &[1, 1, 1, 1])[0] - 0.275_840_13).abs() < 1e-6);
    }

    #[test]
    fn crop_and_resize_meet() {
        // Columns 0 to 7; halving gives pairs' means, weighted with their neighbours as PIL does.
        let ramp: ImageBuffer<Luma<u8>, _> = ImageBuffer::from_fn(8, 4, |x, _| Luma([x as u8 * 10]));
        let declared = Preprocess {
            channels: Channels::Gray,
            resize_short: Some(2),
            crop: Some([1, 2]),
            ..Preprocess::default()
        };
        assert_eq!(tensor(ramp, &declared, &[1, 1, 1, 2]), [25.0, 45.0]);
    }

    #[test]
    fn another_shape_is_refused_with_advice() {
        let picture = DynamicImage::new_rgb8(28, 28);
        let error =
            from_picture(Path::new("x.png"), &picture, &Preprocess::default(), &[1, 1, 28, 28]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("expects the shape [1, 1, 28, 28]") && text.contains("has [1, 3, 28, 28]"),
            "{text}"
        );
        assert!(text.contains("--preprocess"), "{text}");
        for shape in [&[][..], &[2, 3, 28, 28], &[28, 28], &[1, 28, 28, 3]] {
            assert!(from_picture(Path::new("x.png"), &picture, &Preprocess::default(), shape).is_err());
        }
    }
}
