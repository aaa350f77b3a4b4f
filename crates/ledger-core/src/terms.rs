//! What a meter costs: a checked value of one of few shapes.
//!
//! | shape | what a cycle's quantity costs | cycle |
//! |---|---|---|
//! | flat (D13) | `micros` per `per_units` base units | month |
//! | tiers (D17) | each tier's part at the tier's own micros, per the same base units | month |
//! | charged units (D15) | as flat, for whole units only; the unfinished part runs on | none |
//!
//! A free quota (D16) comes off each month first, whatever the shape, and only what is above it is
//! looked at by tiers and units. A price of a meter that is free-tier only has a quota and no price.
//! Prices are exact: the one rounding is the floor of a cycle's whole price (D14). All tiers share
//! their base units, so that the sum of a price stays one fraction.

use drawdown_types::{MicroTokens, Quantity};

/// The most tiers above the first.
pub const TIERS_MAX: usize = 64;

/// A price of its own for what lies above a quantity of a month (D17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// It is for base units of the month above this many, up to where the next tier begins.
    pub above: i64,
    /// Micro-tokens for `per_units` base units.
    pub micros: i64,
}

/// Terms as somebody wrote them down, not checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermsDraft {
    /// Micro-tokens for `per_units` base units; of the first tier, where there are more.
    pub micros: i64,
    /// Base units.
    pub per_units: i64,
    /// Further tiers, ascending (D17).
    pub tiers: Vec<Tier>,
    /// Only whole units of so many base units are charged (D15).
    pub charged_unit: Option<i64>,
    /// Base units of each month that cost nothing (D16); 0 for none.
    pub free_quota: i64,
    /// Nothing is ever charged: what is above the quota is only recorded (D16).
    pub free_only: bool,
    /// A failed job costs nothing (D18).
    pub failed_is_free: bool,
}

/// What a meter costs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    micros: i64,
    per_units: i64,
    tiers: Box<[Tier]>,
    charged_unit: Option<i64>,
    free_quota: i64,
    free_only: bool,
    failed_is_free: bool,
}

/// Terms that mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// A price below zero.
    #[error("a price of {0} micro-tokens is negative")]
    NegativeMicros(i64),
    /// A price for less than one unit.
    #[error("a price per {0} units; at least 1 is needed")]
    NoUnits(i64),
    /// A tier's price below zero.
    #[error("a price of {micros} micro-tokens is negative")]
    NegativeTier {
        /// The tier.
        index: usize,
        /// Its price.
        micros: i64,
    },
    /// A tier begins where the one before it begins, which would have no length.
    #[error("begins above {above}, as the tier before it, which so has no length")]
    EmptyTier {
        /// The tier.
        index: usize,
        /// Where it begins.
        above: i64,
    },
    /// A tier begins before the one before it.
    #[error("begins above {above}, not above {before} as the tier before it")]
    TierNotAscending {
        /// The tier.
        index: usize,
        /// Where it begins.
        above: i64,
        /// Where the tier before it begins.
        before: i64,
    },
    /// More tiers than there may be.
    #[error("{0} tiers, at most {TIERS_MAX} are allowed")]
    TooManyTiers(usize),
    /// Charged units of nothing.
    #[error("charged units of {0} base units; at least 1 is needed")]
    UnitTooSmall(i64),
    /// Charged units together with tiers (D15).
    #[error("charged units can not be combined with tiers")]
    UnitWithTiers,
    /// A quota below zero.
    #[error("a free quota of {0} base units is negative")]
    NegativeQuota(i64),
    /// Free-tier only, and nothing is free (D16).
    #[error("a meter that is free only needs a free quota")]
    FreeOnlyWithoutQuota,
    /// Free-tier only, and yet a price.
    #[error("a meter that is free only can not have a price, tiers or charged units")]
    FreeOnlyWithPrice,
}

impl TermsError {
    /// The field of the draft that is wrong.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::NegativeMicros(_) => "micros".to_owned(),
            Self::NoUnits(_) => "per_units".to_owned(),
            Self::NegativeTier { index, .. } => format!("tiers[{index}].micros"),
            Self::EmptyTier { index, .. } | Self::TierNotAscending { index, .. } => {
                format!("tiers[{index}].above")
            }
            Self::TooManyTiers(_) => "tiers".to_owned(),
            Self::UnitTooSmall(_) | Self::UnitWithTiers => "charged_unit".to_owned(),
            Self::NegativeQuota(_) => "free_quota".to_owned(),
            Self::FreeOnlyWithoutQuota | Self::FreeOnlyWithPrice => "free_only".to_owned(),
        }
    }
}

// === impl TermsDraft ===

impl TermsDraft {
    /// Checks the draft.
    ///
    /// # Errors
    /// Every [`TermsError`] at once, in the order of the fields.
    pub fn check(self) -> Result<Terms, Vec<TermsError>> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let Self { micros, per_units, tiers, charged_unit, free_quota, free_only, failed_is_free } = self;
        let tiers = tiers.into();
        Ok(Terms { micros, per_units, tiers, charged_unit, free_quota, free_only, failed_is_free })
    }

    fn faults(&self) -> Vec<TermsError> {
        let mut faults = Vec::new();
        let mut wrong = |is: bool, fault: TermsError| {
            if is {
                faults.push(fault);
            }
        };
        wrong(self.micros < 0, TermsError::NegativeMicros(self.micros));
        wrong(self.per_units < 1, TermsError::NoUnits(self.per_units));
        wrong(self.tiers.len() > TIERS_MAX, TermsError::TooManyTiers(self.tiers.len()));
        let mut before = 0;
        for (index, Tier { above, micros }) in self.tiers.iter().copied().enumerate().take(TIERS_MAX) {
            wrong(above == before, TermsError::EmptyTier { index, above });
            wrong(above < before, TermsError::TierNotAscending { index, above, before });
            wrong(micros < 0, TermsError::NegativeTier { index, micros });
            before = above;
        }
        if let Some(unit) = self.charged_unit {
            wrong(unit < 1, TermsError::UnitTooSmall(unit));
            wrong(!self.tiers.is_empty(), TermsError::UnitWithTiers);
        }
        wrong(self.free_quota < 0, TermsError::NegativeQuota(self.free_quota));
        let priced = self.micros != 0 || !self.tiers.is_empty() || self.charged_unit.is_some();
        wrong(self.free_only && self.free_quota == 0, TermsError::FreeOnlyWithoutQuota);
        wrong(self.free_only && priced, TermsError::FreeOnlyWithPrice);
        faults
    }
}

// === impl Terms ===

impl Terms {
    /// A flat price: `micros` micro-tokens per `per_units` base units; failed jobs are free if the
    /// card says so (D18).
    ///
    /// # Errors
    /// [`TermsError`], naming what is wrong.
    pub fn new(micros: i64, per_units: i64, failed_is_free: bool) -> Result<Self, TermsError> {
        let draft = TermsDraft { micros, per_units, failed_is_free, ..TermsDraft::default() };
        draft.check().map_err(|faults| faults.into_iter().next().unwrap_or(TermsError::NoUnits(per_units)))
    }

    /// Micro-tokens, at least 0; of the first tier, where there are more.
    #[must_use]
    pub const fn micros(&self) -> i64 {
        self.micros
    }

    /// The base units that they buy, at least 1.
    #[must_use]
    pub const fn per_units(&self) -> i64 {
        self.per_units
    }

    /// The tiers above the first, ascending; none unless prices are graduated (D17).
    #[must_use]
    pub const fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The base units of a charged unit, at least 1, where only whole ones are charged (D15). The
    /// state of such a price has no month.
    #[must_use]
    pub const fn charged_unit(&self) -> Option<i64> {
        self.charged_unit
    }

    /// Base units of each month that cost nothing (D16); 0 for none.
    #[must_use]
    pub const fn free_quota(&self) -> i64 {
        self.free_quota
    }

    /// What is above the quota is recorded and costs nothing (D16).
    #[must_use]
    pub const fn free_only(&self) -> bool {
        self.free_only
    }

    /// A failed job costs nothing.
    #[must_use]
    pub const fn failed_is_free(&self) -> bool {
        self.failed_is_free
    }

    /// The terms as a draft, for whoever writes them down.
    #[must_use]
    pub fn draft(&self) -> TermsDraft {
        TermsDraft {
            micros: self.micros,
            per_units: self.per_units,
            tiers: self.tiers.to_vec(),
            charged_unit: self.charged_unit,
            free_quota: self.free_quota,
            free_only: self.free_only,
            failed_is_free: self.failed_is_free,
        }
    }

    /// Such a price begins, changes and ends only where a UTC month begins (D47): a part of a month
    /// has no quota, tier or unit of its own.
    #[must_use]
    pub const fn is_monthly(&self) -> bool {
        self.free_quota > 0 || self.charged_unit.is_some() || !self.tiers.is_empty()
    }

    /// What of a month's quantity lies above the free quota.
    #[must_use]
    pub fn above_quota(&self, month: Quantity) -> Quantity {
        let above = month.as_units().saturating_sub(self.free_quota);
        Quantity::new(above).unwrap_or(Quantity::ZERO)
    }

    /// What so many base units above the quota cost, rounded down; `None` where it does not fit 64
    /// bits. Of charged units only whole ones count.
    #[must_use]
    pub fn price_above_quota(&self, units: Quantity) -> Option<MicroTokens> {
        if self.free_only {
            return Some(MicroTokens::ZERO);
        }
        let mut units = i128::from(units.as_units());
        if let Some(unit) = self.charged_unit {
            let part = units.checked_rem(i128::from(unit))?;
            units = units.checked_sub(part)?;
        }
        let micros = if self.tiers.is_empty() {
            units.checked_mul(i128::from(self.micros))?
        } else {
            self.graduated(units)?
        };
        let floor = micros.checked_div(i128::from(self.per_units))?;
        i64::try_from(floor).ok().map(MicroTokens::from_micros)
    }

    /// Σ over the tiers of the part inside each at its own micros; not divided yet.
    fn graduated(&self, units: i128) -> Option<i128> {
        let mut sum = 0_i128;
        let mut from = 0_i128;
        let mut micros = i128::from(self.micros);
        let ends = self.tiers.iter().map(|tier| (i128::from(tier.above), i128::from(tier.micros)));
        for (end, next) in ends.chain([(i128::MAX, 0)]) {
            let part = units.min(end).checked_sub(from)?;
            if part <= 0 {
                break;
            }
            sum = sum.checked_add(part.checked_mul(micros)?)?;
            (from, micros) = (end, next);
        }
        Some(sum)
    }
}
