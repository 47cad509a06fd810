//! What instructions cost; declared next to the code of every gate, checked against what is measured.

use serde::Serialize;

use super::Role;

/// Declared cost of one instruction: payload bytes, without frame headers.
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
        self.server_stores += other.server_stores;
        self.client_stores += other.client_stores;
    }
}

impl Cost {
    /// Whether nothing is sent or stored.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
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

/// Cost of a gate whose openings go both ways alike and whose material goes to the server alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GateCost {
    pub(super) rounds: u64,
    pub(super) opened: usize,
    pub(super) dealt: usize,
}

impl From<GateCost> for Cost {
    fn from(gate: GateCost) -> Self {
        Self {
            rounds: gate.rounds,
            server_sends: gate.opened,
            client_sends: gate.opened,
            dealt: gate.dealt,
            server_stores: gate.dealt,
            client_stores: 0,
        }
    }
}
