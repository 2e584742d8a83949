//! The tags of a recorded event, in their stored form.

use std::fmt;

use bytes::Bytes;

use crate::names::Tag;

/// The tags of a recorded event: one text, joined by line feeds, which no tag can hold.
///
/// Most readers of a feed never look at tags, so they are handed out as they are stored: a slice of the page's
/// buffer instead of an allocation for each. Cloning costs a reference count.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Tags(Bytes);

impl Tags {
    /// Joins tags as they are stored and hashed.
    pub fn join(tags: &[Tag]) -> Self {
        let mut joined = String::with_capacity(tags.iter().map(|tag| tag.as_str().len() + 1).sum());
        for (i, tag) in tags.iter().enumerate() {
            if i > 0 {
                joined.push('\n');
            }
            joined.push_str(tag.as_str());
        }
        Self(Bytes::from(joined))
    }

    /// For backends: tags as [`Tags::as_str`] gave them. None when the bytes are no text.
    pub fn from_stored(joined: Bytes) -> Option<Self> {
        std::str::from_utf8(&joined).is_ok().then_some(Self(joined))
    }

    /// The stored form.
    pub fn as_str(&self) -> &str {
        // It was text when it came in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Each tag's text, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // Splitting an empty text gives one empty part, and no tag is empty.
        self.as_str().split('\n').filter(|tag| !tag.is_empty())
    }

    /// Is this tag among them?
    pub fn contains(&self, tag: &Tag) -> bool {
        self.iter().any(|text| text == tag.as_str())
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tags as checked names, for whoever appends them again. One that breaks a rule is left out: stored
    /// bytes that were changed are noticed by the chain, not here.
    pub fn to_vec(&self) -> Vec<Tag> {
        self.iter().filter_map(|tag| Tag::new(tag).ok()).collect()
    }
}

impl From<&[Tag]> for Tags {
    fn from(tags: &[Tag]) -> Self {
        Self::join(tags)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_back_as_they_were_given() {
        let given: Vec<Tag> = ["b", "a:1", "Ä 🦀"].map(|text| Tag::new(text).unwrap()).into();
        let tags = Tags::join(&given);
        assert_eq!((tags.as_str(), tags.to_vec()), ("b\na:1\nÄ 🦀", given.clone()));
        assert!(given.iter().all(|tag| tags.contains(tag)));
        for no in ["a", "a:", "b\u{a0}a:1", "1"] {
            assert!(!tags.contains(&Tag::new(no).unwrap()), "{no}");
        }
        let none = Tags::join(&[]);
        assert!(none.is_empty() && none.iter().next().is_none());
        assert_eq!(Tags::from_stored(Bytes::from_static(&[0xff])), None);
    }
}
