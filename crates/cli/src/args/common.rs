//! Arguments that several commands take.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;
use privet::predict::DEFAULT_MAX_KEY_BYTES;

use super::Engine;
use crate::exit::{Code, Failure};
use crate::network::Network;

/// What is shown of an answer.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// How many classes to show.
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub(crate) topk: usize,
    /// Write the outputs: .npz, or .npy and .csv for a single one.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// One line of JSON on stdout; everything else goes to stderr.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What parties have in common: how slow their connections are made, and what parent and child processes of `privet run`
/// tell each other.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// Make connections as slow as this network, to measure on one machine; all parties have to say the same. It only slows
    /// down, and protects nothing.
    #[arg(long, value_name = "lan|wan|RATE:RTT[:JITTER]", default_value = Network::LOOPBACK, value_parser = Network::parse, global = true)]
    pub(crate) network: Network,
    /// Write events as lines of JSON to stdout.
    #[arg(long, global = true, hide = true)]
    pub(crate) events: bool,
    /// Exit when the process of this id, the parent, has gone.
    #[arg(long, global = true, hide = true, value_name = "PID")]
    pub(crate) exit_with_parent: Option<i32>,
}

/// A version of a model.
pub(crate) fn model_version(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "expected a version: 1, 2, ..".to_owned())
}

/// `HOST:PORT`; whether there is such a host shows later.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("expected HOST:PORT, with a port from 0 to 65535".to_owned());
    }
    Ok(text.to_owned())
}

/// What `--engine auto` may choose.
#[derive(Debug, Default, Args)]
pub(crate) struct AutoArgs {
    /// With --engine auto, megabytes of keys that each party may have to store for an inference [default: 4000].
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    max_keys: Option<u64>,
}

impl AutoArgs {
    /// Refuses a limit for engines that choose nothing.
    pub(crate) fn check(&self, engines: &[Engine]) -> anyhow::Result<()> {
        match self.max_keys {
            Some(mb) if !engines.contains(&Engine::Auto) => {
                let text = format!("--max-keys {mb} is about --engine auto, which is not asked for");
                Err(Failure::error(Code::Usage, text))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_keys.map_or(DEFAULT_MAX_KEY_BYTES, |mb| mb * 1_000_000)
    }
}
