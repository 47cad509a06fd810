//! One party's one-time material, consumed by the inference that uses it.

use privet_ring::prg::Seed;

use super::Source;

/// One party's half of the one-time material for one inference: the seed of its masks and shares, and what it has stored.
///
/// [`online`](super::online) takes it by value and it cannot be copied, so that a second inference with it does not
/// compile:
///
/// ```compile_fail,E0382
/// # use privet_protocols::{ProtocolError, Silent, masked::{Bundle, Online, Schedule, Source, online}};
/// # fn twice(plan: &privet_plan::Plan, schedule: &Schedule, inputs: &[Vec<i64>], bundle: Bundle<impl Source>,
/// #     channel: &mut dyn privet_net::Channel) -> Result<(), ProtocolError> {
/// online(plan, schedule, Online::Client(inputs), bundle, channel, &mut Silent)?;
/// online(plan, schedule, Online::Client(inputs), bundle, channel, &mut Silent)?;
/// # Ok(())
/// # }
/// ```
///
/// Whoever makes one out of stored bytes has to see to it that those bytes make no other: `privet::store` marks them as
/// used on disk first.
pub struct Bundle<S> {
    pub(super) seed: Seed,
    pub(super) source: S,
}

impl<S: Source> Bundle<S> {
    /// The half whose seed the dealer gave, with what [`prepare`](super::prepare) stored.
    pub fn new(seed: Seed, source: S) -> Self {
        Self { seed, source }
    }
}
