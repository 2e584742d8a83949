//! The walk along the chain that several commands make.

use anyhow::Result;
use mainstay::sqlite::Sqlite;
use mainstay::store::{Broken, Head, Query, Store, Verifier};

use crate::output::Output;

/// Proves every link from where the verifier stands to the end of the feed, and that the feed had these heads
/// when it came past them; the head it ends with.
pub(crate) async fn prove(
    store: &Sqlite,
    mut verifier: Verifier,
    kept: &[Head],
    output: &Output,
) -> Result<Head> {
    let mut kept = kept.to_vec();
    kept.sort_by_key(|head| head.position);
    let begins = verifier.head().position;
    let mut waiting = kept.iter().filter(|head| head.position >= begins).peekable();
    let mut matches = |head: Head| {
        while let Some(kept) = waiting.next_if(|kept| kept.position == head.position) {
            if kept.hash != head.hash {
                return Err(Broken::Rewritten { at: head.position });
            }
        }
        Ok(())
    };
    matches(verifier.head())?;
    loop {
        let page = store.read(&Query::all(), verifier.head().position, usize::MAX).await?;
        for event in &page.events {
            verifier.check(event)?;
            matches(verifier.head())?;
        }
        if page.next.0.is_multiple_of(100_000) || page.at_end() {
            output.progress(&format!("verified {} of {}", page.next, page.head));
        }
        if page.at_end() {
            break;
        }
    }
    output.progress_done();
    let head = verifier.head();
    if let Some(missing) = kept.iter().find(|kept| kept.position > head.position) {
        return Err(Broken::Truncated { ends: head.position, expected: missing.position }.into());
    }
    Ok(head)
}
