//! How large an enclave has to be.

/// What counts towards the size of an enclave, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The most that the program holds of weights, tensors and workspace.
    pub memory: u64,
    /// Of program, loader and libraries.
    pub code: u64,
    /// Of all trusted files.
    pub trusted: u64,
    /// Threads, those of Gramine included.
    pub threads: u32,
}

/// Gramine itself with its library OS and their heaps, and data and heap of the program besides what it works on.
const CONSTANT: u64 = (64 + 64) << 20;
/// Of a thread: its stack, and what SGX saves of it.
const THREAD: u64 = 8 << 20;
/// Gramine keeps 16 bytes for every 16 KiB of a trusted file.
const TRUSTED_SHARE: u64 = 1024;

/// Bytes of an enclave, a power of two as SGX wants them.
pub fn enclave_size(sizes: &Sizes) -> u64 {
    let parts = [
        sizes.memory,
        sizes.code,
        sizes.trusted / TRUSTED_SHARE,
        THREAD * u64::from(sizes.threads),
        CONSTANT,
    ];
    let sum = parts.into_iter().fold(0, u64::saturating_add);
    sum.checked_next_power_of_two().unwrap_or(1 << 63)
}

/// As Gramine reads it.
pub(crate) fn shown(bytes: u64) -> String {
    match bytes {
        b if b % (1 << 30) == 0 => format!("{}G", b >> 30),
        b if b % (1 << 20) == 0 => format!("{}M", b >> 20),
        b if b % (1 << 10) == 0 => format!("{}K", b >> 10),
        b => b.to_string(),
    }
}

/// Bytes that a size in a manifest says: a number, which may end in K, M or G.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_that_hold_everything() {
        let sizes = Sizes { memory: 64 << 20, code: 40 << 20, trusted: 600 << 20, threads: 9 };
        // 64 + 40 + 0.6 + 72 + 128 MiB.
        assert_eq!(enclave_size(&sizes), 512 << 20);
        assert_eq!(enclave_size(&Sizes { memory: 554 << 20, ..sizes }), 1 << 30);
        assert_eq!(enclave_size(&Sizes::default()), 128 << 20);
        assert_eq!(enclave_size(&Sizes { memory: u64::MAX, ..sizes }), 1 << 63);
    }

    #[test]
    fn sizes_are_written_and_read() {
        for (bytes, text) in [(1 << 30, "1G"), (512 << 20, "512M"), (3 << 10, "3K"), (100, "100")] {
            assert_eq!((shown(bytes).as_str(), parse(text)), (text, Some(bytes)));
        }
        assert_eq!(parse("0x10"), Some(16));
        for wrong in ["", "G", "-1M", "0", "1.5G", "18446744073709551615G", "one"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
