//! The list of mutants, and all of them at once in a copy of the source: every edited expression becomes
//! `if mutant("a") { .. } else if mutant("b") { .. } else { the original }`, so that one build serves all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Names the environment variable by which the copy chooses its mutant.
pub(super) const VARIABLE: &str = "PRIVET_MUTANT";

/// Appended to the lowest crate, which all edited ones depend on.
const CHOICE: &str = r#"
/// Whether this is the mutant that runs.
pub fn mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("PRIVET_MUTANT").ok()).as_deref() == Some(name)
}
"#;

/// The file that [`CHOICE`] is appended to.
const CHOICE_FILE: &str = "crates/ring/src/lib.rs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub(super) mutant: Vec<Mutant>,
}

/// A change that a test has to notice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutant {
    pub(super) name: String,
    /// What leaks.
    pub(super) why: String,
    /// All of these have to fail,
    pub(super) tests: Vec<String>,
    /// which are in this program,
    #[serde(default)]
    pub(super) program: Program,
    /// with all of these engines.
    #[serde(default = "engines")]
    pub(super) engines: Vec<String>,
    edits: Vec<Edit>,
}

/// A program of tests.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Program {
    /// What parties see: `crates/protocols/tests/leakage`.
    #[default]
    Leakage,
    /// What connections use up: `crates/privet/tests/sessions.rs`.
    Sessions,
}

impl Program {
    pub(super) const ALL: [Self; 2] = [Self::Leakage, Self::Sessions];

    /// Its name, and where its files are.
    pub(super) fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Leakage => ("leakage", "crates/protocols/tests/leakage/"),
            Self::Sessions => ("sessions", "crates/privet/tests/sessions.rs"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: PathBuf,
    /// Where `find` is, if it is at several places.
    within: Option<String>,
    find: String,
    replace: String,
}

fn engines() -> Vec<String> {
    ["2pc", "3pc"].map(str::to_owned).into()
}

/// The committed list.
pub(super) fn list(root: &Path) -> Result<Vec<Mutant>> {
    let path = root.join("xtask/mutants.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let List { mutant } = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut names: Vec<&str> = mutant.iter().map(|m| m.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        ensure!(pair[0] != pair[1], "two mutants are called {}", pair[0]);
    }
    for m in &mutant {
        ensure!(!m.tests.is_empty() && !m.edits.is_empty(), "{}: no tests or no edits", m.name);
    }
    Ok(mutant)
}

/// The edited files, relative to the root. Errors when an edit's place is not found, or more than once.
pub(super) fn edited(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<PathBuf, String>> {
    let mut files: BTreeMap<&Path, (String, Vec<Place>)> = BTreeMap::new();
    for mutant in mutants {
        for edit in &mutant.edits {
            if !files.contains_key(edit.file.as_path()) {
                let path = root.join(&edit.file);
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                files.insert(&edit.file, (text, Vec::new()));
            }
            let (text, places) = files.get_mut(edit.file.as_path()).context("just inserted")?;
            let at = place(text, edit).with_context(|| {
                format!("mutant {}, {}: mend xtask/mutants.toml", mutant.name, edit.file.display())
            })?;
            match places.iter_mut().find(|p| p.at.start < at.end && at.start < p.at.end) {
                Some(same) if same.at == at => same.choices.push((&mutant.name, &edit.replace)),
                Some(_) => bail!("{}: {} overlaps with another edit", mutant.name, edit.find),
                None => places.push(Place { at, choices: vec![(&mutant.name, &edit.replace)] }),
            }
        }
    }
    let choice_file = Path::new(CHOICE_FILE);
    let mut edited: BTreeMap<PathBuf, String> = files
        .into_iter()
        .map(|(file, (text, places))| (file.to_owned(), splice(file, &text, places)))
        .collect();
    if !edited.contains_key(choice_file) {
        edited.insert(choice_file.to_owned(), std::fs::read_to_string(root.join(choice_file))?);
    }
    edited.entry(choice_file.to_owned()).and_modify(|text| text.push_str(CHOICE));
    Ok(edited)
}

/// An expression and what replaces it in each mutant.
struct Place<'a> {
    at: Range<usize>,
    choices: Vec<(&'a str, &'a str)>,
}

fn place(text: &str, edit: &Edit) -> Result<Range<usize>> {
    let outer = match &edit.within {
        Some(within) => only(text, within)?,
        None => 0..text.len(),
    };
    let inner = only(&text[outer.clone()], &edit.find)?;
    Ok(outer.start + inner.start..outer.start + inner.end)
}

/// Where `part` occurs, which has to be once.
fn only(text: &str, part: &str) -> Result<Range<usize>> {
    let mut found = text.match_indices(part);
    let (start, _) = found.next().with_context(|| format!("not found: {part}"))?;
    ensure!(found.next().is_none(), "found more than once: {part}");
    Ok(start..start + part.len())
}

fn splice(file: &Path, text: &str, mut places: Vec<Place>) -> String {
    places.sort_by_key(|p| std::cmp::Reverse(p.at.start));
    let path = if file.starts_with("crates/ring") { "crate" } else { "privet_ring" };
    let mut text = text.to_owned();
    for Place { at, choices } in places {
        let original = &text[at.clone()];
        let chosen =
            |(name, replace): &(&str, &str)| format!("if {path}::mutant({name:?}) {{ {replace} }} else ");
        let all: String = choices.iter().map(chosen).collect();
        let spliced = format!("({all}{{ {original} }})");
        text.replace_range(at, &spliced);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(within: Option<&str>, find: &str) -> Edit {
        Edit {
            file: PathBuf::from("crates/a.rs"),
            within: within.map(str::to_owned),
            find: find.to_owned(),
            replace: "0".to_owned(),
        }
    }

    #[test]
    fn places_have_to_be_unique() {
        let text = "let a = f(x); let b = f(x);";
        assert_eq!(place(text, &edit(None, "let a")).unwrap(), 0..5);
        assert_eq!(place(text, &edit(Some("b = f(x)"), "f(x)")).unwrap(), 22..26);
        assert!(place(text, &edit(None, "f(x)")).unwrap_err().to_string().contains("more than once"));
        assert!(place(text, &edit(None, "g(x)")).unwrap_err().to_string().contains("not found"));
    }

    #[test]
    fn several_mutants_share_a_place() {
        let places = vec![Place { at: 8..12, choices: vec![("one", "1"), ("two", "2")] }];
        assert_eq!(
            splice(Path::new("crates/a.rs"), "let a = f(x);", places),
            "let a = (if privet_ring::mutant(\"one\") { 1 } else if privet_ring::mutant(\"two\") { 2 } else { f(x) });"
        );
    }
}
