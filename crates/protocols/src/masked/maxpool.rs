//! Max pooling: max(a, b) = b + ReLU(a − b), as a tree of log depth, one spatial axis after the other.
//!
//! a and b are masked wires, so a − b is one too and costs nothing; every maximum but those of the last level is masked
//! and opened again. Which elements meet depends on the window only. Padding is left out of the windows, so it never wins.

use privet_plan::Window;
use privet_ring::Ring;

use super::RevealTo;
use super::cost::{GateCost, Opening};
use super::gate::{Dealing, Party};
use super::lanes::turn;
use super::product::Compare;
use super::sign::Masked;
use crate::ProtocolError;

/// The tournament, for one channel; all channels play the same one.
pub(super) struct Tournament {
    levels: Vec<Level>,
    /// Elements of one channel of the operand.
    input: usize,
}

struct Level {
    /// Indices into the current elements whose maximum is taken.
    pairs: Vec<(u32, u32)>,
    /// The next elements.
    next: Vec<Slot>,
    /// What compares a pair, without truncation.
    relu: Compare,
}

#[derive(Clone, Copy)]
enum Slot {
    /// The element of this index goes on as it is.
    Keep(u32),
    /// The maximum of the pair of this index.
    Winner(u32),
}

impl Tournament {
    /// The tournament of a window over one channel; `relu` compares the pairs of a level with so many of them.
    pub(super) fn new(
        window: &Window,
        input: &[usize],
        output: &[usize],
        relu: impl Fn(usize) -> Compare,
    ) -> Self {
        let mut levels = Vec::new();
        let mut sizes = input.to_vec();
        for axis in (0..sizes.len()).rev() {
            let inner: usize = sizes[axis + 1..].iter().product();
            let outer: usize = sizes[..axis].iter().product();
            let mut lists: Vec<Vec<u32>> = Vec::new();
            for o in 0..outer {
                for p in 0..output[axis] {
                    for i in 0..inner {
                        let positions = (0..window.kernel[axis] as usize)
                            .filter_map(|k| window.input_position(axis, p, k, sizes[axis]));
                        lists.push(positions.map(|at| ((o * sizes[axis] + at) * inner + i) as u32).collect());
                    }
                }
            }
            sizes[axis] = output[axis];
            loop {
                let done = lists.iter().all(|l| l.len() == 1);
                levels.push(Level::join(&mut lists, &relu));
                if done || lists.iter().all(|l| l.len() == 1) {
                    break;
                }
            }
        }
        Self { levels, input: input.iter().product() }
    }

    fn last(&self) -> Option<usize> {
        self.levels.iter().rposition(|l| !l.pairs.is_empty())
    }

    /// What is opened, and bytes dealt.
    pub(super) fn cost(&self, ring: Ring, channels: usize) -> GateCost {
        let (mut openings, mut levels) = (Vec::new(), Vec::new());
        for (k, level) in self.levels.iter().enumerate().filter(|(_, l)| !l.pairs.is_empty()) {
            let n = level.pairs.len() * channels;
            let gate = level.relu.cost(ring, n);
            openings.extend(gate.openings);
            if Some(k) != self.last() {
                openings.push(Opening::masked(ring, n, RevealTo::Both));
            }
            levels.extend(gate.levels);
        }
        GateCost { rounds: openings.len(), openings, levels }
    }

    /// Dealer: shares the correlations of all levels for masks `lambda`. Between levels other lanes take their turns, as at the
    /// parties, so that these find everything in the order in which they need it.
    pub(super) async fn deal(&self, lambda: &[u64], dealing: &mut Dealing<'_>) -> Result<(), ProtocolError> {
        let ring = dealing.ring();
        let mut current = lambda.to_vec();
        let mut size = self.input;
        for (k, level) in self.levels.iter().enumerate() {
            let mut winners = Vec::new();
            if !level.pairs.is_empty() {
                let difference: Vec<u64> = level
                    .players(&current, size)
                    .map(|(a, b)| ring.reduce(current[a].wrapping_sub(current[b])))
                    .collect();
                level.relu.deal(&difference, dealing)?;
                if Some(k) == self.last() {
                    return Ok(());
                }
                winners = dealing.mask_ring(difference.len());
                dealing.hand_on()?;
                turn().await;
            }
            current = level.advance(size, &current, &winners);
            size = level.next.len();
        }
        Ok(())
    }

    /// Party: own shares of the maxima, from masked values and the own half of their masks.
    pub(super) async fn evaluate(
        &self,
        m: &[u64],
        lambda: &[u64],
        party: &mut Party<'_>,
    ) -> Result<Vec<u64>, ProtocolError> {
        let (ring, first) = (party.ring(), party.is_first());
        let to_share = |m: u64, lambda: u64| ring.reduce(if first { m } else { 0 }.wrapping_sub(lambda));
        let (mut m, mut lambda) = (m.to_vec(), lambda.to_vec());
        let mut size = self.input;
        let last = self.last();
        for (k, level) in self.levels.iter().enumerate() {
            let (mut won, mut won_lambda) = (Vec::new(), Vec::new());
            if !level.pairs.is_empty() {
                let subtract = |v: &[u64]| -> Vec<u64> {
                    level.players(v, size).map(|(a, b)| ring.reduce(v[a].wrapping_sub(v[b]))).collect()
                };
                let (m_x, lambda_x) = (subtract(&m), subtract(&lambda));
                let mut share = level.relu.evaluate(Masked { m: &m_x, lambda: &lambda_x }, party).await?;
                for (y, (_, b)) in share.iter_mut().zip(level.players(&m, size)) {
                    *y = ring.reduce(y.wrapping_add(to_share(m[b], lambda[b])));
                }
                if Some(k) == last {
                    let kept: Vec<u64> = m.iter().zip(&lambda).map(|(&m, &l)| to_share(m, l)).collect();
                    let mut shares = level.advance(size, &kept, &share);
                    // Any level left only moves elements.
                    let mut size = level.next.len();
                    for level in &self.levels[k + 1..] {
                        shares = level.advance(size, &shares, &[]);
                        size = level.next.len();
                    }
                    return Ok(shares);
                }
                (won, won_lambda) =
                    party.mask_and_open(&share, std::slice::from_ref(&(0..share.len()))).await?;
            }
            m = level.advance(size, &m, &won);
            lambda = level.advance(size, &lambda, &won_lambda);
            size = level.next.len();
        }
        Ok(m.iter().zip(&lambda).map(|(&m, &l)| to_share(m, l)).collect())
    }
}

impl Level {
    /// Pairs up neighbours within every list; a last odd element goes on.
    fn join(lists: &mut [Vec<u32>], relu: impl Fn(usize) -> Compare) -> Self {
        let (mut pairs, mut next) = (Vec::new(), Vec::new());
        for list in lists {
            *list = list
                .chunks(2)
                .map(|pair| {
                    next.push(match *pair {
                        [a, b] => {
                            pairs.push((a, b));
                            Slot::Winner(pairs.len() as u32 - 1)
                        }
                        _ => Slot::Keep(pair[0]),
                    });
                    next.len() as u32 - 1
                })
                .collect();
        }
        let relu = relu(pairs.len());
        Self { pairs, next, relu }
    }

    /// Indices of all pairs of all channels.
    fn players<'a>(&'a self, all: &[u64], size: usize) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        (0..all.len() / size).flat_map(move |channel| {
            self.pairs.iter().map(move |&(a, b)| (channel * size + a as usize, channel * size + b as usize))
        })
    }

    /// The next elements of all channels.
    fn advance(&self, size: usize, current: &[u64], winners: &[u64]) -> Vec<u64> {
        let mut next = Vec::with_capacity(current.len() / size * self.next.len());
        for (channel, elements) in current.chunks_exact(size).enumerate() {
            let winners = &winners[channel * self.pairs.len()..];
            next.extend(self.next.iter().map(|slot| match *slot {
                Slot::Keep(i) => elements[i as usize],
                Slot::Winner(i) => winners[i as usize],
            }));
        }
        next
    }
}
