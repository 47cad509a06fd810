//! A model's answer as a table, and as a file.

use std::path::Path;

use comfy_table::{CellAlignment, Table};
use privet::output::{self, Values};
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
    let (extremes, sum, first): (String, f64, String) = match &output.values {
        Values::Floats(a) => {
            let low = a.iter().copied().fold(f64::INFINITY, f64::min);
            let high = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (format!("from {low:.6} to {high:.6}"), a.sum(), preview(a.iter(), |v| format!("{v:.6}")))
        }
        Values::Whole(a) => {
            let extremes = match (a.iter().min(), a.iter().max()) {
                (Some(low), Some(high)) => format!("from {low} to {high}"),
                _ => "empty".to_owned(),
            };
            (extremes, a.iter().map(|&v| v as f64).sum(), preview(a.iter(), i64::to_string))
        }
    };
    let shape = output.values.shape();
    let mean = sum / shape.iter().product::<usize>().max(1) as f64;
    format!("{}: shape {shape:?}, {extremes}, mean {mean:.6}\n  [{first}]", printable_line(&output.name))
}

/// The first values of a tensor.
fn preview<'a, T: 'a>(values: impl ExactSizeIterator<Item = &'a T>, show: impl Fn(&T) -> String) -> String {
    let more = if values.len() > PREVIEW { ", .." } else { "" };
    let first: Vec<String> = values.take(PREVIEW).map(show).collect();
    format!("{}{more}", first.join(", "))
}

/// Writes all outputs as 64-bit floats or, if they are whole numbers, as 64-bit integers.
pub(crate) fn write(path: &Path, outputs: &[Output]) -> anyhow::Result<()> {
    let named: Vec<_> = outputs.iter().map(|o| (o.name.clone(), o.values.clone())).collect();
    output::write(path, &named)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
