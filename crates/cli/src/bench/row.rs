//! What is measured of one phase of one model.

use privet::bench::{Kind, KindSeconds};
use serde::Serialize;

/// One line of `--json`, one line of `--csv`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) exp: &'static str,
    pub(super) model: String,
    pub(super) engine: &'static str,
    pub(super) network: String,
    pub(super) phase: Phase,
    /// Inferences that were made.
    pub(super) iterations: u64,
    /// How many of them, the first ones, do not count in seconds and CPU seconds.
    pub(super) dropped: u64,
    /// Whether averages stand in the place of maxima.
    pub(super) average_pooling: bool,
    /// None in float.
    pub(super) ring: Option<u32>,
    pub(super) frac_bits: Option<u32>,
    pub(super) calibrated: bool,
    pub(super) widths: Option<Widths>,
    #[serde(serialize_with = "microseconds")]
    pub(super) wall_s: f64,
    #[serde(serialize_with = "microseconds")]
    pub(super) wall_min_s: f64,
    #[serde(serialize_with = "microseconds")]
    pub(super) wall_max_s: f64,
    /// What `--predict` expected.
    pub(super) predicted_wall_s: Option<f64>,
    #[serde(serialize_with = "microseconds")]
    pub(super) cpu_s: f64,
    pub(super) bytes: u64,
    /// The payload in these bytes that follows from the plan.
    pub(super) declared_bytes: u64,
    /// These bytes in TLS records, and handshakes.
    pub(super) wire_bytes: u64,
    pub(super) rounds: u64,
    pub(super) stored_bytes: u64,
    pub(super) peak_rss_bytes: u64,
    /// What comes online before there is an input.
    #[serde(flatten)]
    pub(super) agreement: Agreement,
    #[serde(serialize_with = "microseconds")]
    pub(super) startup_wall_s: f64,
    #[serde(serialize_with = "microseconds")]
    pub(super) startup_cpu_s: f64,
    /// Not a number shows as null.
    pub(super) max_abs_err: f64,
    /// None in float, which has no bits to compare.
    pub(super) matches_cleartext: Option<bool>,
    /// Wall-clock seconds of the kinds of layers, where they are known.
    #[serde(rename = "layer_s")]
    pub(super) layers: Option<Layers>,
    pub(super) parties: Vec<Party>,
    /// Largest difference to float in relation to the largest value in float.
    #[serde(skip)]
    pub(super) relative_err: f64,
    /// Whether other systems have figures for this: a private run of an architecture, not of a file that is called so.
    #[serde(skip)]
    pub(super) is_architecture: bool,
}

/// Connecting, greeting, choosing the one-time material and recording that it is used; zero where nothing is agreed on.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Agreement {
    /// Of the first inference of a connection: from connecting on.
    #[serde(rename = "agreement_wall_s", serialize_with = "microseconds")]
    pub(super) wall_s: f64,
    /// The median of those behind it, if there are any.
    #[serde(rename = "agreement_next_wall_s")]
    pub(super) next_wall_s: Option<f64>,
    /// Of an inference, all parties.
    #[serde(rename = "agreement_cpu_s", serialize_with = "microseconds")]
    pub(super) cpu_s: f64,
    /// Of an inference, all parties.
    #[serde(rename = "agreement_bytes")]
    pub(super) bytes: u64,
    /// Messages one after the other, of the whole connection.
    #[serde(rename = "agreement_rounds")]
    pub(super) rounds: u64,
}

/// A larger relative error means that the row measures a program that does not compute the model.
const ACCURATE: f64 = 0.01;

impl Row {
    pub(super) fn is_accurate(&self) -> bool {
        self.relative_err <= ACCURATE
    }
}

/// Mean wall-clock seconds of an inference by what its layers do; they add up to the mean of the whole.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Layers {
    #[serde(serialize_with = "microseconds")]
    conv: f64,
    #[serde(serialize_with = "microseconds")]
    linear: f64,
    #[serde(serialize_with = "microseconds")]
    relu: f64,
    #[serde(serialize_with = "microseconds")]
    pooling: f64,
    #[serde(serialize_with = "microseconds")]
    other: f64,
}

impl From<KindSeconds> for Layers {
    fn from(seconds: KindSeconds) -> Self {
        let KindSeconds { conv, linear, relu, pooling, other } = seconds;
        Self { conv, linear, relu, pooling, other }
    }
}

impl Layers {
    /// In the order of [`Kind::ALL`].
    pub(super) fn seconds(&self) -> [f64; Kind::ALL.len()] {
        [self.conv, self.linear, self.relu, self.pooling, self.other]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// The one-time sharing of plan and weights.
    Setup,
    /// One-time material.
    Offline,
    /// The inference.
    Online,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Offline => "offline",
            Self::Online => "online",
        }
    }
}

/// Smallest and largest width of a comparison.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Widths {
    pub(super) min: u8,
    pub(super) max: u8,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Party {
    pub(super) role: &'static str,
    #[serde(serialize_with = "microseconds")]
    pub(super) cpu_s: f64,
    pub(super) bytes_sent: u64,
    pub(super) peak_rss_bytes: u64,
    #[serde(serialize_with = "microseconds")]
    pub(super) agreement_cpu_s: f64,
    #[serde(serialize_with = "microseconds")]
    pub(super) startup_wall_s: f64,
    #[serde(serialize_with = "microseconds")]
    pub(super) startup_cpu_s: f64,
}

/// Seconds as far as clocks tell them.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

pub(super) fn microseconds<S: serde::Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*seconds))
}

/// Roles with columns of their own.
const ROLES: [&str; 8] = ["dealer", "server", "client", "p0", "party0", "party1", "party2", "float"];
const PARTY_COLUMNS: [&str; 6] =
    ["cpu_s", "bytes_sent", "peak_rss_bytes", "agreement_cpu_s", "startup_wall_s", "startup_cpu_s"];
const COLUMNS: [&str; 38] = [
    "exp",
    "model",
    "engine",
    "network",
    "phase",
    "iterations",
    "dropped",
    "average_pooling",
    "ring",
    "frac_bits",
    "calibrated",
    "width_min",
    "width_max",
    "wall_s",
    "wall_min_s",
    "wall_max_s",
    "predicted_wall_s",
    "cpu_s",
    "bytes",
    "declared_bytes",
    "wire_bytes",
    "rounds",
    "stored_bytes",
    "peak_rss_bytes",
    "agreement_wall_s",
    "agreement_next_wall_s",
    "agreement_cpu_s",
    "agreement_bytes",
    "agreement_rounds",
    "startup_wall_s",
    "startup_cpu_s",
    "max_abs_err",
    "matches_cleartext",
    "conv_s",
    "linear_s",
    "relu_s",
    "pooling_s",
    "other_s",
];

/// The first line of `--csv`.
pub(super) fn csv_header() -> String {
    let parties = ROLES.iter().flat_map(|role| PARTY_COLUMNS.map(|column| format!("{role}_{column}")));
    COLUMNS.map(str::to_owned).into_iter().chain(parties).collect::<Vec<_>>().join(",")
}

impl Row {
    /// A line of `--csv`; what does not apply is empty.
    pub(super) fn to_csv(&self) -> String {
        let width = |of: fn(Widths) -> u8| self.widths.map_or_else(String::new, |w| of(w).to_string());
        let mut cells: Vec<String> = vec![
            self.exp.to_owned(),
            quoted(&self.model),
            self.engine.to_owned(),
            self.network.clone(),
            self.phase.name().to_owned(),
            self.iterations.to_string(),
            self.dropped.to_string(),
            self.average_pooling.to_string(),
            self.ring.map_or_else(String::new, |bits| bits.to_string()),
            self.frac_bits.map_or_else(String::new, |bits| bits.to_string()),
            self.calibrated.to_string(),
            width(|w| w.min),
            width(|w| w.max),
            rounded(self.wall_s).to_string(),
            rounded(self.wall_min_s).to_string(),
            rounded(self.wall_max_s).to_string(),
            self.predicted_wall_s.map_or_else(String::new, |s| rounded(s).to_string()),
            rounded(self.cpu_s).to_string(),
            self.bytes.to_string(),
            self.declared_bytes.to_string(),
            self.wire_bytes.to_string(),
            self.rounds.to_string(),
            self.stored_bytes.to_string(),
            self.peak_rss_bytes.to_string(),
            rounded(self.agreement.wall_s).to_string(),
            self.agreement.next_wall_s.map_or_else(String::new, |s| rounded(s).to_string()),
            rounded(self.agreement.cpu_s).to_string(),
            self.agreement.bytes.to_string(),
            self.agreement.rounds.to_string(),
            rounded(self.startup_wall_s).to_string(),
            rounded(self.startup_cpu_s).to_string(),
            self.max_abs_err.to_string(),
            self.matches_cleartext.map_or_else(String::new, |matches| matches.to_string()),
        ];
        let layer = |i: usize| self.layers.map_or_else(String::new, |l| rounded(l.seconds()[i]).to_string());
        cells.extend((0..Kind::ALL.len()).map(layer));
        for role in ROLES {
            match self.parties.iter().find(|p| p.role == role) {
                Some(party) => cells.extend(party.cells()),
                None => cells.extend(PARTY_COLUMNS.map(|_| String::new())),
            }
        }
        cells.join(",")
    }
}

impl Party {
    fn cells(&self) -> [String; PARTY_COLUMNS.len()] {
        [
            rounded(self.cpu_s).to_string(),
            self.bytes_sent.to_string(),
            self.peak_rss_bytes.to_string(),
            rounded(self.agreement_cpu_s).to_string(),
            rounded(self.startup_wall_s).to_string(),
            rounded(self.startup_cpu_s).to_string(),
        ]
    }
}

/// A name of a file may hold anything (RFC 4180).
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_as_many_cells_as_the_header() {
        let party = Party {
            role: "client",
            cpu_s: 0.5,
            bytes_sent: 7,
            peak_rss_bytes: 8,
            agreement_cpu_s: 0.0,
            startup_wall_s: 0.0,
            startup_cpu_s: 0.0,
        };
        let row = Row {
            exp: "inference",
            model: "a,\"b\"".to_owned(),
            engine: "2pc",
            network: "loopback".to_owned(),
            phase: Phase::Online,
            iterations: 1,
            dropped: 0,
            average_pooling: false,
            ring: Some(40),
            frac_bits: None,
            calibrated: true,
            widths: None,
            wall_s: 0.25,
            wall_min_s: 0.25,
            wall_max_s: 0.25,
            predicted_wall_s: None,
            cpu_s: 0.5,
            bytes: 7,
            declared_bytes: 6,
            wire_bytes: 9,
            rounds: 5,
            stored_bytes: 0,
            peak_rss_bytes: 8,
            agreement: Agreement { next_wall_s: Some(0.125), ..Agreement::default() },
            startup_wall_s: 0.0,
            startup_cpu_s: 0.0,
            max_abs_err: f64::NAN,
            matches_cleartext: Some(true),
            layers: Some(Layers::from(KindSeconds { relu: 0.125, ..KindSeconds::default() })),
            parties: vec![party],
            relative_err: 0.0,
            is_architecture: false,
        };
        let line = row.to_csv();
        let unquoted = line.replace("\"a,\"\"b\"\"\"", "x");
        assert_ne!(line, unquoted);
        assert_eq!(unquoted.split(',').count(), csv_header().split(',').count());
        let column = csv_header().split(',').position(|c| c == "client_bytes_sent").unwrap();
        assert_eq!(unquoted.split(',').nth(column), Some("7"));
        let column = csv_header().split(',').position(|c| c == "relu_s").unwrap();
        assert_eq!(unquoted.split(',').nth(column), Some("0.125"));
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
