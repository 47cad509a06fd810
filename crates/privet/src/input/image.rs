//! Decoding of JPEG and PNG pictures.
//!
//! - The EXIF orientation is applied (all eight, from a JPEG's or a PNG's EXIF block), as PIL's
//!   `ImageOps.exif_transpose` does: a photograph taken upright is classified upright.
//! - An alpha channel is dropped, not composited, as PIL's `convert("RGB")` does.
//! - 16-bit samples are rounded to 8 bits; palettes and 1- to 4-bit greys are expanded.
//! - Colour profiles and gamma are ignored, as PIL does. Of an animated PNG the first picture is taken.

use std::io::Cursor;
use std::path::Path;

use ::image::error::ImageError;
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use ndarray::ArrayD;
use privet_plan::Preprocess;

use super::{InputError, MAX_PIXELS, check_preprocess, jpeg, tensor};

/// Pixels a byte of a PNG can stand for: deflate packs at most 1032 to 1, a byte holds up to 8 pixels.
const PNG_PIXELS_PER_BYTE: u64 = 1032 * 8;

/// Pixels a byte of a JPEG can stand for: each 8 x 8 block of the component sampled most finely takes at least one
/// bit, its DC code; twice that for safety.
const JPEG_PIXELS_PER_BYTE: u64 = 8 * 64 * 2;

/// Decodes the picture in `bytes` and turns it into a tensor of `shape`.
pub(super) fn load(
    path: &Path,
    bytes: &[u8],
    preprocess: &Preprocess,
    shape: &[usize],
) -> Result<ArrayD<f32>, InputError> {
    check_preprocess("of this picture", preprocess)?;
    let picture = decode(path, bytes)?;
    tensor::from_picture(path, &picture, preprocess, shape)
}

/// Decodes and turns upright.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, InputError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| InputError::Read { path: path.into(), source })?;
    let pixels_per_byte = match reader.format() {
        Some(ImageFormat::Png) => PNG_PIXELS_PER_BYTE,
        Some(ImageFormat::Jpeg) if !jpeg::is_complete(bytes) => {
            return Err(InputError::picture(path, "the file is truncated: it has no end-of-image marker"));
        }
        Some(ImageFormat::Jpeg) => JPEG_PIXELS_PER_BYTE,
        _ => return Err(InputError::NotAPicture { path: path.into() }),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(4 * MAX_PIXELS);
    reader.limits(limits);

    let damaged = |error: ImageError| InputError::picture(path, error.to_string());
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = (u64::from(decoder.dimensions().0), u64::from(decoder.dimensions().1));
    if width * height > MAX_PIXELS {
        return Err(InputError::PictureTooLarge { path: path.into(), width, height, limit: MAX_PIXELS });
    }
    if width * height > pixels_per_byte * bytes.len() as u64 {
        let reason = format!("{} bytes cannot hold {width} x {height} pixels", bytes.len());
        return Err(InputError::picture(path, reason));
    }
    // An unreadable EXIF block does not spoil the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::codecs::jpeg::JpegEncoder;
    use ::image::{ExtendedColorType, GrayImage, ImageBuffer, ImageEncoder, Luma, LumaA, Rgb, Rgba};

    fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn jpeg(picture: &GrayImage, exif: Option<Vec<u8>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
        if let Some(exif) = exif {
            encoder.set_exif_metadata(exif).unwrap();
        }
        encoder.write_image(picture, picture.width(), picture.height(), ExtendedColorType::L8).unwrap();
        bytes
    }

    /// A little-endian EXIF block that holds nothing but the orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
        [b"II\x2a\0\x08\0\0\0\x01\0", &entry[..], &[0; 4]].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        decode(Path::new("x.jpg"), bytes).unwrap_err().to_string()
    }

    /// 16 x 8, dark in the top left quarter.
    fn dark_corner() -> GrayImage {
        ImageBuffer::from_fn(16, 8, |x, y| Luma([if x < 8 && y < 4 { 20 } else { 220 }]))
    }

    #[test]
    fn every_kind_of_png_sample_is_read() {
        let read = |bytes: Vec<u8>| decode(Path::new("x.png"), &bytes).unwrap().to_rgb8().into_raw();
        assert_eq!(read(png(GrayImage::from_pixel(1, 1, Luma([7])))), [7, 7, 7]);
        let see_through = ImageBuffer::from_pixel(1, 1, Rgba([10u8, 20, 30, 0]));
        assert_eq!(read(png(see_through)), [10, 20, 30], "alpha is dropped");
        assert_eq!(read(png(ImageBuffer::from_pixel(1, 1, LumaA([9u8, 1])))), [9, 9, 9]);
        let deep = ImageBuffer::from_pixel(1, 1, Luma([0x7fffu16]));
        assert_eq!(read(png(deep)), [127, 127, 127]);
        let deep = ImageBuffer::from_pixel(1, 1, Rgb([65535u16, 257 * 100 + 128, 257 * 100 + 129]));
        assert_eq!(read(png(deep)), [255, 100, 101], "rounded to the nearest byte");
    }

    #[test]
    fn exif_orientation_turns_the_picture_upright() {
        // Which corner of the upright picture is dark, right and bottom as true.
        let (top_left, top_right) = ((false, false), (true, false));
        let (bottom_left, bottom_right) = ((false, true), (true, true));
        let once_around = [top_left, top_right, bottom_right, bottom_left];
        for (orientation, (right, bottom)) in (1u8..=8).zip(once_around.into_iter().cycle()) {
            let bytes = jpeg(&dark_corner(), Some(exif(orientation)));
            let upright = decode(Path::new("x.jpg"), &bytes).unwrap().to_luma8();
            let size = if orientation < 5 { (16, 8) } else { (8, 16) };
            assert_eq!(upright.dimensions(), size, "{orientation}");
            for (x, y, pixel) in upright.enumerate_pixels() {
                let dark = (x >= size.0 / 2) == right && (y >= size.1 / 2) == bottom;
                assert!(pixel.0[0].abs_diff(if dark { 20 } else { 220 }) < 16, "{orientation} at {x}, {y}");
            }
        }
        let unreadable = jpeg(&dark_corner(), Some(vec![1, 2, 3]));
        assert_eq!(decode(Path::new("x.jpg"), &unreadable).unwrap().width(), 16);
    }

    #[test]
    fn what_is_not_a_picture_is_refused() {
        for bytes in [&b""[..], b"hello", b"GIF89a\x01\0\x01\0", b"\xff", b"\x93NUMPY"] {
            assert!(refusal(bytes).contains("x.jpg is not a JPEG or PNG picture"), "{bytes:?}");
        }
    }

    #[test]
    fn truncated_pictures_are_refused() {
        let noise = ImageBuffer::from_fn(16, 16, |x, y| Luma([(x * 37 + y * 101) as u8]));
        let jpeg = jpeg(&noise, Some(exif(1)));
        let without_trailer = jpeg.len() - 2;
        for length in 3..=without_trailer + 1 {
            assert!(decode(Path::new("x.jpg"), &jpeg[..length]).is_err(), "JPEG cut to {length} bytes");
        }
        assert!(refusal(&jpeg[..without_trailer]).contains("truncated"));
        assert!(decode(Path::new("x.jpg"), &[&jpeg[..], b"trailing bytes"].concat()).is_ok());
        let png = png(noise);
        // The last chunk, IEND, takes 12 bytes and holds nothing.
        for length in 0..png.len() - 12 {
            assert!(decode(Path::new("x.png"), &png[..length]).is_err(), "PNG cut to {length} bytes");
        }
    }

    #[test]
    fn damaged_pictures_never_panic() {
        let noise: GrayImage = ImageBuffer::from_fn(24, 16, |x, y| Luma([(x * 37 + y * 101) as u8]));
        let mut state = 0x2545_f491_4f6c_dd1du64; // seed of a xorshift generator
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for original in [jpeg(&noise, Some(exif(6))), png(noise)] {
            for _ in 0..2000 {
                let mut bytes = original.clone();
                for _ in 0..1 + random() % 4 {
                    let at = random() % bytes.len();
                    bytes[at] = random() as u8;
                }
                let _ = decode(Path::new("x"), &bytes);
            }
        }
    }

    #[test]
    fn decompression_bombs_are_refused_before_they_unpack() {
        let small = png(GrayImage::new(1, 1));
        let claim = |width: u32, height: u32| {
            let mut bytes = small.clone();
            bytes[16..20].copy_from_slice(&width.to_be_bytes());
            bytes[20..24].copy_from_slice(&height.to_be_bytes());
            let crc = crc32(&bytes[12..29]);
            bytes[29..33].copy_from_slice(&crc.to_be_bytes());
            bytes
        };
        assert!(decode(Path::new("x.png"), &claim(1, 1)).is_ok(), "the checksum is right");
        assert!(refusal(&claim(100_000, 100_000)).contains("100000 x 100000 pixels, more than"));
        assert!(refusal(&claim(2_000_000_000, 2_000_000_000)).contains("x.jpg"));
        assert!(refusal(&claim(4000, 4000)).contains("cannot hold 4000 x 4000 pixels"));
        let mut jpeg = jpeg(&GrayImage::new(8, 8), None);
        let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
        assert!(refusal(&jpeg).contains("65535 x 65535 pixels, more than"), "{}", refusal(&jpeg));
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x10; 4]);
        assert!(refusal(&jpeg).contains("cannot hold 4112 x 4112 pixels"), "{}", refusal(&jpeg));
    }

    /// PNG's checksum, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }
}
