//! Both parties' online phase: each has a clock, and a line to the other.

use privet_net::{Emulated, HEADER_BYTES};
use privet_protocols::masked::{Opening, Role};

use super::Machine;

/// Bytes that TLS adds to a frame.
const RECORD: f64 = 22.0;

/// What a frame meets on its way; all in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    /// For a byte to leave.
    pub(super) byte: f64,
    /// From when it has left until it has arrived.
    pub(super) way: f64,
    /// From one thread to the other, over this machine's own network.
    pub(super) hop: f64,
    /// For a byte to be encrypted, carried and decrypted on this machine.
    pub(super) tls: f64,
}

impl Network {
    pub(super) fn new(link: Option<Emulated>, machine: &Machine) -> Self {
        let way = link.map_or(0.0, |l| l.round_trip.as_secs_f64() / 2.0 + l.jitter.as_secs_f64() / 2.0);
        let byte = link.map_or(0.0, |l| 8.0 / l.rate_bits_per_s as f64);
        Self { byte, way, hop: link.map_or(machine.hop, |_| machine.hop_emulated), tls: machine.tls }
    }
}

/// Where the parties are: the server first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    network: Network,
    /// When each is done with what was played so far.
    parties: [f64; 2],
    /// When the line from each is free.
    free: [f64; 2],
}

impl Timeline {
    pub(super) fn new(network: Network) -> Self {
        Self { network, parties: [0.0; 2], free: [0.0; 2] }
    }

    /// When both are done with what was played so far.
    pub(super) fn now(&self) -> f64 {
        self.parties[0].max(self.parties[1])
    }

    /// An instruction that computes for `compute` and sends `frames` in `rounds` rounds, those of a round one lane after the
    /// other: while the frame of one lane travels, the next computes. Who is sent nothing does not wait.
    pub(super) fn play(&mut self, compute: f64, rounds: usize, frames: &[Opening]) {
        let lanes = frames.len() / rounds;
        if lanes == 0 {
            self.parties.iter_mut().for_each(|now| *now += compute);
            return;
        }
        let Network { byte, way, hop, tls } = self.network;
        let part = compute / ((rounds + 1) * lanes) as f64;
        let mut arrivals = vec![self.parties; lanes];
        for round in frames.chunks(lanes) {
            for (frame, arrival) in round.iter().zip(&mut arrivals) {
                let bytes = frame.bytes() as f64 + HEADER_BYTES as f64 + RECORD;
                let before = *arrival;
                for (party, receiver) in [Role::Client, Role::Server].into_iter().enumerate() {
                    let now = &mut self.parties[party];
                    *now = now.max(before[party]) + part;
                    if frame.to.includes(receiver) {
                        *now += bytes * tls;
                        self.free[party] = self.free[party].max(*now) + bytes * byte;
                        arrival[1 - party] = self.free[party] + way + hop;
                    }
                }
            }
        }
        for arrival in arrivals {
            for (now, arrival) in self.parties.iter_mut().zip(arrival) {
                *now = now.max(arrival) + part;
            }
        }
    }
}
