//! A model's answer as a table, and as a file.

use std::path::Path;

use comfy_table::{CellAlignment, Table};
use privet::output;
use privet::postprocess::{Output, Top};

use super::{printable_line, table};

/// Characters of a full bar.
const BAR: usize = 24;
/// Values of a tensor that are shown: all of most outputs, but not a whole picture; `--output` and `--json` have everything.
const PREVIEW: usize = 1000;

/// The most probable classes of the first output that is a classification.
pub(crate) fn best(outputs: &[Output], labels: &[String], k: usize) -> Vec<Top> {
    let tops = outputs.iter().map(|o| o.top(labels, k));
    tops.into_iter().find(|t| !t.is_empty()).unwrap_or_default()
}

/// Labels with probabilities, or what there is to say about tensors.
pub(crate) fn describe(outputs: &[Output], best: &[Top]) -> String {
    if best.is_empty() {
        return outputs.iter().map(tensor).collect::<Vec<_>>().join("\n");
    }
    let mut classes = Table::new();
    classes.load_style(table::STYLE).set_header(["class", "label", "probability", ""]);
    for entry in best {
        let share = entry.probability.clamp(0.0, 1.0);
        classes.add_row([
            entry.index.to_string(),
            printable_line(entry.label.as_deref().unwrap_or_default()),
            format!("{:.2} %", 100.0 * entry.probability),
            "█".repeat((share * BAR as f64).round() as usize),
        ]);
    }
    for column in [0, 2] {
        if let Some(column) = classes.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    classes.to_string()
}

fn tensor(output: &Output) -> String {
    let values = &output.values;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = values.sum() / values.len().max(1) as f64;
    let digits = if output.whole { 0 } else { 6 };
    let first: Vec<String> = values.iter().take(PREVIEW).map(|v| format!("{v:.digits$}")).collect();
    let more = if values.len() > PREVIEW { ", .." } else { "" };
    format!(
        "{}: shape {:?}, from {low:.digits$} to {high:.digits$}, mean {mean:.6}\n  [{}{more}]",
        printable_line(&output.name),
        values.shape(),
        first.join(", ")
    )
}

/// Writes all outputs as 64-bit floats or, if they are whole numbers, as 64-bit integers.
pub(crate) fn write(path: &Path, outputs: &[Output]) -> anyhow::Result<()> {
    let named: Vec<_> = outputs.iter().map(|o| (o.name.clone(), o.to_array())).collect();
    output::write(path, &named)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
