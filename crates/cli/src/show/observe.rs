//! Events: as lines of JSON for a parent process, or as progress bars and messages for people.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use privet::bench::Stopwatches;
use privet::{Event, Observer, Phase, PlanSummary};

use super::{printable_line, table};

/// Characters of a layer's name that fit next to a bar.
const NAME: usize = 40;

/// How often a parent process is told about progress: it only moves a bar, and being woken for every instruction would take
/// more of a small model's time than the instructions.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Bytes of lines that nobody waits for, beyond which they are written nevertheless.
const MAX_WAITING: usize = 64 << 10;

/// Writes events as lines of JSON to stdout, progress now and then, and how long the instructions of each inference took
/// together with what comes next.
#[derive(Default)]
pub(crate) struct JsonLines {
    watches: Stopwatches,
    progressed: Mutex<Option<Instant>>,
    waiting: Mutex<String>,
}

impl JsonLines {
    fn is_due(&self, event: &Event) -> bool {
        let Event::Progress { done, .. } = event else { return true };
        // Before its first message an inference has no time for others.
        if *done == 0 {
            return false;
        }
        let mut progressed = self.progressed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = progressed.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if is_due {
            *progressed = Some(Instant::now());
        }
        is_due
    }

    /// To be written with what comes next.
    fn wait(&self, event: &Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(line) = serde_json::to_string(event) {
            waiting.push_str(&line);
            waiting.push('\n');
        }
        let is_much = waiting.len() > MAX_WAITING;
        drop(waiting);
        if is_much {
            self.write();
        }
    }

    fn write(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // A parent that has gone takes this process with it; until then nobody listens.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(waiting.as_bytes()).and_then(|()| out.flush());
        waiting.clear();
    }
}

impl Observer for JsonLines {
    fn event(&self, event: &Event) {
        // An inference has ended when the next one begins, or everything.
        if matches!(event, Event::Progress { done: 0, .. } | Event::Report(_)) {
            let laps = self.watches.take();
            if !laps.is_empty() {
                self.wait(&Event::laps(&laps));
            }
        }
        self.watches.event(event);
        if self.is_due(event) {
            self.wait(event);
            self.write();
        }
    }
}

/// Progress bars on stderr, hidden when it is no terminal; messages in any case.
pub(crate) struct Terminal {
    bars: MultiProgress,
    shown: Mutex<HashMap<(String, Phase), ProgressBar>>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self { bars: MultiProgress::new(), shown: Mutex::default() }
    }

    /// A line above the bars.
    pub(crate) fn say(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    /// A spinner that says what is being done; it disappears when it is dropped.
    pub(crate) fn spinner(&self, what: &str) -> Spinner {
        let bar = self.bars.add(ProgressBar::new_spinner().with_message(what.to_owned()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }

    /// Shows progress of `party`, and nothing else.
    pub(crate) fn progress(&self, party: &str, event: &Event) {
        let Event::Progress { phase, inference, done, total, name } = event else { return };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.entry((party.to_owned(), *phase)).or_insert_with(|| {
            let template = "{prefix:16} [{bar:30}] {pos}/{len} {wide_msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let prefix = format!("{party} {}", phase.name());
            self.bars.add(ProgressBar::new(0)).with_style(style.progress_chars("=> ")).with_prefix(prefix)
        });
        let number = if *inference > 0 { format!("inference {}: ", inference + 1) } else { String::new() };
        bar.set_length(*total as u64);
        bar.set_position(*done as u64);
        bar.set_message(number + &short(name));
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .for_each(|(_, bar)| bar.finish_and_clear());
    }
}

impl Observer for Terminal {
    fn event(&self, event: &Event) {
        match event {
            Event::Progress { .. } => self.progress("", event),
            Event::Listening { address } => self.say(&format!("listening on {address}")),
            Event::Message { text } => self.say(&printable_line(text)),
            Event::Warning { text } => self.say(&format!("warning: {}", printable_line(text))),
            Event::Plan(plan) => self.say(&describe(plan)),
            Event::Laps { .. } => {}
            Event::Report(report) => {
                self.clear();
                self.say(&table::phase(report));
            }
        }
    }
}

/// See [`Terminal::spinner`].
pub(crate) struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What a user should know about a plan before giving it an input.
pub(crate) fn describe(plan: &PlanSummary) -> String {
    let tensors = |list: &[privet::TensorSummary]| {
        list.iter().map(|t| format!("{} {:?}", short(&t.name), t.shape)).collect::<Vec<_>>().join(", ")
    };
    let preprocess = serde_json::to_string(&plan.preprocess).unwrap_or_default();
    format!(
        "plan {}\n  model {}, {} steps, {}, {}-bit ring, {} fractional bits\n  inputs {}; outputs {}\n  preprocessing {preprocess}",
        plan.digest,
        short(&plan.model),
        plan.steps,
        table::bytes(plan.bytes as u64),
        plan.ring,
        plan.frac_bits,
        tensors(&plan.inputs),
        tensors(&plan.outputs),
    )
}

/// A name from a model file or peer, short.
fn short(name: &str) -> String {
    let clean = printable_line(&name.chars().take(NAME).collect::<String>());
    if name.chars().count() > NAME { clean + ".." } else { clean }
}
