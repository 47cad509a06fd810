//! Mutations that formats are sensitive to: bits, cuts, splices, and lengths replaced by extremes.

use privet_ring::prg::{Prg, Seed};

/// Texts that numbers and keys of text formats are replaced by.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "1e999",
    "-1e-999",
    "nan",
    "inf",
    "''",
    "[[[[[[[[",
    "((((((((",
    "\"",
    "\n",
    "\u{feff}",
    "é",
    "{",
    "True",
];

/// Numbers that lengths, counts and sizes are replaced by.
const EXTREMES: &[u64] = &[
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    1 << 27,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Draws mutations from a seed.
pub(crate) struct Mutator {
    prg: Prg,
    drawn: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self { prg: Prg::new(&Seed::from_bytes(bytes)), drawn: 0 }
    }

    /// One to six mutations of one of `pool`.
    pub(crate) fn mutate(&mut self, pool: &[&[u8]]) -> Vec<u8> {
        let mut draw = self.draws();
        let mut bytes = pool[draw(pool.len())].to_vec();
        for _ in 0..1 + draw(6) {
            let at = draw(bytes.len() + 1);
            let end = (at + draw(16)).min(bytes.len());
            match draw(10) {
                0 if at < bytes.len() => bytes[at] ^= 1 << draw(8),
                1 if at < bytes.len() => bytes[at] = draw(256) as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let copy = bytes[at..end].repeat(1 + draw(8));
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let other = pool[draw(pool.len())];
                    let from = draw(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend(&other[from..]);
                }
                6 => {
                    let number = EXTREMES[draw(EXTREMES.len())];
                    let width = [1, 2, 4, 8][draw(4)];
                    let number = match draw(2) {
                        0 => number.to_le_bytes()[..width].to_vec(),
                        _ => number.to_be_bytes()[8 - width..].to_vec(),
                    };
                    let end = (at + width).min(bytes.len());
                    bytes.splice(at..end, number);
                }
                7 => {
                    let number = varint(EXTREMES[draw(EXTREMES.len())]);
                    let end = (at + [0, 1, number.len()][draw(3)]).min(bytes.len());
                    bytes.splice(at..end, number);
                }
                8 => drop(bytes.splice(at..end, WORDS[draw(WORDS.len())].bytes())),
                _ => drop(bytes.splice(at..at, [draw(256) as u8])),
            }
        }
        bytes
    }

    /// Numbers below what they are asked for.
    fn draws(&mut self) -> impl FnMut(usize) -> usize {
        self.drawn += 1;
        let mut words = self.prg.stream(self.drawn).words(64, u64::MAX).into_iter();
        move |below| words.next().expect("enough for six mutations") as usize % below
    }
}

/// LEB128, as in protobuf and postcard.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
