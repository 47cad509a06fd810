//! `privet run --engine tee`: key server, key cache, worker and client, each a process with only its own files, on a machine
//! without trusted hardware. All evidence is development evidence (**sample, INSECURE**), which proves nothing.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use comfy_table::Table;
use ndarray::ArrayD;
use privet::attest::claims::Identity;
use privet::attest::{Collateral, Tee};
use privet::keys::cache::CacheConfig;
use privet::keys::server::ServerConfig;
use privet::keys::{
    Address, AdminRequest, OwnerKey, TLS_CERTIFICATE_FILE, administer_at, machine_attester, verifier,
};
use privet::output::{self, Values};
use privet::postprocess::{Output, Top};
use privet::reference::{FloatReference, float_difference};
use privet::seal::{ModelId, ModelVersion, OwnerKeys, RELEASE_FILE, SealOptions, seal_onnx};
use privet::split::{SplitOptions, split_sealed};
use privet::{input, model};
use privet_plan::Post;
use serde::Serialize;
use serde_json::Value;

use crate::args::{LoweringArgs, RunArgs};
use crate::commands::print_line;
use crate::enclave::floats;
use crate::exit::{Code, Failure};
use crate::parties::child::Child;
use crate::run::absolute;
use crate::scratch::Scratch;
use crate::show::observe::Terminal;
use crate::show::{answer, print, table};
use crate::watch::Watch;

const KEY_SERVER: &str = "key server";
const KEY_CACHE: &str = "key cache";
pub(crate) const WORKER: &str = "worker";
pub(crate) const CLIENT: &str = "client";

const ANYWHERE: &str = "127.0.0.1:0";
const KEY_ID: &str = "model";
/// The sealed model or directory of stages, in the worker's directory.
pub(crate) const SEALED: &str = "model.sealed";
/// Largest difference to float, in relation to the largest value of the outputs: other kernels sum in another order.
const TOLERANCE: f64 = 1e-5;
/// How often children, clock and signals are looked at.
const POLL: Duration = Duration::from_millis(10);
/// Seconds for which the key is leased: longer than a run lasts.
const LEASE_SECONDS: u64 = 1_000_000;

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    check(args)?;
    let terminal = Terminal::new();
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let preprocess =
        args.lowering.preprocess.as_deref().map(input::preprocess_from_str_or_file).transpose()?;
    let preprocess = preprocess.unwrap_or_default();
    let (float, inputs) = watch.computing(|| {
        let _spinner = terminal.spinner("reading the model");
        let float = FloatReference::read(&args.model, &preprocess)?;
        let inputs = model::load_inputs_for(float.inputs(), &args.input)?;
        anyhow::Ok((float, inputs))
    })?;
    if let Some(path) = &args.answer.output {
        output::check_path(path, float.outputs().len())?;
    }
    let ran = processes(args, &float, &watch)?;
    let reference = watch.computing(|| {
        let _spinner = terminal.spinner("comparing with the model in float");
        float.run(&inputs)
    })?;
    let outputs = ran.outputs()?;
    let error = float_difference(&floats(&outputs), &reference);
    let largest = reference.iter().flatten().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
    // A model whose outputs are all zero has nothing to relate an error to.
    let relative = if largest > 0.0 { error / largest } else { error };
    if let Some(path) = &args.answer.output {
        answer::write(path, &outputs)?;
    }
    ran.show(args, &outputs, error, relative)?;
    if relative <= TOLERANCE {
        return Ok(());
    }
    let text = format!(
        "the worker's result differs from the model in float by {relative:.2e} of the largest output, more than {TOLERANCE:e}: \
         this is a bug, please report it with the model"
    );
    Err(Failure::error(Code::Mismatch, text))
}

fn check(args: &RunArgs) -> anyhow::Result<()> {
    let usage = |text: &str| Err(Failure::error(Code::Usage, text));
    if !args.allow_sample_insecure {
        return usage(
            "--engine tee: there is no trusted hardware between processes of one machine; to try everything around it with \
             development evidence, which proves nothing, say --allow-sample-insecure. In enclaves there are \
             `privet enclave` and `privet enclave ask`",
        );
    }
    if args.network.link.is_some() {
        return usage("--network: --engine tee is not measured over emulated networks; leave it out");
    }
    args.keys.check(&[])?;
    let LoweringArgs { labels, preprocess, .. } = &args.lowering;
    let own =
        LoweringArgs { labels: labels.clone(), preprocess: preprocess.clone(), ..LoweringArgs::default() };
    if args.lowering != own {
        return usage(
            "--engine tee runs the model in float as it is: of the options for models it takes --labels and --preprocess only",
        );
    }
    Ok(())
}

/// What came of the processes.
struct Ran {
    /// What the client printed.
    answer: Value,
    /// What the worker said, by events.
    worker: Vec<Value>,
    parties: Vec<(&'static str, f64)>,
    digest: String,
}

/// Key server, key cache and worker, running.
pub(crate) struct Site<'a> {
    pub(crate) crew: Crew<'a>,
    /// The worker's address.
    pub(crate) worker: String,
    /// Of the sealed file.
    pub(crate) digest: String,
}

/// What a worker runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// The sealed model, weights in memory.
    Whole,
    /// So many sealed stages, one by one.
    Stages(usize),
}

/// Sets everything up in `home` as its owners would. `started` is told the worker's process. Clients run in `home/client`, where
/// `worker.toml` accepts the worker.
pub(crate) fn start<'a>(
    home: &Path,
    (model, form): (&Path, Form),
    threads: &str,
    watch: &'a Watch,
    started: impl FnOnce(u32),
) -> anyhow::Result<Site<'a>> {
    let at = |name: &str| home.join(name);
    let keys = OwnerKeys::generate(KEY_ID.parse()?, ModelId::random()?)?;
    for dir in ["worker", "client"] {
        fs::create_dir(at(dir)).context("cannot make a directory")?;
    }
    let (files, digest) = watch.computing(|| seal(model, form, &at("worker"), &keys))?;
    for dir in ["worker", "client"] {
        keys.release.write(&at(dir).join(RELEASE_FILE))?;
    }
    ServerConfig::create(&at("server"), ANYWHERE, &["127.0.0.1".to_owned()], None)?;
    administer_at(&at("server"), &AdminRequest::Add(OwnerKey::new(&keys.content, &keys.release)))?;
    let measurement = measurement()?;
    let policy = key_policy(&keys, &digest, &measurement);
    administer_at(&at("server"), &AdminRequest::SetPolicy(policy.clone()))?;
    drop(keys);
    fs::write(at("client/worker.toml"), sample_policy("sample", &measurement))
        .context("cannot write a policy")?;

    let mut crew = Crew::new(watch);
    let here = ["--dir", "."];
    crew.spawn(KEY_SERVER, &at("server"), ["keyserver", "serve"].into_iter().chain(here))?;
    let server = crew.address(KEY_SERVER)?;
    let cache = Address::Unix("cache.sock".into());
    CacheConfig::create(&at("cache"), &cache.to_string(), &server, &at("server").join(TLS_CERTIFICATE_FILE))?;
    fs::write(at("cache/policies/model.toml"), policy).context("cannot write a policy")?;
    let sealing = ["--sealing-key-file-insecure", "sealing.key"];
    crew.spawn(KEY_CACHE, &at("cache"), ["keycache", "serve"].into_iter().chain(here).chain(sealing))?;
    crew.address(KEY_CACHE)?;
    let worker = ["enclave", files, SEALED, "--release", RELEASE_FILE];
    let more = ["--keycache", "unix:../cache/cache.sock", "--listen", ANYWHERE, "--threads", threads];
    crew.spawn(WORKER, &at("worker"), worker.into_iter().chain(more).chain(["--allow-swap", "--json"]))?;
    if let Some(worker) = crew.children.iter().find(|child| child.name == WORKER) {
        started(worker.id());
    }
    let worker = crew.address(WORKER)?;
    Ok(Site { crew, worker, digest })
}

/// Seals a model into `dir`. The option that names it, and its digest.
fn seal(model: &Path, form: Form, dir: &Path, keys: &OwnerKeys) -> anyhow::Result<(&'static str, String)> {
    let out = dir.join(SEALED);
    Ok(match form {
        Form::Whole => {
            ("--sealed", seal_onnx(model, &out, keys, &SealOptions::default())?.digest.to_string())
        }
        Form::Stages(parts) => {
            let options = SplitOptions { parts: Some(parts), ..SplitOptions::default() };
            let version = ModelVersion::new(1).context("a version is not zero")?;
            let index = split_sealed(model, &options, keys, version, &out)?;
            ("--stages", index.digest().iter().map(|byte| format!("{byte:02x}")).collect())
        }
    })
}

/// How the client begins, which is told whom to trust with an input and whose model is to answer.
pub(crate) fn ask(worker: &str) -> [&str; 7] {
    ["enclave", "ask", worker, "--policy", "worker.toml", "--release", RELEASE_FILE]
}

/// Runs everything, and one client.
fn processes(args: &RunArgs, float: &FloatReference, watch: &Watch) -> anyhow::Result<Ran> {
    let home = Scratch::new()?;
    let threads = args.threads.unwrap_or(1).to_string();
    let Site { mut crew, worker, digest } =
        start(home.path(), (&args.model, Form::Whole), &threads, watch, |_| ())?;
    let deadline = args.deadline.min(86_400).to_string();
    let topk = args.answer.topk.to_string();
    let mut ask: Vec<OsString> = ask(&worker).map(OsString::from).into();
    ask.extend(["--deadline", &deadline, "--topk", &topk].map(OsString::from));
    for given in &args.input {
        ask.extend(["--input".into(), absolute(float.inputs(), given)?]);
    }
    let files = [("--labels", args.lowering.labels.as_deref()), ("--preprocess", preprocess_file(args))];
    for (option, file) in files {
        if let Some(file) = file {
            let file =
                std::path::absolute(file).with_context(|| format!("no path for {}", file.display()))?;
            ask.extend([option.into(), file.into()]);
        }
    }
    if let (Some(name), None) = (&args.lowering.preprocess, preprocess_file(args)) {
        ask.extend(["--preprocess".into(), name.into()]);
    }
    ask.push("--json".into());
    crew.spawn(CLIENT, &home.path().join("client"), ask)?;
    crew.wait_for(CLIENT)?;
    let (parties, said) = crew.stop()?;
    home.close()?;
    let of = |party: &'static str| said.iter().filter(move |(who, _)| *who == party).map(|(_, line)| line);
    let parse = |line: &String| serde_json::from_str(line).context("a process said something else than JSON");
    let answer = of(CLIENT).next_back().context("the client said nothing")?;
    Ok(Ran {
        answer: parse(answer)?,
        worker: of(WORKER).map(parse).collect::<anyhow::Result<_>>()?,
        parties,
        digest,
    })
}

/// The file of `--preprocess`, where it names one.
fn preprocess_file(args: &RunArgs) -> Option<&Path> {
    args.lowering.preprocess.as_deref().map(Path::new).filter(|path| path.is_file())
}

/// What development evidence says of this program.
fn measurement() -> anyhow::Result<String> {
    let evidence = machine_attester(true)?.evidence(&[0; 64])?;
    let claims = verifier(Collateral::default(), true)?.verify(&evidence, SystemTime::now())?;
    match claims.identity {
        Identity::Sample { measurement } => {
            Ok(measurement.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        _ => Err(Failure::error(Code::Internal, "development evidence of another kind")),
    }
}

fn sample_policy(section: &str, measurement: &str) -> String {
    let table = section.strip_suffix(".sample").map_or_else(String::new, |table| format!("[{table}]\n"));
    format!(
        "{table}version = 1\n[{section}]\nallow_sample_insecure = true\nmeasurement = [\"{measurement}\"]\n"
    )
}

fn key_policy(keys: &OwnerKeys, digest: &str, measurement: &str) -> String {
    format!(
        "version = 1\nkey_id = \"{}\"\nmodel_id = \"{}\"\nmodel_digest = \"{digest}\"\n{}[lease]\nseconds = {LEASE_SECONDS}\n{}",
        keys.release.key_id,
        keys.release.model_id,
        sample_policy("get.sample", measurement),
        sample_policy("lease.to.sample", measurement)
    )
}

/// CPU seconds of processes that have ended.
type Spent = Vec<(&'static str, f64)>;
/// Lines that processes have said.
type Said = Vec<(&'static str, String)>;

/// The running processes, and what they have said on stdout.
pub(crate) struct Crew<'a> {
    watch: &'a Watch,
    children: Vec<Child>,
    sender: Sender<(&'static str, String)>,
    lines: Receiver<(&'static str, String)>,
    said: Vec<(&'static str, String)>,
    /// CPU seconds of those that have ended.
    ended: Vec<(&'static str, f64)>,
}

impl<'a> Crew<'a> {
    fn new(watch: &'a Watch) -> Self {
        let (sender, lines) = channel();
        Self { watch, children: Vec::new(), sender, lines, said: Vec::new(), ended: Vec::new() }
    }

    pub(crate) fn spawn<A: Into<OsString>>(
        &mut self,
        name: &'static str,
        dir: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<()> {
        let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let parent = std::process::id().to_string();
        args.extend(["--allow-sample-insecure", "--exit-with-parent", &parent].map(OsString::from));
        let lines = self.sender.clone();
        self.children.push(Child::spawn(name, dir, args, move |line| drop(lines.send((name, line))))?);
        Ok(())
    }

    /// Waits until it says where it listens.
    fn address(&mut self, party: &'static str) -> anyhow::Result<String> {
        loop {
            let listening = |line: &String| {
                let plain = line.strip_prefix("listening on ").map(str::to_owned);
                let event =
                    || serde_json::from_str::<Value>(line).ok()?["address"].as_str().map(str::to_owned);
                plain.or_else(event)
            };
            let own = self.said.iter().filter(|(who, _)| *who == party);
            if let Some(address) = own.filter_map(|(_, line)| listening(line)).next() {
                return Ok(address);
            }
            self.pump()?;
            if !self.children.iter().any(|child| child.name == party) {
                let text = format!("the {party} ended without saying where it listens");
                return Err(Failure::error(Code::Internal, text));
            }
        }
    }

    pub(crate) fn wait_for(&mut self, party: &str) -> anyhow::Result<()> {
        while self.children.iter().any(|child| child.name == party) {
            self.pump()?;
        }
        Ok(())
    }

    fn terminate(&self, party: &str) -> anyhow::Result<()> {
        self.children.iter().filter(|child| child.name == party).try_for_each(Child::terminate)
    }

    /// Ends worker, cache and server. CPU seconds, and what was said.
    pub(crate) fn stop(mut self) -> anyhow::Result<(Spent, Said)> {
        for party in [WORKER, KEY_CACHE, KEY_SERVER] {
            self.terminate(party)?;
            self.wait_for(party)?;
        }
        self.said.extend(self.lines.try_iter());
        Ok((self.ended, self.said))
    }

    /// Takes what has happened since; an error when a child failed, the deadline passed, or the user wants to stop.
    fn pump(&mut self) -> anyhow::Result<()> {
        self.watch.check()?;
        match self.lines.recv_timeout(POLL) {
            Ok(line) => self.said.push(line),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let mut running = Vec::new();
        let mut failed = None;
        for mut child in std::mem::take(&mut self.children) {
            match child.ended()? {
                Some(end) if end.status.success() => self.ended.push((child.name, end.cpu_seconds)),
                Some(end) => {
                    let code = Code::from_status(end.status.code());
                    let tail = child.end().iter().map(|line| format!("\n  {line}")).collect::<String>();
                    failed = Some(Failure::error(code, format!("the {} failed:{tail}", child.name)));
                }
                None => running.push(child),
            }
        }
        self.children = running;
        failed.map_or(Ok(()), Err)
    }
}

/// What `privet run --engine tee --json` prints.
#[derive(Serialize)]
struct TeeResult<'a> {
    engine: &'static str,
    backend: &'static str,
    model: String,
    model_digest: &'a str,
    top: &'a Value,
    outputs: &'a Value,
    /// To get the key, from the worker's request for it.
    key_seconds: f64,
    /// To have the model in memory, from the key's arrival.
    load_seconds: f64,
    /// From the key's arrival.
    first_answer_seconds: f64,
    /// To verify the worker.
    connect_seconds: f64,
    compute_seconds: f64,
    worker_peak_memory_bytes: u64,
    max_abs_error_vs_float: f64,
    relative_error_vs_float: f64,
    parties: Vec<PartyRow>,
}

#[derive(Serialize)]
struct PartyRow {
    party: &'static str,
    backend: &'static str,
    cpu_seconds: f64,
}

impl Ran {
    /// The worker's number of this name in an event.
    fn number(&self, event: &str, field: &str) -> f64 {
        let found = self.worker.iter().find(|line| line["event"] == event);
        found.and_then(|line| line[field].as_f64()).unwrap_or(f64::NAN)
    }

    /// The outputs, in the model's order.
    fn outputs(&self) -> anyhow::Result<Vec<Output>> {
        let specs = self.worker.iter().find(|line| line["event"] == "ready");
        let specs =
            specs.and_then(|line| line["model"]["outputs"].as_array()).context("the worker had no model")?;
        let output = |spec: &Value| {
            let name = spec["name"].as_str().context("an output without a name")?;
            let found = &self.answer["outputs"][name];
            let shape: Vec<usize> = serde_json::from_value(found["shape"].clone())?;
            const FILL: &str = "an output whose data do not fill its shape";
            let values = if spec["dtype"] == "float32" {
                let data: Vec<f64> = serde_json::from_value(found["data"].clone())?;
                Values::Floats(ArrayD::from_shape_vec(shape, data).context(FILL)?)
            } else {
                let data: Vec<i64> = serde_json::from_value(found["data"].clone())?;
                Values::Whole(ArrayD::from_shape_vec(shape, data).context(FILL)?)
            };
            Ok(Output { name: name.to_owned(), values, post: Post::None })
        };
        specs.iter().map(output).collect()
    }

    fn show(&self, args: &RunArgs, outputs: &[Output], error: f64, relative: f64) -> anyhow::Result<()> {
        let backend = Tee::Sample.name();
        let compute_seconds = self.answer["answers"][0]["compute_seconds"].as_f64().unwrap_or(f64::NAN);
        let result = TeeResult {
            engine: "tee",
            backend,
            model: args
                .model
                .file_stem()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            model_digest: &self.digest,
            top: &self.answer["top"],
            outputs: &self.answer["outputs"],
            key_seconds: self.number("key", "seconds"),
            load_seconds: self.number("ready", "seconds_since_key"),
            first_answer_seconds: self.number("first_answer", "seconds_since_key"),
            connect_seconds: self.answer["connect_seconds"].as_f64().unwrap_or(f64::NAN),
            compute_seconds,
            worker_peak_memory_bytes: self.number("ended", "peak_memory_bytes") as u64,
            max_abs_error_vs_float: error,
            relative_error_vs_float: relative,
            parties: [KEY_SERVER, KEY_CACHE, WORKER, CLIENT]
                .into_iter()
                .filter_map(|party| self.parties.iter().find(|(name, _)| *name == party))
                .map(|&(party, cpu_seconds)| PartyRow { party, backend, cpu_seconds })
                .collect(),
        };
        if args.answer.json {
            return print_line(&result);
        }
        let best: Vec<Top> = serde_json::from_value(self.answer["top"].clone())?;
        print(&answer::describe(outputs, &best))?;
        let mut rows = Table::new();
        rows.load_style(table::STYLE).set_header(["party", "evidence", "CPU s"]);
        for row in &result.parties {
            rows.add_row([row.party, row.backend, &format!("{:.2}", row.cpu_seconds)]);
        }
        print(&format!("\n{}", table::lines(rows, 2)))?;
        print(&format!(
            "{backend}: key in {:.3} s; model in memory {:.3} s and first answer {:.3} s after the key came, {:.3} s of it \
             computing; worker's peak memory {}",
            result.key_seconds,
            result.load_seconds,
            result.first_answer_seconds,
            result.compute_seconds,
            table::bytes(result.worker_peak_memory_bytes)
        ))?;
        print(&format!(
            "{backend}: largest difference to float {error:.2e}, {relative:.2e} of the largest output"
        ))
    }
}
