//! The embedded log between processes: a writer that is killed, followers that come first, doorbells.
//!
//! The other process is this test program again, started with `--exact other_process` and a role in its
//! environment. The two talk in lines over its standard input and output; an answer begins with `> `.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_envelope::{CloudEvent, ContentHash, Context, MessageIdentity, Producer};
use mainstay_messaging::{Delivered, Log, Message, Offset, RECHECK, ReadError, Topic};
use mainstay_sqlite::{EmbeddedLog, LogOptions};

mod folder;

/// Whatever takes longer is a stall.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of one append of the killed writer: an odd number, so that a part of one shows.
const BATCH: u64 = 7;

// ---- the other process ----

struct Other {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Other {
    fn start(role: &str, file: &Path, runtime: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other_process", "--nocapture", "--test-threads=1"])
            .env("MAINSTAY_ROLE", role)
            .env("MAINSTAY_FILE", file)
            .env("XDG_RUNTIME_DIR", runtime)
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
        self.answer_if_any().unwrap_or_else(|| panic!("the other process ended"))
    }

    /// As `answer`; none when the process has ended, or was killed in the middle of a line.
    fn answer_if_any(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return None;
            }
            if let Some(answer) = line.trim_end().strip_prefix("> ") {
                return Some(answer.to_owned());
            }
        }
    }

    /// kill -9.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Where it has ended already, both calls change nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(answer: &str) {
    // On a line of its own, whatever the harness has begun to print.
    print!("\n> {answer}\n");
    std::io::stdout().flush().unwrap();
}

/// No test, but what the tests below start as their other process.
#[test]
fn other_process() {
    let Ok(role) = std::env::var("MAINSTAY_ROLE") else { return };
    let file = PathBuf::from(std::env::var_os("MAINSTAY_FILE").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role.as_str() {
        "append" => runtime.block_on(append_until_killed(&file)),
        "append some" => runtime.block_on(append_some(&file)),
        "follow" => runtime.block_on(follow_on_orders(&file)),
        _ => panic!("no role {role}"),
    }
}

/// Appends batches as fast as it can, from the number of the order on, two at once, and tells which were
/// acknowledged.
async fn append_until_killed(file: &Path) {
    let log = EmbeddedLog::open(LogOptions::new(file).retention(None)).unwrap();
    say("ready");
    let mut first: u64 = std::io::stdin().lines().next().unwrap().unwrap().parse().unwrap();
    let cx = Context::system();
    loop {
        let (one, two) = (batch(first), batch(first + BATCH));
        let (one, two) = tokio::join!(log.append(&cx, one), log.append(&cx, two));
        one.unwrap();
        two.unwrap();
        first += 2 * BATCH;
        say(&(first - 1).to_string());
    }
}

/// Appends so many batches and ends.
async fn append_some(file: &Path) {
    let log = EmbeddedLog::open(LogOptions::new(file).retention(None)).unwrap();
    say("ready");
    let order = std::io::stdin().lines().next().unwrap().unwrap();
    let (first, count) = order.split_once(' ').unwrap();
    let (first, count): (u64, u64) = (first.parse().unwrap(), count.parse().unwrap());
    for i in 0..count {
        log.append(&Context::system(), batch(first + i * BATCH)).await.unwrap();
    }
    say("done");
    log.close();
}

/// For each order: reads until it has the message of that number, then says how many it has seen.
async fn follow_on_orders(file: &Path) {
    let log = EmbeddedLog::follow(LogOptions::new(file)).unwrap();
    assert_eq!(log.doorbell_failure(), None);
    say("ready");
    let (mut seen, mut last) = (0, 0);
    for order in std::io::stdin().lines() {
        let wanted: u64 = order.unwrap().parse().unwrap();
        while last < wanted {
            let page = log.read(&topic(), 0, Offset(seen), 100).await.unwrap();
            if page.messages.is_empty() {
                log.wait_past(&topic(), 0, Offset(seen), PATIENCE).await;
            }
            for delivered in &page.messages {
                last = checked(delivered);
                seen = delivered.offset.0;
            }
        }
        say(&seen.to_string());
    }
}

// ---- kit ----

fn topic() -> Topic {
    Topic::new("orders").unwrap()
}

/// A message whose data can't be torn without notice.
fn message(number: u64) -> Message {
    let data: Vec<u8> = (0..3_000_u64).map(|i| (i * 31 + number * 7) as u8).collect();
    Message {
        identity: MessageIdentity {
            producer: Producer::new("order").unwrap(),
            epoch: 1,
            partition: 0,
            seq: number,
            content: ContentHash::of(&data),
        },
        topic: topic(),
        key: "k".into(),
        event: CloudEvent::new(number.to_string(), "/order", "OrderCreated").unwrap(),
        data: Bytes::from(data),
        mark: number,
    }
}

fn batch(first: u64) -> Vec<Message> {
    (first..first + BATCH).map(message).collect()
}

/// The number of a message that is whole.
fn checked(delivered: &Delivered) -> u64 {
    let number = delivered.message.identity.seq;
    assert_eq!(delivered.message, message(number));
    number
}

/// The numbers of all messages, each checked to be whole.
async fn all(log: &EmbeddedLog) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), Offset::START);
    loop {
        let page = log.read(&topic(), 0, after, 1_000).await.unwrap();
        found.extend(page.messages.iter().map(checked));
        if page.at_end() {
            return found;
        }
        after = page.next;
    }
}

/// A file and a runtime folder in a folder of their own. The runtime folder is in the system's temporary one,
/// since a socket's path must be short.
struct Place {
    folder: folder::Folder,
    runtime: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: folder::Folder::new(), runtime: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("log.db")
    }

    fn options(&self) -> LogOptions {
        LogOptions::new(self.file()).retention(None).runtime_folder(self.runtime.path())
    }

    /// What hangs out under the runtime folder.
    fn sockets(&self) -> Vec<PathBuf> {
        let inside = |folder: PathBuf| {
            let entries =
                std::fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect());
            entries.unwrap_or_else(|_| Vec::new())
        };
        let mut found = inside(self.runtime.path().to_owned());
        for _ in 0..2 {
            found = found.into_iter().flat_map(inside).collect();
        }
        found
    }
}

/// In how many of five rounds a follower heard of an append in less than half the time of its own look.
async fn quick_of_five(log: &EmbeddedLog, follower: &EmbeddedLog) -> usize {
    let mut quick = 0;
    for _ in 0..5 {
        let after = follower.end(&topic(), 0).await.unwrap();
        let waiter = follower.clone();
        let waiter = tokio::spawn(async move {
            while waiter.end(&topic(), 0).await.unwrap() <= after {
                waiter.wait_past(&topic(), 0, after, PATIENCE).await;
            }
            Instant::now()
        });
        // Most likely it waits by now; if not, it finds the message without waiting.
        tokio::time::sleep(Duration::from_millis(50)).await;
        log.append(&Context::system(), vec![message(after.0 + 1)]).await.unwrap();
        let told = Instant::now();
        quick += usize::from(waiter.await.unwrap().saturating_duration_since(told) < RECHECK / 2);
    }
    quick
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// ---- tests ----

/// Killed in the middle of its work, again and again: a reader sees all that was acknowledged, whole batches, in
/// order, nothing torn; and the next writer goes on where this one ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_leaves_whole_batches_and_all_it_acknowledged() {
    let place = Place::new();
    let follower = EmbeddedLog::follow(place.options()).unwrap();
    let (mut next, mut landed_in_the_middle) = (1, 0);
    for round in 0..15_u64 {
        let mut writer = Other::start("append", &place.file(), place.runtime.path());
        writer.order(&next.to_string());
        let mut acknowledged = next - 1;
        for _ in 0..round % 5 {
            acknowledged = writer.answer().parse().unwrap();
        }
        // Somewhere in the next commits.
        tokio::time::sleep(Duration::from_micros(700 * (round % 7))).await;
        writer.kill();
        while let Some(answer) = writer.answer_if_any() {
            acknowledged = answer.parse().unwrap();
        }
        for log in [&follower, &EmbeddedLog::follow(place.options()).unwrap()] {
            let found = all(log).await;
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "round {round}");
            assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged} acknowledged", found.len());
            assert!((found.len() as u64).is_multiple_of(BATCH), "a part of a batch: {}", found.len());
            next = found.len() as u64 + 1;
        }
        landed_in_the_middle += u64::from(next - 1 > acknowledged);
    }
    assert!(next > 10 * BATCH, "hardly anything was appended: {next}");
    // With a commit of some milliseconds most kills hit one that was under way, or not yet answered.
    println!("{landed_in_the_middle} of 15 kills came between a commit and its answer");
}

/// A follower in another process that was there before the log gets everything, in order, as it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_may_come_before_the_log() {
    let place = Place::new();
    let mut follower = Other::start("follow", &place.file(), place.runtime.path());
    let own = EmbeddedLog::follow(place.options()).unwrap();
    assert_eq!(own.end(&topic(), 0).await.unwrap(), Offset::START);
    assert_eq!(own.read(&topic(), 0, Offset::START, 10).await.unwrap().messages, []);
    assert_eq!(own.newest(&Producer::new("order").unwrap(), 1, 0).await.unwrap(), None);
    // It remembers more than there is. As long as there is nothing at all, that means nothing: the file may come.
    let early = own.read(&topic(), 0, Offset(1_000), 10).await.unwrap();
    assert_eq!((early.messages.len(), early.next, early.at_end()), (0, Offset(1_000), true));
    assert!(!place.file().exists(), "following makes nothing");
    follower.order("21");
    let log = EmbeddedLog::open(place.options()).unwrap();
    for first in [1, 8, 15] {
        log.append(&Context::system(), batch(first)).await.unwrap();
    }
    assert_eq!(follower.answer(), "21");
    assert_eq!(all(&own).await, (1..=21).collect::<Vec<_>>());
    // Now it is told, not answered with "nothing new".
    let past = own.read(&topic(), 0, Offset(1_000), 10).await;
    assert_eq!(past, Err(ReadError::PastEnd { asked: Offset(1_000), ends: Offset(21) }));
}

/// Whoever comes while a log is being made sees nothing of it or all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_appears_whole() {
    for _ in 0..20 {
        let place = Place::new();
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let follower = EmbeddedLog::follow(place.options()).unwrap();
                tokio::spawn(async move {
                    while follower.end(&topic(), 0).await.unwrap() == Offset::START {
                        tokio::task::yield_now().await;
                    }
                    all(&follower).await
                })
            })
            .collect();
        // Two makers at once: one log.
        let (one, two) = (place.options(), place.options());
        let one = tokio::task::spawn_blocking(|| EmbeddedLog::open(one).unwrap());
        let two = tokio::task::spawn_blocking(|| EmbeddedLog::open(two).unwrap());
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        one.append(&Context::system(), batch(1)).await.unwrap();
        for follower in followers {
            assert_eq!(follower.await.unwrap(), (1..=BATCH).collect::<Vec<_>>());
        }
        assert_eq!(all(&two).await.len() as u64, BATCH);
        let files = std::fs::read_dir(place.folder.path()).unwrap().flatten().map(|entry| entry.file_name());
        assert!(
            files.into_iter().all(|name| !name.to_string_lossy().contains("new")),
            "a maker left something"
        );
    }
}

/// A doorbell rings whatever the length of the data's own path: a socket's path ends at 107 bytes, this one has
/// 200 and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_data_path_has_a_doorbell_too() {
    let place = Place::new();
    let long = place.folder.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&long).unwrap();
    let options = || LogOptions::new(long.join("log.db")).runtime_folder(place.runtime.path());
    assert!(long.as_os_str().len() > 200);
    let log = EmbeddedLog::open(options()).unwrap();
    let follower = EmbeddedLog::follow(options()).unwrap();
    assert_eq!(follower.doorbell_failure(), None);
    let [socket] = &place.sockets()[..] else { panic!("{:?}", place.sockets()) };
    assert!(socket.as_os_str().len() <= 107);
    let quick = quick_of_five(&log, &follower).await;
    assert!(quick >= 4, "heard in time in {quick} of 5 rounds");
}

/// Two paths to one file are one log: its followers hear the writer whichever they took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_behind_a_link_is_the_same_log() {
    let place = Place::new();
    let link = place.runtime.path().join("link");
    std::os::unix::fs::symlink(place.folder.path(), &link).unwrap();
    let log = EmbeddedLog::open(place.options()).unwrap();
    let options = LogOptions::new(link.join("log.db")).runtime_folder(place.runtime.path());
    let follower = EmbeddedLog::follow(options).unwrap();
    let quick = quick_of_five(&log, &follower).await;
    assert!(quick >= 4, "heard in time in {quick} of 5 rounds");
}

/// Where no doorbell can be hung out the reason is told, and the slow look finds everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_doorbell_the_slow_look_is_left() {
    let place = Place::new();
    let in_the_way = place.runtime.path().join("file");
    std::fs::write(&in_the_way, "").unwrap();
    let too_long = place.runtime.path().join("d".repeat(100));
    for (runtime, says) in [(&in_the_way, "can't be made"), (&too_long, "too long")] {
        let log = EmbeddedLog::open(place.options().runtime_folder(runtime)).unwrap();
        let follower = EmbeddedLog::follow(place.options().runtime_folder(runtime)).unwrap();
        let failure = follower.doorbell_failure().unwrap();
        assert!(failure.contains(says), "{failure}");
        let after = follower.end(&topic(), 0).await.unwrap();
        let begun = Instant::now();
        let waiter = {
            let follower = follower.clone();
            tokio::spawn(async move {
                follower.wait_past(&topic(), 0, after, PATIENCE).await;
            })
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        log.append(&Context::system(), vec![message(after.0 + 1)]).await.unwrap();
        waiter.await.unwrap();
        assert!(begun.elapsed() < 5 * RECHECK, "{:?}", begun.elapsed());
        assert_eq!(follower.end(&topic(), 0).await.unwrap().0, after.0 + 1);
    }
}

/// A folder that others may write into, or that is not ours, is not used, and nothing in it is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_open_to_others_is_not_used() {
    let place = Place::new();
    drop(EmbeddedLog::follow(place.options()).unwrap()); // makes the folders
    let owned = std::fs::read_dir(place.runtime.path()).unwrap().next().unwrap().unwrap().path();
    let follower = EmbeddedLog::follow(place.options()).unwrap();
    let [socket] = &place.sockets()[..] else { panic!("{:?}", place.sockets()) };
    let folder = socket.parent().unwrap().to_owned();
    drop(follower);
    std::fs::create_dir_all(&folder).unwrap();
    let planted = folder.join("planted");
    drop(UnixDatagram::bind(&planted).unwrap());
    std::fs::set_permissions(&owned, std::fs::Permissions::from_mode(0o777)).unwrap();
    let follower = EmbeddedLog::follow(place.options()).unwrap();
    assert!(follower.doorbell_failure().unwrap().contains("0700"));
    let log = EmbeddedLog::open(place.options()).unwrap();
    log.append(&Context::system(), batch(1)).await.unwrap();
    assert!(planted.exists());
    // Once it is ours alone again, the next look mends it.
    std::fs::set_permissions(&owned, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    let end = follower.end(&topic(), 0).await.unwrap();
    follower.wait_past(&topic(), 0, end, RECHECK + RECHECK / 2).await;
    until("a doorbell hangs out", || follower.doorbell_failure().is_none()).await;
    assert!(quick_of_five(&log, &follower).await >= 4);
}

/// A socket that was removed under its follower is hung out again at the next slow look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_doorbell_is_hung_out_again() {
    let place = Place::new();
    let log = EmbeddedLog::open(place.options()).unwrap();
    let follower = EmbeddedLog::follow(place.options()).unwrap();
    assert!(quick_of_five(&log, &follower).await >= 4);
    let [removed] = &place.sockets()[..] else { panic!("{:?}", place.sockets()) };
    std::fs::remove_file(removed).unwrap();
    let after = follower.end(&topic(), 0).await.unwrap();
    log.append(&Context::system(), vec![message(after.0 + 1)]).await.unwrap();
    // Nothing is lost meanwhile.
    assert_eq!(all(&follower).await.len() as u64, after.0 + 1);
    follower.wait_past(&topic(), 0, Offset(after.0 + 1), RECHECK + RECHECK / 2).await;
    until("another socket", || place.sockets().iter().any(|socket| socket != removed)).await;
    assert!(quick_of_five(&log, &follower).await >= 4);
    drop(follower);
    assert!(place.sockets().is_empty(), "a follower takes its doorbell down: {:?}", place.sockets());
}

/// What a killed follower left is removed by the writer, and other followers hear all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_followers_doorbell_is_removed() {
    let place = Place::new();
    let log = EmbeddedLog::open(place.options()).unwrap();
    let mut dead = Other::start("follow", &place.file(), place.runtime.path());
    let follower = EmbeddedLog::follow(place.options()).unwrap();
    assert_eq!(place.sockets().len(), 2);
    dead.kill();
    assert_eq!(place.sockets().len(), 2, "a killed process removes nothing");
    let quick = quick_of_five(&log, &follower).await;
    assert!(quick >= 4, "heard in time in {quick} of 5 rounds");
    assert_eq!(place.sockets().len(), 1);
}

/// Two writers, which nobody should have: nothing is lost, doubled or torn, and offsets stay dense.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_harm_no_message() {
    let place = Place::new();
    let mut other = Other::start("append some", &place.file(), place.runtime.path());
    let log = EmbeddedLog::open(place.options()).unwrap();
    other.order("100000 30");
    for i in 0..30 {
        log.append(&Context::system(), batch(1 + i * BATCH)).await.unwrap();
    }
    assert_eq!(other.answer(), "done");
    let mut found = all(&log).await;
    // The read itself refuses what is not dense; here, that every number is there once.
    found.sort_unstable();
    let expected = (1..=30 * BATCH).chain(100_000..100_000 + 30 * BATCH);
    assert_eq!(found, expected.collect::<Vec<_>>());
}

/// Appends that wait together share a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_at_once_share_their_commits() {
    const APPENDS: u64 = 300;
    let place = Place::new();
    let log = EmbeddedLog::open(place.options()).unwrap();
    let appends: Vec<_> = (1..=APPENDS)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move { log.append(&Context::system(), vec![message(number)]).await.unwrap() })
        })
        .collect();
    for append in appends {
        append.await.unwrap();
    }
    let groups = log.groups();
    assert_eq!(groups.events, APPENDS);
    assert!(groups.commits() < APPENDS / 3, "{} commits for {APPENDS} appends", groups.commits());
}

/// The last handle gone, what was accepted is done and the file is left as the main file alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_empties_the_queue_and_lets_go_of_the_file() {
    let place = Place::new();
    let log = EmbeddedLog::open(place.options()).unwrap();
    let appends: Vec<_> = (0..20)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.append(&Context::system(), batch(1 + i * BATCH)).await })
        })
        .collect();
    let mut acknowledged = 0;
    for append in appends {
        acknowledged += append.await.unwrap().map_or(0, |places| places.len());
    }
    tokio::task::spawn_blocking(|| log.close()).await.unwrap();
    until("the readers let go", || std::fs::read_dir(place.folder.path()).unwrap().count() == 1).await;
    assert_eq!(all(&EmbeddedLog::follow(place.options()).unwrap()).await.len(), acknowledged);
}
