//! Can the store do its work now? Asked of the server, and decided from what it answers.

use std::time::Duration;

use mainstay_event_store::ReadError;

use crate::store::Postgres;

/// A feed whose last round is older than this stands: an active sequencer records one every 250 ms, and a new one takes
/// over after a lease of 3 s.
const STANDS_AFTER: Duration = Duration::from_secs(10);

/// How long the server's answer is waited for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// What the server said.
#[derive(Debug)]
enum Beat {
    /// Nothing in time.
    Silent,
    /// That it can't be read.
    Unread(ReadError),
    /// Whether it takes writes, and the age of the last round.
    Of { leads: bool, age: Option<Duration> },
}

/// The same words as long as it is the same trouble: no figure that grows.
fn trouble(beat: &Beat, sequencer: Option<&str>) -> Option<String> {
    match beat {
        Beat::Silent => Some(format!("the server has not answered within {ANSWERED_WITHIN:?}")),
        Beat::Unread(error) => Some(format!("the server can't be read: {error}")),
        Beat::Of { leads: false, .. } => {
            Some("the server follows another one, and takes no writes; it is to be promoted, or the leader's URL given".into())
        }
        Beat::Of { age: Some(age), .. } if *age <= STANDS_AFTER => None,
        Beat::Of { .. } => {
            let why = sequencer.map_or(String::new(), |why| format!("; this process's says: {why}"));
            Some(format!(
                "no sequencer has recorded a round for more than {STANDS_AFTER:?}: what is written is kept, and nobody gets \
                 to see it{why}"
            ))
        }
    }
}

impl Postgres {
    /// Why this store can't do its work now, none when it can: its server is not reached, takes no writes, or no
    /// sequencer gives places. Costs a round trip, and waits 3 s at most.
    pub async fn unhealthy(&self) -> Option<String> {
        let beat = match tokio::time::timeout(ANSWERED_WITHIN, self.heartbeat()).await {
            Err(_) => Beat::Silent,
            Ok(Err(error)) => Beat::Unread(error),
            Ok(Ok((leads, age))) => Beat::Of { leads, age },
        };
        let sequencer = self.sequencer().and_then(|status| status.trouble);
        trouble(&beat, sequencer.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_well_while_its_server_takes_writes_and_its_heart_beats() {
        let of = |leads, age: Option<u64>| Beat::Of { leads, age: age.map(Duration::from_millis) };
        for (beat, words) in [
            (of(true, Some(0)), None),
            (of(true, Some(10_000)), None),
            (of(true, Some(10_001)), Some("no sequencer has recorded a round")),
            (of(true, None), Some("no sequencer has recorded a round")),
            (of(false, Some(0)), Some("follows another one")),
            (Beat::Silent, Some("has not answered")),
            (Beat::Unread(ReadError::Unavailable { why: "gone".into(), passing: true }), Some("gone")),
        ] {
            let told = trouble(&beat, None);
            let is_as_wanted = match (words, &told) {
                (Some(words), Some(told)) => told.contains(words),
                (None, None) => true,
                _ => false,
            };
            assert!(is_as_wanted, "{beat:?}: {told:?}");
        }
        let told = trouble(&of(true, None), Some("no rights"));
        assert!(told.is_some_and(|told| told.ends_with("this process's says: no rights")));
    }
}
