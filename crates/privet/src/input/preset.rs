//! The preprocessing a user names, and what makes one valid.

use std::path::Path;

use privet_attest::policy::toml_problem;
use privet_plan::{Channels, Preprocess};

use super::{InputError, MAX_PIXELS, read_at_most};

/// A preprocessing file is a dozen lines.
const MAX_BYTES: u64 = 64 << 10;

/// Resolves `imagenet`, `mnist`, `none` or the path of a `.toml` file whose keys are the fields of
/// [`Preprocess`], each optional; unknown keys are refused.
///
/// # Errors
/// Unknown name, unreadable file, bad TOML, or anything [`check_preprocess`] refuses.
pub fn preprocess_from_str_or_file(given: &str) -> Result<Preprocess, InputError> {
    match given {
        "imagenet" => Ok(Preprocess::imagenet()),
        "mnist" => Ok(Preprocess::mnist()),
        "none" => Ok(Preprocess::default()),
        file if Path::new(file).extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) => {
            from_file(file)
        }
        _ => Err(InputError::UnknownPreprocess { given: given.into() }),
    }
}

/// Checks a preprocessing from anywhere, also from a peer: `mean` and `std` have no entry, one, or one per
/// channel; all numbers are finite, no deviation and no scale is zero; sizes are positive and bounded.
///
/// # Errors
/// [`InputError::Preprocess`], naming `origin`.
pub fn check_preprocess(origin: &str, preprocess: &Preprocess) -> Result<(), InputError> {
    let refused = |reason: String| Err(InputError::Preprocess { origin: origin.into(), reason });
    let channels = channel_count(preprocess);
    for (key, values) in [("mean", &preprocess.mean), ("std", &preprocess.std)] {
        if values.len() > 1 && values.len() != channels {
            return refused(format!("{key} has {} values, expected 1 or {channels}", values.len()));
        }
    }
    if preprocess.scale == 0.0 || preprocess.std.contains(&0.0) {
        return refused("scale and std must not be zero".into());
    }
    for channel in 0..channels {
        // The map is affine, so its ends bound it.
        if !(value(preprocess, channel, 0).is_finite() && value(preprocess, channel, 255).is_finite()) {
            return refused("scale, mean and std must be finite and give finite 32-bit floats".into());
        }
    }
    let sizes = [
        ("resize_short", preprocess.resize_short.map(|side| [side, side])),
        ("resize", preprocess.resize),
        ("crop", preprocess.crop),
    ];
    for (key, size) in sizes {
        let Some([height, width]) = size else { continue };
        let pixels = u64::from(height) * u64::from(width);
        if pixels == 0 || pixels > MAX_PIXELS {
            return refused(format!("{key} of {height}x{width} pixels, expected 1 to {MAX_PIXELS}"));
        }
    }
    Ok(())
}

/// Number of colour channels.
pub(super) fn channel_count(preprocess: &Preprocess) -> usize {
    match preprocess.channels {
        Channels::Rgb | Channels::Bgr => 3,
        Channels::Gray => 1,
    }
}

/// What a byte of a channel becomes, rounded once from double precision.
pub(super) fn value(preprocess: &Preprocess, channel: usize, byte: u8) -> f32 {
    let per_channel = |values: &[f64], default| match values {
        [] => default,
        [one] => *one,
        several => several[channel],
    };
    let byte = if preprocess.invert { 255 - byte } else { byte };
    let centred = f64::from(byte) * preprocess.scale - per_channel(&preprocess.mean, 0.0);
    (centred / per_channel(&preprocess.std, 1.0)) as f32
}

fn from_file(file: &str) -> Result<Preprocess, InputError> {
    parse(file, &read_at_most(Path::new(file), MAX_BYTES)?)
}

/// The preprocessing that the bytes of the file `origin` declare.
pub(crate) fn parse(origin: &str, bytes: &[u8]) -> Result<Preprocess, InputError> {
    let refused = |reason: String| InputError::Preprocess { origin: origin.into(), reason };
    let wrong = |e: toml::de::Error| {
        let text = String::from_utf8_lossy(bytes);
        format!(
            "{}; expected a file that says how a picture becomes an input (docs/cli.md)",
            toml_problem(&text, &e)
        )
    };
    let preprocess = toml::from_slice(bytes).map_err(|e| refused(wrong(e)))?;
    check_preprocess(origin, &preprocess)?;
    Ok(preprocess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(text: &str) -> Result<Preprocess, InputError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.toml");
        std::fs::write(&path, text).unwrap();
        preprocess_from_str_or_file(path.to_str().unwrap())
    }

    #[test]
    fn presets_and_files() {
        assert_eq!(preprocess_from_str_or_file("imagenet").unwrap(), Preprocess::imagenet());
        assert_eq!(preprocess_from_str_or_file("mnist").unwrap(), Preprocess::mnist());
        assert_eq!(preprocess_from_str_or_file("none").unwrap(), Preprocess::default());
        assert_eq!(from_toml("").unwrap(), Preprocess::default());
        let text = toml::to_string(&Preprocess::imagenet()).unwrap();
        assert_eq!(from_toml(&text).unwrap(), Preprocess::imagenet());
        let own = from_toml("channels = 'gray'\nresize = [8, 6]\ninvert = true\nmean = [0.5]").unwrap();
        let expected = Preprocess {
            channels: Channels::Gray,
            resize: Some([8, 6]),
            invert: true,
            mean: vec![0.5],
            ..Preprocess::default()
        };
        assert_eq!(own, expected);
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            ("sizes = 3", "unknown field `sizes`"),
            ("channels = 'cmyk'", "unknown variant `cmyk`"),
            ("resize = [8]", "invalid length"),
            ("resize = [8, -1]", "invalid value"),
            ("resize = [", "TOML parse error"),
            ("mean = [1.0, 2.0]", "mean has 2 values, expected 1 or 3"),
            ("channels = 'gray'\nstd = [1.0, 2.0, 3.0]", "std has 3 values, expected 1 or 1"),
            ("std = [1.0, 0.0, 1.0]", "must not be zero"),
            ("scale = 0", "must not be zero"),
            ("scale = inf", "must be finite"),
            ("mean = [nan]", "must be finite"),
            ("std = [1e-300]", "must be finite"),
            ("crop = [0, 224]", "crop of 0x224 pixels"),
            ("resize_short = 10000", "resize_short of 10000x10000 pixels"),
        ];
        for (text, message) in cases {
            let error = from_toml(text).unwrap_err().to_string();
            assert!(error.contains("p.toml") && error.contains(message), "{text}: {error}");
        }
        let unknown = preprocess_from_str_or_file("imagnet").unwrap_err().to_string();
        assert!(unknown.contains("\"imagnet\"") && unknown.contains("imagenet, mnist, none"), "{unknown}");
        assert!(matches!(preprocess_from_str_or_file("missing.toml"), Err(InputError::Read { .. })));
    }
}
