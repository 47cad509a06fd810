//! Tensors between stages, sealed: what one stage gives, only the next one takes, once, in order.
//!
//! A *hop* leads from stage n to stage n + 1 of one session of one index of stages; stage 0 is whoever gives the inputs, and the
//! stage behind the last whoever takes the outputs. Each hop has a key of its own, and counts its messages.
//!
//! ```text
//! key of a hop = HKDF-SHA256(secret of the session, salt: session, info: "privet hop v1" | model | from u32)
//! model        = model id | model version u64 | digest of the index
//! message      = version u16 | from u32 | to u32 | sequence u64 | count u32 | count declarations | data | tag
//! declaration  = length of the name u16 | name | dtype u8 | axes u8 | sizes u64 each
//! ```
//!
//! Numbers are little-endian, dtypes those of ONNX: 1 float32, 7 int64, 9 bool. The data of all tensors, in their order, is
//! encrypted with AES-256-GCM; the nonce is the sequence number (4 bytes of zero in front), and everything before the data is
//! associated data, with model and session in front of it. A receiver says which tensors it expects,
//! and takes no others. This module does no input or output: who carries messages cannot read, change, reorder, repeat
//! or swap them; it can lose them, which shows as a sequence that does not go on.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use ndarray::{ArrayD, IxDyn};
use privet_graph::{Tensor, element_count};
use privet_seal::{ModelId, ModelVersion};
use zeroize::{Zeroize, Zeroizing};

use crate::{SealedIndex, Shape, SplitError, Tensors};

/// Version of messages between stages.
pub const HOP_VERSION: u16 = 1;

const INFO: &[u8] = b"privet hop v1";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Version, from, to, sequence, count.
const PREFIX_BYTES: usize = 2 + 4 + 4 + 8 + 4;

/// One run of the stages of one index: any number of inputs, one after another. No `Debug`, no `Clone`; wiped when dropped.
pub struct HopSession {
    secret: Box<Zeroizing<[u8; KEY_BYTES]>>,
    /// Model id, version, digest of the index, session.
    binding: [u8; 16 + 8 + 32 + 16],
}

impl HopSession {
    /// `secret` is random, new for every session, and known to its stages only; `session` tells sessions apart. All stages have to
    /// give the same. The caller wipes its own copy.
    pub fn new(secret: [u8; KEY_BYTES], session: [u8; 16], index: &SealedIndex) -> Self {
        Self::of(&secret, session, index.model_id, index.model_version, index.digest())
    }

    fn of(
        secret: &[u8; KEY_BYTES],
        session: [u8; 16],
        model: ModelId,
        version: ModelVersion,
        index: &[u8; 32],
    ) -> Self {
        let mut binding = [0; 72];
        binding[..16].copy_from_slice(model.as_bytes());
        binding[16..24].copy_from_slice(&version.get().to_le_bytes());
        binding[24..56].copy_from_slice(index);
        binding[56..].copy_from_slice(&session);
        Self { secret: Box::new(Zeroizing::new(*secret)), binding }
    }

    /// For stage `from`, to give what it computes to the next.
    ///
    /// # Errors
    /// The cryptographic library fails; there is no next stage number.
    pub fn sealer(&self, from: u32) -> Result<TensorSealer, SplitError> {
        Ok(TensorSealer { hop: self.hop(from)?, next: 0 })
    }

    /// For stage `to`, to take what the stage before it gives.
    ///
    /// # Errors
    /// The cryptographic library fails; stage 0 has none before it.
    pub fn opener(&self, to: u32) -> Result<TensorOpener, SplitError> {
        let from = to.checked_sub(1).ok_or_else(|| refused("a stage with a predecessor", "stage 0"))?;
        Ok(TensorOpener { hop: self.hop(from)?, next: 0 })
    }

    fn hop(&self, from: u32) -> Result<Hop, SplitError> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES
            }
        }
        let to = from.checked_add(1).ok_or_else(|| refused("a stage with a successor", &from.to_string()))?;
        let failed = |_| SplitError::Kernel("AES-256-GCM failed in the cryptographic library".to_owned());
        let (context, session) = self.binding.split_at(56);
        let from_bytes = from.to_le_bytes();
        let info = [INFO, context, &from_bytes];
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let extracted = Salt::new(HKDF_SHA256, session).extract(&self.secret[..]);
        extracted.expand(&info, Length).and_then(|okm| okm.fill(&mut key[..])).map_err(failed)?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).map_err(failed)?);
        Ok(Hop { key, binding: self.binding, from, to })
    }
}

/// A hop's key, and what it is bound to.
struct Hop {
    key: LessSafeKey,
    binding: [u8; 72],
    from: u32,
    to: u32,
}

impl Hop {
    /// Everything before the data.
    fn head(&self, sequence: u64, tensors: &[(String, Kind, Vec<usize>)]) -> Vec<u8> {
        let mut head = HOP_VERSION.to_le_bytes().to_vec();
        head.extend(self.from.to_le_bytes());
        head.extend(self.to.to_le_bytes());
        head.extend(sequence.to_le_bytes());
        head.extend((tensors.len() as u32).to_le_bytes());
        for (name, kind, shape) in tensors {
            head.extend((name.len() as u16).to_le_bytes());
            head.extend(name.as_bytes());
            head.push(kind.code);
            head.push(shape.len() as u8);
            shape.iter().for_each(|&d| head.extend((d as u64).to_le_bytes()));
        }
        head
    }

    fn aad(&self, head: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([&self.binding, head].concat())
    }
}

/// The sending end of a hop. A stage that starts anew takes a new session: a sequence is used once.
pub struct TensorSealer {
    hop: Hop,
    next: u64,
}

impl TensorSealer {
    /// Seals the tensors of these names, in this order, as the next message.
    ///
    /// # Errors
    /// A tensor is missing; more than a message holds.
    pub fn seal(&mut self, names: &[&str], tensors: &Tensors) -> Result<Vec<u8>, SplitError> {
        let mut declared = Vec::with_capacity(names.len());
        let mut length = 0usize;
        for name in names {
            let tensor = tensors.get(*name);
            let tensor = tensor.ok_or_else(|| refused("tensors to be sealed", &format!("no {name:?}")))?;
            let kind = Kind::of(tensor);
            if name.len() > usize::from(u16::MAX) {
                return Err(refused("a name of at most 65535 bytes", &name.len().to_string()));
            }
            length += kind.size * tensor.len();
            declared.push(((*name).to_owned(), kind, tensor.shape().to_vec()));
        }
        let head = self.hop.head(self.next, &declared);
        // All at once, so that no copies are left where a vector has grown.
        let mut message = Vec::with_capacity(head.len() + length + TAG_BYTES);
        message.extend_from_slice(&head);
        for name in names {
            write(&tensors[*name], &mut message);
        }
        let aad = self.hop.aad(&head);
        let sealed =
            self.hop.key.seal_in_place_separate_tag(nonce(self.next), aad, &mut message[head.len()..]);
        let tag = sealed.map_err(|_| refused("a message that can be sealed", &format!("{length} bytes")))?;
        self.next = self.next.checked_add(1).ok_or_else(|| refused("fewer messages", "2^64"))?;
        message.extend_from_slice(tag.as_ref());
        Ok(message)
    }
}

/// The receiving end of a hop.
pub struct TensorOpener {
    hop: Hop,
    next: u64,
}

impl TensorOpener {
    /// Opens the next message, which has to hold exactly the tensors `expected`, in this order. What is refused changes nothing:
    /// the message that was expected is still expected. The message is wiped in any case, as it is decrypted in its place.
    ///
    /// # Errors
    /// The message is not the predecessor's next one of this session, or was changed.
    pub fn open(&mut self, message: &mut [u8], expected: &[Shape]) -> Result<Tensors, SplitError> {
        let opened = self.open_in_place(message, expected);
        message.zeroize();
        opened
    }

    fn open_in_place(&mut self, message: &mut [u8], expected: &[Shape]) -> Result<Tensors, SplitError> {
        let declared = expected.iter().map(|shape| {
            let (kind, dims) = (Kind::named(&shape.dtype), shape.shape.clone());
            let kind = kind.ok_or_else(|| refused("float32, int64 or bool", &shape.dtype))?;
            let fits = shape.name.len() <= usize::from(u16::MAX) && element_count("tensor", &dims).is_ok();
            if fits {
                Ok((shape.name.clone(), kind, dims))
            } else {
                Err(refused("tensors of a bounded size", &format!("{:?}", shape.name)))
            }
        });
        let declared: Vec<_> = declared.collect::<Result<_, SplitError>>()?;
        let head = self.hop.head(self.next, &declared);
        let length: usize =
            declared.iter().map(|(_, kind, shape)| kind.size * shape.iter().product::<usize>()).sum();
        let is_head = message.get(..head.len()) == Some(&head[..]);
        if !is_head || message.len() != head.len() + length + TAG_BYTES {
            return Err(self.describe(message, head.len() + length + TAG_BYTES));
        }
        let aad = self.hop.aad(&head);
        let opened = self.hop.key.open_in_place(nonce(self.next), aad, &mut message[head.len()..]);
        let Ok(opened) = opened else {
            return Err(refused(
                &format!("message {} of this session from stage {}", self.next, self.hop.from),
                "one that was not sealed there, or was changed",
            ));
        };
        let mut tensors = Tensors::with_capacity(declared.len());
        let mut rest: &[u8] = opened;
        for (name, kind, shape) in declared {
            let (bytes, behind) = rest.split_at(kind.size * shape.iter().product::<usize>());
            let tensor = kind.read(&shape, bytes);
            tensors.insert(name, tensor.ok_or_else(|| refused("booleans of 0 and 1", "others"))?);
            rest = behind;
        }
        self.next = self.next.checked_add(1).ok_or_else(|| refused("fewer messages", "2^64"))?;
        Ok(tensors)
    }

    /// Why a message is not the one that is expected; nothing of it was authenticated.
    fn describe(&self, message: &[u8], length: usize) -> SplitError {
        let number = |at: usize, len: usize| {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&message[at..at + len]);
            u64::from_le_bytes(bytes)
        };
        let expected = format!(
            "message {} from stage {} to stage {}, {length} bytes",
            self.next, self.hop.from, self.hop.to
        );
        let found = if message.len() < PREFIX_BYTES {
            format!("{} bytes", message.len())
        } else if number(0, 2) != u64::from(HOP_VERSION) {
            format!("version {} of messages, and this is {HOP_VERSION}", number(0, 2))
        } else {
            let (from, to, sequence) = (number(2, 4), number(6, 4), number(10, 8));
            let (count, len) = (number(18, 4), message.len());
            format!("message {sequence} from stage {from} to stage {to}, with {count} tensors, {len} bytes")
        };
        refused(&expected, &found)
    }
}

/// An element type.
#[derive(Debug, Clone, Copy)]
struct Kind {
    code: u8,
    size: usize,
}

impl Kind {
    const F32: Self = Self { code: 1, size: 4 };
    const I64: Self = Self { code: 7, size: 8 };
    const BOOL: Self = Self { code: 9, size: 1 };

    fn of(tensor: &Tensor) -> Self {
        match tensor {
            Tensor::F32(_) => Self::F32,
            Tensor::I64(_) => Self::I64,
            Tensor::Bool(_) => Self::BOOL,
        }
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::F32),
            "int64" => Some(Self::I64),
            "bool" => Some(Self::BOOL),
            _ => None,
        }
    }

    /// A tensor from its bytes, which are as many as its shape says; none if they are no booleans.
    fn read(self, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
        let shape = IxDyn(shape);
        Some(match self.code {
            1 => {
                let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                ArrayD::from_shape_vec(shape, values.collect()).ok()?.into()
            }
            7 => {
                let values = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
                ArrayD::from_shape_vec(shape, values.collect()).ok()?.into()
            }
            _ => {
                let values = bytes.iter().map(|&b| (b <= 1).then_some(b == 1)).collect::<Option<Vec<bool>>>();
                ArrayD::from_shape_vec(shape, values?).ok()?.into()
            }
        })
    }
}

/// Appends a tensor's elements, row-major.
fn write(tensor: &Tensor, to: &mut Vec<u8>) {
    match tensor {
        Tensor::F32(a) => a.iter().for_each(|v| to.extend(v.to_le_bytes())),
        Tensor::I64(a) => a.iter().for_each(|v| to.extend(v.to_le_bytes())),
        Tensor::Bool(a) => to.extend(a.iter().map(|&v| u8::from(v))),
    }
}

/// 4 bytes of zero, sequence u64.
fn nonce(sequence: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn refused(expected: &str, found: &str) -> SplitError {
    SplitError::Hop { expected: expected.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(secret: u8, id: u8, model: u8, version: u64, index: u8) -> HopSession {
        let version = ModelVersion::new(version).unwrap();
        HopSession::of(&[secret; 32], [id; 16], ModelId::from_bytes([model; 16]), version, &[index; 32])
    }

    fn tensors(seed: i64) -> (Tensors, Vec<Shape>) {
        let x = ArrayD::from_shape_fn(IxDyn(&[2, 3]), |i| (i[0] * 3 + i[1]) as f32 + seed as f32);
        let n = ArrayD::from_elem(IxDyn(&[]), seed);
        let b = ArrayD::from_shape_fn(IxDyn(&[3]), |i| i[0] % 2 == 0);
        let shape = |name: &str, dtype: &str, shape: &[usize]| Shape {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
        };
        let all = [("x", x.into()), ("n", n.into()), ("b", b.into())].map(|(n, t)| (n.to_owned(), t));
        let shapes = [shape("x", "float32", &[2, 3]), shape("n", "int64", &[]), shape("b", "bool", &[3])];
        (all.into(), shapes.to_vec())
    }

    const NAMES: [&str; 3] = ["x", "n", "b"];

    fn open(opener: &mut TensorOpener, message: &[u8], shapes: &[Shape]) -> Result<Tensors, SplitError> {
        opener.open(&mut message.to_vec(), shapes)
    }

    /// Also one that its sender should never have sealed: a boolean that is none.
    #[test]
    fn messages_are_wiped_whether_they_are_taken_or_not() {
        let session = session(1, 2, 3, 4, 5);
        let (tensors, shapes) = tensors(7);
        let honest = session.sealer(1).unwrap().seal(&NAMES, &tensors).unwrap();
        let hop = session.hop(1).unwrap();
        let kinds = [Kind::F32, Kind::I64, Kind::BOOL];
        let declared = NAMES.iter().zip(kinds).zip(&shapes);
        let declared: Vec<_> =
            declared.map(|((name, kind), shape)| ((*name).to_owned(), kind, shape.shape.clone())).collect();
        let head = hop.head(0, &declared);
        let mut data = NAMES.iter().fold(Vec::new(), |mut data, name| {
            write(&tensors[*name], &mut data);
            data
        });
        *data.last_mut().unwrap() = 2;
        hop.key.seal_in_place_append_tag(nonce(0), hop.aad(&head), &mut data).unwrap();
        let malformed = [head, data].concat();
        let mut changed = honest.clone();
        *changed.last_mut().unwrap() ^= 1;
        let mut opener = session.opener(2).unwrap();
        for (mut message, why) in
            [(malformed, Some("booleans")), (changed, Some("not sealed there")), (honest, None)]
        {
            let opened = opener.open(&mut message, &shapes);
            assert!(message.iter().all(|&byte| byte == 0), "{why:?}");
            match why {
                Some(why) => assert!(opened.unwrap_err().to_string().contains(why), "{why}"),
                None => assert_eq!(opened.unwrap(), tensors),
            }
        }
    }

    #[test]
    fn a_stage_takes_what_its_predecessor_gives_in_order() {
        let session = session(1, 2, 3, 4, 5);
        let (mut sealer, mut opener) = (session.sealer(1).unwrap(), session.opener(2).unwrap());
        for seed in 0..3 {
            let (tensors, shapes) = tensors(seed);
            let message = sealer.seal(&NAMES, &tensors).unwrap();
            assert_eq!(open(&mut opener, &message, &shapes).unwrap(), tensors);
        }
    }

    #[test]
    fn every_changed_bit_and_every_length_is_refused_and_changes_nothing() {
        let session = session(1, 2, 3, 4, 5);
        let (mut sealer, mut opener) = (session.sealer(0).unwrap(), session.opener(1).unwrap());
        let (tensors, shapes) = tensors(7);
        let message = sealer.seal(&NAMES, &tensors).unwrap();
        for bit in 0..8 * message.len() {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = open(&mut opener, &changed, &shapes).expect_err("a changed bit");
            assert!(matches!(error, SplitError::Hop { .. }), "{error}");
        }
        for len in 0..message.len() {
            open(&mut opener, &message[..len], &shapes).expect_err("cut off");
        }
        open(&mut opener, &[&message[..], &[0]].concat(), &shapes).expect_err("something appended");
        assert_eq!(open(&mut opener, &message, &shapes).unwrap(), tensors);
    }

    /// Every way to give three messages of two hops of two sessions to the four receivers.
    #[test]
    fn reordering_replay_and_swapping_are_refused() {
        let sessions = [session(1, 2, 3, 4, 5), session(1, 9, 3, 4, 5)];
        let (tensors, shapes) = tensors(7);
        let hops = [(0, 1), (0, 2), (1, 1), (1, 2)];
        let mut messages = Vec::new();
        for (s, from) in hops {
            let mut sealer = sessions[s].sealer(from).unwrap();
            for sequence in 0..3u64 {
                messages.push(((s, from, sequence), sealer.seal(&NAMES, &tensors).unwrap()));
            }
        }
        for (s, from) in hops {
            let mut opener = sessions[s].opener(from + 1).unwrap();
            for next in 0..3 {
                for (at, message) in messages.iter().filter(|(at, _)| *at != (s, from, next)) {
                    let error = open(&mut opener, message, &shapes);
                    assert!(error.is_err(), "{at:?} for {:?}", (s, from, next));
                }
                let (_, message) = messages.iter().find(|(at, _)| *at == (s, from, next)).unwrap();
                assert_eq!(open(&mut opener, message, &shapes).unwrap(), tensors);
            }
        }
    }

    #[test]
    fn other_sessions_models_versions_indices_and_secrets_are_refused() {
        let (tensors, shapes) = tensors(7);
        let message = session(1, 2, 3, 4, 5).sealer(1).unwrap().seal(&NAMES, &tensors).unwrap();
        let others = [[8, 2, 3, 4, 5], [1, 8, 3, 4, 5], [1, 2, 8, 4, 5], [1, 2, 3, 8, 5], [1, 2, 3, 4, 8]];
        for [secret, id, model, version, index] in others {
            let other = session(secret, id, model, u64::from(version), index);
            let error = open(&mut other.opener(2).unwrap(), &message, &shapes).expect_err("another");
            assert!(error.to_string().contains("not sealed there"), "{error}");
        }
        let right = session(1, 2, 3, 4, 5);
        open(&mut right.opener(2).unwrap(), &message, &shapes).unwrap();
        assert!(right.opener(0).is_err() && right.sealer(u32::MAX).is_err());
    }

    #[test]
    fn other_tensors_than_expected_are_refused() {
        let session = session(1, 2, 3, 4, 5);
        let (tensors, shapes) = tensors(7);
        let message = session.sealer(1).unwrap().seal(&NAMES, &tensors).unwrap();
        let mut changes: Vec<Vec<Shape>> = vec![shapes[..2].to_vec(), Vec::new()];
        let change = |f: fn(&mut Vec<Shape>)| {
            let mut changed = shapes.clone();
            f(&mut changed);
            changed
        };
        changes.push(change(|s| s.swap(0, 1)));
        changes.push(change(|s| s[0].name = "y".to_owned()));
        changes.push(change(|s| s[0].shape = vec![3, 2]));
        changes.push(change(|s| s[0].shape = vec![6]));
        changes.push(change(|s| s[0].dtype = "int64".to_owned()));
        changes.push(change(|s| s[0].dtype = "float16".to_owned()));
        changes.push(change(|s| s[0].shape = vec![usize::MAX, 2]));
        let mut opener = session.opener(2).unwrap();
        for expected in changes {
            open(&mut opener, &message, &expected).expect_err("other tensors");
        }
        assert_eq!(open(&mut opener, &message, &shapes).unwrap(), tensors);
        let error = session.sealer(1).unwrap().seal(&["z"], &tensors).unwrap_err().to_string();
        assert!(error.contains("\"z\""), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, rng_seed: proptest::test_runner::RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

        /// Messages of some sealers, in any order, some twice: each opener takes its own sequence and nothing else.
        #[test]
        fn openers_take_their_own_sequence_whatever_is_delivered(
            deliveries in prop::collection::vec((0usize..3, 0usize..4, 0usize..3), 1..40),
        ) {
            let session = session(1, 2, 3, 4, 5);
            let (tensors, shapes) = tensors(1);
            let sealed: Vec<Vec<Vec<u8>>> = (0..3u32)
                .map(|from| {
                    let mut sealer = session.sealer(from).unwrap();
                    (0..4).map(|_| sealer.seal(&NAMES, &tensors).unwrap()).collect()
                })
                .collect();
            let mut openers: Vec<_> = (1..=3).map(|to| session.opener(to).unwrap()).collect();
            let mut taken = [0; 3];
            for (from, sequence, to) in deliveries {
                let opened = open(&mut openers[to], &sealed[from][sequence], &shapes);
                prop_assert_eq!(opened.is_ok(), from == to && sequence == taken[to]);
                taken[to] += usize::from(opened.is_ok());
            }
        }

        #[test]
        fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_, shapes) = tensors(1);
            prop_assert!(open(&mut session(1, 2, 3, 4, 5).opener(2).unwrap(), &bytes, &shapes).is_err());
        }
    }
}
