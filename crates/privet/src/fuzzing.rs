//! Entry points for hostile bytes, one for each kind of file and message: what `fuzz/` and `tests/hostile.rs` call. For tests
//! and fuzzing only.
//!
//! A target comes back whatever it is given, or it has found a bug. It says whether the bytes were accepted; what is
//! accepted is worked with as the program would, as long as that is little.

use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use ndarray::ArrayD;
use privet_attest::fuzzing as attest;
use privet_graph::{CompileOptions, FloatModel, Graph};
use privet_net::{Fingerprint, fuzzing as net};
use privet_plan::{
    Digest, InputSpec, Op, OutputSpec, PLAN_VERSION, ParamId, ParamSpec, Plan, Post, Preprocess, Range,
    RangeSource, Step, Weights, WireId, ranges,
};
use privet_protocols::masked::{RevealTo, Role, Schedule, Sink, Source, deal};
use privet_protocols::{ProtocolError, Silent, cleartext};
use privet_ring::Ring;
use privet_ring::prg::Seed;
use privet_seal::fuzzing as seal;
use privet_split::fuzzing as split;
use serde::{Serialize, de::DeserializeOwned};

use crate::config::ConfigFile;
use crate::events::PlanSummary;
use crate::explain::{Setting, explain};
use crate::input::{self, MAX_UNPACKED_BYTES};
use crate::model::LoadedModel;
use crate::parameters;
use crate::sharing::{self, Cluster, Member, ShareFile, ShareKind, SharingId};
use crate::store::{BundleHeader, BundleId, BundleReader, BundleWriter, EpochId, Purpose};
use crate::wire::{
    BundleOffer, Choice, ClientHello, ClientMessage, DealerHello, DealerRequest, DealerWelcome, EpochGrant,
    OFFERED, Offer, OfferReply, PartyHello, ServerHello, ServerMessage, Take,
};

/// One kind of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name, also of the fuzz target and the corpus.
    pub name: &'static str,
    /// Says whether it accepts the bytes.
    pub run: fn(&[u8]) -> bool,
    /// Bytes of memory that it may take ..
    floor: usize,
    /// .. and as many for each byte it is given.
    per_byte: usize,
}

impl Target {
    /// Most memory that it may take for so many bytes.
    pub fn memory(&self, len: usize) -> usize {
        self.floor + self.per_byte * len
    }
}

const MIB: usize = 1 << 20;

const fn target(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
    Target { name, run, floor: 64 * MIB, per_byte: 1000 }
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    target("bundle", bundle),
    target("csv", csv),
    target("enclave", privet_enclave::fuzzing::message),
    target("evidence", attest::evidence),
    target("frames", frames),
    target("handshake", handshake),
    target("kbs", privet_keys::fuzzing::message),
    target("keypolicy", privet_keys::fuzzing::policy),
    target("manifest", privet_manifest::fuzzing::manifest),
    target("messages", messages),
    target("npy", npy),
    // Deflate packs 1032 to 1, and bytes become floats.
    Target { per_byte: 1032 * 8, ..target("npz", npz) },
    // Small models may compute constants and maps of some millions of elements.
    Target { floor: 256 * MIB, ..target("onnx", onnx) },
    // A byte of a PNG can stand for 8256 pixels, of four bytes and again of three.
    Target { per_byte: 8256 * 8, ..target("picture", picture) },
    target("plan", plan),
    target("policy", attest::policy),
    target("ratls", attest::ratls),
    Target { floor: 256 * MIB, ..target("scan", split::scan) },
    target("sealed", seal::sealed),
    target("sealing", seal::onnx),
    target("share", share),
    target("stages", split::stages),
    target("toml", toml),
    target("weights", weights),
];

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Elements, and multiplications, of a model that is small enough to run.
const SMALL: usize = 1 << 14;

/// An ONNX model: read, compiled, and run in float.
fn onnx(bytes: &[u8]) -> bool {
    privet_onnx::parse(bytes, "fuzzed").is_ok_and(|graph| compiles(&graph))
}

fn compiles(graph: &Graph) -> bool {
    let Ok(float) = FloatModel::new(graph, &[]) else { return false };
    let options = CompileOptions {
        ring: ring(40),
        frac_bits: 8,
        input_shapes: Vec::new(),
        preprocess: Preprocess::default(),
        labels: Vec::new(),
    };
    let Ok(compiled) = privet_graph::compile(graph, &options) else { return false };
    if is_small(&compiled.plan) {
        let ones: Vec<_> =
            compiled.plan.inputs.iter().map(|i| ArrayD::from_elem(i.shape.clone(), 1.0)).collect();
        let outputs = float.run(&ones).expect("what compiles runs in float");
        for (output, found) in compiled.plan.outputs.iter().zip(&outputs) {
            assert_eq!(compiled.plan.shape(output.wire), found.shape(), "the plan's shape");
        }
    }
    true
}

/// A party's configuration, a preprocessing, a certificate, or labels.
fn toml(bytes: &[u8]) -> bool {
    let _ = input::labels::parse(Path::new("labels.txt"), bytes.to_vec());
    let preprocess = input::preset::parse("preprocess.toml", bytes).is_ok();
    let Ok(text) = std::str::from_utf8(bytes) else { return preprocess };
    preprocess | ConfigFile::parse(text).is_ok() | Cluster::parse(text).is_ok() | net::certificate(text)
}

/// A `.npy` array.
fn npy(bytes: &[u8]) -> bool {
    let _ = input::decode(Path::new("x.npy"), bytes, &Preprocess::default(), &[1, 2, 3]);
    input::npy::decode(bytes).is_ok()
}

/// A `.npz` archive.
fn npz(bytes: &[u8]) -> bool {
    let _ = input::decode(Path::new("x.npz"), bytes, &Preprocess::default(), &[1, 2, 3]);
    input::npz::decode(Path::new("x.npz"), bytes, MAX_UNPACKED_BYTES).is_ok()
}

/// A table of six numbers.
fn csv(bytes: &[u8]) -> bool {
    input::decode(Path::new("x.csv"), bytes, &Preprocess::default(), &[1, 2, 3]).is_ok()
}

/// A JPEG or PNG picture, resized to 8 x 8.
fn picture(bytes: &[u8]) -> bool {
    let preprocess = Preprocess { resize: Some([8, 8]), ..Preprocess::default() };
    input::decode(Path::new("x.jpg"), bytes, &preprocess, &[1, 3, 8, 8]).is_ok()
}

/// A plan, as its file and as the body of one whose checksum is right.
fn plan(bytes: &[u8]) -> bool {
    let as_file = Plan::from_bytes(bytes);
    let as_body = Plan::from_bytes(&plan_file(bytes));
    for plan in [&as_file, &as_body].into_iter().flatten() {
        use_plan(plan);
    }
    as_file.is_ok() || as_body.is_ok()
}

/// The file of a plan with this body.
fn plan_file(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"PRIVPLAN".to_vec();
    bytes.extend(PLAN_VERSION.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let digest = Digest::of("privet plan", &bytes);
    bytes.extend(digest.0);
    bytes
}

/// What parties do with a plan from someone else.
fn use_plan(plan: &Plan) {
    // Not the plans: a preprocessing may hold numbers that equal nothing.
    let again = Plan::from_bytes(&plan.to_bytes());
    assert!(again.is_ok_and(|again| again.digest() == plan.digest()), "a round trip");
    let _ = PlanSummary::of(plan);
    let _ = explain(plan, Setting::TwoParty(RevealTo::Both));
    let schedule = Schedule::new(plan, RevealTo::Both);
    if !is_small(plan) || schedule.total().dealt > 64 * SMALL {
        return;
    }
    let mut dealt = 0;
    let mut count = |_: usize, chunk: Vec<u8>| {
        dealt += chunk.len();
        Ok(())
    };
    let [server, client, mask] = [1, 2, 3].map(|b| Seed::from_bytes([b; 16]));
    let result = deal(plan, &schedule, Role::Server, &server, &client, &mask, &mut count, &mut Silent);
    assert!(result.is_ok() && dealt == schedule.total().dealt, "what a plan costs is what is dealt");
    let ones = |shape: &[usize]| vec![1; shape.iter().product()];
    let weights = Weights::new(plan.params.iter().map(|p| ones(&p.shape)).collect());
    let inputs: Vec<Vec<i64>> = plan.inputs.iter().map(|i| ones(&i.shape)).collect();
    let _ = cleartext::run(plan, &weights, &inputs, &mut Silent);
}

fn is_small(plan: &Plan) -> bool {
    let elements: usize = plan.steps.iter().map(|s| s.shape.iter().product::<usize>()).sum();
    let params: usize = plan.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
    elements + params <= SMALL && plan.multiply_accumulates() <= SMALL as u128
}

/// The weights of [`example`], or the parameters of a model in PyTorch.
fn weights(bytes: &[u8]) -> bool {
    let parameters = parameters::decode(Path::new("m.safetensors"), bytes).is_ok();
    parameters | Weights::from_bytes(bytes, &example().0).is_ok()
}

/// A bundle of [`example`], as it is and with the checksums of its header and first chunk made right.
fn bundle(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| reads_bundle(bytes).unwrap_or(false);
    read(bytes) | mended(bytes).is_some_and(|bytes| read(&bytes))
}

fn reads_bundle(bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let (plan, schedule) = example();
    let Ok(reader) = BundleReader::open(file.path(), &purpose(plan), plan, schedule, Role::Server) else {
        return Ok(false);
    };
    let Ok((_, mut chunks)) = reader.prefetch() else { return Ok(false) };
    Ok(stored(plan, schedule).all(|(k, len)| chunks.chunk(k, len).is_ok()))
}

/// Instructions and lengths of the chunks that the server stores.
fn stored(plan: &Plan, schedule: &Schedule) -> impl Iterator<Item = (usize, usize)> {
    let of = move |k: usize| schedule.chunks(plan, k, Role::Server).into_iter().map(move |len| (k, len));
    (0..schedule.instructions.len()).flat_map(of)
}

fn mended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let length = u32::from_le_bytes(bytes.get(10..14)?.try_into().ok()?) as usize;
    let sum = crc32fast::hash(bytes.get(14..length.checked_add(14)?)?);
    bytes.get_mut(14 + length..18 + length)?.copy_from_slice(&sum.to_le_bytes());
    let chunk = 18 + length;
    let length = u64::from_le_bytes(bytes.get(chunk + 4..chunk + 12)?.try_into().ok()?);
    let end = (chunk + 12).checked_add(usize::try_from(length).ok()?)?;
    let sum = crc32fast::hash(bytes.get(chunk + 12..end)?);
    bytes.get_mut(end..end.checked_add(4)?)?.copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}

fn purpose(plan: &Plan) -> Purpose {
    let (peer, epoch) = (Fingerprint::of(b"client"), EpochId([2; 16]));
    Purpose { peer, plan: plan.digest(), epoch }
}

/// A share of the weights of [`example`], as it is and with its checksum made right.
fn share(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| reads_share(bytes).unwrap_or(false);
    let mended =
        bytes.split_last_chunk::<4>().map(|(rest, _)| [rest, &crc32fast::hash(rest).to_le_bytes()].concat());
    read(bytes) | mended.is_some_and(|bytes| read(&bytes))
}

fn reads_share(bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    Ok(ShareFile::read(file.path(), &example().0, ShareKind::Weights).is_ok())
}

/// A peer's stream after TLS.
fn frames(bytes: &[u8]) -> bool {
    net::frames(bytes)
}

/// Raw bytes at a party that listens.
fn handshake(bytes: &[u8]) -> bool {
    net::handshake(bytes);
    false
}

/// A hello with the body of one kind of party, or a control message, of the kind that the first byte says.
fn messages(bytes: &[u8]) -> bool {
    let Some((&kind, body)) = bytes.split_first() else { return false };
    let own = |body: &[u8]| net::hello(body).map(|hello| hello.body);
    match kind {
        0 => own(body).is_some_and(|b| read::<DealerHello>(&b)),
        1 => own(body).is_some_and(|b| read::<ClientHello>(&b)),
        2 => own(body).is_some_and(|b| read::<ServerHello>(&b)),
        3 => read::<DealerWelcome>(body),
        4 => read::<EpochGrant>(body),
        5 => read::<DealerRequest>(body),
        6 => read::<Option<BundleOffer>>(body),
        7 => read::<OfferReply>(body),
        8 => read::<ClientMessage>(body),
        9 => read::<ServerMessage>(body),
        10 => read::<Offer>(body),
        11 => read::<Choice>(body),
        12 => own(body).is_some_and(|b| read::<PartyHello>(&b)),
        _ => false,
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    postcard::from_bytes::<T>(bytes).is_ok()
}

/// Bytes that a target accepts, made by the writers of this version. Targets whose formats others write have none.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "bundle" => bundle_seed().into_iter().collect(),
        "evidence" => attest::evidence_seeds(),
        "frames" => vec![net::frames_seed()],
        "enclave" => privet_enclave::fuzzing::message_seeds(),
        "kbs" => privet_keys::fuzzing::message_seeds(),
        "keypolicy" => vec![privet_keys::fuzzing::policy_seed()],
        "messages" => message_seeds(),
        "plan" => {
            let file = example().0.to_bytes();
            let body = file[18..file.len() - 32].to_vec();
            vec![file, body]
        }
        "sealed" => seal::seeds(),
        "share" => share_seeds(),
        "scan" => split::scan_seeds(),
        "stages" => split::stages_seeds(),
        "weights" => {
            let plan = &example().0;
            let values = plan.params.iter().map(|p| (0..p.shape.iter().product::<usize>() as i64).collect());
            Weights::new(values.collect()).to_bytes(plan).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// A plan of a layer with ReLU, a sum of neighbours, and its schedule.
fn example() -> &'static (Plan, Schedule) {
    static EXAMPLE: LazyLock<(Plan, Schedule)> = LazyLock::new(|| {
        let step = |name: &str, op, inputs: &[u32], shape: &[usize], frac_bits| Step {
            name: name.to_owned(),
            op,
            inputs: inputs.iter().map(|&i| WireId(i)).collect(),
            shape: shape.to_vec(),
            frac_bits,
            range: Range { bits: 2, source: RangeSource::FullWidth },
        };
        let param = |name: &str, shape: &[usize], frac_bits| ParamSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            frac_bits,
        };
        let dense = Op::MatMul { weight: ParamId(0), bias: Some(ParamId(1)) };
        let mut plan = Plan {
            model: "example".to_owned(),
            ring: ring(32),
            frac_bits: 6,
            inputs: vec![InputSpec {
                name: "x".to_owned(),
                shape: vec![1, 3],
                preprocess: Preprocess::imagenet(),
            }],
            params: vec![param("w", &[3, 4], 6), param("b", &[4], 12)],
            steps: vec![
                step("x", Op::Input { input: 0 }, &[], &[1, 3], 6),
                step("dense", dense, &[0], &[1, 4], 12),
                step("relu", Op::Relu { shift: 6, width: 0 }, &[1], &[1, 4], 6),
                step("sum", Op::Combine { coefficients: vec![2, -1], constant: 5 }, &[2, 2], &[1, 4], 6),
            ],
            outputs: vec![OutputSpec {
                name: "y".to_owned(),
                wire: WireId(3),
                post: Post::Softmax { axis: 1 },
            }],
            labels: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            fss: Vec::new(),
        };
        ranges::assign_full_width(&mut plan);
        let schedule = Schedule::new(&plan, RevealTo::Client);
        (plan, schedule)
    });
    &EXAMPLE
}

fn ring(bits: u32) -> Ring {
    Ring::new(bits).expect("a width of rings")
}

fn bundle_seed() -> Option<Vec<u8>> {
    let (plan, schedule) = example();
    let Purpose { peer, plan: digest, epoch } = purpose(plan);
    let header = BundleHeader {
        id: BundleId([1; 16]),
        role: Role::Server,
        peer,
        plan: digest,
        epoch,
        ring_bits: plan.ring.bits() as u8,
        seed: Seed::from_bytes([3; 16]),
    };
    let dir = tempfile::tempdir().ok()?;
    let path = dir.path().join("seed.bundle");
    let mut writer = BundleWriter::create(&path, &header).ok()?;
    let mut write = |(k, len): (usize, usize)| -> Result<(), ProtocolError> {
        writer.chunk(k, (0..len).map(|i| i as u8).collect())
    };
    stored(plan, schedule).try_for_each(&mut write).ok()?;
    writer.finish().ok()?;
    std::fs::read(&path).ok()
}

/// Of a party that has one component as a seed and the other as elements, and of one that has two seeds.
fn share_seeds() -> Vec<Vec<u8>> {
    let plan = &example().0;
    let party = |i: u8| Member {
        name: format!("party{i}"),
        address: "h:1".to_owned(),
        fingerprint: Fingerprint::of(&[i]),
    };
    let weights = plan.params.iter().map(|p| vec![1; p.shape.iter().product()]).collect();
    let model = LoadedModel { plan: plan.clone(), weights: Weights::new(weights) };
    let Ok(dir) = tempfile::tempdir() else { return Vec::new() };
    let cluster = Cluster { parties: [0, 1, 2].map(party) };
    let written = sharing::share_weights(&model, &cluster, dir.path()).unwrap_or_default();
    written.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn message_seeds() -> Vec<Vec<u8>> {
    let (bundle, epoch, digest) = (BundleId([4; 16]), EpochId([5; 16]), Digest([6; 32]));
    let seed = || Seed::from_bytes([7; 16]);
    let bundles = || vec![bundle, BundleId([8; 16])];
    let offer = || Offer([bundle; OFFERED]);
    let reveal_to = RevealTo::Client;
    let hello = |kind, body: Vec<u8>| {
        let hello = privet_net::handshake::Hello {
            protocol_version: crate::PROTOCOL_VERSION,
            software: "privet 0".to_owned(),
            body,
        };
        message(kind, &hello)
    };
    let dealer =
        DealerHello { role: Role::Server, plan: digest, partner: Fingerprint::of(b"p"), epoch: Some(epoch) };
    let sharing = SharingId([9; 16]);
    let party = PartyHello {
        index: 1,
        plan: digest,
        weights: sharing,
        inputs: vec![sharing; 3],
        common: vec![digest; 4],
        nonce: [10; 16],
    };
    vec![
        hello(0, encode(&dealer)),
        hello(1, encode(&ClientHello::Offline { session: Some(7), epoch: Some(EpochId([5; 16])) })),
        hello(
            1,
            encode(&ClientHello::Online {
                plan: digest,
                epoch,
                session: 7,
                inferences: 3,
                offer: offer(),
                reveal_to,
            }),
        ),
        hello(2, encode(&ServerHello::Offline { plan: digest, plan_bytes: 1 << 20, epoch, session: 8 })),
        hello(2, encode(&ServerHello::Online)),
        message(3, &DealerWelcome { need_plan: true }),
        message(4, &EpochGrant { epoch, seed: Some(seed()) }),
        message(5, &DealerRequest::Some(9)),
        message(5, &DealerRequest::These(bundles())),
        message(6, &Some(BundleOffer { id: bundle, seed: seed() })),
        message(7, &OfferReply::Stored),
        message(8, &ClientMessage::Need { plan: true, weights: true }),
        message(8, &ClientMessage::Ready(bundles())),
        message(9, &ServerMessage::Prepared { ready: bundles(), gone: vec![bundle] }),
        message(10, &offer()),
        message(11, &Choice { gone: bundles(), take: Some(Take { bundle, session: 9 }) }),
        message(11, &Choice { gone: bundles(), take: None }),
        hello(12, encode(&party)),
    ]
}

fn message(kind: u8, message: &impl Serialize) -> Vec<u8> {
    [vec![kind], encode(message)].concat()
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).unwrap_or_default()
}
