//! The committed list of cases in scope that may fail; it may only shrink.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Serialize, Serializer};

/// Where the list is, from the root of the workspace.
pub(super) const FILE: &str = "xtask/conformance-exceptions.txt";

/// Cases and why they may fail.
pub(super) fn load() -> Result<BTreeMap<String, String>> {
    parse(&std::fs::read_to_string(crate::root().join(FILE)).context(FILE)?)
}

fn parse(text: &str) -> Result<BTreeMap<String, String>> {
    let mut exceptions = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, reason)) = line.split_once(char::is_whitespace) else {
            bail!("{FILE}: expected a case and a reason, found {line:?}");
        };
        if exceptions.insert(name.to_owned(), reason.trim().to_owned()).is_some() {
            bail!("{FILE}: {name} is listed twice");
        }
    }
    Ok(exceptions)
}

/// A reason as a field of its own.
pub(super) fn reason<S: Serializer>(reason: &str, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Reason<'a> {
        reason: &'a str,
    }
    Reason { reason }.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_has_a_reason() {
        assert!(load().is_ok());
        assert_eq!(parse("# why\n\na/b  because of c\n").unwrap()["a/b"], "because of c");
        assert!(parse("a/b").is_err() && parse("a b\na c").is_err());
    }
}
