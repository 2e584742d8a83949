//! Text from elsewhere, as it may be shown to people.

/// The text without what could steer the reader's terminal or turn the line around: control characters and marks of
/// direction become U+FFFD.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

fn steers(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    // Line and paragraph separators: some readers break the line there.
    turns || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The columns a text takes in a font of fixed width.
pub(crate) fn columns(text: &str) -> usize {
    // East Asian scripts and most pictographs are two columns wide; above U+1100, narrow ones are rare enough.
    text.chars().map(|c| if c >= '\u{1100}' && !matches!(c, '\u{2000}'..='\u{2bff}') { 2 } else { 1 }).sum()
}
