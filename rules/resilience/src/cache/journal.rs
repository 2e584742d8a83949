//! The port behind write-back: where what was acknowledged and not yet flushed survives a crash.

use std::fmt;
use std::future::Future;

use mainstay_envelope::Context;

/// The place of a write among all writes of one journal: a later write has a larger one, also after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A write that was acknowledged and is not settled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Which key, as text.
    pub key: String,
    /// The latest acknowledged write of it.
    pub version: Version,
    /// Its value; none: it is to be removed.
    pub value: Option<Vec<u8>>,
}

/// Keeps intents until they are settled.
///
/// ```text
///   append(k, a) ─► 1 ─► acknowledged         the journal holds, for each key, the latest intent that is not settled
///   append(k, b) ─► 2 ─► acknowledged         {k: 2 b}
///   pending()    ─► [k 2 b] ─► flushed to the database, with its version
///   append(k, c) ─► 3 ─► acknowledged         {k: 3 c}
///   settle(k, 2)                              {k: 3 c}: a later one is there, so nothing is forgotten
/// ```
///
/// It MUST:
/// 1. come back from [`append`](Self::append) with a version only when the intent is on disk: it survives a crash of
///    the process and of the machine;
/// 2. give versions that grow, over all keys, over restarts and whatever was settled;
/// 3. hand out every unsettled key's latest intent, after a restart too, in the order of versions;
/// 4. forget an intent only when it is settled with its own version or a later one;
/// 5. refuse the appends of a holder whom another has followed: of two processes on one journal, the later one writes.
pub trait Journal: Send + Sync + 'static {
    /// What can go wrong. An append that failed may have been recorded or not; then it is flushed or not.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Records that the value of a key is to be this (none: that it is to be removed), in place of what was to be.
    fn append(
        &self,
        cx: &Context,
        key: &str,
        value: Option<&[u8]>,
    ) -> impl Future<Output = Result<Version, Self::Error>> + Send;

    /// At most `max` unsettled intents with a version after this one, in the order of versions; fewer only at the end.
    fn pending(
        &self,
        after: Version,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Intent>, Self::Error>> + Send;

    /// These keys' writes up to these versions are in the database for good.
    fn settle(
        &self,
        cx: &Context,
        settled: &[(String, Version)],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
