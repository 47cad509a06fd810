//! What people and programs get to see.

pub(crate) mod answer;
pub(crate) mod json;
pub(crate) mod observe;
pub(crate) mod table;

use std::io::{ErrorKind, Write};

use anyhow::Context;

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
