//! What a run keeps: the calls on their way, and measurements.

use std::time::Duration;

use mainstay_envelope::{Deadline, Priority, RetryTokens};

use super::{Call, CallId, Event, Run};
use crate::sim::report::Report;

impl Run<'_> {
    pub(super) fn measure(&mut self) {
        let now = self.agenda.now();
        for (service, node) in self.nodes.iter().enumerate() {
            let shed = node.shed.as_ref().or_else(|| node.links.iter().find_map(|live| live.limit.as_ref()));
            let (limit, in_flight, waiting) =
                shed.map_or((0, 0, 0), |shed| (shed.limit(), shed.in_flight(), shed.waiting()));
            let queued = u32::try_from(node.server.queued()).unwrap_or(u32::MAX);
            self.report.measured(now, service, limit, in_flight, waiting.saturating_add(queued));
        }
        let next = now + Report::BUCKET;
        if next < self.ends {
            self.agenda.at(next, Event::Measure);
        } else {
            self.arrivals_ended = true;
        }
    }

    pub(super) fn new_call(
        &mut self,
        service: usize,
        from: Option<(CallId, usize, u32, Duration)>,
        priority: Priority,
        deadline: Deadline,
        tokens: RetryTokens,
    ) -> CallId {
        let call = Call {
            service,
            from,
            arrived: self.agenda.now(),
            priority,
            deadline,
            tokens,
            permit: None,
            runs: Vec::new(),
            open_links: 0,
            has_failed: false,
            is_told: false,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.calls.push((0, None));
            self.calls.len() - 1
        });
        self.calls[place].1 = Some(call);
        CallId { place, generation: self.calls[place].0 }
    }

    pub(super) fn call(&self, id: CallId) -> Option<&Call> {
        self.calls.get(id.place).filter(|kept| kept.0 == id.generation)?.1.as_ref()
    }

    pub(super) fn call_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.calls.get_mut(id.place).filter(|kept| kept.0 == id.generation)?.1.as_mut()
    }
}
