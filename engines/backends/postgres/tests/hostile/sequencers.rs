//! Sequencers that are killed, cut off and stopped, with others behind them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_postgres::Schema;
use mainstay_postgres::sequencer::{Ended, Fate, Faults, Sequencer, Spec};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::chance::Chance;
use crate::server::Way;

const LEASE: Duration = Duration::from_millis(400);

/// One in twenty rounds ends before its commit.
#[derive(Debug)]
pub(crate) struct Killer {
    chance: Mutex<Chance>,
    pub(crate) asked: AtomicU64,
    pub(crate) cut_off: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) stopped: AtomicU64,
}

impl Killer {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            chance: Mutex::new(Chance::new(seed, 77)),
            asked: AtomicU64::default(),
            cut_off: AtomicU64::default(),
            killed: AtomicU64::default(),
            stopped: AtomicU64::default(),
        })
    }

    pub(crate) fn all(&self) -> u64 {
        [&self.cut_off, &self.killed, &self.stopped].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Faults for Killer {
    fn before_commit(&self, _round: u64) -> Fate {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (count, fate) = match self.chance.lock().unwrap().below(1_000) {
            0..40 => (&self.cut_off, Fate::IsCutOff),
            40..47 => (&self.killed, Fate::Dies),
            47..50 => (&self.stopped, Fate::Stands(LEASE * 3 / 2)),
            _ => return Fate::Lives,
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    }
}

/// Settings under which a takeover takes half a second.
pub(crate) fn spec(way: &Way) -> Spec {
    Spec {
        lease: LEASE,
        heartbeat: Duration::from_millis(100),
        silence_max: Duration::from_millis(200),
        idle_max: Duration::from_millis(20),
        prepared: !way.pooled,
        ..Spec::default()
    }
}

/// Candidates for one store: each that dies is followed by a new one.
pub(crate) struct Candidates {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Candidates {
    pub(crate) fn start(way: &Way, count: usize, killer: &Arc<Killer>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tasks = (0..count)
            .map(|_| {
                let faults: Arc<dyn Faults> = Arc::clone(killer) as Arc<dyn Faults>;
                let spec = Spec { faults: Some(faults), ..spec(way) };
                tokio::spawn(one_after_the_other(way.clone(), spec, stopped.clone()))
            })
            .collect();
        Self { stop, tasks }
    }

    /// As if their processes were killed.
    pub(crate) fn abandon(self) {
        for task in self.tasks {
            task.abort();
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn one_after_the_other(way: Way, spec: Spec, mut stop: watch::Receiver<bool>) {
    let schema = Schema::default();
    loop {
        let cx = Context::system();
        let mut sequencer = Sequencer::start(way.connect.clone(), &schema, &cx, spec.clone()).unwrap();
        let died = tokio::select! {
            ended = sequencer.ended() => {
                assert_eq!(ended, Ended::Died);
                true
            }
            () = told(&mut stop) => false,
        };
        if !died {
            sequencer.stop().await;
            return;
        }
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
