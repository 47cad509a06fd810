//! Text from others, made fit to show.

/// Text from a peer as it may be shown: control characters replaced, at most `limit` characters.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
