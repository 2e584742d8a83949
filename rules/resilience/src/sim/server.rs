//! A simulated server: workers, a queue in front of them, and how well they are.

use std::collections::VecDeque;
use std::time::Duration;

use mainstay_envelope::Monotonic;

use super::chance::Dice;
use super::scenario::{Condition, Service, Work};

/// Who works on what. `C` stands for a call.
#[derive(Debug)]
pub(super) struct Server<C> {
    workers: u32,
    busy: u32,
    work: Work,
    queue: VecDeque<C>,
    queue_max: usize,
    conditions: Vec<(Monotonic, Condition)>,
}

/// How a piece of work goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Ends {
        after: Duration,
        well: bool,
    },
    /// The worker is lost.
    Never,
}

impl<C> Server<C> {
    pub(super) fn new(service: &Service) -> Self {
        let conditions = service
            .conditions
            .iter()
            .map(|(at, condition)| (Monotonic::from_origin(*at), *condition))
            .collect();
        Server {
            workers: service.workers,
            busy: 0,
            work: service.work,
            queue: VecDeque::new(),
            queue_max: service.queue,
            conditions,
        }
    }

    /// Hands a call to a worker (true), or queues it. The call comes back when it is neither.
    pub(super) fn begin(&mut self, call: C) -> Result<bool, C> {
        if self.busy < self.workers {
            self.busy += 1;
            return Ok(true);
        }
        if self.queue.len() >= self.queue_max {
            return Err(call);
        }
        self.queue.push_back(call);
        Ok(false)
    }

    /// A worker is free: it takes the next call of the queue.
    pub(super) fn end(&mut self) -> Option<C> {
        let next = self.queue.pop_front();
        if next.is_none() {
            self.busy -= 1;
        }
        next
    }

    /// How a piece of work goes that begins at `now`.
    pub(super) fn piece(&self, now: Monotonic, dice: &Dice) -> Piece {
        let time = match self.work {
            Work::Exact(time) => time,
            Work::Exponential(mean) => dice.exponential(mean),
        };
        match self.condition(now) {
            Condition::Healthy => Piece::Ends { after: time, well: true },
            Condition::Slow(factor) => Piece::Ends { after: time.mul_f64(factor), well: true },
            Condition::Failing(share) => Piece::Ends { after: time, well: !dice.is(share) },
            Condition::Down => Piece::Ends { after: Duration::ZERO, well: false },
            Condition::Hanging => Piece::Never,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn condition(&self, now: Monotonic) -> Condition {
        let begun = self.conditions.iter().rev().find(|(at, _)| *at <= now);
        begun.map_or(Condition::Healthy, |(_, condition)| *condition)
    }
}
