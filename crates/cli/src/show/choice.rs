//! What `--engine auto` chose, as tables.

use comfy_table::Table;
use privet::predict::{Choice, Gate};

use super::plan::{bytes, short};
use super::table;
use crate::network::Network;

/// One line per step that compares, and the whole next to both engines.
pub(crate) fn describe(network: &Network, choice: &Choice) -> String {
    let mut steps = Table::new();
    steps
        .load_style(table::STYLE)
        .set_header(["", "layer", "op", "by", "", "rounds", "bytes", "keys", "ms", "why"]);
    for step in &choice.steps {
        for (i, way) in step.ways.iter().enumerate() {
            let is_chosen = way.gate == step.chosen;
            let first = |text: String| if i == 0 { text } else { String::new() };
            steps.add_row([
                first(step.step.to_string()),
                first(short(&step.layer)),
                first(step.op.to_owned()),
                name(way.gate).to_owned(),
                if is_chosen { "chosen" } else { "" }.to_owned(),
                way.rounds.to_string(),
                bytes(way.bytes as usize),
                bytes(way.key_bytes as usize),
                format!("{:.3}", way.seconds * 1e3),
                if is_chosen { step.reason.clone() } else { String::new() },
            ]);
        }
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
    let mix = choice.refused_mix_seconds.map(|seconds| {
        format!(
            "\n\nA mix of both was predicted to take {seconds:.4} s: too little less to be trusted, so one engine does all."
        )
    });
    format!(
        "\nChosen for {network}: {}, at most {} of keys for each party.\n\n{}\n\nThe whole, as predicted:\n\n{}{}",
        summary(choice),
        bytes(usize::try_from(choice.max_key_bytes).unwrap_or(usize::MAX)),
        table::lines(steps, 5),
        table::lines(totals, 1),
        mix.unwrap_or_default()
    )
}

/// What was chosen, in one line.
pub(crate) fn line(network: &Network, choice: &Choice) -> String {
    let [two_party, fss, auto] = choice.totals.each_ref().map(|total| total.online_seconds);
    let keys = bytes(choice.totals[2].key_bytes as usize);
    format!(
        "chosen for {network}: {}, {keys} for each party; {auto:.4} s online predicted (2pc {two_party:.4}, fss {fss:.4})",
        summary(choice)
    )
}

/// How many steps compare in which way.
fn summary(choice: &Choice) -> String {
    let of = |gate| choice.steps.iter().filter(|step| step.chosen == gate).count();
    let (keys, products) = (of(Gate::Keys), of(Gate::Products));
    let carry = match products {
        0 => String::new(),
        n => format!(", {n} of which carry products"),
    };
    format!("keys for {} of {} steps that compare{carry}", keys + products, choice.steps.len())
}

fn name(gate: Gate) -> &'static str {
    match gate {
        Gate::Tree => "tree",
        Gate::Keys => "keys",
        Gate::Products => "products",
    }
}
