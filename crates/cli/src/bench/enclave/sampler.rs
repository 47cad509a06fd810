//! A thread that reads, once a second, what processes take, as Linux tells it in `/proc`, and what the machine draws.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ticks of `/proc/PID/stat` a second: fixed in Linux's interface to programs.
const TICKS: f64 = 100.0;
/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(10);
/// What is left at the end and is longer than this is a sample, too.
const REST: Duration = Duration::from_millis(200);

/// What was seen at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Seconds from the start.
    pub(super) at: f64,
    /// CPU time since the sample before in percent of one core; none where the system does not say.
    pub(super) cpu_percent: Option<f64>,
    /// The most resident memory since the sample before.
    pub(super) rss_bytes: Option<u64>,
    /// Power of all processor packages since the sample before.
    pub(super) watts: Option<f64>,
}

/// Processes to look at: those that run, with all their descendants, and the CPU time of those that ended.
#[derive(Debug, Default)]
struct Watched {
    running: Vec<u32>,
    ended_cpu: f64,
    /// The most resident memory since the last sample.
    seen: Option<u64>,
}

/// A running sampler.
pub(super) struct Sampler {
    watched: Arc<Mutex<Watched>>,
    stop: Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Starts to sample; each sample is told at once.
    pub(super) fn start(tell: impl Fn(&Sample) + Send + 'static) -> Self {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (stop, stopped) = channel::<()>();
        let own = Arc::clone(&watched);
        let thread = std::thread::spawn(move || {
            let power = Power::find(Path::new("/sys/class/powercap"));
            let mut samples = Vec::new();
            let start = Instant::now();
            let (mut last, mut cpu_before, mut joules_before) = (start, 0.0, power.joules());
            loop {
                let due = INTERVAL.saturating_sub(last.elapsed());
                let is_over = !matches!(stopped.recv_timeout(due.min(LOOK)), Err(RecvTimeoutError::Timeout));
                if let Ok(mut own) = own.lock() {
                    own.look();
                }
                if !is_over && due > LOOK {
                    continue;
                }
                let now = Instant::now();
                let seconds = now.duration_since(last).as_secs_f64();
                if is_over && !samples.is_empty() && now.duration_since(last) < REST {
                    return samples;
                }
                let (cpu, rss_bytes) = own.lock().map(|mut own| own.read()).unwrap_or_default();
                let joules = power.joules();
                let sample = Sample {
                    at: now.duration_since(start).as_secs_f64(),
                    cpu_percent: cpu.map(|cpu| (100.0 * (cpu - cpu_before) / seconds).max(0.0)),
                    rss_bytes,
                    watts: joules.zip(joules_before).map(|(j, before)| power.between(before, j) / seconds),
                };
                tell(&sample);
                samples.push(sample);
                (last, cpu_before, joules_before) = (now, cpu.unwrap_or(cpu_before), joules);
                if is_over {
                    return samples;
                }
            }
        });
        Self { watched, stop, thread }
    }

    /// Looks at a process and its descendants, too.
    pub(super) fn add(&self, pid: u32) {
        if let Ok(mut watched) = self.watched.lock() {
            watched.running.push(pid);
        }
    }

    /// A process has ended, and took so much CPU time in all.
    pub(super) fn ended(&self, pid: u32, cpu_seconds: f64) {
        if let Ok(mut watched) = self.watched.lock() {
            watched.running.retain(|other| *other != pid);
            watched.ended_cpu += cpu_seconds;
        }
    }

    /// Samples once more, and returns all samples.
    pub(super) fn finish(self) -> Vec<Sample> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

impl Watched {
    /// Notes how much memory there is now.
    fn look(&mut self) {
        let pids = self.running.iter().flat_map(|pid| tree(*pid));
        let sizes: Vec<u64> = pids.filter_map(|pid| status(pid, "VmRSS:")).collect();
        if !sizes.is_empty() {
            self.seen = self.seen.max(Some(sizes.iter().sum()));
        }
    }

    /// CPU seconds so far, and the most memory since this was asked before.
    fn read(&mut self) -> (Option<f64>, Option<u64>) {
        // A process that has just ended is not there any more.
        let running = self.running.iter().flat_map(|pid| tree(*pid)).filter_map(cpu_seconds);
        let cpu = self.ended_cpu + running.sum::<f64>();
        (cfg!(target_os = "linux").then_some(cpu), self.seen.take())
    }
}

/// CPU seconds of a process and those of its children that it has waited for.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_of(&stat)
}

/// The name of the program may hold anything, and ends with the last parenthesis.
fn cpu_of(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?) / TICKS)
}

/// A process and all its descendants.
pub(super) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children(*pid));
        at += 1;
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// A size in a process's status.
pub(super) fn status(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The energy counters of the processor packages (RAPL), where the system shows them.
struct Power {
    /// Files, and where their counters begin again, in microjoules.
    packages: Vec<(PathBuf, f64)>,
}

impl Power {
    fn find(powercap: &Path) -> Self {
        let entries = fs::read_dir(powercap).into_iter().flatten().flatten();
        let mut packages: Vec<(PathBuf, f64)> = entries
            .filter(|entry| {
                // Packages are intel-rapl:0, also of AMD; intel-rapl:0:0 is a part of one.
                let name = entry.file_name().to_string_lossy().into_owned();
                name.strip_prefix("intel-rapl:").is_some_and(|rest| rest.parse::<u32>().is_ok())
            })
            .filter_map(|entry| {
                let number = |file: &str| -> Option<f64> {
                    fs::read_to_string(entry.path().join(file)).ok()?.trim().parse().ok()
                };
                number("energy_uj")?;
                Some((entry.path().join("energy_uj"), number("max_energy_range_uj")?))
            })
            .collect();
        packages.sort_by(|a, b| a.0.cmp(&b.0));
        Self { packages }
    }

    /// Counters of all packages, in joules; none where there is none.
    fn joules(&self) -> Option<f64> {
        let read = |(file, _): &(PathBuf, f64)| fs::read_to_string(file).ok()?.trim().parse::<f64>().ok();
        let all: Option<Vec<f64>> = self.packages.iter().map(read).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.iter().sum::<f64>() / 1e6)
    }

    /// Joules between two readings, one counter at most having begun again.
    fn between(&self, before: f64, after: f64) -> f64 {
        let range = self.packages.first().map_or(0.0, |(_, range)| range / 1e6);
        if after < before { after + range - before } else { after - before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 100 0 0 0 150 50 20 30 20 0 1 0 100 1000 200";
        assert_eq!(cpu_of(stat), Some(2.5));
        assert_eq!(cpu_of("12 (a"), None);
    }

    #[test]
    fn processes_and_their_children_are_sampled_until_the_end() {
        let sampler = Sampler::start(|_| ());
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done & wait";
        let mut shell = std::process::Command::new("sh").args(["-c", busy]).spawn().unwrap();
        sampler.add(shell.id());
        let before = privet::resources::children_cpu_seconds();
        shell.wait().unwrap();
        sampler.ended(shell.id(), privet::resources::children_cpu_seconds() - before);
        let samples = sampler.finish();
        let last = samples.last().unwrap();
        assert!(!samples.is_empty() && last.at > 0.0);
        if cfg!(target_os = "linux") {
            assert!(samples.iter().filter_map(|s| s.cpu_percent).sum::<f64>() > 0.0, "{samples:?}");
        }
    }

    #[test]
    fn this_process_has_memory() {
        let mut watched = Watched { running: vec![std::process::id()], ended_cpu: 1.0, seen: None };
        watched.look();
        let (cpu, rss) = watched.read();
        if cfg!(target_os = "linux") {
            assert!(cpu.unwrap() >= 1.0 && rss.unwrap() > 1 << 20);
            assert!(status(std::process::id(), "VmHWM:").unwrap() >= rss.unwrap() / 2);
        }
    }

    #[test]
    fn power_is_read_from_packages_and_wraps() {
        let home = tempfile::tempdir().unwrap();
        let package = |name: &str, energy: &str| {
            let dir = home.path().join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("energy_uj"), energy).unwrap();
            fs::write(dir.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        assert_eq!(Power::find(home.path()).joules(), None);
        assert_eq!(Power::find(Path::new("/nowhere")).joules(), None);
        package("intel-rapl:0", "2000000\n");
        package("intel-rapl:0:0", "999\n");
        package("intel-rapl", "5\n");
        let power = Power::find(home.path());
        let before = power.joules();
        assert_eq!(before, Some(2.0));
        package("intel-rapl:0", "1000000\n");
        assert_eq!(power.between(before.unwrap(), power.joules().unwrap()), 9.0);
        assert_eq!(power.between(1.0, 4.0), 3.0);
    }
}
