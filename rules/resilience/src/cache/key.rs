//! Keys with the audience they are for: what is kept for one audience can't be found by another.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mainstay_envelope::{Envelope, Identity, Tenant};
use quick_cache::Equivalent;

use super::spec::Audience;

/// Of an audience, the one that a value is kept for; none: everybody. One word, since every key has it.
pub(super) type Member = Option<Arc<Names>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names {
    Tenant(Option<Tenant>),
    Caller(Option<Tenant>, Option<Identity>),
}

/// The same, borrowed from an envelope: a look-up copies no name.
#[derive(Debug, Clone, Copy)]
pub(super) enum MemberRef<'a> {
    Everybody,
    Tenant(Option<&'a Tenant>),
    Caller(Option<&'a Tenant>, Option<&'a Identity>),
}

impl<'a> MemberRef<'a> {
    /// To whom of that audience the envelope belongs.
    pub(super) fn of(audience: Audience, envelope: &'a Envelope) -> Self {
        match audience {
            Audience::Everybody => Self::Everybody,
            Audience::Tenant => Self::Tenant(envelope.tenant()),
            Audience::Caller => Self::Caller(envelope.tenant(), envelope.caller()),
        }
    }

    pub(super) fn to_member(self) -> Member {
        match self {
            Self::Everybody => None,
            Self::Tenant(tenant) => Some(Arc::new(Names::Tenant(tenant.cloned()))),
            Self::Caller(tenant, caller) => Some(Arc::new(Names::Caller(tenant.cloned(), caller.cloned()))),
        }
    }

    fn is(self, member: &Member) -> bool {
        match (self, member.as_deref()) {
            (Self::Everybody, None) => true,
            (Self::Tenant(a), Some(Names::Tenant(b))) => a == b.as_ref(),
            (Self::Caller(a, c), Some(Names::Caller(b, d))) => a == b.as_ref() && c == d.as_ref(),
            _ => false,
        }
    }
}

impl Hash for MemberRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Members of one cache are all of one audience, so the kind itself need not go in.
        match self {
            Self::Everybody => {}
            Self::Tenant(tenant) => tenant.hash(state),
            Self::Caller(tenant, caller) => (tenant, caller).hash(state),
        }
    }
}

/// A key and whom it is for, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyed<K> {
    pub(super) member: Member,
    pub(super) key: K,
}

/// The same, as it is looked up.
#[derive(Debug)]
pub(super) struct Probe<'a, Q: ?Sized> {
    pub(super) member: MemberRef<'a>,
    pub(super) key: &'a Q,
}

impl<Q: ?Sized> Probe<'_, Q> {
    /// As it would be kept.
    pub(super) fn to_keyed<K: Borrow<Q>>(&self) -> Keyed<K>
    where
        Q: ToOwned<Owned = K>,
    {
        Keyed { member: self.member.to_member(), key: self.key.to_owned() }
    }
}

impl<Q: Hash + ?Sized> Hash for Probe<'_, Q> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.member.hash(state);
        self.key.hash(state);
    }
}

impl<K: Hash> Hash for Keyed<K> {
    /// As the [`Probe`] for it: `Borrow` promises that a key hashes as what it is looked up by.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.probe().hash(state);
    }
}

impl<K> Keyed<K> {
    pub(super) fn probe(&self) -> Probe<'_, K> {
        let member = match self.member.as_deref() {
            None => MemberRef::Everybody,
            Some(Names::Tenant(tenant)) => MemberRef::Tenant(tenant.as_ref()),
            Some(Names::Caller(tenant, caller)) => MemberRef::Caller(tenant.as_ref(), caller.as_ref()),
        };
        Probe { member, key: &self.key }
    }
}

impl<K: Borrow<Q>, Q: Eq + ?Sized> Equivalent<Keyed<K>> for Probe<'_, Q> {
    fn equivalent(&self, kept: &Keyed<K>) -> bool {
        self.key == kept.key.borrow() && self.member.is(&kept.member)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use mainstay_envelope::{CorrelationId, Priority, SeededChance, TraceContext};

    use super::*;

    #[test]
    fn a_probe_finds_what_was_kept_for_its_audience_and_nothing_else() {
        let chance = SeededChance::new(1);
        let envelope = |tenant: Option<&str>, caller: Option<&str>| {
            let envelope =
                Envelope::of(TraceContext::random(&chance), CorrelationId::random(&chance), Priority::Normal);
            let envelope = match tenant {
                Some(tenant) => envelope.with_tenant(Tenant::new(tenant).unwrap()),
                None => envelope,
            };
            match caller {
                Some(caller) => envelope.with_caller(Identity::new(caller).unwrap()),
                None => envelope,
            }
        };
        let all = [
            envelope(None, None),
            envelope(Some("a"), None),
            envelope(None, Some("a")),
            envelope(Some("a"), Some("b")),
            envelope(Some("b"), Some("a")),
        ];
        let hasher = std::hash::RandomState::new();
        type Apart = fn(&Envelope, &Envelope) -> bool;
        let audiences: [(Audience, Apart); 3] = [
            (Audience::Everybody, |_: &Envelope, _: &Envelope| false),
            (Audience::Tenant, |a: &Envelope, b: &Envelope| a.tenant() != b.tenant()),
            (Audience::Caller, |a: &Envelope, b: &Envelope| {
                (a.tenant(), a.caller()) != (b.tenant(), b.caller())
            }),
        ];
        for (audience, apart) in audiences {
            for kept_for in &all {
                let kept: Keyed<String> =
                    Probe { member: MemberRef::of(audience, kept_for), key: "k" }.to_keyed();
                for asker in &all {
                    let probe = Probe { member: MemberRef::of(audience, asker), key: "k" };
                    assert_eq!(probe.equivalent(&kept), !apart(kept_for, asker), "{audience:?}");
                    if probe.equivalent(&kept) {
                        assert_eq!(hasher.hash_one(&probe), hasher.hash_one(&kept));
                    }
                    assert!(!Probe { key: "other", member: probe.member }.equivalent(&kept));
                }
            }
        }
    }
}
