//! The lines of a verdict: what was checked, what was expected, what was found.

use std::fmt;

use serde::Serialize;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was checked.
    pub check: String,
    /// What passes.
    pub expected: String,
    /// What was there.
    pub found: String,
    /// Whether it passed.
    pub passed: bool,
}

impl Line {
    /// A line.
    pub fn new(
        check: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        passed: bool,
    ) -> Self {
        Self { check: check.into(), expected: expected.into(), found: found.into(), passed }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, expected, found, passed } = self;
        let mark = if *passed { "ok     " } else { "REFUSED" };
        write!(f, "{mark} {check}: expected {expected}, found {found}")
    }
}

/// All checks of an appraisal. Accepted means that there are some and all passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// In the order in which they were made.
    pub lines: Vec<Line>,
}

impl Verdict {
    /// Whether the policy accepts.
    pub fn accepted(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.passed)
    }

    /// The checks that did not pass, in one line of text.
    pub fn failures(&self) -> String {
        let failed = self.lines.iter().filter(|line| !line.passed);
        let text: Vec<String> =
            failed.map(|l| format!("{}: expected {}, found {}", l.check, l.expected, l.found)).collect();
        text.join("; ")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
