//! The two ends of one gate's correlation: what the dealer shares ([`Dealing`]) and what a party draws, receives and
//! opens ([`Party`]). Both consume the pseudorandom streams in the same order.
//!
//! "Dealing" w gives the second party a pseudorandom share and the first the difference, so only the first is sent
//! something. "Masking" draws λ = λ_first + λ_second (or ⊕ for bits), each half from its owner's seed.

use std::cell::{Cell, OnceCell};
use std::ops::Range;

use privet_fss::{Comparison, Dcf, Hash, Side, Table};
use privet_ring::planes::{clear_tail, words};
use privet_ring::prg::{Prg, Seed, Stream};
use privet_ring::{Ring, pack, planes};

use super::cost::Chunk;
use super::lanes::{Link, turn};
use crate::ProtocolError;

/// Elements that are dealt, or read and computed with, at a time: few enough for what is dealt for them to stay in the
/// cache. Pieces end at a byte whatever the width, and at a block of their stream.
pub(super) const PIECE: usize = 1024;

/// Keys of at most so many comparisons are one set, and a chunk of their own: what is dealt, sent, stored and read at a time.
/// With it, change the versions of the protocol and of bundle files.
pub(super) const KEYS: usize = 1 << 14;

/// The two parties that open wires to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// Adds public terms, and is sent what was dealt.
    First,
    /// Draws its shares of what was dealt from its seed.
    Second,
}

/// One lane of one instruction: what has its own streams and its own part of the material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) instruction: usize,
    /// Counted from 0, which is also the only one of an instruction that is not cut.
    pub(super) lane: usize,
}

impl Lane {
    /// The only lane of an instruction.
    pub(super) fn only(instruction: usize) -> Self {
        Self { instruction, lane: 0 }
    }

    /// The number of a stream; instructions and lanes are far fewer than 2^47 and 2^16, or masks would repeat.
    fn stream(self, prg: &Prg, purpose: Use) -> Stream<'_> {
        assert!(self.instruction < 1 << 47 && self.lane < 1 << 16, "{self:?} has a stream of its own");
        let lane = (self.lane as u64) << 48;
        prg.stream(lane | ((self.instruction as u64) << 1) | purpose as u64)
    }
}

/// The streams of a lane under one party's seed.
#[derive(Clone, Copy)]
enum Use {
    Mask,
    Dealt,
}

/// The dealer's side of one lane.
pub(super) struct Dealing<'a> {
    ring: Ring,
    first_masks: Stream<'a>,
    second_masks: Stream<'a>,
    first_dealt: Stream<'a>,
    second_dealt: Stream<'a>,
    /// Whose half is made.
    wanted: Half,
    /// What that party is sent next.
    chunk: Vec<u8>,
    sink: &'a dyn Fn(Vec<u8>) -> Result<(), ProtocolError>,
}

impl<'a> Dealing<'a> {
    /// Makes what `wanted` is sent, and gives it to `sink` chunk by chunk.
    pub(super) fn new(
        ring: Ring,
        [first, second]: [&'a Prg; 2],
        wanted: Half,
        lane: Lane,
        sink: &'a dyn Fn(Vec<u8>) -> Result<(), ProtocolError>,
    ) -> Self {
        Self {
            ring,
            first_masks: lane.stream(first, Use::Mask),
            second_masks: lane.stream(second, Use::Mask),
            first_dealt: lane.stream(first, Use::Dealt),
            second_dealt: lane.stream(second, Use::Dealt),
            wanted,
            chunk: Vec::new(),
            sink,
        }
    }

    /// Ends a chunk: hands it on, unless it is empty.
    pub(super) fn hand_on(&mut self) -> Result<(), ProtocolError> {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() { Ok(()) } else { (self.sink)(chunk) }
    }

    pub(super) fn ring(&self) -> Ring {
        self.ring
    }

    /// Masks of a wire that both parties open.
    pub(super) fn mask_ring(&mut self, elements: usize) -> Vec<u64> {
        let mask = self.ring.mask();
        let mut lambda = self.first_masks.words(elements, mask);
        let second = self.second_masks.words(elements, mask);
        lambda.iter_mut().zip(second).for_each(|(a, b)| *a = a.wrapping_add(b) & mask);
        lambda
    }

    /// Masks of an input of the second party: the first one's half is zero.
    pub(super) fn mask_input(&mut self, elements: usize) -> Vec<u64> {
        self.second_masks.words(elements, self.ring.mask())
    }

    /// Masks of one bit plane.
    pub(super) fn mask_plane(&mut self, elements: usize) -> Vec<u64> {
        let mut lambda = self.first_masks.words(words(elements), u64::MAX);
        let second = self.second_masks.words(words(elements), u64::MAX);
        lambda.iter_mut().zip(second).for_each(|(a, b)| *a ^= b);
        clear_tail(&mut lambda, elements);
        lambda
    }

    /// Shares `values` modulo 2^`bits`.
    pub(super) fn deal_ring(&mut self, values: &[u64], bits: u32) {
        self.deal_each(values.len(), bits, |i| values[i]);
    }

    /// Shares `value(0)`, `value(1)`, .. modulo 2^`bits`.
    pub(super) fn deal_each(&mut self, elements: usize, bits: u32, value: impl Fn(usize) -> u64) {
        let mut second = self.second_dealt.take(elements);
        if self.wanted == Half::Second {
            return;
        }
        self.chunk.reserve(privet_ring::packed_len(bits, elements));
        let mut piece = [0; PIECE];
        for start in (0..elements).step_by(PIECE) {
            let share = &mut piece[..PIECE.min(elements - start)];
            second.fill(share, u64::MAX);
            share.iter_mut().zip(start..).for_each(|(s, i)| *s = value(i).wrapping_sub(*s));
            pack::pack(share, bits, &mut self.chunk);
        }
    }

    /// Shares bit planes of `elements` bits each. Returns the second party's share.
    pub(super) fn deal_planes(&mut self, values: &[u64], elements: usize) -> Vec<u64> {
        let second = self.second_dealt.words(values.len(), u64::MAX);
        if self.wanted == Half::First {
            let mut share: Vec<u64> = second.iter().zip(values).map(|(c, v)| c ^ v).collect();
            clear_tail(&mut share, elements);
            planes::pack(&share, elements, &mut self.chunk);
        }
        second
    }

    /// Gives both parties keys to compare public values with `alpha`, element by element, in sets of [`KEYS`].
    pub(super) fn deal_comparison(
        &mut self,
        comparison: Comparison,
        alpha: &[u64],
    ) -> Result<(), ProtocolError> {
        self.hand_on()?;
        for alpha in alpha.chunks(KEYS) {
            let (hash, [first, second]) = self.draw_trees(alpha.len());
            comparison.make(&hash, alpha, [&first, &second], &mut self.chunk);
            self.hand_on()?;
        }
        Ok(())
    }

    /// Gives both parties keys for products of comparisons with `betas`, in sets of [`KEYS`].
    pub(super) fn deal_products<const VALUES: usize>(
        &mut self,
        dcf: Dcf<VALUES>,
        alpha: &[u64],
        betas: [&[u64]; VALUES],
    ) -> Result<(), ProtocolError> {
        self.hand_on()?;
        for (set, alpha) in alpha.chunks(KEYS).enumerate() {
            let (hash, [first, second]) = self.draw_trees(alpha.len());
            let betas = betas.map(|beta| &beta[set * KEYS..][..alpha.len()]);
            dcf.make(&hash, alpha, betas, [&first, &second], &mut self.chunk);
            self.hand_on()?;
        }
        Ok(())
    }

    /// Gives both parties keys to look up entries of a table at public values minus `alpha`, in sets of [`KEYS`]. Returns the signs.
    pub(super) fn deal_table(&mut self, table: Table, alpha: &[u64]) -> Result<Vec<i64>, ProtocolError> {
        self.hand_on()?;
        let mut signs = Vec::with_capacity(alpha.len());
        for alpha in alpha.chunks(KEYS) {
            let (hash, [first, second]) = self.draw_trees(alpha.len());
            signs.extend(table.make(&hash, alpha, [&first, &second], &mut self.chunk));
            self.hand_on()?;
        }
        Ok(signs)
    }

    /// A hash, and both parties' roots of so many trees.
    fn draw_trees(&mut self, keys: usize) -> (Hash, [Vec<u128>; 2]) {
        // Public between the two, and fresh: the first one draws it, the second one is told.
        let key = hash_key(&mut self.first_dealt);
        if self.wanted == Half::Second {
            self.chunk.extend(key.expose());
        }
        let first = privet_fss::root(Side::First, keys, &mut self.first_dealt);
        let second = privet_fss::root(Side::Second, keys, &mut self.second_dealt);
        (Hash::new(&key), [first, second])
    }
}

/// Bytes of the key of a hash that the second party is sent.
const HASH_KEY: usize = 16;

/// The chunks of the keys of so many elements, of which n take `key_bytes(n)`.
pub(super) fn key_chunks(elements: usize, key_bytes: impl Fn(usize) -> usize) -> impl Iterator<Item = Chunk> {
    (0..elements).step_by(KEYS).map(move |at| {
        let keys = key_bytes(KEYS.min(elements - at));
        [keys, keys + HASH_KEY]
    })
}

fn hash_key(stream: &mut Stream) -> Seed {
    let words = stream.words(2, u64::MAX);
    let key = u128::from(words[1]) << 64 | u128::from(words[0]);
    Seed::from_bytes(key.to_le_bytes())
}

/// A party's share of one dealt ring vector, to be read in pieces of [`PIECE`] elements.
pub(super) enum Share<'a> {
    Packed { bytes: &'a [u8], bits: u32 },
    Drawn { stream: Stream<'a>, mask: u64 },
}

impl Share<'_> {
    /// Overwrites `out` with the next elements.
    pub(super) fn read(&mut self, out: &mut [u64]) -> Result<(), ProtocolError> {
        match self {
            Share::Packed { bytes, bits } => {
                let (own, rest) = bytes.split_at(privet_ring::packed_len(*bits, out.len()).min(bytes.len()));
                *bytes = rest;
                Ok(pack::unpack_into(own, *bits, out)?)
            }
            Share::Drawn { stream, mask } => {
                stream.fill(out, *mask);
                Ok(())
            }
        }
    }
}

/// Words of a plane that are read and computed with at a time.
pub(super) const PLANE_PIECE: usize = 512;

/// A party's shares of dealt bit planes, to be read in pieces of [`PLANE_PIECE`] words.
pub(super) enum PlaneShares<'a> {
    /// What is left of every plane.
    Packed(Vec<&'a [u8]>),
    Drawn(Vec<Stream<'a>>),
}

impl PlaneShares<'_> {
    /// Overwrites the first `len` words of every plane in `out`, which lie `stride` words apart, with the next of that plane.
    /// Bits of absent elements are anything.
    pub(super) fn read(&mut self, len: usize, out: &mut [u64], stride: usize) {
        let out = out.chunks_exact_mut(stride);
        match self {
            PlaneShares::Packed(planes) => {
                for (bytes, plane) in planes.iter_mut().zip(out) {
                    let (own, rest) = bytes.split_at((8 * len).min(bytes.len()));
                    *bytes = rest;
                    planes::unpack_words(own, &mut plane[..len]);
                }
            }
            PlaneShares::Drawn(streams) => {
                streams
                    .iter_mut()
                    .zip(out)
                    .for_each(|(stream, plane)| stream.fill(&mut plane[..len], u64::MAX));
            }
        }
    }
}

/// Where a party's chunks for one lane come from, one after the other.
pub(super) struct Chunks<'a> {
    /// Lengths of all of them, and those that were read and are kept.
    kept: Vec<(usize, OnceCell<Vec<u8>>)>,
    next: Cell<usize>,
    source: &'a dyn Fn(usize) -> Result<Vec<u8>, ProtocolError>,
}

impl<'a> Chunks<'a> {
    /// Of these lengths, from `source`; empty ones are left out.
    pub(super) fn new(
        lens: impl Iterator<Item = usize>,
        source: &'a dyn Fn(usize) -> Result<Vec<u8>, ProtocolError>,
    ) -> Self {
        let kept = lens.filter(|&len| len > 0).map(|len| (len, OnceCell::new())).collect();
        Self { kept, next: Cell::new(0), source }
    }

    /// The next chunk, for its reader to drop; one that is not there is empty.
    fn read(&self) -> Result<Vec<u8>, ProtocolError> {
        let Some((len, _)) = self.kept.get(self.next.get()) else { return Ok(Vec::new()) };
        self.next.set(self.next.get() + 1);
        (self.source)(*len)
    }

    /// The next chunk, to be kept.
    fn keep(&self) -> Result<&[u8], ProtocolError> {
        let Some((_, cell)) = self.kept.get(self.next.get()) else { return Ok(&[]) };
        let chunk = self.read()?;
        Ok(cell.get_or_init(|| chunk))
    }

    fn left(&self) -> usize {
        self.kept[self.next.get()..].iter().map(|(len, _)| len).sum()
    }
}

/// A set of keys as a party has it.
struct Trees {
    hash: Hash,
    side: Side,
    roots: Vec<u128>,
    /// What the dealer sent, and where the keys begin in it.
    chunk: Vec<u8>,
    at: usize,
}

/// A party's side of one lane, online.
pub(super) struct Party<'a> {
    ring: Ring,
    half: Half,
    masks: Stream<'a>,
    /// The second party's shares of dealt values, and the roots of both parties' keys.
    drawn: Stream<'a>,
    /// What the dealer sent this party: the chunk at hand, how much of it has been read, and those to come.
    sent: (&'a [u8], usize),
    to_come: Option<&'a Chunks<'a>>,
    link: &'a dyn Link,
    lane: Lane,
    /// Whether openings are to the first party alone, and then whether they count as rounds.
    told: Option<bool>,
    #[cfg(feature = "audit")]
    audited: Audited<'a>,
}

/// What names the next message in the test's ledger.
#[cfg(feature = "audit")]
struct Audited<'a> {
    prg: &'a Prg,
    sent: usize,
}

impl<'a> Party<'a> {
    /// `chunk` is what the dealer sent this party for this lane, or its first part.
    pub(super) fn new(
        ring: Ring,
        half: Half,
        prg: &'a Prg,
        lane: Lane,
        chunk: &'a [u8],
        to_come: Option<&'a Chunks<'a>>,
        link: &'a dyn Link,
    ) -> Self {
        Self {
            ring,
            half,
            masks: lane.stream(prg, Use::Mask),
            drawn: lane.stream(prg, Use::Dealt),
            sent: (chunk, 0),
            to_come,
            link,
            lane,
            told: None,
            #[cfg(feature = "audit")]
            audited: Audited { prg, sent: 0 },
        }
    }

    pub(super) fn ring(&self) -> Ring {
        self.ring
    }

    /// Whether this party adds public terms.
    pub(super) fn is_first(&self) -> bool {
        self.half == Half::First
    }

    /// Own half of the masks of a wire.
    pub(super) fn mask_ring(&mut self, elements: usize) -> Vec<u64> {
        self.masks.words(elements, self.ring.mask())
    }

    /// Own half of the masks of one bit plane.
    pub(super) fn mask_plane(&mut self, elements: usize) -> Vec<u64> {
        let mut mask = self.masks.words(words(elements), u64::MAX);
        clear_tail(&mut mask, elements);
        mask
    }

    /// Own shares, modulo 2^`bits`, of `elements` dealt values, to be read later.
    pub(super) fn dealt_share(&mut self, elements: usize, bits: u32) -> Result<Share<'a>, ProtocolError> {
        let len = privet_ring::packed_len(bits, elements);
        Ok(match self.half {
            Half::First => Share::Packed { bytes: self.take(len)?, bits },
            Half::Second => Share::Drawn { stream: self.drawn.take(elements), mask: u64::MAX >> (64 - bits) },
        })
    }

    /// Own shares, modulo 2^`bits`, of `elements` dealt values.
    pub(super) fn dealt_ring(&mut self, elements: usize, bits: u32) -> Result<Vec<u64>, ProtocolError> {
        let mut values = vec![0; elements];
        self.dealt_share(elements, bits)?.read(&mut values)?;
        Ok(values)
    }

    /// Own shares of `count` dealt bit planes.
    pub(super) fn dealt_planes(&mut self, count: usize, elements: usize) -> Result<Vec<u64>, ProtocolError> {
        let len = count * planes::plane_bytes(elements);
        match self.half {
            Half::First => Ok(planes::unpack(self.take(len)?, elements, count)?),
            Half::Second => {
                // The dealer draws plane by plane, and every draw starts at a fresh block.
                let mut all = Vec::with_capacity(count * words(elements));
                (0..count).for_each(|_| all.extend(self.drawn.words(words(elements), u64::MAX)));
                clear_tail(&mut all, elements);
                Ok(all)
            }
        }
    }

    /// Own shares of `count` dealt bit planes, to be read later.
    pub(super) fn plane_shares(
        &mut self,
        count: usize,
        elements: usize,
    ) -> Result<PlaneShares<'a>, ProtocolError> {
        let len = planes::plane_bytes(elements);
        match self.half {
            Half::First => {
                Ok(PlaneShares::Packed((0..count).map(|_| self.take(len)).collect::<Result<_, _>>()?))
            }
            Half::Second => {
                Ok(PlaneShares::Drawn((0..count).map(|_| self.drawn.take(words(elements))).collect()))
            }
        }
    }

    /// Own shares of `[x < α]` for the α that keys were dealt for, as a bit plane.
    pub(super) fn compare(&mut self, comparison: Comparison, x: &[u64]) -> Result<Vec<u64>, ProtocolError> {
        let mut shares = Vec::with_capacity(words(x.len()));
        for x in x.chunks(KEYS) {
            let Trees { hash, roots, chunk, at, .. } = self.trees(x.len(), comparison.key_bytes(x.len()))?;
            shares.extend(comparison.evaluate(&hash, x, &roots, &chunk[at..]));
        }
        Ok(shares)
    }

    /// Which of the two it is to keys.
    pub(super) fn side(&self) -> Side {
        if self.is_first() { Side::First } else { Side::Second }
    }

    /// Own shares of `β·[x < α]` for the α and β that keys were dealt for.
    pub(super) fn products<const VALUES: usize>(
        &mut self,
        dcf: Dcf<VALUES>,
        x: &[u64],
    ) -> Result<[Vec<u64>; VALUES], ProtocolError> {
        let mut shares = [(); VALUES].map(|()| Vec::with_capacity(x.len()));
        for x in x.chunks(KEYS) {
            let Trees { hash, side, roots, chunk, at } = self.trees(x.len(), dcf.key_bytes(x.len()))?;
            let own = dcf.evaluate(&hash, side, x, &roots, &chunk[at..]);
            shares.iter_mut().zip(own).for_each(|(shares, own)| shares.extend(own));
        }
        Ok(shares)
    }

    /// Own shares of the entries at c − α for the α that keys were dealt for, up to the signs that the dealer was given.
    pub(super) fn look_up(
        &mut self,
        table: Table,
        c: &[u64],
        entries: &[i64],
    ) -> Result<Vec<u64>, ProtocolError> {
        let mut shares = Vec::with_capacity(c.len());
        for c in c.chunks(KEYS) {
            let Trees { hash, side, roots, chunk, at } = self.trees(c.len(), table.key_bytes(c.len()))?;
            shares.extend(table.evaluate(&hash, side, c, &roots, &chunk[at..], entries));
        }
        Ok(shares)
    }

    /// The next set of keys, `len` bytes for `keys` trees.
    fn trees(&mut self, keys: usize, len: usize) -> Result<Trees, ProtocolError> {
        self.all_read()?;
        let chunk = self.to_come.map_or(Ok(Vec::new()), Chunks::read)?;
        let (key, side, at) = match (self.half, chunk.first_chunk::<HASH_KEY>()) {
            (Half::First, _) => (hash_key(&mut self.drawn), Side::First, 0),
            (Half::Second, Some(key)) => (Seed::from_bytes(*key), Side::Second, HASH_KEY),
            (Half::Second, None) => return Err(wrong(HASH_KEY + len, chunk.len())),
        };
        if chunk.len() - at != len {
            return Err(wrong(at + len, chunk.len()));
        }
        let roots = privet_fss::root(side, keys, &mut self.drawn);
        Ok(Trees { hash: Hash::new(&key), side, roots, chunk, at })
    }

    /// The first party reads the next chunk, which is not one of keys: in its turn, also where it is used after the next round.
    pub(super) fn read_ahead(&mut self) -> Result<(), ProtocolError> {
        self.all_read()?;
        if let (Half::First, Some(chunks)) = (self.half, self.to_come) {
            self.sent = (chunks.keep()?, 0);
        }
        Ok(())
    }

    /// Opens masked bit planes: sends `own`, receives the peer's, returns the sum. One round.
    pub(super) async fn open_planes(
        &mut self,
        mut own: Vec<u64>,
        elements: usize,
    ) -> Result<Vec<u64>, ProtocolError> {
        clear_tail(&mut own, elements);
        let count = own.len() / words(elements);
        let mut payload = Vec::with_capacity(count * planes::plane_bytes(elements));
        planes::pack(&own, elements, &mut payload);
        let len = payload.len();
        self.send(payload, Some(len))?;
        turn().await;
        let theirs = planes::unpack(&self.link.answer()?, elements, count)?;
        self.count_round();
        own.iter_mut().zip(theirs).for_each(|(a, b)| *a ^= b);
        Ok(own)
    }

    /// Opens masked ring elements: sends `own`, a frame for each of `pieces`, receives the peer's, returns the sum. One round.
    pub(super) async fn open_ring(
        &mut self,
        mut own: Vec<u64>,
        pieces: &[Range<usize>],
    ) -> Result<Vec<u64>, ProtocolError> {
        if let Some(is_round) = self.told {
            let opened = self.tell(&own, pieces)?;
            if is_round {
                self.count_round();
            }
            return Ok(opened);
        }
        let bits = self.ring.bits();
        for piece in pieces {
            let mut payload = Vec::with_capacity(self.ring.packed_len(piece.len()));
            pack::pack(&own[piece.clone()], bits, &mut payload);
            let len = payload.len();
            self.send(payload, Some(len))?;
        }
        turn().await;
        let mask = self.ring.mask();
        for range in pieces {
            let payload = self.link.answer()?;
            let mut theirs = Share::Packed { bytes: &payload, bits };
            let mut piece = [0; PIECE];
            for own in own[range.clone()].chunks_mut(PIECE) {
                let theirs_here = &mut piece[..own.len()];
                theirs.read(theirs_here)?;
                own.iter_mut().zip(theirs_here).for_each(|(a, b)| *a = a.wrapping_add(*b) & mask);
            }
        }
        self.count_round();
        Ok(own)
    }

    /// Masks own shares with fresh masks and opens them, in frames for `pieces`. Returns the masked values and the own half of
    /// the masks.
    pub(super) async fn mask_and_open(
        &mut self,
        share: &[u64],
        pieces: &[Range<usize>],
    ) -> Result<(Vec<u64>, Vec<u64>), ProtocolError> {
        let lambda = self.mask_ring(share.len());
        let own = share.iter().zip(&lambda).map(|(s, l)| s.wrapping_add(*l)).collect();
        Ok((self.open_ring(own, pieces).await?, lambda))
    }

    /// From now on [`Self::open_ring`] opens to the first party alone: the second one sends, learns zeros, and does not wait.
    pub(super) fn tell_the_first(&mut self, is_round: bool) {
        self.told = Some(is_round);
    }

    /// As [`Self::open_ring`], to the first party alone.
    fn tell(&mut self, own: &[u64], pieces: &[Range<usize>]) -> Result<Vec<u64>, ProtocolError> {
        let (bits, mask) = (self.ring.bits(), self.ring.mask());
        let mut opened = vec![0; own.len()];
        for piece in pieces {
            let (own, opened) = (&own[piece.clone()], &mut opened[piece.clone()]);
            if self.is_first() {
                let payload = self.link.receive(self.ring.packed_len(own.len()))?;
                pack::unpack_into(&payload, bits, opened)?;
                opened.iter_mut().zip(own).for_each(|(a, b)| *a = a.wrapping_add(*b) & mask);
            } else {
                let mut payload = Vec::with_capacity(self.ring.packed_len(own.len()));
                pack::pack(own, bits, &mut payload);
                self.send(payload, None)?;
            }
        }
        Ok(opened)
    }

    /// Sends ring elements one way; the other side calls [`Party::receive_ring`].
    pub(super) fn send_ring(&mut self, values: &[u64]) -> Result<(), ProtocolError> {
        let mut payload = Vec::new();
        pack::pack(values, self.ring.bits(), &mut payload);
        self.send(payload, None)
    }

    /// Receives ring elements.
    pub(super) fn receive_ring(&mut self, elements: usize) -> Result<Vec<u64>, ProtocolError> {
        let payload = self.link.receive(self.ring.packed_len(elements))?;
        Ok(pack::unpack(&payload, self.ring.bits(), elements)?)
    }

    /// Every message of the online phase leaves here.
    fn send(&mut self, payload: Vec<u8>, answer: Option<usize>) -> Result<(), ProtocolError> {
        #[cfg(feature = "audit")]
        {
            let Lane { instruction, lane } = self.lane;
            super::audit::note(self.audited.prg, instruction, lane, self.audited.sent);
            self.audited.sent += 1;
        }
        self.link.send(payload, answer)
    }

    /// All lanes of an instruction go through the same rounds, side by side.
    fn count_round(&self) {
        if self.lane.lane == 0 {
            self.link.count_round();
        }
    }

    /// Every dealt byte has to be used: a remainder means that dealer and party disagree about the plan.
    pub(super) fn finish(self) -> Result<(), ProtocolError> {
        self.all_read()?;
        match self.to_come.map_or(0, Chunks::left) {
            0 => Ok(()),
            left => Err(wrong(0, left)),
        }
    }

    /// Errors unless the chunk at hand is used up.
    fn all_read(&self) -> Result<(), ProtocolError> {
        let (bytes, at) = self.sent;
        if at == bytes.len() { Ok(()) } else { Err(wrong(at, bytes.len())) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        if self.sent.1 == self.sent.0.len() && len > 0 {
            self.read_ahead()?;
        }
        let (bytes, at) = self.sent;
        let piece = bytes.get(at..at + len).ok_or_else(|| wrong(at + len, bytes.len()))?;
        self.sent.1 += len;
        Ok(piece)
    }
}

/// Material of another length than was used.
fn wrong(expected: usize, found: usize) -> ProtocolError {
    ProtocolError::Size { what: "one-time material".to_owned(), expected, found }
}

/// Own half of the masks of a wire that is opened or an input of its own.
pub(crate) fn own_masks(prg: &Prg, instruction: usize, elements: usize, ring: Ring) -> Vec<u64> {
    Lane::only(instruction).stream(prg, Use::Mask).words(elements, ring.mask())
}

/// The second party's shares of one dealt ring vector that opens its instruction's stream.
pub(super) fn second_dealt(prg: &Prg, instruction: usize, elements: usize, ring: Ring) -> Vec<u64> {
    Lane::only(instruction).stream(prg, Use::Dealt).words(elements, ring.mask())
}

/// The masks λ_W of one private tensor.
pub(super) fn weight_masks(seed: &Seed, param: usize, elements: usize, ring: Ring) -> Vec<u64> {
    Prg::new(seed).stream(param as u64).words(elements, ring.mask())
}
