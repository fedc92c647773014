//! Which endpoints may be posted to now: a circuit breaker for each.
//!
//! An endpoint that failed several times in a row, or that has taken nothing within an hour, gets one
//! message at a time, after pauses that double. Whatever waits for it, a third party that fails is
//! posted to a few times an hour. All such posts to one registrable domain share a budget, since any
//! number of addresses can be named below one domain.
//!
//! Nothing of it is on disk: after a restart every endpoint has to show again that it answers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::rate_limit::{KeyedRateLimit, Rate};
use atcomm_proto::clock::{Clock, Timestamp};

/// Failures in a row after which an endpoint that has taken messages lately is paused.
const MAX_FAILURES: u32 = 3;

/// How long an endpoint counts as one that takes messages.
const ANSWERED_RETENTION: Duration = Duration::from_secs(3600);

/// Longest pause of an endpoint that answers, and asks to come later: all that waits may be for one
/// full queue, and the next message for another.
const MAX_DEFERRED_PAUSE: Duration = Duration::from_secs(300);

/// How long a trial may take until the next one.
const TRIAL_LEASE: Duration = Duration::from_secs(90);

/// Trials of one registrable domain within the longest pause.
const TRIALS_PER_PAUSE: u32 = 30;

/// Registrable domains with a budget of their own.
const MAX_DOMAINS: usize = 8192;

/// Endpoints and mediators remembered.
const MAX_ENTRIES: usize = 16_384;

/// Time to wait while another message is on trial.
const TRIAL_WAIT: Duration = Duration::from_secs(1);

/// What an attempt has shown of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It takes messages, or judges them.
    Answering,
    /// It answers, and takes no message now. Holds the pause that it asks for.
    Deferring(Option<Duration>),
    /// It fails. Holds the pause that it asks for.
    Failing(Option<Duration>),
}

#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// In a row.
    failures: u32,
    closed_until: Timestamp,
    /// End of the lease of a message on trial.
    trial_until: Timestamp,
    answered_at: Option<Timestamp>,
    used_at: Timestamp,
}

impl Standing {
    fn answered_lately(&self, now: Timestamp) -> bool {
        let lately = |at: Timestamp| at <= now && now.since(at) < ANSWERED_RETENTION;
        self.answered_at.is_some_and(lately)
    }

    fn needs_trial(&self, now: Timestamp) -> bool {
        self.failures >= MAX_FAILURES || !self.answered_lately(now)
    }
}

/// The standing of all endpoints, and of the mediators behind them.
pub(super) struct Standings {
    clock: Clock,
    longest_pause: Duration,
    trials: KeyedRateLimit<String>,
    entries: Mutex<HashMap<String, Standing>>,
}

/// The right to make one request. Dropped without an outcome, the request has failed: it was cut off.
pub(super) struct Trial<'s> {
    standings: &'s Standings,
    name: String,
    is_open: bool,
}

impl Trial<'_> {
    /// Records what the request has shown; `None`: none was made.
    pub(super) fn end(mut self, shown: Option<Health>) {
        self.is_open = false;
        self.standings.record(&self.name, shown);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.standings
                .record(&self.name, Some(Health::Failing(None)));
        }
    }
}

impl Standings {
    /// `longest_pause` is the longest time between two trials.
    pub(super) fn new(longest_pause: Duration, clock: Clock) -> Self {
        let pause = longest_pause.max(Duration::from_millis(1)).as_secs_f64();
        let hourly = (f64::from(TRIALS_PER_PAUSE) * 3600.0 / pause).clamp(1.0, 1e9);
        Self {
            trials: KeyedRateLimit::new(Rate::per_hour(hourly as u32), MAX_DOMAINS, clock.clone()),
            longest_pause,
            clock,
            entries: Mutex::default(),
        }
    }

    /// Allows one request, or returns the time until the next may be made. `domain` is the
    /// registrable domain that pays for a trial; `None`: nothing is posted.
    pub(super) fn request(
        &self,
        name: &str,
        domain: Option<&String>,
    ) -> Result<Trial<'_>, Duration> {
        let now = self.clock.now();
        let mut entries = self.lock();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(name) {
            evict(&mut entries);
        }
        let entry = entries.entry(name.to_owned()).or_default();
        entry.used_at = now;
        // A clock that was set back must not keep an endpoint closed.
        let longest = now.plus(self.longest_pause * 2);
        if entry.closed_until > now && entry.closed_until <= longest {
            return Err(entry.closed_until.since(now));
        }
        if entry.needs_trial(now) {
            if entry.trial_until > now && entry.trial_until <= now.plus(TRIAL_LEASE) {
                return Err(TRIAL_WAIT);
            }
            if let Some(domain) = domain {
                self.trials.take(domain)?;
            }
            entry.trial_until = now.plus(TRIAL_LEASE);
        }
        drop(entries);
        Ok(Trial {
            standings: self,
            name: name.to_owned(),
            is_open: true,
        })
    }

    fn record(&self, name: &str, shown: Option<Health>) {
        let now = self.clock.now();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else {
            return;
        };
        entry.trial_until = Timestamp::default();
        let lately = entry.answered_lately(now);
        let (asked, longest) = match shown {
            None => return,
            Some(Health::Answering) => {
                entry.failures = 0;
                entry.closed_until = Timestamp::default();
                entry.answered_at = Some(now);
                return;
            }
            // It takes other messages.
            Some(Health::Deferring(_)) if lately => return,
            Some(Health::Deferring(asked)) => (asked, self.longest_pause.min(MAX_DEFERRED_PAUSE)),
            Some(Health::Failing(asked)) => (asked, self.longest_pause),
        };
        entry.failures = entry.failures.saturating_add(1);
        if entry.needs_trial(now) {
            let pause = pauses(longest).wait(entry.failures, Spread::random());
            entry.closed_until = now.plus(pause.max(asked.unwrap_or_default().min(longest)));
        }
    }

    /// Returns the number of failures in a row.
    pub(super) fn failures(&self, name: &str) -> u32 {
        self.lock().get(name).map_or(0, |entry| entry.failures)
    }

    /// Returns how long no request may be made; zero: one may be made now.
    pub(super) fn pause(&self, name: &str) -> Duration {
        let now = self.clock.now();
        let entries = self.lock();
        entries
            .get(name)
            .map_or(Duration::ZERO, |entry| entry.closed_until.since(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the half that was used longest ago. An evicted endpoint needs a trial when it comes back.
fn evict(entries: &mut HashMap<String, Standing>) {
    let mut used: Vec<_> = entries.values().map(|entry| entry.used_at).collect();
    if used.is_empty() {
        return;
    }
    let middle = used.len() / 2;
    let (_, oldest, _) = used.select_nth_unstable(middle);
    let oldest = *oldest;
    entries.retain(|_, entry| entry.used_at > oldest);
}

/// Returns the pauses between attempts: a second, doubled each time, up to `longest`, each multiplied
/// by a number from a half to one and a half.
pub(super) fn pauses(longest: Duration) -> Backoff {
    Backoff {
        first: Duration::from_secs(1),
        longest,
        jitter: Jitter::between(0.5, 1.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_HOUR: Duration = Duration::from_secs(1800);

    fn standings() -> (Standings, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        (Standings::new(HALF_HOUR, clock.clone()), clock)
    }

    fn domain() -> String {
        "example.com".to_owned()
    }

    #[test]
    fn inv7_an_endpoint_that_fails_is_tried_a_few_times_an_hour() {
        for shown in [
            Health::Failing(None),
            Health::Failing(Some(Duration::from_secs(9))),
        ] {
            let (standings, clock) = standings();
            let mut trials = Vec::new();
            for hour in 0..24 {
                trials.push(0);
                for _ in 0..3600 {
                    if let Ok(trial) = standings.request("https://m.example.com/", Some(&domain()))
                    {
                        trial.end(Some(shown));
                        trials[hour] += 1;
                    }
                    clock.advance(Duration::from_secs(1));
                }
            }
            assert!(trials[0] <= 20, "{trials:?}");
            assert!(
                trials[1..].iter().all(|one| (1..=4).contains(one)),
                "{trials:?}"
            );
        }
    }

    #[test]
    fn one_message_is_on_trial_at_a_time_and_success_ends_all_limits() {
        let (standings, clock) = standings();
        let url = "https://m.example.com/";
        let first = standings.request(url, Some(&domain())).ok().unwrap();
        assert!(standings.request(url, Some(&domain())).is_err());
        first.end(Some(Health::Answering));
        let many: Vec<_> = (0..100)
            .map(|_| standings.request(url, Some(&domain())).ok().unwrap())
            .collect();
        // Two failures among many are no reason to stop.
        for (n, one) in many.into_iter().enumerate() {
            one.end(Some(if n < 2 {
                Health::Failing(None)
            } else {
                Health::Answering
            }));
        }
        assert_eq!(standings.failures(url), 0);
        for _ in 0..3 {
            let one = standings.request(url, Some(&domain())).ok().unwrap();
            // Cut off.
            drop(one);
        }
        assert!(standings.request(url, Some(&domain())).is_err());
        assert!(standings.pause(url) > Duration::ZERO);
        clock.advance(Duration::from_secs(10));
        let probe = standings.request(url, Some(&domain())).ok().unwrap();
        assert!(standings.request(url, Some(&domain())).is_err());
        probe.end(None);
        standings
            .request(url, Some(&domain()))
            .ok()
            .unwrap()
            .end(Some(Health::Answering));
        assert_eq!(
            (standings.failures(url), standings.pause(url)),
            (0, Duration::ZERO)
        );
    }

    #[test]
    fn a_full_queue_does_not_close_an_endpoint_that_takes_other_messages() {
        let (standings, clock) = standings();
        let url = "https://m.example.com/";
        let request = |shown| {
            standings
                .request(url, Some(&domain()))
                .map(|one| one.end(Some(shown)))
        };
        request(Health::Answering).unwrap();
        for _ in 0..100 {
            request(Health::Deferring(Some(HALF_HOUR))).unwrap();
        }
        // One that takes nothing for an hour is asked every few minutes.
        clock.advance(ANSWERED_RETENTION);
        let mut asked = 0;
        for _ in 0..3600 {
            asked += usize::from(request(Health::Deferring(Some(HALF_HOUR))).is_ok());
            clock.advance(Duration::from_secs(1));
        }
        assert!((8..40).contains(&asked), "{asked}");
    }

    #[test]
    fn inv7_many_addresses_of_one_domain_share_a_budget() {
        let (standings, clock) = standings();
        let mut trials = 0;
        for n in 0..10_000 {
            let url = format!("https://m.example.com/{n}");
            trials += usize::from(standings.request(&url, Some(&domain())).is_ok());
            clock.advance(Duration::from_millis(360));
        }
        assert!((100..=125).contains(&trials), "{trials}");
        let other = "other.example".to_owned();
        assert!(
            standings
                .request("https://other.example/", Some(&other))
                .is_ok()
        );
        for n in 0..40_000 {
            drop(standings.request(&format!("https://m{n}.example/"), None));
        }
        assert!(standings.lock().len() <= MAX_ENTRIES);
    }
}
