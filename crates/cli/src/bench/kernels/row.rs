//! What is measured of a kernel, for programs and for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};
use serde::{Serialize, Serializer};

use super::measure::Measured;
use crate::show::table;

/// One line of `--json`, one line of `--csv`. What does not apply is null, and empty.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) exp: &'static str,
    pub(super) kernel: &'static str,
    pub(super) shape: String,
    /// `rate`, or what else of the kernel is measured.
    pub(super) quantity: &'static str,
    pub(super) ring: Option<u32>,
    pub(super) isa: Option<&'static str>,
    pub(super) threads: usize,
    pub(super) unit: &'static str,
    /// The best of the repetitions.
    #[serde(serialize_with = "rounded")]
    pub(super) achieved: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(super) median: Option<f64>,
    #[serde(serialize_with = "rounded")]
    pub(super) peak: Option<f64>,
    /// What the peak is one of.
    pub(super) peak_of: Option<&'static str>,
    #[serde(serialize_with = "rounded")]
    pub(super) share_of_peak: Option<f64>,
    /// What the plan says, where it says something.
    #[serde(serialize_with = "rounded")]
    pub(super) declared: Option<f64>,
    /// What the project aims at on a 2-core machine with AVX-512.
    #[serde(serialize_with = "rounded")]
    pub(super) target: Option<f64>,
    pub(super) meets_target: Option<bool>,
    pub(super) repetitions: usize,
    /// Why nothing was measured.
    pub(super) skipped: Option<String>,
}

impl Row {
    /// A row without figures.
    pub(super) fn new(kernel: &'static str, shape: impl Into<String>, unit: &'static str) -> Self {
        Self {
            exp: "kernels",
            kernel,
            shape: shape.into(),
            quantity: "rate",
            ring: None,
            isa: None,
            threads: 1,
            unit,
            achieved: None,
            median: None,
            peak: None,
            peak_of: None,
            share_of_peak: None,
            declared: None,
            target: None,
            meets_target: None,
            repetitions: 0,
            skipped: None,
        }
    }

    /// With rates in units of `scale`.
    pub(super) fn measured(mut self, measured: Measured, scale: f64) -> Self {
        self.achieved = Some(measured.best / scale);
        self.median = Some(measured.median / scale);
        self.peak = measured.peak.map(|peak| peak / scale);
        self.share_of_peak = measured.peak.map(|peak| measured.best / peak);
        self.repetitions = measured.repetitions;
        self
    }

    /// Where at least `target` is wanted.
    pub(super) fn at_least(self, target: Option<f64>) -> Self {
        let meets_target = target.zip(self.achieved).map(|(target, achieved)| achieved >= target);
        Self { target, meets_target, ..self }
    }

    /// Where at most `target` is wanted.
    pub(super) fn at_most(self, target: Option<f64>) -> Self {
        let meets_target = target.zip(self.achieved).map(|(target, achieved)| achieved <= target);
        Self { target, meets_target, ..self }
    }

    pub(super) fn to_csv(&self) -> String {
        let text = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let number =
            |value: Option<f64>| value.map_or_else(String::new, |v| significant_digits(v).to_string());
        [
            self.exp.to_owned(),
            self.kernel.to_owned(),
            text(&self.shape),
            self.quantity.to_owned(),
            self.ring.map_or_else(String::new, |ring| ring.to_string()),
            self.isa.unwrap_or_default().to_owned(),
            self.threads.to_string(),
            self.unit.to_owned(),
            number(self.achieved),
            number(self.median),
            number(self.peak),
            text(self.peak_of.unwrap_or_default()),
            number(self.share_of_peak),
            number(self.declared),
            number(self.target),
            self.meets_target.map_or_else(String::new, |meets| meets.to_string()),
            self.repetitions.to_string(),
            text(self.skipped.as_deref().unwrap_or_default()),
        ]
        .join(",")
    }
}

/// The names of the fields.
pub(super) const CSV_HEADER: &str = "exp,kernel,shape,quantity,ring,isa,threads,unit,achieved,median,peak,peak_of,\
                                     share_of_peak,declared,target,meets_target,repetitions,skipped";

/// What the columns mean.
pub(super) const INTRODUCTION: &str = "\
Best and median of the repetitions. Peak: the kernel's own instructions with all operands in registers, measured in
turn with it; for packing a copy of as many bytes. Target: the project's, for 2 cores with AVX-512; ! where missed.
GMAC = 10^9 multiply-accumulates, GB = 10^9 bytes; CPU-s of both parties together.";

/// Six digits say all that repeats.
fn significant_digits(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn rounded<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(significant_digits).serialize(serializer)
}

/// One table for each kernel, and under it what was skipped.
pub(super) fn tables(rows: &[Row]) -> String {
    rows.chunk_by(|a, b| a.kernel == b.kernel).map(table).collect::<Vec<_>>().join("\n")
}

fn table(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header([
        "shape", "l", "isa", "threads", "what", "best", "median", "unit", "peak", "share", "target",
    ]);
    let mut skipped: Vec<String> = Vec::new();
    for row in rows {
        if let Some(why) = &row.skipped {
            let ring = row.ring.map_or_else(String::new, |ring| format!(", l = {ring}"));
            let line = format!("{}{ring}: {why}", row.isa.unwrap_or(&row.shape));
            if !skipped.contains(&line) {
                skipped.push(line);
            }
            continue;
        }
        let mark = if row.meets_target == Some(false) { " !" } else { "" };
        shown.add_row([
            row.shape.clone(),
            row.ring.map_or_else(String::new, |ring| ring.to_string()),
            row.isa.unwrap_or_default().to_owned(),
            row.threads.to_string(),
            row.quantity.to_owned(),
            number(row.achieved),
            number(row.median),
            row.unit.to_owned(),
            number(row.peak),
            row.share_of_peak.map_or_else(String::new, |share| format!("{:.0}%", 100.0 * share)),
            row.target.map_or_else(String::new, |target| number(Some(target)) + mark),
        ]);
    }
    for (i, column) in shown.column_iter_mut().enumerate() {
        if ![0, 2, 4, 7].contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("\n{}\n", rows[0].kernel);
    shown.lines().for_each(|line| _ = writeln!(text, "{}", line.trim_end()));
    skipped.iter().for_each(|line| _ = writeln!(text, "  skipped: {line}"));
    text.trim_end().to_owned()
}

/// Three significant digits at least.
fn number(value: Option<f64>) -> String {
    let decimals = match value {
        None => return String::new(),
        Some(..0.0995) => 4,
        Some(..0.995) => 3,
        Some(..9.95) => 2,
        Some(..99.5) => 1,
        Some(_) => 0,
    };
    value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let measured = Measured { best: 30e9, median: 20.123_456_78e9, peak: Some(40e9), repetitions: 5 };
        let row = Row { ring: Some(48), isa: Some("ifma"), ..Row::new("gemm", "512 x 512 x 512", "GMAC/s") };
        row.measured(measured, 1e9)
    }

    #[test]
    fn json_and_csv_have_the_same_fields() {
        let json = serde_json::to_string(&row()).unwrap();
        let names: Vec<&str> =
            json.split(",\"").map(|f| f.split('"').find(|n| n.len() > 1).unwrap()).collect();
        assert_eq!(names, CSV_HEADER.split(',').collect::<Vec<_>>());
        assert_eq!(row().to_csv().split(',').count(), names.len());
        assert!(json.contains("\"median\":20.1235,"), "{json}");
        assert!(row().to_csv().contains(",30,20.1235,40,"), "{}", row().to_csv());
    }

    #[test]
    fn targets_are_bounds_from_either_side() {
        assert_eq!(row().at_least(Some(30.0)).meets_target, Some(true));
        assert_eq!(row().at_least(Some(30.1)).meets_target, Some(false));
        assert_eq!(row().at_most(Some(29.9)).meets_target, Some(false));
        assert_eq!(row().at_most(None).meets_target, None);
    }

    #[test]
    fn tables_fit_120_columns_and_name_what_was_skipped() {
        let skip = |why: &str| Row { isa: Some("avx2"), skipped: Some(why.to_owned()), ..row() };
        let rows = [row().at_least(Some(32.0)), skip("this CPU lacks its instructions")];
        let text = tables(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("75%") && text.contains("32.0 !"), "{text}");
        assert!(text.contains("skipped: avx2, l = 48: this CPU lacks its instructions"), "{text}");
    }
}
