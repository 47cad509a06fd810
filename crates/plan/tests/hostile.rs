//! Plans come from peers: one that asks for too much, or contradicts itself, is refused quickly and without a panic.

use privet_plan::{
    Digest, InputSpec, Keyed, Keys, Op, OutputSpec, PLAN_VERSION, ParamId, ParamSpec, Plan, PlanError, Post,
    Preprocess, Range, RangeSource, Step, Tap, Window, WireId, ranges,
};
use privet_ring::Ring;
use privet_ring::prg::{Prg, Seed};

const F: u8 = 8;

/// A plan of one input and the given steps on top: (operation, operands, shape, scale).
fn plan(shape: &[usize], params: &[&[usize]], steps: Vec<(Op, Vec<u32>, Vec<usize>, u8)>) -> Plan {
    let input = (Op::Input { input: 0 }, Vec::new(), shape.to_vec(), F);
    let step = |(op, inputs, shape, frac_bits): (Op, Vec<u32>, Vec<usize>, u8)| Step {
        name: "step".into(),
        op,
        inputs: inputs.into_iter().map(WireId).collect(),
        shape,
        frac_bits,
        range: Range { bits: 2, source: RangeSource::FullWidth },
    };
    let steps: Vec<Step> = std::iter::once(input).chain(steps).map(step).collect();
    let last = WireId(steps.len() as u32 - 1);
    let param = |shape: &&[usize]| ParamSpec { name: "w".into(), shape: shape.to_vec(), frac_bits: F };
    let mut plan = Plan {
        model: "hostile".into(),
        ring: Ring::new(64).unwrap(),
        frac_bits: F,
        inputs: vec![InputSpec {
            name: "x".into(),
            shape: shape.to_vec(),
            preprocess: Preprocess::default(),
        }],
        params: params.iter().map(param).collect(),
        steps,
        outputs: vec![OutputSpec { name: "y".into(), wire: last, post: Post::None }],
        labels: Vec::new(),
        fss: Vec::new(),
    };
    ranges::assign_full_width(&mut plan);
    plan
}

fn pool(kernel: &[u32]) -> Op {
    let ones = vec![1; kernel.len()];
    let zeros = vec![0; kernel.len()];
    let window = Window {
        kernel: kernel.to_vec(),
        stride: ones.clone(),
        dilation: ones,
        pad_begin: kernel.iter().map(|k| k - 1).collect(),
        pad_end: zeros,
    };
    Op::MaxPool { window, width: 0 }
}

#[track_caller]
fn refused(plan: &Plan, reason: &str) {
    let started = std::time::Instant::now();
    let error = Plan::from_bytes(&plan.to_bytes()).expect_err("a hostile plan").to_string();
    assert!(error.contains(reason), "{error}");
    // Not a measurement: the work these plans ask for takes hours.
    assert!(started.elapsed().as_secs() < 20, "validation took {:?}", started.elapsed());
}

#[test]
fn an_ordinary_plan_passes() {
    let plan = plan(&[1, 1, 8, 8], &[], vec![(pool(&[2, 2]), vec![0], vec![1, 1, 8, 8], F)]);
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
}

/// A ReLU that truncates, a step that compares nothing, one that is not there, and steps out of order.
#[test]
fn keys_go_with_steps_that_can_have_them() {
    let steps = vec![
        (Op::Relu { shift: 2, width: 0 }, vec![0], vec![8], F - 2),
        (Op::Trunc { shift: 2 }, vec![1], vec![8], F - 4),
        (Op::Relu { shift: 0, width: 0 }, vec![2], vec![8], F - 4),
    ];
    let plan = plan(&[8], &[], steps);
    let with = |fss: &[(u32, Keys)]| {
        let keyed = |&(step, keys): &(u32, Keys)| Keyed { step: WireId(step), keys };
        Plan { fss: fss.iter().map(keyed).collect(), ..plan.clone() }
    };
    use Keys::{Bits, Products};
    for fss in [&[(1, Bits), (2, Products), (3, Products)][..], &[(2, Bits)], &[]] {
        let plan = with(fss);
        assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
    }
    assert_eq!(plan.with_fss(), with(&[(1, Bits), (2, Products), (3, Products)]));
    refused(&with(&[(1, Products)]), "its products do not fit a key");
    refused(&with(&[(0, Bits)]), "steps that compare");
    refused(&with(&[(4, Bits)]), "steps that compare");
    refused(&with(&[(3, Bits), (2, Bits)]), "in order");
}

#[test]
fn tables_of_windows_are_bounded() {
    // Reduced along the second axis first, every one of 2^15 rows becomes 2^11 windows of 2^11 positions.
    let mut rows = pool(&[1, 1 << 11]);
    if let Op::MaxPool { window, .. } = &mut rows {
        window.stride[0] = 1 << 15;
        window.pad_end[1] = (1 << 11) - 1;
    }
    refused(
        &plan(&[1, 1, 1 << 15, 1], &[], vec![(rows, vec![0], vec![1, 1, 1, 1 << 11], F)]),
        "too many elements",
    );
    let mut sides = vec![1, 1];
    sides.extend([2; 10]);
    let eight_axes = (pool(&[(1 << 23) - 1; 10]), vec![0], sides.clone(), F);
    refused(&plan(&sides, &[], vec![eight_axes]), "too large");
}

#[test]
fn parameters_operands_and_work_are_bounded() {
    let big: &[usize] = &[1 << 12, 1 << 12];
    let params = vec![big; 100];
    let matmul = |i: u32| {
        let op = Op::MatMul { weight: ParamId(i), bias: None };
        (op, vec![0], vec![1, 1 << 12], 2 * F)
    };
    refused(&plan(&[1, 1 << 12], &params, (0..100).map(matmul).collect()), "elements");
    let many = Op::Combine { coefficients: vec![1; 4096], constant: 0 };
    refused(&plan(&[1 << 20], &[], vec![(many, vec![0; 4096], vec![1 << 20], F)]), "elements");
    let rows = 1 << 17;
    let multiply = (Op::MatMul { weight: ParamId(0), bias: None }, vec![0], vec![rows, 1 << 12], 2 * F);
    refused(&plan(&[rows, 1 << 12], &[big], vec![multiply]), "elements");
    let relu = (Op::Relu { shift: 0, width: 0 }, vec![0], vec![1 << 25], F);
    refused(&plan(&[1 << 25], &[], vec![relu]), "compares");
}

#[test]
fn maps_tables_and_products_of_wires_are_bounded() {
    let tap = |index, coefficient| Tap { index, coefficient };
    let map = |axis, rows: Vec<Vec<Tap>>| Op::AxisMap { axis, rows, coefficient_bits: 0 };
    let one = |op: Op, shape: &[usize], scale| plan(&[4, 4], &[], vec![(op, vec![0], shape.to_vec(), scale)]);
    refused(&one(map(2, vec![vec![]]), &[4, 4], F), "axis 2");
    refused(&one(map(1, vec![vec![tap(4, 1)]]), &[4, 1], F), "axis of 4");
    refused(&one(map(1, vec![vec![tap(0, i64::MIN)]]), &[4, 1], F), "axis of 4");
    refused(&one(map(1, vec![vec![tap(0, 1)]; 2]), &[4, 4], F), "expected [4, 2]");
    refused(&one(map(0, vec![]), &[0, 4], F), "elements");
    let far = vec![vec![tap(0, 1); 1 << 12]; 1 << 10];
    let wide = plan(&[4, 1 << 20], &[], vec![(map(0, far), vec![0], vec![1 << 10, 1 << 20], F)]);
    refused(&wide, "elements");
    let table = |entries: Vec<i64>| Op::Table { entries };
    refused(&one(table(vec![0; 3]), &[4, 4], F), "a table of 3 entries");
    refused(&one(table(vec![0; 1 << 17]), &[4, 4], F), "a table of 131072 entries");
    refused(&one(table(vec![0, i64::MAX]), &[4, 4], F), "does not fit the ring");
    let large = (table(vec![0; 256]), vec![0], vec![1 << 24], F);
    refused(&plan(&[1 << 24], &[], vec![large]), "a table of 256 entries for");
    let large = (table(vec![0; 1 << 16]), vec![0], vec![(1 << 17) + 1], F);
    refused(&plan(&[(1 << 17) + 1], &[], vec![large]), "a table of 65536 entries for");
    let two =
        |op: Op, shape: &[usize], scale| plan(&[4, 6], &[], vec![(op, vec![0, 0], shape.to_vec(), scale)]);
    refused(&two(Op::BatchMatMul, &[4, 6], 2 * F), "matrix product");
    refused(&two(Op::Multiply, &[4, 6], F), "scale 8, expected 16");
    refused(&two(Op::Multiply, &[6, 4], 2 * F), "expected");
    let choice = plan(
        &[4, 6],
        &[],
        vec![(Op::Reshape, vec![0], vec![6, 4], F), (Op::Select { width: 0 }, vec![0, 1], vec![6, 4], F)],
    );
    refused(&choice, "chooses elements");
    let mut narrow = one(Op::NonNegative { width: 0 }, &[4, 4], 0);
    narrow.steps[1].op = Op::NonNegative { width: 9 };
    assert!(narrow.validate().is_err(), "a sign test narrower than its operand");
    refused(&one(Op::NonNegative { width: 0 }, &[4, 4], F), "scale 8, expected 0");
}

#[test]
fn contradictions_are_named() {
    let reshape = (Op::Reshape, vec![0], vec![7], F);
    refused(&plan(&[6], &[], vec![reshape]), "reshapes 6 elements");
    let mut forward = plan(&[6], &[], vec![(Op::Reshape, vec![0], vec![6], F)]);
    forward.steps[1].inputs = vec![WireId(1)];
    assert!(matches!(forward.validate(), Err(PlanError::Step { step: 1, .. })), "reads itself");
    let mut twice = plan(&[6], &[], vec![(Op::Reshape, vec![0], vec![6], F)]);
    twice.outputs.push(twice.outputs[0].clone());
    refused(&twice, "two outputs are named \"y\"");
    let mut narrow = plan(&[6], &[], vec![(Op::Relu { shift: 2, width: 0 }, vec![0], vec![6], F - 2)]);
    narrow.steps[1].op = Op::Relu { shift: 2, width: 5 };
    assert!(narrow.validate().is_err(), "a comparison narrower than its operand");
}

#[test]
fn every_cut_and_every_flipped_byte_is_refused() {
    let bytes = plan(&[1, 1, 4, 4], &[], vec![(pool(&[2, 2]), vec![0], vec![1, 1, 4, 4], F)]).to_bytes();
    assert!((0..bytes.len()).all(|n| Plan::from_bytes(&bytes[..n]).is_err()));
    for i in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x20;
        assert!(Plan::from_bytes(&damaged).is_err(), "byte {i}");
    }
}

/// A plan that uses most operations.
fn varied() -> Plan {
    let same = Window {
        kernel: vec![3, 3],
        stride: vec![1, 1],
        dilation: vec![1, 1],
        pad_begin: vec![1, 1],
        pad_end: vec![1, 1],
    };
    let conv = Op::Conv { weight: ParamId(0), bias: None, groups: 1, window: same.clone() };
    let average = Op::AveragePool { window: same, count_include_pad: true, reciprocal_bits: F };
    let square = vec![1, 2, 4, 4];
    let rows = vec![vec![Tap { index: 2, coefficient: -5 }, Tap { index: 0, coefficient: 3 }], vec![]];
    let steps = vec![
        (conv, vec![0], square.clone(), 2 * F),
        (Op::Relu { shift: F, width: 0 }, vec![1], square.clone(), F),
        (pool(&[2, 2]), vec![2], square.clone(), F),
        (average, vec![3], square.clone(), 2 * F),
        (Op::Trunc { shift: F }, vec![4], square, F),
        (Op::Slice { starts: vec![0, 1, 3, 0], steps: vec![1, 1, -1, 2] }, vec![5], vec![1, 1, 4, 2], F),
        (Op::Pad { before: vec![0, 0, 1, 0] }, vec![6], vec![1, 1, 6, 2], F),
        (Op::Transpose { perm: vec![0, 1, 3, 2] }, vec![7], vec![1, 1, 2, 6], F),
        (Op::Concat { axis: 3 }, vec![8, 8], vec![1, 1, 2, 12], F),
        (Op::Reshape, vec![9], vec![24], F),
        (Op::Combine { coefficients: vec![1, 2], constant: 3 }, vec![10, 10], vec![24], F),
        (Op::Multiply, vec![11, 10], vec![24], 2 * F),
        (Op::NonNegative { width: 0 }, vec![12], vec![24], 0),
        (Op::Table { entries: vec![7, -9] }, vec![13], vec![24], F),
        (Op::Reshape, vec![14], vec![2, 3, 4], F),
        (Op::Transpose { perm: vec![0, 2, 1] }, vec![15], vec![2, 4, 3], F),
        (Op::BatchMatMul, vec![15, 16], vec![2, 3, 3], 2 * F),
        (Op::AxisMap { axis: 1, rows, coefficient_bits: 1 }, vec![17], vec![2, 2, 3], 2 * F + 1),
        (Op::Select { width: 0 }, vec![18, 18], vec![2, 2, 3], 2 * F + 1),
    ];
    plan(&[1, 1, 4, 4], &[&[2, 1, 3, 3]], steps)
}

/// A peer computes its own checksum: damage under a right one must not panic either, nor take long.
#[test]
fn damaged_plans_with_a_right_checksum_do_no_harm() {
    let whole = varied().to_bytes();
    assert!(Plan::from_bytes(&whole).is_ok());
    let body = &whole[18..whole.len() - 32];
    let prg = Prg::new(&Seed::from_bytes([5; 16]));
    let mut random = prg.stream(0).words(20_000 * 9, u64::MAX).into_iter();
    let mut draw = |below: usize| random.next().unwrap() as usize % below;
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut body = body.to_vec();
        for _ in 0..1 + draw(2) {
            let at = draw(body.len());
            match draw(4) {
                0 => body[at] = draw(256) as u8,
                1 => body.insert(at, draw(256) as u8),
                2 => drop(body.remove(at)),
                _ => drop(body.splice(at..=at, [0xff, 0xff, 0xff, draw(128) as u8])),
            }
        }
        let mut bytes = whole[..8].to_vec();
        bytes.extend(PLAN_VERSION.to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        let digest = Digest::of("privet plan", &bytes);
        bytes.extend(digest.0);
        accepted += usize::from(Plan::from_bytes(&bytes).is_ok());
    }
    // Names, labels and constants may be anything; the rest has to be consistent.
    assert!(accepted > 0 && accepted < 10_000, "{accepted} of 20000 damaged plans pass");
}
