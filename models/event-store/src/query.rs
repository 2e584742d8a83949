//! Queries over the feed, and conditions built from them (dynamic consistency boundary, dcb.events).

use serde::{Deserialize, Serialize};

use crate::event::{Recorded, limits};
use crate::names::{EventType, Tag};
use crate::outcome::Refusal;
use crate::position::Position;

/// Which events: those that match any of the items; with no item, every event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Alternatives.
    pub items: Vec<QueryItem>,
}

/// One alternative: the type is among `types` (or `types` is empty) and all `tags` are on the event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryItem {
    /// Any of these; empty means every type.
    #[serde(default)]
    pub types: Vec<EventType>,
    /// All of these.
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl Query {
    /// Every event.
    pub fn all() -> Self {
        Self::default()
    }

    /// Events of any of these types.
    pub fn types(types: impl IntoIterator<Item = EventType>) -> Self {
        Self { items: vec![QueryItem { types: types.into_iter().collect(), tags: Vec::new() }] }
    }

    /// Events that carry all of these tags.
    pub fn tags(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self { items: vec![QueryItem { types: Vec::new(), tags: tags.into_iter().collect() }] }
    }

    /// Adds an alternative.
    pub fn or(mut self, item: QueryItem) -> Self {
        self.items.push(item);
        self
    }

    /// Is it every event?
    pub fn is_all(&self) -> bool {
        self.items.is_empty()
    }

    /// Does an event with this type and these tags, as stored ([`Tags::as_str`](crate::Tags::as_str)), match?
    pub fn matches(&self, event_type: &str, tags: &str) -> bool {
        self.items.is_empty()
            || self.items.iter().any(|item| {
                (item.types.is_empty() || item.types.iter().any(|wanted| wanted.as_str() == event_type))
                    && item.tags.iter().all(|tag| tags.split('\n').any(|text| text == tag.as_str()))
            })
    }

    /// Does this recorded event match?
    pub fn selects(&self, event: &Recorded) -> bool {
        self.matches(event.event_type.as_str(), event.tags.as_str())
    }

    /// Checks the limits. An item that names neither type nor tag is refused: it would silently mean "all".
    pub fn check(&self) -> Result<(), Refusal> {
        let max = limits::QUERY_ITEMS_MAX;
        let refuse = |why: String| Err(Refusal::Invalid { what: "query", why });
        if self.items.len() > max {
            return refuse(format!("{} items, at most {max}", self.items.len()));
        }
        for item in &self.items {
            if item.types.is_empty() && item.tags.is_empty() {
                return refuse("an item without type and tag; use Query::all() for every event".into());
            }
            if item.types.len() > max || item.tags.len() > limits::TAGS_MAX {
                return refuse(format!("an item with more than {max} types or {} tags", limits::TAGS_MAX));
            }
        }
        Ok(())
    }
}

/// Append only if no event that matches `query` stands after `after`.
///
/// `after` is the position up to which the caller has read when it decided. Events that are committed but
/// not yet given a position count as after it. A position past the end of the feed is refused
/// ([`Condition::check_after`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What must not have happened.
    pub query: Query,
    /// Since when.
    pub after: Position,
}

impl Condition {
    /// Refuses a condition from a position that the feed has not reached: whoever hands it in has seen another
    /// life of this store, so that "nothing since then" would be true and mean nothing.
    pub fn check_after(&self, ends: Position) -> Result<(), Refusal> {
        if self.after <= ends {
            return Ok(());
        }
        let why = format!(
            "it starts after position {}, but the feed ends at {ends}: the position is another store's, or this \
             one was restored from an older copy; read again and decide again",
            self.after
        );
        Err(Refusal::Invalid { what: "condition", why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::new(text).unwrap()
    }

    fn kind(text: &str) -> EventType {
        EventType::new(text).unwrap()
    }

    #[test]
    fn items_are_alternatives_and_inside_an_item_tags_all_and_types_any() {
        let query = Query::default()
            .or(QueryItem { types: vec![kind("A"), kind("B")], tags: vec![tag("x"), tag("y")] })
            .or(QueryItem { types: vec![kind("C")], tags: vec![] });
        assert!(query.matches("A", "y\nx\nz"));
        assert!(!query.matches("A", "x"), "one tag is missing");
        assert!(!query.matches("D", "x\ny"), "no such type");
        assert!(query.matches("C", ""));
        assert!(Query::all().matches("D", ""));
    }

    #[test]
    fn an_item_that_names_nothing_is_refused() {
        assert!(Query::default().or(QueryItem::default()).check().is_err());
        assert!(Query::all().check().is_ok());
    }
}
