//! What a phase cost, from the processes that took part in it.

use super::case::{Case, mean, median};
use super::row::{Agreement, Party, Phase, Row, rounded};
use crate::args::Engine;
use crate::parties::{CLIENT, DEALER, Process, SERVER};

/// What `processes` spent, each party's share of one inference; of the online phase without the inferences that are
/// dropped. The wall time of starts is that of one process.
pub(super) fn phase(
    case: &Case<'_>,
    engine: Engine,
    phase: Phase,
    processes: &[Process],
    wall_s: f64,
) -> Row {
    let n = if phase == Phase::Setup { 1 } else { case.iterations() as u64 };
    let mut roles: Vec<&'static str> = Vec::new();
    for role in [DEALER, SERVER, CLIENT].into_iter().chain(processes.iter().map(|p| p.party)) {
        if !roles.contains(&role) && processes.iter().any(|p| p.party == role) {
            roles.push(role);
        }
    }
    let party = |role: &'static str| {
        let own: Vec<&Process> = processes.iter().filter(|p| p.party == role).collect();
        let spans: Vec<f64> = own.iter().flat_map(|p| &p.report.work).map(|w| w.cpu_seconds).collect();
        let worked: f64 = spans.iter().sum();
        let cpu_s = match phase {
            Phase::Online => mean(case.kept(&spans).iter().copied()),
            _ => worked / n as f64,
        };
        let total: f64 = own.iter().map(|p| p.cpu_seconds).sum();
        let agreed: f64 = own.iter().flat_map(|p| &p.report.agreement.work).map(|w| w.cpu_seconds).sum();
        Party {
            role,
            // Rounded here, so that what is shown adds up.
            cpu_s: rounded(cpu_s),
            bytes_sent: own.iter().map(|p| p.report.bytes_sent).sum::<u64>().div_ceil(n),
            peak_rss_bytes: own.iter().map(|p| p.report.peak_memory_bytes).max().unwrap_or(0),
            agreement_cpu_s: rounded(agreed / n as f64),
            startup_wall_s: mean(own.iter().map(|p| p.startup_seconds)),
            startup_cpu_s: rounded((total - worked - agreed).max(0.0) / n as f64),
        }
    };
    let parties: Vec<Party> = roles.into_iter().map(party).collect();
    let wire_bytes = processes.iter().map(|p| p.report.wire_bytes_sent).sum::<u64>().div_ceil(n);
    let row = case.blank(engine.name(), phase, parties);
    Row {
        wall_s,
        wall_min_s: wall_s,
        wall_max_s: wall_s,
        wire_bytes,
        rounds: processes.iter().map(|p| p.report.rounds).max().unwrap_or(0),
        agreement: agreement(processes, n, row.agreement),
        ..row
    }
}

/// What `n` inferences were agreed on with, as the client has seen it; its CPU time is known.
fn agreement(processes: &[Process], n: u64, known: Agreement) -> Agreement {
    let clients = || processes.iter().filter(|p| p.party == CLIENT).map(|p| &p.report.agreement);
    let next: Vec<f64> = clients().flat_map(|a| a.work.iter().skip(1)).map(|w| rounded(w.seconds)).collect();
    Agreement {
        wall_s: clients().filter_map(|a| a.work.first()).map(|w| w.seconds).fold(0.0, f64::max),
        next_wall_s: (!next.is_empty()).then(|| median(next)),
        bytes: processes.iter().map(|p| p.report.agreement.bytes_sent).sum::<u64>().div_ceil(n),
        rounds: clients().map(|a| a.rounds).max().unwrap_or(0),
        ..known
    }
}
