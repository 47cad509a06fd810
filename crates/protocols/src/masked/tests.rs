//! The formulas of the gates: exhaustively on small rings, against golden vectors on all others.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use privet_ring::Ring;
use privet_ring::planes::{from_values, plane_bytes, to_bits};
use privet_ring::prg::{Prg, Seed};

use super::borrow::Way;
use super::compare::Gate;
use super::cost::{Cost, GateCost, Opening};
use super::gate::{Chunks, Dealing, Half, Lane, PIECE, PLANE_PIECE, Party};
use super::lanes::{Shared, alone};
use super::product::Product;
use super::sign::{Masked, Sign};
use super::table::Table;
use super::tree::{Lacking, Side, Tree};
use crate::ProtocolError;

/// Runs a gate between two threads on values `x` with total masks `lambda`; returns the reconstructed results.
fn run_gate(gate: Gate, ring: Ring, x: &[i64], lambda: &[u64]) -> Vec<i64> {
    let evaluate = |x: Masked, party: &mut Party| alone(gate.evaluate(x.m, x.lambda, party));
    let deal = |dealing: &mut Dealing| gate.deal(lambda, dealing).unwrap();
    run(gate.cost(ring, x.len()), ring, x, lambda, deal, evaluate)
}

/// Runs both sides of a gate, checks what they deal and open against the declared cost, and reconstructs the results.
fn run(
    cost: GateCost,
    ring: Ring,
    x: &[i64],
    lambda: &[u64],
    deal: impl Fn(&mut Dealing),
    evaluate: impl Fn(Masked, &mut Party) -> Result<Vec<u64>, ProtocolError> + Sync,
) -> Vec<i64> {
    let (server_seed, client_seed) = (Seed::random().unwrap(), Seed::random().unwrap());
    let (server, client) = (Prg::new(&server_seed), Prg::new(&client_seed));
    let declared = |i: usize| cost.chunks().map(move |chunk| chunk[i]).filter(|&len| len > 0);
    let [chunks, client_chunks] = [(Half::First, 0), (Half::Second, 1)].map(|(half, i)| {
        let dealt = RefCell::new(VecDeque::new());
        let sink = |chunk| {
            dealt.borrow_mut().push_back(chunk);
            Ok(())
        };
        let mut dealing = Dealing::new(ring, [&server, &client], half, Lane::only(3), &sink);
        deal(&mut dealing);
        dealing.hand_on().unwrap();
        let lens: Vec<usize> = dealt.borrow().iter().map(Vec::len).collect();
        assert!(declared(i).eq(lens), "declared material at l={}, {half:?}", ring.bits());
        dealt
    });
    let m: Vec<u64> = x.iter().zip(lambda).map(|(&x, &l)| ring.reduce((x as u64).wrapping_add(l))).collect();
    let lambda_server = Prg::new(&Seed::random().unwrap()).stream(0).words(x.len(), ring.mask());
    let lambda_client: Vec<u64> =
        lambda.iter().zip(&lambda_server).map(|(l, s)| ring.reduce(l.wrapping_sub(*s))).collect();
    let (mut a, mut b) = privet_net::memory::pair(Duration::from_secs(20));
    let run = |half, prg, chunks: RefCell<VecDeque<Vec<u8>>>, own: &[u64], channel| {
        let link = Shared::new(channel);
        let source = |len| {
            let chunk: Vec<u8> = chunks.borrow_mut().pop_front().unwrap();
            assert_eq!(chunk.len(), len);
            Ok(chunk)
        };
        let to_come = Chunks::new(declared(usize::from(half == Half::Second)), &source);
        let mut party = Party::new(ring, half, prg, Lane::only(3), &[], Some(&to_come), &link);
        let y = evaluate(Masked { m: &m, lambda: own }, &mut party).unwrap();
        party.finish().unwrap();
        y
    };
    let (y_server, y_client) = std::thread::scope(|scope| {
        let handle = scope.spawn(|| run(Half::Second, &client, client_chunks, &lambda_client, &mut b));
        (run(Half::First, &server, chunks, &lambda_server, &mut a), handle.join().unwrap())
    });
    let traffic = privet_net::Channel::traffic(&a);
    let declared = Cost::from(&cost);
    let headers = traffic.frames_sent * privet_net::HEADER_BYTES as u64;
    assert_eq!(traffic.bytes_sent - headers, declared.server_sends as u64, "declared bytes");
    assert_eq!(traffic.rounds, declared.rounds, "declared rounds");
    y_server.iter().zip(&y_client).map(|(s, c)| ring.to_signed(s.wrapping_add(*c))).collect()
}

/// Every gate with a comparison, by both kinds of trees and by keys.
const WAYS: [Way; 3] = [Way::Tree { flat: false }, Way::Keys, Way::Tree { flat: true }];
/// So few bits make no flat trees.
const TINY_WAYS: [Way; 2] = [WAYS[0], WAYS[1]];

fn expected(gate: Gate, x: i64) -> i64 {
    match gate {
        Gate::Trunc { shift, .. } => x >> shift,
        Gate::Relu { shift, .. } => x.max(0) >> shift,
    }
}

/// Every value in range under every mask.
fn every_pair(bits: u32, values: std::ops::Range<i64>) -> (Vec<i64>, Vec<u64>) {
    values.flat_map(|value| (0..1u64 << bits).map(move |mask| (value, mask))).unzip()
}

fn exhaust(gate: Gate, bits: u32, width: u32) {
    let half = 1i64 << (width - 1);
    let (x, lambda) = every_pair(bits, -half..half);
    let y = run_gate(gate, Ring::tiny(bits), &x, &lambda);
    for ((&x, &l), &y) in x.iter().zip(&lambda).zip(&y) {
        assert_eq!(y, expected(gate, x), "{gate:?} l={bits} x={x} λ={l}");
    }
}

#[test]
fn signs_are_exact_for_every_value_and_mask_at_8_and_10_bits() {
    let widths = [(8, 2), (8, 5), (8, 7), (8, 8), (10, 9), (10, 10)];
    for ((bits, width), way) in widths.into_iter().flat_map(|w| TINY_WAYS.map(|way| (w, way))) {
        let half = 1i64 << (width - 1);
        let (ring, sign) = (Ring::tiny(bits), Sign { width, way });
        let (x, lambda) = every_pair(bits, -half..half);
        let cost = sign.cost(ring, x.len(), 0);
        let deal = |dealing: &mut Dealing| sign.deal(&lambda, dealing).unwrap();
        let y = run(cost, ring, &x, &lambda, deal, |x, party| alone(sign.bit(x.m, party)));
        for ((&x, &l), &y) in x.iter().zip(&lambda).zip(&y) {
            assert_eq!(y, i64::from(x >= 0), "l={bits} width={width} x={x} λ={l}");
        }
    }
}

/// Two values chosen by one sign, both masked by what the sign is masked by, which the formula must not mind.
#[test]
fn choices_are_exact_for_every_value_and_mask_at_8_bits() {
    for (width, way) in [2, 6, 8].into_iter().flat_map(|w| TINY_WAYS.map(|way| (w, way))) {
        let half = 1i64 << (width - 1);
        let (ring, sign) = (Ring::tiny(8), Sign { width, way });
        let (x, lambda) = every_pair(8, -half..half);
        let twice = |v: &[u64]| -> Vec<u64> {
            v.iter().copied().chain(v.iter().map(|v| ring.reduce(v.wrapping_mul(5)))).collect()
        };
        let cost = sign.cost(ring, x.len(), 2 * x.len());
        let deal = |dealing: &mut Dealing| sign.deal_select(&lambda, &twice(&lambda), dealing).unwrap();
        let evaluate = |x: Masked, party: &mut Party| {
            let (m, lambda) = (twice(x.m), twice(x.lambda));
            alone(sign.select(x.m, Masked { m: &m, lambda: &lambda }, party))
        };
        let y = run(cost, ring, &x, &lambda, deal, evaluate);
        let expected = |factor: i64| {
            x.iter().map(move |&x| if x >= 0 { ring.to_signed((x * factor) as u64) } else { 0 })
        };
        let expected: Vec<i64> = expected(1).chain(expected(5)).collect();
        assert_eq!(y, expected, "width={width}");
    }
}

#[test]
fn tables_are_exact_for_every_index_and_mask_at_8_to_11_bits() {
    // Beyond 8 by keys.
    for (bits, k) in [(8, 1), (8, 4), (8, 6), (8, 7), (10, 7), (10, 8), (10, 9), (11, 10)] {
        let ring = Ring::tiny(bits);
        let entries: Vec<i64> = (0..1i64 << k).map(|i| ring.to_signed((i * i * 37 + 11) as u64)).collect();
        let table = Table { entries: &entries };
        let (x, lambda) = every_pair(bits, 0..1 << k);
        let deal = |dealing: &mut Dealing| table.deal(&lambda, dealing).unwrap();
        let y = run(table.cost(ring, x.len()), ring, &x, &lambda, deal, |x, party| {
            alone(table.evaluate(x.m, party))
        });
        for ((&x, &l), &y) in x.iter().zip(&lambda).zip(&y) {
            assert_eq!(y, entries[x as usize], "l={bits} k={k} x={x} λ={l}");
        }
    }
}

#[test]
fn truncation_is_exact_for_every_value_and_mask_at_8_and_10_bits() {
    for bits in [8, 10] {
        for way in TINY_WAYS {
            (1..=bits - 2).for_each(|shift| exhaust(Gate::Trunc { shift, way }, bits, bits - 1));
        }
    }
}

#[test]
fn fused_relu_is_exact_for_every_value_and_mask_at_8_and_10_bits() {
    for (bits, widths) in [(8, 2..=7), (10, 8..=9)] {
        for width in widths {
            for shift in 0..width {
                TINY_WAYS.iter().for_each(|&way| exhaust(Gate::Relu { shift, width, way }, bits, width));
            }
        }
    }
}

/// Leaves of every size, and roots of as many children as one may have.
#[test]
fn flat_trees_are_exact_for_every_pair_of_6_to_10_bits() {
    let shapes = [
        (6, 0, [0, 1]),
        (7, 0, [0, 2]),
        (10, 4, [1, 1]),
        (10, 6, [1, 1]),
        (10, 5, [1, 5]),
        (10, 3, [3, 4]),
        (10, 6, [6, 1]),
        (10, 10, [7, 0]),
        (9, 0, [0, 7]),
        (10, 5, [2, 4]),
    ];
    for (bits, split, leaves) in shapes {
        let (tree, ring) = (Tree::flat(leaves, bits, split), Ring::tiny(15));
        let pairs = 0..1u64 << (2 * bits);
        let (c, r): (Vec<u64>, Vec<u64>) = pairs.map(|pair| (pair >> bits, pair % (1 << bits))).unzip();
        let n = c.len();
        let [c_planes, r_planes] = [&c, &r].map(|values| from_values(values, bits));
        let openings: Vec<Opening> =
            tree.opened().into_iter().map(|planes| Opening::planes(planes, n)).collect();
        let cost = GateCost::new(openings, vec![[tree.dealt() * plane_bytes(n), 0]]);
        let lacking = RefCell::new(Lacking::nothing(n));
        let deal = |dealing: &mut Dealing| {
            lacking.replace(tree.deal(&r_planes, n, dealing));
        };
        // Both borrows as two bits of one element; of sums modulo 2 only the lower bits count.
        let borrows = |whole: &[u64], low: &[u64]| -> Vec<u64> {
            to_bits(whole, n).zip(to_bits(low, n)).map(|(whole, low)| whole | low << 8).collect()
        };
        let evaluate = |_: Masked, party: &mut Party| {
            let first = party.is_first();
            let (whole, side) = alone(tree.evaluate(&c_planes, n, party))?;
            Ok(borrows(
                &whole,
                &match side {
                    Side::None => vec![0; whole.len()],
                    Side::Opened(masked) => {
                        if first {
                            masked
                        } else {
                            vec![0; whole.len()]
                        }
                    }
                    Side::Share(share) => share,
                },
            ))
        };
        let zeros = (vec![0; n], vec![0; n]);
        let found = run(cost, ring, &zeros.0, &zeros.1, deal, evaluate);
        let Lacking { whole, low, opened } = lacking.into_inner();
        let lacking = borrows(&whole, &opened.unwrap_or(low));
        for (((&c, &r), found), lacking) in c.iter().zip(&r).zip(found).zip(lacking) {
            let mask = (1 << split) - 1;
            let expected = u64::from(c < r) | u64::from(c & mask < r & mask) << 8;
            assert_eq!((found as u64 ^ lacking) & 0x101, expected, "{tree:?} c={c} r={r}");
        }
    }
}

/// Runs a gate by keys that carry products; t is 5x, under five times the mask of x, which the formula must not mind.
fn run_product(product: Product, ring: Ring, x: &[i64], lambda: &[u64]) -> Vec<i64> {
    let five = |v: &[u64]| -> Vec<u64> { v.iter().map(|v| ring.reduce(v.wrapping_mul(5))).collect() };
    let deal = |dealing: &mut Dealing| product.deal(lambda, &five(lambda), dealing).unwrap();
    let evaluate = |x: Masked, party: &mut Party| {
        let (m, lambda) = (five(x.m), five(x.lambda));
        product.evaluate(x, Masked { m: &m, lambda: &lambda }, party)
    };
    let cost = product.cost(ring, x.len());
    assert_eq!((cost.rounds, cost.openings.len()), (0, 0), "nothing is opened");
    let y = run(cost, ring, x, lambda, deal, evaluate);
    let expected = |x: i64| match product {
        Product::Trunc { shift } => x >> shift,
        Product::Relu { .. } => x.max(0),
        Product::Sign { .. } => i64::from(x >= 0),
        Product::Select { .. } => ring.to_signed((5 * x.max(0)) as u64),
    };
    for ((&x, &l), &y) in x.iter().zip(lambda).zip(&y) {
        assert_eq!(y, expected(x), "{product:?} l={} x={x} λ={l}", ring.bits());
    }
    y
}

#[test]
fn products_are_exact_for_every_value_and_mask_at_8_and_10_bits() {
    for bits in [8, 10] {
        let exhaust = |product, width: u32| {
            let half = 1i64 << (width - 1);
            let (x, lambda) = every_pair(bits, -half..half);
            run_product(product, Ring::tiny(bits), &x, &lambda);
        };
        (1..=bits - 2).for_each(|shift| exhaust(Product::Trunc { shift }, bits - 1));
        for width in [2, 3, bits - 1, bits] {
            exhaust(Product::Relu { width }, width);
            exhaust(Product::Sign { width }, width);
            exhaust(Product::Select { width }, width);
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
        let product = |product| run_product(product, ring, &case.x, &case.lambda);
        if case.shift > 0 {
            assert_eq!(product(Product::Trunc { shift: case.shift }), case.trunc);
        } else {
            assert_eq!(product(Product::Relu { width: case.width }), case.relu);
        }
    }
    for (case, way) in cases.iter().flat_map(|case| WAYS.map(|way| (case, way))) {
        let ring = Ring::new(case.ring).unwrap();
        if case.shift > 0 {
            let y = run_gate(Gate::Trunc { shift: case.shift, way }, ring, &case.x, &case.lambda);
            assert_eq!(y, case.trunc, "trunc l={} s={}", case.ring, case.shift);
        }
        let gate = Gate::Relu { shift: case.shift, width: case.width, way };
        assert_eq!(run_gate(gate, ring, &case.x, &case.lambda), case.relu, "{gate:?} l={}", case.ring);
    }
}

#[test]
fn truncation_rounds_towards_minus_infinity() {
    let ring = Ring::new(32).unwrap();
    let x = [-1, 0, 1, (1 << 8) - 1, 1 << 8, -(1 << 8), -(1 << 8) - 1];
    let lambda = [0u64, 1, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0xff, 0x100];
    for way in WAYS {
        let y = run_gate(Gate::Trunc { shift: 8, way }, ring, &x, &lambda);
        assert_eq!(y, [-1, 0, 0, 0, 1, -1, -2]);
    }
}

/// More than one piece of ring elements and of planes, with a last one that fills neither a word nor a byte.
#[test]
fn gates_are_exact_across_pieces() {
    let (ring, count) = (Ring::new(37).unwrap(), 64 * PLANE_PIECE + PIECE + 77);
    let prg = Prg::new(&Seed::from_bytes([9; 16]));
    let lambda = prg.stream(0).words(count, ring.mask());
    let x: Vec<i64> =
        prg.stream(1).words(count, ring.mask() >> 2).iter().map(|&v| v as i64 - (1 << 34)).collect();
    let gates = |way| {
        [
            Gate::Trunc { shift: 13, way },
            Gate::Relu { shift: 13, width: 36, way },
            Gate::Relu { shift: 0, width: 36, way },
        ]
    };
    for product in [Product::Trunc { shift: 13 }, Product::Relu { width: 36 }, Product::Sign { width: 36 }] {
        run_product(product, ring, &x, &lambda);
    }
    for gate in WAYS.into_iter().flat_map(gates) {
        let expected: Vec<i64> = x.iter().map(|&x| expected(gate, x)).collect();
        assert!(run_gate(gate, ring, &x, &lambda) == expected, "{gate:?}");
    }
}
