//! What people and programs get to see.

pub(crate) mod answer;
pub(crate) mod choice;
pub(crate) mod json;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod table;

use std::io::{ErrorKind, Write};

use anyhow::Context;
use privet::model::Accuracy;

/// Text that may hold names from a peer or file, safe for a terminal: control characters but line ends become blanks.
pub(crate) fn printable(text: &str) -> String {
    text.split('\n').map(printable_line).collect::<Vec<_>>().join("\n")
}

/// A name from a peer or file: all control characters become blanks, so that it neither steers the terminal nor looks like
/// another line.
pub(crate) fn printable_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A line on stdout. That nobody reads it (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", printable(text)).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// What calibration measured, in one line.
pub(crate) fn accuracy_line(accuracy: &Accuracy) -> String {
    let Accuracy { inputs, max_abs_error, relative_error, differing, tolerance } = accuracy;
    let asked = tolerance.map_or_else(String::new, |t| format!(", asked for {t:e}"));
    let whole = match differing {
        0 => String::new(),
        n => format!("; {n} whole-numbered output elements differ"),
    };
    let inputs = if *inputs == 1 {
        "the calibration input".to_owned()
    } else {
        format!("{inputs} calibration inputs")
    };
    format!(
        "error on {inputs}: {max_abs_error:.2e}, relative to the largest output {relative_error:.2e}{asked}{whole}"
    )
}
