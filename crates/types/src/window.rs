//! Windows: fixed slices of event time, `[start, start + size)`, aligned to the epoch.
//!
//! One size per installation. Every boundary that decides about money lies on a window's edge, so
//! a window is never cut (domain.md, "Words").

use std::time::Duration;

use crate::Timestamp;

/// The length of every window: whole seconds that divide a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct WindowSize(u32);

/// A window size that does not divide a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a window of {0} s does not divide a day of 86400 s")]
pub struct WindowSizeError(pub u32);

/// One window, named by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: Timestamp,
}

impl WindowSize {
    /// 60 s, the default.
    pub const MINUTE: Self = Self(60);
    const DAY_SECS: u32 = 86_400;

    /// A size in seconds.
    ///
    /// # Errors
    /// [`WindowSizeError`] for zero and for what does not divide a day.
    pub const fn from_secs(secs: u32) -> Result<Self, WindowSizeError> {
        match Self::DAY_SECS.checked_rem(secs) {
            Some(0) => Ok(Self(secs)),
            _ => Err(WindowSizeError(secs)),
        }
    }

    /// In seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }

    fn micros(self) -> i64 {
        i64::from(self.0).saturating_mul(1_000_000)
    }

    /// The window that holds `at`.
    #[must_use]
    pub fn window_of(self, at: Timestamp) -> Window {
        Window { start: self.floor(at) }
    }

    /// The last edge at or before `at`.
    #[must_use]
    pub fn floor(self, at: Timestamp) -> Timestamp {
        let past_edge = at.as_micros().checked_rem_euclid(self.micros()).unwrap_or_default();
        Timestamp::from_micros(at.as_micros().saturating_sub(past_edge)).unwrap_or(Timestamp::MIN)
    }

    /// The first edge at or after `at`; the last edge of the year 9999 has none after it and stays.
    #[must_use]
    pub fn ceil(self, at: Timestamp) -> Timestamp {
        let floor = self.floor(at);
        if floor == at { at } else { floor.checked_add(self.as_duration()).unwrap_or(floor) }
    }

    /// The window that starts at `start`, if that is an edge.
    #[must_use]
    pub fn starting_at(self, start: Timestamp) -> Option<Window> {
        (self.floor(start) == start).then_some(Window { start })
    }
}

impl Window {
    /// Its first instant.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The first instant after it.
    #[must_use]
    pub fn end(self, size: WindowSize) -> Timestamp {
        self.start.checked_add(size.as_duration()).unwrap_or(Timestamp::MAX)
    }
}

impl TryFrom<u32> for WindowSize {
    type Error = WindowSizeError;

    fn try_from(secs: u32) -> Result<Self, WindowSizeError> {
        Self::from_secs(secs)
    }
}

impl From<WindowSize> for u32 {
    fn from(size: WindowSize) -> Self {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_divide_a_day() {
        assert!(WindowSize::from_secs(60).is_ok() && WindowSize::from_secs(1).is_ok());
        for secs in [0, 7, 86_401] {
            assert_eq!(WindowSize::from_secs(secs), Err(WindowSizeError(secs)));
        }
    }

    proptest! {
        #[test]
        fn a_window_holds_its_instant(micros in -1_000_000_000_000_000i64..4_000_000_000_000_000) {
            let at = Timestamp::from_micros(micros).unwrap();
            let size = WindowSize::MINUTE;
            let window = size.window_of(at);
            prop_assert!(window.start() <= at && at < window.end(size));
            prop_assert_eq!(size.starting_at(window.start()), Some(window));
            prop_assert!(size.ceil(at) >= at && size.floor(size.ceil(at)) == size.ceil(at));
        }
    }
}
