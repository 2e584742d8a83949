//! The configuration files, as pure functions of what they follow from.

use std::fmt::Write;
use std::path::Path;

use super::node::{Node, pooler_port};

/// Who a replica is while it reads the leader's log.
pub(super) const REPLICATOR: &str = "replicator";

/// Users a pooled connection may log in as.
const POOLED: [&str; 3] = ["postgres", "mainstay", "mainstay_tls"];

/// What the configuration of one server follows from.
pub(super) struct Server<'a> {
    pub(super) node: Node,
    pub(super) leader: Node,
    pub(super) sync: bool,
    pub(super) port_base: u16,
    pub(super) home: &'a Path,
}

/// The whole configuration of a server. What is not named has the server's default, as a user's has.
///
/// `fsync`, `full_page_writes` and `synchronous_commit` are named although they are defaults: the tests stand on them.
/// A leader keeps a bounded part of its log for replicas that are away; one that is away for longer is rebuilt. That
/// needs no slots, which a promotion would have to make anew.
pub(super) fn server(of: &Server<'_>) -> String {
    let Server { node, leader, port_base, home, .. } = of;
    let name = node.name();
    let file = |name: &str| quoted(&home.join(name).display().to_string());
    let mut text =
        String::from("# Written by `cargo xtask engines`, over and over; a change here is lost.\n");
    let mut set = |key: &str, value: &str| {
        // A String takes whatever is written to it.
        let _ = writeln!(text, "{key} = {value}");
    };
    set("data_directory", &file(name));
    set("hba_file", &file("pg_hba.conf"));
    set("ident_file", &file("pg_ident.conf"));
    set("cluster_name", &quoted(name));
    set("listen_addresses", "'127.0.0.1'");
    set("port", &node.port(*port_base).to_string());
    set("unix_socket_directories", "''");
    set("password_encryption", "'scram-sha-256'");
    set("ssl", "on");
    set("ssl_cert_file", &file("server.crt"));
    set("ssl_key_file", &file("server.key"));
    set("max_connections", "400");
    set("max_prepared_transactions", "64");
    set("shared_buffers", "256MB");
    set("fsync", "on");
    set("full_page_writes", "on");
    set("synchronous_commit", "on");
    set("wal_level", "replica");
    set("max_wal_size", "2GB");
    set("max_wal_senders", "10");
    set("wal_keep_size", "1GB");
    set("hot_standby", "on");
    // A peer that is gone is noticed within seconds, and one that is back is followed at once.
    set("wal_sender_timeout", "10s");
    set("wal_receiver_timeout", "10s");
    set("wal_receiver_status_interval", "1s");
    set("wal_retrieve_retry_interval", "500ms");
    set("timezone", "'UTC'");
    set("log_timezone", "'UTC'");
    set("log_line_prefix", "'%m [%p] %q%u@%d %a '");
    if node == leader {
        let names: Vec<&str> = leader.others().map(Node::name).collect();
        let waits = format!("ANY 1 ({})", names.join(", "));
        set("synchronous_standby_names", &quoted(if of.sync { &waits } else { "" }));
    } else {
        set("primary_conninfo", &quoted(&conninfo(name, leader.port(*port_base), home)));
        set("recovery_target_timeline", "'latest'");
    }
    text
}

/// How a replica reaches its leader.
fn conninfo(name: &str, port: u16, home: &Path) -> String {
    let passfile = home.join("pgpass").display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "host=127.0.0.1 port={port} user={REPLICATOR} application_name={name} passfile='{passfile}' sslmode=disable"
    )
}

/// Who may connect: everybody with a password, `mainstay_tls` only with TLS.
pub(super) fn host_based_access() -> &'static str {
    "hostnossl all mainstay_tls 127.0.0.1/32 reject\n\
     host all all 127.0.0.1/32 scram-sha-256\n\
     host replication all 127.0.0.1/32 scram-sha-256\n"
}

/// The file that PostgreSQL's own programs take the password from: on a command line every user could read it.
pub(super) fn passwords(password: &str) -> String {
    format!("127.0.0.1:*:*:*:{password}\n")
}

/// Users, and the database the tests use. `mainstay` may make databases and roles, as tests of missing rights need.
pub(super) fn roles(password: &str) -> String {
    format!(
        "create role mainstay login createdb createrole password '{password}';\n\
         create role mainstay_tls login password '{password}';\n\
         create role {REPLICATOR} login replication password '{password}';\n\
         create database mainstay owner mainstay;\n"
    )
}

/// The pooler in front of the leader: every database in transaction mode, `mainstay_session` in session mode.
///
/// `options` in a client's start message is refused, as pgbouncer does unless told otherwise.
pub(super) fn pooler(leader: Node, port_base: u16, home: &Path) -> String {
    let target = format!("host=127.0.0.1 port={}", leader.port(port_base));
    let home = home.display();
    format!(
        "; Written by `cargo xtask engines`, over and over; a change here is lost.\n\
         [databases]\n\
         mainstay_session = {target} dbname=mainstay pool_mode=session\n\
         * = {target}\n\
         \n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = {home}/userlist.txt\n\
         admin_users = postgres\n\
         pool_mode = transaction\n\
         max_client_conn = 800\n\
         default_pool_size = 100\n\
         ignore_startup_parameters = extra_float_digits\n\
         ; A server that is back, or another one that leads, is tried again at once.\n\
         server_login_retry = 1\n\
         server_connect_timeout = 5\n\
         query_wait_timeout = 30\n\
         client_tls_sslmode = allow\n\
         client_tls_cert_file = {home}/server.crt\n\
         client_tls_key_file = {home}/server.key\n\
         server_tls_sslmode = disable\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         logfile = {home}/pgbouncer.log\n\
         pidfile = {home}/pgbouncer.pid\n",
        port = pooler_port(port_base),
    )
}

/// The pooler needs the passwords themselves: with SCRAM it can't log in for a client by what the client proved.
pub(super) fn pooler_users(password: &str) -> String {
    POOLED.iter().map(|user| format!("\"{user}\" \"{password}\"\n")).collect()
}

/// Without TLS: on the loopback it would only cost.
pub(super) fn url(user: &str, password: &str, port: u16, database: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
}

/// With TLS, and with the certificate that proves the server.
pub(super) fn tls_url(password: &str, port: u16, home: &Path) -> String {
    let certificate = percent_encoded(&home.join("server.crt").display().to_string());
    format!(
        "postgres://mainstay_tls:{password}@localhost:{port}/mainstay?sslmode=verify-full&sslrootcert={certificate}"
    )
}

/// A value in a server's configuration file.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A word of a shell's command line.
pub(super) fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(node: Node, leader: Node, sync: bool) -> String {
        server(&Server { node, leader, sync, port_base: 25_432, home: Path::new("/data/it's") })
    }

    /// The value of a key that stands in the text exactly once.
    fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
        let mut found = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        let first = found.next();
        assert!(found.next().is_none(), "{key} twice");
        first
    }

    #[test]
    fn what_the_tests_stand_on_is_in_every_servers_configuration() {
        for node in Node::ALL {
            let text = lines(node, Node::R0, false);
            for (key, wanted) in [
                ("fsync", "on"),
                ("full_page_writes", "on"),
                ("synchronous_commit", "on"),
                ("wal_level", "replica"),
                ("hot_standby", "on"),
                ("ssl", "on"),
                ("listen_addresses", "'127.0.0.1'"),
                ("max_prepared_transactions", "64"),
                ("password_encryption", "'scram-sha-256'"),
            ] {
                assert_eq!(value(&text, key), Some(wanted), "{key} of {node:?}");
            }
        }
        assert_eq!(value(&lines(Node::R2, Node::R0, false), "port"), Some("25434"));
        assert_eq!(value(&lines(Node::R1, Node::R0, false), "data_directory"), Some("'/data/it''s/r1'"));
    }

    #[test]
    fn a_leader_follows_nobody_and_waits_only_when_told() {
        let text = lines(Node::R0, Node::R0, false);
        assert_eq!(value(&text, "primary_conninfo"), None);
        assert_eq!(value(&text, "synchronous_standby_names"), Some("''"));
        let text = lines(Node::R0, Node::R0, true);
        assert_eq!(value(&text, "synchronous_standby_names"), Some("'ANY 1 (r1, r2)'"));
        let text = lines(Node::R1, Node::R1, true);
        assert_eq!(value(&text, "synchronous_standby_names"), Some("'ANY 1 (r0, r2)'"));
    }

    #[test]
    fn a_replica_follows_whoever_leads_under_its_own_name() {
        let text = lines(Node::R2, Node::R1, true);
        assert_eq!(value(&text, "synchronous_standby_names"), None);
        let conninfo = value(&text, "primary_conninfo").unwrap();
        assert!(conninfo.contains("port=25433 user=replicator application_name=r2 "), "{conninfo}");
        // Quoted twice: for the connection's words, and for the file.
        assert!(conninfo.contains(r"passfile=''/data/it\\''s/pgpass''"), "{conninfo}");
    }

    #[test]
    fn the_pooler_stands_before_whoever_leads() {
        let text = pooler(Node::R1, 25_432, Path::new("/data"));
        assert_eq!(value(&text, "*"), Some("host=127.0.0.1 port=25433"));
        assert_eq!(
            value(&text, "mainstay_session"),
            Some("host=127.0.0.1 port=25433 dbname=mainstay pool_mode=session")
        );
        assert_eq!(value(&text, "pool_mode"), Some("transaction"));
        assert_eq!(value(&text, "listen_port"), Some("25435"));
        assert_eq!(pooler_users("secret").lines().nth(1), Some("\"mainstay\" \"secret\""));
    }

    #[test]
    fn words_are_quoted_for_who_reads_them() {
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(quoted(r"a\b'c"), r"'a\\b''c'");
        assert_eq!(percent_encoded("/a b/ü&c"), "/a%20b/%C3%BC%26c");
    }
}
