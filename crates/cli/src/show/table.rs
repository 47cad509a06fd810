//! What each party spent.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use indicatif::BinaryBytes;
use privet::Report;

use super::json::Agreement;

/// A line under the header and nothing else.
pub(crate) const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A party's phases.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) role: String,
    pub(crate) offline: Option<Report>,
    pub(crate) online: Option<Report>,
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// One line per party.
pub(crate) fn parties(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_header([
        "party",
        "offline s",
        "online s",
        "CPU s",
        "sent offline",
        "sent online",
        "rounds",
        "stored",
        "peak memory",
    ]);
    for row in rows {
        let (offline, online) = (row.offline.as_ref(), row.online.as_ref());
        let both = || offline.into_iter().chain(online);
        table.add_row([
            row.role.clone(),
            show(offline, |r| format!("{:.2}", r.seconds)),
            show(online, |r| format!("{:.2}", r.seconds)),
            format!("{:.2}", both().map(|r| r.cpu_seconds).sum::<f64>()),
            show(offline, |r| bytes(r.bytes_sent)),
            show(online, |r| bytes(r.bytes_sent)),
            show(online, |r| r.rounds.to_string()),
            bytes(both().map(|r| r.bytes_stored).sum()),
            bytes(both().map(|r| r.peak_memory_bytes).max().unwrap_or(0)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A table without trailing blanks, narrow, the first `text` columns and sources to the left.
pub(crate) fn lines(mut table: Table, text: usize) -> String {
    let notes = table.header().and_then(|h| h.cell_iter().position(|cell| cell.content() == "source"));
    for (i, column) in table.column_iter_mut().enumerate() {
        // 120 columns are few.
        column.set_padding((0, 1));
        if i >= text && Some(i) != notes {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// One phase of one party, in one line.
pub(crate) fn phase(report: &Report) -> String {
    let agreement = agreed(&Agreement::of(report)).map_or_else(String::new, |agreed| format!("; {agreed}"));
    format!(
        "{} {}: {} inferences, {:.2} s, {:.2} CPU s, sent {}, received {}, {} rounds, stored {}, peak memory {}{agreement}",
        report.role,
        report.phase.name(),
        report.inferences,
        report.seconds,
        report.cpu_seconds,
        bytes(report.bytes_sent),
        bytes(report.bytes_received),
        report.rounds,
        bytes(report.bytes_stored),
        bytes(report.peak_memory_bytes)
    )
}

/// What came before the inputs; nothing if nothing was agreed on.
pub(crate) fn agreed(agreement: &Agreement) -> Option<String> {
    let Agreement { seconds, cpu_seconds, bytes_sent, rounds } = agreement;
    (*rounds > 0).then(|| {
        let sent = bytes(*bytes_sent);
        format!("agreed before there was an input: {seconds:.4} s, {cpu_seconds:.4} CPU s, sent {sent}, {rounds} rounds")
    })
}

/// `12.34 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

fn show(report: Option<&Report>, cell: impl Fn(&Report) -> String) -> String {
    report.map_or_else(|| "-".to_owned(), cell)
}
