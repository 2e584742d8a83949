//! The one who asks: takes the rows that are due, asks the processor, and records how it ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::Context;
use mainstay::envelope::{CausationId, Deadline, Envelope};
use mainstay::flow::unit_of_work::{Work, transact};
use mainstay::store::{Abort, Position, ReadError, Store, TransactError};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::calls::{Calls, Ended};
use super::due::{Ask, Due, Dues};
use crate::domain::account::{AccountCommand, AccountRefusal};
use crate::domain::{OrderId, Reason};
use crate::payment::Ledger;
use crate::service::App;
use crate::service::metrics::{Text, counter, gauge};

/// Rows that are asked at a time; the policy's bulkhead lets fewer through.
const UNDER_WAY_MAX: usize = 64;

/// How long all that is done for one row at once may take: the policy's own time, and the recording.
const TURN: Duration = Duration::from_secs(10);

/// How often it looks without being woken.
const RECHECK: Duration = Duration::from_secs(1);

/// Commits that are looked at after somebody said that a row is on its way: its own, and those that come before it.
const COMMITS: u32 = 16;

/// The waits between two tries grow from the first to the last.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// After so many tries operators are told that a void is not getting through.
const TOLD_AFTER: u32 = 10;

/// What has come of the questions since the start.
#[derive(Debug, Default)]
struct Counts {
    under_way: AtomicU64,
    charged: AtomicU64,
    declined: AtomicU64,
    voided: AtomicU64,
    given_up: AtomicU64,
    postponed: AtomicU64,
}

/// Asks the card processor, and is told when there is something to ask.
#[derive(Debug, Clone)]
pub(in crate::payment) struct Collector<S: Store> {
    app: Arc<App<S>>,
    ledger: Ledger,
    dues: Dues,
    calls: Calls,
    hint: Arc<Notify>,
    counts: Arc<Counts>,
}

impl<S: Store> Collector<S> {
    pub(in crate::payment) fn new(app: Arc<App<S>>, ledger: Ledger, dues: Dues, calls: Calls) -> Self {
        Self { app, ledger, dues, calls, hint: Arc::default(), counts: Arc::default() }
    }

    /// Rung when a row is being written. It is there only once its transaction has committed.
    pub(in crate::payment) fn hint(&self) -> Arc<Notify> {
        Arc::clone(&self.hint)
    }

    /// How it stands.
    pub(in crate::payment) fn show(&self) -> impl Fn(&mut Text) + Send + Sync + 'static {
        let counts = Arc::clone(&self.counts);
        move |text| {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let help = "Questions to the card processor that are under way.";
            gauge(text, "shop_card_under_way", help, &[], read(&counts.under_way) as f64);
            for (outcome, count) in [
                ("charged", &counts.charged),
                ("declined", &counts.declined),
                ("voided", &counts.voided),
                ("given_up", &counts.given_up),
                ("postponed", &counts.postponed),
            ] {
                let help = "How questions to the card processor ended.";
                counter(text, "shop_card_outcomes_total", help, &[("outcome", outcome)], read(count));
            }
        }
    }

    /// Asks for one row, and records how it ended.
    async fn settle(&self, due: Due) {
        let cx = self.context(&due);
        self.counts.under_way.fetch_add(1, Ordering::Relaxed);
        let ended = self.calls.ask(&cx, &due).await;
        self.counts.under_way.fetch_sub(1, Ordering::Relaxed);
        // The key is made of an id, and always one.
        let ended = ended.unwrap_or_else(|error| Ended::Refused(error.to_string()));
        let written = match (&due.ask, ended) {
            (Ask::Charge { lines }, Ended::Done) => {
                let command = AccountCommand::CardCharged {
                    order: due.order,
                    customer: due.customer.clone(),
                    amount: due.amount,
                    lines: lines.clone(),
                };
                self.record(&cx, &due, Some(command), None, &self.counts.charged).await
            }
            (Ask::Charge { .. }, Ended::Declined) => {
                let command = refused(&due, Reason::CardDeclined);
                self.record(&cx, &due, Some(command), None, &self.counts.declined).await
            }
            (Ask::Charge { .. }, Ended::Refused(why)) => {
                self.app
                    .tell(&format!("the card processor refuses the charge of order {}: {why}", due.order));
                self.give_up(&cx, &due).await
            }
            (Ask::Charge { .. }, Ended::Unknown { .. })
                if due.age(cx.wall()) >= self.app.limits().card_time =>
            {
                self.give_up(&cx, &due).await
            }
            (Ask::Void, Ended::Done) => self.record(&cx, &due, None, None, &self.counts.voided).await,
            (Ask::Void, Ended::Declined) => self.postpone(&cx, &due, None, true).await,
            (Ask::Void, Ended::Refused(why)) => {
                self.app.tell(&format!("the card processor refuses to void order {}: {why}", due.order));
                self.postpone(&cx, &due, None, true).await
            }
            (_, Ended::Unknown { after, asked }) => self.postpone(&cx, &due, after, asked).await,
        };
        if let Err(error) = written {
            let order = due.order;
            self.app.tell(&format!(
                "how the card of order {order} was charged can't be recorded: {error}; it is asked again"
            ));
            // The row is as it was, and due at once.
            tokio::time::sleep(RECHECK).await;
        }
    }

    /// In the name of whoever made the order.
    fn context(&self, due: &Due) -> Context {
        let cx = self.app.cx();
        let cause = due.fact.causation.unwrap_or(CausationId(due.order.0));
        let envelope = Envelope::from_fact(&due.fact, cause, Deadline::at(cx.now() + TURN), &**cx.chance());
        cx.with_envelope(envelope)
    }

    /// The order is refused; what may have been charged is voided, for however long that takes.
    async fn give_up(&self, cx: &Context, due: &Due) -> Result<(), TransactError<AccountRefusal>> {
        let void = Due { ask: Ask::Void, tries: 0, ..due.clone() };
        let command = refused(due, Reason::CardUnavailable);
        self.record(cx, due, Some(command), Some((void, Duration::ZERO)), &self.counts.given_up).await
    }

    async fn postpone(
        &self,
        cx: &Context,
        due: &Due,
        after: Option<Duration>,
        asked: bool,
    ) -> Result<(), TransactError<AccountRefusal>> {
        let later = Due { tries: due.tries.saturating_add(u32::from(asked)), ..due.clone() };
        if due.ask == Ask::Void && later.tries == TOLD_AFTER && later.tries != due.tries {
            self.app.tell(&format!(
                "order {} is cancelled and its card not voided yet; it is tried on",
                due.order
            ));
        }
        let wait = wait(later.tries, after, cx.next_u64());
        self.record(cx, due, None, Some((later, wait)), &self.counts.postponed).await
    }

    /// Records how it ended, with what is to be asked next, if the row is still there: in one transaction, so it is
    /// recorded once, whoever dies and however often it runs.
    async fn record(
        &self,
        cx: &Context,
        due: &Due,
        command: Option<AccountCommand>,
        next: Option<(Due, Duration)>,
        count: &AtomicU64,
    ) -> Result<(), TransactError<AccountRefusal>> {
        let (ledger, dues, asked) = (self.ledger.clone(), self.dues.clone(), due.clone());
        let done = transact(self.app.store(), cx, self.app.publisher(), move |work: &Work<'_, S>| {
            if !dues.holds(work.tx(), &asked)? {
                return Ok(false);
            }
            if let Some(command) = &command {
                let stream = Ledger::stream(&asked.customer)?;
                let key = asked.order.to_string();
                work.act(&ledger.entity, &stream, &key, command)?.map_err(Abort::User)?;
            }
            match &next {
                Some((next, wait)) => dues.put(work.tx(), &next.clone().after(work.at(), *wait))?,
                None => dues.remove(work.tx(), asked.order)?,
            }
            Ok(true)
        });
        if done.await?.value {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn refused(due: &Due, reason: Reason) -> AccountCommand {
    AccountCommand::CardRefused { order: due.order, reason }
}

/// How long until it is asked again: no sooner than it was said, growing with the tries, and spread by chance so that
/// what failed together does not come back together.
fn wait(tries: u32, after: Option<Duration>, draw: u64) -> Duration {
    let grown = WAIT_MIN.saturating_mul(1 << tries.min(16)).min(WAIT_MAX);
    let least = after.unwrap_or_default().max(grown / 2);
    least + (grown / 2).mul_f64((draw >> 11) as f64 / (1_u64 << 53) as f64)
}

/// Runs until it is dropped. What is under way then is asked again by the next process, under the same keys.
pub(in crate::payment) async fn collect<S: Store>(collector: Collector<S>) {
    let (mut turns, mut asked) = (JoinSet::new(), HashSet::new());
    let mut expected = 0_u32;
    loop {
        let (head, rest) = match look(&collector, &mut turns, &mut asked, expected > 0).await {
            Ok(found) => found,
            Err(error) => {
                collector.app.tell(&format!(
                    "what is due at the card processor can't be read: {error}; it is tried again"
                ));
                (None, RECHECK)
            }
        };
        let passed = async {
            match head {
                Some(head) => collector.app.store().wait_past(head, RECHECK).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = turns.join_next() => {
                match ended {
                    Ok(order) => drop(asked.remove(&order)),
                    // A turn that panicked: its row is looked at again, after a pause.
                    Err(error) => {
                        collector.app.tell(&format!("a question to the card processor failed: {error}"));
                        tokio::time::sleep(RECHECK).await;
                        asked.clear();
                        turns.shutdown().await;
                    }
                }
            }
            () = collector.hint.notified() => expected = COMMITS,
            () = passed => expected = expected.saturating_sub(1),
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Begins what is due; the head of the store before it looked, if that is wanted, and how long it may rest.
async fn look<S: Store>(
    collector: &Collector<S>,
    turns: &mut JoinSet<OrderId>,
    asked: &mut HashSet<OrderId>,
    wants_head: bool,
) -> Result<(Option<Position>, Duration), ReadError> {
    let (store, now) = (collector.app.store(), collector.app.cx().wall());
    let head = match wants_head {
        true => Some(store.head().await?.position),
        false => None,
    };
    // Those that are under way are due, too, until they have ended.
    let (due, next) = collector.dues.first(store, now, UNDER_WAY_MAX * 2).await?;
    for due in due {
        if asked.len() >= UNDER_WAY_MAX {
            break;
        }
        if asked.insert(due.order) {
            let collector = collector.clone();
            turns.spawn(async move {
                let order = due.order;
                collector.settle(due).await;
                order
            });
        }
    }
    Ok((head, next.map_or(RECHECK, |next| next.min(RECHECK))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_are_spread_and_no_shorter_than_was_said() {
        let ms = Duration::from_millis;
        assert_eq!((wait(0, None, 0), wait(3, None, 0), wait(1_000, None, 0)), (ms(50), ms(400), ms(2_500)));
        assert!(wait(0, None, u64::MAX) > ms(99) && wait(1_000, None, u64::MAX) <= WAIT_MAX);
        assert_eq!(wait(0, Some(ms(700)), 0), ms(700));
    }
}
