//! Instants: whole microseconds of UTC, as Postgres stores them.

use std::{fmt, str::FromStr, time::Duration};

/// An instant in microseconds since 1970-01-01T00:00:00Z, from [`Timestamp::MIN`] to [`Timestamp::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why something is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Outside the years 0001 to 9999.
    #[error("instant is outside the years 0001 to 9999")]
    OutOfRange,
    /// The text is not RFC 3339.
    #[error("{0:?} is not an instant such as 2026-01-31T12:00:00Z")]
    Malformed(String),
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// 9999-12-30T21:59:59.999999Z: the last instant that a calendar can place in every time zone.
    pub const MAX: Self = Self(253_402_207_199_999_999);

    /// From microseconds since the epoch.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`].
    pub const fn from_micros(micros: i64) -> Result<Self, TimeError> {
        if micros < Self::MIN.0 || micros > Self::MAX.0 {
            Err(TimeError::OutOfRange)
        } else {
            Ok(Self(micros))
        }
    }

    /// From milliseconds since the epoch.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`].
    pub const fn from_millis(millis: i64) -> Result<Self, TimeError> {
        match millis.checked_mul(1000) {
            Some(micros) => Self::from_micros(micros),
            None => Err(TimeError::OutOfRange),
        }
    }

    /// From seconds since the epoch.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`].
    pub const fn from_secs(secs: i64) -> Result<Self, TimeError> {
        match secs.checked_mul(1_000_000) {
            Some(micros) => Self::from_micros(micros),
            None => Err(TimeError::OutOfRange),
        }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// `by` later; `None` past the year 9999.
    #[must_use]
    pub fn checked_add(self, by: Duration) -> Option<Self> {
        let micros = i64::try_from(by.as_micros()).ok()?;
        Self::from_micros(self.0.checked_add(micros)?).ok()
    }

    /// `by` earlier; `None` before the year 0001.
    #[must_use]
    pub fn checked_sub(self, by: Duration) -> Option<Self> {
        let micros = i64::try_from(by.as_micros()).ok()?;
        Self::from_micros(self.0.checked_sub(micros)?).ok()
    }

    /// How long after `earlier` this is; zero where it is not.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, fraction only where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => f.pad(&instant.to_string()),
            Err(_) => f.pad("(out of range)"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    /// RFC 3339, any offset; digits below a microsecond are cut off.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let instant: jiff::Timestamp =
            text.parse().map_err(|_| TimeError::Malformed(text.chars().take(64).collect()))?;
        Self::from_micros(instant.as_microsecond())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rfc_3339() {
        let instant: Timestamp = "2015-05-17T10:05:03Z".parse().unwrap();
        assert_eq!(instant.as_micros(), 1_431_857_103_000_000);
        assert_eq!(instant.to_string(), "2015-05-17T10:05:03Z");
        assert_eq!("2015-05-17T12:05:03+02:00".parse(), Ok(instant));
        assert_eq!("yesterday".parse::<Timestamp>(), Err(TimeError::Malformed("yesterday".to_owned())));
    }

    #[test]
    fn the_bounds_hold() {
        assert_eq!("0001-01-01T00:00:00Z".parse(), Ok(Timestamp::MIN));
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T21:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(Timestamp::MAX.as_micros() + 1), Err(TimeError::OutOfRange));
        assert_eq!(Timestamp::MAX.checked_add(Duration::from_micros(1)), None);
        assert_eq!(Timestamp::MIN.checked_sub(Duration::from_micros(1)), None);
        assert_eq!(Timestamp::from_secs(i64::MAX), Err(TimeError::OutOfRange));
    }
}
