//! Ids: one type for each kind of thing, printed as `<prefix>_<26 digits>`.
//!
//! Inside is a UUIDv7 (RFC 9562), so ids of one kind sort by the instant they were made; the digits
//! are Crockford's base 32 in lower case, most significant first.

use std::{fmt, str::FromStr};

use uuid::Uuid;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGIT_COUNT: usize = 26;

/// Why a text is no id of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}_ and 26 base-32 digits")]
pub struct IdError {
    /// The prefix that was asked for, without the underscore.
    pub prefix: &'static str,
    /// What was given, at most 64 characters of it.
    pub text: String,
}

const NO_DIGIT: u8 = 32;
/// The value of each byte that is a digit: a batch brings thousands of ids.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0_u8;
    while value < NO_DIGIT {
        values[DIGITS[value as usize] as usize] = value;
        value = value.wrapping_add(1);
    }
    values
};

fn encode(value: Uuid) -> [u8; DIGIT_COUNT] {
    let bits = value.as_u128();
    let mut digits = [b'0'; DIGIT_COUNT];
    let mut rest = bits;
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(rest & 31).unwrap_or_default();
        *digit = DIGITS.get(index).copied().unwrap_or(b'0');
        rest >>= 5;
    }
    digits
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != DIGIT_COUNT || !matches!(text.as_bytes().first(), Some(b'0'..=b'7')) {
        return None;
    }
    let mut bits: u128 = 0;
    for byte in text.bytes() {
        let digit = VALUES.get(usize::from(byte)).copied().filter(|value| *value < NO_DIGIT)?;
        bits = (bits << 5) | u128::from(digit);
    }
    Some(Uuid::from_u128(bits))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What its text begins with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, unlike every other.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// From the stored UUID.
            #[must_use]
            pub const fn from_uuid(value: Uuid) -> Self {
                Self(value)
            }

            /// As stored.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let digits = encode(self.0);
                f.pad(&format!("{}_{}", $prefix, String::from_utf8_lossy(&digits)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .and_then(decode)
                    .map(Self)
                    .ok_or_else(|| IdError { prefix: $prefix, text: text.chars().take(64).collect() })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// The contract owner who buys tokens.
    AccountId = "acct";
    /// A group that owns lots and bears charges.
    TeamId = "team";
    /// A person.
    UserId = "user";
    /// A registered program.
    AppId = "app";
    /// A developer key of an app.
    CredentialId = "cred";
    /// The handing of an app to another owner.
    TransferId = "xfer";
    /// Where apps have to be while hub mode is on.
    HubId = "hub";
    /// A batch of tokens with its own expiry.
    LotId = "lot";
    /// Rated usage of one line of a batch.
    ChargeId = "chg";
    /// A purchase order.
    OrderId = "ord";
    /// An owner of a durable log of usage.
    ProducerId = "prod";
    /// A version of a rate card.
    RateCardId = "card";
    /// The price of one meter; the same terms in a newer version keep their id (D47).
    PriceId = "price";
    /// Tokens reserved ahead of use.
    HoldId = "hold";
    /// A settled batch.
    BatchId = "batch";
    /// A fact that others are told.
    NoticeId = "note";
    /// A cap on the usage of a month.
    BudgetId = "budget";
    /// An issued statement of a team's period.
    StatementId = "stmt";
    /// A program that calls the services, with its rights.
    PrincipalId = "prin";
    /// An API key of a principal.
    KeyId = "key";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_prints_its_kind_and_reads_back() {
        let id = TeamId::from_uuid(Uuid::from_u128(0x0190_a1b2_c3d4_7e5f_8a9b_0c1d_2e3f_4a5b));
        assert_eq!(id.to_string(), "team_01j2gv5gymfsfrn6rc3mq3yjjv");
        assert_eq!("team_01j2gv5gymfsfrn6rc3mq3yjjv".parse(), Ok(id));
    }

    #[test]
    fn other_kinds_and_bad_digits_are_refused() {
        for text in [
            "app_01j2gv5gymfsfrn6rc3mq3yjjv",
            "team_01j2gv5gymfsfrn6rc3mq3yjj",
            "team_81j2gv5gymfsfrn6rc3mq3yjjv",
            "team_01J2GV5GYNFSFRN6RC3MQ3YJJV",
            "team-01j2gv5gymfsfrn6rc3mq3yjjv",
            "",
        ] {
            assert!(text.parse::<TeamId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(bits in any::<u128>()) {
            let id = LotId::from_uuid(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn text_sorts_as_the_value_does(a in any::<u128>(), b in any::<u128>()) {
            let (a, b) = (LotId::from_uuid(Uuid::from_u128(a)), LotId::from_uuid(Uuid::from_u128(b)));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
