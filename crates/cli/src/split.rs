//! `privet split`: cuts a model into stages for machines with little memory.

use comfy_table::Table;
use privet::model;
use privet::seal::OwnerKeys;
use privet::split::{self, SplitOptions, StageEntry, planner};

use crate::args::{Balance, SplitArgs};
use crate::commands::print_line;
use crate::given;
use crate::seal::version;
use crate::secrets::keep_memory_private;
use crate::show::{print, table};
use crate::signals;

pub(crate) fn split(args: &SplitArgs) -> anyhow::Result<()> {
    given::file("--model", &args.model, "an ONNX file")?;
    let input_shapes = args.input_shape.iter().map(|s| model::parse_shape(s)).collect::<Result<_, _>>()?;
    let balance = match args.balance {
        Balance::Memory => planner::Balance::Memory,
        Balance::Time => planner::Balance::Time,
    };
    let parts = args.parts.map(|parts| parts as usize);
    let stop = signals::quiet_flag()?;
    let options = SplitOptions { parts, memory: args.memory, balance, input_shapes, stop };
    let Some(key) = &args.key else {
        let index = split::split(&args.model, &options, &args.out)?;
        if args.json {
            return print_line(&index);
        }
        print(&describe(&index.stages))?;
        return print(&format!(
            "{} and {} in {}",
            split::INDEX_FILE,
            table::count(index.stages.len(), "file"),
            args.out.display()
        ));
    };
    keep_memory_private()?;
    let keys = OwnerKeys::read(key)?;
    let index = split::split_sealed(&args.model, &options, &keys, version(args.version), &args.out)?;
    if args.json {
        return print_line(&index);
    }
    print(&describe(&index.stages))?;
    print(&format!(
        "{} and {} in {}: model {} version {}, key {} version {}",
        split::SEALED_INDEX_FILE,
        table::count(index.stages.len(), "sealed file"),
        args.out.display(),
        index.model_id,
        index.model_version.get(),
        index.key_id,
        index.key_version.get()
    ))
}

/// One line per stage.
fn describe(stages: &[StageEntry]) -> String {
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
    for stage in stages {
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
