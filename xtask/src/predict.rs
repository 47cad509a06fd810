//! How close predictions of wall times come to measurements: `privet bench --predict` on five models over two networks.
//!
//! Run it on a machine that does nothing else: a prediction does not know of others' work.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::root;

const MODELS: &str = "lenet,minionn-cifar,vgg16-cifar,squeezenet,resnet18";
const NETWORKS: [&str; 2] = ["lan", "wan"];
/// How far a prediction may be off, as a share of the measured time.
const TOLERANCE: f64 = 0.2;

/// What was predicted and measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each network, model and phase.
    pub rows: Vec<Row>,
}

/// A phase of a model over a network.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `lan` or `wan`.
    pub network: String,
    /// The model.
    pub model: String,
    /// `offline` or `online`.
    pub phase: String,
    /// Seconds.
    pub predicted: f64,
    /// Seconds: the smallest of all runs.
    pub measured: f64,
    /// Predicted to measured.
    pub ratio: f64,
}

impl Report {
    /// Whether every prediction is close enough.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }

    /// For people.
    pub fn text(&self) -> String {
        let line = |row: &Row| {
            let Row { network, model, phase, predicted, measured, ratio } = row;
            let verdict = if row.holds() { "" } else { "  BEYOND 20 %" };
            format!(
                "{network:4} {model:14} {phase:8} predicted {predicted:8.3} s, measured {measured:8.3} s, ratio {ratio:.2}{verdict}\n"
            )
        };
        self.rows.iter().map(line).collect()
    }
}

impl Row {
    fn holds(&self) -> bool {
        (self.ratio - 1.0).abs() <= TOLERANCE
    }
}

/// Builds the command as released and runs it `repeat` times; the smallest times count.
pub fn run(repeat: usize) -> Result<Report> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut rows: Vec<Row> = Vec::new();
    for network in NETWORKS {
        for _ in 0..repeat {
            let mut command = Command::new(&cargo);
            command.args(["run", "--quiet", "--release", "--package", "privet-cli", "--bin", "privet", "--"]);
            command.args(["bench", "--predict", "--json", "--models", MODELS, "--network", network]);
            let output = command.current_dir(root()).output().context("cannot start cargo")?;
            ensure!(
                output.status.success(),
                "privet bench failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            for line in String::from_utf8(output.stdout)?.lines() {
                take(&mut rows, network, &serde_json::from_str(line)?)?;
            }
        }
    }
    if rows.is_empty() {
        bail!("privet bench printed no rows");
    }
    Ok(Report { rows })
}

/// Adds a row of the bench, or what it has of smaller times.
fn take(rows: &mut Vec<Row>, network: &str, found: &serde_json::Value) -> Result<()> {
    let Some(predicted) = found["predicted_wall_s"].as_f64() else { return Ok(()) };
    let measured = found["wall_s"].as_f64().context("a row without wall_s")?;
    let name = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    let (model, phase, network) = (name("model"), name("phase"), network.to_owned());
    let same = |row: &&mut Row| row.network == network && row.model == model && row.phase == phase;
    match rows.iter_mut().find(same) {
        Some(row) => {
            (row.predicted, row.measured) = (row.predicted.min(predicted), row.measured.min(measured));
            row.ratio = row.predicted / row.measured;
        }
        None => rows.push(Row { network, model, phase, predicted, measured, ratio: predicted / measured }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_times_count_and_more_than_a_fifth_fails() {
        let row = |predicted: Option<f64>, measured: f64| serde_json::json!({"model": "m", "phase": "online", "wall_s": measured, "predicted_wall_s": predicted});
        let mut rows = Vec::new();
        for found in [row(None, 9.0), row(Some(1.1), 2.0), row(Some(1.2), 1.0)] {
            take(&mut rows, "lan", &found).unwrap();
        }
        let report = Report { rows };
        assert_eq!(report.rows.len(), 1);
        assert!((report.rows[0].ratio - 1.1).abs() < 1e-9 && report.holds(), "{report:?}");
        assert!(report.text().contains("ratio 1.10\n"));
        let mut rows = report.rows;
        take(&mut rows, "lan", &row(Some(1.1), 0.9)).unwrap();
        let report = Report { rows };
        assert!(!report.holds() && report.text().contains("BEYOND"));
    }
}
