//! Names of a classifier's outputs.

use std::path::Path;

use super::{InputError, read_at_most};

/// ImageNet-22k's labels take less than 1 MiB.
const MAX_BYTES: u64 = 16 << 20;

/// Reads one label per line; line k names class k. A leading WordNet id (`n02111889 Samoyed, Samoyede`) is
/// dropped, the rest of the line kept. Blank lines at the end do not count.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or has no label.
pub fn load_labels(path: &Path) -> Result<Vec<String>, InputError> {
    parse(path, read_at_most(path, MAX_BYTES)?)
}

/// [`load_labels`], from the file's bytes.
pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Vec<String>, InputError> {
    let refused = |reason: &str| InputError::Labels { path: path.into(), reason: reason.into() };
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text"))?;
    let text = text.trim_start_matches('\u{feff}').trim_end();
    if text.is_empty() {
        return Err(refused("it is empty; expected one label per line"));
    }
    Ok(text.lines().map(|line| without_wordnet_id(line.trim()).to_owned()).collect())
}

fn without_wordnet_id(label: &str) -> &str {
    match label.split_once(' ') {
        Some((id, name)) if is_wordnet_id(id) => name.trim_start(),
        _ => label,
    }
}

fn is_wordnet_id(word: &str) -> bool {
    word.strip_prefix('n').is_some_and(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))
}
