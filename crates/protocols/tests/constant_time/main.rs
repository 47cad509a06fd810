//! Neither the path through the program nor the time depends on secrets.
//!
//! As a test, and without arguments: [`path`], where valgrind is installed. With `--measure [NUMBER]`: [`timing`], which is
//! a measurement and therefore no test; NUMBER is how often each piece of code is measured, 100000 by default.
//! A program of its own rather than a test harness, whose threads and clocks would be on the path.

#[path = "../common/mod.rs"]
mod common;
mod path;
mod tape;
mod three_party;
mod timing;
mod two_party;

use std::path::Path;
use std::process::ExitCode;

use common::samples::samples;

/// Name of the only test.
const TEST: &str = "the_path_through_the_program_does_not_depend_on_secrets";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [path::CHILD, engine, sample, file] => path::child(engine, sample, Path::new(file)),
        ["--measure", ref rest @ ..] => {
            return measure(rest.first().and_then(|n| n.parse().ok()).unwrap_or(100_000));
        }
        // What test runners ask: the names of all tests, of the ignored ones, to run one.
        _ if arguments.contains(&"--list") => {
            if !arguments.contains(&"--ignored") {
                println!("{TEST}: test");
            }
        }
        _ if !path::is_possible() => eprintln!("SKIPPED: {TEST}: valgrind is not installed"),
        _ => compare(arguments.contains(&"--all")),
    }
    ExitCode::SUCCESS
}

fn compare(all: bool) {
    let directory = std::env::temp_dir().join(format!("privet-path-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for engine in &path::ENGINES {
        for sample in samples().iter().filter(|s| all || engine.tested.contains(&s.name)) {
            let instructions = path::check(engine, sample, &directory);
            println!("{}, {:50} {instructions:>9} instructions, one path", engine.name, sample.name);
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

fn measure(measurements: usize) -> ExitCode {
    println!("{:56} {:>10} {:>8}", "", "median ns", "|t|");
    let mut holds = true;
    timing::run(measurements, |finding| {
        let timing::Finding { name, t, nanoseconds } = finding;
        holds &= *t < timing::BOUND;
        println!(
            "{name:56} {nanoseconds:>10.0} {t:>8.2}{}",
            if *t < timing::BOUND { "" } else { "  DIFFERENT" }
        );
    });
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
