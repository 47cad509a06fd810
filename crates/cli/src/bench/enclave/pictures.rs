//! Charts of what was measured.

use super::rows::{Measured, Variant};
use crate::plot::{Axis, Bar, Chart, Figure, Group, Lines, Series, Shade};

/// Colours before they come again, lighter.
const COLOURS: usize = 7;
const MIB: f64 = (1u64 << 20) as f64;

fn shade(i: usize) -> Shade {
    Shade { hue: i % COLOURS, is_light: i / COLOURS % 2 == 1 }
}

/// CPU and memory of one model over time, a line for each variant.
pub(super) fn over_time(all: &[Measured]) -> Vec<Figure> {
    let Some(model) = all.first().map(|m| m.model.as_str()) else { return Vec::new() };
    let lines = |what: &str, of: fn(&Measured) -> Vec<(f64, f64)>| {
        let series = all.iter().enumerate().map(|(i, m)| Series {
            label: m.described(),
            shade: shade(i),
            points: of(m),
        });
        timed(format!("{model}: {what}"), series.collect())
    };
    vec![lines("CPU utilisation (percent of one core)", cpu), lines("resident memory (MiB)", memory)]
}

/// CPU and memory of all models over time in one variant, for each variant that was run as a whole.
pub(super) fn of_all(all: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for variant in [Variant::Native, Variant::Worker] {
        let own: Vec<&Measured> = all.iter().filter(|m| m.variant == variant && m.parts.is_none()).collect();
        let Some(first) = own.first() else { continue };
        let name = first.described();
        let lines = |what: &str, of: fn(&Measured) -> Vec<(f64, f64)>| {
            let series = own.iter().enumerate();
            let series =
                series.map(|(i, m)| Series { label: m.model.clone(), shade: shade(i), points: of(m) });
            timed(format!("All models, {name}: {what}"), series.collect())
        };
        figures.push(lines("CPU utilisation (percent of one core)", cpu));
        figures.push(lines("resident memory (MiB)", memory));
    }
    figures
}

fn timed(title: String, series: Vec<Series>) -> Figure {
    Figure::Lines(Lines { title, across: "seconds".to_owned(), is_counted: false, series })
}

fn cpu(measured: &Measured) -> Vec<(f64, f64)> {
    measured.samples.iter().filter_map(|s| Some((s.at, s.cpu_percent?))).collect()
}

fn memory(measured: &Measured) -> Vec<(f64, f64)> {
    measured.samples.iter().filter_map(|s| Some((s.at, s.rss_bytes? as f64 / MIB))).collect()
}

/// Time and memory against the number of parts, a line for each model, for each variant in parts.
pub(super) fn against_parts(all: &[Measured]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for variant in [Variant::Stages, Variant::Sealed, Variant::SplitWorker] {
        let own: Vec<&Measured> = all.iter().filter(|m| m.variant == variant).collect();
        let Some(first) = own.first() else { continue };
        let mut models: Vec<&str> = own.iter().map(|m| m.model.as_str()).collect();
        models.dedup();
        let lines = |what: &str, of: fn(&Measured) -> f64| {
            let series = models.iter().enumerate().map(|(i, model)| Series {
                label: (*model).to_owned(),
                shade: shade(i),
                points: own
                    .iter()
                    .filter(|m| m.model == *model)
                    .filter_map(|m| Some((m.parts? as f64, of(m))))
                    .collect(),
            });
            Figure::Lines(Lines {
                title: format!("{}: {what}", named(first)),
                across: "parts".to_owned(),
                is_counted: true,
                series: series.collect(),
            })
        };
        figures.push(lines("seconds of an inference, load included, median", Measured::seconds));
        figures.push(lines("largest resident memory of a process (MiB)", |m| {
            m.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / MIB)
        }));
    }
    figures
}

/// A variant in any number of parts.
fn named(measured: &Measured) -> String {
    Measured { parts: None, ..measured.clone() }.described()
}

/// Seconds and CPU seconds of an inference as a multiple of the native one's.
pub(super) fn overhead(all: &[Measured]) -> Vec<Figure> {
    let wall = "Seconds of an inference as a multiple of the native one's (in stages: with loading)";
    let cpu = "CPU seconds of an inference as a multiple of the native one's (loading spread over all)";
    let mut figures = multiples(all, wall, Measured::seconds);
    figures.extend(multiples(all, cpu, |measured| measured.summary().cpu_s));
    figures
}

fn multiples(all: &[Measured], title: &str, of: fn(&Measured) -> f64) -> Vec<Figure> {
    let mut groups: Vec<Group> = Vec::new();
    for measured in all.iter().filter(|m| m.variant != Variant::Native) {
        let native = all.iter().find(|m| m.variant == Variant::Native && m.model == measured.model);
        let times = native.map(|native| of(measured) / of(native)).filter(|t| t.is_finite());
        let Some(times) = times else { continue };
        let bar = Bar {
            label: measured.described(),
            parts: vec![times],
            shade: shade(measured.variant as usize),
            note: None,
        };
        match groups.last_mut() {
            Some(group) if group.label == measured.model => group.bars.push(bar),
            _ => groups.push(Group { label: measured.model.clone(), bars: vec![bar] }),
        }
    }
    if groups.is_empty() {
        return Vec::new();
    }
    vec![Figure::Bars(Chart { title: title.to_owned(), axis: Axis::Log, series: Vec::new(), groups })]
}
