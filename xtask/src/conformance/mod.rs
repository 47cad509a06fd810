//! The cases of the ONNX backend suite, in float, by an independent oracle, and on the cleartext engine and a private one.
//!
//! A case runs in up to two modes: all float inputs are the client's, and all but the first are the model owner's weights.
//! Shapes, indices, axes, bounds and fill values are bound as constants. It passes if every mode that compiles passes and at
//! least one does: engines bit-equal with each other and the oracle, and all close to the expected output.

mod case;
mod exceptions;
#[path = "../../../crates/graph/tests/common/integers.rs"]
mod oracle;
mod scope;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::engine::Engine;

/// The ring that cases run in.
pub const RING: u32 = 64;
/// Fractional bits of inputs and weights.
pub const FRAC_BITS: u8 = 20;
/// Largest error of the engines, in units of `1 + |expected|`.
pub const TOLERANCE: f64 = 1e-3;
/// Largest error of float evaluation, in units of `1 + |expected|`.
pub const FLOAT_TOLERANCE: f64 = 1e-4;

/// Sets of cases that are run; `onnx_light` is what `cargo xtask architectures` is for.
const SETS: [&str; 3] = ["onnx_node", "onnx_simple", "onnx_pytorch_operator"];
/// The machine that this has to be bearable on has two cores.
const THREADS: usize = 2;

/// What to run.
pub struct Options {
    /// The engine.
    pub engine: Engine,
    /// Directory with the sets of cases.
    pub data: PathBuf,
    /// Only cases whose name contains this.
    pub filter: String,
}

/// How a case's float inputs are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All are the client's.
    Inputs,
    /// The first is the client's, the others are weights.
    Weights,
    /// Nothing depends on the client: the compiler folds the result.
    Constant,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inputs => "all inputs the client's",
            Self::Weights => "all but the first input as weights",
            Self::Constant => "folded to a constant",
        })
    }
}

/// What became of a case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It gives what is expected.
    Passed {
        /// The modes it runs in.
        modes: Vec<Mode>,
        /// The largest error of the engines, in units of `1 + |expected|`.
        error: f64,
    },
    /// It is in scope and does not give what is expected, for this reason.
    #[serde(serialize_with = "exceptions::reason")]
    Failed(String),
    /// It is not in scope, for this reason.
    #[serde(serialize_with = "exceptions::reason")]
    OutOfScope(String),
}

/// What became of all cases.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The engine.
    pub engine: Engine,
    /// Every case.
    pub cases: BTreeMap<String, Verdict>,
    /// Cases of the committed list, and why they may fail.
    pub exceptions: BTreeMap<String, String>,
    /// Listed cases that do not fail any more.
    pub obsolete: Vec<String>,
    /// Failed cases that are not listed.
    pub unexpected: Vec<String>,
}

/// The directory with the cases: the given one, the shared test data, or what has been fetched.
///
/// # Errors
/// None of them exists.
pub fn data(given: Option<PathBuf>) -> Result<PathBuf> {
    let shared = crate::root().join("../shared/data/conformance");
    let candidates = given.map_or_else(|| vec![shared, crate::fetch::directory()], |given| vec![given]);
    let found = candidates.iter().find(|c| SETS.iter().any(|set| c.join(set).is_dir()));
    found.cloned().with_context(|| {
        let names: Vec<String> = candidates.iter().map(|c| c.display().to_string()).collect();
        format!("no cases in {}; `cargo xtask fetch-conformance` downloads them", names.join(" or "))
    })
}

/// Runs all cases.
///
/// # Errors
/// The data or the list of exceptions cannot be read.
pub fn run(options: &Options) -> Result<Report> {
    let exceptions = exceptions::load()?;
    let mut cases = BTreeMap::new();
    let mut queue = Vec::new();
    for (name, result) in listed(&options.data)? {
        if !name.contains(&options.filter) {
            continue;
        }
        let present = options.data.join(&name).join("model.onnx").is_file();
        if result != "pass" {
            cases.insert(name, Verdict::OutOfScope(format!("ONNX Runtime itself: {result}")));
        } else if present {
            queue.push(name);
        } else {
            cases.insert(name, Verdict::OutOfScope("the case's files are not in the data".to_owned()));
        }
    }
    anyhow::ensure!(
        !(cases.is_empty() && queue.is_empty()),
        "no case has {:?} in its name; their names are those of the folders under {}",
        options.filter,
        options.data.display()
    );
    let bar = crate::progress(queue.len() as u64);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(queue.len())));
    // A panic is a verdict like any other; what it prints would tear the progress bar apart.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(name) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bar.set_message(name.clone());
                    let verdict = case::run(&options.data.join(name), options.engine);
                    done.lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((name.clone(), verdict));
                    bar.inc(1);
                }
            });
        }
    });
    std::panic::set_hook(hook);
    bar.finish_and_clear();
    cases.extend(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));

    let passes = |name: &&String| matches!(cases.get(*name), Some(Verdict::Passed { .. }));
    let fails = |name: &&String| matches!(cases.get(*name), Some(Verdict::Failed(_)));
    let obsolete = exceptions.keys().filter(passes).cloned().collect();
    let listed = |name: &&String| exceptions.contains_key(*name);
    let unexpected = cases.keys().filter(|name| fails(name) && !listed(name)).cloned().collect();
    Ok(Report { engine: options.engine, cases, exceptions, obsolete, unexpected })
}

/// Cases with what ONNX Runtime makes of them; without such a list, all that there are.
fn listed(data: &Path) -> Result<BTreeMap<String, String>> {
    let results = data.join("ort_results.json");
    if results.is_file() {
        let text = std::fs::read_to_string(&results)?;
        let mut all: BTreeMap<String, String> =
            serde_json::from_str(&text).with_context(|| results.display().to_string())?;
        all.retain(|name, _| {
            SETS.iter().any(|set| name.strip_prefix(set).is_some_and(|n| n.starts_with('/')))
        });
        return Ok(all);
    }
    let mut all = BTreeMap::new();
    for set in SETS.iter().filter(|set| data.join(set).is_dir()) {
        for entry in std::fs::read_dir(data.join(set))? {
            let name = entry?.file_name();
            all.insert(format!("{set}/{}", name.to_string_lossy()), "pass".to_owned());
        }
    }
    if all.is_empty() {
        bail!("no cases in {}", data.display());
    }
    Ok(all)
}

impl Report {
    /// Whether every case in scope passes or is a listed exception, and every listed exception is still needed.
    pub fn holds(&self) -> bool {
        self.unexpected.is_empty() && self.obsolete.is_empty()
    }

    /// How many cases pass.
    pub fn passed(&self) -> usize {
        self.cases.values().filter(|v| matches!(v, Verdict::Passed { .. })).count()
    }

    /// How many cases pass in this mode.
    pub fn passed_as(&self, mode: Mode) -> usize {
        let passes = |v: &&Verdict| matches!(v, Verdict::Passed { modes, .. } if modes.contains(&mode));
        self.cases.values().filter(passes).count()
    }

    /// For people.
    pub fn text(&self, verbose: bool) -> String {
        let mut lines = Vec::new();
        let (mut failed, mut worst) = (0, 0.0f64);
        let mut out: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, verdict) in &self.cases {
            match verdict {
                Verdict::Passed { modes, error } => {
                    worst = worst.max(*error);
                    if verbose {
                        let modes: Vec<String> = modes.iter().map(Mode::to_string).collect();
                        lines.push(format!("passed       {name}: {}, error {error:.1e}", modes.join("; ")));
                    }
                }
                Verdict::Failed(reason) => {
                    failed += 1;
                    match self.exceptions.get(name) {
                        Some(why) => lines.push(format!("exception    {name}: {why} ({reason})")),
                        None => lines.push(format!("FAILED       {name}: {reason}")),
                    }
                }
                Verdict::OutOfScope(reason) => {
                    *out.entry(reason).or_default() += 1;
                    if verbose {
                        lines.push(format!("out of scope {name}: {reason}"));
                    }
                }
            }
        }
        lines.extend(
            self.obsolete.iter().map(|n| format!("PASSES NOW   {n}: remove it from {}", exceptions::FILE)),
        );
        let mut reasons: Vec<(&str, usize)> = out.into_iter().collect();
        reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        lines.extend(reasons.iter().map(|(reason, count)| format!("out of scope {count:4}  {reason}")));
        lines.push(format!(
            "{} passed, {failed} failed ({} unexpected), {} out of scope",
            self.passed(),
            self.unexpected.len(),
            reasons.iter().map(|(_, count)| count).sum::<usize>()
        ));
        for mode in [Mode::Inputs, Mode::Weights, Mode::Constant] {
            lines.push(format!("{:4} passed with {mode}", self.passed_as(mode)));
        }
        let engine = match self.engine {
            Engine::Cleartext => "cleartext engine equal to the oracle".to_owned(),
            private => format!("{} equal to cleartext, cleartext equal to the oracle", private.name()),
        };
        lines.push(format!(
            "{RING}-bit ring, {FRAC_BITS} fractional bits: {engine}, bit for bit; at most {worst:.1e} off, \
             {TOLERANCE:.0e} allowed (float {FLOAT_TOLERANCE:.0e}), in units of 1 + |expected|"
        ));
        lines.join("\n") + "\n"
    }
}
