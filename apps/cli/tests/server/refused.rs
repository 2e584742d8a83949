//! What is wrong with a URL is told in its own words and with its own code, and nothing is made.

use super::database::{Names, fails, password, schemas, server, url};

#[test]
fn each_fault_has_its_words_and_its_code_and_nothing_is_made() {
    let names = Names::new();
    let options = server();
    let (host, port, user) = (options.get_host(), options.get_port(), options.get_username());
    let database = options.get_database().unwrap();
    let at = format!("{host}:{port}");
    let schema = format!("schema={}", names.0);
    let of = |user: &str, password: &str, at: &str, database: &str, more: &str| {
        super::database::url_of(user, password, at, database, &format!("{schema}{more}"))
    };
    let right = password();
    let plain = "&sslmode=disable";
    for (store, code, words) in [
        (of(user, "secret", &at, database, plain), 4, "refuses user"),
        (of("nobody_at_all", "secret", &at, database, plain), 4, "refuses user"),
        (of(user, &right, &format!("{host}:1"), database, plain), 4, "no server can be reached"),
        (of(user, &right, &at, "no_such_database", plain), 4, "create the database"),
        (of(user, &right, &at, database, "&sslmode=verify-full"), 4, "no TLS connection"),
        (of(user, &right, &at, database, "&sslmode=sometimes"), 2, "URL can't be used"),
        (of(user, &right, &format!("{host}:port"), database, plain), 2, "URL can't be used"),
        (of(user, &right, &at, database, "&shema=x"), 2, "is no parameter of it"),
        (url().replace("postgres://", "mysql://"), 2, "names no store that is known here"),
        (super::database::url_of(user, &right, &at, database, "schema=Wrong"), 2, "schema name"),
    ] {
        let append = |store| ["events", "append", store, "--stream", "a", "--type", "T"];
        // On the command line, where a refused argument is quoted, and in the environment.
        fails("", &append(&store), code, words);
        fails(&store, &append("env:STORE"), code, words);
        fails(&store, &["events", "read", "env:STORE", "--json"], code, words);
    }
    // Only an append makes a store.
    fails(&names.url(), &["events", "read", "env:STORE"], 4, "there is no store in schema");
    fails(&names.url(), &["events", "verify", "env:STORE"], 4, "there is no store in schema");
    fails(&names.url(), &["events", "read", "env:NO_SUCH_VARIABLE"], 2, "environment variable");
    // One word too many: it is quoted, without what is secret in it.
    fails("", &["events", "read", &names.url(), &names.url()], 2, "unexpected argument");
    fails("", &["events", "read", &names.url(), &names.url(), "--json"], 2, "unexpected argument");
    assert_eq!(schemas(&names.0), 0);
}

#[test]
fn the_shop_is_refused_before_anything_is_started() {
    let names = Names::new();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let options = server();
    let at = format!("{}:{}", options.get_host(), options.get_port());
    let wrong = super::database::url_of(options.get_username(), "secret", &at, "mainstay", "sslmode=disable");
    let up = ["up", "--port-base", "0", "--data", data, "--store"];
    fails(&wrong, &[&up[..], &["env:STORE"]].concat(), 4, "refuses user");
    fails("", &[&up[..], &["some/file.db"]].concat(), 2, "this is no URL");
    fails("", &["up", "--port-base", "0", "--data", data, "--durability", "warn"], 2, "--store");
    // A folder whose stores are files.
    std::fs::create_dir_all(folder.path().join("order")).unwrap();
    std::fs::write(folder.path().join("order/store.db"), "").unwrap();
    fails(&names.url(), &[&up[..], &["env:STORE"]].concat(), 4, "keeps its store in a file");
    assert_eq!(schemas(&names.0), 0);
}
