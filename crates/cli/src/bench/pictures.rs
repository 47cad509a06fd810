//! What `--plot` draws of models.

use privet::bench::Kind;

use super::plain::FLOAT;
use super::row::Row;
use super::suite::{inferences, offline, overhead};
use super::table::seconds;
use crate::args::Engine;
use crate::plot::{Axis, Bar, Chart, Group, Shade};
use crate::show::printable_line;

/// Time by kinds of layers, overhead over plain runs, bytes; those of which anything was measured.
pub(super) fn models(rows: &[Row]) -> Vec<Chart> {
    let plain = if rows.iter().any(|row| row.engine == FLOAT) { FLOAT } else { Engine::Cleartext.name() };
    let charts = [
        Chart {
            title: "Wall time of an inference by what its layers do".to_owned(),
            axis: Axis::Share,
            series: Kind::ALL.map(|kind| kind.name().to_owned()).into(),
            groups: groups(rows, |row| {
                let own = row.layers?;
                let (parts, note) = (own.seconds().to_vec(), Some(format!("{} s", seconds(row.wall_s))));
                Some(vec![Bar { label: row.engine.to_owned(), parts, shade: shade(row, false), note }])
            }),
        },
        Chart {
            title: format!("Wall time of an inference, as a multiple of what a plain run takes ({plain})"),
            axis: Axis::Log,
            series: Vec::new(),
            groups: groups(rows, |row| {
                let times = overhead(row, rows, plain)?;
                Some(vec![Bar {
                    label: row.engine.to_owned(),
                    parts: vec![times],
                    shade: shade(row, false),
                    note: None,
                }])
            }),
        },
        Chart {
            title: "Bytes sent by all parties for an inference (MB)".to_owned(),
            axis: Axis::Log,
            series: Vec::new(),
            groups: groups(rows, |row| {
                let phases = [(row, "online")].into_iter().chain(offline(row, rows).map(|o| (o, "offline")));
                let sent = phases.filter(|(phase, _)| phase.bytes > 0).map(|(phase, name)| Bar {
                    label: format!("{} {name}", row.engine),
                    parts: vec![phase.bytes as f64 / 1e6],
                    shade: shade(row, name == "offline"),
                    note: None,
                });
                Some(sent.collect())
            }),
        },
    ];
    charts.into_iter().filter(|chart| !chart.groups.is_empty()).collect()
}

/// The colour of an engine.
fn shade(row: &Row, is_light: bool) -> Shade {
    Shade { hue: Engine::hue(row.engine), is_light }
}

/// A group for each model, with the bars of its engines.
fn groups(rows: &[Row], bars: impl Fn(&Row) -> Option<Vec<Bar>>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in inferences(rows) {
        let own = bars(row).unwrap_or_default();
        let label = printable_line(&row.model);
        match groups.last_mut() {
            _ if own.is_empty() => {}
            Some(group) if group.label == label => group.bars.extend(own),
            _ => groups.push(Group { label, bars: own }),
        }
    }
    groups
}
