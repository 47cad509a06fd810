//! Why a file cannot be an input.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a file cannot be an input. Every message names the file, what was found and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputError {
    /// The file is missing, a directory, or not readable.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// The file is longer than anything this program reads.
    #[error("{} has more than {limit} bytes, the most that is read as an input", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },

    /// The first bytes are not a picture's.
    #[error(
        "{} is not a JPEG or PNG picture; arrays and tables are told by their extension: .npy, .npz or .csv",
        path.display()
    )]
    NotAPicture {
        /// The file.
        path: PathBuf,
    },

    /// The picture is damaged, or ends too early.
    #[error("cannot decode the picture {}: {reason}; convert or copy it anew", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The picture, or a size it would be resized to, has too many pixels.
    #[error(
        "{} takes {width} x {height} pixels, more than the {limit} that are worked on; scale it down first",
        path.display()
    )]
    PictureTooLarge {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The limit on width times height.
        limit: u64,
    },

    /// The centre crop does not fit into the picture.
    #[error(
        "the preprocessing crops {} to {}x{} (height x width), but it has only {}x{} at that point; \
         resize it before, or choose another --preprocess",
        path.display(), crop[0], crop[1], found[0], found[1]
    )]
    Crop {
        /// The file.
        path: PathBuf,
        /// Height and width of the crop.
        crop: [u32; 2],
        /// Height and width of the picture.
        found: [u32; 2],
    },

    /// The preprocessed picture has another shape than the model's input.
    #[error(
        "{}: the model expects the shape {expected:?}, the preprocessed picture has {found:?}; \
         choose another --preprocess (imagenet, mnist, none or a TOML file)",
        path.display()
    )]
    PictureShape {
        /// The file.
        path: PathBuf,
        /// The model's shape.
        expected: Vec<usize>,
        /// The picture's, after preprocessing.
        found: Vec<usize>,
    },

    /// Not a `.npy` file, or a damaged one, or of a dtype that is not a real number.
    #[error("{} is not a usable .npy file: {reason}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Not a `.npz` file, or a damaged one.
    #[error("{} is not a usable .npz file: {reason}", path.display())]
    Npz {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Something in the table is not a number, or its rows differ in length.
    #[error("{} is not a usable .csv file: {reason}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The table has too few or too many numbers.
    #[error(
        "{}: the model expects the shape {shape:?}, that is {expected} numbers, the table has {}{found}",
        path.display(),
        if *more { "at least " } else { "" }
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// The model's shape.
        shape: Vec<usize>,
        /// Its number of elements.
        expected: usize,
        /// Numbers read.
        found: usize,
        /// Reading stopped at `found`, there may be more.
        more: bool,
    },

    /// The array has another shape than the model's input.
    #[error("{origin}: the model expects the shape {expected:?}, the array has {found:?}")]
    Shape {
        /// File and array.
        origin: String,
        /// The model's shape.
        expected: Vec<usize>,
        /// The array's.
        found: Vec<usize>,
    },

    /// A value is infinite, not a number, or too large for an `f32`.
    #[error("{origin}: the value at flat index {index} is not a finite 32-bit float; clean the data first")]
    NotFinite {
        /// File and array.
        origin: String,
        /// Position in row-major order.
        index: usize,
    },

    /// Neither a preset nor a TOML file.
    #[error("unknown preprocessing {given:?}: expected imagenet, mnist, none, or a file ending in .toml")]
    UnknownPreprocess {
        /// What was asked for.
        given: String,
    },

    /// The preprocessing contradicts itself.
    #[error("preprocessing {origin}: {reason}")]
    Preprocess {
        /// A file, or who sent it.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The labels file is empty or not text.
    #[error("labels {}: {reason}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl InputError {
    pub(super) fn npy(path: &Path, reason: impl Into<String>) -> Self {
        Self::Npy { path: path.into(), reason: reason.into() }
    }

    pub(super) fn npz(path: &Path, reason: impl Into<String>) -> Self {
        Self::Npz { path: path.into(), reason: reason.into() }
    }

    pub(super) fn csv(path: &Path, reason: impl Into<String>) -> Self {
        Self::Csv { path: path.into(), reason: reason.into() }
    }

    pub(super) fn picture(path: &Path, reason: impl Into<String>) -> Self {
        Self::Picture { path: path.into(), reason: reason.into() }
    }
}
