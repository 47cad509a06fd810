//! The smallest x86-64 ELF files that say which loader and libraries they need.

/// A program or library.
pub(crate) fn elf(loader: Option<&str>, needed: &[&str], run_path: Option<&str>) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    let count = 1 + u64::from(loader.is_some()) + u64::from(!needed.is_empty());
    let mut strings = vec![0u8];
    let mut add = |text: &str| {
        let at = strings.len() as u64;
        strings.extend(text.bytes());
        strings.push(0);
        at
    };
    let mut dynamic: Vec<(u64, u64)> = needed.iter().map(|name| (1, add(name))).collect();
    dynamic.extend(run_path.map(|path| (29, add(path))));
    let loader_at = loader.map(|path| (add(path), path.len() as u64 + 1));
    let strings_at = HEADER + SEGMENT * count;
    dynamic.extend([(5, strings_at), (0, 0)]);
    let dynamic_at = (strings_at + strings.len() as u64).next_multiple_of(8);
    let end = dynamic_at + 16 * dynamic.len() as u64;

    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let number = |bytes: &mut Vec<u8>, value: u64, width: usize| bytes.extend(&value.to_le_bytes()[..width]);
    for (value, width) in [
        (3, 2),
        (62, 2),
        (1, 4),
        (0, 8),
        (HEADER, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (SEGMENT, 2),
        (count, 2),
        (0, 2),
        (0, 2),
        (0, 2),
    ] {
        number(&mut bytes, value, width);
    }
    let segment = |bytes: &mut Vec<u8>, kind: u64, at: u64, len: u64| {
        for (value, width) in [(kind, 4), (4, 4), (at, 8), (at, 8), (at, 8), (len, 8), (len, 8), (8, 8)] {
            number(bytes, value, width);
        }
    };
    segment(&mut bytes, 1, 0, end);
    if let Some((at, len)) = loader_at {
        segment(&mut bytes, 3, strings_at + at, len);
    }
    if !needed.is_empty() {
        segment(&mut bytes, 2, dynamic_at, 16 * dynamic.len() as u64);
    }
    bytes.extend(&strings);
    bytes.resize(dynamic_at as usize, 0);
    for (tag, value) in dynamic {
        number(&mut bytes, tag, 8);
        number(&mut bytes, value, 8);
    }
    bytes
}
