//! Several processes on one file: conditions, expected versions, subscriptions, and a reader that is stopped.
//!
//! The other process is this test program again, started with `--exact other_process` and a role in its
//! environment. The two talk in lines over its standard input and output: `go N` starts something, an answer that
//! begins with `> ` ends it. Nobody sleeps: whoever waits, waits for a line or for a condition with a deadline.
//!
//! Long: one program, since the other process is this one, with all its roles.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_envelope::Context;
use mainstay_event_store::{
    Act, AppendError, Condition, EventType, Expected, Head, NewEvent, Payload, Position, Query, Refusal,
    Retry, Store, StreamName, Subscribe, Tag, Verifier, Version, limits,
};
use mainstay_sqlite::{Options, Sqlite, rusqlite};
use rustix::process::{Pid, Signal, kill_process};

/// Whatever takes longer is a stall.
const PATIENCE: Duration = Duration::from_secs(60);

/// The racers of one round, in both processes together.
const RACERS: usize = 50;

const ROUNDS: u64 = 100;

// ---- the other process ----

/// A process that takes orders.
struct Other {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Other {
    fn start(role: &str, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture", "--test-threads=1"])
            .env("MAINSTAY_ROLE", role)
            .env("MAINSTAY_FILE", file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Self { child, orders, answers };
        assert_eq!(other.answer(), "ready");
        other
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.orders.flush().unwrap();
    }

    /// The next answer; what the test harness prints in between is none.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the other process ended");
            if let Some(answer) = line.trim_end().strip_prefix("> ") {
                return answer.to_owned();
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Tells it to end, and sees it end well.
    fn end(mut self) {
        self.order("end");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // After a failed assertion; otherwise it has ended already, and both calls change nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(answer: &str) {
    // On a line of its own, whatever the harness has begun to print.
    print!("\n> {answer}\n");
    std::io::stdout().flush().unwrap();
}

/// The orders, one after another, until `end` or until whoever gives them is gone.
fn orders() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map(Result::unwrap).take_while(|order| order != "end")
}

/// No test, but what the tests below start as their other process.
#[test]
fn other_process() {
    let Ok(role) = std::env::var("MAINSTAY_ROLE") else { return };
    let file = std::env::var_os("MAINSTAY_FILE").unwrap();
    let file = Path::new(&file);
    match role.as_str() {
        "race" => runtime().block_on(race_on_orders(file)),
        "read" => read_for_ever(file),
        "follow" => runtime().block_on(follow_on_orders(file)),
        _ => panic!("no role {role}"),
    }
}

// ---- kit ----

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn store(file: &Path) -> Sqlite {
    Sqlite::open(Options::new(file).busy_limit(Duration::from_secs(30))).unwrap()
}

fn stream(name: impl AsRef<str>) -> StreamName {
    StreamName::new(name).unwrap()
}

fn event(cx: &Context) -> NewEvent {
    NewEvent::new(cx.new_id(), EventType::new("Happened").unwrap(), Payload::plain(*b"{}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} never came true");
        std::thread::yield_now();
    }
}

// ---- races ----

/// What the racers of one round want.
#[derive(Clone, Copy)]
enum Race {
    /// The same next version of one stream.
    Version,
    /// To write one tag of two, each unless the other's is there.
    Skew,
    /// To be the only event with a tag.
    Tag,
}

impl Race {
    const ALL: [Race; 3] = [Race::Version, Race::Skew, Race::Tag];

    fn named(name: &str) -> Self {
        match name {
            "version" => Race::Version,
            "skew" => Race::Skew,
            "tag" => Race::Tag,
            _ => panic!("no race {name}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Race::Version => "version",
            Race::Skew => "skew",
            Race::Tag => "tag",
        }
    }

    /// The act of one side, decided from what it has read.
    fn act(self, cx: &Context, round: u64, side: u64, read: Head) -> Act {
        let tag = |side: u64| Tag::new(format!("{}:{round}:{side}", self.name())).unwrap();
        let unless = |tag| Condition { query: Query::tags([tag]), after: read.position };
        let own = stream(format!("{}-{side}-{}", self.name(), cx.new_id()));
        match self {
            Race::Version => Act::append(stream("raced"), Expected::Exactly(Version(round)), vec![event(cx)]),
            Race::Skew => Act::append(own, Expected::Any, vec![event(cx).tagged(tag(side))])
                .unless(unless(tag(1 - side))),
            Race::Tag => {
                Act::append(own, Expected::Any, vec![event(cx).tagged(tag(0))]).unless(unless(tag(0)))
            }
        }
    }
}

/// Starts so many racers at once; how many were acknowledged. Everybody else must have been told to read again.
async fn race(store: Sqlite, cx: Context, acts: Vec<Act>) -> usize {
    let mut racers = tokio::task::JoinSet::new();
    for act in acts {
        let (store, cx) = (store.clone(), cx.clone());
        racers.spawn(async move { store.append(&cx, act).await });
    }
    let mut won = 0;
    while let Some(ended) = racers.join_next().await {
        match ended.unwrap() {
            Ok(_) => won += 1,
            Err(AppendError::Refused(refusal)) => {
                assert_eq!(refusal.retry(), Retry::AfterReading, "{refusal}")
            }
            Err(unknown) => panic!("{unknown}"),
        }
    }
    won
}

/// `read RACE ROUND RACERS`: decide; `go`: append what was decided, after saying so.
async fn race_on_orders(file: &Path) {
    let (store, cx, mut acts) = (store(file), Context::system(), Vec::new());
    say("ready");
    for order in orders() {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["read", kind, round, racers] => {
                let read = store.head().await.unwrap();
                let decide = |_| Race::named(kind).act(&cx, round.parse().unwrap(), 1, read);
                acts = (0..racers.parse::<usize>().unwrap()).map(decide).collect();
                say("read");
            }
            ["go"] => {
                say("going");
                say(&race(store.clone(), cx.clone(), std::mem::take(&mut acts)).await.to_string());
            }
            _ => panic!("no order {order}"),
        }
    }
    store.close();
}

/// Rounds of two processes that have both read before either appends; how often each side won.
fn rounds(kind: Race, rounds: u64, racers: usize) -> [usize; 2] {
    let (folder, runtime) = (folder(), runtime());
    let file = folder.path().join("store.db");
    let (store, cx) = (store(&file), Context::system());
    let mut other = Other::start("race", &file);
    let mut won = [0, 0];
    for round in 0..rounds {
        other.order(&format!("read {} {round} {racers}", kind.name()));
        let read = runtime.block_on(store.head()).unwrap();
        let acts = (0..racers).map(|_| kind.act(&cx, round, 0, read)).collect();
        // The barrier: both have decided, neither has appended.
        assert_eq!(other.answer(), "read");
        let here = || runtime.spawn(race(store.clone(), cx.clone(), acts));
        // Each side has a head start in every other round, so that on any machine both win some.
        let here = if round.is_multiple_of(2) {
            let here = here();
            other.order("go");
            assert_eq!(other.answer(), "going");
            here
        } else {
            other.order("go");
            assert_eq!(other.answer(), "going");
            here()
        };
        let here = runtime.block_on(here).unwrap();
        let there: usize = other.answer().parse().unwrap();
        match kind {
            // Those of one side do not exclude each other, but the sides do.
            Race::Skew => {
                assert!((here == racers && there == 0) || (here == 0 && there == racers), "{here}, {there}")
            }
            _ => assert_eq!(here + there, 1, "round {round} of {}", kind.name()),
        }
        won[0] += usize::from(here > 0);
        won[1] += usize::from(there > 0);
    }
    other.end();
    // Nothing is in the feed but what won.
    let events = runtime.block_on(store.head()).unwrap().position.0;
    let each = if matches!(kind, Race::Skew) { racers as u64 } else { 1 };
    assert_eq!(events, rounds * each);
    store.close();
    won
}

#[test]
fn two_processes_never_both_pass_conditions_that_exclude_each_other() {
    for kind in [Race::Skew, Race::Tag] {
        let won = rounds(kind, 200, 1);
        eprintln!("{}: won {won:?}", kind.name());
        // A race that always ends the same way is none.
        assert!(won.iter().all(|won| *won > 0), "{}: {won:?}", kind.name());
    }
}

#[test]
fn of_50_racers_in_two_processes_exactly_one_wins() {
    for kind in Race::ALL {
        let won = rounds(kind, ROUNDS, RACERS / 2);
        eprintln!("{}: won {won:?}", kind.name());
        assert!(won.iter().all(|won| *won > 0), "{}: {won:?}", kind.name());
    }
}

// ---- a reader that is stopped ----

/// Stays in the middle of one read transaction until it is told to `finish`.
fn read_for_ever(file: &Path) {
    let conn = rusqlite::Connection::open(file).unwrap();
    conn.execute_batch("begin").unwrap();
    let mut select = conn.prepare("select position from mainstay_events order by position").unwrap();
    let mut rows = select.query([]).unwrap();
    let mut seen = u64::from(rows.next().unwrap().is_some());
    say("ready");
    for order in orders() {
        assert_eq!(order, "finish");
        while rows.next().unwrap().is_some() {
            seen += 1;
        }
        conn.execute_batch("commit").unwrap();
        say(&seen.to_string());
    }
}

/// How the kernel says a process is: the letter after its name.
fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap()
}

#[test]
fn a_reader_stopped_in_the_middle_stops_nobody_and_raises_the_alarm() {
    const ALARM: u64 = 24 << 20;
    let (folder, runtime, cx) = (folder(), runtime(), Context::system());
    let file = folder.path().join("store.db");
    let store = Sqlite::open(Options::new(&file).wal_alarm(ALARM)).unwrap();
    let append = |bytes: usize| {
        let mut event = event(&cx);
        event.payload = Payload::plain(vec![b'x'; bytes]);
        runtime.block_on(store.append(&cx, Act::append(stream("s"), Expected::Any, vec![event]))).unwrap()
    };
    let wal = || std::fs::metadata(folder.path().join("store.db-wal")).unwrap().len();
    for _ in 0..10 {
        append(100);
    }
    let mut reader = Other::start("read", &file);
    kill_process(reader.pid(), Signal::STOP).unwrap();
    until("the reader's stop", || state(reader.pid()) == 'T');

    let mut appended = 10;
    until("the alarm", || {
        // Every one of them has to be acknowledged. No more is written than the alarm needs.
        append(if wal() > ALARM { 100 } else { 512 << 10 });
        appended += 1;
        store.health().wal_bytes.is_some()
    });
    let health = store.health();
    assert!(health.wal_bytes.unwrap() > ALARM && health.ready() && !health.green(), "{health:?}");
    let page = runtime.block_on(store.read(&Query::all(), Position::START, limits::PAGE_EVENTS_MAX)).unwrap();
    assert_eq!(page.head, Position(appended), "another reader does not see everything");
    assert_eq!(state(reader.pid()), 'T');

    kill_process(reader.pid(), Signal::CONT).unwrap();
    reader.order("finish");
    assert_eq!(reader.answer(), "10", "what the stopped reader saw changed under it");
    reader.end();
    until("the end of the alarm", || {
        append(100);
        store.health().green()
    });
    // The log is used from its beginning again, and was cut to its limit.
    let reused = wal();
    assert!(reused < ALARM, "{reused}");
    for _ in 0..20 {
        append(100);
    }
    assert_eq!(wal(), reused);
    store.close();
}

// ---- subscriptions ----

/// Writers and followers of each of the two processes.
const WRITERS: u64 = 8;
const FOLLOWERS: u64 = 4;

/// Streams that all writers share.
const STREAMS: u64 = 50;

/// Appends one event after another; how often it was told to come back later.
async fn write_events(store: Sqlite, cx: Context, writer: u64, count: u64) -> u64 {
    let mut later = 0;
    for i in 0..count {
        let mut event = event(&cx);
        event.payload = Payload::plain(format!("{writer} {i}").into_bytes());
        let act =
            Act::append(stream(format!("s-{}", (i * 7 + writer) % STREAMS)), Expected::Any, vec![event]);
        loop {
            match store.append(&cx, act.clone()).await {
                Ok(done) => break assert!(!done.repeated),
                Err(AppendError::Refused(refusal @ Refusal::Busy { .. })) => {
                    assert_eq!(refusal.retry(), Retry::Later);
                    later += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    later
}

/// Follows the feed from its beginning to `total`, once it has come as far as `begin`, and proves it.
async fn follow(store: Sqlite, begin: u64, total: u64) -> Head {
    while store.head().await.unwrap().position.0 < begin {
        store.wait_past(Position(begin - 1), Duration::from_millis(250)).await;
    }
    let (mut verifier, mut feed) =
        (Verifier::new(store.id()), store.subscribe(Query::all(), Position::START));
    let (mut streams, mut writers) = (HashMap::<StreamName, Version>::new(), HashMap::<u64, u64>::new());
    while verifier.head().position.0 < total {
        let event = feed.next_event().await.unwrap();
        // Missed, twice, out of order, changed: each breaks the chain of dense positions.
        verifier.check(&event).unwrap();
        let version = streams.entry(event.stream.clone()).or_default();
        assert_eq!(event.version.0, version.0 + 1, "an inversion in {}", event.stream);
        *version = event.version;
        let text = std::str::from_utf8(&event.payload.bytes).unwrap();
        let (writer, i) = text.split_once(' ').unwrap();
        // A writer waits for each answer, so its events stand in the order in which it wrote them.
        let next = writers.entry(writer.parse().unwrap()).or_default();
        assert_eq!(
            i.parse::<u64>().unwrap(),
            *next,
            "an event of writer {writer} is missing or stands twice"
        );
        *next += 1;
    }
    assert_eq!(writers.len() as u64, 2 * WRITERS);
    verifier.head()
}

/// One process's half: its writers and followers; where the followers have ended, and the writers' waits.
async fn half(store: &Sqlite, cx: &Context, side: u64, total: u64) -> (Head, u64) {
    let mut followers = tokio::task::JoinSet::new();
    for i in 0..FOLLOWERS {
        // One from the start, the others when part of the feed is there: they catch up, then follow.
        let begin = i * total / (2 * FOLLOWERS);
        followers.spawn(follow(store.clone(), begin, total));
    }
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..WRITERS {
        writers.spawn(write_events(store.clone(), cx.clone(), side * WRITERS + i, total / (2 * WRITERS)));
    }
    let mut later = 0;
    while let Some(waited) = writers.join_next().await {
        later += waited.unwrap();
    }
    let mut head: Option<Head> = None;
    while let Some(ended) = followers.join_next().await {
        let ended = ended.unwrap();
        assert_eq!(*head.get_or_insert(ended), ended, "two followers have seen different feeds");
    }
    (head.unwrap(), later)
}

/// `follow TOTAL`.
async fn follow_on_orders(file: &Path) {
    let (store, cx) = (store(file), Context::system());
    say("ready");
    for order in orders() {
        let total = order.strip_prefix("follow ").unwrap().parse().unwrap();
        let (head, later) = half(&store, &cx, 1, total).await;
        say(&format!("{} {} {later}", head.position, head.hash));
    }
    store.close();
}

#[test]
fn followers_in_two_processes_miss_nothing_and_see_nothing_twice() {
    let total: u64 = std::env::var("MAINSTAY_APPENDS").map_or(20_000, |text| text.parse().unwrap());
    assert!(total.is_multiple_of(2 * WRITERS), "MAINSTAY_APPENDS is to be a multiple of {}", 2 * WRITERS);
    let (folder, runtime, cx) = (folder(), runtime(), Context::system());
    let file = folder.path().join("store.db");
    let store = store(&file);
    let mut other = Other::start("follow", &file);
    let began = Instant::now();
    other.order(&format!("follow {total}"));
    // An append and its reading take well under a millisecond each.
    let limit = PATIENCE + Duration::from_millis(total);
    let half = async { tokio::time::timeout(limit, half(&store, &cx, 0, total)).await };
    let (head, later) = runtime.block_on(half).unwrap();
    let there = other.answer();
    other.end();
    assert!(there.starts_with(&format!("{} {} ", head.position, head.hash)), "{there}, {head:?}");
    assert_eq!(head.position.0, total);
    eprintln!(
        "{total} appends by {} writers, {} followers in 2 processes: missed 0, twice 0, inverted 0, chain verified; \
         {:.1} s; told to come back later: {later} here, {} there",
        2 * WRITERS,
        2 * FOLLOWERS,
        began.elapsed().as_secs_f64(),
        there.rsplit(' ').next().unwrap(),
    );
    store.close();
}
