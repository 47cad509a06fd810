//! Whether a JPEG file is complete.
//!
//! The decoder fills what is missing at the end of a file with grey, as browsers do. A prediction on half a
//! picture is worse than an error, so the markers are walked up to the end-of-image one first.

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Whether the markers of ITU-T T.81, Annex B lead from the start of the image to its end.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let Some(mut rest) = bytes.strip_prefix(b"\xff\xd8") else { return false };
    loop {
        let Some((marker, after)) = next_marker(rest) else { return false };
        rest = match marker {
            END_OF_IMAGE => return true,
            // TEM, restart and start-of-image markers stand alone.
            0x01 | 0xd0..=0xd8 => after,
            _ => {
                let Some(length) = after.first_chunk().map(|l| usize::from(u16::from_be_bytes(*l))) else {
                    return false;
                };
                let Some(after) = after.get(length.max(2)..) else { return false };
                if marker == START_OF_SCAN { skip_entropy_coded(after) } else { after }
            }
        };
    }
}

/// The next marker and what follows it; bytes between segments are skipped, as decoders do.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let at = bytes.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff))?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

/// Coded data ends at the first marker that is not a restart; a coded 0xff byte is followed by 0.
fn skip_entropy_coded(bytes: &[u8]) -> &[u8] {
    let end = bytes.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff | 0xd0..=0xd7));
    &bytes[end.unwrap_or(bytes.len())..]
}
