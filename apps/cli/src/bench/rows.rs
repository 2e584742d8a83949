//! What both sides of a comparison write.

/// A small generator: the loop's own cost must not show.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A JSON payload of exactly so many bytes.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let note = "x".repeat(bytes.saturating_sub(r#"{"amount":5,"note":""}"#.len()));
    format!(r#"{{"amount":5,"note":"{note}"}}"#).into_bytes()
}
