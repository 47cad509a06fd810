//! One model to measure, with what it has to give, and what measurements of every engine have in common.

use anyhow::Context;
use privet::Event;
use privet::bench::{self, Expected, KindSeconds, Options, Subject, Workload};

use super::row::{Agreement, Layers, Party, Phase, Row, Widths};
use crate::args::{BenchArgs, Engine};
use crate::commands::{decode, warn_of_tolerance};
use crate::show::observe::Terminal;
use crate::watch::Watch;

/// A model, its inputs, and what they have to give.
pub(super) struct Case<'a> {
    pub(super) name: String,
    pub(super) subject: &'a Subject,
    pub(super) args: &'a BenchArgs,
    pub(super) workload: Workload,
    pub(super) expected: Vec<Expected>,
    pub(super) watch: &'a Watch,
    pub(super) terminal: &'a Terminal,
}

impl<'a> Case<'a> {
    /// Compiles a model and runs it in the clear: an overflow shows here, with the layer's name.
    pub(super) fn new(
        subject: &'a Subject,
        args: &'a BenchArgs,
        watch: &'a Watch,
        terminal: &'a Terminal,
    ) -> anyhow::Result<Self> {
        let name = subject.name();
        let workload = watch.computing(|| {
            let what = if args.uncalibrated { "compiling" } else { "calibrating" };
            let _spinner = terminal.spinner(&format!("{name}: {what}"));
            Workload::new(
                subject,
                &Options {
                    inputs: usize::try_from(args.iterations())?,
                    seed: args.seed,
                    calibrate: !args.uncalibrated,
                    ring: args.ring,
                    frac_bits: args.frac_bits,
                    average_pooling: args.avgpool,
                },
            )
            .with_context(|| name.clone())
        })?;
        warn_of_tolerance(&workload.model);
        let expected = workload
            .inputs
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let role = format!("cleartext {}/{}", i + 1, args.iterations());
                let observer = |event: &Event| terminal.progress(&role, event);
                let expected = watch.computing(|| bench::expect(&workload.model, input, &observer));
                terminal.clear();
                expected.with_context(|| name.clone())
            })
            .collect::<anyhow::Result<Vec<Expected>>>()?;
        Ok(Self { name, subject, args, workload, expected, watch, terminal })
    }

    /// Inferences, those that are dropped included.
    pub(super) fn iterations(&self) -> usize {
        self.expected.len()
    }

    /// A row without what a phase costs as a whole.
    pub(super) fn blank(&self, engine: &'static str, phase: Phase, parties: Vec<Party>) -> Row {
        let plan = &self.workload.model.plan;
        Row {
            exp: self.args.exp.name(),
            model: self.name.clone(),
            engine,
            network: self.args.network.to_string(),
            phase,
            iterations: self.iterations() as u64,
            dropped: self.args.dropped(),
            average_pooling: self.args.avgpool,
            ring: Some(plan.ring.bits()),
            frac_bits: Some(u32::from(plan.frac_bits)),
            calibrated: !self.args.uncalibrated,
            widths: bench::widths(plan).map(|(min, max)| Widths { min, max }),
            wall_s: 0.0,
            wall_min_s: 0.0,
            wall_max_s: 0.0,
            predicted_wall_s: None,
            cpu_s: parties.iter().map(|p| p.cpu_s).sum(),
            bytes: parties.iter().map(|p| p.bytes_sent).sum(),
            declared_bytes: 0,
            wire_bytes: 0,
            rounds: 0,
            stored_bytes: 0,
            peak_rss_bytes: parties.iter().map(|p| p.peak_rss_bytes).max().unwrap_or(0),
            agreement: Agreement {
                cpu_s: parties.iter().map(|p| p.agreement_cpu_s).sum(),
                ..Agreement::default()
            },
            startup_wall_s: parties.iter().map(|p| p.startup_wall_s).fold(0.0, f64::max),
            startup_cpu_s: parties.iter().map(|p| p.startup_cpu_s).sum(),
            max_abs_err: 0.0,
            matches_cleartext: Some(true),
            layers: None,
            parties,
            relative_err: 0.0,
            is_architecture: engine != Engine::Cleartext.name()
                && matches!(self.subject, Subject::Zoo(_))
                && !self.args.avgpool,
        }
    }

    /// Adds how long inferences took: those that count, by their wall times and the seconds of their kinds of layers.
    pub(super) fn timed(&self, row: Row, seconds: &[f64], kinds: &[KindSeconds]) -> Row {
        let kept = self.kept(seconds);
        let layers = self.kept(kinds);
        Row {
            wall_s: median(kept.to_vec()),
            wall_min_s: kept.iter().copied().fold(f64::INFINITY, f64::min),
            wall_max_s: kept.iter().copied().fold(0.0, f64::max),
            layers: (!layers.is_empty()).then(|| Layers::from(KindSeconds::mean(layers))),
            ..row
        }
    }

    /// What is left when the first inferences are dropped; everything, where that is nothing.
    pub(super) fn kept<'b, T>(&self, all: &'b [T]) -> &'b [T] {
        let dropped = usize::try_from(self.args.dropped()).unwrap_or(usize::MAX);
        if all.len() > dropped { &all[dropped..] } else { all }
    }

    /// Adds what the outputs are worth.
    pub(super) fn judged(&self, mut rows: Vec<Row>, outputs: &[Vec<Vec<i64>>]) -> anyhow::Result<Vec<Row>> {
        let expected = &self.expected;
        let matches_cleartext =
            outputs.len() == expected.len() && outputs.iter().zip(expected).all(|(o, e)| *o == e.outputs);
        let mut errors = Vec::with_capacity(outputs.len());
        for (outputs, expected) in outputs.iter().zip(expected) {
            errors.push(expected.error(&decode(&self.workload.model.plan, outputs)?));
        }
        for row in &mut rows {
            self.erring(row, &errors);
            row.matches_cleartext = Some(matches_cleartext);
        }
        Ok(rows)
    }

    /// Notes the largest of the inferences' differences to float.
    pub(super) fn erring(&self, row: &mut Row, errors: &[f64]) {
        let worst = |most: f64, &error: &f64| {
            if error.is_nan() || most.is_nan() { f64::NAN } else { most.max(error) }
        };
        row.max_abs_err = errors.iter().fold(0.0, worst);
        let floats = self.expected.iter().flat_map(|e| &e.float).flatten();
        row.relative_err = row.max_abs_err / floats.fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
    }
}

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// Of an even number of values the mean of both in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[upper],
        values => f64::midpoint(values[upper - 1], values[upper]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_means() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((median(Vec::new()), mean([1.0, 3.0].into_iter())), (0.0, 2.0));
    }
}
