//! A plan as a table.

use comfy_table::{CellAlignment, Table};
use privet::explain::{Cost, Explanation, Row};
use privet::predict::Prediction;

use super::{printable_line, table};
use crate::network::Network;

/// Characters of a layer's name: with them most rows fit 120 columns.
const NAME: usize = 18;

/// One line per step, sums, and what else is to know. Steps that cost nothing and open nothing are counted unless `all`
/// are to be shown; in the clear nothing costs anything, so all are.
pub(crate) fn describe(plan: &Explanation, all: bool) -> String {
    let is_clear = plan.totals.is_free();
    let (shown, folded): (Vec<&Row>, Vec<&Row>) =
        plan.rows.iter().partition(|r| all || is_clear || !r.costs.is_free() || r.opened.is_some());
    let mut text = format!(
        "plan {}\n{}, engine {}, {}-bit ring, {} fractional bits\n\n{}\n",
        plan.digest,
        printable_line(&plan.model),
        plan.engine,
        plan.ring,
        plan.frac_bits,
        steps(plan, &shown, is_clear)
    );
    if !folded.is_empty() {
        let count = folded.len();
        text.push_str(&format!("\nNot shown: {count} that send, store and open nothing (--all shows them)."));
    }
    text.push_str(&format!(
        "\n{} private values in the model, {} multiplications.",
        grouped(plan.parameters as u64),
        grouped(plan.multiply_accumulates)
    ));
    if plan.engine == "3pc" {
        text.push_str(&format!(
            "\nOf the three parties one deals, in turns: it sends the first of the two others {} during an\ninference, and \
             these two exchange the rest.",
            bytes(plan.totals.dealt)
        ));
    } else if !is_clear {
        let Cost { dealt, dealt_client, server_stores, client_stores, .. } = plan.totals;
        text.push_str(&format!(
            "\nBefore there is an input, server and client agree on its material: {} messages one after the other, not in the table.",
            plan.agreement_rounds
        ));
        let keys = match dealt_client {
            0 => String::new(),
            keys => format!(" and {} to the client", bytes(keys)),
        };
        text.push_str(&format!(
            "\nOne-time material of an inference: {} dealt to the server{keys}; {} stored by the server, {} by the client.\n\
             Masked weights, once for each client: {}.",
            bytes(dealt),
            bytes(server_stores),
            bytes(client_stores),
            bytes(plan.masked_weights)
        ));
    }
    for output in &plan.outputs {
        if let Some(function) = output.final_function {
            let name = printable_line(&output.name);
            text.push_str(&format!(
                "\nOutput {name}: {function} is computed by the receiver, in float, after the reveal."
            ));
        }
    }
    text
}

/// Steps of a prediction that are named.
const LONGEST: usize = 5;

/// What was predicted, in lines.
pub(crate) fn describe_prediction(network: &Network, prediction: &Prediction) -> String {
    let Prediction { online, agreement, offline, offline_once, steps, machine } = prediction;
    let mut longest: Vec<_> = steps.iter().collect();
    longest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let longest = longest
        .iter()
        .take(LONGEST)
        .map(|step| format!("{} {} {:.3} s", short(&step.layer), step.op, step.seconds))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "\nPredicted wall times over {network}, all parties on this machine:\n  online  {online}\n  agreed  {agreement}, before there is an input\n  offline {offline}, for each inference\n  \
         and     {offline_once}, once\nLongest online: {longest}.\n\
         This machine: {:.2} G multiplications/s, {:.1} M compared elements/s, TLS {:.2} GB/s each way, {:.0} us for a frame, {:.1} ms \
         for a durable write.",
        machine.multiplications_per_s / 1e9,
        machine.gate_elements_per_s / 1e6,
        machine.tls_bytes_per_s / 1e9,
        machine.frame_s * 1e6,
        machine.sync_s * 1e3,
    )
}

fn steps(plan: &Explanation, rows: &[&Row], is_clear: bool) -> String {
    let mut header = vec!["", "layer", "op", "shape", "f", "range", "room", "width"];
    if !is_clear {
        header.extend(match plan.engine {
            "3pc" => ["rounds", "1st sends", "2nd sends", "dealt", "opened"],
            _ => ["rounds", "to client", "to server", "stored", "opened"],
        });
    }
    let mut shown = Table::new();
    shown.load_style(table::STYLE).set_header(header);
    for row in rows {
        let number = |n: Option<u8>| n.map_or_else(String::new, |n| n.to_string());
        let mut cells = vec![
            row.step.to_string(),
            short(&row.layer),
            row.op.to_owned(),
            row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
            row.frac_bits.to_string(),
            format!("{} {}", row.range_bits, source(row)),
            number(row.head_room),
            number(row.width),
        ];
        if !is_clear {
            cells.extend(costs(plan, &row.costs));
            cells.push(row.opened.map_or_else(String::new, |o| format!("{}, {}", o.what, o.to)));
        }
        shown.add_row(cells);
    }
    if !is_clear {
        let mut cells: Vec<String> = ["", "total"].map(str::to_owned).into();
        cells.resize(8, String::new());
        cells.extend(costs(plan, &plan.totals));
        shown.add_row(cells);
    }
    for (i, column) in shown.column_iter_mut().enumerate() {
        column.set_padding((0, 0));
        if [0, 4, 6, 7, 8, 9, 10, 11].contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    shown.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn source(row: &Row) -> &'static str {
    match row.range_source {
        "calibrated" => "calib.",
        other => other,
    }
}

/// Rounds, what each side sends, and what both store, or are sent by the dealer meanwhile.
fn costs(plan: &Explanation, costs: &Cost) -> [String; 4] {
    let shown = |n: usize| if n == 0 { String::new() } else { bytes(n) };
    let rounds = if costs.rounds == 0 { String::new() } else { costs.rounds.to_string() };
    [
        rounds,
        shown(costs.server_sends),
        shown(costs.client_sends),
        shown(if plan.engine == "3pc" { costs.dealt } else { costs.server_stores + costs.client_stores }),
    ]
}

/// Three digits are enough here; `--json` has all.
pub(super) fn bytes(count: usize) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The end of a name, which tells layers apart.
pub(super) fn short(name: &str) -> String {
    let clean: Vec<char> = printable_line(name).chars().collect();
    match clean.len().checked_sub(NAME) {
        None | Some(0) => clean.into_iter().collect(),
        Some(_) => std::iter::once('…').chain(clean[clean.len() - NAME + 1..].iter().copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_names_shortened() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(short("a/b"), "a/b");
        assert_eq!(short(&format!("{}end", "x".repeat(30))), format!("…{}end", "x".repeat(NAME - 4)));
        let sizes = [0, 999, 1000, 10_229, 10_240, 1 << 20, 1_047_000].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "0.98 KiB", "9.99 KiB", "10.0 KiB", "1.00 MiB", "1.00 MiB"]);
    }
}
