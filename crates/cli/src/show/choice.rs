//! What `--engine auto` chose, as tables.

use comfy_table::Table;
use privet::predict::{Alternative, Choice, Gate};

use super::plan::{bytes, short};
use super::table;
use crate::network::Network;

/// One line per step that compares, and the whole next to both engines.
pub(crate) fn describe(network: &Network, choice: &Choice) -> String {
    let mut steps = Table::new();
    steps.load_style(table::STYLE).set_header([
        "", "layer", "op", "chosen", "rounds", "bytes", "keys", "ms", "instead", "rounds", "bytes", "keys",
        "ms", "why",
    ]);
    for step in &choice.steps {
        let (own, other, name) = match step.chosen {
            Gate::Tree => (&step.tree, &step.keys, ["tree", "keys"]),
            Gate::Keys => (&step.keys, &step.tree, ["keys", "tree"]),
        };
        let cells = |name: &str, a: &Alternative| {
            [
                name.to_owned(),
                a.rounds.to_string(),
                bytes(a.bytes as usize),
                bytes(a.key_bytes as usize),
                format!("{:.3}", a.seconds * 1e3),
            ]
        };
        let first = [step.step.to_string(), short(&step.layer), step.op.to_owned()];
        let row = first.into_iter().chain(cells(name[0], own)).chain(cells(name[1], other));
        steps.add_row(row.chain([step.reason.clone()]));
    }
    let mut totals = Table::new();
    totals.load_style(table::STYLE).set_header([
        "engine",
        "rounds",
        "bytes",
        "keys, each",
        "dealt",
        "online s",
        "offline s",
    ]);
    for total in &choice.totals {
        totals.add_row([
            total.engine.to_owned(),
            total.rounds.to_string(),
            bytes(total.bytes as usize),
            bytes(total.key_bytes as usize),
            bytes(total.dealt_bytes as usize),
            format!("{:.4}", total.online_seconds),
            format!("{:.3}", total.offline_seconds),
        ]);
    }
    let keys = choice.steps.iter().filter(|step| step.chosen == Gate::Keys).count();
    format!(
        "\nChosen for {network}: keys for {keys} of {} steps that compare, at most {} of keys for each party.\n\n{}\n\n\
         The whole, as predicted:\n\n{}",
        choice.steps.len(),
        bytes(usize::try_from(choice.max_key_bytes).unwrap_or(usize::MAX)),
        table::lines(steps, 4),
        table::lines(totals, 1)
    )
}
