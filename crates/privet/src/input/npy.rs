//! NumPy's `.npy` format (NEP 1), versions 1 to 3, for real dtypes.
//!
//! Written here rather than taken from `ndarray-npy`: that crate reserves what the header asks for before it
//! looks at the data (a 130-byte file aborts the process), and decodes one dtype chosen by the caller.

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

const MAGIC: &[u8] = b"\x93NUMPY";
/// What NumPy pads the header to.
const ALIGNMENT: usize = 64;
const MAX_HEADER: usize = 1 << 16;
/// NumPy's own limit.
const MAX_DIMENSIONS: usize = 64;
/// Most numbers of one array, which take four bytes each however few they take in the file.
const MAX_NUMBERS: usize = 1 << 27;

/// Decodes a whole file into row-major order. Integers above 2^24 and doubles are rounded to the nearest `f32`.
pub(crate) fn decode(bytes: &[u8]) -> Result<ArrayD<f32>, String> {
    let (header, data) = split(bytes)?;
    let Header { descr, fortran_order, shape } = parse_header(header)?;
    let Element { size, big_endian, convert } = element(&descr)?;
    // Empty axes are left out of the product, as ndarray does, so that no shape overflows.
    let volume = shape.iter().filter(|&&d| d != 0).try_fold(size, |n, &d| n.checked_mul(d));
    let expected = if shape.contains(&0) { volume.map(|_| 0) } else { volume };
    if expected != Some(data.len()) {
        let expected = expected.map_or("too many".to_owned(), |n| n.to_string());
        return Err(format!("shape {shape:?} of {descr} takes {expected} bytes, {} follow", data.len()));
    }
    if data.len() / size > MAX_NUMBERS {
        return Err(format!("{} numbers, expected at most {MAX_NUMBERS}", data.len() / size));
    }
    let values = data.chunks_exact(size).map(|chunk| {
        let fold = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        convert(if big_endian { chunk.iter().fold(0, fold) } else { chunk.iter().rev().fold(0, fold) })
    });
    let layout = IxDyn(&shape).set_f(fortran_order);
    let array =
        ArrayD::from_shape_vec(layout, values.collect()).map_err(|e| format!("shape {shape:?}: {e}"))?;
    Ok(if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() })
}

/// A version 1.0 file holding `data`, little-endian elements of dtype `descr` in row-major order.
pub(crate) fn encode(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let axes: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", axes.trim_end());
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a tensor's shape prints in a few hundred characters");
    [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes(), data].concat()
}

/// Header text and data.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with the bytes \\x93NUMPY")?;
    let (length, rest) = match *rest {
        [1, _, a, b, ref rest @ ..] => (usize::from(u16::from_le_bytes([a, b])), rest),
        [2 | 3, _, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
        [major, minor, ..] => return Err(format!("format version {major}.{minor}, expected 1.0 to 3.0")),
        _ => return Err("it ends within the header".into()),
    };
    if length > MAX_HEADER {
        return Err(format!("a header of {length} bytes, expected at most {MAX_HEADER}"));
    }
    let (header, data) = rest.split_at_checked(length).ok_or("it ends within the header")?;
    Ok((std::str::from_utf8(header).map_err(|_| "the header is not text")?, data))
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Reads the Python dictionary that is the header; only what NumPy writes for a plain array is accepted.
fn parse_header(text: &str) -> Result<Header, String> {
    let damaged = || format!("unreadable header {:?}", text.chars().take(120).collect::<String>());
    let body = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(damaged)?;
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    let mut rest = body.trim_start();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(damaged)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(damaged)?.trim_start();
        let after = match key {
            "descr" if value.starts_with('[') => return Err("structured dtypes are not numbers".into()),
            "descr" => {
                let (text, after) = quoted(value).ok_or_else(damaged)?;
                descr = Some(text.to_owned());
                after
            }
            "fortran_order" => {
                let (flag, after) = value
                    .strip_prefix("True")
                    .map(|after| (true, after))
                    .or_else(|| value.strip_prefix("False").map(|after| (false, after)))
                    .ok_or_else(damaged)?;
                fortran_order = Some(flag);
                after
            }
            "shape" => {
                let (axes, after) =
                    value.strip_prefix('(').and_then(|v| v.split_once(')')).ok_or_else(damaged)?;
                shape = Some(parse_shape(axes).ok_or_else(damaged)?);
                after
            }
            _ => return Err(damaged()),
        };
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    match (descr, fortran_order, shape) {
        (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header { descr, fortran_order, shape }),
        _ => Err(damaged()),
    }
}

/// `'text' rest` or `"text" rest`.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// `2, 3` with an optional last comma; Python 2 wrote `2L`.
fn parse_shape(axes: &str) -> Option<Vec<usize>> {
    let axes = axes.trim();
    let axes = axes.strip_suffix(',').unwrap_or(axes);
    if axes.is_empty() {
        return Some(Vec::new());
    }
    let parsed: Option<Vec<usize>> =
        axes.split(',').map(|d| d.trim().trim_end_matches('L').parse().ok()).collect();
    parsed.filter(|shape| shape.len() <= MAX_DIMENSIONS)
}

/// How a dtype is stored.
struct Element {
    size: usize,
    big_endian: bool,
    /// From the element's bits.
    convert: fn(u64) -> f32,
}

fn element(descr: &str) -> Result<Element, String> {
    let refused = || {
        format!("dtype {descr:?} is not a real number of at most 64 bits; convert it with .astype('float32')")
    };
    let (order, kind) = descr.split_at_checked(1).ok_or_else(refused)?;
    let (size, convert): (usize, fn(u64) -> f32) = match kind {
        "f2" => (2, |b| f16::from_bits(b as u16).to_f32()),
        "f4" => (4, |b| f32::from_bits(b as u32)),
        "f8" => (8, |b| f64::from_bits(b) as f32),
        "i1" => (1, |b| f32::from(b as u8 as i8)),
        "i2" => (2, |b| f32::from(b as u16 as i16)),
        "i4" => (4, |b| b as u32 as i32 as f32),
        "i8" => (8, |b| b as i64 as f32),
        "u1" => (1, |b| f32::from(b as u8)),
        "u2" => (2, |b| f32::from(b as u16)),
        "u4" => (4, |b| b as u32 as f32),
        "u8" => (8, |b| b as f32),
        "b1" => (1, |b| if b == 0 { 0.0 } else { 1.0 }),
        _ => return Err(refused()),
    };
    // '=' is the byte order of the machine that wrote the file: not recorded, so not accepted.
    match order {
        "<" => Ok(Element { size, big_endian: false, convert }),
        ">" => Ok(Element { size, big_endian: true, convert }),
        "|" if size == 1 => Ok(Element { size, big_endian: false, convert }),
        _ => Err(refused()),
    }
}
