//! Mutants: committed changes that drop a mask or break a rule, each of which the tests of leakage or of sessions have to notice.
//!
//! A copy of the workspace, `target/mutants`, contains them all (`schemata.rs`); it is built once, with the profile and into
//! the directory of this program, so that dependencies are not built again. The copy's crates have a version of their own: cargo
//! knows a crate by its name, version and place in the workspace, and would take the mutants for the originals. The tests run once without a mutant and
//! have to pass, then for each mutant those that have to fail, with every engine that the mutant names. A test that fails because of
//! a wrong result does not count: a mutant keeps all results right.

mod schemata;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use self::schemata::{Mutant, Program, VARIABLE};

/// Tells the leakage tests which engines to test.
const ENGINES: &str = "PRIVET_LEAKAGE_ENGINES";

/// What became of the mutants.
#[derive(Serialize)]
pub struct Report {
    /// One entry each, in the order of the list.
    pub mutants: Vec<Outcome>,
}

/// What became of a mutant.
#[derive(Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What leaks.
    pub why: String,
    /// For every test that has to fail, why that failure does not count, or that there was none.
    pub survived: Vec<String>,
}

impl Report {
    /// Whether every mutant was killed.
    pub fn holds(&self) -> bool {
        self.mutants.iter().all(|m| m.survived.is_empty())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for m in &self.mutants {
            let state = if m.survived.is_empty() { "killed" } else { "SURVIVED" };
            let _ = writeln!(text, "{state:9} {:45} {}", m.name, m.why);
            m.survived.iter().for_each(|s| {
                let _ = writeln!(text, "          {s}");
            });
        }
        let killed = self.mutants.iter().filter(|m| m.survived.is_empty()).count();
        let _ = writeln!(text, "{killed} of {} mutants killed", self.mutants.len());
        text
    }
}

/// Checks that every edit of the list finds its place. Returns the number of mutants.
///
/// # Errors
/// What does not fit the source, and where.
pub fn check() -> Result<usize> {
    let root = crate::root();
    let mutants = schemata::list(&root)?;
    schemata::edited(&root, &mutants)?;
    Ok(mutants.len())
}

/// Builds and tests the mutants whose names contain `only`.
///
/// # Errors
/// When the list does not fit the source, the copy does not build, or a test fails without any mutant.
pub fn run(only: &str) -> Result<Report> {
    let root = crate::root();
    let mutants = schemata::list(&root)?;
    let programs = build(&root, &mutants)?;
    let chosen: Vec<&Mutant> = mutants.iter().filter(|m| m.name.contains(only)).collect();
    ensure!(!chosen.is_empty(), "no mutant is called {only}");
    let mut tests: Vec<(&str, &Path)> = Vec::new();
    for mutant in &chosen {
        let own = mutant.tests.iter().map(|test| (test.as_str(), programs.of(mutant.program)));
        tests.extend(own);
    }
    tests.sort_unstable();
    tests.dedup();
    side_by_side(&tests, |(test, program)| {
        let (passes, output) = execute(program, None, test)?;
        ensure!(passes, "without any mutant, the test {test} fails:\n{output}");
        Ok(())
    })?;
    Ok(Report { mutants: side_by_side(&chosen, |mutant| judge(programs.of(mutant.program), mutant))? })
}

fn judge(program: &Path, mutant: &Mutant) -> Result<Outcome> {
    let mut survived = Vec::new();
    for test in &mutant.tests {
        let (passes, output) = execute(program, Some(mutant), test)?;
        let failing = output.lines().filter_map(|line| line.strip_prefix("fails with ")).next_back();
        let failing: Vec<&str> = failing.into_iter().flat_map(|engines| engines.split(", ")).collect();
        if passes {
            survived.push(format!("{test} passes"));
        } else if output.contains("the result is wrong") || !is_noticed(mutant.program, &output) {
            survived.push(format!("{test} fails for another reason than a leak:\n{output}"));
        } else if let Some(engine) = mutant.engines.iter().find(|engine| !failing.contains(&engine.as_str()))
        {
            survived.push(format!("{test} passes with {engine}"));
        }
    }
    Ok(Outcome { name: mutant.name.clone(), why: mutant.why.clone(), survived })
}

/// Whether the tests have panicked, and nothing else has.
fn is_noticed(program: Program, output: &str) -> bool {
    let (_, own) = program.place();
    let mut places =
        output.match_indices("panicked at ").map(|(at, found)| &output[at + found.len()..]).peekable();
    places.peek().is_some() && places.all(|place| place.starts_with(own))
}

/// Runs one test of the program, with the engines that the mutant names. Returns whether it passes, and what it says.
fn execute(program: &Path, mutant: Option<&Mutant>, test: &str) -> Result<(bool, String)> {
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).stdin(Stdio::null());
    command.env_remove(VARIABLE).env_remove(ENGINES);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, &mutant.name).env(ENGINES, mutant.engines.join(", "));
    }
    let output = command.output().with_context(|| program.display().to_string())?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(text.contains("running 1 test"), "there is no test {test}; mend xtask/mutants.toml:\n{text}");
    Ok((output.status.success(), text))
}

/// Runs `work` on all items, as many at a time as there are processors.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut results: Vec<(usize, Result<R>)> = std::thread::scope(|scope| {
        let lane = || {
            let mut own = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(i) else { return own };
                own.push((i, work(item)));
            }
        };
        let lanes: Vec<_> = (0..threads).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_default()).collect()
    });
    ensure!(results.len() == items.len(), "a thread that tests mutants has panicked");
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The programs of a copy with all mutants, in the order of [`Program::ALL`].
struct Programs(Vec<PathBuf>);

impl Programs {
    fn of(&self, program: Program) -> &Path {
        &self.0[program as usize]
    }
}

/// Builds the tests of a copy with all mutants.
fn build(root: &Path, mutants: &[Mutant]) -> Result<Programs> {
    let mut edited = schemata::edited(root, mutants)?;
    let own = std::env::current_exe().context("the path of this program")?;
    // TARGET/PROFILE/xtask, or TARGET/PROFILE/deps/mutants-0123 in a test.
    let mut profile = own.parent().context("a program is in a directory")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("deps is in a directory")?;
    }
    let target = profile.parent().context("a profile is in the target directory")?;
    let profile = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => bail!("{} is in no cargo target directory", own.display()),
    };
    let copy = target.join("mutants");
    std::fs::create_dir_all(&copy).with_context(|| copy.display().to_string())?;
    edited.insert(
        PathBuf::from("Cargo.toml"),
        other_version(&std::fs::read_to_string(root.join("Cargo.toml"))?)?,
    );
    for part in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "assets", "crates", "xtask"] {
        mirror(&root.join(part), &copy.join(part), &mut |file| {
            file.strip_prefix(root).ok().and_then(|file| edited.get(file)).cloned()
        })?;
    }
    // With the features of the whole workspace, dependencies are those that are there.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--workspace", "--offline", "--no-run", "--message-format", "json"]);
    command.args(Program::ALL.iter().flat_map(|program| ["--test", program.place().0]));
    command.args(["--profile", profile]).arg("--target-dir").arg(target).current_dir(&copy);
    let output = command.stdin(Stdio::null()).output().context("cargo")?;
    if !output.status.success() {
        let errors: Vec<String> = messages(&output.stdout)
            .filter_map(|m| Some(m.get("message")?.get("rendered")?.as_str()?.to_owned()))
            .filter(|text| text.starts_with("error"))
            .collect();
        bail!("the mutants do not build: {}{}", errors.concat(), String::from_utf8_lossy(&output.stderr));
    }
    let programs = Program::ALL.iter().map(|program| {
        let (name, _) = program.place();
        let executable = messages(&output.stdout).find_map(|m| {
            let is_test = m.get("target")?.get("name")?.as_str()? == name;
            m.get("executable")?.as_str().filter(|_| is_test).map(PathBuf::from)
        });
        executable.with_context(|| format!("cargo has built no test called {name}"))
    });
    Ok(Programs(programs.collect::<Result<_>>()?))
}

/// The workspace's manifest with another version for its crates.
fn other_version(manifest: &str) -> Result<String> {
    let (before, package) =
        manifest.split_once("[workspace.package]\nversion = \"").context("no version in Cargo.toml")?;
    let (version, after) = package.split_once('"').context("no version in Cargo.toml")?;
    Ok(format!("{before}[workspace.package]\nversion = \"{version}-mutants\"{after}"))
}

fn messages(output: &[u8]) -> impl Iterator<Item = serde_json::Value> + '_ {
    output.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// Copies a file or directory, with the content that `edit` gives instead; leaves alone what is equal already, so that
/// cargo does not build it again, and removes what is no longer there.
fn mirror(from: &Path, to: &Path, edit: &mut impl FnMut(&Path) -> Option<String>) -> Result<()> {
    if from.is_dir() {
        std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        for entry in std::fs::read_dir(to)? {
            let entry = entry?;
            if !from.join(entry.file_name()).exists() {
                let path = entry.path();
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
                    .with_context(|| path.display().to_string())?;
            }
        }
        for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
            let name = entry?.file_name();
            mirror(&from.join(&name), &to.join(&name), edit)?;
        }
        return Ok(());
    }
    let content = match edit(from) {
        Some(text) => text.into_bytes(),
        None => std::fs::read(from).with_context(|| from.display().to_string())?,
    };
    if std::fs::read(to).ok().as_ref() != Some(&content) {
        std::fs::write(to, content).with_context(|| to.display().to_string())?;
    }
    Ok(())
}
