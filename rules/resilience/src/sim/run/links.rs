//! A call's links: tries, what they hold, and what is learnt from them.

use mainstay_envelope::{Deadline, Monotonic, RetryTokens};

use super::{CallId, Event, LinkRun, LiveLink, Run, Supply, UnderWay};
use crate::load_shed::Sample;
use crate::outcome::{Outcome, Safety};
use crate::retry;
use crate::sim::report::End;
use crate::sim::scenario::{Fan, Retries};

impl Run<'_> {
    pub(super) fn new_run(&self, id: CallId, link: usize, now: Monotonic) -> LinkRun {
        let none = LinkRun { retry: None, attempt: 0, under_way: None };
        let Some(call) = self.call(id) else { return none };
        let (settings, supply) = match self.nodes[call.service].links[link].link.retries {
            None => return none,
            Some(Retries::Tokens(settings)) => (settings, Supply::Tokens(call.tokens.clone())),
            Some(Retries::Unbudgeted(settings)) => (settings, Supply::Free),
        };
        LinkRun { retry: Some(retry::State::new(settings, now, Some(call.deadline), supply)), ..none }
    }

    pub(super) fn attempt(&mut self, id: CallId, link: usize) {
        let now = self.agenda.now();
        let Some(call) = self.call(id) else { return };
        let (service, priority, deadline) = (call.service, call.priority, call.deadline);
        if deadline.remaining(now).is_zero() {
            return self.link_ends(id, link, false);
        }
        let node = &self.nodes[service];
        let LiveLink { link: settings, breaker, limit } = &node.links[link];
        let ticket = match breaker.as_ref().map(|breaker| breaker.check(now)).transpose() {
            Ok(ticket) => ticket,
            // Our own refusal: not retried.
            Err(_) => return self.link_ends(id, link, false),
        };
        let permit = match limit.as_ref().map(|limit| limit.try_enter(now, Some(deadline))).transpose() {
            Ok(permit) => permit,
            Err(_) => {
                if let (Some(breaker), Some(ticket)) = (breaker, ticket) {
                    breaker.release(ticket, now);
                }
                return self.link_ends(id, link, false);
            }
        };
        let limited = Deadline::after(now, settings.attempt);
        let (to, latency, way_deadline) = (settings.to, settings.latency, limited.min(deadline));
        let is_alone = node.service.fan == Fan::Sequential || node.links.len() == 1;
        let tokens = if is_alone { call.tokens.take_all() } else { call.tokens.split() };
        let attempt = call.runs[link].attempt;
        let child = self.new_call(to, Some((id, link, attempt, latency)), priority, way_deadline, tokens);
        if let Some(call) = self.call_mut(id) {
            call.runs[link].under_way = Some(UnderWay { ticket, permit });
        }
        self.agenda.after(latency, Event::Deliver(child));
        let by_deadline = deadline < limited;
        self.agenda.at(way_deadline.reading(), Event::TryTimesOut { call: id, link, attempt, by_deadline });
    }

    pub(super) fn reply(&mut self, to: CallId, link: usize, attempt: u32, end: End, tokens: RetryTokens) {
        let Some(call) = self.call_mut(to) else { return };
        if call.runs[link].attempt != attempt || call.runs[link].under_way.is_none() {
            // Too late: nobody waits for it, and what tokens it had left are spent.
            return;
        }
        call.tokens.give_back(tokens);
        let outcome = if end == End::Good { Outcome::Success } else { Outcome::TRANSIENT };
        self.try_ends(to, link, outcome);
    }

    pub(super) fn try_ends(&mut self, id: CallId, link: usize, outcome: Outcome) {
        let now = self.agenda.now();
        let draw = self.dice.draw();
        let Some(call) = self.call_mut(id) else { return };
        let service = call.service;
        let run = &mut call.runs[link];
        let under_way = run.under_way.take();
        let decision = match (&mut run.retry, outcome) {
            (_, Outcome::Success) | (None, _) => None,
            (Some(retry), failed) => match retry.after(now, failed, Safety::Safe, draw) {
                retry::Decision::RetryAfter(wait) => Some(wait),
                retry::Decision::GiveUp(_) => None,
            },
        };
        run.attempt += 1;
        if let Some(under_way) = under_way {
            self.let_go(service, link, under_way, now, outcome);
        }
        match decision {
            Some(wait) => self.agenda.after(wait, Event::Try { call: id, link }),
            None => self.link_ends(id, link, outcome == Outcome::Success),
        }
    }

    /// Gives back what a try held, with what was learnt from it.
    pub(super) fn let_go(
        &self,
        service: usize,
        link: usize,
        under_way: UnderWay,
        now: Monotonic,
        outcome: Outcome,
    ) {
        let LiveLink { breaker, limit, .. } = &self.nodes[service].links[link];
        if let (Some(breaker), Some(ticket)) = (breaker, under_way.ticket) {
            breaker.record(ticket, now, outcome);
        }
        if let (Some(limit), Some(permit)) = (limit, under_way.permit) {
            let sample = match outcome {
                Outcome::Success | Outcome::Permanent => Sample::Answered,
                Outcome::Transient { .. } => Sample::Overloaded,
                Outcome::Cancelled => Sample::Nothing,
            };
            limit.complete(now, permit, sample);
        }
    }

    fn link_ends(&mut self, id: CallId, link: usize, well: bool) {
        let Some(call) = self.call_mut(id) else { return };
        call.open_links -= 1;
        call.has_failed |= !well;
        let (service, is_last, has_failed) = (call.service, call.open_links == 0, call.has_failed);
        let fan = self.nodes[service].service.fan;
        if is_last || (has_failed && fan == Fan::Sequential) {
            return self.finish(id, if has_failed { End::Failed } else { End::Good });
        }
        if fan == Fan::Sequential {
            self.attempt(id, link + 1);
        }
    }
}
