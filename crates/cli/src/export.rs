//! `privet export`: an architecture with random weights as an ONNX file.

use anyhow::Context;
use privet::bench::{self, Subject};

use crate::args::ExportArgs;
use crate::exit::{Code, Failure};
use crate::show::observe::Terminal;
use crate::show::{print, table};

pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let Some(Subject::Zoo(architecture)) = Subject::find(&args.name) else {
        let known = bench::names().collect::<Vec<_>>().join(", ");
        let text = format!("no architecture {:?}; expected one of {known}", args.name);
        return Err(Failure::error(Code::Usage, text));
    };
    let bytes = {
        let _spinner = Terminal::new().spinner("drawing weights");
        bench::export(architecture, args.seed, args.avgpool)?
    };
    std::fs::write(&args.output, &bytes)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let [channels, height, width] = architecture.input;
    print(&format!(
        "{} ({}): input [1, {channels}, {height}, {width}], {} outputs",
        args.output.display(),
        table::bytes(bytes.len() as u64),
        architecture.classes
    ))
}
