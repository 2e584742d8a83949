//! Appending inside a transaction: everything is looked at before the first write.

use std::borrow::Cow;

use mainstay_event_store::{
    Author,
    repeat::{self, Verdict},
};
use mainstay_event_store::{
    Condition, Expected, Hash, NewEvent, Position, Refusal, StreamName, Version, chain,
};

use super::transaction::{Stream, Transaction};
use crate::prepare::{self, Extra, Prepared};
use crate::{markers, select};

impl Transaction {
    /// The first event that matches the condition.
    pub(crate) fn violation(&self, condition: &Condition) -> Result<Option<Position>, Refusal> {
        let end = self.tail.get().position;
        if condition.after > end {
            let why = format!(
                "a condition counts from position {}, but the feed ends at {end}: its position is another store's",
                condition.after
            );
            return Err(Refusal::Invalid { what: "condition", why });
        }
        select::first_match(self.conn(), &condition.query, condition.after)
            .map_err(|error| self.engine(error))
    }

    /// Is any of these ids taken?
    fn any_id(&self, events: &[NewEvent]) -> rusqlite::Result<bool> {
        for event in events {
            if select::has_id(self.conn(), &event.id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges events by what is recorded under their ids; with the last position found.
    fn judge(&self, parts: &[repeat::Part<'_>]) -> Result<(Verdict, Position), Refusal> {
        let mut last = Position::START;
        let verdict = repeat::judge(parts, |id| {
            let found = select::by_id(self.conn(), &mut self.names.borrow_mut(), id)
                .map_err(|error| self.engine(error))?;
            if let Some(event) = &found {
                if markers::is_archived(event) {
                    let why = format!(
                        "it is recorded at position {}, and archived, so they can't be compared",
                        event.position
                    );
                    return Err(Refusal::IdTaken { id: *id, why });
                }
                last = last.max(event.position);
            }
            Ok::<_, Refusal>(found.map(Cow::Owned))
        })?;
        Ok((verdict, last))
    }

    /// Appends a whole act, or writes nothing. Everything is looked at before the first write, so that a
    /// refusal needs no savepoint.
    pub(crate) fn act(&self, act: &Prepared) -> Result<Acted, Refusal> {
        self.begin_job(act.origin.clone());
        let refused = match self.check(act) {
            // One new event of a known stream, the common case: its id is checked by the insert itself.
            Ok(()) if self.single(act) => match self.write_all(act) {
                Err(WriteError::IdTaken) => None,
                Err(WriteError::Engine(refusal)) => return Err(refusal),
                Ok(acted) => return Ok(acted),
            },
            Ok(()) => None,
            Err(refusal) if self.broken.borrow().is_some() => return Err(refusal),
            Err(refusal) => Some(refusal),
        };
        let parts: Vec<repeat::Part<'_>> =
            act.parts.iter().map(|part| (&part.stream, part.events.as_slice())).collect();
        let mut known = false;
        for part in &act.parts {
            known = known || self.any_id(&part.events).map_err(|error| self.engine(error))?;
        }
        // An act that is on disk already is acknowledged again, whatever it expects.
        if known && let (Verdict::Repeated(versions), position) = self.judge(&parts)? {
            let mut answer = Vec::with_capacity(versions.len());
            for (part, version) in act.parts.iter().zip(versions) {
                let version = match version {
                    Some(version) => version,
                    None => self.version_of(&part.stream)?,
                };
                answer.push((part.stream.clone(), version));
            }
            return Ok(Acted { versions: answer, last: position, repeated: true });
        }
        match refused {
            Some(refusal) => Err(refusal),
            None => self.write_all(act).map_err(|error| match error {
                WriteError::Engine(refusal) => refusal,
                WriteError::IdTaken => self.engine(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                    Some("an id is in its index, but not in the table".into()),
                )),
            }),
        }
    }

    /// Do expectations and conditions hold?
    fn check(&self, act: &Prepared) -> Result<(), Refusal> {
        for part in &act.parts {
            let actual = self.version_of(&part.stream)?;
            if !part.expected.allows(actual) {
                let (stream, expected) = (part.stream.clone(), part.expected);
                return Err(Refusal::Conflict { stream, expected, actual });
            }
        }
        for (index, condition) in act.conditions.iter().enumerate() {
            if let Some(found) = self.violation(condition)? {
                return Err(Refusal::ConditionFailed { index, found: Some(found) });
            }
        }
        Ok(())
    }

    fn single(&self, act: &Prepared) -> bool {
        match act.parts.as_slice() {
            [part] => part.events.len() == 1 && self.streams.borrow().contains_key(&part.stream),
            _ => false,
        }
    }

    fn write_all(&self, act: &Prepared) -> Result<Acted, WriteError> {
        let mut versions = Vec::with_capacity(act.parts.len());
        for part in &act.parts {
            let version = if part.events.is_empty() {
                self.version_of(&part.stream).map_err(WriteError::Engine)?
            } else {
                self.write(&part.stream, &part.events, &part.extras)?
            };
            versions.push((part.stream.clone(), version));
        }
        Ok(Acted { versions, last: self.tail().position, repeated: false })
    }

    /// Writes events of a stream that was checked.
    fn write(&self, name: &StreamName, events: &[NewEvent], extras: &[Extra]) -> Result<Version, WriteError> {
        let stream = self.stream(name).map_err(|error| WriteError::Engine(self.engine(error)))?;
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.create_stream(name).map_err(|error| WriteError::Engine(self.engine(error)))?,
        };
        let origin = self.origin.borrow();
        let mut tail = self.tail.get();
        for (event, extra) in events.iter().zip(extras) {
            let position = tail.position.next();
            let version = Version(stream.version.0 + 1);
            let hash = chain::link(tail.hash, position, version, extra.content);
            let place = Place { position, stream: stream.id, version, hash };
            match self.insert(&origin, &place, event, extra) {
                Ok(()) => {}
                Err(error) if taken(&error) => return Err(WriteError::IdTaken),
                Err(error) => return Err(WriteError::Engine(self.engine(error))),
            }
            tail.position = position;
            tail.hash = hash;
            stream.version = version;
            self.tail.set(tail);
        }
        self.remember(name, stream);
        Ok(stream.version)
    }

    fn create_stream(&self, name: &StreamName) -> rusqlite::Result<Stream> {
        self.conn()
            .prepare_cached("insert into main.mainstay_streams(name) values (?1)")?
            .execute([name.as_str()])?;
        Ok(Stream { id: self.conn().last_insert_rowid(), version: Version::EMPTY })
    }

    fn insert(
        &self,
        origin: &Author,
        place: &Place,
        event: &NewEvent,
        extra: &Extra,
    ) -> rusqlite::Result<()> {
        let position = place.position.0 as i64;
        self.conn()
            .prepare_cached(
                "insert into main.mainstay_events
                 (position, stream, version, id, type, schema, at, tags, envelope, key, payload, hash)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute((
                position,
                place.stream,
                place.version.0 as i64,
                event.id.as_bytes().as_slice(),
                event.event_type.as_str(),
                event.schema,
                origin.at.as_millis(),
                extra.tags.as_str(),
                &*origin.envelope,
                event.payload.key.as_ref().map(|key| key.as_str()),
                &*event.payload.bytes,
                place.hash.0.as_slice(),
            ))?;
        let mut keys =
            self.conn().prepare_cached("insert into main.mainstay_keys(key, position) values (?1, ?2)")?;
        for key in &extra.keys {
            keys.execute((key, position))?;
        }
        Ok(())
    }

    pub(super) fn append_inside(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        mainstay_event_store::check_events(events.iter())?;
        let origin = self.origin.borrow().clone();
        let verdict = if self.any_id(events).map_err(|error| self.engine(error))? {
            self.judge(&[(stream, events)])?.0
        } else {
            Verdict::New
        };
        if let Verdict::Repeated(versions) = verdict
            && let Some(Some(version)) = versions.first()
        {
            return Ok(*version);
        }
        let actual = self.version_of(stream)?;
        if !expected.allows(actual) {
            return Err(Refusal::Conflict { stream: stream.clone(), expected, actual });
        }
        if events.is_empty() {
            return Ok(actual);
        }
        let extras: Vec<Extra> = events.iter().map(|event| prepare::extra(stream, event, &origin)).collect();
        self.write(stream, events, &extras).map_err(|error| match error {
            WriteError::Engine(refusal) => refusal,
            WriteError::IdTaken => Refusal::IdTaken { id: events[0].id, why: "another event has it".into() },
        })
    }
}

/// Where an event stands.
struct Place {
    position: Position,
    stream: i64,
    version: Version,
    hash: Hash,
}

/// An act that will be on disk with the group's commit.
#[derive(Debug)]
pub(crate) struct Acted {
    pub(crate) versions: Vec<(StreamName, Version)>,
    pub(crate) last: Position,
    pub(crate) repeated: bool,
}

pub(crate) enum WriteError {
    /// The id of the event stands on another row.
    IdTaken,
    Engine(Refusal),
}

fn taken(error: &rusqlite::Error) -> bool {
    // Only the unique index of ids can refuse: position and version were just counted under the write lock.
    matches!(error, rusqlite::Error::SqliteFailure(failure, Some(message))
        if failure.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE && message.ends_with("mainstay_events.id"))
}
