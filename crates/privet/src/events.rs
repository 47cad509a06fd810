//! What a running party tells its user: events as they happen, a report at the end.
//!
//! Events carry no input, weight, path of an input or key; the only values are outputs that this party is to learn.
//! With `--events` the command line writes each as one line of JSON, tagged by `"event"`.

use serde::{Deserialize, Serialize};

use privet_plan::{Plan, Preprocess};

/// Which half of an inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Everything that does not depend on the input.
    Offline,
    /// From the input to the output.
    Online,
}

impl Phase {
    /// `offline` or `online`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Online => "online",
        }
    }
}

/// Something that happened in a party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The party accepts connections.
    Listening {
        /// `host:port`, with the port that was picked when 0 was asked for.
        address: String,
    },
    /// A step is about to run.
    Progress {
        /// The phase.
        phase: Phase,
        /// Counts the inferences of this process, from 0.
        inference: u64,
        /// Steps done; all of them when an inference online has ended.
        done: usize,
        /// Steps in all.
        total: usize,
        /// The model's layer, or what else is being done.
        name: String,
    },
    /// For people.
    Message {
        /// One sentence.
        text: String,
    },
    /// A plan was received or loaded.
    Plan(PlanSummary),
    /// Something is off, but work goes on.
    Warning {
        /// One sentence.
        text: String,
    },
    /// How long the instructions of an inference took, for benchmarks.
    Laps {
        /// One for each [`Event::Progress`] of that inference.
        microseconds: Vec<u64>,
    },
    /// The party is done.
    Report(Report),
}

impl Event {
    /// [`Event::Laps`] of so many seconds each.
    pub fn laps(seconds: &[f64]) -> Self {
        Self::Laps { microseconds: seconds.iter().map(|s| (s * 1e6).round() as u64).collect() }
    }
}

/// The public facts about a plan that a user wants to see before trusting it with an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Hexadecimal digest of the plan, to be compared with what the model's owner says.
    pub digest: String,
    /// Size of the encoded plan.
    pub bytes: usize,
    /// Name of the model.
    pub model: String,
    /// Ring width in bits.
    pub ring: u32,
    /// Fractional bits.
    pub frac_bits: u32,
    /// Number of steps.
    pub steps: usize,
    /// Inputs, in order.
    pub inputs: Vec<TensorSummary>,
    /// Outputs, in order.
    pub outputs: Vec<TensorSummary>,
    /// How an image becomes the first input.
    pub preprocess: Preprocess,
}

/// Name and shape of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSummary {
    /// Name in the model.
    pub name: String,
    /// Shape, batch included.
    pub shape: Vec<usize>,
}

impl PlanSummary {
    /// Summarises `plan`, which has been validated.
    pub fn of(plan: &Plan) -> Self {
        let tensor =
            |name: &String, shape: &[usize]| TensorSummary { name: name.clone(), shape: shape.to_vec() };
        Self {
            digest: plan.digest().to_string(),
            bytes: plan.to_bytes().len(),
            model: plan.model.clone(),
            ring: plan.ring.bits(),
            frac_bits: u32::from(plan.frac_bits),
            steps: plan.steps.len(),
            inputs: plan.inputs.iter().map(|i| tensor(&i.name, &i.shape)).collect(),
            outputs: plan.outputs.iter().map(|o| tensor(&o.name, plan.shape(o.wire))).collect(),
            preprocess: plan.inputs.first().map(|i| i.preprocess.clone()).unwrap_or_default(),
        }
    }
}

/// What a phase cost one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `dealer`, `server` or `client`; the name of one of three parties; `cleartext`.
    pub role: String,
    /// The phase.
    pub phase: Phase,
    /// Inferences prepared or made.
    pub inferences: u64,
    /// Wall-clock seconds of the phase.
    pub seconds: f64,
    /// CPU seconds of the whole process, user and system.
    pub cpu_seconds: f64,
    /// Bytes sent to all peers: frames with their headers; without the agreements.
    pub bytes_sent: u64,
    /// Bytes received from all peers: frames with their headers; without the agreements.
    pub bytes_received: u64,
    /// Bytes written to sockets: all frames in TLS records, and handshakes.
    pub wire_bytes_sent: u64,
    /// Rounds of communication, without the agreements.
    pub rounds: u64,
    /// One-time material written to disk.
    pub bytes_stored: u64,
    /// Largest resident memory of the process.
    pub peak_memory_bytes: u64,
    /// The work alone, without what comes before (reading the model, opening the state, listening, agreeing) and after.
    /// Offline one entry for all inferences; online one for each, from the input to the result: at the client from when it is given, at
    /// the server from when it arrives.
    pub work: Vec<Span>,
    /// What server and client spent online before there was an input.
    pub agreement: Agreement,
}

/// What has to be agreed on before an input can be masked: connection, greeting, choice of the one-time material, and the
/// records on disk that it is used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Bytes sent: frames with their headers.
    pub bytes_sent: u64,
    /// Bytes received: frames with their headers.
    pub bytes_received: u64,
    /// Messages one after the other.
    pub rounds: u64,
    /// One entry for each inference that was agreed on. The wait for an input is not in its seconds; the server's
    /// CPU time meanwhile is.
    pub work: Vec<Span>,
}

/// How long something took. Where a server answers several clients at a time, each entry has the CPU time of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds of the whole process, user and system.
    pub cpu_seconds: f64,
}

/// Is told about events as they happen; called from several threads.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event) {}
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_single_json_lines_that_read_back() {
        let report = Report {
            role: "client".to_owned(),
            phase: Phase::Online,
            inferences: 1,
            seconds: 0.5,
            cpu_seconds: 0.25,
            bytes_sent: u64::MAX,
            bytes_received: 2,
            wire_bytes_sent: u64::MAX,
            rounds: 3,
            bytes_stored: 4,
            peak_memory_bytes: 5,
            work: vec![Span { seconds: 0.25, cpu_seconds: 0.125 }],
            agreement: Agreement { rounds: 2, ..Agreement::default() },
        };
        let events = [
            Event::Listening { address: "127.0.0.1:4711".to_owned() },
            Event::Progress {
                phase: Phase::Offline,
                inference: 0,
                done: 1,
                total: 2,
                name: "a\nb".to_owned(),
            },
            Event::Laps { microseconds: vec![0, 1 << 40] },
            Event::Report(report),
        ];
        for event in events {
            let line = serde_json::to_string(&event).unwrap();
            assert!(line.starts_with("{\"event\":\"") && !line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }
}
