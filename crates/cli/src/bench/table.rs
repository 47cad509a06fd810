//! Tables for people: what was measured, and what others take.

use comfy_table::Table;

use super::peers::{self, Peer};
use super::row::{Phase, Row};
use crate::args::{BenchArgs, Experiment};
use crate::network::Network;
use crate::show::printable_line;
use crate::show::table::{self, lines};

/// Where predictions stand, right of wall times.
const PREDICTED: usize = 6;

/// One line for each phase of a model.
pub(super) fn rows(rows: &[Row]) -> String {
    let is_predicted = rows.iter().any(|row| row.predicted_wall_s.is_some());
    let mut shown = Table::new();
    let mut header = vec![
        "model", "phase", "ring", "f", "widths", "wall s", "CPU s", "bytes", "rounds", "stored", "RSS",
        "error", "agreed", "start",
    ];
    if is_predicted {
        header.insert(PREDICTED, "predicted");
    }
    shown.load_style(table::STYLE).set_header(header);
    for row in rows {
        let mut cells = vec![
            printable_line(&row.model),
            row.phase.name().to_owned(),
            number(row.ring),
            number(row.frac_bits),
            row.widths.map_or_else(|| "-".to_owned(), |w| format!("{}-{}", w.min, w.max)),
            seconds(row.wall_s),
            seconds(row.cpu_s),
            megabytes(row.bytes as f64),
            row.rounds.to_string(),
            megabytes(row.stored_bytes as f64),
            megabytes(row.peak_rss_bytes as f64),
            format!("{:.1e}{}", row.max_abs_err, verdict(row)),
            seconds(row.agreement.wall_s),
            seconds(row.startup_cpu_s),
        ];
        if is_predicted {
            cells.insert(PREDICTED, row.predicted_wall_s.map_or_else(|| "-".to_owned(), seconds));
        }
        shown.add_row(cells);
    }
    lines(shown, 2) + "\n"
}

/// What the columns mean.
pub(super) fn introduction(engines: &str, args: &BenchArgs) -> String {
    let over = |network: &Network| format!("Over connections as slow as {network}.\n");
    let over = args.network.link.map_or_else(String::new, |_| over(&args.network));
    let start = if args.exp == Experiment::Inference {
        format!(
            "Engine {engines}. Wall: the median inference, setup as a whole; everything else: means. CPU and bytes: all parties\n\
             together. What is done once offline is spread over the inferences: more --iterations, less each. Error: largest\n\
             difference to float. Agreed: wall time before there is an input, of the first inference of the connection: connecting,\n\
             greeting, choosing and recording the material. Start: CPU seconds of processes, models, state."
        )
    } else {
        format!(
            "Float runtime and {engines}: {} inferences of batch 1, {} dropped. Wall: their median, and from the fastest\n\
             to the slowest; everything else: means. CPU and bytes: all parties together, from the input to the output; what is\n\
             agreed on before has columns in --json. Error: largest difference to float.",
            args.iterations(),
            args.dropped(),
        )
    };
    format!("{over}{start} MB = 10^6 bytes.\n")
}

pub(super) fn verdict(row: &Row) -> &'static str {
    match (row.matches_cleartext, row.is_accurate()) {
        (Some(false), _) => " WRONG",
        (_, false) => " INACCURATE",
        (_, true) => "",
    }
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// What a system takes for one inference; nothing where it is not known.
#[derive(Clone, Copy)]
struct Figures {
    cpu_s: Option<f64>,
    wall_s: Option<f64>,
    bytes: Option<f64>,
    rounds: Option<u64>,
    stored_bytes: Option<f64>,
}

/// The line below that of the online phase of the same system.
const WITH_OFFLINE: &str = "    with offline";

/// What others take for these models, and how many times as much as an inference here.
pub(super) fn peers(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown
        .load_style(table::STYLE)
        .set_header(["system", "CPU s", "wall s", "bytes", "rounds", "stored", "source"]);
    let mut notes: Vec<&str> = Vec::new();
    for online in rows.iter().filter(|row| row.phase == Phase::Online && row.is_architecture) {
        let same = |row: &&Row| row.model == online.model && row.engine == online.engine;
        let offline = rows.iter().filter(same).find(|row| row.phase == Phase::Offline);
        let mut known = peers::on(&online.model).peekable();
        if known.peek().is_none() {
            continue;
        }
        let (alone, both) = (ours(online, None), ours(online, offline));
        shown.add_row([printable_line(&online.model)]);
        let name = format!("  privet {}{}", online.engine, if offline.is_some() { " online" } else { "" });
        shown.add_row(line(name, &alone, None, "this run".to_owned()));
        if offline.is_some() {
            shown.add_row(line(WITH_OFFLINE.to_owned(), &both, None, "this run".to_owned()));
        }
        // Theirs are of other networks than an emulated one.
        let is_comparable = online.network == Network::LOOPBACK;
        let [alone, both] =
            [alone, both].map(|own| Figures { wall_s: own.wall_s.filter(|_| is_comparable), ..own });
        for peer in known {
            let mut source = peer.source.name().to_owned();
            if !peer.note.is_empty() {
                let number = notes.iter().position(|n| *n == peer.note).unwrap_or_else(|| {
                    notes.push(peer.note);
                    notes.len() - 1
                });
                source.push_str(&format!(" ({})", number + 1));
            }
            let online_only = peer.offline_cpu_s.is_some();
            let system = format!("  {}{}", peer.system, if online_only { " online" } else { "" });
            let compared = Some(if online_only { &alone } else { &both }).filter(|_| online.is_accurate());
            shown.add_row(line(system, &theirs(peer, false), compared, source.clone()));
            if online_only {
                let name = WITH_OFFLINE.to_owned();
                shown.add_row(line(
                    name,
                    &theirs(peer, true),
                    Some(&both).filter(|_| online.is_accurate()),
                    source,
                ));
            }
        }
    }
    if shown.is_empty() {
        return "No figures of other systems for these models.".to_owned();
    }
    let notes = notes.iter().enumerate().map(|(i, note)| format!("({}) {note}", i + 1)).collect::<Vec<_>>();
    format!(
        "Other systems; in brackets theirs / ours. Systems that prepare material before are compared phase by phase, others\n\
         with our online and offline phases together. Measured: 2-core Xeon, loopback, all parties, 2026-11. Paper: as\n\
         published, on its authors' machines. Online is from the input to the output: our starts and agreements are left out\n\
         (first table, --json); what of theirs is, is not known. LLAMA's parties agree on nothing: they read files of keys.\n\
         Wall times over an emulated network are not compared.\n\n{}\n\n{}",
        lines(shown, 1),
        notes.join("\n")
    )
}

/// Our online phase, alone or with the offline phase.
fn ours(online: &Row, offline: Option<&Row>) -> Figures {
    let with = |of: fn(&Row) -> f64| Some(of(online) + offline.map_or(0.0, of));
    Figures {
        cpu_s: with(|row| row.cpu_s),
        wall_s: with(|row| row.wall_s),
        bytes: with(|row| row.bytes as f64),
        rounds: Some(online.rounds),
        stored_bytes: offline.map(|row| row.stored_bytes as f64),
    }
}

fn theirs(peer: &Peer, with_offline: bool) -> Figures {
    let megabytes = |m: Option<f64>| m.map(|m| m * 1e6);
    // Of what they send offline nothing but the material is known.
    let material = megabytes(peer.stored_megabytes).filter(|_| with_offline);
    let offline_cpu_s = peer.offline_cpu_s.filter(|_| with_offline);
    Figures {
        cpu_s: peer.cpu_s.map(|s| s + offline_cpu_s.unwrap_or(0.0)),
        wall_s: peer.wall_s,
        bytes: megabytes(peer.megabytes).map(|b| b + material.unwrap_or(0.0)),
        rounds: peer.rounds,
        stored_bytes: material,
    }
}

/// A line of the table, with ratios to `compared`.
fn line(system: String, own: &Figures, compared: Option<&Figures>, source: String) -> [String; 7] {
    let figure = |of: fn(&Figures) -> Option<f64>, show: fn(f64) -> String| {
        beside(of(own), show, compared.and_then(of).unwrap_or(0.0))
    };
    [
        system,
        figure(|f| f.cpu_s, seconds),
        figure(|f| f.wall_s, seconds),
        figure(|f| f.bytes, megabytes),
        beside(
            own.rounds.map(|rounds| rounds as f64),
            |rounds| rounds.to_string(),
            compared.and_then(|ours| ours.rounds).unwrap_or(0) as f64,
        ),
        figure(|f| f.stored_bytes, megabytes),
        source,
    ]
}

/// A figure with its ratio to ours, if there is one.
fn beside(theirs: Option<f64>, show: fn(f64) -> String, ours: f64) -> String {
    match theirs {
        Some(theirs) if ours > 0.0 => format!("{} ({}x)", show(theirs), ratio(theirs / ours)),
        Some(theirs) => show(theirs),
        None => String::new(),
    }
}

/// Two significant digits are enough, one below a tenth.
pub(super) fn ratio(value: f64) -> String {
    let decimals = match value {
        ..0.00995 => 3,
        ..0.995 => 2,
        ..9.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

pub(super) fn seconds(value: f64) -> String {
    significant(value)
}

pub(super) fn megabytes(bytes: f64) -> String {
    format!("{} MB", significant(bytes / 1e6))
}

/// Three significant digits at most, and no more than four places.
fn significant(value: f64) -> String {
    let decimals = match value {
        _ if value == 0.0 => 0,
        ..0.0995 => 4,
        ..0.995 => 3,
        ..9.95 => 2,
        ..99.5 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.00123, 0.0994, 0.1234, 1.234, 12.34, 123.4, 1234.5].map(significant);
        assert_eq!(shown, ["0", "0.0012", "0.0994", "0.123", "1.23", "12.3", "123", "1234"]);
        assert_eq!([0.054, 0.54, 5.4, 54.4].map(ratio), ["0.05", "0.54", "5.4", "54"]);
        assert_eq!(beside(Some(13_400e6), megabytes, 310e6), "13400 MB (43x)");
        assert_eq!(
            (beside(None, seconds, 1.0), beside(Some(1.0), seconds, 0.0)),
            (String::new(), "1.00".into())
        );
    }
}
