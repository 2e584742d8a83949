//! How events of one correlation are found: a tag on each.

use mainstay_envelope::CorrelationId;
use mainstay_event_store::{BadName, Tag};

/// The tag by which everything that came of one cause is found again: `corr:<uuid>`, in lower case with hyphens.
/// Stored with events, so it does not change.
///
/// The error can't happen: a UUID is a usable tag. It is here because a name is checked wherever one is made.
pub fn tag(correlation: CorrelationId) -> Result<Tag, BadName> {
    Tag::new(format!("corr:{}", correlation.0.hyphenated()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_as_it_was_stored_before() {
        let id = CorrelationId(uuid::Uuid::from_u128(0xABCD_0000_0000_4000_8000_0000_0000_0001));
        assert_eq!(tag(id).unwrap().as_str(), "corr:abcd0000-0000-4000-8000-000000000001");
    }
}
