//! Random plans: the masked engine is bit-equal to the cleartext one on every wire, at the declared cost.

#[path = "../common/mod.rs"]
mod common;
mod generator;

use std::collections::BTreeMap;

use common::law;
use generator::{Gene, KINDS, generate, input_magnitude};
use privet_plan::interval::Interval;
use privet_plan::ranges::{Evidence, Ranges};
use privet_plan::{Plan, Weights};
use privet_protocols::masked::RevealTo;
use privet_protocols::{Silent, cleartext};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestError, TestRunner};

const RINGS: [u32; 8] = [16, 24, 32, 40, 48, 52, 63, 64];
/// Most genes of a plan.
const MOST: usize = 12;

fn gene() -> impl Strategy<Value = Gene> {
    (0..KINDS.len() as u8, any::<[u8; 2]>(), any::<u64>()).prop_map(|(kind, reads, detail)| Gene {
        kind,
        reads,
        detail,
    })
}

fn genes() -> impl Strategy<Value = Vec<Gene>> {
    proptest::collection::vec(gene(), 1..=MOST)
}

/// Ranges and comparisons as narrow as these inputs allow.
fn calibrate(plan: &mut Plan, weights: &Weights, inputs: &[Vec<i64>]) {
    let mut maxima = vec![0u64; plan.steps.len()];
    let observe = |i: usize, values: &[i64]| {
        maxima[i] = values.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    };
    cleartext::run_observed(plan, weights, inputs, &mut Silent, observe).unwrap();
    narrow(plan, weights, &Evidence { declared: &[], maxima: Some(&maxima), margin: 1 });
}

/// Ranges and comparisons as narrow as interval arithmetic proves.
fn prove(plan: &mut Plan, weights: &Weights) {
    let high = input_magnitude(plan.frac_bits);
    let declared = vec![Some(Interval { low: -high, high }); plan.inputs.len()];
    narrow(plan, weights, &Evidence { declared: &declared, maxima: None, margin: 1 });
}

/// Evidence is rounded up to whole bits: at the very end of a ring it asks for more than there is, and the plan keeps its
/// full widths.
fn narrow(plan: &mut Plan, weights: &Weights, evidence: &Evidence) {
    let mut narrow = plan.clone();
    if Ranges::derive(plan, weights, evidence).assign(&mut narrow).is_ok() {
        narrow.validate().unwrap();
        *plan = narrow;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

    #[test]
    fn engines_agree_on_every_wire(genes in genes(), seed in any::<u64>()) {
        for ring in RINGS {
            let (plan, weights, inputs) = generate(ring, &genes, seed, true);
            law(&plan, &weights, &inputs, RevealTo::Client);
        }
    }

    #[test]
    fn engines_agree_where_inner_wires_stay_hidden_and_widths_are_narrow(
        genes in genes(), seed in any::<u64>(), reveal_to in 0usize..3, proved in any::<bool>()
    ) {
        for ring in RINGS {
            let (mut plan, weights, inputs) = generate(ring, &genes, seed, false);
            if proved {
                prove(&mut plan, &weights);
            } else {
                calibrate(&mut plan, &weights, &inputs);
            }
            law(&plan, &weights, &inputs, [RevealTo::Client, RevealTo::Server, RevealTo::Both][reveal_to]);
        }
    }
}

/// Nothing is left out: in every ring, random plans hold every operation often, and few genes come to nothing.
#[test]
fn every_operation_is_generated_in_every_ring() {
    for ring in RINGS {
        let mut counts: BTreeMap<&str, usize> = KINDS.iter().map(|&kind| (kind, 0)).collect();
        let (mut runner, mut asked, mut made) = (TestRunner::deterministic(), 0, 0);
        for seed in 0..200 {
            let genes = genes().new_tree(&mut runner).unwrap().current();
            let (plan, weights, inputs) = generate(ring, &genes, seed, true);
            cleartext::run(&plan, &weights, &inputs, &mut Silent).expect("values stay in range");
            asked += genes.len();
            made += plan.steps.len() - 1;
            for step in &plan.steps {
                *counts.get_mut(step.op.name()).expect("an operation without a gene") += 1;
            }
        }
        eprintln!("l={ring}: {counts:?}, {made} steps of {asked} genes");
        assert!(counts.values().all(|&n| n >= 10), "l={ring}: {counts:?}");
        assert!(10 * made >= 9 * asked, "l={ring}: only {made} steps of {asked} genes");
    }
}

/// A failure that one operation causes shrinks to the one gene that makes it.
#[test]
fn failures_shrink_to_the_step_that_causes_them() {
    for guilty in ["max-pool", "batch-matmul", "select"] {
        let holds = |genes: Vec<Gene>| {
            let (plan, ..) = generate(64, &genes, 0, true);
            prop_assert!(plan.steps.iter().all(|step| step.op.name() != guilty));
            Ok(())
        };
        match TestRunner::deterministic().run(&genes(), holds) {
            Err(TestError::Fail(_, minimal)) => assert_eq!(minimal.len(), 1, "{guilty}: {minimal:?}"),
            other => panic!("{guilty}: {other:?}"),
        }
    }
}
