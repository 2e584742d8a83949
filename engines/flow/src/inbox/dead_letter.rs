//! What an operator sees of parked messages, and may ask for: [`DeadLetters`].

use bytes::Bytes;
use mainstay_envelope::{CloudEvent, Context, MessageIdentity, Timestamp};
use mainstay_event_store::{Abort, BadName, Cursor, ReadError, Refusal, Scan, ScanBy, Store, TransactError};

use super::lane::Lane;
use super::parking::rows::{Asked, KeyRow, Letter, Rows, Views, decode, letter_key};
use super::parking::state::Status;

/// Letters behind a key's head that are shown at once.
const BEHIND_MAX: usize = 100;

/// The parked messages of a service's store, for operators. It may be used from another process than the service's:
/// what is asked for is written down, and the service does it when it looks, within about a second.
#[derive(Debug, Clone)]
pub struct DeadLetters<S> {
    store: S,
    views: Views,
}

/// A parked key: its head, and how many wait behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// Names the head: what to ask about.
    pub id: String,
    /// Who could not handle it.
    pub group: String,
    /// Whose message it is.
    pub topic: String,
    /// In which partition.
    pub partition: u32,
    /// The message key that is parked.
    pub key: String,
    /// Is it tried again by itself, or does it wait for an operator?
    pub status: Status,
    /// Why the head could not be handled; empty while a new head has not been tried.
    pub why: String,
    /// Messages of the key that are parked, the head included.
    pub messages: u64,
    /// Since when the key is parked.
    pub since: Timestamp,
}

/// A parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it: what to ask about.
    pub id: String,
    /// Its place in the log.
    pub offset: u64,
    /// When it was parked.
    pub parked: Timestamp,
    /// Which message it is.
    pub identity: MessageIdentity,
    /// Its number came with another content before: handling it is an operator's decision.
    pub altered: bool,
    /// Its attributes.
    pub event: CloudEvent,
    /// Its payload.
    pub data: Bytes,
}

/// Why an operator's word was not written down. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// No such message is parked.
    #[error("no message {0:?} is parked here; nothing was changed; list what is parked")]
    Unknown(String),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not take it.
    #[error(transparent)]
    Write(#[from] TransactError<std::convert::Infallible>),
}

impl<S: Store> DeadLetters<S> {
    /// Of this service's store.
    pub fn new(store: S) -> Result<Self, BadName> {
        Ok(Self { store, views: Views::new()? })
    }

    /// Parked keys, some at a time: at most `max`, and where to go on.
    pub async fn list(
        &self,
        after: Option<Cursor>,
        max: usize,
    ) -> Result<(Vec<ParkedKey>, Option<Cursor>), ReadError> {
        let by = ScanBy::Key { prefix: String::new() };
        let scan = Scan { view: self.views.keys.clone(), by, after, rows_max: max };
        let rows = self.store.view_scan(&scan).await?;
        let keys = rows.rows.iter().map(|(key, bytes)| {
            let row: KeyRow = decode(&self.views.keys, key, bytes)?;
            Ok(ParkedKey {
                id: shown(key, row.head),
                group: row.group,
                topic: row.topic,
                partition: row.partition,
                key: row.key,
                status: row.status,
                why: row.why,
                messages: row.messages,
                since: row.since,
            })
        });
        Ok((keys.collect::<Result<_, Refusal>>()?, rows.next))
    }

    /// A parked message, and up to 100 that wait behind it under its key, in their order.
    pub async fn show(&self, id: &str) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let (row_key, key) = self.find(id).await?;
        let mut found = vec![self.letter(&row_key).await?];
        let by = ScanBy::Key { prefix: format!("{key}-") };
        let after = Some(Cursor { value: None, key: row_key });
        let scan = Scan { view: self.views.letters.clone(), by, after, rows_max: BEHIND_MAX };
        for (row_key, _) in self.store.view_scan(&scan).await?.rows {
            found.push(self.letter(&row_key).await?);
        }
        Ok(found)
    }

    /// Asks that the message's key be tried again now, with all its tries. Of an altered message it says that this
    /// one, too, is to be handled.
    pub async fn retry(&self, cx: &Context, id: &str) -> Result<(), DeadLetterError> {
        self.ask(cx, id, Asked::Retry).await
    }

    /// Asks that the message never be handled. What waits behind it goes on.
    pub async fn discard(&self, cx: &Context, id: &str) -> Result<(), DeadLetterError> {
        self.ask(cx, id, Asked::Discard).await
    }

    async fn ask(&self, cx: &Context, id: &str, asked: Asked) -> Result<(), DeadLetterError> {
        let (row_key, _) = self.find(id).await?;
        let letter = self.stored(&row_key).await?;
        let lane = Lane::new(&letter.group, &letter.topic, letter.partition).map_err(ReadError::from)?;
        let views = self.views.clone();
        let write = move |tx: &S::Tx| {
            Rows { tx, views: &views, lane: &lane }.ask(&row_key, asked).map_err(Abort::Refused)
        };
        self.store.transact(cx, write).await?;
        Ok(())
    }

    /// The row key of a message by what it is shown as, and its key's part.
    async fn find(&self, id: &str) -> Result<(String, String), DeadLetterError> {
        let unknown = || DeadLetterError::Unknown(id.chars().take(60).collect());
        let (key, number) = id.split_once('-').ok_or_else(unknown)?;
        let row_key = letter_key(key, number.parse().map_err(|_| unknown())?);
        match self.store.view_get(&self.views.letters, &row_key).await? {
            Some(_) => Ok((row_key, key.to_owned())),
            None => Err(unknown()),
        }
    }

    async fn stored(&self, row_key: &str) -> Result<Letter, DeadLetterError> {
        match self.store.view_get(&self.views.letters, row_key).await? {
            Some(bytes) => Ok(decode(&self.views.letters, row_key, &bytes).map_err(ReadError::from)?),
            None => Err(DeadLetterError::Unknown(row_key.to_owned())),
        }
    }

    async fn letter(&self, row_key: &str) -> Result<DeadLetter, DeadLetterError> {
        let letter = self.stored(row_key).await?;
        let data = self.store.view_get(&self.views.data, row_key).await?.unwrap_or_default();
        let key = row_key.split('-').next().unwrap_or_default();
        Ok(DeadLetter {
            id: shown(key, letter.number),
            offset: letter.offset,
            parked: letter.parked,
            event: letter.event().map_err(ReadError::from)?,
            identity: letter.identity,
            altered: letter.altered,
            data: Bytes::from(data),
        })
    }
}

fn shown(key: &str, number: u64) -> String {
    format!("{key}-{number}")
}
