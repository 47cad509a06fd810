//! `--exp micro`: single operations on private values, by the same processes as inferences.
//!
//! Seconds, bytes and rounds are those of the operation and of the openings that it needs; CPU seconds and memory are those
//! of the processes, which also mask the inputs and reveal the results.

use std::time::Duration;

use anyhow::Context;
use comfy_table::Table;
use privet::bench::micro::{Micro, Options, Program};
use privet::events::Silent;
use privet::{Plan, RevealTo, model, reference};
use privet_protocols::masked::{Cost, Instruction, Schedule};
use serde::Serialize;

use super::case::{mean, median};
use super::inference::{longest, slowest, write_inputs};
use super::plain;
use super::row::{microseconds, quoted, rounded};
use super::table::{megabytes, seconds};
use crate::args::{BenchArgs, Engine};
use crate::choice::program;
use crate::exit::{Code, Failure};
use crate::parties::three::ThreeParties;
use crate::parties::{CLIENT, Parties, Process};
use crate::plot::{Axis, Bar, Chart, Group, Picture, Shade};
use crate::show::observe::Terminal;
use crate::show::{print, table};
use crate::watch::Watch;

/// One operation by one engine.
#[derive(Debug, Clone, Serialize)]
struct Row {
    exp: &'static str,
    operation: &'static str,
    engine: &'static str,
    network: String,
    ring: u32,
    frac_bits: u8,
    /// Width of the comparison.
    width: Option<u8>,
    /// Of an operand.
    elements: usize,
    iterations: u64,
    dropped: u64,
    #[serde(serialize_with = "microseconds")]
    wall_s: f64,
    #[serde(serialize_with = "microseconds")]
    wall_min_s: f64,
    #[serde(serialize_with = "microseconds")]
    wall_max_s: f64,
    #[serde(serialize_with = "microseconds")]
    cpu_s: f64,
    #[serde(serialize_with = "microseconds")]
    offline_wall_s: f64,
    #[serde(serialize_with = "microseconds")]
    offline_cpu_s: f64,
    bytes: u64,
    bytes_per_element: f64,
    offline_bytes: u64,
    rounds: u64,
    stored_bytes: u64,
    peak_rss_bytes: u64,
    matches_cleartext: bool,
}

const COLUMNS: &str = "exp,operation,engine,network,ring,frac_bits,width,elements,iterations,dropped,wall_s,wall_min_s,\
                       wall_max_s,cpu_s,offline_wall_s,offline_cpu_s,bytes,bytes_per_element,offline_bytes,rounds,\
                       stored_bytes,peak_rss_bytes,matches_cleartext";

const INTRODUCTION: &str = "\
Wall: the operation with the openings that it needs, the median, and from the fastest to the
slowest; bytes and rounds are its own as well. CPU: all parties, inputs and outputs included;
offline: CPU seconds that prepare it; means. Width: bits compared. MB = 10^6 bytes.
";

pub(super) fn bench(args: &BenchArgs, engines: &[Engine]) -> anyhow::Result<()> {
    check(args)?;
    if !engines.iter().any(|engine| engine.is_private()) {
        args.network.refuse_in_the_clear()?;
    }
    let picture = args.plot.as_deref().map(Picture::new).transpose()?;
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    if args.csv {
        print(COLUMNS)?;
    }
    let mut rows = Vec::new();
    for micro in Micro::ALL {
        let job = Job::new(micro, args, &watch, &terminal)?;
        for engine in engines {
            let row = job.measure(*engine).with_context(|| format!("{}: {}", micro.name(), engine.name()))?;
            if args.json {
                print(&serde_json::to_string(&row)?)?;
            } else if args.csv {
                print(&row.to_csv())?;
            }
            rows.push(row);
        }
    }
    if args.is_table() {
        let bits = rows.first().map_or(0, |row: &Row| row.ring);
        print(&format!("Ring of {bits} bits. {INTRODUCTION}"))?;
        print(&shown(&rows))?;
    }
    if let Some(picture) = picture {
        picture.draw(&charts(&rows))?;
    }
    if rows.iter().all(|row| row.matches_cleartext) {
        return Ok(());
    }
    Err(Failure::error(
        Code::Mismatch,
        "a result differs from the cleartext result: this is a bug, please report it",
    ))
}

/// Options that say how a model is measured say nothing here.
fn check(args: &BenchArgs) -> anyhow::Result<()> {
    let given = [
        (!args.models.is_empty(), "--models"),
        (!args.kernels.is_empty(), "--kernels"),
        (args.uncalibrated, "--uncalibrated"),
        (args.avgpool, "--avgpool"),
        (args.predict, "--predict"),
    ];
    match given.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => {
            let text = format!("--exp micro measures no models; leave out {option}, or take --exp inference");
            Err(Failure::error(Code::Usage, text))
        }
    }
}

/// An operation with its inputs and what they have to give.
struct Job<'a> {
    micro: Micro,
    args: &'a BenchArgs,
    watch: &'a Watch,
    terminal: &'a Terminal,
    program: Program,
    /// What each inference has to give.
    expected: Vec<Vec<Vec<i64>>>,
}

impl<'a> Job<'a> {
    fn new(
        micro: Micro,
        args: &'a BenchArgs,
        watch: &'a Watch,
        terminal: &'a Terminal,
    ) -> anyhow::Result<Self> {
        let (program, expected) = watch.computing(|| {
            let _spinner = terminal.spinner(micro.name());
            let options = Options {
                elements: args.elements.map(usize::try_from).transpose()?,
                ring: args.ring,
                frac_bits: args.frac_bits,
                inputs: usize::try_from(args.iterations())?,
                seed: args.seed,
            };
            let program = Program::new(micro, &options).with_context(|| micro.name())?;
            let mut expected = Vec::with_capacity(program.inputs.len());
            for input in &program.inputs {
                let integers = model::fixed_inputs(&program.plan, input)?;
                expected.push(reference::integers(&program.plan, &program.weights, &integers, &Silent)?.0);
            }
            anyhow::Ok((program, expected))
        })?;
        Ok(Self { micro, args, watch, terminal, program, expected })
    }

    /// A new engine is an arm here.
    fn measure(&self, engine: Engine) -> anyhow::Result<Row> {
        match engine {
            Engine::Cleartext => self.cleartext(),
            Engine::TwoParty | Engine::Fss | Engine::Auto => self.two_party(engine),
            Engine::ThreeParty => self.three_party(),
        }
    }

    fn cleartext(&self) -> anyhow::Result<Row> {
        let Program { plan, weights, inputs, step, .. } = &self.program;
        let (outputs, process) = plain::cleartext(plan, weights, inputs, self.watch, self.terminal)?;
        let laps: Vec<f64> =
            process.laps.iter().map(|laps| laps.get(*step).copied().unwrap_or(0.0)).collect();
        let cpu: Vec<f64> = process.report.work.iter().map(|w| w.cpu_seconds).collect();
        let row = Row {
            network: "none".to_owned(),
            cpu_s: mean(self.kept(&cpu).iter().copied()),
            peak_rss_bytes: process.report.peak_memory_bytes,
            matches_cleartext: outputs == self.expected,
            ..self.blank(Engine::Cleartext)
        };
        Ok(self.timed(row, &laps))
    }

    fn two_party(&self, engine: Engine) -> anyhow::Result<Row> {
        let Program { weights, inputs, .. } = &self.program;
        let Self { args, .. } = self;
        let chosen = || program(engine, &self.program.plan, &args.network, &args.keys);
        let plan = &self.watch.computing(chosen)?;
        let mut parties = Parties::new(plan, weights, &self.args.network, self.watch, self.terminal)?;
        // The sharing of weights comes once.
        parties.offline(0)?;
        let files = write_inputs(plan, inputs, &parties.dir(CLIENT))?;
        let n = files.len();
        let offline = parties.offline(n as u64)?;
        let (outputs, online) = parties.online(&files)?;
        parties.close()?;
        let prepared: f64 = offline.iter().flat_map(|p| &p.report.work).map(|w| w.cpu_seconds).sum();
        let memory = offline.iter().map(|p| p.report.peak_memory_bytes).max().unwrap_or(0);
        let schedule = Schedule::new(plan, RevealTo::Client);
        let laps: Vec<&[f64]> =
            online.iter().filter(|p| p.party == CLIENT).flat_map(|p| &p.laps).map(Vec::as_slice).collect();
        let (row, cost) = self.private(engine, &schedule, &laps, &online, &outputs);
        Ok(Row {
            offline_wall_s: longest(&offline) / n as f64,
            offline_cpu_s: prepared / n as f64,
            offline_bytes: (cost.dealt + cost.dealt_client) as u64,
            stored_bytes: (cost.server_stores + cost.client_stores) as u64,
            peak_rss_bytes: row.peak_rss_bytes.max(memory),
            ..row
        })
    }

    fn three_party(&self) -> anyhow::Result<Row> {
        let Program { plan, weights, inputs, .. } = &self.program;
        let inputs = inputs.iter().map(|input| Ok(model::fixed_inputs(plan, input)?));
        let inputs: Vec<_> = inputs.collect::<anyhow::Result<_>>()?;
        let mut parties = ThreeParties::new(plan, weights, &self.args.network, self.watch, self.terminal)?;
        let (outputs, processes) = parties.infer(plan, &inputs)?;
        parties.close()?;
        let laps: Vec<&[f64]> = (0..inputs.len()).map(|i| slowest(&processes, i).1).collect();
        let schedule = Schedule::three_party(plan);
        let (row, cost) = self.private(Engine::ThreeParty, &schedule, &laps, &processes, &outputs);
        // What the dealer sends comes during the inference.
        let bytes = row.bytes + cost.dealt as u64;
        Ok(Row { bytes, bytes_per_element: self.per_element(bytes), ..row })
    }

    /// What private engines have in common: the operation's own instructions online, of which it returns the cost.
    fn private(
        &self,
        engine: Engine,
        schedule: &Schedule,
        laps: &[&[f64]],
        online: &[Process],
        outputs: &[Vec<Vec<i64>>],
    ) -> (Row, Cost) {
        let own = own_instructions(&self.program.plan, schedule, self.program.step);
        let mut cost = Cost::default();
        own.iter().for_each(|k| cost += schedule.instructions[*k].1);
        let lap = |laps: &&[f64]| own.iter().map(|k| laps.get(*k).copied().unwrap_or(0.0)).sum();
        let laps: Vec<f64> = laps.iter().map(lap).collect();
        let mut roles: Vec<&str> = online.iter().map(|p| p.party).collect();
        roles.sort_unstable();
        roles.dedup();
        let spent = |role: &str| {
            let own = online.iter().filter(|p| p.party == role);
            let spans: Vec<f64> = own.flat_map(|p| &p.report.work).map(|w| w.cpu_seconds).collect();
            mean(self.kept(&spans).iter().copied())
        };
        let bytes = (cost.server_sends + cost.client_sends) as u64;
        let row = Row {
            cpu_s: roles.into_iter().map(spent).sum(),
            bytes,
            bytes_per_element: self.per_element(bytes),
            rounds: cost.rounds,
            peak_rss_bytes: online.iter().map(|p| p.report.peak_memory_bytes).max().unwrap_or(0),
            matches_cleartext: outputs == self.expected,
            ..self.blank(engine)
        };
        (self.timed(row, &laps), cost)
    }

    fn per_element(&self, bytes: u64) -> f64 {
        rounded(bytes as f64 / self.program.elements as f64)
    }

    /// A row without what was measured.
    fn blank(&self, engine: Engine) -> Row {
        let plan = &self.program.plan;
        Row {
            exp: self.args.exp.name(),
            operation: self.micro.name(),
            engine: engine.name(),
            network: self.args.network.to_string(),
            ring: plan.ring.bits(),
            frac_bits: plan.frac_bits,
            width: self.program.width,
            elements: self.program.elements,
            iterations: self.args.iterations(),
            dropped: self.args.dropped(),
            wall_s: 0.0,
            wall_min_s: 0.0,
            wall_max_s: 0.0,
            cpu_s: 0.0,
            offline_wall_s: 0.0,
            offline_cpu_s: 0.0,
            bytes: 0,
            bytes_per_element: 0.0,
            offline_bytes: 0,
            rounds: 0,
            stored_bytes: 0,
            peak_rss_bytes: 0,
            matches_cleartext: true,
        }
    }

    fn kept<'b>(&self, all: &'b [f64]) -> &'b [f64] {
        let dropped = usize::try_from(self.args.dropped()).unwrap_or(usize::MAX);
        if all.len() > dropped { &all[dropped..] } else { all }
    }

    fn timed(&self, row: Row, seconds: &[f64]) -> Row {
        let kept = self.kept(seconds);
        Row {
            wall_s: median(kept.to_vec()),
            wall_min_s: kept.iter().copied().fold(f64::INFINITY, f64::min),
            wall_max_s: kept.iter().copied().fold(0.0, f64::max),
            ..row
        }
    }
}

/// Which instructions belong to a step: its own, and the openings before it, which nothing else needs.
fn own_instructions(plan: &Plan, schedule: &Schedule, step: usize) -> Vec<usize> {
    let belongs = |(instruction, _): &(Instruction, Cost)| match instruction {
        Instruction::Open(wires) => wires.iter().any(|wire| plan.steps[step].inputs.contains(wire)),
        Instruction::Step(i) => *i == step,
        Instruction::Reveal(_) => false,
    };
    (0..schedule.instructions.len()).filter(|k| belongs(&schedule.instructions[*k])).collect()
}

impl Row {
    /// In the order of [`COLUMNS`].
    fn to_csv(&self) -> String {
        let cells: [String; 23] = [
            self.exp.to_owned(),
            quoted(self.operation),
            self.engine.to_owned(),
            self.network.clone(),
            self.ring.to_string(),
            self.frac_bits.to_string(),
            self.width.map_or_else(String::new, |width| width.to_string()),
            self.elements.to_string(),
            self.iterations.to_string(),
            self.dropped.to_string(),
            rounded(self.wall_s).to_string(),
            rounded(self.wall_min_s).to_string(),
            rounded(self.wall_max_s).to_string(),
            rounded(self.cpu_s).to_string(),
            rounded(self.offline_wall_s).to_string(),
            rounded(self.offline_cpu_s).to_string(),
            self.bytes.to_string(),
            self.bytes_per_element.to_string(),
            self.offline_bytes.to_string(),
            self.rounds.to_string(),
            self.stored_bytes.to_string(),
            self.peak_rss_bytes.to_string(),
            self.matches_cleartext.to_string(),
        ];
        cells.join(",")
    }
}

fn shown(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header([
        "operation",
        "engine",
        "elements",
        "width",
        "wall s",
        "from",
        "to",
        "CPU s",
        "B/elem.",
        "rounds",
        "offline",
        "stored",
        "RSS",
    ]);
    for row in rows {
        shown.add_row([
            row.operation.to_owned(),
            row.engine.to_owned() + if row.matches_cleartext { "" } else { " WRONG" },
            row.elements.to_string(),
            row.width.map_or_else(|| "-".to_owned(), |width| width.to_string()),
            seconds(row.wall_s),
            seconds(row.wall_min_s),
            seconds(row.wall_max_s),
            seconds(row.cpu_s),
            format!("{:.1}", row.bytes_per_element),
            row.rounds.to_string(),
            seconds(row.offline_cpu_s),
            megabytes(row.stored_bytes as f64),
            megabytes(row.peak_rss_bytes as f64),
        ]);
    }
    table::lines(shown, 2)
}

/// Seconds and bytes, a group for each operation.
fn charts(rows: &[Row]) -> Vec<Chart> {
    let chart = |title: &str, of: &dyn Fn(&Row) -> Vec<(&'static str, f64)>| {
        let mut groups: Vec<Group> = Vec::new();
        for row in rows {
            let values = of(row).into_iter().filter(|(_, value)| *value > 0.0);
            let bar = |(phase, value): (&str, f64)| Bar {
                label: format!("{} {phase}", row.engine).trim_end().to_owned(),
                parts: vec![value],
                shade: Shade { hue: Engine::hue(row.engine), is_light: phase == "offline" },
                note: None,
            };
            let bars: Vec<Bar> = values.map(bar).collect();
            match groups.last_mut() {
                _ if bars.is_empty() => {}
                Some(group) if group.label == row.operation => group.bars.extend(bars),
                _ => groups.push(Group { label: row.operation.to_owned(), bars }),
            }
        }
        Chart { title: title.to_owned(), axis: Axis::Log, series: Vec::new(), groups }
    };
    let both = |online: f64, offline: f64| vec![("online", online), ("offline", offline)];
    vec![
        chart("Wall time of the operation (s)", &|row| vec![("", row.wall_s)]),
        chart("CPU time of all parties, inputs and outputs included (s)", &|row| {
            both(row.cpu_s, row.offline_cpu_s)
        }),
        chart("Bytes for an element", &|row| {
            let elements = row.elements as f64;
            both(row.bytes_per_element, row.offline_bytes as f64 / elements)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_own_their_openings() {
        let options = Options { elements: Some(16), ring: None, frac_bits: None, inputs: 0, seed: 1 };
        for micro in Micro::ALL {
            let program = Program::new(micro, &options).unwrap();
            let schedule = Schedule::new(&program.plan, RevealTo::Client);
            let own = own_instructions(&program.plan, &schedule, program.step);
            let opens = own.iter().filter(|k| matches!(schedule.instructions[**k].0, Instruction::Open(_)));
            assert_eq!(opens.count(), 1, "{}: its operands are shared", micro.name());
            assert_eq!(own.len(), 2, "{}", micro.name());
        }
    }
}
