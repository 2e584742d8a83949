//! Who a command is: the ids of its events, so that a repeated command is recorded once.

use mainstay_envelope::Context;
use mainstay_event_store::{StreamName, limits};
use uuid::Uuid;

/// Where a command's event ids come from.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// New ones for each decision: the command is not recognised when it comes again.
    Fresh,
    /// Derived from the command's id and its stream.
    Known([u8; 32]),
}

impl Identity {
    /// The identity of the command that the caller calls `id`, on a stream. The stream is part of it: one
    /// request may command several things under one id.
    pub(super) fn known(id: &str, stream: &StreamName) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay command 1");
        // Length-prefixed, so that no two pairs give the same input.
        hasher.update(&(id.len() as u64).to_le_bytes());
        hasher.update(id.as_bytes());
        hasher.update(stream.as_str().as_bytes());
        Self::Known(*hasher.finalize().as_bytes())
    }

    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// The id of the command's event number `index`, from 0.
    ///
    /// A known command's are UUIDs of version 8 (RFC 9562 §5.8), made of a BLAKE3 hash. They are in no order,
    /// which makes the store's index of ids a little dearer than fresh ones (version 7) do.
    pub(super) fn event_id(&self, cx: &Context, index: usize) -> Uuid {
        self.known_event_id(index).unwrap_or_else(|| cx.new_id())
    }

    /// The same, when it does not depend on chance.
    pub(super) fn known_event_id(&self, index: usize) -> Option<Uuid> {
        let Self::Known(key) = self else { return None };
        let hash = blake3::keyed_hash(key, &(index as u64).to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Some(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Is this the id of one of the command's events? Looked for among as many as an act can have.
    pub(super) fn owns(&self, id: Uuid) -> bool {
        (0..limits::ACT_EVENTS_MAX).map_while(|index| self.known_event_id(index)).any(|own| own == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_known_command_are_stable_and_its_own() {
        let stream = |name| StreamName::new(name).unwrap();
        let id =
            |command, name, index| Identity::known(command, &stream(name)).known_event_id(index).unwrap();
        assert_eq!(id("order-1", "account-7", 0), id("order-1", "account-7", 0));
        let all = [
            id("order-1", "account-7", 0),
            id("order-1", "account-7", 1),
            id("order-1", "account-8", 0),
            id("order-2", "account-7", 0),
            id("order-1a", "ccount-7", 0),
        ];
        for (i, one) in all.iter().enumerate() {
            assert_eq!(one.get_version_num(), 8);
            assert!(!all[..i].contains(one), "{i}");
        }
        // Stored for ever: a change of the derivation would record repeated commands twice.
        assert_eq!(all[0].to_string(), "31290b90-8c79-8b0b-9531-372aeec5bf61");
    }
}
