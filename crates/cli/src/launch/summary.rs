//! How a launch ended: a table for people, a line of JSON for programs, and one exit code.

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::crew::Member;
use super::job::Ended;
use crate::args::launch::LaunchArgs;
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::show::{self, table::STYLE};

#[derive(Serialize)]
struct Summary<'a> {
    hosts: Vec<HostSummary<'a>>,
}

#[derive(Serialize)]
struct HostSummary<'a> {
    host: String,
    party: &'a str,
    /// `done`, `failed`, `stopped`, or `not run`.
    state: &'static str,
    /// Of the command there; `null` if it did not run, or nobody knows.
    exit: Option<i32>,
    /// From the start of its ssh to its end.
    seconds: Option<f64>,
    error: Option<&'a str>,
    log: &'a Path,
    results: &'a [PathBuf],
    /// The directory that was left on the host.
    kept: Option<&'a str>,
}

impl<'a> HostSummary<'a> {
    fn of(member: &'a Member, keep: bool) -> Self {
        let state = match (&member.failure, member.ended) {
            (Some(_), _) => "failed",
            (None, Some(Ended { is_stopped: true, .. })) => "stopped",
            (None, Some(_)) => "done",
            (None, None) => "not run",
        };
        Self {
            host: member.host.to_string(),
            party: &member.party,
            state,
            exit: member.ended.filter(|ended| !ended.is_stopped).and_then(|ended| ended.ssh.code()),
            seconds: member.ended.map(|ended| ended.seconds),
            error: member.failure.as_ref().map(|(_, text)| text.as_str()),
            log: &member.log,
            results: &member.fetched,
            kept: (keep && member.is_made).then_some(member.commands.dir.as_str()),
        }
    }
}

/// What became of each host, on stdout.
pub(super) fn print(members: &[Member], args: &LaunchArgs) -> anyhow::Result<()> {
    let hosts: Vec<HostSummary<'_>> = members.iter().map(|m| HostSummary::of(m, args.keep)).collect();
    if args.json {
        return print_line(&Summary { hosts });
    }
    let mut table = Table::new();
    table.load_style(STYLE).set_header(["host", "party", "", "exit", "seconds", "log", "results"]);
    for host in &hosts {
        table.add_row([
            host.host.clone(),
            host.party.to_owned(),
            host.state.to_owned(),
            host.exit.map_or_else(|| "-".to_owned(), |exit| exit.to_string()),
            host.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}")),
            host.log.display().to_string(),
            host.results.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join("\n"),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    show::print(&table.to_string())
}

/// The failure of one host or of several, with the code that explains most.
pub(super) fn verdict(members: &[Member]) -> anyhow::Result<()> {
    let failures: Vec<(&Member, &(Code, String))> =
        members.iter().filter_map(|member| Some((member, member.failure.as_ref()?))).collect();
    if failures.is_empty() {
        return Ok(());
    }
    // A wrong file explains a failed connection, not the other way round.
    let order = [Code::Input, Code::Usage, Code::Internal, Code::Peer];
    let codes: Vec<Code> = failures.iter().map(|(_, (code, _))| *code).collect();
    let code = order.into_iter().find(|code| codes.contains(code)).unwrap_or(codes[0]);
    let line = |(member, (_, text)): &(&Member, &(Code, String))| {
        let Member { party, label, log, .. } = member;
        format!("\n{party} ({label}): {text}\n  its log: {}", log.display())
    };
    let lines = failures.iter().map(line);
    let what = if failures.len() == 1 { "a host failed" } else { "hosts failed" };
    Err(Failure::error(code, format!("{what}{}", lines.collect::<String>())))
}
