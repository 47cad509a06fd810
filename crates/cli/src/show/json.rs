//! The single line of `--json`.

use std::collections::BTreeMap;

use privet::explain::Explanation;
use privet::model::Accuracy;
use privet::output::Values;
use privet::postprocess::{Output, Top};
use privet::predict::{Choice, Prediction};
use privet::{Phase, Plan, PlanSummary, Report};
use serde::Serialize;

/// What `privet run --json` prints. Seconds of a phase are those of its slowest party, rounds of the party with most;
/// everything else sums over the parties.
#[derive(Debug, Serialize)]
pub(crate) struct RunResult<'a> {
    pub(crate) engine: &'static str,
    #[serde(flatten)]
    pub(crate) answer: Answer<'a>,
    pub(crate) offline: Offline,
    pub(crate) online: Online,
    /// Of the parties that agree on something.
    pub(crate) agreement: Agreement,
    pub(crate) parties: Vec<Party<'a>>,
    pub(crate) matches_cleartext: bool,
    pub(crate) max_abs_error_vs_float: f64,
    pub(crate) calibration: Option<&'a Accuracy>,
}

/// What `privet compile --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct CompileResult<'a> {
    #[serde(flatten)]
    pub(crate) plan: &'a PlanSummary,
    pub(crate) calibration: Option<&'a Accuracy>,
    /// What `--engine auto` chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) choice: Option<&'a Choice>,
}

/// What `privet plan --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct PlanResult<'a> {
    #[serde(flatten)]
    pub(crate) explanation: &'a Explanation,
    pub(crate) calibration: Option<&'a Accuracy>,
    /// What `--engine auto` chose, and what the alternatives would cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) choice: Option<&'a Choice>,
    pub(crate) prediction: Option<Predicted<'a>>,
}

/// What `--network` adds.
#[derive(Debug, Serialize)]
pub(crate) struct Predicted<'a> {
    pub(crate) network: String,
    #[serde(flatten)]
    pub(crate) times: &'a Prediction,
}

/// What `privet client online --json` prints of an inference. Of several, the costs follow in a line of their own.
#[derive(Debug, Serialize)]
pub(crate) struct ClientResult<'a> {
    #[serde(flatten)]
    pub(crate) answer: Answer<'a>,
    #[serde(flatten)]
    pub(crate) cost: Option<ClientCost>,
}

/// See [`ClientResult`].
#[derive(Debug, Serialize)]
pub(crate) struct SessionResult {
    pub(crate) inferences: u64,
    #[serde(flatten)]
    pub(crate) cost: ClientCost,
}

/// What inferences took the client, and what was agreed on before there were inputs.
#[derive(Debug, Serialize)]
pub(crate) struct ClientCost {
    pub(crate) online: Online,
    pub(crate) agreement: Agreement,
}

/// The model and what it says.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    model: &'a str,
    ring: u32,
    frac_bits: u32,
    top: &'a [Top],
    outputs: BTreeMap<&'a str, Tensor<'a>>,
}

impl<'a> Answer<'a> {
    pub(crate) fn new(plan: &'a Plan, outputs: &'a [Output], top: &'a [Top]) -> Self {
        let outputs = Tensor::all(outputs);
        Self {
            model: &plan.model,
            ring: plan.ring.bits(),
            frac_bits: u32::from(plan.frac_bits),
            top,
            outputs,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Tensor<'a> {
    shape: &'a [usize],
    data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// By their names.
    pub(crate) fn all(outputs: &'a [Output]) -> BTreeMap<&'a str, Self> {
        let tensor =
            |o: &'a Output| (o.name.as_str(), Self { shape: o.values.shape(), data: Data::of(&o.values) });
        outputs.iter().map(tensor).collect()
    }
}

/// Whole numbers are written without a fraction.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Floats(Vec<&'a f64>),
    Whole(Vec<&'a i64>),
}

impl<'a> Data<'a> {
    fn of(values: &'a Values) -> Self {
        match values {
            Values::Floats(a) => Self::Floats(a.iter().collect()),
            Values::Whole(a) => Self::Whole(a.iter().collect()),
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Offline {
    seconds: f64,
    cpu_seconds: f64,
    bytes_sent: u64,
    bytes_stored: u64,
}

impl Offline {
    pub(crate) fn total<'a>(reports: impl Iterator<Item = &'a Report>) -> Self {
        reports.fold(Self::default(), |total, r| Self {
            seconds: total.seconds.max(r.seconds),
            cpu_seconds: total.cpu_seconds + r.cpu_seconds,
            bytes_sent: total.bytes_sent + r.bytes_sent,
            bytes_stored: total.bytes_stored + r.bytes_stored,
        })
    }
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Online {
    seconds: f64,
    cpu_seconds: f64,
    bytes_sent: u64,
    rounds: u64,
}

impl Online {
    pub(crate) fn total<'a>(reports: impl Iterator<Item = &'a Report>) -> Self {
        reports.fold(Self::default(), |total, r| Self {
            seconds: total.seconds.max(r.seconds),
            cpu_seconds: total.cpu_seconds + r.cpu_seconds,
            bytes_sent: total.bytes_sent + r.bytes_sent,
            rounds: total.rounds.max(r.rounds),
        })
    }

    /// One party's.
    pub(crate) fn of(report: &Report) -> Self {
        Self::total(std::iter::once(report))
    }
}

/// What server and client spent online before there was an input.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Agreement {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) bytes_sent: u64,
    pub(crate) rounds: u64,
}

impl Agreement {
    pub(crate) fn total<'a>(reports: impl Iterator<Item = &'a Report>) -> Self {
        reports.map(Self::of).fold(Self::default(), |total, own| Self {
            seconds: total.seconds.max(own.seconds),
            cpu_seconds: total.cpu_seconds + own.cpu_seconds,
            bytes_sent: total.bytes_sent + own.bytes_sent,
            rounds: total.rounds.max(own.rounds),
        })
    }

    /// One party's.
    pub(crate) fn of(report: &Report) -> Self {
        let privet::Agreement { bytes_sent, rounds, ref work, .. } = report.agreement;
        let sum = |of: fn(&privet::Span) -> f64| work.iter().map(of).sum();
        Self { seconds: sum(|w| w.seconds), cpu_seconds: sum(|w| w.cpu_seconds), bytes_sent, rounds }
    }
}

/// One party of a run; a phase that it has no part in is null.
#[derive(Debug, Serialize)]
pub(crate) struct Party<'a> {
    role: &'a str,
    offline: Option<Cost>,
    online: Option<Cost>,
    peak_memory_bytes: u64,
}

impl<'a> Party<'a> {
    pub(crate) fn new(role: &'a str, offline: Option<&Report>, online: Option<&Report>) -> Self {
        let peak = offline.into_iter().chain(online).map(|r| r.peak_memory_bytes).max();
        let (offline, online) = (offline.map(Cost::of), online.map(Cost::of));
        Self { role, offline, online, peak_memory_bytes: peak.unwrap_or(0) }
    }
}

#[derive(Debug, Serialize)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    bytes_sent: u64,
    bytes_received: u64,
    rounds: u64,
    bytes_stored: u64,
    /// Online.
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<Agreement>,
}

impl Cost {
    fn of(report: &Report) -> Self {
        Self {
            seconds: report.seconds,
            cpu_seconds: report.cpu_seconds,
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            rounds: report.rounds,
            bytes_stored: report.bytes_stored,
            agreement: (report.phase == Phase::Online).then(|| Agreement::of(report)),
        }
    }
}
