//! The program that an engine runs: which steps take keys, and what `--engine auto` chooses.

use privet::predict::{self, Choice, Machine, Prediction, predict};
use privet::{Plan, RevealTo};

use crate::args::{AutoArgs, Engine};
use crate::network::Network;

/// The program as an engine runs it over `network`.
pub(crate) fn program(
    engine: Engine,
    plan: &Plan,
    network: &Network,
    keys: &AutoArgs,
) -> anyhow::Result<Plan> {
    Ok(match engine {
        Engine::Fss => plan.with_fss(),
        Engine::Auto => choose(plan, RevealTo::Client, network, keys)?.0.plan,
        _ => plan.clone(),
    })
}

/// Calibrates this machine and chooses which steps take keys; and predicts the plan that comes of it.
pub(crate) fn choose(
    plan: &Plan,
    reveal_to: RevealTo,
    network: &Network,
    keys: &AutoArgs,
) -> anyhow::Result<(Choice, Prediction)> {
    let machine = Machine::calibrate_to_choose(plan)?;
    let choice = predict::choose(plan, reveal_to, &machine, network.link, keys.max_bytes());
    let prediction = predict(&choice.plan, reveal_to, &machine, network.link);
    Ok((choice, prediction))
}
