//! Pauses after trouble: doubled from the first to the longest, and cut by up to a half at random so that
//! instances do not come back in step.

use std::time::Duration;

use tokio::time::Instant;

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    first: Duration,
    longest: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl Retry {
    /// No trouble yet.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, until: None }
    }

    /// Not before this, where there was trouble.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the pause is over, or there is none.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// There was trouble.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failed_with(now, rand::random());
    }

    fn failed_with(&mut self, now: Instant, random: u32) {
        let half = self.next / 2;
        let cut = half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.until = Some(now + self.next.saturating_sub(cut));
        self.next = self.next.saturating_mul(2).min(self.longest);
    }

    /// It went well.
    pub(crate) const fn succeeded(&mut self) {
        self.next = self.first;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let now = Instant::now();
        let mut retry = Retry::new(Duration::from_millis(10), Duration::from_millis(35));
        assert!(retry.is_due(now));
        let mut pauses = Vec::new();
        for random in [0, 0, 0, u32::MAX] {
            retry.failed_with(now, random);
            pauses.push(retry.until().unwrap().duration_since(now).as_micros());
        }
        assert_eq!(pauses, [10_000, 20_000, 35_000, 17_500]);
        assert!(!retry.is_due(now));
        retry.succeeded();
        assert!(retry.is_due(now));
    }
}
