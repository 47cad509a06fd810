//! The engines under faults, and how their parties end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use privet_net::Channel;
use privet_net::fault::Fault;
use privet_net::memory::{MemoryChannel, faulty_pair};
use privet_plan::Plan;
use privet_protocols::masked::{self, Bundle, Online, RevealTo, Schedule, ServerWeights};
use privet_protocols::replicated::{PARTIES, Position, join};
use privet_protocols::{ProtocolError, Silent};

use crate::Case;
use crate::common::three_party::{party, ring_of_channels, share};
use crate::common::{Chunks, SMALL, offline, with_bits, with_products};

/// An engine whose connections break.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    pub(crate) parties: &'static [&'static str],
    /// The engine's form of a plan.
    pub(crate) plan: fn(&Plan) -> Plan,
    /// Who sends to whom.
    pub(crate) links: &'static [(usize, usize)],
    /// Who never waits for a frame, and so may not notice that others have gone.
    pub(crate) never_waits: Option<usize>,
    /// One inference with these waits, and these faults in the frames that go over a link.
    pub(crate) infer: fn(&Case, Duration, usize, Vec<Fault>) -> Ended,
}

/// All that have connections.
pub(crate) const ENGINES: [Engine; 4] = [
    Engine {
        name: "2pc",
        parties: &["server", "client"],
        plan: Plan::clone,
        links: &[(0, 1), (1, 0)],
        never_waits: None,
        infer: two_party,
    },
    Engine {
        name: "3pc",
        parties: &["dealer", "first", "second"],
        plan: Plan::clone,
        links: &[(0, 1), (0, 2), (1, 2), (2, 1)],
        never_waits: Some(0),
        infer: three_party,
    },
    Engine {
        name: "fss",
        parties: &["server", "client"],
        plan: with_bits,
        links: &[(0, 1), (1, 0)],
        never_waits: None,
        infer: two_party,
    },
    Engine {
        name: "products",
        parties: &["server", "client"],
        plan: with_products,
        links: &[(0, 1), (1, 0)],
        never_waits: None,
        infer: two_party,
    },
];

/// All parties after an inference.
pub(crate) struct Ended {
    /// How each ended.
    pub(crate) parties: Vec<Result<(), ProtocolError>>,
    /// Every result that can be made of what ended well; `None` where parties contradict each other.
    pub(crate) results: Vec<Option<Vec<Vec<i64>>>>,
    /// Frames sent over each link.
    pub(crate) sent: Vec<u32>,
}

fn two_party(case: &Case, deadline: Duration, link: usize, faults: Vec<Fault>) -> Ended {
    // In the smallest lanes: the max pool has two.
    let schedule = Schedule::with_sizes(&case.plan, RevealTo::Both, SMALL);
    let (server, client) = offline(&case.plan, &case.weights, &schedule);
    let mut by_link = [Vec::new(), Vec::new()];
    by_link[link] = faults;
    let [server_sends, client_sends] = by_link;
    let (a, b) = faulty_pair(deadline, server_sends, client_sends);
    let weights = ServerWeights::new(&case.weights);
    let party = |own, half: Bundle<Chunks>, mut channel: MemoryChannel| {
        let run = || masked::online(&case.plan, &schedule, own, half, &mut channel, &mut Silent);
        let outcome = catch_unwind(AssertUnwindSafe(run)).expect("no panic");
        (outcome, channel.traffic().frames_sent as u32)
    };
    let ended = std::thread::scope(|scope| {
        let client = scope.spawn(|| party(Online::Client(&case.inputs), client, b));
        let server = party(Online::Server(&weights), server, a);
        [server, client.join().expect("no panic")]
    });
    let sent = ended.iter().map(|(_, sent)| *sent).collect();
    let (mut parties, mut results) = (Vec::new(), Vec::new());
    for (outcome, _) in ended {
        parties.push(outcome.map(|outputs| results.push(Some(outputs.expect("both learn the result")))));
    }
    Ended { parties, results, sent }
}

fn three_party(case: &Case, deadline: Duration, link: usize, faults: Vec<Fault>) -> Ended {
    let Case { plan, weights, inputs, .. } = case;
    let schedule = Schedule::three_party_with_sizes(plan, SMALL);
    let links = ENGINES[1].links;
    let mut faults = Some(faults);
    let on_link = |from, to| if links[link] == (from, to) { faults.take().unwrap() } else { Vec::new() };
    let channels = ring_of_channels(deadline, on_link);
    let (weights, inputs) = (share(&weights.tensors, plan.ring), share(inputs, plan.ring));
    let ended = std::thread::scope(|scope| {
        let (weights, inputs, schedule) = (&weights, &inputs, &schedule);
        let spawn = |(i, (mut next, mut previous)): (usize, (MemoryChannel, MemoryChannel))| {
            scope.spawn(move || {
                let own = [&weights[i][..], &inputs[i]];
                party(plan, schedule, Position::of(i, 0), own, &mut next, &mut previous, &mut Silent)
            })
        };
        let threads: Vec<_> = channels.into_iter().enumerate().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    let sent = |&(from, to): &(usize, usize)| {
        let [next, previous] = ended[from].traffic;
        if to == (from + 1) % PARTIES { next } else { previous }.frames_sent as u32
    };
    let sent = links.iter().map(sent).collect();
    // Two parties have all three components, one of them both.
    let pair = |i: usize| {
        let (a, b) = (ended[i].outputs.as_ref().ok()?, ended[(i + 1) % PARTIES].outputs.as_ref().ok()?);
        let agree = a.iter().zip(b).all(|(a, b)| a.next == b.own);
        let values = a.iter().zip(b).map(|(a, b)| join([&a.own, &b.own, &b.next], plan.ring));
        Some(agree.then(|| values.collect()))
    };
    let results = (0..PARTIES).filter_map(pair).collect();
    Ended { results, sent, parties: ended.into_iter().map(|ended| ended.outputs.map(drop)).collect() }
}
