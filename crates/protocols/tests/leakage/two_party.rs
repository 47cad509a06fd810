//! The views of server and client in `2pc` and `fss`, which is what each was dealt and what they see of each other online.

use std::sync::Arc;
use std::time::Duration;

use privet_net::memory::MemoryChannel;
use privet_plan::Plan;
use privet_protocols::masked::{self, Bundle, Online, Role, Schedule, ServerWeights};

use crate::common::samples::Secrets;
use crate::common::{Chunks, deal, prepared, reference};
use crate::keys::see_keys;
use crate::view::{Now, Recorder, Seen, View, WRONG, see};

/// One inference with fresh material. Checks the result, and every frame against the schedule's list of openings.
pub(crate) fn run(plan: &Plan, schedule: &Schedule, secrets: &Secrets) -> Vec<View> {
    let mut views = [View::default(), View::default()];
    let dealt = deal(plan, &secrets.weights, schedule);
    let dealt_chunks = [dealt.chunks.clone(), dealt.client_chunks.clone()];
    for (view, chunks) in views.iter_mut().zip(&dealt_chunks) {
        chunks.0.iter().for_each(|(k, chunk)| view.add_bytes(format!("dealt for {k}"), chunk));
    }
    views[1].add_bytes("masked weights".to_owned(), &dealt.masked_weights);
    let seeds = [dealt.server.clone(), dealt.client.clone()];
    let (server, client) = prepared(plan, &secrets.weights, schedule, dealt);
    let (a, b) = privet_net::memory::pair(Duration::from_secs(60));
    let [server, client] = std::thread::scope(|scope| {
        let client = scope.spawn(|| party(plan, schedule, Online::Client(&secrets.inputs), client, b));
        [
            party(plan, schedule, Online::Server(&ServerWeights::new(&secrets.weights)), server, a),
            client.join().unwrap(),
        ]
    });
    let expected = reference(plan, &secrets.weights, &secrets.inputs);
    let outcomes = [(Role::Server, server), (Role::Client, client)];
    let dealt = seeds.iter().zip(&dealt_chunks);
    for (((role, (frames, output)), (seed, chunks)), view) in outcomes.iter().zip(dealt).zip(&mut views) {
        let learns = schedule.reveal_to.includes(*role).then_some(&expected);
        assert_eq!(output.as_ref(), learns, "{WRONG}");
        see(plan, schedule, *role, seed, frames, view);
        see_keys(plan, schedule, *role, seed, chunks, view);
    }
    views.into()
}

fn party(
    plan: &Plan,
    schedule: &Schedule,
    own: Online,
    half: Bundle<Chunks>,
    channel: MemoryChannel,
) -> (Vec<Seen>, Option<Vec<Vec<i64>>>) {
    let now = Now::default();
    let mut recorder = Recorder::new(channel, Arc::clone(&now.0));
    let outputs = masked::online(plan, schedule, own, half, &mut recorder, &mut { now });
    (recorder.frames, outputs.unwrap_or_else(|error| panic!("{WRONG}: {error}")))
}
