//! What a party sees of one inference, and the channel that records it.
//!
//! A view is what the party holds of secrets, what it was dealt, its own masks, and what it received. A received frame alone looks uniform even if a
//! mask is missing, for it is a share: what counts is the sum of what was sent and received, and that sum without the party's
//! own half of the mask, which it knows. Own masks are drawn here from the streams that docs/formats.md describes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use privet_net::memory::MemoryChannel;
use privet_net::{Channel, Frame, FrameKind, NetError, Peer, Traffic};
use privet_plan::Plan;
use privet_protocols::Progress;
use privet_protocols::masked::{Content, Instruction, Opening, Role, Schedule};
use privet_ring::prg::{Prg, Seed, Stream};
use privet_ring::{pack, planes};

/// The runner of mutants tells a wrong result from a leak by this text.
pub(crate) const WRONG: &str = "the result is wrong";

/// The kind of the frames by which two parties open wires to each other.
const OPENING: FrameKind = FrameKind::new(0x200);

/// One party's view of one inference.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) fields: Vec<Field>,
}

/// Values of equal width.
pub(crate) struct Field {
    /// Where they come from.
    pub(crate) name: String,
    pub(crate) width: u32,
    pub(crate) values: Vec<u64>,
    pub(crate) part: Part,
}

/// What a field is to its view.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Adds to it.
    Adds,
    /// Adds to it, and both parties' masks are on it.
    Opened,
    /// Opened, without the party's own mask. It follows from other fields, but from no single one.
    Unmasked,
    /// Follows from other fields.
    Follows,
}

impl Part {
    pub(crate) fn adds(self) -> bool {
        matches!(self, Part::Adds | Part::Opened)
    }

    pub(crate) fn is_opened(self) -> bool {
        matches!(self, Part::Opened | Part::Unmasked)
    }
}

impl View {
    /// Bits that add to it.
    pub(crate) fn bits(&self) -> usize {
        self.fields.iter().filter(|f| f.part.adds()).map(|f| f.values.len() * f.width as usize).sum()
    }

    pub(crate) fn add(&mut self, name: String, width: u32, values: Vec<u64>, part: Part) {
        self.fields.push(Field { name, width, values, part });
    }

    pub(crate) fn add_bytes(&mut self, name: String, bytes: &[u8]) {
        self.add(name, 8, bytes.iter().map(|&b| u64::from(b)).collect(), Part::Adds);
    }
}

impl Field {
    /// Packed to the width.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack::pack(&self.values, self.width, &mut bytes);
        bytes
    }
}

/// The bits of all runs' views in fields that are `wanted`, one row for each position.
pub(crate) fn rows(views: &[View], wanted: impl Fn(Part) -> bool) -> Vec<Vec<u64>> {
    let fields = |view: &'_ View| -> Vec<(u64, u32)> {
        let fields = view.fields.iter().filter(|field| wanted(field.part));
        fields.flat_map(|field| field.values.iter().map(|&value| (value, field.width))).collect()
    };
    let positions = fields(&views[0]).iter().map(|(_, width)| *width as usize).sum();
    let mut rows = vec![vec![0; views.len().div_ceil(64)]; positions];
    for (run, view) in views.iter().enumerate() {
        let bits =
            fields(view).into_iter().flat_map(|(value, width)| (0..width).map(move |bit| value >> bit & 1));
        rows.iter_mut().zip(bits).for_each(|(row, bit)| row[run / 64] |= bit << (run % 64));
    }
    rows
}

/// Which rows of [`rows`] are of opened values.
pub(crate) fn opened_rows(view: &View, wanted: impl Fn(Part) -> bool) -> Vec<usize> {
    let fields = view.fields.iter().filter(|field| wanted(field.part));
    let bits =
        fields.flat_map(|f| std::iter::repeat_n(f.part.is_opened(), f.values.len() * f.width as usize));
    bits.enumerate().filter(|(_, is_opened)| *is_opened).map(|(row, _)| row).collect()
}

/// Where the row of this index of [`rows`] comes from.
pub(crate) fn row_name(view: &View, wanted: impl Fn(Part) -> bool, mut row: usize) -> String {
    for field in view.fields.iter().filter(|field| wanted(field.part)) {
        let width = field.width as usize;
        if row < width * field.values.len() {
            return format!("bit {} of value {} of {}", row % width, row / width, field.name);
        }
        row -= width * field.values.len();
    }
    unreachable!("there are no more rows")
}

/// Counts of every half byte of a field's values over all runs; the topmost one of a value may overlap with the one below.
pub(crate) fn half_bytes(views: &[View], field: usize) -> Vec<[u64; 16]> {
    let Field { width, values, .. } = &views[0].fields[field];
    let lows: Vec<u32> = (0..width.div_ceil(4)).map(|i| (4 * i).min(width - 4)).collect();
    let mut counts = vec![[0; 16]; values.len() * lows.len()];
    for view in views {
        for (counts, value) in counts.chunks_mut(lows.len()).zip(&view.fields[field].values) {
            counts.iter_mut().zip(&lows).for_each(|(counts, low)| counts[(value >> low) as usize & 15] += 1);
        }
    }
    counts
}

/// A frame that went over a channel.
pub(crate) struct Seen {
    /// During which instruction.
    pub(crate) instruction: usize,
    pub(crate) sent: bool,
    pub(crate) kind: FrameKind,
    pub(crate) payload: Vec<u8>,
}

/// Follows a party's frames through the list of openings, which they have to equal; adds to the view what it learns.
pub(crate) fn see(
    plan: &Plan,
    schedule: &Schedule,
    role: Role,
    seed: &Seed,
    frames: &[Seen],
    view: &mut View,
) {
    let peer = if role == Role::Server { Role::Client } else { Role::Server };
    let [mut received, mut sent] = [false, true].map(|sent| frames.iter().filter(move |f| f.sent == sent));
    let mut next = |instruction: usize, opening: &Opening, is_sent: bool| {
        let frame = if is_sent { sent.next() } else { received.next() };
        let frame = frame.unwrap_or_else(|| panic!("{instruction}: {opening:?} is missing"));
        assert_eq!((frame.instruction, frame.kind), (instruction, OPENING), "{role:?}: {opening:?}");
        assert_eq!(frame.payload.len(), opening.bytes(), "{role:?}, {instruction}: {opening:?}");
        frame
    };
    let prg = Prg::new(seed);
    for k in 0..schedule.instructions.len() {
        let mut masks: BTreeMap<usize, Stream> = BTreeMap::new();
        // The mask of an input is its owner's.
        let is_open = matches!(schedule.instructions[k].0, Instruction::Open(_));
        for (i, opening) in schedule.openings(plan, k).iter().enumerate() {
            let lane = opening.lane;
            let masks =
                masks.entry(lane).or_insert_with(|| prg.stream(((lane as u64) << 48) | (k as u64 * 2)));
            let sent = opening.to.includes(peer).then(|| lanes(opening, &next(k, opening, true).payload));
            let name = |what: &str| format!("{what} {i} of instruction {k}, {}", schedule.name(plan, k));
            let (width, is_bits) = match opening.what {
                Content::MaskedBits => (8, true),
                Content::MaskedElements | Content::Value => (opening.bits, false),
            };
            let Some(received) =
                opening.to.includes(role).then(|| lanes(opening, &next(k, opening, false).payload))
            else {
                // What only the peer is told is no less known to the party: m of its inputs, and so λ.
                if let (Some(sent), Content::MaskedElements) = (sent, opening.what) {
                    view.add(name("sent value"), width, sent, Part::Adds);
                    if is_open {
                        view.add(name("own mask"), width, own_masks(opening, masks), Part::Adds);
                    }
                }
                continue;
            };
            // A revealed share is the output minus what the party has, so it adds nothing else to the view.
            let Some(sent) = sent.filter(|_| opening.what != Content::Value) else {
                let part = if opening.what == Content::Value { Part::Follows } else { Part::Opened };
                view.add(name("received value"), width, received, part);
                if is_open {
                    view.add(name("own mask"), width, own_masks(opening, masks), Part::Adds);
                }
                continue;
            };
            let mask = u64::MAX >> (64 - width);
            let combine = |a: &[u64], b: &[u64], subtract: bool| -> Vec<u64> {
                let one = |(&a, &b): (&u64, &u64)| match (is_bits, subtract) {
                    (true, _) => a ^ b,
                    (false, false) => a.wrapping_add(b) & mask,
                    (false, true) => a.wrapping_sub(b) & mask,
                };
                a.iter().zip(b).map(one).collect()
            };
            let own = own_masks(opening, masks);
            let opened = combine(&sent, &received, false);
            view.add(name("without own mask, opening"), width, combine(&opened, &own, true), Part::Unmasked);
            view.add(name("received frame"), width, received, Part::Follows);
            view.add(name("own mask"), width, own, Part::Adds);
            view.add(name("opening"), width, opened, Part::Opened);
        }
    }
    assert!(
        sent.next().is_none() && received.next().is_none(),
        "{role:?}: more frames than the schedule lists"
    );
}

/// Bytes of planes, or ring elements.
fn lanes(opening: &Opening, payload: &[u8]) -> Vec<u64> {
    match opening.what {
        Content::MaskedBits => payload.iter().map(|&b| u64::from(b)).collect(),
        Content::MaskedElements | Content::Value => {
            pack::unpack(payload, opening.bits, opening.elements).unwrap()
        }
    }
}

/// Own half of the masks of an opening; draws the next values of the instruction's stream.
fn own_masks(opening: &Opening, stream: &mut Stream) -> Vec<u64> {
    match opening.what {
        Content::MaskedBits => {
            let mut payload = Vec::new();
            for _ in 0..opening.bits {
                let mut plane = stream.words(planes::words(opening.elements), u64::MAX);
                planes::clear_tail(&mut plane, opening.elements);
                planes::pack(&plane, opening.elements, &mut payload);
            }
            lanes(opening, &payload)
        }
        _ => stream.words(opening.elements, u64::MAX >> (64 - opening.bits)),
    }
}

/// Knows which instruction runs.
#[derive(Default)]
pub(crate) struct Now(pub(crate) Arc<AtomicUsize>);

impl Progress for Now {
    fn step(&mut self, done: usize, _: usize, _: &str) {
        self.0.store(done, Ordering::Relaxed);
    }
}

/// A channel that keeps what goes over it.
pub(crate) struct Recorder {
    inner: MemoryChannel,
    now: Arc<AtomicUsize>,
    pub(crate) frames: Vec<Seen>,
}

impl Recorder {
    pub(crate) fn new(inner: MemoryChannel, now: Arc<AtomicUsize>) -> Self {
        Self { inner, now, frames: Vec::new() }
    }

    fn keep(&mut self, sent: bool, frame: &Frame) {
        let instruction = self.now.load(Ordering::Relaxed);
        self.frames.push(Seen { instruction, sent, kind: frame.kind, payload: frame.payload.clone() });
    }
}

impl Channel for Recorder {
    fn send(&mut self, frame: Frame) -> Result<(), NetError> {
        self.keep(true, &frame);
        self.inner.send(frame)
    }
    fn recv(&mut self, max_len: usize) -> Result<Frame, NetError> {
        let frame = self.inner.recv(max_len)?;
        self.keep(false, &frame);
        Ok(frame)
    }
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }
    fn peer(&self) -> &Peer {
        self.inner.peer()
    }
    fn set_deadline(&mut self, per_wait: Duration) {
        self.inner.set_deadline(per_wait);
    }
    fn count_round(&mut self) {
        self.inner.count_round();
    }
    fn flush(&mut self) -> Result<(), NetError> {
        self.inner.flush()
    }
    fn shutdown(&mut self) -> Result<(), NetError> {
        self.inner.shutdown()
    }
}
