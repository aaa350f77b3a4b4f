//! Scalars that every contract writes the same way.

use drawdown_types::{TimeError, Timestamp};

const NANOS_PER_MICRO: i32 = 1000;
const MICROS_PER_SEC: i64 = 1_000_000;

/// As `google.protobuf.Timestamp`.
#[must_use]
pub fn timestamp_to_proto(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_micros().rem_euclid(MICROS_PER_SEC);
    prost_types::Timestamp {
        seconds: at.as_micros().div_euclid(MICROS_PER_SEC),
        nanos: i32::try_from(micros).unwrap_or_default() * NANOS_PER_MICRO,
    }
}

/// From `google.protobuf.Timestamp`; digits below a microsecond are cut off.
///
/// # Errors
/// [`TimeError::OutOfRange`] outside the years 0001 to 9999 and for nanoseconds outside a second.
pub fn timestamp_from_proto(at: &prost_types::Timestamp) -> Result<Timestamp, TimeError> {
    if !(0..1_000_000_000).contains(&at.nanos) {
        return Err(TimeError::OutOfRange);
    }
    at.seconds
        .checked_mul(MICROS_PER_SEC)
        .and_then(|micros| micros.checked_add(i64::from(at.nanos / NANOS_PER_MICRO)))
        .ok_or(TimeError::OutOfRange)
        .and_then(Timestamp::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_wire() {
        for micros in [0, -1, 1_431_857_103_000_001, Timestamp::MIN.as_micros(), Timestamp::MAX.as_micros()] {
            let at = Timestamp::from_micros(micros).unwrap();
            assert_eq!(timestamp_from_proto(&timestamp_to_proto(at)), Ok(at));
        }
    }

    #[test]
    fn instants_outside_are_refused() {
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0)] {
            let at = prost_types::Timestamp { seconds, nanos };
            assert_eq!(timestamp_from_proto(&at), Err(TimeError::OutOfRange));
        }
    }
}
