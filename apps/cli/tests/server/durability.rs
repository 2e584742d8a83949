//! `probe durability`, and stores on a server that loses what it has acknowledged.

use serde_json::Value;

use super::database::{Names, done, fails, password, run, schemas, server, url_of};

fn probe<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["probe", "durability", "env:STORE"], more].concat()
}

#[test]
fn what_a_users_settings_lose_is_told_and_refused_or_warned_of() {
    let names = Names::new();
    let options = server();
    let database = options.get_database().unwrap();
    let at = format!("{}:{}", options.get_host(), options.get_port());
    // A user of its own: what is set for it is nobody else's.
    let role = format!("{}_role", names.0);
    run(format!(
        "create role {role} login password '{}'; grant create on database \"{database}\" to {role};
         grant {role} to current_user; alter role {role} set synchronous_commit = off",
        password()
    ));
    let parameters = format!("sslmode=disable&schema={}", names.0);
    let store = url_of(&role, &password(), &at, database, &parameters);
    let told: Value = serde_json::from_str(&done(&store, &probe(&["--json"]))).unwrap();
    // Three times the server's wal_writer_delay.
    let delay = told["settings"]["wal_writer_delay_ms"].as_f64().unwrap();
    for kind in ["crash", "power"] {
        assert_eq!(told[kind]["seconds"].as_f64(), Some(3.0 * delay / 1_000.0), "{told}");
        assert!(told[kind]["why"].as_str().unwrap().contains("synchronous_commit is off"), "{told}");
    }
    assert_eq!(told["settings"]["synchronous_commit"], "off");
    for kind in ["crash", "power", "failover"] {
        fails(&store, &probe(&["--require", kind]), 1, "does not survive a kill of the server");
    }
    let append = ["events", "append", "env:STORE", "--stream", "a", "--type", "T"];
    fails(&store, &append, 4, "--durability warn");
    assert_eq!(schemas(&names.0), 0, "nothing was to be made");
    let warned = super::database::mainstay(&store, &[&append[..], &["--durability", "warn"]].concat());
    let said = super::kit::text(&warned.stderr);
    assert!(warned.status.success() && said.contains("does not survive a kill of the server"), "{said}");

    run(format!("alter role {role} set synchronous_commit = on"));
    let told: Value = serde_json::from_str(&done(&store, &probe(&["--json", "--require", "power"]))).unwrap();
    assert_eq!((&told["crash"]["seconds"], &told["power"]["seconds"]), (&0.0.into(), &0.0.into()), "{told}");
    done(&store, &append);
    let text = done(&store, &probe(&[]));
    assert!(text.contains("fsync = ") && text.contains("the power fails"), "{text}");
    assert!(!text.contains(&password()), "{text}");
    run(format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn a_store_file_is_asked_for_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db").to_str().unwrap().to_owned();
    fails("", &["probe", "durability", &file], 4, "there is no store");
    done("", &["events", "append", &file, "--stream", "a", "--type", "T"]);
    let told: Value = serde_json::from_str(&done("", &["probe", "durability", &file, "--json"])).unwrap();
    assert_eq!(
        (&told["crash"]["seconds"], &told["failover"]["seconds"]),
        (&0.0.into(), &Value::Null),
        "{told}"
    );
    assert_eq!(told["settings"]["synchronous"], "full");
    fails("", &["probe", "durability", &file, "--require", "failover"], 1, "does not survive a failover");
}
