//! A model built layer by layer, its parameters in a file, and a private inference in one process: server, client and dealer are
//! functions here, joined in memory. Between machines, `Model::save` writes what `privet server` serves.
//!
//! `cargo run --release -p privet --example nn`

use std::error::Error;
use std::thread;
use std::time::Duration;

use ndarray::{ArrayD, IxDyn};
use privet::RevealTo;
use privet::model::{CompileOptions, Model, fixed_inputs};
use privet::nn::{self, Parameters};
use privet::{parameters, postprocess};
use privet_net::memory;
use privet_protocols::masked::{self, Bundle, Online, Role, Schedule, ServerWeights, Sink, Source};
use privet_protocols::{ProtocolError, Silent};
use privet_ring::prg::Seed;

fn main() -> Result<(), Box<dyn Error>> {
    let block = nn::seq().add(nn::conv2d(8, 8, 3).padding(1).bias(false)).add(nn::batch_norm2d(8));
    let layers = nn::seq()
        .add(nn::conv2d(3, 8, 5).stride(2).padding(2))
        .add(nn::relu())
        .add(nn::residual(block))
        .add(nn::relu())
        .add(nn::global_avg_pool())
        .add(nn::flatten())
        .named("fc", nn::linear(8, 4));

    // Random parameters, to a file and back: instead of this one, a file that PyTorch wrote.
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("small.safetensors");
    let random = layers.clone().build("small", &[1, 3, 16, 16], Parameters::random(7))?;
    parameters::save(&file, &random.parameters)?;
    let built = layers.build("small", &[1, 3, 16, 16], Parameters::named(parameters::load(&file)?))?;
    println!("{} parameters: {:?}", built.parameter_count(), built.parameters.keys().collect::<Vec<_>>());

    let model = Model::from_graph(&built.graph, &CompileOptions::default())?;
    let picture =
        ArrayD::from_shape_fn(IxDyn(&[1, 3, 16, 16]), |i| ((i[1] + 2 * i[2] + i[3]) % 7) as f32 / 7.0);
    let inputs = fixed_inputs(&model.plan, std::slice::from_ref(&picture))?;
    let float = model.float.run(&[picture])?;
    let revealed = infer(&model, &inputs)?;
    let private = postprocess::decode(&model.plan, &revealed)?;
    println!("in float:  {:.4}", float[0]);
    println!("privately: {:.4}", private[0].values.to_floats());
    Ok(())
}

/// One inference with all three parties; the client learns the outputs.
fn infer(model: &Model, inputs: &[Vec<i64>]) -> Result<Vec<Vec<i64>>, Box<dyn Error>> {
    let Model { plan, weights, .. } = model;
    let schedule = Schedule::new(plan, RevealTo::Client);
    let [server, client, mask] = [Seed::random()?, Seed::random()?, Seed::random()?];

    // Offline: the dealer's material, and what both parties make of it.
    let mut dealt = Chunks::default();
    masked::deal(plan, &schedule, Role::Server, &server, &client, &mask, &mut dealt, &mut Silent)?;
    // The client gets the weights masked; the seed stays with server and dealer.
    let masked_weights = masked::mask_weights(plan, weights, &mask);
    let prepare = |role, seed: &Seed, mut dealt: Chunks| -> Result<Chunks, ProtocolError> {
        let mut stored = Chunks::default();
        let own = (role == Role::Server).then_some(weights);
        masked::prepare(
            plan,
            &schedule,
            role,
            seed,
            &masked_weights,
            own,
            &mut dealt,
            &mut stored,
            &mut Silent,
        )?;
        Ok(stored)
    };
    let server_half = Bundle::new(server.clone(), prepare(Role::Server, &server, dealt)?);
    let client_half = Bundle::new(client.clone(), prepare(Role::Client, &client, Chunks::default())?);

    // Online.
    let (mut to_client, mut to_server) = memory::pair(Duration::from_secs(60));
    let revealed = thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let role = Online::Server(&ServerWeights::once(weights));
            masked::online(plan, &schedule, role, server_half, &mut to_client, &mut Silent).map(drop)
        });
        let role = Online::Client(inputs);
        let revealed = masked::online(plan, &schedule, role, client_half, &mut to_server, &mut Silent);
        serving.join().expect("the server's thread").and(revealed)
    })?;
    Ok(revealed.ok_or("nothing was revealed")?)
}

/// Material in memory, in the order of instructions.
#[derive(Default)]
struct Chunks(std::collections::VecDeque<Vec<u8>>);

impl Sink for Chunks {
    fn chunk(&mut self, _: usize, bytes: Vec<u8>) -> Result<(), ProtocolError> {
        self.0.push_back(bytes);
        Ok(())
    }
}

impl Source for Chunks {
    fn chunk(&mut self, _: usize, _: usize) -> Result<Vec<u8>, ProtocolError> {
        Ok(self.0.pop_front().unwrap_or_default())
    }
}
