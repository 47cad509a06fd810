//! What people and programs get to see.

pub(crate) mod answer;
pub(crate) mod json;
pub(crate) mod observe;
pub(crate) mod table;

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// A line on stdout. That nobody reads it (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
