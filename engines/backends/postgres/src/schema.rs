//! The schema's name, statements written for it, its version, and how it is made.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use mainstay_event_store::{Position, StoreId, chain};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use uuid::Uuid;

/// The version this build writes and reads.
pub(crate) const VERSION: i64 = 1;

/// All tables and functions, in the order in which they are made.
const PARTS: [&str; 3] =
    [include_str!("schema.sql"), include_str!("functions.sql"), include_str!("retention/inbox.sql")];

/// The name of the schema that holds a store's tables. Cheap to clone; clones share their statements' texts.
///
/// One database may hold any number of stores, each in a schema of its own.
#[derive(Clone)]
pub struct Schema(Arc<Inner>);

struct Inner {
    name: String,
    quoted: String,
    /// The texts with the name in place, by where the template stands.
    texts: RwLock<HashMap<usize, Arc<str>>>,
    /// The store that was found in it by [`crate::Joined`].
    store: OnceLock<StoreId>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.0.name)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Schema {}

/// A name that no schema of a store may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema name {name:?} refused: {why}; nothing was created; choose another name")]
pub struct BadSchema {
    /// As given, cut to 80 characters.
    pub name: String,
    /// The rule it breaks.
    pub why: &'static str,
}

impl Default for Schema {
    fn default() -> Self {
        Self::of("mainstay".to_owned())
    }
}

impl Schema {
    /// The longest name: what the server keeps of a name, less room for what we append.
    pub const BYTES_MAX: usize = 48;

    /// Checks a name: a small letter or `_`, then small letters, digits and `_`, at most [`Schema::BYTES_MAX`]
    /// bytes, not beginning with `pg_`.
    pub fn new(name: impl Into<String>) -> Result<Self, BadSchema> {
        let name = name.into();
        let refuse = |why| Err(BadSchema { name: name.chars().take(80).collect(), why });
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return refuse("it must have 1 to 48 bytes");
        }
        if name.starts_with("pg_") {
            return refuse("names that begin with pg_ are the server's");
        }
        let first = name.starts_with(|c: char| c == '_' || c.is_ascii_lowercase());
        if !first || !name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()) {
            return refuse("only small letters, digits and _ are allowed, and no digit first");
        }
        Ok(Self::of(name))
    }

    fn of(name: String) -> Self {
        let quoted = format!("\"{name}\"");
        Self(Arc::new(Inner { name, quoted, texts: RwLock::default(), store: OnceLock::new() }))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn known(&self) -> Option<StoreId> {
        self.0.store.get().copied()
    }

    pub(crate) fn remember(&self, store: StoreId) {
        // Whoever was faster has found the same.
        let _ = self.0.store.set(store);
    }

    /// The statement with this schema's name for `{s}`. Made once for each template; then it costs a look-up.
    pub(crate) fn sql(&self, template: &'static str) -> AssertSqlSafe<Arc<str>> {
        let place = template.as_ptr() as usize;
        let texts = self.0.texts.read().unwrap_or_else(PoisonError::into_inner);
        // Two templates may share a beginning in memory; then their lengths differ.
        if let Some(text) = texts.get(&place).filter(|text| self.is_of(text, template)) {
            return AssertSqlSafe(Arc::clone(text));
        }
        drop(texts);
        let text: Arc<str> = template.replace("{s}", &self.0.quoted).into();
        self.0.texts.write().unwrap_or_else(PoisonError::into_inner).insert(place, Arc::clone(&text));
        AssertSqlSafe(text)
    }

    fn is_of(&self, text: &str, template: &str) -> bool {
        let names = template.matches("{s}").count();
        text.len() + 3 * names == template.len() + self.0.quoted.len() * names
    }
}

/// What is there under a schema's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No such schema, or one without any table of ours.
    Nothing,
    /// A store, of this version and with this identity.
    Store { version: i64, id: StoreId },
    /// Tables with our names that are none of ours.
    Foreign(String),
}

/// Looks what is there.
pub(crate) async fn found(conn: &mut PgConnection, schema: &Schema) -> sqlx::Result<Found> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where n.nspname = $1 and c.relname in ('meta', 'stream', 'event', 'feed', 'round', 'outbox') order by 1",
    )
    .bind(schema.name())
    .persistent(false)
    .fetch_all(&mut *conn)
    .await?;
    let Some(first) = tables.first() else { return Ok(Found::Nothing) };
    if !tables.iter().any(|table| table == "meta") {
        return Ok(Found::Foreign(first.clone()));
    }
    let rows = sqlx::query(schema.sql("select key, value from {s}.meta where key in ('schema', 'store')"))
        .persistent(false)
        .fetch_all(conn)
        .await?;
    let mut values = HashMap::new();
    for row in rows {
        values.insert(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?);
    }
    let version = values.get("schema").and_then(|value| value.parse().ok());
    let id = values.get("store").and_then(|value| Uuid::parse_str(value).ok());
    Ok(match (version, id) {
        (Some(version), Some(id)) => Found::Store { version, id: StoreId(id) },
        _ => Found::Foreign("meta".to_owned()),
    })
}

/// Makes what is missing, in the open transaction of this connection; several processes at once do it once. What is there
/// is left alone.
pub(crate) async fn create(conn: &mut PgConnection, schema: &Schema, new_id: StoreId) -> sqlx::Result<Found> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('mainstay schema ' || $1, 0))")
        .bind(schema.name())
        .persistent(false)
        .execute(&mut *conn)
        .await?;
    let before = found(conn, schema).await?;
    if before != Found::Nothing {
        return Ok(before);
    }
    let exists: bool =
        sqlx::query_scalar("select exists(select from pg_catalog.pg_namespace where nspname = $1)")
            .bind(schema.name())
            .persistent(false)
            .fetch_one(&mut *conn)
            .await?;
    if !exists {
        conn.execute(schema.sql("create schema {s}")).await?;
    }
    for part in PARTS {
        // Several statements in one message: no parameters, nothing prepared.
        sqlx::raw_sql(schema.sql(part)).execute(&mut *conn).await?;
    }
    sqlx::query(schema.sql("insert into {s}.meta(key, value) values ('schema', $1), ('store', $2)"))
        .bind(VERSION.to_string())
        .bind(new_id.0.to_string())
        .persistent(false)
        .execute(&mut *conn)
        .await?;
    sqlx::query(schema.sql(
        "insert into {s}.round(number, slot, epoch, holder, until, at, position, hash, outbox, settled, origin)
         values (0, 0, 0, '', to_timestamp(0), clock_timestamp(), $1, $2, 0, '3:3:', '')",
    ))
    .bind(Position::START.0 as i64)
    .bind(chain::genesis(new_id).0.as_slice())
    .persistent(false)
    .execute(&mut *conn)
    .await?;
    Ok(Found::Store { version: VERSION, id: new_id })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use sqlx::SqlSafeStr;

    use super::*;

    #[test]
    fn a_schema_has_a_plain_name() {
        for good in ["mainstay", "_x", "a1_b2", &"s".repeat(48)] {
            assert!(Schema::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "Main", "a-b", "a\"b", "pg_store", "a b", "ä", &"s".repeat(49)] {
            assert!(Schema::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_statement_has_its_own_text() {
        let schema = Schema::new("one").unwrap();
        let template: &'static str = "select 1 from {s}.a join {s}.b";
        // The same place in memory, shorter: what the compiler may make of two statements.
        let shorter = &template[..17];
        for _ in 0..2 {
            assert_eq!(
                schema.sql(template).into_sql_str().as_str(),
                "select 1 from \"one\".a join \"one\".b"
            );
            assert_eq!(schema.sql(shorter).into_sql_str().as_str(), "select 1 from \"one\"");
        }
    }
}
