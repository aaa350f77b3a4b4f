//! Token amounts and quantities as checked integers. Floats never touch money (domain rule D53).

use std::{fmt, str::FromStr};

/// Micro-tokens in one token.
pub const MICROS_PER_TOKEN: i64 = 1_000_000;

/// An amount of tokens in micro-tokens: 1 token = 1 000 000. May be negative (a balance).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct MicroTokens(i64);

/// Why an amount or a quantity was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// The text is no decimal number of tokens with at most six places.
    #[error("{0:?} is not a number of tokens with at most six decimal places")]
    Malformed(String),
    /// The value does not fit.
    #[error("amount does not fit 64 bits of micro-tokens")]
    Overflow,
    /// A quantity below zero.
    #[error("quantity {0} is negative")]
    Negative(i64),
    /// A quantity of one event above 2^48 base units (D53).
    #[error("quantity {0} is above {max}, the most one event may carry", max = Quantity::EVENT_MAX)]
    AboveEventMax(u64),
}

impl MicroTokens {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From micro-tokens.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole tokens; `None` where that does not fit.
    #[must_use]
    pub fn from_tokens(tokens: i64) -> Option<Self> {
        tokens.checked_mul(MICROS_PER_TOKEN).map(Self)
    }

    /// In micro-tokens.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Sum, unless it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, unless it does not fit.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

impl fmt::Display for MicroTokens {
    /// Decimal tokens without trailing zeros: `12`, `-0.5`, `3.000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let unit = MICROS_PER_TOKEN.unsigned_abs();
        let magnitude = self.0.unsigned_abs();
        let whole = magnitude.checked_div(unit).unwrap_or_default();
        let rest = magnitude.checked_rem(unit).unwrap_or_default();
        if rest == 0 {
            return f.pad_integral(self.0 >= 0, "", &whole.to_string());
        }
        let fraction = format!("{rest:06}");
        f.pad(&format!("{sign}{whole}.{}", fraction.trim_end_matches('0')))
    }
}

impl FromStr for MicroTokens {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let malformed = || AmountError::Malformed(text.to_owned());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 6 {
            return Err(malformed());
        }
        let whole: i64 = whole.parse().map_err(|_| AmountError::Overflow)?;
        let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| malformed())?;
        let (whole, fraction) = if negative {
            (whole.checked_neg(), fraction.checked_neg())
        } else {
            (Some(whole), Some(fraction))
        };
        whole
            .and_then(|w| w.checked_mul(MICROS_PER_TOKEN))
            .zip(fraction)
            .and_then(|(w, f)| w.checked_add(f))
            .map(Self)
            .ok_or(AmountError::Overflow)
    }
}

/// A sum of a meter's base units (jobs, seconds, bytes, calls): never negative, always fits `i64`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Quantity(i64);

impl Quantity {
    /// No units.
    pub const ZERO: Self = Self(0);
    /// The most base units that one event may carry: 2^48 (D53).
    pub const EVENT_MAX: u64 = 1 << 48;

    /// A sum of units.
    ///
    /// # Errors
    /// [`AmountError::Negative`].
    pub fn new(units: i64) -> Result<Self, AmountError> {
        if units < 0 { Err(AmountError::Negative(units)) } else { Ok(Self(units)) }
    }

    /// The quantity of one event.
    ///
    /// # Errors
    /// [`AmountError::AboveEventMax`].
    pub fn of_event(units: u64) -> Result<Self, AmountError> {
        if units > Self::EVENT_MAX {
            return Err(AmountError::AboveEventMax(units));
        }
        i64::try_from(units).map(Self).map_err(|_| AmountError::AboveEventMax(units))
    }

    /// In base units.
    #[must_use]
    pub const fn as_units(self) -> i64 {
        self.0
    }

    /// Sum, unless it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_printed_and_read_as_decimals() {
        for (micros, text) in
            [(0, "0"), (1, "0.000001"), (-500_000, "-0.5"), (12_000_000, "12"), (-3_000_001, "-3.000001")]
        {
            assert_eq!(MicroTokens::from_micros(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(MicroTokens::from_micros(micros)));
        }
    }

    #[test]
    fn bad_amounts_are_named() {
        for text in ["", "-", "1.", ".5", "1.0000001", "1e3", "+1", "1,5"] {
            assert_eq!(text.parse::<MicroTokens>(), Err(AmountError::Malformed(text.to_owned())));
        }
        assert_eq!("9223372036855".parse::<MicroTokens>(), Err(AmountError::Overflow));
        assert_eq!(Quantity::new(-1), Err(AmountError::Negative(-1)));
        assert_eq!(Quantity::of_event((1 << 48) + 1), Err(AmountError::AboveEventMax((1 << 48) + 1)));
    }

    proptest! {
        #[test]
        fn every_amount_survives_its_text(micros in any::<i64>()) {
            let amount = MicroTokens::from_micros(micros);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }
    }
}
