//! What `privet plan` lists as opened is what goes over the channel, frame by frame.

#[path = "../../protocols/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Duration;

use privet::RevealTo;
use privet::explain::{Content, Opening, Setting, explain};
use privet::model::{CompileOptions, Model, compile};
use privet_net::memory::MemoryChannel;
use privet_net::{Channel, Frame, NetError, Peer, Traffic};
use privet_protocols::masked::{self, Bundle, Online, Role, Schedule, ServerWeights};
use privet_protocols::{Silent, cleartext};
use privet_ring::pack;

/// A frame: whether it was sent, and its payload.
type Seen = (bool, Vec<u8>);

/// Keeps what goes over a channel.
struct Recorder(MemoryChannel, Vec<Seen>);

impl Channel for Recorder {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.1.push((true, frame.payload.clone()));
        self.0.send(frame)
    }
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        let frame = self.0.recv(max_len)?;
        self.1.push((false, frame.payload.clone()));
        Ok(frame)
    }
    fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
    fn peer(&self) -> &Peer {
        self.0.peer()
    }
    fn set_deadline(&mut self, per_wait: Duration) {
        self.0.set_deadline(per_wait);
    }
    fn count_round(&mut self) {
        self.0.count_round();
    }
    fn flush(&mut self) -> Result<(), NetError> {
        self.0.flush()
    }
    fn shutdown(&mut self) -> Result<(), NetError> {
        self.0.shutdown()
    }
}

/// Frames of server and client in one inference on zeros.
fn frames(model: &Model, reveal_to: RevealTo) -> [Vec<Seen>; 2] {
    let Model { plan, weights, .. } = model;
    let inputs: Vec<Vec<i64>> = plan.inputs.iter().map(|i| vec![0; i.shape.iter().product()]).collect();
    let schedule = Schedule::new(plan, reveal_to);
    let (server, client) = common::offline(plan, weights, &schedule);
    let (a, b) = privet_net::memory::pair(Duration::from_secs(60));
    let weights = ServerWeights::once(weights);
    let run = |own, half: Bundle<common::Chunks>, channel| {
        let mut recorder = Recorder(channel, Vec::new());
        masked::online(plan, &schedule, own, half, &mut recorder, &mut Silent).unwrap();
        recorder.1
    };
    std::thread::scope(|scope| {
        let client = scope.spawn(|| run(Online::Client(&inputs), client, b));
        [run(Online::Server(&weights), server, a), client.join().unwrap()]
    })
}

/// Compares what is listed with what is seen; the sums of revealed frames have to be the outputs, and no masked one may be.
fn check(model: &Model, reveal_to: RevealTo) {
    let rows = explain(&model.plan, Setting::TwoParty(reveal_to)).rows;
    let openings: Vec<&Opening> = rows.iter().flat_map(|r| &r.openings).collect();
    let seen = frames(model, reveal_to);
    for (role, peer, seen) in [(Role::Server, Role::Client, &seen[0]), (Role::Client, Role::Server, &seen[1])]
    {
        for (is_sent, receiver) in [(true, peer), (false, role)] {
            let expected: Vec<usize> =
                openings.iter().filter(|o| o.to.includes(receiver)).map(|o| o.bytes()).collect();
            let found: Vec<usize> =
                seen.iter().filter(|(sent, _)| *sent == is_sent).map(|(_, payload)| payload.len()).collect();
            assert_eq!(found, expected, "{}, {role:?}", model.plan.model);
        }
    }
    let values = openings.iter().filter(|o| o.what == Content::Value);
    assert_eq!(values.count(), model.plan.outputs.len(), "nothing but outputs is listed as a value");
    assert!(openings.iter().rev().take(model.plan.outputs.len()).all(|o| o.what == Content::Value));
    if reveal_to == RevealTo::Both && model.plan.outputs.len() == 1 {
        let inputs: Vec<Vec<i64>> =
            model.plan.inputs.iter().map(|i| vec![0; i.shape.iter().product()]).collect();
        let outputs = cleartext::run(&model.plan, &model.weights, &inputs, &mut Silent).unwrap();
        let (ring, elements) = (model.plan.ring, outputs[0].len());
        let [sent, received] = [1, 0].map(|from_end| {
            let (_, payload) = &seen[0][seen[0].len() - 1 - from_end];
            pack::unpack(payload, ring.bits(), elements).unwrap()
        });
        let sum: Vec<i64> =
            sent.iter().zip(&received).map(|(a, b)| ring.to_signed(a.wrapping_add(*b))).collect();
        assert_eq!(sum, outputs[0]);
    }
}

#[test]
fn the_digits_model_opens_what_is_listed() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits");
    for calibrate in [Vec::new(), vec![assets.join("7.png")]] {
        let preprocess = Some(assets.join("preprocess.toml").to_str().unwrap().to_owned());
        let options = CompileOptions { calibrate, preprocess, ..CompileOptions::default() };
        let model = compile(&assets.join("digits.onnx"), &options).unwrap();
        [RevealTo::Client, RevealTo::Server, RevealTo::Both].into_iter().for_each(|to| check(&model, to));
    }
}

/// Models of `../shared/data` next to the checkout.
#[test]
fn other_models_open_what_is_listed() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models");
    if !data.is_dir() {
        eprintln!("SKIPPED: {} is not there", data.display());
        return;
    }
    let models = ["mnist/mnist_cntk", "resnet_cifar10/resnet20", "mobilenet/mobilenet_v1_0.25_128_deq_fp32"];
    for name in models {
        let path = data.join(format!("{name}.onnx"));
        let model = compile(&path, &CompileOptions::default()).unwrap();
        eprintln!("{}: {} steps", path.display(), model.plan.steps.len());
        check(&model, RevealTo::Client);
    }
}
