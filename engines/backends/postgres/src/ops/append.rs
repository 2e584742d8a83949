//! Appending inside a transaction.

use mainstay_event_store::{Refusal, StreamName, Version};
use sqlx::PgConnection;

use super::{Ended, Place};
use crate::append::{Form, Prepared, Verdict, resolve, send};
use crate::receipt::Mark;

/// How often an id may be met that somebody records at this very moment, before it is called a race.
const AGAIN_MAX: usize = 8;

/// What became of an act.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) versions: Vec<(StreamName, Version)>,
    pub(crate) mark: Mark,
    pub(crate) repeated: bool,
}

/// Appends an act, or writes nothing of it. `frozen`: the transaction's statements all see one moment.
pub(crate) async fn append(
    conn: &mut PgConnection,
    place: &Place,
    act: Prepared,
    frozen: bool,
) -> Ended<Appended> {
    let acts = [act];
    for _ in 0..AGAIN_MAX {
        let locks = &acts[0].locks;
        let persistent = place.persistent();
        let answer =
            send(&mut *conn, &place.schema, place.store, &acts, locks, Form::Inside, persistent).await?;
        if answer.again {
            if frozen {
                break;
            }
            continue;
        }
        return Ok(match answer.verdicts.into_iter().next() {
            Some(Verdict::Written { versions, mark }) => Ok(Appended { versions, mark, repeated: false }),
            Some(Verdict::Refused(refusal)) => Err(refusal),
            Some(Verdict::Known) | None => {
                let resolved = resolve(&mut *conn, &place.schema, &acts[0], persistent).await?;
                resolved.map(|(versions, mark)| Appended { versions, mark, repeated: true })
            }
        });
    }
    Ok(Err(lost_race()))
}

/// Somebody else recorded the same id at this very moment, and this transaction can't look again.
pub(crate) fn lost_race() -> Refusal {
    Refusal::Busy { why: "an event with one of these ids is being recorded at this very moment".into() }
}
