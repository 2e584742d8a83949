//! What a policy says, as data, and the check of it as a whole.

use std::time::Duration;

use crate::circuit_breaker::{self, Mode};
use crate::invalid::Invalid;
use crate::{bulkhead, hedge, load_shed, rate_limit, retry, timeout};

/// What an outbound policy says: data, as a document has it. Checked as a whole by [`PolicySpec::check`]. What is left
/// out lets everything pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PolicySpec {
    /// How long a call, and a try, may take.
    pub timeout: timeout::Spec,
    /// How often calls may be made: a token bucket or a leaky meter. A call counts once, whatever its tries are.
    pub rate_limit: Option<rate_limit::Spec>,
    /// How far apart calls begin: a leaky queue. After `rate_limit`, so that nobody waits to be refused.
    pub pacing: Option<rate_limit::Spec>,
    /// What is tried again. Not together with `hedge`.
    pub retry: Option<retry::Spec>,
    /// What is asked twice. Not together with `retry`.
    pub hedge: Option<hedge::Spec>,
    /// When the callee is left alone.
    pub breaker: Option<circuit_breaker::Spec>,
    /// How much is under way at a time.
    pub bulkhead: Option<bulkhead::Spec>,
    /// How much is under way at a time, as far as is measured; nobody waits for it. Within `bulkhead`.
    pub adaptive: Option<load_shed::Adaptive>,
}

/// An outbound policy, checked: what each rule takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked {
    pub(super) timeout: timeout::Checked,
    pub(super) rate_limit: Option<rate_limit::Checked>,
    pub(super) pacing: Option<rate_limit::Checked>,
    pub(super) retry: retry::Checked,
    pub(super) hedge: Option<hedge::Checked>,
    pub(super) breaker: circuit_breaker::Checked,
    pub(super) bulkhead: Option<bulkhead::Checked>,
    pub(super) adaptive: Option<load_shed::Checked>,
}

impl PolicySpec {
    /// Refuses settings that can't mean what they say, each by itself and together.
    ///
    /// # Errors
    /// [`Invalid`] names the pattern and the field.
    pub fn check(&self) -> Result<(), Invalid> {
        self.checked().map(drop)
    }

    pub(super) fn checked(&self) -> Result<Checked, Invalid> {
        let timeout = self.timeout.check()?;
        let rate_limit = self.rate_limit.map(refusing).transpose()?;
        let pacing = self.pacing.map(queueing).transpose()?;
        let hedge = self.hedge.map(hedge::Spec::check).transpose()?;
        let bulkhead = self.bulkhead.map(bulkhead::Spec::check).transpose()?;
        let adaptive =
            self.adaptive.map(|adaptive| unqueued(load_shed::Limit::Adaptive(adaptive), "adaptive"));
        let adaptive = adaptive.transpose()?;
        // What is left out is a rule that lets everything pass: so it can be put in later, and know who is there.
        let retry = self.retry.unwrap_or(retry::Spec::default().max_attempts(1)).check()?;
        let off = circuit_breaker::Spec::default().mode(Mode::Disabled);
        let breaker = self.breaker.unwrap_or(off).check()?;
        self.fits_together()?;
        Ok(Checked { timeout, rate_limit, pacing, retry, hedge, breaker, bulkhead, adaptive })
    }

    /// Settings that are good by themselves and mean nothing beside each other.
    fn fits_together(&self) -> Result<(), Invalid> {
        if self.retry.is_some_and(|retry| retry.max_attempts > 1) && self.hedge.is_some() {
            let problem = "the policy retries, too, and both around one try would multiply the tries";
            return Err(Invalid::new("hedge", "hedge", "set".into(), problem, "leave out one of the two"));
        }
        if let (Some(adaptive), Some(bulkhead)) = (self.adaptive, self.bulkhead)
            && adaptive.min >= bulkhead.permits
        {
            let problem = "`bulkhead.permits` is no more than that, so it would never limit anything";
            let remedy = "lower it, raise `bulkhead.permits`, or leave out one of the two";
            return Err(Invalid::new("adaptive", "min", adaptive.min.to_string(), problem, remedy));
        }
        let Some(attempt) = self.timeout.attempt else { return Ok(()) };
        let shown = |time: Duration| format!("{time:?}");
        if let Some(hedge) = self.hedge.filter(|hedge| hedge.at_least >= attempt) {
            let problem = "a try ends (`timeout.attempt`) before it, so there would never be a second one";
            let remedy = "lower it below `timeout.attempt`";
            return Err(Invalid::new("hedge", "at_least", shown(hedge.at_least), problem, remedy));
        }
        let Some(breaker) = self.breaker else { return Ok(()) };
        if let Some(slow) = breaker.slow.filter(|slow| slow.longer_than >= attempt) {
            let problem =
                "a try ends (`timeout.attempt`) before it, as a failure, so none would ever be slow";
            let remedy = "lower it below `timeout.attempt`";
            let given = shown(slow.longer_than);
            return Err(Invalid::new("circuit_breaker", "slow.longer_than", given, problem, remedy));
        }
        if breaker.probe_limit < attempt {
            let problem =
                "a probe may take longer (`timeout.attempt`), and would count as lost while it is under way";
            let remedy = "raise it to `timeout.attempt` at least";
            let given = shown(breaker.probe_limit);
            return Err(Invalid::new("circuit_breaker", "probe_limit", given, problem, remedy));
        }
        Ok(())
    }
}

/// What an inbound policy says: data, as a document has it. Checked as a whole by [`InboundSpec::check`]. What is left out
/// lets everything pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct InboundSpec {
    /// How long a request may take, whatever its caller says. Range: above 0, up to [`timeout::LONGEST_LIMIT`].
    pub deadline: Option<Duration>,
    /// How much is under way or waits in all, before anything is known of anybody: what keeps a flood from
    /// costing more than its refusal. Nobody waits for it.
    pub coarse_shed: Option<load_shed::Limit>,
    /// How often each identity may ask ([`Describe::identity`](crate::Describe::identity)); those who have none share
    /// one bucket.
    pub rate_limit: Option<rate_limit::Spec>,
    /// How much is worked on at a time, and who is given up when there is too much: by priority.
    pub load_shed: Option<load_shed::Spec>,
    /// How much of this route is worked on at a time.
    pub bulkhead: Option<bulkhead::Spec>,
}

/// An inbound policy, checked: what each rule takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct InboundChecked {
    pub(super) timeout: timeout::Checked,
    pub(super) coarse_shed: Option<load_shed::Checked>,
    pub(super) rate_limit: Option<rate_limit::Checked>,
    pub(super) load_shed: Option<load_shed::Checked>,
    pub(super) bulkhead: Option<bulkhead::Checked>,
}

impl InboundSpec {
    /// Refuses settings that can't mean what they say, each by itself and together.
    ///
    /// # Errors
    /// [`Invalid`] names the pattern and the field.
    pub fn check(&self) -> Result<(), Invalid> {
        self.checked().map(drop)
    }

    pub(super) fn checked(&self) -> Result<InboundChecked, Invalid> {
        let timeout = timeout::Spec { total: self.deadline, attempt: None };
        let timeout = timeout.check().map_err(|invalid| invalid.in_place("deadline"))?;
        let coarse_shed = self.coarse_shed.map(|limit| unqueued(limit, "coarse_shed")).transpose()?;
        let rate_limit = self.rate_limit.map(refusing).transpose()?;
        let load_shed = self.load_shed.map(load_shed::Spec::check).transpose()?;
        let bulkhead = self.bulkhead.map(bulkhead::Spec::check).transpose()?;
        self.fits_together()?;
        Ok(InboundChecked { timeout, coarse_shed, rate_limit, load_shed, bulkhead })
    }

    /// Settings that are good by themselves and mean nothing beside each other.
    fn fits_together(&self) -> Result<(), Invalid> {
        let Some(load_shed) = self.load_shed else { return Ok(()) };
        if let (Some(load_shed::Limit::Fixed(all)), load_shed::Limit::Fixed(served)) =
            (self.coarse_shed, load_shed.limit)
            && all <= served
        {
            let problem = "`load_shed.limit` is no less than that, so nobody would ever wait there";
            let remedy = "raise it to the sum of `load_shed.limit` and `load_shed.queue`";
            return Err(Invalid::new("coarse_shed", "limit", all.to_string(), problem, remedy));
        }
        if self.deadline.is_some_and(|deadline| load_shed.target >= deadline) {
            let problem = "whoever waited that long would be past `deadline`";
            let given = format!("{:?}", load_shed.target);
            return Err(Invalid::new("load_shed", "target", given, problem, "lower it, or raise `deadline`"));
        }
        Ok(())
    }
}

/// Settings of a limit that refuses.
fn refusing(spec: rate_limit::Spec) -> Result<rate_limit::Checked, Invalid> {
    let checked = spec.check()?;
    rate_limit::refuses(&checked)?;
    Ok(checked)
}

/// Settings of a limit that makes its callers wait.
fn queueing(spec: rate_limit::Spec) -> Result<rate_limit::Checked, Invalid> {
    let checked = spec.check().and_then(|checked| rate_limit::queues(&checked).map(|()| checked));
    checked.map_err(|invalid| invalid.in_place("pacing"))
}

/// Settings of a limit that nobody waits for.
fn unqueued(limit: load_shed::Limit, place: &'static str) -> Result<load_shed::Checked, Invalid> {
    let spec = load_shed::Spec { limit, ..load_shed::Spec::fixed(1).queue(0) };
    spec.check().map_err(|invalid| invalid.in_place(place))
}
