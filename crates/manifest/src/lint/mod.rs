//! Explains what is unsafe in a manifest, or in a template of one.
//!
//! Rules follow Gramine 1.9's documentation of its manifests. What is deprecated or unknown is named as well: an option that
//! Gramine does not know protects nothing.

mod document;
mod files;
mod options;
mod schema;

use std::fmt;

use privet_lint::Severity;
use serde::Serialize;

use crate::ManifestError;
use document::Document;

/// Larger files are no manifests.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// From 1; 0 for what is missing.
    pub line: usize,
    /// The option, as `sgx.debug`.
    pub key: String,
    /// How bad it is.
    pub severity: Severity,
    /// Name of the rule.
    pub rule: &'static str,
    /// Why, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} [{}]", self.severity, self.key, self.message, self.rule)
    }
}

/// What is unsafe in a manifest, by lines; what is missing comes first.
///
/// # Errors
/// It is not TOML, also with the places of a template filled in, or larger than [`MAX_MANIFEST_BYTES`].
pub fn lint(text: &str) -> Result<Vec<Finding>, ManifestError> {
    let document = Document::parse(text)?;
    let mut findings = Findings { found: Vec::new() };
    if document.is_template {
        findings.add(1, "", Severity::Note, "template", "this is a template: what stands in {{ }} and {% %} is not judged; lint what gramine-manifest makes of it as well");
    }
    schema::check(&document, &mut findings);
    options::check(&document, &mut findings);
    files::check(&document, &mut findings);
    let mut found = findings.found;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Where rules put what they find.
struct Findings {
    found: Vec<Finding>,
}

impl Findings {
    fn add(
        &mut self,
        line: usize,
        key: impl Into<String>,
        severity: Severity,
        rule: &'static str,
        message: impl Into<String>,
    ) {
        self.found.push(Finding { line, key: key.into(), severity, rule, message: message.into() });
    }
}
