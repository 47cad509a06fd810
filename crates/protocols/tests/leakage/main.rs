//! What a party sees says nothing about what it does not own.
//!
//! For every kind of message a small plan ([`common::samples`]) runs some thousand times on every engine of [`ENGINES`] with
//! fresh seeds, on zeros and on other inputs and weights. All that a party gets to see ([`view`]) has to be jointly uniform: no
//! sum modulo 2 of any of its bits is constant (which finds every missing, halved, shortened or repeated mask of bits and of the
//! lowest bits of ring elements), every half byte is uniform, and so is what remains of opened values without the party's own
//! masks; and both choices of secrets give the same distribution. And no bit of an opened value, with or without the party's own
//! mask, equals any other bit more or less often than not: the bit of a comparison that lacks its mask may be uniform by itself,
//! but not together with the m that is compared. A larger network is run once for each of several secrets, and its frames are
//! tested one by one. Keys of function secret sharing are part of what a party is dealt, and are tested together with its roots
//! ([`keys`]); those of two sets are tested together as well.
//!
//! False alarms: with independent uniform views, each test of a small plan fails once in 2·10^11 runs of an engine (relative
//! entropy, corrected for the number of statistics; see [`statistics`]) and once in 2·10^12 because of a sum of two bits (Hoeffding, likewise), that of the
//! network and those of sets once in 2·10^11; all together, less than 150 of them, less than once in 2^30 runs. The dealer of `2pc` and `fss` is given
//! nothing but the plan and seeds of its own, by the signature of `masked::deal`; that of `3pc` holds shares, and what is sent to
//! it is nothing.

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod network;
mod statistics;
mod three_party;
mod two_party;
mod values;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::samples::{Sample, Secrets, sample, samples};
use common::{Builder, deal, with_bits, with_products};
use keys::keys;
use network::{network, secrets};
use privet_fss::{Comparison, Hash};
use privet_plan::{Op, Plan, WireId};
use privet_protocols::masked::{Content, Instruction, RevealTo, Role, Schedule, Sizes};
use privet_ring::prg::Prg;
use statistics::{Family, biased_pair, constant_sum};
use view::{Part, View, half_bytes, opened_rows, row_name, rows};

/// An engine whose parties' views are tested.
#[derive(Clone, Copy)]
struct Engine {
    name: &'static str,
    /// Whose views [`Self::run`] gives.
    parties: &'static [&'static str],
    /// The engine's form of a plan.
    plan: fn(&Plan) -> Plan,
    schedule: fn(&Plan, Sizes) -> Schedule,
    /// One inference with fresh material and shares.
    run: fn(&Plan, &Schedule, &Secrets) -> Vec<View>,
    /// Whether outputs are revealed in an inference; otherwise they stay shared.
    reveals: bool,
    /// For how many of the two choices of secrets sums are sought, zeros first. It takes as many runs as a view has bits.
    sums: usize,
    /// Not in views of more bits than this.
    sums_of: usize,
}

/// All that have secrets to keep.
const ENGINES: [Engine; 4] = [
    Engine {
        name: "2pc",
        parties: &["server", "client"],
        plan: Plan::clone,
        schedule: |plan, sizes| Schedule::with_sizes(plan, RevealTo::Client, sizes),
        run: two_party::run,
        reveals: true,
        sums: 2,
        sums_of: usize::MAX,
    },
    Engine {
        name: "3pc",
        parties: &["dealer", "first", "second"],
        plan: Plan::clone,
        schedule: Schedule::three_party_with_sizes,
        run: three_party::run,
        reveals: false,
        // On zeros what has no mask is constant, and gates are those of 2pc. Views are larger by all shares.
        sums: 1,
        sums_of: usize::MAX,
    },
    Engine {
        name: "fss",
        parties: &["server", "client"],
        plan: with_bits,
        schedule: |plan, sizes| Schedule::with_sizes(plan, RevealTo::Client, sizes),
        run: two_party::run,
        reveals: true,
        // Keys are large; those of up to ten bits are made like those of more.
        sums: 1,
        sums_of: 9000,
    },
    // Of `fss`, where keys carry products.
    Engine {
        name: "products",
        parties: &["server", "client"],
        plan: with_products,
        schedule: |plan, sizes| Schedule::with_sizes(plan, RevealTo::Client, sizes),
        run: two_party::run,
        reveals: true,
        sums: 1,
        sums_of: 9000,
    },
];

/// Lanes that nothing here is cut into, and no tree is flat.
const WHOLE: Sizes = Sizes { lane: 1 << 16, flat: 0 };
/// Every tree is.
const FLAT: Sizes = Sizes { flat: usize::MAX, ..WHOLE };

/// Names the environment variable with the engines to test, for the runner of mutants; all, if it is not set.
const WANTED: &str = "PRIVET_LEAKAGE_ENGINES";

/// How often a test of a correct build fails.
const FALSE_ALARMS: f64 = 5e-12;

/// How often it fails because of a sum of two bits.
const FALSE_ALARMS_OF_PAIRS: f64 = 5e-13;

/// Runs beyond the number of bits in a view: a constant sum appears by chance with a probability of 2^-63.
const SPARE_RUNS: usize = 64;

/// Runs for tests of half bytes: so many that one mask in sixteen that is zero is found, far beyond what a rate this small lets pass.
const LEAST_RUNS: usize = 2048;

/// Tests every engine.
#[track_caller]
fn on_every_engine(test: impl Fn(&Engine)) {
    on(&ENGINES, test);
}

/// Tests some engines, or variants of one. The runner of mutants reads in the last line which ones fail.
#[track_caller]
fn on(engines: &[Engine], test: impl Fn(&Engine)) {
    let wanted = std::env::var(WANTED).ok();
    for name in wanted.iter().flat_map(|names| names.split(", ")) {
        assert!(ENGINES.iter().any(|engine| engine.name == name), "{WANTED}: there is no engine {name}");
    }
    let is_wanted = |e: &&Engine| wanted.as_ref().is_none_or(|names| names.split(", ").any(|n| n == e.name));
    let fails = |engine: &&Engine| catch_unwind(AssertUnwindSafe(|| test(engine))).is_err();
    let failing: Vec<&str> =
        engines.iter().filter(is_wanted).filter(fails).map(|engine| engine.name).collect();
    assert!(failing.is_empty(), "fails with {}", failing.join(", "));
}

fn find(name: &str) -> Sample {
    samples().into_iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no sample {name}"))
}

/// Tests all parties' views of a sample.
#[track_caller]
fn views_are_uniform(name: &str) {
    let sample = find(name);
    on_every_engine(|engine| views_by_schedule_are_uniform(engine, &sample, WHOLE));
}

#[track_caller]
fn views_by_schedule_are_uniform(engine: &Engine, sample: &Sample, sizes: Sizes) {
    let Sample { name, plan, secrets } = sample;
    let plan = &(engine.plan)(plan);
    let schedule = (engine.schedule)(plan, sizes);
    let run = |secrets: &Secrets| (engine.run)(plan, &schedule, secrets);
    let bits = run(&secrets[0]).iter().map(View::bits).max().unwrap();
    let sums = if bits <= engine.sums_of { engine.sums } else { 0 };
    let runs = |choice: usize| if choice < sums { (bits + SPARE_RUNS).max(LEAST_RUNS) } else { LEAST_RUNS };
    // Party, secrets, run.
    let mut views: Vec<[Vec<View>; 2]> = engine.parties.iter().map(|_| Default::default()).collect();
    for (choice, secrets) in secrets.iter().enumerate() {
        for _ in 0..runs(choice) {
            for (party, view) in run(secrets).into_iter().enumerate() {
                views[party][choice].push(view);
            }
        }
    }
    let mut family = Family::new(FALSE_ALARMS);
    for (party, choices) in engine.parties.iter().zip(&views) {
        let name = format!("{}, {name}, {party}", engine.name);
        for choice in &choices[..sums] {
            let rows = rows(&choice[..choice[0].bits() + SPARE_RUNS], Part::adds);
            if let Some(sum) = constant_sum(&rows, choice[0].bits() + SPARE_RUNS) {
                let named: Vec<String> =
                    sum.iter().map(|&i| row_name(&choice[0], Part::adds, i)).take(8).collect();
                panic!("{name}: a constant sum of {} bits: {named:#?}", sum.len());
            }
        }
        for choice in choices {
            let in_pairs = |part: Part| part.adds() || part.is_opened();
            let opened = opened_rows(&choice[0], in_pairs);
            let rows = rows(&choice[..LEAST_RUNS], in_pairs);
            let rate = FALSE_ALARMS_OF_PAIRS / (2 * views.len()) as f64;
            if let Some((a, b)) = biased_pair(&rows, &opened, LEAST_RUNS, rate) {
                let [a, b] = [a, b].map(|row| row_name(&choice[0], in_pairs, row));
                panic!("{name}: whether two bits are equal is no coin flip: {a}; {b}");
            }
        }
        for (f, field) in choices[0][0].fields.iter().enumerate() {
            let [zeros, others] = [0, 1].map(|choice| half_bytes(&choices[choice], f));
            for (at, (a, b)) in zeros.iter().zip(&others).enumerate() {
                let digits = field.width.div_ceil(4) as usize;
                let (value, digit) = (at / digits, at % digits);
                let name =
                    |what| format!("{name}: {what} of half byte {digit} of value {value} of {}", field.name);
                family.uniform(|| name("zeros"), a);
                family.uniform(|| name("others"), b);
                family.equal(|| name("difference"), a, b);
            }
        }
    }
    family.check();
}

#[test]
fn scale() {
    views_are_uniform("scale");
}

#[test]
fn open_add_and_trunc_of_a_leaf() {
    views_are_uniform("open, add, trunc of a leaf");
}

#[test]
fn matmul() {
    views_are_uniform("matmul, open, trunc");
}

#[test]
fn conv() {
    views_are_uniform("conv, open, relu");
}

#[test]
fn multiply() {
    views_are_uniform("multiply");
}

#[test]
fn batch_matmul() {
    views_are_uniform("batch matmul, open, trunc");
}

#[test]
fn relu_without_truncation() {
    views_are_uniform("relu without truncation");
}

#[test]
fn relu_split_inside_the_first_leaf() {
    views_are_uniform("relu split inside the first leaf");
}

#[test]
fn relu_split_between_leaves() {
    views_are_uniform("relu split between leaves");
}

#[test]
fn relu_under_an_inner_level() {
    views_are_uniform("relu under an inner level");
}

#[test]
fn relu_split_at_two_leaves() {
    views_are_uniform("relu split at two leaves under an inner level");
}

#[test]
fn relu_split_above_the_leaves() {
    views_are_uniform("relu split above the leaves");
}

/// As few rounds as there can be.
#[track_caller]
fn views_of_flat_trees_are_uniform(name: &str) {
    let sample = find(name);
    on(&ENGINES[..2], |engine| {
        let [deep, flat] = [WHOLE, FLAT].map(|sizes| {
            let schedule = (engine.schedule)(&sample.plan, sizes);
            (0..schedule.instructions.len()).flat_map(|k| schedule.openings(&sample.plan, k)).count()
        });
        assert_eq!(flat + 1, deep, "openings");
        views_by_schedule_are_uniform(engine, &sample, FLAT);
    });
}

#[test]
fn relu_by_a_flat_tree() {
    views_of_flat_trees_are_uniform("relu under an inner level");
}

#[test]
fn relu_by_a_flat_tree_split_at_two_leaves() {
    views_of_flat_trees_are_uniform("relu split at two leaves under an inner level");
}

#[test]
fn relu_by_a_flat_tree_of_larger_leaves() {
    views_of_flat_trees_are_uniform("relu of larger leaves");
}

#[test]
fn comparison() {
    views_are_uniform("comparison");
}

#[test]
fn choice() {
    views_are_uniform("choice");
}

#[test]
fn table() {
    views_are_uniform("table");
}

#[test]
fn wide_table() {
    views_are_uniform("wide table");
}

#[test]
fn max_pool() {
    views_are_uniform("max pool");
}

#[test]
fn max_pool_in_lanes() {
    let sample = find("wide max pool");
    let sizes = Sizes { lane: 8 * 3, ..WHOLE };
    on_every_engine(|engine| {
        let plan = (engine.plan)(&sample.plan);
        let schedule = (engine.schedule)(&plan, sizes);
        let lanes = (0..schedule.instructions.len()).flat_map(|k| schedule.openings(&plan, k));
        assert_eq!(lanes.map(|o| o.lane).max(), Some(1), "two lanes");
        views_by_schedule_are_uniform(engine, &sample, sizes);
    });
}

#[test]
fn a_chain() {
    views_are_uniform("a chain");
}

#[test]
fn outputs_made_of_the_input() {
    views_are_uniform("outputs made of the input");
}

/// What the parties of `3pc` hold and see in three inferences, in which each deals once, with the same shares of weights and
/// inputs.
#[test]
fn shares_serve_in_every_position() {
    let parties = &["party 0", "party 1", "party 2"];
    let in_turns = Engine { parties, run: three_party::run_in_turns, ..ENGINES[1] };
    let sample = find("scale");
    on(&[in_turns], |engine| views_by_schedule_are_uniform(engine, &sample, WHOLE));
}

#[test]
fn every_sample_is_tested() {
    let source = include_str!("main.rs");
    for sample in samples() {
        assert!(
            source.contains(&format!("= find(\"{0}\")", sample.name))
                || source.contains(&format!("are_uniform(\"{0}\")", sample.name)),
            "{}",
            sample.name
        );
    }
}

#[test]
fn every_frame_of_a_network_is_uniform_and_of_equal_size_for_any_input_and_weights() {
    let (plan, weights) = network();
    let secrets = secrets(&plan, weights);
    on_every_engine(|engine| {
        let plan = (engine.plan)(&plan);
        let schedule = (engine.schedule)(&plan, WHOLE);
        let runs = secrets.each_ref().map(|secrets| (engine.run)(&plan, &schedule, secrets));
        let mut family = Family::new(FALSE_ALARMS);
        for (party, name) in engine.parties.iter().enumerate() {
            let sizes = |run: &[View]| -> Vec<(String, usize)> {
                run[party].fields.iter().map(|f| (f.name.clone(), f.values.len())).collect()
            };
            assert!(runs.iter().all(|r| sizes(r) == sizes(&runs[0])));
            for (i, run) in runs.iter().enumerate() {
                run[party].fields.iter().for_each(|field| {
                    family.frame(|| format!("run {i}, {name}: {}", field.name), &field.bytes());
                });
            }
        }
        assert!(family.len() > 600, "only {} frames and other parts of a view", family.len());
        family.check();
    });
}

/// How many bytes agree: nearly none of two independent uniform strings do.
#[track_caller]
fn unrelated(what: &str, a: &[u8], b: &[u8]) {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    // Of 16 bytes, 10 agree once in 10^20 times.
    assert!(equal * 8 < a.len() + 64, "{what}: {equal} of {} bytes agree", a.len());
}

#[test]
fn nothing_repeats_when_the_same_inference_runs_twice() {
    let (plan, weights) = network();
    let [secrets, ..] = secrets(&plan, weights);
    on_every_engine(|engine| {
        let plan = (engine.plan)(&plan);
        let schedule = (engine.schedule)(&plan, WHOLE);
        let [first, second] = [0, 1].map(|_| (engine.run)(&plan, &schedule, &secrets));
        let parts: usize = first.iter().map(|view| view.fields.len()).sum();
        assert!(parts > 200, "{parts} parts of views");
        for (a, b) in first.iter().zip(&second) {
            for (a, b) in a.fields.iter().zip(&b.fields).filter(|(a, _)| a.bytes().len() >= 16) {
                unrelated(&a.name, &a.bytes(), &b.bytes());
            }
        }
    });
}

/// The frames of every choice of receivers are those that the schedule lists; [`Engine::run`] compares them one by one.
#[test]
fn frames_are_those_of_the_schedule_whoever_learns_the_output() {
    let [two_party, three_party, fss, products] = ENGINES;
    let to_server = |plan: &Plan, _| Schedule::new(plan, RevealTo::Server);
    let to_both = |plan: &Plan, _| Schedule::new(plan, RevealTo::Both);
    let engines = [
        Engine { schedule: to_server, ..two_party },
        Engine { schedule: to_both, ..two_party },
        two_party,
        three_party,
        fss,
        products,
    ];
    on(&engines, |engine| {
        for Sample { name, plan, secrets } in samples() {
            let plan = (engine.plan)(&plan);
            let schedule = (engine.schedule)(&plan, WHOLE);
            (engine.run)(&plan, &schedule, &secrets[1]);
            let openings: Vec<_> =
                (0..schedule.instructions.len()).flat_map(|k| schedule.openings(&plan, k)).collect();
            let values: Vec<_> = openings.iter().filter(|o| o.what == Content::Value).collect();
            let revealed = if engine.reveals { plan.outputs.len() } else { 0 };
            assert_eq!(values.len(), revealed, "{name}: nothing but outputs is revealed");
            assert!(values.iter().all(|opening| opening.to == schedule.reveal_to));
            assert!(openings.len() as u64 >= schedule.total().rounds);
        }
    });
}

/// The values of the first field whose name begins like this.
fn field(view: &View, name: &str) -> Vec<u64> {
    let field = view.fields.iter().find(|f| f.name.starts_with(name));
    field.unwrap_or_else(|| panic!("no {name}")).values.clone()
}

/// What the tests take for a party's own masks are its own masks: with both halves off, values remain.
#[test]
fn masks_are_drawn_from_the_documented_streams() {
    let Sample { plan, secrets, .. } = find("open, add, trunc of a leaf");
    let schedule = Schedule::new(&plan, RevealTo::Client);
    let [server, client] = <[View; 2]>::try_from(two_party::run(&plan, &schedule, &secrets[1])).ok().unwrap();
    let part = field;
    let (opened, ours, theirs) = (
        part(&server, "opening 0 of instruction 3"),
        part(&server, "own mask 0 of instruction 3"),
        part(&client, "own mask 0 of instruction 3"),
    );
    let w = &secrets[1].weights.tensors;
    for i in 0..8 {
        let value = opened[i].wrapping_sub(ours[i]).wrapping_sub(theirs[i]);
        let expected = secrets[1].inputs[0][i] * w[0][i] + w[1][i];
        assert_eq!(plan.ring.to_signed(value), expected, "element {i}");
    }
    // The borrow of the low two bits under the mask of the opened wire.
    let bits = |part: Vec<u64>| part[0];
    let opened = bits(part(&server, "opening 0 of instruction 4"));
    let masks = bits(part(&server, "own mask 0 of instruction 4"))
        ^ bits(part(&client, "own mask 0 of instruction 4"));
    for i in 0..8 {
        let lambda = ours[i].wrapping_add(theirs[i]) & 3;
        let masked = part(&server, "opening 0 of instruction 3")[i] & 3;
        assert_eq!((opened ^ masks) >> i & 1, u64::from(masked < lambda), "element {i}");
    }
}

/// What the tests take for a party's own roots of keys are its own roots: with both, comparisons are right.
#[test]
fn roots_are_drawn_from_the_documented_streams() {
    let Sample { plan, secrets, .. } = find("matmul, open, trunc");
    let plan = with_bits(&plan);
    on(&[ENGINES[2]], |engine| {
        let schedule = (engine.schedule)(&plan, WHOLE);
        let dealt = deal(&plan, &secrets[1].weights, &schedule);
        let k = (0..schedule.instructions.len())
            .find(|&k| matches!(&schedule.instructions[k].0, &Instruction::Step(i) if plan.uses_fss(i)))
            .unwrap();
        let parties = [
            (Role::Server, &dealt.server, &dealt.chunks),
            (Role::Client, &dealt.client, &dealt.client_chunks),
        ];
        let [server, client] =
            parties.map(|(role, seed, chunks)| keys(&plan, &schedule, role, seed, chunks, k));
        // Both halves of the masks of the wire that is opened before.
        let halves = [&dealt.server, &dealt.client]
            .map(|seed| Prg::new(seed).stream((k as u64 - 1) * 2).words(8, u64::MAX));
        let alpha = |i: usize| halves[0][i].wrapping_add(halves[1][i]) & 1023;
        let ([server], [client]) = (&server[..], &client[..]) else { panic!("one comparison each") };
        assert_eq!(server.hash_key.expose(), client.hash_key.expose());
        assert_eq!((server.bits, &server.words), (10, &client.words));
        for x in 0..1024 {
            let shares = [server, client].map(|keys| {
                let hash = Hash::new(&keys.hash_key);
                Comparison::new(10).evaluate(&hash, &[x; 8], &keys.roots, &keys.words)[0]
            });
            for i in 0..8 {
                let found = (shares[0] ^ shares[1]) >> i & 1;
                assert_eq!(found, u64::from(x < alpha(i)), "element {i}, compared with {x}");
            }
        }
    });
}

/// What the server alone is told is under the client's mask, too: m is taken from the server's share of the product that reads
/// it, which is m·W + γ − λ·m_W.
#[test]
fn what_the_server_alone_is_told_is_under_both_masks() {
    let plan_of = |b: &mut Builder, x: WireId| {
        let y = b.step(Op::Trunc { shift: 2 }, &[x], &[8], 6);
        let factor = b.param(&[8], 2, 7);
        let y = b.step(Op::Scale { factor }, &[y], &[8], 8);
        b.step(Op::Trunc { shift: 2 }, &[y], &[8], 6)
    };
    on(&[ENGINES[0], ENGINES[2], ENGINES[3]], |engine| {
        let Sample { plan, secrets: [_, secrets], .. } = sample("told", 16, &[8], plan_of);
        let plan = (engine.plan)(&plan);
        let mut secrets = secrets;
        // Odd, so that m follows from m·W.
        secrets.weights.tensors[0].iter_mut().for_each(|w| *w |= 1);
        let schedule = (engine.schedule)(&plan, WHOLE);
        let told = (0..schedule.instructions.len())
            .find(|&k| matches!(schedule.instructions[k].0, Instruction::Open(_)))
            .unwrap();
        assert!(schedule.openings(&plan, told).iter().all(|o| o.to == RevealTo::Server), "told");
        let views = (engine.run)(&plan, &schedule, &secrets);
        let [server, client] = &views[..] else { panic!("two parties") };
        let halves = [server, client].map(|view| field(view, &format!("own mask 0 of instruction {told},")));
        let part = |part: &str| field(server, &format!("{part} 0 of instruction {},", told + 2));
        let (opened, received, own) = (part("opening"), part("received frame"), part("own mask"));
        let words = |bytes: Vec<u64>| -> Vec<u64> { bytes.chunks(2).map(|b| b[0] | b[1] << 8).collect() };
        let gamma = words(field(server, &format!("dealt for {}", told + 1)));
        let m_w = words(field(client, "masked weights"));
        for i in 0..8 {
            let w = secrets.weights.tensors[0][i] as u64;
            let share = opened[i].wrapping_sub(received[i]).wrapping_sub(own[i]);
            let m_times_w = share.wrapping_sub(gamma[i]).wrapping_add(halves[0][i].wrapping_mul(m_w[i]));
            // w is its own inverse modulo 8, and each step doubles the bits.
            let inverse = (0..3).fold(w, |v, _| v.wrapping_mul(2u64.wrapping_sub(w.wrapping_mul(v))));
            let m = m_times_w.wrapping_mul(inverse);
            let value = plan
                .ring
                .to_signed(plan.ring.reduce(m.wrapping_sub(halves[0][i]).wrapping_sub(halves[1][i])));
            assert_eq!(value, secrets.inputs[0][i] >> 2, "element {i}");
        }
    });
}

/// Tests a plan of more elements than a set of keys has, `gates` of whose gates take keys: no two sets share a tree.
#[track_caller]
fn sets_are_independent(
    engines: &[Engine],
    gates: impl Fn(&Engine) -> usize,
    build: fn(&mut Builder, WireId) -> WireId,
) {
    let Sample { plan, secrets: [secrets, _], .. } = sample("sets", 24, &[SET_AND_MORE], build);
    on(engines, |engine| {
        let plan = (engine.plan)(&plan);
        let views = (engine.run)(&plan, &(engine.schedule)(&plan, WHOLE), &secrets);
        let mut family = Family::new(FALSE_ALARMS);
        for (view, name) in views.iter().zip(engine.parties).filter(|(_, name)| **name != "dealer") {
            let sums = view.fields.iter().filter(|f| f.name.starts_with("sums of words of both sets"));
            assert_eq!(sums.count(), gates(engine), "{name}: two sets a gate");
            view.fields.iter().for_each(|f| family.frame(|| format!("{name}: {}", f.name), &f.bytes()));
        }
        family.check();
    });
}

const SET_AND_MORE: usize = (1 << 14) + (1 << 10);

#[test]
fn sets_of_keys_are_independent() {
    sets_are_independent(
        &ENGINES[2..],
        |_| 1,
        |b, x| b.step(Op::NonNegative { width: 0 }, &[x], &[SET_AND_MORE], 0),
    );
}

/// Of the largest tables, which take keys in every engine.
#[test]
fn sets_of_keys_of_tables_are_independent() {
    let signs = |engine: &Engine| usize::from(["fss", "products"].contains(&engine.name));
    sets_are_independent(
        &ENGINES,
        |engine| 1 + signs(engine),
        |b, x| {
            let sign = b.step(Op::NonNegative { width: 0 }, &[x], &[SET_AND_MORE], 0);
            let index = Op::Combine { coefficients: vec![40_000], constant: 1 };
            let index = b.step(index, &[sign], &[SET_AND_MORE], 0);
            let entries = (0..1 << 16).map(|i| i * 50 - 9999).collect();
            b.step(Op::Table { entries }, &[index], &[SET_AND_MORE], 0)
        },
    );
}
