//! Processes that die, and what comes back.

use rustix::process::Signal;

use super::kit::{Up, ended, mainstay, place, send, text, until};

#[test]
fn a_killed_service_comes_back_where_it_was_and_orders_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    for service in ["order", "payment", "inventory"] {
        let (old, url) = (up.pid_of(service), up.url(service));
        // Placed before the kill, so that its saga may lose the service in the middle.
        let order = place(&up, &format!("before-{service}"), 1);
        send(old, Signal::KILL);
        let ready = up.until(|event| event["event"] == "ready" && event["service"] == service);
        assert_ne!(up.pid_of(service), old);
        assert_eq!(format!("http://{}", ready["address"].as_str().unwrap()), url);
        assert_eq!(ended(&up, &order)["status"], "CONFIRMED");
        assert_eq!(ended(&up, &place(&up, &format!("after-{service}"), 1))["status"], "CONFIRMED");
    }
    assert_eq!(up.order_of("restarting"), ["order", "payment", "inventory"]);
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
}

#[test]
fn a_stopped_service_is_red_until_it_goes_on_and_is_not_killed_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    let pid = up.pid_of("payment");
    send(pid, Signal::STOP);
    let red = up.until(|event| event["event"] == "unready" && event["service"] == "payment");
    assert!(red["reason"].as_str().unwrap().contains("has said nothing for 10s"), "{red}");
    // Placed while one service stands still, and confirmed when it goes on.
    let order = place(&up, "meanwhile", 1);
    send(pid, Signal::CONT);
    up.until(|event| event["event"] == "ready" && event["service"] == "payment");
    assert_eq!(ended(&up, &order)["status"], "CONFIRMED");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!((up.order_of("started").len(), up.order_of("killed").len()), (4, 0), "{:#?}", up.seen);
}

/// The signals that it says it was sent.
fn signals(up: &Up) -> Vec<&str> {
    let told = up.seen.iter().filter(|event| event["event"] == "signal");
    told.filter_map(|event| event["signal"].as_str()).collect()
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    // What nohup does.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", super::kit::PROGRAM]);
    let mut up = Up::spawn_by(command, folder.path());
    up.greeting = up.until(|event| event["event"] == "up");
    up.kill(Signal::HUP);
    assert_eq!(ended(&up, &place(&up, "after", 1))["status"], "CONFIRMED");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!(signals(&up), ["SIGTERM"]);
}

#[test]
fn a_hangup_that_was_not_ignored_drains() {
    let folder = tempfile::tempdir().unwrap();
    // Also where whoever runs this test ignores it.
    let mut command = std::process::Command::new("env");
    command.args(["--default-signal=HUP", super::kit::PROGRAM]);
    let mut up = Up::spawn_by(command, folder.path());
    up.greeting = up.until(|event| event["event"] == "up");
    up.kill(Signal::HUP);
    assert_eq!(up.end().code(), Some(0), "{:#?}", up.seen);
    assert_eq!((signals(&up), up.order_of("stopped").len()), (vec!["SIGHUP"], 4));
}

#[test]
fn a_killed_supervisor_takes_its_services_along_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    let order = place(&up, "before", 1);
    let old = Old(["order", "payment", "inventory", "processor"].map(|service| up.pid_of(service)));
    up.kill(Signal::KILL);
    // At once: it finds the services of the old one still there, or just gone.
    let next = Up::start(folder.path());
    assert_eq!(ended(&next, &order)["status"], "CONFIRMED");
    // Their locks are free, so they have written for the last time; that they end is one step more.
    for pid in old.0 {
        until("the end of an old service", || (!is_running(pid)).then_some(()));
    }
    assert_eq!(up.end().code(), None);
}

/// Services whose supervisor is killed. Should they not notice, as this test fears, nobody else would end them.
struct Old([u32; 4]);

impl Drop for Old {
    fn drop(&mut self) {
        for pid in self.0.into_iter().filter(|pid| is_running(*pid)) {
            send(pid, Signal::KILL);
        }
    }
}

/// Takes a service's lock as a service of an earlier run would have it.
fn an_old_service(data: &std::path::Path) -> std::fs::File {
    std::fs::create_dir_all(data.join("payment")).unwrap();
    let old = std::fs::File::create(data.join("payment/lock")).unwrap();
    old.try_lock().unwrap();
    old
}

#[test]
fn a_service_of_an_earlier_run_is_waited_for_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let old = an_old_service(folder.path());
    let mut up = Up::spawn(folder.path());
    let told = up.until(|event| event["event"] == "waiting");
    assert_eq!(told["service"], "payment");
    assert_eq!(up.order_of("started"), Vec::<&str>::new());
    drop(old);
    up.until(|event| event["event"] == "up");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0));
}

#[test]
fn waiting_for_an_earlier_run_can_be_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let _old = an_old_service(folder.path());
    let mut up = Up::spawn(folder.path());
    up.until(|event| event["event"] == "waiting");
    up.kill(Signal::INT);
    assert_eq!(up.end().code(), Some(0));
    assert_eq!(up.order_of("started"), Vec::<&str>::new());
}

#[test]
fn a_damaged_store_is_told_with_the_services_own_words_and_the_others_are_drained() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("order")).unwrap();
    let text = "no database at all, but long enough to have a header of 100 bytes".repeat(9);
    std::fs::write(folder.path().join("order/store.db"), text).unwrap();
    let failed = mainstay(&["up", "--port-base", "0", "--data", folder.path().to_str().unwrap()]);
    let said = super::kit::text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(4), "{said}");
    assert!(said.contains("order was given up after 1 starts") && said.contains("is not a store"), "{said}");
    let shown = super::kit::text(&failed.stdout);
    assert!(shown.contains("payment   │ stopped") && shown.contains("inventory │ stopped"), "{shown}");
}

/// A process that has ended and waits for whoever inherited it to notice counts as ended.
fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[test]
fn a_second_up_on_the_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path());
    let second = mainstay(&["up", "--port-base", "0", "--data", folder.path().to_str().unwrap()]);
    let said = text(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains("this data folder is in use: process ") && said.contains("(up)"), "{said}");
    assert!(said.contains("nothing was started"), "{said}");
    assert_eq!(ended(&up, &place(&up, "after", 1))["status"], "CONFIRMED");
    up.kill(Signal::TERM);
    assert_eq!(up.end().code(), Some(0));
}

#[test]
fn people_see_names_in_a_column_and_no_escape_codes_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().join("shown.txt");
    let mut child = std::process::Command::new(super::kit::PROGRAM)
        .args(["up", "--port-base", "0", "--seed-demo=false", "--data"])
        .arg(folder.path().join("data"))
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&shown).unwrap())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&shown).unwrap();
    until("the greeting", || read().contains("see all that came of it:").then_some(()));
    send(child.id(), Signal::INT);
    let status = until("the end", || child.try_wait().unwrap());
    let said = read();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("order     │ ready on 127.0.0.1:"), "{said}");
    assert!(said.contains("inventory │ stopped"), "{said}");
    assert!(said.ends_with("down; the data are kept\n"), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
}
