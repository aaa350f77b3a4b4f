//! Instants as Postgres stores them: a `timestamptz` is whole microseconds, and so is ours.
//!
//! sqlx brings its own conversions only with a calendar crate; this needs none, and no instant can
//! lose a digit on its way through one.

use drawdown_types::Timestamp;
use sqlx::{
    Postgres,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
    {Decode, Encode, Type},
};

/// 2000-01-01T00:00:00Z, from which Postgres counts, in microseconds of ours.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The numbers of `timestamptz` and its array in every catalogue of Postgres: no look-up by name is needed.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// An instant on its way to or from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

/// The bytes are no instant of ours.
#[derive(Debug, thiserror::Error)]
#[error("a stored instant is infinite or outside the years 0001 to 9999")]
struct OutOfRange;

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.as_micros().checked_sub(POSTGRES_EPOCH_MICROS).ok_or(OutOfRange)?;
        Encode::<Postgres>::encode_by_ref(&micros, buf)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return Ok(Self(value.as_str()?.parse()?));
        }
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let micros = micros.checked_add(POSTGRES_EPOCH_MICROS).ok_or(OutOfRange)?;
        Ok(Self(Timestamp::from_micros(micros)?))
    }
}

impl From<Timestamp> for Instant {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Instant> for Timestamp {
    fn from(at: Instant) -> Self {
        at.0
    }
}
