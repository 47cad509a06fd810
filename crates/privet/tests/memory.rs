//! Memory is bounded by the largest layer, not by the one-time material: a model of many layers needs as much as one of few.

mod lab;

use lab::Lab;
use peak_alloc::PeakAlloc;
use privet::client::{self, ClientOptions};
use privet::events::Silent;
use privet::model::{CompileOptions, Model};
use privet::nn::{self, Parameters};
use privet::{PartyRole, reference};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const CHANNELS: usize = 8;
const SIDE: usize = 64;

/// Layers of equal size, one after the other.
fn model(layers: usize) -> Model {
    let mut net = nn::seq();
    for _ in 0..layers {
        net = net.add(nn::conv2d(CHANNELS, CHANNELS, 3).padding(1)).add(nn::relu());
    }
    let built = net.build("deep", &[1, CHANNELS, SIDE, SIDE], Parameters::random(1)).unwrap();
    Model::from_graph(&built.graph, &CompileOptions::default()).unwrap()
}

/// Bytes of one-time material, and the most that all parties together had allocated offline and online.
fn run(layers: usize) -> (u64, [usize; 2]) {
    let lab = Lab::new(&["client"]);
    let model = model(layers);
    model.save(&lab.path("deep")).unwrap();
    let inputs = vec![vec![1 << 10; CHANNELS * SIDE * SIDE]];
    let (expected, _) = reference::cleartext(&model, &inputs, &Silent).unwrap();
    drop(model);
    MEMORY.reset_peak_usage();
    let (dealer, before) = (lab.dealer(), MEMORY.current_usage());
    let server = lab.server_offline("deep", &dealer, 1);
    let mut stored = lab.client_offline("client", &server, &dealer, 1).unwrap().bytes_stored;
    stored += server.join().bytes_stored;
    drop(dealer);
    let offline = MEMORY.peak_usage() - before;
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let server = lab.server_online("deep");
    let options = ClientOptions { server: Some(server.address.clone()), ..ClientOptions::default() };
    let config = lab.config("client", PartyRole::Client);
    let (outputs, _) = client::online(config, &inputs, &options, &Silent).unwrap();
    assert_eq!(outputs.unwrap(), expected);
    (stored, [offline, MEMORY.peak_usage() - before])
}

#[test]
fn memory_does_not_grow_with_the_material() {
    let (few, deep) = (run(2), run(100));
    let mib = |bytes: usize| bytes >> 20;
    println!("material {} and {} MiB", few.0 >> 20, deep.0 >> 20);
    println!(
        "offline {} and {} MiB, online {} and {} MiB",
        mib(few.1[0]),
        mib(deep.1[0]),
        mib(few.1[1]),
        mib(deep.1[1])
    );
    let more = (deep.0 - few.0) as usize;
    assert!(more > 256 << 20, "the material grows by {} MiB only", mib(more));
    // Online nothing is kept. Offline the queues from the dealer to both parties may fill, on both sides: four of 16 MiB and
    // the frame under way in each.
    assert!(deep.1[1] < few.1[1] + more / 20, "online memory grows with the material");
    assert!(deep.1[0] < few.1[0] + (96 << 20), "offline memory grows with the material");
}
