//! `--exp inference_all` and `inference_plaintext`: the experiments of CryptGPU (Tan, Knott, Tian and Wu, S&P 2021), with
//! plain runs of the same models in the same table.

use comfy_table::Table;
use privet::bench::Kind;

use super::plain::FLOAT;
use super::row::{Phase, Row};
use super::table::{megabytes, ratio, seconds, verdict};
use crate::args::Engine;
use crate::show::{printable_line, table};

/// CryptGPU's models: MNIST, CIFAR-10, Tiny ImageNet, ImageNet.
const MODELS: [&str; 10] = [
    "lenet",
    "alexnet-cifar",
    "vgg16-cifar",
    "alexnet-tiny",
    "vgg16-tiny",
    "alexnet-imagenet",
    "vgg16-imagenet",
    "resnet50",
    "resnet101",
    "resnet152",
];

/// What is measured unless models are named.
pub(super) fn models() -> [&'static str; MODELS.len()] {
    MODELS
}

/// How many times as long an engine takes as a plain run of the same model.
pub(super) fn overhead(row: &Row, rows: &[Row], plain: &str) -> Option<f64> {
    let same = |other: &&Row| other.model == row.model && other.engine == plain;
    let plain = rows.iter().find(same).filter(|plain| plain.wall_s > 0.0)?;
    (row.engine != plain.engine).then_some(row.wall_s / plain.wall_s)
}

/// The inferences, those without the offline phase.
pub(super) fn inferences(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.phase == Phase::Online)
}

/// What is prepared before them.
pub(super) fn offline<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter().find(|r| r.model == row.model && r.engine == row.engine && r.phase == Phase::Offline)
}

/// What a model takes: one line per engine, then the same by kinds of layers.
pub(super) fn table(rows: &[Row]) -> String {
    let mut costs = Table::new();
    costs.load_style(table::STYLE).set_header([
        "model", "engine", "wall s", "from", "to", "CPU s", "sent", "rounds", "offline", "stored", "RSS",
        "error",
    ]);
    let mut layers = Table::new();
    layers.load_style(table::STYLE).set_header(
        ["model", "engine"].into_iter().chain(Kind::ALL.map(Kind::name)).chain(["/ float", "/ cleartext"]),
    );
    for row in inferences(rows) {
        let offline = offline(row, rows);
        let name = [printable_line(&row.model), row.engine.to_owned()];
        let dash = || "-".to_owned();
        let sent = |row: &Row| if row.bytes == 0 { dash() } else { megabytes(row.bytes as f64) };
        costs.add_row(name.clone().into_iter().chain([
            seconds(row.wall_s),
            seconds(row.wall_min_s),
            seconds(row.wall_max_s),
            seconds(row.cpu_s),
            sent(row),
            if row.rounds == 0 { dash() } else { row.rounds.to_string() },
            offline.map_or_else(dash, |o| seconds(o.cpu_s)),
            offline.map_or_else(dash, |o| megabytes(o.stored_bytes as f64)),
            megabytes(row.peak_rss_bytes.max(offline.map_or(0, |o| o.peak_rss_bytes)) as f64),
            format!("{:.1e}{}", row.max_abs_err, verdict(row)),
        ]));
        let over = |plain| overhead(row, rows, plain).map_or_else(dash, |times| format!("{}x", ratio(times)));
        if let Some(own) = row.layers {
            let times = own.seconds().map(seconds);
            layers
                .add_row(name.into_iter().chain(times).chain([over(FLOAT), over(Engine::Cleartext.name())]));
        }
    }
    let mut text = table::lines(costs, 2) + "\n";
    if !layers.is_empty() {
        text += &format!(
            "\nSeconds by what layers do, and how many times as long as plain runs:\n{}\n",
            table::lines(layers, 2)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_models_are_in_the_zoo() {
        for name in MODELS {
            assert!(privet::bench::names().any(|n| n == name), "{name}");
        }
    }
}
