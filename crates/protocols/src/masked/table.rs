//! Public tables of 2^k entries, k <= 16, looked up at a secret index.
//!
//! The dealer shares the one-hot vector of r = λ_x mod 2^k as bits, e_server ⊕ e_client. With c = m_x mod 2^k the parties hold
//! `u_i = ±Σ_j e_i[j]·T[(c − j) mod 2^k]`, shares of σ·T[x] with σ = 1 − 2·e_client[r]: a one-time-pad sign that nobody
//! but the dealer knows. They open m_u = u + λ_u and take `y = m_u·[σ] − [σ·λ_u]`. For k <= 8 the vectors themselves are dealt,
//! for larger ones keys that they are made from ([`privet_fss::Table`]).
//!
//! Adversary: semi-honest server or client, with a dealer that joins neither. Correlations: 2^k bits, or a key of k − 6 blocks
//! for each party, and two ring elements per element. Opened: u under a fresh mask. One round. Leaks: nothing; every entry is
//! read whatever the index. Source: PROTOCOLS.md of the design, section 2 (public table), after the one-time truth tables of
//! Ishai et al. (TCC 2013).

use std::array::from_fn;
use std::hint::black_box;

use privet_plan::MAX_ENTRIES_WITHOUT_KEYS;
use privet_ring::planes::{from_values, plane_bytes, transpose64, words};
use privet_ring::{Ring, packed_len};

use super::RevealTo;
use super::cost::{GateCost, Opening};
use super::gate::{Dealing, Party, second_overhead};
use crate::ProtocolError;

/// A table of 2, 4, .. or 2^16 entries.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) entries: &'a [i64],
}

impl Table<'_> {
    /// What is opened, and bytes dealt.
    pub(super) fn cost(self, ring: Ring, elements: usize) -> GateCost {
        let ring_len = packed_len(ring.bits(), elements);
        let [first, second] = match self.keys() {
            None => [self.entries.len() * plane_bytes(elements), 0],
            Some(keys) => [keys.key_bytes(elements), keys.key_bytes(elements) + second_overhead()],
        };
        let openings = vec![Opening::masked(ring, elements, RevealTo::Both)];
        GateCost::new(openings, [first + 2 * ring_len, second])
    }

    /// What the one-hot vectors are made from, where they are not dealt.
    fn keys(self) -> Option<privet_fss::Table> {
        let bits = self.entries.len().trailing_zeros();
        (self.entries.len() > MAX_ENTRIES_WITHOUT_KEYS).then(|| privet_fss::Table::new(bits))
    }

    fn index_mask(self) -> u64 {
        self.entries.len() as u64 - 1
    }

    /// Dealer: shares the correlation for masks `r`.
    pub(super) fn deal(self, r: &[u64], dealing: &mut Dealing) {
        let (n, ring) = (r.len(), dealing.ring());
        let signs = match self.keys() {
            None => self.deal_vectors(r, dealing),
            Some(keys) => dealing.deal_table(keys, r),
        };
        let sigma: Vec<u64> = signs.into_iter().map(|sign| ring.reduce(sign as u64)).collect();
        let lambda = dealing.mask_ring(n);
        dealing.deal_ring(&sigma, ring.bits());
        let products: Vec<u64> = sigma.iter().zip(&lambda).map(|(s, l)| s.wrapping_mul(*l)).collect();
        dealing.deal_ring(&products, ring.bits());
    }

    /// Dealer: shares the one-hot vectors of `r`. Returns σ for each, 1 or −1.
    fn deal_vectors(self, r: &[u64], dealing: &mut Dealing) -> Vec<i64> {
        let n = r.len();
        let hot = one_hot(&from_values(r, self.entries.len().trailing_zeros() as usize), words(n));
        // The client's bit at the hot position, which sits in one plane of all.
        let mut negative = vec![0u64; words(n)];
        for hot in hot.chunks_exact(words(n)) {
            let client = dealing.deal_planes(hot, n);
            negative.iter_mut().zip(hot).zip(&client).for_each(|((s, h), c)| *s |= h & c);
        }
        (0..n).map(|i| 1 - 2 * (negative[i / 64] >> (i % 64) & 1) as i64).collect()
    }

    /// Party: own shares of the entries, from the masked indices.
    pub(super) async fn evaluate(self, m: &[u64], party: &mut Party<'_>) -> Result<Vec<u64>, ProtocolError> {
        let (n, ring) = (m.len(), party.ring());
        let share = match self.keys() {
            None => self.sums(m, party)?,
            Some(keys) => party.look_up(keys, m, self.entries)?,
        };
        let lambda = party.mask_ring(n);
        let own = share.iter().zip(&lambda).map(|(s, l)| ring.reduce(s.wrapping_add(*l))).collect();
        let opened = party.open_ring(own, std::slice::from_ref(&(0..n))).await?;
        let sigma = party.dealt_ring(n, ring.bits())?;
        let products = party.dealt_ring(n, ring.bits())?;
        let result = |i: usize| ring.reduce(opened[i].wrapping_mul(sigma[i]).wrapping_sub(products[i]));
        Ok((0..n).map(result).collect())
    }

    /// Party: own shares of σ·T[x] by the dealt one-hot vectors.
    fn sums(self, m: &[u64], party: &mut Party<'_>) -> Result<Vec<u64>, ProtocolError> {
        let n = m.len();
        let size = self.entries.len();
        let hot = party.dealt_planes(size, n)?;
        // T[(c − j) mod 2^k] for j = 0, 1, .. is a run of the reversed table, written twice.
        let reversed: Vec<u64> =
            self.entries.iter().rev().chain(self.entries.iter().rev()).map(|&e| e as u64).collect();
        let sign = if party.is_first() { 1 } else { u64::MAX };
        let mut share = Vec::with_capacity(n);
        for (word, m) in m.chunks(64).enumerate() {
            let mut sums = [0u64; 64];
            for start in (0..size).step_by(64) {
                let mut block = [0u64; 64];
                for (j, row) in block.iter_mut().enumerate().take(size - start) {
                    *row = hot[(start + j) * words(n) + word];
                }
                transpose64(&mut block);
                for (sum, (&m, &bits)) in sums.iter_mut().zip(m.iter().zip(&block)) {
                    let c = (m & self.index_mask()) as usize;
                    let run = &reversed[size - 1 - c + start..][..64.min(size - start)];
                    // The compiler may not see that a mask is all zeros or all ones: it would branch on it.
                    let mut masks: [u64; 64] = from_fn(|j| 0u64.wrapping_sub(bits >> j & 1));
                    black_box(&mut masks);
                    let entries = run.iter().zip(&masks).map(|(entry, mask)| entry & mask);
                    *sum = entries.fold(*sum, u64::wrapping_add);
                }
            }
            share.extend(sums[..m.len()].iter().map(|s| s.wrapping_mul(sign)));
        }
        Ok(share)
    }
}

/// Planes of the one-hot vectors of values given by their bit planes, by doubling: no index depends on a value.
fn one_hot(bits: &[u64], stride: usize) -> Vec<u64> {
    let mut hot = vec![u64::MAX; stride];
    for bit in bits.chunks_exact(stride) {
        let half = hot.chunks_exact(stride);
        let zero = half.clone().flat_map(|h| h.iter().zip(bit).map(|(h, b)| h & !b));
        hot = zero.chain(half.flat_map(|h| h.iter().zip(bit).map(|(h, b)| h & b))).collect();
    }
    hot
}
