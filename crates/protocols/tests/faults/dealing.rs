//! Dealing and preparing both halves of a bundle of `2pc` and `fss` over a bad network.

use std::time::Duration;

use privet_net::fault::Fault;
use privet_net::memory::{MemoryChannel, faulty_pair};
use privet_net::{Channel, Frame, FrameKind};
use privet_protocols::masked::{self, RevealTo, Role, Schedule, Source};
use privet_protocols::{ProtocolError, Silent};
use privet_ring::prg::Seed;

use crate::common::{SMALL, with_bits, with_products};
use crate::{AMPLE, Case, SHORT, each};

const CHUNK: FrameKind = FrameKind::new(0x101);
const STORED: FrameKind = FrameKind::new(0x102);

/// Dealt chunks from a channel.
struct Dealt<'a>(&'a mut MemoryChannel);

impl Source for Dealt<'_> {
    fn chunk(&mut self, instruction: usize, len: usize) -> Result<Vec<u8>, ProtocolError> {
        let bytes = self.0.recv_kind(CHUNK, len)?;
        if bytes.len() == len {
            return Ok(bytes);
        }
        Err(ProtocolError::Size { what: instruction.to_string(), expected: len, found: bytes.len() })
    }
}

/// Dealing and preparing a half over a bad network: whether dealer and party failed, and what the dealer sent.
fn deal(case: &Case, role: Role, deadline: Duration, faults: Vec<Fault>) -> (bool, bool, u32) {
    let (Case { plan, weights, .. }, schedule) =
        (case, &Schedule::with_sizes(&case.plan, RevealTo::Both, SMALL));
    let seeds: [Seed; 3] = std::array::from_fn(|_| Seed::random().unwrap());
    let [server, client, weight_seed] = &seeds;
    let (mut a, mut b) = faulty_pair(deadline, faults, Vec::new());
    std::thread::scope(|scope| {
        let prepared = scope.spawn(move || -> Result<(), ProtocolError> {
            let masked = masked::mask_weights(plan, weights, weight_seed);
            let mut stored = |_: usize, _: Vec<u8>| Ok(());
            let mut dealt = Dealt(&mut b);
            let (seed, own) = match role {
                Role::Server => (server, Some(weights)),
                Role::Client => (client, None),
            };
            masked::prepare(plan, schedule, role, seed, &masked, own, &mut dealt, &mut stored, &mut Silent)?;
            Ok(b.send(Frame::new(STORED, Vec::new()))?)
        });
        let mut sink = |_: usize, bytes: Vec<u8>| Ok(a.send(Frame::new(CHUNK, bytes))?);
        let dealt = masked::deal(plan, schedule, role, server, client, weight_seed, &mut sink, &mut Silent);
        let dealt = dealt.and_then(|()| Ok(a.recv_kind(STORED, 0)?));
        let sent = a.traffic().frames_sent as u32;
        drop(a);
        (dealt.is_err(), prepared.join().expect("no panic").is_err(), sent)
    })
}

#[test]
fn dealing_fails_on_both_sides_at_every_frame() {
    fails_at_every_frame(&Case::new(), Role::Server);
}

#[test]
fn dealing_keys_fails_on_both_sides_at_every_frame() {
    for plan in [with_bits, with_products] {
        let case = Case::new().with_plan(plan);
        [Role::Server, Role::Client].into_iter().for_each(|role| fails_at_every_frame(&case, role));
    }
}

fn fails_at_every_frame(case: &Case, role: Role) {
    let (_, failed, chunks) = deal(case, role, AMPLE, Vec::new());
    assert!(!failed && chunks > 5, "{role:?}: {chunks} chunks");
    let faults: [fn(u32) -> Fault; 7] = [
        Fault::Drop,
        Fault::Swap,
        Fault::Cut,
        Fault::Truncate,
        Fault::Shorten,
        Fault::Lengthen,
        Fault::Relabel,
    ];
    each(chunks * faults.len() as u32, |n| {
        let fault = faults[(n / chunks) as usize](n % chunks);
        let (dealer, party, _) = deal(case, role, SHORT * 4, vec![fault]);
        assert!(dealer && party, "{role:?}, {fault:?}: dealer {dealer}, party {party}");
    });
    each(chunks, |at| {
        let (dealer, party, _) = deal(case, role, AMPLE, vec![Fault::Delay(at, Duration::from_millis(3))]);
        assert!(!dealer && !party, "{role:?}, delay of chunk {at}");
        let (dealer, party, _) = deal(case, role, AMPLE, vec![Fault::Duplicate(at)]);
        assert_eq!((dealer, party), (at + 1 < chunks, at + 1 < chunks), "{role:?}, chunk {at} twice");
    });
}
