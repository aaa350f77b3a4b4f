//! Instants as `timestamptz`: microseconds since 2000 on the wire, read and written as they are.
//!
//! A calendar crate would add nothing here: both sides count whole microseconds.

use drawdown_types::Timestamp;
use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
};

/// `timestamptz` in every catalogue of Postgres.
const TIMESTAMPTZ: Oid = Oid(1184);
/// 2000-01-01T00:00:00Z, where Postgres begins to count.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A [`Timestamp`] on its way to or from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) Timestamp);

/// A stored instant that is infinite, or outside of the years that this system knows.
#[derive(Debug, thiserror::Error)]
#[error("stored instant is outside the years 0001 to 9999")]
struct Unreadable;

impl From<Timestamp> for Instant {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let since_2000 = self.0.as_micros().checked_sub(POSTGRES_EPOCH).ok_or(Unreadable)?;
        Encode::<Postgres>::encode_by_ref(&since_2000, buffer)
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return Ok(Self(value.as_str()?.parse()?));
        }
        let since_2000 = <i64 as Decode<Postgres>>::decode(value)?;
        let micros = since_2000.checked_add(POSTGRES_EPOCH).ok_or(Unreadable)?;
        Ok(Self(Timestamp::from_micros(micros)?))
    }
}
