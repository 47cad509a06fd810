//! Stub
use anyhow::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
/// size
#[derive(Clone, Copy)]
pub enum Size {
    /// f
    Full,
    /// r
    Reduced,
}
/// report
#[derive(Serialize)]
pub struct Report {}
impl Report {
    /// t
    pub fn text(&self) -> String {
        String::new()
    }
}
/// run
pub fn run(_: Size, _: Option<&str>, _: &Path, _: Option<PathBuf>) -> Result<Report> {
    Ok(Report {})
}
