//! The planner against all ways to cut small random models.

use std::ops::Range;

use privet_split::SplitError;
use privet_split::planner::{Balance, Operation, Streaming, WeightSize, Workload, least_memory, peak, plan};
use proptest::prelude::*;

/// All ways to cut at the places that allow it.
fn all(work: &Workload) -> Vec<Vec<Range<usize>>> {
    let count = work.operations.len();
    let places: Vec<usize> = (1..count).filter(|&at| work.operations[at].cut).collect();
    let ways = 1usize << places.len();
    let way = |bits: usize| {
        let mut cuts = vec![0];
        cuts.extend(places.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, &at)| at));
        cuts.push(count);
        cuts.windows(2).map(|w| w[0]..w[1]).collect()
    };
    (0..ways).map(way).collect()
}

fn time(work: &Workload, stage: &Range<usize>) -> u64 {
    work.operations[stage.clone()].iter().map(|op| op.work).sum()
}

fn workloads() -> impl Strategy<Value = Workload> {
    let weight = (1u64..12, any::<bool>()).prop_map(|(rows, streams)| {
        let bytes = rows * 10;
        WeightSize { bytes, row: streams.then_some(10) }
    });
    let weights = prop::collection::vec(weight, 1..5);
    let operation =
        (0u64..60, prop::collection::btree_set(0usize..4, 0..3), 0u64..30, prop::bool::weighted(0.8));
    let streaming = (10u64..60, prop::option::of(1u64..25))
        .prop_map(|(largest_block, overhead)| Streaming { largest_block, overhead: overhead.unwrap_or(0) });
    (weights, prop::collection::vec(operation, 1..9), streaming).prop_map(
        |(weights, operations, streaming)| {
            let operation = |(i, (active, read, work, cut)): (
                usize,
                (u64, std::collections::BTreeSet<usize>, u64, bool),
            )| {
                let weights = read.into_iter().filter(|&w| w < weights.len()).collect();
                Operation { name: format!("n{i}"), active, weights, work, cut }
            };
            Workload {
                operations: operations.into_iter().enumerate().map(operation).collect(),
                weights,
                streaming,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, rng_seed: proptest::test_runner::RngSeed::Fixed(9), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_other_way_has_fewer_stages_or_a_smaller_largest(
        work in workloads(),
        memory in prop::option::of(1u64..260),
        parts in prop::option::of(1usize..6),
        by_time in any::<bool>(),
    ) {
        let balance = if by_time { Balance::Time } else { Balance::Memory };
        if parts.is_none() && memory.is_none() {
            return Ok(());
        }
        let found = plan(&work, parts, memory, balance);
        if memory.is_some_and(|m| m < least_memory(&work)) {
            let refused = matches!(found, Err(SplitError::Memory { least, .. }) if least == least_memory(&work));
            prop_assert!(refused, "{:?}", found);
            return Ok(());
        }
        // What is held and what comes in blocks is settled before; a plan of as many stages as possible tells.
        let blocks = match plan(&work, None, memory, balance) {
            Ok(plan) => plan.blocks,
            Err(_) => return Ok(()),
        };
        let fits = |way: &Vec<Range<usize>>| {
            way.iter().all(|s| memory.is_none_or(|m| peak(&work, &blocks, s.clone()) <= m))
        };
        let wanted = |way: &Vec<Range<usize>>| parts.is_none_or(|k| way.len() == k);
        let ways: Vec<_> = all(&work).into_iter().filter(|way| fits(way) && wanted(way)).collect();
        match found {
            Err(error) => prop_assert!(ways.is_empty(), "{error}, though {:?}", ways),
            Ok(plan) => {
                prop_assert!(ways.contains(&plan.stages), "{:?}", plan);
                let peaks: Vec<u64> = plan.stages.iter().map(|s| peak(&work, &plan.blocks, s.clone())).collect();
                prop_assert_eq!(&peaks, &plan.peaks);
                let fewest = ways.iter().map(Vec::len).min().unwrap_or(0);
                prop_assert_eq!(plan.stages.len(), fewest);
                let largest = |way: &Vec<Range<usize>>| {
                    let cost = |s: &Range<usize>| match balance {
                        Balance::Memory => peak(&work, &blocks, s.clone()),
                        Balance::Time => time(&work, s),
                    };
                    way.iter().map(cost).max().unwrap_or(0)
                };
                let best = ways.iter().filter(|w| w.len() == fewest).map(largest).min();
                prop_assert_eq!(Some(largest(&plan.stages)), best);
            }
        }
    }
}

#[test]
fn the_smallest_memory_is_possible_and_one_byte_less_is_not() {
    let weights = vec![WeightSize { bytes: 4000, row: Some(40) }, WeightSize { bytes: 100, row: None }];
    let operation = |active, weights: &[usize]| Operation {
        name: "fc".to_owned(),
        active,
        weights: weights.to_vec(),
        work: 1,
        cut: true,
    };
    let operations = vec![operation(50, &[0, 1]), operation(120, &[])];
    let work = Workload { operations, weights, ..Workload::default() };
    let least = least_memory(&work);
    assert_eq!(least, 190);
    let found = plan(&work, None, Some(least), Balance::Memory).unwrap();
    assert_eq!((found.stages.len(), found.peaks.iter().max()), (2, Some(&190)));
    assert_eq!(found.blocks, [Some(40), None]);
    let error = plan(&work, None, Some(least - 1), Balance::Memory).unwrap_err().to_string();
    assert!(error.contains("190") && error.contains("\"fc\""), "{error}");
    let error = plan(&work, Some(3), None, Balance::Memory).unwrap_err().to_string();
    assert!(error.contains("at most") || error.contains("at 1 places"), "{error}");
}
