//! Emulated links: a connection made as slow as another network, for measuring on one machine.
//!
//! What is modelled, for each connection and direction on its own, is what `tc netem` does to the packets that leave a
//! host. Bytes leave one after the other at the link's rate, TLS records and handshakes included; a run of them is written
//! to the socket when its last byte has left and half a round trip has passed. Runs never overtake each other. Connecting
//! takes one round trip more, as TCP does. Both directions are independent. A writer that the system wakes up late may
//! catch up, by at most [`BURST`] worth of bytes; otherwise nothing is ever faster than the link.
//!
//! Not modelled: headers of TCP and IP, loss, congestion control and slow start, receive windows, and that the connections
//! of one party share its line. It only slows a connection down: what is sent, and how it is protected, stays the same.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// How far a line may be behind and still catch up: longer than a busy system lets a thread sleep.
const BURST: Duration = Duration::from_millis(5);

/// Bytes leave in runs that take about this long: short for a reader, long for a processor.
const RUN: Duration = Duration::from_millis(1);
const SMALLEST_RUN: usize = 1500;
const LARGEST_RUN: usize = 64 << 10;

/// Slowest and fastest rate, in bits a second, and the longest round trip and jitter.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;
const LONGEST: Duration = Duration::from_secs(10);

/// What a link is described with.
const EXPECTED: &str = "expected RATE:RTT or RATE:RTT:JITTER, such as 200mbit:10ms or 1gbit:500us:100us; RATE in kbit, mbit or gbit \
                        (a second), RTT and JITTER in us, ms or s";

/// A link to make a connection as slow as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emulated {
    /// Bits a second, in each direction.
    pub rate_bits_per_s: u64,
    /// How long a byte and its answer take, without their transmission.
    pub round_trip: Duration,
    /// Up to how much longer a way takes, drawn uniformly for every run of bytes.
    pub jitter: Duration,
}

impl Emulated {
    /// A local network: 1 Gbit/s, 1 ms.
    pub const LAN: Emulated = Emulated {
        rate_bits_per_s: 1_000_000_000,
        round_trip: Duration::from_millis(1),
        jitter: Duration::ZERO,
    };

    /// A wide-area network: 100 Mbit/s, 40 ms.
    pub const WAN: Emulated = Emulated {
        rate_bits_per_s: 100_000_000,
        round_trip: Duration::from_millis(40),
        jitter: Duration::ZERO,
    };

    /// Reads `RATE:RTT` or `RATE:RTT:JITTER`, such as `200mbit:10ms`.
    ///
    /// # Errors
    /// What is wrong, and what is expected.
    pub fn parse(text: &str) -> Result<Emulated, String> {
        let fail = |problem: String| format!("{problem}; {EXPECTED}");
        let parts: Vec<&str> = text.split(':').collect();
        let (rate, round_trip, jitter) = match parts[..] {
            [rate, round_trip] => (rate, round_trip, "0us"),
            [rate, round_trip, jitter] => (rate, round_trip, jitter),
            _ => return Err(fail(format!("found {text:?}"))),
        };
        let number = |text: &str, units: &[(&str, f64)]| {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = units.iter().find(|(name, _)| *name == &text[digits.len()..]);
            let value: Option<f64> = digits.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0);
            unit.zip(value).map(|((_, scale), value)| value * scale)
        };
        let bits = number(rate, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)]);
        let rate_bits_per_s = bits
            .map(|bits| bits.round() as u64)
            .filter(|bits| RATES.contains(bits))
            .ok_or_else(|| fail(format!("found {rate:?} as a rate (1kbit to 1000gbit)")))?;
        let time = |text: &str| {
            let seconds = number(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]);
            let time = seconds.filter(|s| *s <= LONGEST.as_secs_f64()).map(Duration::from_secs_f64);
            time.ok_or_else(|| fail(format!("found {text:?} as a time (at most 10s)")))
        };
        Ok(Emulated { rate_bits_per_s, round_trip: time(round_trip)?, jitter: time(jitter)? })
    }

    /// How long this many bytes take to leave.
    pub fn transmission(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate_bits_per_s as f64)
    }

    /// By how much longer a party has to wait for an answer, or for `bytes` of one, than without the link.
    pub(crate) fn allowance(&self, bytes: usize) -> Duration {
        self.round_trip + 2 * self.jitter + self.transmission(bytes + LARGEST_RUN.min(self.run()))
    }

    /// Bytes that leave at a time.
    fn run(&self) -> usize {
        let bytes = self.rate_bits_per_s as f64 / 8.0 * RUN.as_secs_f64();
        (bytes as usize).clamp(SMALLEST_RUN, LARGEST_RUN)
    }
}

/// Lets this thread's sleeps end within microseconds of when they should, instead of fifty.
pub(crate) fn wake_precisely() {
    // A system that refuses is less precise.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_timerslack(1000);
}

impl fmt::Display for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate_bits_per_s as f64;
        match rate {
            1e9.. => write!(f, "{}gbit", rate / 1e9)?,
            1e6.. => write!(f, "{}mbit", rate / 1e6)?,
            _ => write!(f, "{}kbit", rate / 1e3)?,
        }
        let times =
            if self.jitter.is_zero() { vec![self.round_trip] } else { vec![self.round_trip, self.jitter] };
        times.into_iter().try_for_each(|time| {
            let micros = time.as_nanos() as f64 / 1e3;
            if micros >= 1e6 {
                write!(f, ":{}s", micros / 1e6)
            } else if micros >= 1e3 {
                write!(f, ":{}ms", micros / 1e3)
            } else {
                write!(f, ":{micros}us")
            }
        })
    }
}

/// One direction of an emulated link.
pub(crate) struct Line {
    link: Emulated,
    /// When the last byte so far has left.
    left: Instant,
    /// When it arrives.
    arrives: Instant,
    /// Of the jitter, which decides nothing but times.
    state: u64,
}

impl Line {
    pub(crate) fn new(link: Emulated) -> Line {
        let now = Instant::now();
        Line { link, left: now, arrives: now, state: RandomState::new().build_hasher().finish() }
    }

    /// Bytes to hand to [`Line::arrival`] at a time.
    pub(crate) fn run(&self) -> usize {
        self.link.run()
    }

    /// When the next `bytes`, which were ready at `ready`, arrive. `now` is when they can be written at the earliest: while
    /// the socket took no bytes, none left.
    pub(crate) fn arrival(&mut self, ready: Instant, now: Instant, bytes: usize) -> Instant {
        let way = self.link.round_trip / 2;
        let idle = now.checked_sub(way + BURST).unwrap_or(ready);
        self.left = self.left.max(ready).max(idle) + self.link.transmission(bytes);
        let late = self.link.jitter.mul_f64(self.draw());
        self.arrives = self.arrives.max(self.left + way + late);
        self.arrives
    }

    /// The next number of 0..1 (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn descriptions_are_read_and_shown() {
        let link = |rate_bits_per_s, round_trip, jitter| Emulated { rate_bits_per_s, round_trip, jitter };
        let cases = [
            ("200mbit:10ms", link(200_000_000, 10 * MS, Duration::ZERO)),
            ("1gbit:500us:100us", link(1_000_000_000, MS / 2, MS / 10)),
            ("2.5gbit:1.5ms", link(2_500_000_000, 3 * MS / 2, Duration::ZERO)),
            ("64kbit:2s:3ms", link(64_000, 2000 * MS, 3 * MS)),
            ("10mbit:0us", link(10_000_000, Duration::ZERO, Duration::ZERO)),
        ];
        for (text, expected) in cases {
            assert_eq!(Emulated::parse(text), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), text);
        }
        assert_eq!(Emulated::parse("1gbit:1ms"), Ok(Emulated::LAN));
        assert_eq!(Emulated::parse("0.1gbit:0.04s:0ms"), Ok(Emulated::WAN));
    }

    #[test]
    fn other_descriptions_are_refused_with_the_form() {
        let wrong = [
            "",
            "fast",
            "1gbit",
            "1gbit:",
            ":1ms",
            "1gbit:1",
            "1:1ms",
            "1Gbit:1ms",
            "1gbit:1ms:1ms:1ms",
            "0mbit:1ms",
            "-1mbit:1ms",
            "nanmbit:1ms",
            "infgbit:1ms",
            "1gbit:-1ms",
            "1gbit:11s",
            "2000gbit:1ms",
            "1gbit:1ms:",
            "1gbit:infs",
            "1gbit:1µs",
        ];
        for text in wrong {
            let problem = Emulated::parse(text).unwrap_err();
            assert!(problem.contains("found") && problem.contains("200mbit:10ms"), "{text}: {problem}");
        }
    }

    /// 8 Mbit/s, or a byte a microsecond.
    fn line(jitter: Duration) -> (Line, Instant) {
        let link = Emulated { rate_bits_per_s: 8_000_000, round_trip: 20 * MS, jitter };
        let line = Line::new(link);
        let start = line.left;
        (line, start)
    }

    #[test]
    fn bytes_leave_at_the_rate_and_arrive_half_a_round_trip_later() {
        let (mut line, start) = line(Duration::ZERO);
        assert_eq!(line.arrival(start, start, 1000), start + 11 * MS);
        // Queued at the same time: it waits for its turn.
        assert_eq!(line.arrival(start, start, 2000), start + 13 * MS);
        // The line was idle meanwhile.
        let later = start + 50 * MS;
        assert_eq!(line.arrival(later, later, 1000), start + 61 * MS);
    }

    #[test]
    fn who_is_woken_late_catches_up_but_not_what_nobody_took() {
        let (mut line, start) = line(Duration::ZERO);
        line.arrival(start, start, 1000);
        // Written 4 ms late: the next bytes come as if it had not been.
        assert_eq!(line.arrival(start, start + 15 * MS, 1000), start + 12 * MS);
        // The socket was full for 100 ms: what is left of the frame did not leave in that time.
        assert_eq!(line.arrival(start, start + 112 * MS, 1000), start + (112 - 5 + 1) * MS);
        assert_eq!(line.arrival(start, start + 112 * MS, 1000), start + (112 - 5 + 2) * MS);
    }

    #[test]
    fn jitter_delays_and_never_reorders() {
        let (mut line, start) = line(8 * MS);
        let mut last = start;
        let mut delays = Vec::new();
        for i in 1..=1000u32 {
            let left = start + 3 * i * MS;
            let arrival = line.arrival(left - MS, left - MS, 1000);
            assert!(arrival >= last && (left + 10 * MS..=left + 18 * MS).contains(&arrival));
            delays.push(arrival - left);
            last = arrival;
        }
        let mean = delays.iter().sum::<Duration>() / 1000;
        assert!((13 * MS..17 * MS).contains(&mean), "{mean:?}");
    }

    #[test]
    fn runs_are_short() {
        assert_eq!([Emulated::LAN, Emulated::WAN].map(|l| l.run()), [LARGEST_RUN, 12_500]);
        assert_eq!(Emulated { rate_bits_per_s: 1000, ..Emulated::LAN }.run(), SMALLEST_RUN);
    }
}
