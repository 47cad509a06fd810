//! The formulas of the gates: exhaustively on small rings, against golden vectors on all others.

use std::time::Duration;

use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};

use super::Role;
use super::compare::Gate;
use super::gate::{Dealing, Party};

/// Runs a gate between two threads on values `x` with total masks `lambda`; returns the reconstructed results.
fn run_gate(gate: Gate, ring: Ring, x: &[i64], lambda: &[u64]) -> Vec<i64> {
    let (server_seed, client_seed) = (Seed::random().unwrap(), Seed::random().unwrap());
    let (server, client) = (Prg::new(&server_seed), Prg::new(&client_seed));
    let mut dealing = Dealing::new(ring, &server, &client, 3);
    gate.deal(lambda, &mut dealing);
    let chunk = dealing.into_chunk();
    assert_eq!(
        chunk.len(),
        gate.cost(ring, x.len()).dealt,
        "declared material of {gate:?} at l={}",
        ring.bits()
    );
    let m: Vec<u64> = x.iter().zip(lambda).map(|(&x, &l)| ring.reduce((x as u64).wrapping_add(l))).collect();
    let lambda_server = Prg::new(&Seed::random().unwrap()).stream(0).words(x.len(), ring.mask());
    let lambda_client: Vec<u64> =
        lambda.iter().zip(&lambda_server).map(|(l, s)| ring.reduce(l.wrapping_sub(*s))).collect();
    let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(20));
    let run = |role, prg, chunk, own: &[u64], channel| {
        let mut party = Party::new(ring, role, prg, 3, chunk, channel);
        let y = gate.evaluate(&m, own, &mut party).unwrap();
        party.finish().unwrap();
        y
    };
    let (y_server, y_client) = std::thread::scope(|scope| {
        let handle = scope.spawn(|| run(Role::Client, &client, &[], &lambda_client, &mut b));
        (run(Role::Server, &server, &chunk, &lambda_server, &mut a), handle.join().unwrap())
    });
    let cost = gate.cost(ring, x.len());
    let traffic = privet_net::Channel::traffic(&a);
    let headers = traffic.frames_sent * privet_net::HEADER_BYTES as u64;
    assert_eq!(traffic.bytes_sent - headers, cost.opened as u64, "declared bytes of {gate:?}");
    assert_eq!(traffic.rounds, cost.rounds, "declared rounds of {gate:?}");
    y_server.iter().zip(&y_client).map(|(s, c)| ring.to_signed(s.wrapping_add(*c))).collect()
}

fn expected(gate: Gate, x: i64) -> i64 {
    match gate {
        Gate::Trunc { shift } => x >> shift,
        Gate::Relu { shift, .. } => x.max(0) >> shift,
    }
}

/// Every value in range under every mask.
fn exhaust(gate: Gate, bits: u32, width: u32) {
    let ring = Ring::tiny(bits);
    let half = 1i64 << (width - 1);
    let (mut x, mut lambda) = (Vec::new(), Vec::new());
    for value in -half..half {
        for mask in 0..1u64 << bits {
            x.push(value);
            lambda.push(mask);
        }
    }
    let y = run_gate(gate, ring, &x, &lambda);
    for ((&x, &l), &y) in x.iter().zip(&lambda).zip(&y) {
        assert_eq!(y, expected(gate, x), "{gate:?} l={bits} x={x} λ={l}");
    }
}

#[test]
fn truncation_is_exact_for_every_value_and_mask_at_8_and_10_bits() {
    for bits in [8, 10] {
        (1..=bits - 2).for_each(|shift| exhaust(Gate::Trunc { shift }, bits, bits - 1));
    }
}

#[test]
fn fused_relu_is_exact_for_every_value_and_mask_at_8_and_10_bits() {
    for (bits, widths) in [(8, 2..=7), (10, 8..=9)] {
        for width in widths {
            for shift in 0..width {
                exhaust(Gate::Relu { shift, width }, bits, width);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Golden {
    ring: u32,
    shift: u32,
    width: u32,
    x: Vec<i64>,
    lambda: Vec<u64>,
    trunc: Vec<i64>,
    relu: Vec<i64>,
}

/// Vectors made by an independent program, `scripts/golden_gates.py`: boundary and random values, both signs.
#[test]
fn gates_equal_the_golden_vectors_for_rings_of_16_to_64_bits() {
    let text = include_str!("../../tests/golden/gates.json");
    let cases: Vec<Golden> = serde_json::from_str(text).unwrap();
    assert!(cases.len() >= 100, "only {} golden cases", cases.len());
    for case in &cases {
        let ring = Ring::new(case.ring).unwrap();
        if case.shift > 0 {
            let y = run_gate(Gate::Trunc { shift: case.shift }, ring, &case.x, &case.lambda);
            assert_eq!(y, case.trunc, "trunc l={} s={}", case.ring, case.shift);
        }
        let gate = Gate::Relu { shift: case.shift, width: case.width };
        assert_eq!(run_gate(gate, ring, &case.x, &case.lambda), case.relu, "{gate:?} l={}", case.ring);
    }
}

#[test]
fn truncation_rounds_towards_minus_infinity() {
    let ring = Ring::new(32).unwrap();
    let x = [-1, 0, 1, (1 << 8) - 1, 1 << 8, -(1 << 8), -(1 << 8) - 1];
    let lambda = [0u64, 1, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0xff, 0x100];
    let y = run_gate(Gate::Trunc { shift: 8 }, ring, &x, &lambda);
    assert_eq!(y, [-1, 0, 0, 0, 1, -1, -2]);
}
