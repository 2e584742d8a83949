//! Real processes under the supervisor. The children are shell scripts: what they do stands beside what is
//! expected of them.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_resilience::retry;
use mainstay_runtime::supervisor::{self, Failed, Notice, Program, Spec, Stop, What};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};

/// Far past anything that a working supervisor takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says that it is ready, and ends when its standard input does or on SIGTERM.
const GOOD: &str = r#"trap 'echo told to end >&2; exit 0' TERM
echo '@mainstay {"ready":{"address":"here"}}'
echo listening >&2
read line
echo parent gone >&2"#;

fn spec() -> Spec {
    Spec {
        restart: retry::Spec::full_jitter(Duration::from_millis(10), Duration::from_millis(100)),
        ready_within: Duration::from_secs(20),
        // The children here speak once, unless a test is about the others.
        heard_within: supervisor::LONGEST,
        stable_after: Duration::from_secs(1),
        give_up_after: 3,
        drain_within: Duration::from_secs(20),
    }
}

/// A supervisor under test, and what it tells.
struct Seen {
    notices: mpsc::UnboundedReceiver<Notice>,
    stop: watch::Sender<Stop>,
    ended: tokio::task::JoinHandle<Result<(), Failed>>,
    all: Vec<(String, What)>,
}

impl Seen {
    fn start(spec: Spec, scripts: &[(&str, &str)]) -> Self {
        let programs: Vec<Program> = scripts
            .iter()
            .map(|(name, script)| Program {
                name: (*name).to_owned(),
                file: "/bin/sh".into(),
                arguments: vec!["-c".into(), (*script).into()],
                environment: Vec::new(),
                for_good: vec![2],
            })
            .collect();
        let (tell, notices) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(Stop::No);
        let settings = spec.check().unwrap();
        let ended = tokio::spawn(async move {
            let tell = |notice| tell.send(notice).unwrap_or_default();
            supervisor::run(&Context::system(), settings, &programs, stopped, tell).await
        });
        Self { notices, stop, ended, all: Vec::new() }
    }

    /// Reads on until a child tells this.
    async fn until(&mut self, service: &str, found: impl Fn(&What) -> bool) -> What {
        let found = async {
            while let Some(notice) = self.notices.recv().await {
                self.all.push((notice.service.clone(), notice.what.clone()));
                if notice.service == service && found(&notice.what) {
                    return notice.what;
                }
            }
            panic!("the supervisor ended before: {:?}", self.all)
        };
        tokio::time::timeout(PATIENCE, found).await.expect("nothing of the kind was told in time")
    }

    async fn pid(&mut self, service: &str) -> i32 {
        match self.until(service, |what| matches!(what, What::Started { .. })).await {
            What::Started { pid } => i32::try_from(pid).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end; everything that was told, and how it ended.
    async fn end(mut self) -> (Vec<(String, What)>, Result<(), Failed>) {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it did not end").unwrap();
        while let Ok(notice) = self.notices.try_recv() {
            self.all.push((notice.service, notice.what));
        }
        (self.all, ended)
    }
}

fn is_ready(what: &What) -> bool {
    matches!(what, What::Ready { .. })
}

fn log(line: &str) -> What {
    What::Log { line: line.to_owned() }
}

/// The order in which children told what `kind` picks.
fn order(all: &[(String, What)], kind: impl Fn(&What) -> bool) -> Vec<&str> {
    all.iter().filter(|(_, what)| kind(what)).map(|(service, _)| service.as_str()).collect()
}

fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

fn send(pid: i32, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn children_start_in_order_and_drain_in_reverse() {
    let mut seen = Seen::start(spec(), &[("a", GOOD), ("b", GOOD), ("c", GOOD)]);
    seen.until("c", |what| *what == What::AllReady).await;
    seen.stop.send(Stop::Drain).unwrap();
    let (all, ended) = seen.end().await;
    ended.unwrap();
    let starts = order(&all, |what| matches!(what, What::Started { .. }) || is_ready(what));
    assert_eq!(starts, ["a", "a", "b", "b", "c", "c"]);
    let ends = order(&all, |what| matches!(what, What::Draining | What::Ended { .. }));
    assert_eq!(ends, ["c", "c", "b", "b", "a", "a"]);
    assert_eq!(order(&all, |what| *what == log("told to end")), ["c", "b", "a"]);
}

#[tokio::test]
async fn a_killed_child_comes_back() {
    let mut seen = Seen::start(spec(), &[("a", GOOD)]);
    for _ in 0..5 {
        let pid = seen.pid("a").await;
        seen.until("a", is_ready).await;
        kill(pid);
        let ended = seen.until("a", |what| matches!(what, What::Ended { .. })).await;
        assert!(ended.to_string().contains("signal: 9"), "{ended}");
    }
    seen.until("a", is_ready).await;
    seen.stop.send(Stop::Drain).unwrap();
    seen.end().await.1.unwrap();
}

#[tokio::test]
async fn a_child_that_never_works_is_given_up_with_its_last_words_and_takes_the_others_along() {
    let bad = "for n in 1 2 3 4 5 6 7; do echo word $n >&2; done; exit 7";
    let mut seen = Seen::start(spec(), &[("good", GOOD), ("bad", bad)]);
    seen.until("bad", |what| *what == What::GaveUp).await;
    let (all, ended) = seen.end().await;
    let failed = ended.unwrap_err();
    assert_eq!((failed.service.as_str(), failed.starts), ("bad", 3));
    assert!(failed.ended.contains("exit status: 7"), "{failed}");
    assert_eq!(failed.last_words, "  word 3\n  word 4\n  word 5\n  word 6\n  word 7");
    assert_eq!(all.last().unwrap(), &("good".to_owned(), What::Stopped));
}

#[tokio::test]
async fn arguments_at_fault_are_not_tried_again() {
    let seen = Seen::start(spec(), &[("a", "echo 'error: no such port' >&2; exit 2")]);
    let (all, ended) = seen.end().await;
    let failed = ended.unwrap_err();
    assert_eq!(
        (failed.starts, failed.code, failed.last_words.as_str()),
        (1, Some(2), "  error: no such port"),
        "{all:?}"
    );
}

#[tokio::test]
async fn what_can_not_be_started_is_told() {
    let (tell, settings) = (|_| {}, spec().check().unwrap());
    let missing = [Program {
        name: "a".into(),
        file: "/no/such/file".into(),
        arguments: Vec::new(),
        environment: vec![("NAME".into(), "secret".into())],
        for_good: Vec::new(),
    }];
    let shown = format!("{missing:?}");
    assert!(shown.contains("NAME") && !shown.contains("secret"), "{shown}");
    let (_stop, stopped) = watch::channel(Stop::No);
    let cx = Context::system();
    let run = supervisor::run(&cx, settings, &missing, stopped, tell);
    let failed = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap_err();
    assert!(failed.ended.starts_with("could not be started: "), "{failed}");
}

#[tokio::test]
async fn a_start_that_hangs_is_killed_and_tried_again() {
    let spec = Spec { ready_within: Duration::from_millis(200), give_up_after: 2, ..spec() };
    let seen = Seen::start(spec, &[("a", "read forever")]);
    let (all, ended) = seen.end().await;
    assert_eq!(order(&all, |what| *what == What::Killed).len(), 2, "{all:?}");
    assert!(ended.unwrap_err().ended.contains("signal: 9"));
}

#[tokio::test]
async fn a_child_that_will_not_end_is_killed() {
    let stubborn = r#"trap '' TERM
echo '@mainstay {"ready":{}}'
while :; do read line; done"#;
    let spec = Spec { drain_within: Duration::from_millis(200), ..spec() };
    let mut seen = Seen::start(spec, &[("a", stubborn)]);
    seen.until("a", is_ready).await;
    seen.stop.send(Stop::Drain).unwrap();
    let (all, ended) = seen.end().await;
    ended.unwrap();
    let after: Vec<&What> =
        all.iter().map(|(_, what)| what).skip_while(|what| **what != What::Draining).collect();
    assert!(
        matches!(after[..], [What::Draining, What::Killed, What::Ended { .. }, What::Stopped]),
        "{after:?}"
    );
}

#[tokio::test]
async fn a_second_request_does_not_wait() {
    let stubborn = "trap '' TERM\necho '@mainstay {\"ready\":{}}'\nwhile :; do read line; done";
    let mut seen = Seen::start(spec(), &[("a", stubborn)]);
    seen.until("a", is_ready).await;
    seen.stop.send(Stop::Drain).unwrap();
    seen.until("a", |what| *what == What::Draining).await;
    seen.stop.send(Stop::Now).unwrap();
    // `drain_within` is 20 s; `end` would not wait that long for three of them.
    let (all, ended) = tokio::time::timeout(Duration::from_secs(15), seen.end()).await.unwrap();
    ended.unwrap();
    assert_eq!(order(&all, |what| *what == What::Killed), ["a"]);
}

#[tokio::test]
async fn red_is_shown_and_left_alone() {
    let script = r#"trap 'exit 0' TERM
echo '@mainstay {"ready":{}}'
echo '@mainstay {"unready":{"reason":"the disk is full"}}'
echo '@mainstay nonsense'
read line"#;
    let mut seen = Seen::start(spec(), &[("a", script)]);
    let red = seen.until("a", |what| matches!(what, What::Unready { .. })).await;
    assert_eq!(red.to_string(), "can't serve: the disk is full");
    let wrong = seen.until("a", |what| matches!(what, What::Misspoke { .. })).await;
    assert!(wrong.to_string().contains("announces nothing"), "{wrong}");
    seen.stop.send(Stop::Drain).unwrap();
    let (all, ended) = seen.end().await;
    ended.unwrap();
    assert_eq!(order(&all, |what| matches!(what, What::Started { .. })).len(), 1);
}

#[tokio::test]
async fn what_a_child_repeats_is_told_once() {
    let script = r#"trap 'exit 0' TERM
for n in 1 2 3; do echo '@mainstay {"ready":{}}'; done
for n in 1 2 3; do echo '@mainstay {"unready":{"reason":"full"}}'; done
echo '@mainstay {"unready":{"reason":"still full"}}'
echo '@mainstay {"ready":{}}'
echo over
read line"#;
    let mut seen = Seen::start(spec(), &[("a", script)]);
    seen.until("a", |what| *what == log("over")).await;
    seen.stop.send(Stop::Drain).unwrap();
    let (all, ended) = seen.end().await;
    ended.unwrap();
    let told = |what: &What| is_ready(what) || matches!(what, What::Unready { .. });
    let told: Vec<String> =
        all.iter().map(|(_, what)| what).filter(|what| told(what)).map(What::to_string).collect();
    assert_eq!(told, ["ready", "can't serve: full", "can't serve: still full", "ready"]);
}

#[tokio::test]
async fn a_stopped_child_is_red_until_it_goes_on() {
    let script = r#"trap 'exit 0' TERM
while :; do echo '@mainstay {"ready":{}}'; sleep 0.1; done"#;
    let spec = Spec { heard_within: Duration::from_secs(2), ..spec() };
    let mut seen = Seen::start(spec, &[("a", script)]);
    let pid = seen.pid("a").await;
    seen.until("a", is_ready).await;
    send(pid, Signal::STOP);
    let red = seen.until("a", |what| matches!(what, What::Unready { .. })).await;
    assert!(red.to_string().contains("it has said nothing for 2s"), "{red}");
    send(pid, Signal::CONT);
    seen.until("a", is_ready).await;
    seen.stop.send(Stop::Drain).unwrap();
    let (all, ended) = seen.end().await;
    ended.unwrap();
    assert_eq!(order(&all, |what| matches!(what, What::Started { .. })).len(), 1, "{all:?}");
    assert_eq!(order(&all, |what| *what == What::Killed), Vec::<&str>::new());
}

#[tokio::test]
async fn a_dropped_supervisor_lets_go_of_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let script = format!("echo '@mainstay {{\"ready\":{{}}}}'\nread line\necho over > '{}'", gone.display());
    let mut seen = Seen::start(spec(), &[("a", &script)]);
    seen.until("a", is_ready).await;
    seen.ended.abort();
    drop(seen);
    // What is waited for is a file that the child writes when its standard input has ended.
    let written = async {
        while !gone.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the child never noticed");
}

#[tokio::test]
async fn a_flood_of_log_is_bounded() {
    // One line of 20 MB without an end, then an ordinary one.
    let script = "head -c 20000000 /dev/zero | tr '\\0' x >&2\necho >&2\necho next >&2\nexit 2";
    let seen = Seen::start(spec(), &[("a", script)]);
    let (all, ended) = seen.end().await;
    let lines: Vec<&String> = all
        .iter()
        .filter_map(|(_, what)| if let What::Log { line } = what { Some(line) } else { None })
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].len() < mainstay_runtime::logs::LINE_MAX + 64, "{}", lines[0].len());
    assert!(lines[0].ends_with("more bytes)"));
    assert!(ended.unwrap_err().last_words.ends_with("next"));
}
