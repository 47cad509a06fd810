//! Running sealed models in enclaves, and asking those that do: `enclave`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use ndarray::ArrayD;
use privet::attest::attester::{GRAMINE_DIR, GramineAttester, TSM_REPORT_DIR, TsmAttester};
use privet::attest::{Attester, Tee, seconds_text};
use privet::enclave::{
    self, Answer, Asked, Connection, ElementType, EnclaveError, Ending, Halt, KeySource, ModelInfo, ModelPin,
    NextSetting, RemoteKey, TensorSpec, Terms, WorkerEvent, WorkerSetting,
};
use privet::keys::{Endpoint, Grant, SteadyClock, SystemClock, Uptime, machine_attester, verifier};
use privet::model::load_inputs_for;
use privet::output::{self, Values};
use privet::postprocess::{Output, Top};
use privet::seal::Swap;
use privet::split::Tensor;
use privet::{input, resources};
use privet_plan::{InputSpec, Post};
use privet_ring::wipe::wipe_freed_memory;
use serde::Serialize;

use crate::args::enclave::{AskArgs, AttesterKind, EnclaveArgs, EnclaveCommand, WorkerArgs};
use crate::args::keys::AttestationArgs;
use crate::commands::print_line;
use crate::exit::{Code, Failure};
use crate::given;
use crate::held::{self, Hold};
use crate::keys::{attestation_policy, begin, collateral, trust, warn_of_sample};
use crate::pin::pin;
use crate::secrets::keep_memory_private;
use crate::show::json::Tensor as Shown;
use crate::show::{answer, print, printable_line};
use crate::signals;
use crate::worker_files::{Files, pinned};

pub(crate) fn enclave(args: &EnclaveArgs) -> anyhow::Result<()> {
    keep_memory_private()?;
    match &args.command {
        Some(EnclaveCommand::Ask(args)) => ask(args),
        None => worker(&args.worker),
    }
}

fn worker(args: &WorkerArgs) -> anyhow::Result<()> {
    begin(&args.attestation)?;
    held::restart(args)?;
    let allow = args.attestation.allow_sample_insecure;
    let (argument, address) = match (&args.keycache, &args.keyserver) {
        (Some(address), _) => ("--keycache", address.clone()),
        (None, Some(address)) => ("--keyserver", address.clone()),
        (None, None) => return Err(Failure::error(Code::Usage, "expected --keycache or --keyserver")),
    };
    let trust = trust(
        (argument, &address),
        args.server_certificate.as_deref(),
        args.server_policy.as_deref(),
        &args.attestation,
    )?;
    let accepted = |flag: &str, path: &Path| {
        anyhow::Ok((own_verifier(&args.attestation)?, attestation_policy(flag, path)?))
    };
    let clients = args.clients.as_deref().map(|path| accepted("--clients", path)).transpose()?;
    let next = match (&args.next, &args.next_policy) {
        (Some(address), Some(path)) => {
            let (verifier, policy) = accepted("--next-policy", path)?;
            Some(NextSetting { address: address.clone(), verifier, policy })
        }
        _ => None,
    };
    let (pinned, files) = (pinned(args)?, Files::of(args)?);
    files.check(args, &pinned)?;
    let attester = attester(args.attester, allow)?;
    // What it is, for every line that says anything.
    let backend = attester.evidence(&[0; 64])?.tee();
    warn_of_sample(&args.attestation);
    let endpoint = Endpoint { address, trust, deadline: Duration::from_secs(args.key_deadline) };
    let key = pinned.key_id.clone();
    let source: Arc<dyn KeySource> =
        Arc::new(RemoteKey { endpoint, attester: attester.clone(), key, version: pinned.key_version });
    let setting = WorkerSetting {
        listen: args.listen.clone(),
        attester,
        clients,
        next,
        sessions: args.sessions.into(),
        queue: args.queue.into(),
        threads: args.threads.into(),
        key_lifetime: args.key_lifetime,
        clock: Arc::new(SteadyClock::new(Arc::new(SystemClock), Arc::new(Uptime::default()), 0)),
    };
    wipe_freed_memory();
    let swap = if args.allow_swap { Swap::Allowed } else { Swap::Locked };
    let stop = signals::wipe_flag()?;
    let answers = Arc::new(AtomicU64::new(0));
    let (is_json, counted) = (args.json, answers.clone());
    let teller = Teller::start()?;
    let says = teller.lines.clone();
    let tell = move |event: &WorkerEvent| {
        if matches!(event, WorkerEvent::Answered { .. }) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        // What does not fit is left out.
        let _ = words(backend, is_json, event).map(|said| says.try_send(said));
    };
    let hold = Hold::of(args);
    let load =
        move |grant: &Grant, halt: &Halt| files.open(Terms { pinned: &pinned, grant, swap, halt }, hold);
    enclave::serve(setting, &source, load, &stop, Arc::new(tell))?;
    if args.json {
        let ended = Line::Ended {
            answers: answers.load(Ordering::SeqCst),
            cpu_seconds: resources::cpu_seconds(),
            peak_memory_bytes: resources::peak_memory_bytes(),
        };
        let row = Row { backend: backend.name(), line: ended };
        let _ = teller.lines.try_send(Said::Out(serde_json::to_string(&row)?));
    }
    teller.finish();
    Ok(())
}

/// Lines that a worker keeps for who reads them.
const MAX_LINES: usize = 1024;
/// How long a worker that ends waits for its last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A line, and where it goes.
enum Said {
    Out(String),
    Err(String),
}

/// Prints on a thread of its own: who does not read what a worker says, does not keep it from wiping its weights in time.
struct Teller {
    lines: SyncSender<Said>,
    printed: Receiver<Infallible>,
}

impl Teller {
    fn start() -> anyhow::Result<Self> {
        let (lines, said) = sync_channel(MAX_LINES);
        let (done, printed) = sync_channel(0);
        let printing = move || {
            // Dropped at the end.
            let _done: SyncSender<Infallible> = done;
            for line in said {
                // Nobody reads it if this fails.
                match line {
                    Said::Out(text) => drop(print(&text)),
                    Said::Err(text) => drop(writeln!(io::stderr(), "{text}")),
                }
            }
        };
        std::thread::Builder::new()
            .name("lines".to_owned())
            .spawn(printing)
            .context("no thread to print on")?;
        Ok(Self { lines, printed })
    }

    /// Waits for the last lines, but not for long.
    fn finish(self) {
        drop(self.lines);
        let _ = self.printed.recv_timeout(LAST_LINES);
    }
}

fn attester(kind: AttesterKind, allow: bool) -> anyhow::Result<Arc<dyn Attester>> {
    Ok(match kind {
        AttesterKind::Auto => machine_attester(allow)?,
        AttesterKind::Gramine => Arc::new(GramineAttester::new(Path::new(GRAMINE_DIR))),
        AttesterKind::Tsm => Arc::new(TsmAttester::new(Path::new(TSM_REPORT_DIR))),
        AttesterKind::Sample if allow => machine_attester(true)?,
        AttesterKind::Sample => {
            let text = "--attester sample proves nothing; it takes --allow-sample-insecure";
            return Err(Failure::error(Code::Usage, text));
        }
    })
}

/// A line of `privet enclave --json`.
#[derive(Serialize)]
struct Row<'a> {
    backend: &'a str,
    #[serde(flatten)]
    line: Line<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Listening { address: &'a str },
    Key { seconds: f64, ends: u64, ends_utc: String },
    Ready { model: &'a ModelInfo, seconds_since_key: f64, decrypt_seconds: f64 },
    FirstAnswer { seconds_since_key: f64 },
    Answered { queue_seconds: f64, compute_seconds: f64, decrypt_seconds: f64 },
    Refused { reason: String, detail: &'a str },
    Failed { detail: &'a str },
    Renewed { ends: u64, ends_utc: String },
    NotRenewed { detail: &'a str },
    Ended { answers: u64, cpu_seconds: f64, peak_memory_bytes: u64 },
}

/// What happened, for stdout as JSON, or in words: the address for stdout, the rest for stderr.
fn words(backend: Tee, is_json: bool, event: &WorkerEvent) -> Option<Said> {
    let line = match event {
        WorkerEvent::Listening(address) => Line::Listening { address },
        WorkerEvent::Key { took, ends } => {
            Line::Key { seconds: took.as_secs_f64(), ends: *ends, ends_utc: seconds_text(*ends) }
        }
        WorkerEvent::Ready { model, took, decrypted } => Line::Ready {
            model,
            seconds_since_key: took.as_secs_f64(),
            decrypt_seconds: decrypted.as_secs_f64(),
        },
        WorkerEvent::First { after } => Line::FirstAnswer { seconds_since_key: after.as_secs_f64() },
        WorkerEvent::Answered { queued, computed, decrypted } => Line::Answered {
            queue_seconds: queued.as_secs_f64(),
            compute_seconds: computed.as_secs_f64(),
            decrypt_seconds: decrypted.as_secs_f64(),
        },
        WorkerEvent::Refused { kind, detail } => Line::Refused { reason: kind.to_string(), detail },
        WorkerEvent::Failed(detail) => Line::Failed { detail },
        WorkerEvent::Renewed { ends } => Line::Renewed { ends: *ends, ends_utc: seconds_text(*ends) },
        WorkerEvent::NotRenewed(detail) => Line::NotRenewed { detail },
    };
    if is_json {
        return serde_json::to_string(&Row { backend: backend.name(), line }).ok().map(Said::Out);
    }
    let mark = if backend == Tee::Sample { "sample, INSECURE: " } else { "" };
    let text = match line {
        Line::Listening { address } => return Some(Said::Out(format!("listening on {address}"))),
        Line::Key { seconds, ends_utc, .. } => {
            format!("got the key in {seconds:.3} s, to be used until {ends_utc} unless it is renewed")
        }
        Line::Ready { model, seconds_since_key, .. } => format!(
            "model {} version {}, signed by {}, sealed file {}, in memory {seconds_since_key:.3} s after the key came",
            model.id, model.version, model.verifying_key, model.digest
        ),
        Line::FirstAnswer { seconds_since_key } => {
            format!("first answer {seconds_since_key:.3} s after the key came")
        }
        Line::Answered { .. } | Line::Ended { .. } => return None,
        Line::Refused { reason, detail } => format!("refused a client: {reason}: {detail}"),
        Line::Failed { detail } => format!("failed: {detail}"),
        Line::Renewed { ends_utc, .. } => format!("the key may be used until {ends_utc}"),
        Line::NotRenewed { detail } => format!("the key is not renewed yet: {detail}"),
    };
    Some(Said::Err(format!("{mark}{}", printable_line(&text))))
}

/// What `privet enclave ask --json` prints.
#[derive(Serialize)]
struct AskResult<'a> {
    engine: &'static str,
    backend: &'static str,
    worker: &'a str,
    model_id: String,
    model_version: u64,
    model_digest: String,
    model_verifying_key: String,
    /// Whether the client knew whose model it was to be.
    owner_pinned: bool,
    top: &'a [Top],
    outputs: BTreeMap<&'a str, Shown<'a>>,
    connect_seconds: f64,
    /// How often the worker was verified.
    verifications: u32,
    answers: &'a [Took],
}

/// How long an answer took: as the client sees it, in the worker's queue, and the worker's computing.
#[derive(Debug, Clone, Copy, Serialize)]
struct Took {
    seconds: f64,
    queue_seconds: f64,
    compute_seconds: f64,
}

/// How often a worker is verified for one answer before `--evidence-age` is taken to be too short.
const MAX_STALE: usize = 10;

fn ask(args: &AskArgs) -> anyhow::Result<()> {
    begin(&args.attestation)?;
    args.input.iter().try_for_each(|given| input_file(given))?;
    let preprocess = args.preprocess.as_deref().map(input::preprocess_from_str_or_file).transpose()?;
    if let Some(path) = &args.labels {
        given::file("--labels", path, "a text file with a label on each line")?;
    }
    let labels = args.labels.as_deref().map(input::load_labels).transpose()?.unwrap_or_default();
    let policy = attestation_policy("--policy", &args.policy)?;
    warn_of_sample(&args.attestation);
    let start = Instant::now();
    let mut asked = Asked {
        address: &args.address,
        verifier: own_verifier(&args.attestation)?,
        policy,
        model: pin(args)?,
        attester: None,
        deadline: Duration::from_secs(args.deadline),
        evidence_age: Duration::from_secs(args.evidence_age),
    };
    let owner_pinned = asked.model.names_owner();
    let mut connection = Connection::open(&asked)?;
    let connect_seconds = start.elapsed().as_secs_f64();
    let model = connection.model().clone();
    // However often it connects, the same file has to answer.
    asked.model = ModelPin { digest: Some(model.digest), ..asked.model };
    if let Some(path) = &args.answer.output {
        output::check_path(path, model.outputs.len())?;
    }
    let specs: Vec<InputSpec> = model
        .inputs
        .iter()
        .map(|spec| InputSpec {
            name: spec.name.clone(),
            shape: spec.axes(),
            preprocess: preprocess.clone().unwrap_or_default(),
        })
        .collect();
    let files = load_inputs_for(&specs, &args.input)?;
    let inputs: Vec<Tensor> = model
        .inputs
        .iter()
        .zip(files)
        .map(|(spec, file)| tensor(spec, file))
        .collect::<anyhow::Result<_>>()?;
    let mut took = Vec::with_capacity(args.repeat as usize);
    let mut last = None;
    let mut verifications = 1;
    for _ in 0..args.repeat {
        let mut tries = 0;
        let (start, answer) = loop {
            let start = Instant::now();
            match connection.ask(&inputs) {
                // Nothing has been sent. On a busy machine a short --evidence-age may pass while the connection is made.
                Err(EnclaveError::Stale { .. }) if tries < MAX_STALE => tries += 1,
                answer => break (start, answer?),
            }
            connection = Connection::open(&asked)?;
            verifications += 1;
        };
        took.push(Took {
            seconds: start.elapsed().as_secs_f64(),
            queue_seconds: answer.queued.as_secs_f64(),
            compute_seconds: answer.computed.as_secs_f64(),
        });
        last = Some(answer);
    }
    let outputs = outputs(&model, last.context("at least one answer")?);
    let best = answer::best(&outputs, &labels, args.answer.topk);
    if let Some(path) = &args.answer.output {
        answer::write(path, &outputs)?;
    }
    let backend = connection.attested().claims.tee;
    if args.answer.json {
        return print_line(&AskResult {
            engine: "tee",
            backend: backend.name(),
            worker: &args.address,
            model_id: model.id.to_string(),
            model_version: model.version.get(),
            model_digest: model.digest.to_string(),
            model_verifying_key: model.verifying_key.to_string(),
            owner_pinned,
            top: &best,
            outputs: Shown::all(&outputs),
            connect_seconds,
            verifications,
            answers: &took,
        });
    }
    print(&answer::describe(&outputs, &best))?;
    print(&format!(
        "\n{backend}: worker {}, accepted by {}; model {} version {}, signed by {}",
        args.address,
        args.policy.display(),
        model.id,
        model.version,
        model.verifying_key
    ))?;
    if !owner_pinned {
        print(
            "not pinned: any owner's model would have got this input; next time say --release FILE, or --verifying-key and the key above",
        )?;
    }
    let Some(took) = took.last() else { return Ok(()) };
    print(&format!(
        "verified in {connect_seconds:.3} s, answered in {:.3} s, {:.3} s of it computing",
        took.seconds, took.compute_seconds
    ))
}

/// Whether there is such a file, before a worker is asked: `FILE`, or `NAME=FILE`.
fn input_file(given: &Path) -> anyhow::Result<()> {
    let text = given.to_str().unwrap_or_default();
    let mut named = text.match_indices('=').map(|(at, _)| Path::new(&text[at + 1..]));
    if given.exists() || named.any(Path::exists) {
        return Ok(());
    }
    given::file("--input", given, "a JPEG, PNG, .npy, .npz or .csv file, or NAME=FILE")
}

/// An input as the model takes it: files hold numbers, which have to be whole, or 0 and 1, for others than floats.
fn tensor(spec: &TensorSpec, values: ArrayD<f32>) -> anyhow::Result<Tensor> {
    let fits = |v: &f32| match spec.dtype {
        ElementType::Float32 => true,
        ElementType::Int64 => v.fract() == 0.0 && v.abs() <= 2f32.powi(24),
        ElementType::Bool => *v == 0.0 || *v == 1.0,
    };
    if let Some(at) = values.iter().position(|v| !fits(v)) {
        let expected = match spec.dtype {
            ElementType::Bool => "0 or 1",
            _ => "whole numbers up to 2^24",
        };
        let text = format!("input {:?}, number {at}: the model takes {expected}", spec.name);
        return Err(Failure::error(Code::Input, text));
    }
    Ok(match spec.dtype {
        ElementType::Float32 => values.into(),
        ElementType::Int64 => values.mapv(|v| v as i64).into(),
        ElementType::Bool => values.mapv(|v| v == 1.0).into(),
    })
}

fn own_verifier(args: &AttestationArgs) -> anyhow::Result<Arc<dyn privet::attest::Verifier>> {
    Ok(verifier(collateral(args)?, args.allow_sample_insecure)?)
}

/// As other commands show them.
fn outputs(model: &ModelInfo, answer: Answer) -> Vec<Output> {
    let named = model.outputs.iter().zip(&model.endings).zip(answer.outputs);
    let output = |((spec, ending), tensor): ((&TensorSpec, &Ending), Tensor)| {
        let axis = u32::try_from(spec.shape.len().saturating_sub(1)).unwrap_or(0);
        let post = match ending {
            Ending::Values => Post::None,
            Ending::Softmax => Post::Softmax { axis },
            Ending::LogSoftmax => Post::LogSoftmax { axis },
            Ending::Sigmoid => Post::Sigmoid,
        };
        let values = match tensor {
            Tensor::F32(a) => Values::Floats(a.mapv(f64::from)),
            Tensor::I64(a) => Values::Whole(a),
            Tensor::Bool(a) => Values::Whole(a.mapv(i64::from)),
        };
        Output { name: spec.name.clone(), values, post }
    };
    named.map(output).collect()
}

/// Floats, for comparing.
pub(crate) fn floats(outputs: &[Output]) -> Vec<ArrayD<f32>> {
    let floats = |output: &Output| match &output.values {
        Values::Floats(a) => a.mapv(|v| v as f32),
        Values::Whole(a) => a.mapv(|v| v as f32),
    };
    outputs.iter().map(floats).collect()
}
