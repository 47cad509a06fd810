//! What instructions cost; declared next to the code of every gate, checked against what is measured.

use privet_ring::planes::plane_bytes;
use privet_ring::{Ring, packed_len};
use serde::Serialize;

use super::{RevealTo, Role};

/// What one frame of an online round carries, to each party that is named in `to`. The lanes of an instruction have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Opening {
    /// What is told.
    pub what: Content,
    /// Number of values.
    pub elements: usize,
    /// Bits of each value.
    pub bits: u32,
    /// Who receives.
    pub to: RevealTo,
    /// Which lane of its instruction it belongs to, that is under which stream of masks it is.
    pub lane: usize,
}

/// What a party learns when it adds up what it sent and what it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Bits under fresh masks, as planes.
    MaskedBits,
    /// Ring elements under fresh masks.
    MaskedElements,
    /// An output.
    Value,
}

impl Opening {
    /// Planes of masked bits, to both.
    pub(super) fn planes(count: usize, elements: usize) -> Self {
        Self { what: Content::MaskedBits, elements, bits: count as u32, to: RevealTo::Both, lane: 0 }
    }

    /// Masked ring elements.
    pub(super) fn masked(ring: Ring, elements: usize, to: RevealTo) -> Self {
        Self { what: Content::MaskedElements, elements, bits: ring.bits(), to, lane: 0 }
    }

    /// An output.
    pub(super) fn value(ring: Ring, elements: usize, to: RevealTo) -> Self {
        Self { what: Content::Value, elements, bits: ring.bits(), to, lane: 0 }
    }

    /// Payload bytes of one frame.
    pub fn bytes(&self) -> usize {
        match self.what {
            Content::MaskedBits => self.bits as usize * plane_bytes(self.elements),
            Content::MaskedElements | Content::Value => packed_len(self.bits, self.elements),
        }
    }
}

/// Declared cost of one instruction: payload bytes, without frame headers. Among three parties, the first of those that
/// open wires to each other has the server's place, the second one the client's, and what is dealt is sent meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Online rounds.
    pub rounds: u64,
    /// Online bytes from server to client.
    pub server_sends: usize,
    /// Online bytes from client to server.
    pub client_sends: usize,
    /// Offline bytes from dealer to server.
    pub dealt: usize,
    /// Offline bytes from dealer to client: keys of function secret sharing.
    pub dealt_client: usize,
    /// One-time bytes the server stores.
    pub server_stores: usize,
    /// One-time bytes the client stores, next to its seed.
    pub client_stores: usize,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.server_sends += other.server_sends;
        self.client_sends += other.client_sends;
        self.dealt += other.dealt;
        self.dealt_client += other.dealt_client;
        self.server_stores += other.server_stores;
        self.client_stores += other.client_stores;
    }
}

impl Cost {
    /// Whether nothing is sent or stored.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }

    /// Offline bytes from the dealer to `role`.
    pub fn dealt_to(&self, role: Role) -> usize {
        match role {
            Role::Server => self.dealt,
            Role::Client => self.dealt_client,
        }
    }

    /// Online bytes that `role` sends.
    pub fn sends(&self, role: Role) -> usize {
        match role {
            Role::Server => self.server_sends,
            Role::Client => self.client_sends,
        }
    }

    /// One-time bytes that `role` stores.
    pub fn stores(&self, role: Role) -> usize {
        match role {
            Role::Server => self.server_stores,
            Role::Client => self.client_stores,
        }
    }
}

/// Bytes of one chunk of material, to the first and to the second party; none is sent where it is 0.
pub(super) type Chunk = [usize; 2];

/// What a lane or an instruction opens, in order, and what is dealt for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GateCost {
    pub(super) openings: Vec<Opening>,
    pub(super) rounds: usize,
    /// Chunks in the order in which they are dealt and read, by levels: between them, other lanes take their turns.
    pub(super) levels: Vec<Vec<Chunk>>,
}

impl GateCost {
    /// Of one lane that opens these one after the other, with one level of chunks.
    pub(super) fn new(openings: Vec<Opening>, chunks: Vec<Chunk>) -> Self {
        Self { rounds: openings.len(), openings, levels: vec![chunks] }
    }

    /// Of an instruction that opens all of these in one round and needs no material.
    pub(super) fn round(openings: Vec<Opening>) -> Self {
        Self { openings, rounds: 1, levels: Vec::new() }
    }

    /// All chunks, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.levels.iter().flatten().copied()
    }

    /// Bytes dealt to the first and to the second party.
    pub(super) fn dealt(&self) -> [usize; 2] {
        self.chunks().fold([0; 2], |[first, second], [a, b]| [first + a, second + b])
    }

    /// Of an instruction from that of its lanes, which go through the same rounds side by side.
    pub(super) fn side_by_side(lanes: Vec<Self>) -> Self {
        let rounds = lanes[0].rounds;
        let in_round = |round: usize| {
            lanes.iter().enumerate().map(move |(lane, cost)| Opening { lane, ..cost.openings[round] })
        };
        Self {
            openings: (0..rounds).flat_map(in_round).collect(),
            rounds,
            levels: (0..lanes[0].levels.len())
                .map(|level| lanes.iter().flat_map(|lane| &lane.levels[level]).copied().collect())
                .collect(),
        }
    }
}

impl From<&GateCost> for Cost {
    fn from(gate: &GateCost) -> Self {
        let sends = |receiver: Role| {
            gate.openings.iter().filter(|o| o.to.includes(receiver)).map(Opening::bytes).sum::<usize>()
        };
        let [dealt, dealt_client] = gate.dealt();
        Self {
            rounds: gate.rounds as u64,
            server_sends: sends(Role::Client),
            client_sends: sends(Role::Server),
            dealt,
            dealt_client,
            server_stores: dealt,
            client_stores: dealt_client,
        }
    }
}
