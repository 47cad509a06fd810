//! The `privet` command. Everything it does is in the `privet` library; here are arguments, processes and presentation.

#![forbid(unsafe_code)]

mod args;
mod attest;
mod bench;
mod choice;
mod cluster;
mod commands;
mod compare;
mod enclave;
mod exit;
mod export;
mod given;
mod held;
mod keys;
mod launch;
mod manifest;
mod network;
mod parties;
mod pin;
mod plain;
mod plan;
mod plot;
mod run;
mod scratch;
mod seal;
mod secrets;
mod show;
mod signals;
mod split;
mod stages;
mod status;
mod tee;
mod watch;
mod worker_files;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;
use privet_ring::wipe::WipingAllocator;

use args::{Cli, Command};
use exit::Code;

/// Wipes what is freed where a command holds a sealed model.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The panic message is already on stderr; the exit code should not be a surprise as well.
    let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(cli)));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            if !error.to_string().is_empty() {
                eprintln!("{}", exit::message(&error));
            }
            Code::of(&error).into()
        }
        Err(_) => Code::Internal.into(),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    signals::fail_writes_beyond_the_limit()?;
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Setup(args) => commands::setup(&args),
        Command::Compile(args) => commands::compile(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Compare(args) => compare::compare(&args),
        Command::Export(args) => export::export(&args),
        Command::Plain(args) => plain::run(&args),
        Command::Status(args) => status::status(&args),
        Command::Dealer(args) => commands::dealer(&args),
        Command::Server(args) => commands::server(&args),
        Command::Client(args) => commands::client(&args),
        Command::Share(args) => cluster::share(&args),
        Command::Party(args) => cluster::party(&args),
        Command::Reveal(args) => cluster::reveal(&args),
        Command::Launch(args) => launch::launch(&args),
        Command::Split(args) => split::split(&args),
        Command::Stages(args) => stages::stages(&args),
        Command::Attest(args) => attest::attest(&args),
        Command::Keyserver(args) => keys::keyserver(&args),
        Command::Keycache(args) => keys::keycache(&args),
        Command::Enclave(args) => enclave::enclave(&args),
        Command::Key(args) => seal::key(&args),
        Command::Seal(args) => seal::seal(&args),
        Command::Unseal(args) => seal::unseal(&args),
        Command::Manifest(args) => manifest::manifest(&args),
    }
}
