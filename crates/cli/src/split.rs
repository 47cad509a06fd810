//! `privet split`: cuts a model into stages for machines with little memory.

use comfy_table::Table;
use privet::model;
use privet::split::{self, Index, SplitOptions, planner};

use crate::args::{Balance, SplitArgs};
use crate::commands::print_line;
use crate::show::{print, table};

pub(crate) fn split(args: &SplitArgs) -> anyhow::Result<()> {
    let input_shapes = args.input_shape.iter().map(|s| model::parse_shape(s)).collect::<Result<_, _>>()?;
    let balance = match args.balance {
        Balance::Memory => planner::Balance::Memory,
        Balance::Time => planner::Balance::Time,
    };
    let parts = args.parts.map(|parts| parts as usize);
    let options = SplitOptions { parts, memory: args.memory, balance, input_shapes };
    let index = split::split(&args.model, &options, &args.out)?;
    if args.json {
        return print_line(&index);
    }
    print(&describe(&index))?;
    print(&format!("{} and {} files in {}", split::INDEX_FILE, index.stages.len(), args.out.display()))
}

/// One line per stage.
fn describe(index: &Index) -> String {
    let mut table = Table::new();
    table.load_style(table::STYLE).set_header([
        "stage",
        "nodes",
        "file",
        "peak",
        "in blocks",
        "given",
        "gives",
    ]);
    for stage in &index.stages {
        let names = |shapes: &[split::Shape]| {
            let shown: Vec<String> = shapes.iter().take(3).map(shape).collect();
            let more = shapes.len().saturating_sub(3);
            shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
        };
        table.add_row([
            stage.file.clone(),
            stage.nodes.to_string(),
            table::bytes(stage.bytes),
            table::bytes(stage.peak),
            stage.blocks.len().to_string(),
            names(&stage.inputs),
            names(&stage.outputs),
        ]);
    }
    table::lines(table, 1)
}

fn shape(shape: &split::Shape) -> String {
    format!("{} {:?}", shape.name, shape.shape)
}
