//! A few lines of DER, for certificates that no library makes.

pub(crate) fn oid(text: &str) -> Vec<u8> {
    let arcs: Vec<u64> = text.split('.').map(|arc| arc.parse().expect("a number")).collect();
    let mut bytes = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for &arc in &arcs[2..] {
        let digits = (0..5).rev().map(|i| (arc >> (7 * i)) & 127).skip_while(|&digit| digit == 0);
        let mut digits: Vec<u8> = digits.map(|digit| digit as u8 | 128).collect();
        match digits.last_mut() {
            Some(last) => *last &= 127,
            None => digits.push(0),
        }
        bytes.extend(digits);
    }
    tlv(6, &bytes)
}

pub(crate) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = match value.len() {
        n @ 0..=127 => vec![n as u8],
        n @ 128..=255 => vec![0x81, n as u8],
        n => vec![0x82, (n >> 8) as u8, n as u8],
    };
    [&[tag], length.as_slice(), value].concat()
}
