//! `privet compare`: one model and input, several engines.

use std::time::Duration;

use comfy_table::Table;
use privet::model;
use privet::{Report, reference};
use serde::Serialize;

use crate::args::{CompareArgs, Engine};
use crate::commands::{decode, lower, print_line};
use crate::exit::{Code, Failure};
use crate::plot::{Axis, Bar, Chart, Group, Picture, Shade};
use crate::run::{Outcome, Task};
use crate::show::json::Agreement;
use crate::show::observe::Terminal;
use crate::show::{print, table};
use crate::watch::Watch;

/// What an engine took.
#[derive(Debug, Serialize)]
struct Row {
    engine: &'static str,
    /// Whether its integers are those of the cleartext engine.
    matches_cleartext: bool,
    max_abs_error_vs_float: f64,
    offline: Cost,
    online: Cost,
    /// What comes online before there is an input.
    agreement: Agreement,
    stored_bytes: u64,
    peak_memory_bytes: u64,
}

/// A phase: the slowest party's seconds, the rounds of the one with most, sums of everything else.
#[derive(Debug, Default, Serialize)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    bytes_sent: u64,
    rounds: u64,
}

impl Cost {
    /// The work alone; how processes start is not in it.
    fn of<'a>(reports: impl Iterator<Item = &'a Report>) -> Self {
        reports.fold(Self::default(), |total, report| {
            let sum = |of: fn(&privet::Span) -> f64| report.work.iter().map(of).sum::<f64>();
            Self {
                seconds: total.seconds.max(sum(|w| w.seconds)),
                cpu_seconds: total.cpu_seconds + sum(|w| w.cpu_seconds),
                bytes_sent: total.bytes_sent + report.bytes_sent,
                rounds: total.rounds.max(report.rounds),
            }
        })
    }
}

pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let engines = if args.engines.is_empty() { Engine::all() } else { args.engines.clone() };
    args.keys.check(&engines)?;
    if !engines.iter().any(|engine| engine.is_private()) {
        args.network.refuse_in_the_clear()?;
    }
    let picture = args.plot.as_deref().map(Picture::new).transpose()?;
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let (model, inputs, integers) = watch.computing(|| {
        let _spinner = terminal.spinner("compiling");
        let model = lower(&args.model, &args.lowering)?;
        let inputs = model::load_inputs(&model.plan, &args.input)?;
        let integers = model::fixed_inputs(&model.plan, &inputs)?;
        anyhow::Ok((model, inputs, integers))
    })?;
    let task = Task {
        model: &model,
        files: &args.input,
        integers: &integers,
        network: &args.network,
        keys: &args.keys,
        watch: &watch,
        terminal: &terminal,
    };
    // First in the clear: it is what the others have to equal, and an overflow shows here.
    let expected = task.run(Engine::Cleartext)?;
    let mut rows = Vec::with_capacity(engines.len());
    for engine in engines {
        let outcome = match engine {
            Engine::Cleartext => None,
            private => Some(task.run(private)?),
        };
        let outcome = outcome.as_ref().unwrap_or(&expected);
        let outputs = decode(&model.plan, &outcome.revealed)?;
        let error = watch.computing(|| reference::max_abs_error(&model, &inputs, &outputs))?;
        let row = Row::new(engine, outcome, outcome.revealed == expected.revealed, error);
        if args.json {
            print_line(&row)?;
        }
        rows.push(row);
    }
    if !args.json {
        let plan = &model.plan;
        print(&format!(
            "{}-bit ring, {} fractional bits\n\n{}",
            plan.ring.bits(),
            plan.frac_bits,
            shown(&rows)
        ))?;
    }
    if let Some(picture) = picture {
        picture.draw(&charts(&rows))?;
    }
    match rows.iter().find(|row| !row.matches_cleartext) {
        None => Ok(()),
        Some(row) => {
            let text = format!(
                "the result of {} differs from the cleartext result: this is a bug, please report it with the model",
                row.engine
            );
            Err(Failure::error(Code::Mismatch, text))
        }
    }
}

impl Row {
    fn new(engine: Engine, outcome: &Outcome, matches_cleartext: bool, max_abs_error_vs_float: f64) -> Self {
        let offline = || outcome.rows.iter().filter_map(|r| r.offline.as_ref());
        let online = || outcome.rows.iter().filter_map(|r| r.online.as_ref());
        Self {
            engine: engine.name(),
            matches_cleartext,
            max_abs_error_vs_float,
            offline: Cost::of(offline()),
            online: Cost::of(online()),
            agreement: Agreement::total(online()),
            stored_bytes: offline().map(|r| r.bytes_stored).sum(),
            peak_memory_bytes: offline().chain(online()).map(|r| r.peak_memory_bytes).max().unwrap_or(0),
        }
    }
}

/// One line per engine.
fn shown(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header([
        "engine", "equal", "error", "online", "CPU s", "sent", "rounds", "agreed", "offline", "CPU s",
        "sent", "stored", "peak RSS",
    ]);
    for row in rows {
        shown.add_row([
            row.engine.to_owned(),
            if row.matches_cleartext { "yes" } else { "NO" }.to_owned(),
            format!("{:.1e}", row.max_abs_error_vs_float),
            format!("{:.4}", row.online.seconds),
            format!("{:.4}", row.online.cpu_seconds),
            table::bytes(row.online.bytes_sent),
            row.online.rounds.to_string(),
            format!("{:.3}", row.agreement.seconds),
            format!("{:.3}", row.offline.seconds),
            format!("{:.3}", row.offline.cpu_seconds),
            table::bytes(row.offline.bytes_sent),
            table::bytes(row.stored_bytes),
            table::bytes(row.peak_memory_bytes),
        ]);
    }
    table::lines(shown, 2)
}

/// Seconds, CPU seconds and bytes, of both phases.
fn charts(rows: &[Row]) -> Vec<Chart> {
    let chart = |title: &str, of: fn(&Cost) -> f64| {
        let group = |row: &Row| {
            let phases = [("online", &row.online), ("offline", &row.offline)].into_iter();
            let bars = phases.filter(|(_, cost)| of(cost) > 0.0).map(|(label, cost)| Bar {
                label: label.to_owned(),
                parts: vec![of(cost)],
                shade: Shade { hue: Engine::hue(row.engine), is_light: label == "offline" },
                note: None,
            });
            Group { label: row.engine.to_owned(), bars: bars.collect() }
        };
        let groups: Vec<Group> = rows.iter().map(group).filter(|g| !g.bars.is_empty()).collect();
        Chart { title: title.to_owned(), axis: Axis::Log, series: Vec::new(), groups }
    };
    vec![
        chart("Wall time of one inference (s)", |cost| cost.seconds),
        chart("CPU time of all parties (s)", |cost| cost.cpu_seconds),
        chart("Bytes sent by all parties (MB)", |cost| cost.bytes_sent as f64 / 1e6),
    ]
}
