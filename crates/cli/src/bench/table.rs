//! Tables for people: what was measured, and what others take.

use comfy_table::{CellAlignment, Table};

use super::peers::{self, Peer};
use super::row::{Phase, Row};
use crate::show::{printable_line, table};

/// One line for each model and phase.
pub(super) fn rows(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header([
        "model",
        "phase",
        "ring",
        "f",
        "widths",
        "wall s",
        "CPU s",
        "bytes",
        "rounds",
        "stored",
        "peak RSS",
        "error",
        "start CPU s",
    ]);
    for row in rows {
        shown.add_row([
            printable_line(&row.model),
            row.phase.name().to_owned(),
            row.ring.to_string(),
            row.frac_bits.to_string(),
            row.widths.map_or_else(|| "-".to_owned(), |w| format!("{}-{}", w.min, w.max)),
            seconds(row.wall_s),
            seconds(row.cpu_s),
            megabytes(row.bytes as f64),
            row.rounds.to_string(),
            megabytes(row.stored_bytes as f64),
            megabytes(row.peak_rss_bytes as f64),
            format!("{:.1e}{}", row.max_abs_err, if row.matches_cleartext { "" } else { " WRONG" }),
            seconds(row.startup_cpu_s),
        ]);
    }
    let text = lines(shown, 2);
    let engine = rows.first().map_or("", |row| row.engine);
    format!(
        "Engine {engine}. Wall: the median inference, setup as a whole; everything else: means. CPU and bytes: all parties\n\
         together. Error: largest difference to float. Start: processes, models, state, TLS. MB = 10^6 bytes.\n\n{text}"
    )
}

/// What others take for these models, and how many times more than an inference here.
pub(super) fn peers(rows: &[Row]) -> String {
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header([
        "model",
        "system",
        "CPU s",
        "offline CPU s",
        "wall s",
        "bytes",
        "rounds",
        "stored",
        "note",
    ]);
    let mut found = false;
    for online in rows.iter().filter(|row| row.phase == Phase::Online) {
        let offline = rows.iter().find(|row| row.model == online.model && row.phase == Phase::Offline);
        shown.add_row([
            printable_line(&online.model),
            format!("privet {}", online.engine),
            seconds(online.cpu_s),
            offline.map_or_else(String::new, |row| seconds(row.cpu_s)),
            seconds(online.wall_s),
            megabytes(online.bytes as f64),
            online.rounds.to_string(),
            offline.map_or_else(String::new, |row| megabytes(row.stored_bytes as f64)),
            "this run".to_owned(),
        ]);
        for peer in peers::on(&online.model) {
            found = true;
            shown.add_row(compared(peer, online, offline));
        }
    }
    if !found {
        return "\nNo figures of other systems for these models.".to_owned();
    }
    format!(
        "\nOther systems; in brackets how many times more than we take. Measured: on a 2-core Xeon, loopback, all parties,\n\
         2026-11; systems without an offline phase have all their CPU seconds in the first column. Paper: as published.\n\n{}",
        lines(shown, 2)
    )
}

fn compared(peer: &Peer, online: &Row, offline: Option<&Row>) -> [String; 9] {
    let note = match peer.note {
        "" => peer.source.name().to_owned(),
        note => format!("{}; {note}", peer.source.name()),
    };
    let bytes = |megabytes: Option<f64>| megabytes.map(|m| m * 1e6);
    [
        String::new(),
        peer.system.to_owned(),
        beside(peer.cpu_s, seconds, online.cpu_s),
        beside(peer.offline_cpu_s, seconds, offline.map_or(0.0, |row| row.cpu_s)),
        beside(peer.wall_s, seconds, online.wall_s),
        beside(bytes(peer.megabytes), megabytes, online.bytes as f64),
        peer.rounds.map_or_else(String::new, |rounds| rounds.to_string()),
        beside(bytes(peer.stored_megabytes), megabytes, offline.map_or(0.0, |row| row.stored_bytes as f64)),
        note,
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

/// Two significant digits are enough.
fn ratio(value: f64) -> String {
    let decimals = match value {
        ..0.0995 => 3,
        ..0.995 => 2,
        ..9.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn seconds(value: f64) -> String {
    significant(value)
}

fn megabytes(bytes: f64) -> String {
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

/// A table without trailing blanks, the first `text` columns and a last `note` to the left.
fn lines(mut table: Table, text: usize) -> String {
    let notes = table.header().and_then(|h| h.cell_iter().position(|cell| cell.content() == "note"));
    for (i, column) in table.column_iter_mut().enumerate() {
        if i >= text && Some(i) != notes {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.00123, 0.0994, 0.1234, 1.234, 12.34, 123.4, 1234.5].map(significant);
        assert_eq!(shown, ["0", "0.0012", "0.0994", "0.123", "1.23", "12.3", "123", "1234"]);
        assert_eq!([0.054, 0.54, 5.4, 54.4].map(ratio), ["0.054", "0.54", "5.4", "54"]);
        assert_eq!(beside(Some(13_400e6), megabytes, 310e6), "13400 MB (43x)");
        assert_eq!(
            (beside(None, seconds, 1.0), beside(Some(1.0), seconds, 0.0)),
            (String::new(), "1.00".into())
        );
    }
}
