//! `privet status`: what a server or client holds.

use comfy_table::{CellAlignment, Table};
use privet::status::{Unused, unused};
use privet::{PartyConfig, PartyRole};
use serde::Serialize;

use crate::args::StatusArgs;
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::show::print;
use crate::show::table::STYLE;

/// The fields of `--json`.
#[derive(Serialize)]
struct StatusResult<'a> {
    role: &'a str,
    name: &'a str,
    unused: &'a [Unused],
}

pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let config = PartyConfig::load_any(&args.config)?;
    if config.role == PartyRole::Dealer {
        let text = "a dealer keeps no material: ask with the configuration of a server or a client";
        return Err(Failure::error(Code::Input, text));
    }
    let unused = unused(&config)?;
    if args.json {
        let (role, name) = (config.role.name(), config.name.as_str());
        return print_line(&StatusResult { role, name, unused: &unused });
    }
    if unused.is_empty() {
        return print("no one-time material is held; run the offline phase");
    }
    let mut table = Table::new();
    table.load_style(STYLE).set_header(["with", "plan", "inferences held here"]);
    for Unused { peer, plan, bundles } in &unused {
        table.add_row([peer, plan, &bundles.len().to_string()]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    print(&table.to_string())
}
