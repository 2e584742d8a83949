//! Opening: everything that could make the store unusable is found out here, in words that say what to do.

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::StoreId;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sqlx::{Connection, Executor, PgConnection, Row};

use crate::connect;
use crate::durability::{Otherwise, Require, Settings, decide};
use crate::error::words;
use crate::limit::within;
use crate::options::Options;
use crate::schema::{self, Found, Schema, VERSION};

/// The oldest server that is supported: what is tested. (`xid8` and `pg_snapshot`, on which the feed rests, came with 13.)
pub const SERVER_MIN: u32 = 15;

/// Why a store could not be opened. Nothing was created, nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL, or a setting, is none that can be used.
    #[error(
        "the server's URL can't be used: {why}; nothing was created; it has the form \
         postgres://user:password@host:port/database?sslmode=verify-full"
    )]
    BadUrl {
        /// What is wrong with it. Never the URL itself: it may hold a password.
        why: String,
    },
    /// Another setting contradicts itself.
    #[error("{setting} can't be used: {why}; nothing was created; mend the setting")]
    BadSetting {
        /// Which.
        setting: &'static str,
        /// Why.
        why: String,
    },
    /// Nobody answers there.
    #[error("no server can be reached at {at}: {why}; nothing was created; start it, or mend host and port")]
    Unreachable {
        /// Host and port.
        at: String,
        /// The system's words.
        why: String,
    },
    /// No protected connection came about.
    #[error(
        "no TLS connection to {at}: {why}; nothing was created; mend the certificate or sslrootcert, or choose another \
         sslmode"
    )]
    Tls {
        /// Host and port.
        at: String,
        /// Why.
        why: String,
    },
    /// The server does not let this user in.
    #[error("the server at {at} refuses user {user:?}: {why}; nothing was created; mend user and password")]
    Password {
        /// Host and port.
        at: String,
        /// Who wanted in.
        user: String,
        /// The server's words.
        why: String,
    },
    /// There is no such database.
    #[error("{why}; nothing was created; create the database, or mend its name in the URL")]
    NoDatabase {
        /// The server's words.
        why: String,
    },
    /// This user may not do what a store does.
    #[error(
        "user {user:?} may not use schema {schema}: {why}; nothing was created; grant it what the schema's owner may, or \
         let a user open the store first who may create a schema"
    )]
    Permission {
        /// Who.
        user: String,
        /// The schema.
        schema: String,
        /// What is missing.
        why: String,
    },
    /// The server is too old.
    #[error("the server is PostgreSQL {found}; nothing was created; version {SERVER_MIN} or newer is needed")]
    ServerVersion {
        /// As it says.
        found: String,
    },
    /// The database does not keep texts as they are.
    #[error(
        "the database keeps texts as {found}, not as UTF8; nothing was created; make one with encoding 'UTF8' for the store"
    )]
    Encoding {
        /// Its encoding.
        found: String,
    },
    /// The server only follows another one.
    #[error(
        "the server at {at} is a replica, or set to read only; nothing was created; give the leader's URL, or open it with \
         Options::read_only"
    )]
    ReadOnlyServer {
        /// Host and port.
        at: String,
    },
    /// What the server acknowledges may be lost.
    #[error(
        "what the server at {at} acknowledges does not survive {failure}: {why}; nothing was created; change that setting of \
         the server, the database or the user, or accept the loss with Options::durability"
    )]
    NotDurable {
        /// Host and port.
        at: String,
        /// What it does not survive.
        failure: Require,
        /// Which setting makes it so.
        why: String,
    },
    /// There is no store in that schema.
    #[error(
        "there is no store in schema {schema}; nothing was created; open it without Options::existing to make one"
    )]
    NoStore {
        /// The schema.
        schema: String,
    },
    /// The schema holds tables of somebody else.
    #[error(
        "schema {schema} has a table {table} that is none of this store's; nothing was created; choose another schema"
    )]
    Foreign {
        /// The schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// The store was written by a newer build.
    #[error(
        "schema {schema} has version {found}, this build knows {VERSION}; nothing was changed; use a newer build"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i64,
    },
    /// The store was written by an older build, and there is no way from its version to this one.
    #[error(
        "schema {schema} has version {found}, which this build, of version {VERSION}, can't bring up to date; nothing was \
         changed; use the build that wrote it"
    )]
    Older {
        /// The schema.
        schema: String,
        /// Its version.
        found: i64,
    },
    /// Anything else.
    #[error("the store in schema {schema} can't be opened: {why}; nothing was created")]
    Failed {
        /// The schema.
        schema: String,
        /// What happened.
        why: String,
    },
}

/// What was found out about server and store.
pub(crate) struct Opened {
    pub(crate) id: StoreId,
    pub(crate) connect: PgConnectOptions,
}

/// Whom an error concerns.
struct Whom {
    at: String,
    user: String,
    schema: String,
}

impl Whom {
    fn of(connect: &PgConnectOptions, schema: &Schema) -> Self {
        let at = match connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", connect.get_host(), connect.get_port()),
        };
        Self { at, user: connect.get_username().to_owned(), schema: schema.name().to_owned() }
    }

    fn error(&self, error: &sqlx::Error) -> OpenError {
        let Self { at, user, schema } = self;
        let (at, user, schema, why) = (at.clone(), user.clone(), schema.clone(), words(error));
        match error {
            sqlx::Error::Database(database) => {
                let error = database.try_downcast_ref::<PgDatabaseError>();
                match error.map_or("", PgDatabaseError::code) {
                    // Also "no pg_hba.conf entry ..., no encryption": the server's words tell which.
                    "28P01" | "28000" => OpenError::Password { at, user, why },
                    "3D000" => OpenError::NoDatabase { why },
                    "42501" => OpenError::Permission { user, schema, why },
                    "25006" => OpenError::ReadOnlyServer { at },
                    "57P03" => OpenError::Unreachable { at, why },
                    _ => OpenError::Failed { schema, why },
                }
            }
            sqlx::Error::Tls(_) => OpenError::Tls { at, why },
            sqlx::Error::Configuration(_) => OpenError::BadUrl { why },
            // A handshake that fails ends as an I/O error with the library's reason in it.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                OpenError::Tls { at, why }
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => OpenError::Unreachable { at, why },
            _ => OpenError::Failed { schema, why },
        }
    }
}

/// A server that takes so long to be looked at, and for its schema to be made or brought up to date, is taken for lost.
const OPEN_MAX: Duration = Duration::from_secs(10 * 60);

/// Connects once, looks at everything, and makes the schema when it is to be made.
pub(crate) async fn open(options: &Options, cx: &Context) -> Result<Opened, OpenError> {
    if let Some(spec) = &options.sequencer {
        spec.check()
            .map_err(|invalid| OpenError::BadSetting { setting: "sequencer", why: invalid.to_string() })?;
    }
    let (mut conn, whom, connect) = connected(options).await?;
    let durability = (!options.read_only).then_some(&options.durability);
    let Options { schema, create, read_only, .. } = options;
    let wanted = Wanted { schema, create: *create, read_only: *read_only, durability };
    let looking = async { Ok(look(&mut conn, &whom, &wanted, cx).await) };
    let found = within(OPEN_MAX, looking).await.unwrap_or_else(|error| Err(whom.error(&error)));
    // Whatever it says: all is known, or nothing was done.
    let _ = conn.close().await;
    Ok(Opened { id: found?, connect })
}

impl Settings {
    /// Asks the server of these options. Nothing is created; a replica, which acknowledges nothing, is refused.
    pub async fn ask(options: &Options) -> Result<Self, OpenError> {
        let (mut conn, whom, _) = connected(options).await?;
        let asked = async {
            conn.execute("begin read only").await?;
            let follows = sqlx::query_scalar("select pg_is_in_recovery()").persistent(false);
            let settings = match follows.fetch_one(&mut conn).await? {
                true => None,
                false => Some(Self::read(&mut conn).await?),
            };
            conn.execute("commit").await?;
            Ok(settings)
        };
        let asked: sqlx::Result<Option<Self>> = asked.await;
        let _ = conn.close().await;
        let settings = asked.map_err(|error| whom.error(&error))?;
        settings.ok_or(OpenError::ReadOnlyServer { at: whom.at })
    }
}

/// Does what the server acknowledges survive what it has to?
fn durable(settings: &Settings, whom: &Whom, wanted: &(Require, Otherwise)) -> Result<(), OpenError> {
    let (require, otherwise) = wanted;
    let verdict = decide(settings);
    let Some((failure, window)) = verdict.short_of(*require) else { return Ok(()) };
    let (at, why) = (whom.at.clone(), window.why.clone());
    match otherwise {
        Otherwise::Refuse => Err(OpenError::NotDurable { at, failure, why }),
        Otherwise::Warn(tell) => {
            tell(&format!(
                "what the server at {at} acknowledges does not survive {failure} (lost: {}): {why}",
                window.loss
            ));
            Ok(())
        }
    }
}

/// A connection, and whom its errors concern.
async fn connected(options: &Options) -> Result<(PgConnection, Whom, PgConnectOptions), OpenError> {
    let connect =
        connect::connect_options(options).map_err(|error| OpenError::BadUrl { why: words(&error) })?;
    let whom = Whom::of(&connect, &options.schema);
    let unreachable = || OpenError::Unreachable {
        at: whom.at.clone(),
        why: format!("it did not answer within {:?}", options.connect_limit),
    };
    let connecting = PgConnection::connect_with(&connect);
    let conn = tokio::time::timeout(options.connect_limit, connecting)
        .await
        .map_err(|_| unreachable())?
        .map_err(|error| whom.error(&error))?;
    Ok((conn, whom, connect))
}

impl Schema {
    /// Makes the tables in this schema, if they are not there, in one transaction of this connection: for programs that
    /// only join their own transactions ([`crate::Joined`]). The same checks as [`crate::Postgres::open`]; the identity of
    /// the store. Not inside a transaction.
    pub async fn install(&self, conn: &mut PgConnection, cx: &Context) -> Result<StoreId, OpenError> {
        let whom = Whom {
            at: "this connection's server".into(),
            user: "this connection's".into(),
            schema: self.name().to_owned(),
        };
        // What the server's settings make of a commit is for those to judge who make the transactions.
        look(conn, &whom, &Wanted { schema: self, create: true, read_only: false, durability: None }, cx)
            .await
    }
}

/// What is asked for.
struct Wanted<'a> {
    schema: &'a Schema,
    create: bool,
    read_only: bool,
    /// None: whatever the server loses.
    durability: Option<&'a (Require, Otherwise)>,
}

/// All in one transaction: what is made is made whole, and behind a pooler it reaches one server connection.
async fn look(
    conn: &mut PgConnection,
    whom: &Whom,
    wanted: &Wanted<'_>,
    cx: &Context,
) -> Result<StoreId, OpenError> {
    let failed = |error: sqlx::Error| whom.error(&error);
    conn.execute("begin isolation level read committed").await.map_err(failed)?;
    let looked = look_inside(&mut *conn, whom, wanted, cx).await;
    let end = if looked.is_ok() { "commit" } else { "rollback" };
    let ended = conn.execute(end).await.map_err(failed);
    let id = looked?;
    ended?;
    Ok(id)
}

async fn look_inside(
    conn: &mut PgConnection,
    whom: &Whom,
    wanted: &Wanted<'_>,
    cx: &Context,
) -> Result<StoreId, OpenError> {
    let Wanted { schema, create, read_only, durability } = *wanted;
    let failed = |error: sqlx::Error| whom.error(&error);
    let row = sqlx::query(
        "select current_setting('server_version_num')::int, current_setting('server_version'),
            current_setting('server_encoding'),
            pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean",
    )
    .persistent(false)
    .fetch_one(&mut *conn)
    .await
    .map_err(failed)?;
    let version: i32 = row.try_get(0).map_err(failed)?;
    if version < SERVER_MIN as i32 * 10_000 {
        return Err(OpenError::ServerVersion { found: row.try_get(1).map_err(failed)? });
    }
    let encoding: String = row.try_get(2).map_err(failed)?;
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { found: encoding });
    }
    if row.try_get(3).map_err(failed)? && !read_only {
        return Err(OpenError::ReadOnlyServer { at: whom.at.clone() });
    }
    if let Some(wanted) = durability {
        durable(&Settings::read(&mut *conn).await.map_err(failed)?, whom, wanted)?;
    }
    let mut found = schema::found(&mut *conn, schema).await.map_err(failed)?;
    let name = || schema.name().to_owned();
    if found == Found::Nothing {
        if !create {
            return Err(OpenError::NoStore { schema: name() });
        }
        found = schema::create(&mut *conn, schema, StoreId(cx.new_id())).await.map_err(failed)?;
    }
    match found {
        Found::Store { version, id } if version == VERSION => {
            may(conn, whom, read_only).await?;
            Ok(id)
        }
        Found::Store { version, .. } if version > VERSION => {
            Err(OpenError::Newer { schema: name(), found: version })
        }
        Found::Store { version, .. } => Err(OpenError::Older { schema: name(), found: version }),
        Found::Foreign(table) => Err(OpenError::Foreign { schema: name(), table }),
        Found::Nothing => Err(OpenError::NoStore { schema: name() }),
    }
}

/// May this user do what a store does? Asked now, and not found out in the middle of an append.
async fn may(conn: &mut PgConnection, whom: &Whom, read_only: bool) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| whom.error(&error);
    let right = if read_only { "select" } else { "select, insert, update, delete" };
    let rights: Vec<&str> = right.split(", ").collect();
    let missing: Option<String> = sqlx::query_scalar(
        "select string_agg(r.name || ' on ' || c.relname, ', ' order by c.relname, r.name)
         from pg_catalog.pg_class c
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         cross join unnest($2::text[]) r(name)
         where n.nspname = $1 and c.relkind in ('r', 'p') and c.relname !~ '_[0-9]$'
           and not has_table_privilege(c.oid, r.name)",
    )
    .bind(&whom.schema)
    .bind(rights)
    .persistent(false)
    .fetch_one(&mut *conn)
    .await
    .map_err(failed)?;
    match missing {
        None => Ok(()),
        Some(missing) => Err(OpenError::Permission {
            user: whom.user.clone(),
            schema: whom.schema.clone(),
            why: format!("it lacks {missing}"),
        }),
    }
}
