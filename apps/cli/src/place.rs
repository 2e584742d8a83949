//! Where a store is: in a file, or in a schema of a PostgreSQL database. Told apart here, and nowhere else.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mainstay::Context;
use mainstay::postgres::durability::{Otherwise, Require};
use mainstay::postgres::{OpenError, Options as ServerOptions, Postgres, Schema};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::Receipt;

use crate::output::{BadInput, Output, Unusable};
use crate::secret::without_passwords;

/// How a store is named on the command line. Not looked at while the arguments are read: what is refused there is
/// printed, and it may hold a password.
#[derive(Clone)]
pub(crate) struct Given(OsString);

impl From<OsString> for Given {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_passwords(&self.0.to_string_lossy()))
    }
}

/// How long a server may take to answer a command.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long an appended event's place in the feed is waited for: a dead process's sequencer is followed within 3 s.
const PLACED_WITHIN: Duration = Duration::from_secs(10);

/// Where a store is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File(PathBuf),
    Server(Server),
}

impl Given {
    /// What it names; `env:NAME` is read from the environment, where other users of the machine can't see it.
    pub(crate) fn place(&self) -> Result<Place> {
        let Some(text) = self.0.to_str() else { return Ok(Place::File(PathBuf::from(&self.0))) };
        let Some(name) = text.strip_prefix("env:") else { return Place::parse(text) };
        match std::env::var(name) {
            Ok(text) => Place::parse(&text),
            Err(cause) => Err(BadInput(format!(
                "env:{name}: {cause}; nothing was done; put the store's URL into the environment variable {name}"
            ))
            .into()),
        }
    }

    /// The server that it names: a file is refused.
    pub(crate) fn server(&self) -> Result<Server> {
        match self.place()? {
            Place::Server(server) => Ok(server),
            Place::File(path) => Err(BadInput(format!(
                "--store {}: this is no URL, and nothing was started; without --store the stores are files in the data \
                 folder; with it, give postgres://user:password@host:port/database",
                path.display()
            ))
            .into()),
        }
    }

    /// As a shell line may show it: without a password, which the line's reader has to provide.
    pub(crate) fn shown(&self) -> String {
        without_passwords(&self.0.to_string_lossy()).replace(":***@", "@")
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Server(Server::parse(text)?)),
            Some((scheme, _)) if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(BadInput(format!(
                    "{scheme}:// names no store that is known here; nothing was done; give a file, or \
                     postgres://user:password@host:port/database"
                ))
                .into())
            }
            _ => Ok(Self::File(text.into())),
        }
    }

    /// Opens an existing store for reading only.
    pub(crate) async fn look(&self) -> Result<Opened> {
        Ok(match self {
            Self::File(path) => Opened::File(Sqlite::open(Options::new(path).read_only())?),
            Self::Server(server) => Opened::Server(open(server.options().read_only()).await?),
        })
    }

    /// Opens a store to append to; it is made when it is not there.
    pub(crate) async fn open(&self, durability: Durability) -> Result<Opened> {
        Ok(match self {
            Self::File(path) => Opened::File(Sqlite::open(Options::new(path))?),
            Self::Server(server) => {
                let options = durability.of(server.options(), |line| eprintln!("note: {line}"));
                Opened::Server(open(options).await?)
            }
        })
    }
}

/// Opens a store on a server; what it answers is in the words of who has no code to mend.
pub(crate) async fn open(options: ServerOptions) -> Result<Postgres> {
    Postgres::open(&Context::system(), options).await.map_err(explained)
}

/// Why a server can't be used, as far as a command has other remedies than a program.
pub(crate) fn explained(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::NoStore { schema } => Unusable(format!(
            "there is no store in schema {schema} of this database; nothing was done; name its schema in the URL \
             (?schema=NAME)"
        ))
        .into(),
        OpenError::ReadOnlyServer { at } => Unusable(format!(
            "the server at {at} is a replica, or set to read only: it takes and acknowledges nothing; nothing was done; give \
             the leader's URL"
        ))
        .into(),
        OpenError::NotDurable { at, failure, why } => Unusable(format!(
            "what the server at {at} acknowledges does not survive {failure}: {why}; nothing was done; change that setting \
             of the server, the database or the user, or accept the loss with --durability warn"
        ))
        .into(),
        error => error.into(),
    }
}

/// A schema of a database, and how to get there.
#[derive(Clone)]
pub(crate) struct Server {
    /// As it was given, password and all.
    given: String,
    /// The same without what the driver does not know.
    url: String,
    schema: Option<Schema>,
    pooled: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_passwords(&self.given))
    }
}

/// Parameters of a URL that the driver knows. One that it does not know it would pass over without a word.
const DRIVERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl Server {
    fn parse(text: &str) -> Result<Self, BadInput> {
        let refuse =
            |why: String| BadInput(format!("the store's URL can't be used: {why}; nothing was done"));
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        if query.contains('@') && !base.contains('@') {
            // Not said what: it is a part of the password.
            return Err(refuse("a ? in its password is written %3F".into()));
        }
        let mut server = Self { given: text.to_owned(), url: base.to_owned(), schema: None, pooled: false };
        let mut left = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "schema" if server.schema.is_some() => return Err(refuse("it names two schemas".into())),
                "schema" => {
                    server.schema = Some(Schema::new(value).map_err(|bad| BadInput(bad.to_string()))?);
                }
                "pooled" => {
                    server.pooled = match value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(refuse("pooled is true or false".into())),
                    };
                }
                name if DRIVERS.contains(&name) || name.starts_with("options[") => left.push(pair),
                name => {
                    return Err(refuse(format!(
                        "{name:?} is no parameter of it; schema=NAME and pooled=true are ours, sslmode and sslrootcert \
                         the most used of the driver's"
                    )));
                }
            }
        }
        if !left.is_empty() {
            server.url = format!("{base}?{}", left.join("&"));
        }
        Ok(server)
    }

    /// Of the schema that the URL names, else of the usual one.
    pub(crate) fn options(&self) -> ServerOptions {
        let options = ServerOptions::new(&self.url)
            .schema(self.schema.clone().unwrap_or_default())
            .connect_limit(CONNECT_WITHIN);
        if self.pooled { options.pooled() } else { options }
    }

    /// The same database, for one of several stores: what the URL calls a schema is the beginning of its schema's name.
    pub(crate) fn part(&self, usual: &str, name: &str) -> Result<Self> {
        let begins = self.schema.as_ref().map_or(usual, Schema::name);
        let schema = Schema::new(format!("{begins}_{name}")).map_err(|bad| BadInput(bad.to_string()))?;
        Ok(Self { schema: Some(schema), ..self.clone() })
    }

    /// The URL as it was given, for a process of our own: it may hold a password.
    pub(crate) fn secret(&self) -> &str {
        &self.given
    }
}

/// What to do with a server that may lose what it has acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Durability {
    /// Do not use it.
    #[default]
    Refuse,
    /// Use it, and say so.
    Warn,
}

impl Durability {
    /// Options that require acknowledgements to survive a power cut, or tell that they do not.
    pub(crate) fn of(
        self,
        options: ServerOptions,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> ServerOptions {
        let otherwise = match self {
            Self::Refuse => Otherwise::Refuse,
            Self::Warn => Otherwise::Warn(Arc::new(tell)),
        };
        options.durability(Require::Power, otherwise)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
        }
    }
}

/// An open store.
#[derive(Debug)]
pub(crate) enum Opened {
    File(Sqlite),
    Server(Postgres),
}

/// Does the same with whichever store it is: the expression is compiled for each.
macro_rules! on_store {
    ($opened:expr, |$store:ident| $done:expr) => {
        match $opened {
            $crate::place::Opened::File($store) => $done,
            $crate::place::Opened::Server($store) => $done,
        }
    };
}
pub(crate) use on_store;

impl Opened {
    /// Waits until an appended act has its place, where that comes after the commit: whoever reads next is to find it.
    pub(crate) async fn placed(&self, receipt: &Receipt, output: &Output) {
        let Self::Server(store) = self else { return };
        if !matches!(store.settle(receipt, PLACED_WITHIN).await, Ok(Some(_))) {
            output.note(&format!(
                "what was appended is kept, and has had no place in the feed for {PLACED_WITHIN:?}: readers see it when a \
                 sequencer has caught up"
            ));
        }
    }

    /// Ends it; what was acknowledged is on disk with or without that.
    pub(crate) async fn close(self) {
        match self {
            Self::File(store) => store.close(),
            Self::Server(store) => store.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Server {
        match Place::parse(text).unwrap() {
            Place::Server(server) => server,
            Place::File(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn what_is_ours_is_taken_off_and_the_rest_goes_to_the_driver() {
        for (text, url, schema, pooled) in [
            ("postgres://h/db", "postgres://h/db", None, false),
            (
                "postgresql://u:p@h:1/db?sslmode=disable",
                "postgresql://u:p@h:1/db?sslmode=disable",
                None,
                false,
            ),
            ("postgres://h/db?schema=a_b", "postgres://h/db", Some("a_b"), false),
            (
                "postgres://h/db?sslmode=require&schema=x&sslrootcert=/a",
                "postgres://h/db?sslmode=require&sslrootcert=/a",
                Some("x"),
                false,
            ),
            ("postgres://h/db?pooled=true", "postgres://h/db", None, true),
        ] {
            let found = server(text);
            let name = found.schema.as_ref().map(Schema::name);
            assert_eq!((found.url.as_str(), name, found.pooled), (url, schema, pooled));
            assert_eq!(found.secret(), text);
        }
    }

    #[test]
    fn what_is_no_store_is_refused_and_a_path_is_a_file() {
        for (text, words) in [
            ("mysql://u:secret@h/db", "mysql://"),
            ("postgres://u:secret@h/db?schema=A", "schema name"),
            ("postgres://u:secret@h/db?schema=a&schema=b", "two schemas"),
            ("postgres://u:secret@h/db?shema=a", "\"shema\" is no parameter"),
            ("postgres://u:secret@h/db?pooled=yes", "true or false"),
            ("postgres://u:sec?secret=x@h/db", "%3F"),
        ] {
            let error = Place::parse(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
        for path in ["s.db", "./a://b", "/x/y"] {
            assert!(matches!(Place::parse(path).unwrap(), Place::File(_)), "{path}");
        }
    }

    #[test]
    fn a_part_has_its_own_schema_and_nothing_shows_the_password() {
        let shop = server("postgres://u:secret@h/db");
        let part = shop.part("shop", "order").unwrap();
        assert_eq!(part.schema.as_ref().unwrap().name(), "shop_order");
        let other = server("postgres://u:secret@h/db?schema=acme").part("shop", "order").unwrap();
        assert_eq!(other.schema.as_ref().unwrap().name(), "acme_order");
        let given = Given::from(OsString::from("postgres://u:secret@h/db"));
        for shown in [format!("{part:?}"), format!("{given:?}"), given.shown()] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert_eq!(given.shown(), "postgres://u@h/db");
    }
}
