//! What a balance says about the days to come: days left, the red mark, and a forecast (D30, D35).
//!
//! The forecast supposes that usage goes on evenly at a given rate and lets the real lots pay for it in the
//! real order (D4), from now to the last expiry: between two boundaries (starts and expiries of lots) the
//! usage is drawn from the lots that are open there, what a lot still holds at its expiry is lost, what no
//! lot covers is owed and paid by the next lot that starts (D42). Tokens that holds have set aside and
//! closing lots take no part.
//!
//! Amounts are exact: usage up to an instant is one floor division of the whole time since the beginning,
//! never a sum of rounded steps, so no boundary moves a micro-token. Cost: O(lots²).

use drawdown_types::{LotId, MicroTokens, Timestamp};

use crate::{
    lot::{Lot, LotState},
    settings::Settings,
    team::{BalanceView, ReadError, Team, balance_at, lots_at},
};

const DAY_MICROS: i64 = 86_400_000_000;

/// The share of the granted tokens at or below which a balance is marked red, in percent (D30, D52).
pub const RED_PERCENT: i64 = 20;
/// The most whole UTC days that [`ForecastMethod::TrailingMean`] looks back on.
pub const TRAILING_DAYS_MAX: u32 = 28;

/// How the rate of a forecast was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForecastMethod {
    /// What was charged for the windows of the last 28 whole UTC days, by days; of a team whose first
    /// charge is younger, of the whole days since, that of the charge among them.
    TrailingMean,
    /// The caller's own.
    Given,
}

/// How fast tokens are used: so many micro-tokens in so many days. Never rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurnRate {
    micros: i64,
    days: u32,
}

/// What a forecast says of one lot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LotForecast {
    /// The lot.
    pub lot_id: LotId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// What it holds now.
    pub remaining: MicroTokens,
    /// What usage will take of it.
    pub used: MicroTokens,
    /// What will be forfeited; remaining = used + unused.
    pub unused: MicroTokens,
    /// When it will be empty, if it will before its expiry.
    pub empty_at: Option<Timestamp>,
}

/// A forecast of one team (D35).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The instant from which it looks ahead.
    pub at: Timestamp,
    /// The rate.
    pub rate: BurnRate,
    /// The first instant at which the open lots hold nothing, because it was used or because it expired; now
    /// where that is so already. Lots that start later may help again.
    pub runs_out_at: Timestamp,
    /// Open and scheduled lots that hold something, in the order of the draw.
    pub lots: Vec<LotForecast>,
    /// What will be forfeited of all of them.
    pub unused: MicroTokens,
}

// === impl BurnRate ===

impl BurnRate {
    /// `micros` used in `days`; none where one of them is below zero, or the days are none.
    #[must_use]
    pub const fn new(micros: MicroTokens, days: u32) -> Option<Self> {
        let micros = micros.as_micros();
        if micros < 0 || days == 0 { None } else { Some(Self { micros, days }) }
    }

    /// Micro-tokens used in [`BurnRate::days`].
    #[must_use]
    pub const fn micros(self) -> MicroTokens {
        MicroTokens::from_micros(self.micros)
    }

    /// The days.
    #[must_use]
    pub const fn days(self) -> u32 {
        self.days
    }

    fn period(self) -> i128 {
        i128::from(self.days).saturating_mul(DAY_MICROS.into())
    }

    /// Used in the time from `at` to `to`, rounded down. 63 bits times 58 bits fit.
    fn used(self, at: Timestamp, to: Timestamp) -> i128 {
        let time = i128::from(to.as_micros().saturating_sub(at.as_micros()));
        i128::from(self.micros).saturating_mul(time).checked_div_euclid(self.period()).unwrap_or_default()
    }

    /// The first instant after `at` by which `amount` is used; none where that is never.
    fn reaches(self, at: Timestamp, amount: i128) -> Option<Timestamp> {
        let micros = i128::from(self.micros);
        let whole = amount.checked_mul(self.period())?;
        let time = whole.checked_add(micros.checked_sub(1)?)?.checked_div_euclid(micros)?;
        let instant = i128::from(at.as_micros()).checked_add(time)?;
        Timestamp::from_micros(i64::try_from(instant).ok()?).ok()
    }
}

// === impl Lot ===

impl Lot {
    /// Whole days until it expires, 0 on its last day and from then on.
    #[must_use]
    pub fn days_left_at(&self, at: Timestamp) -> i64 {
        days_left(self.expires_at, at)
    }
}

/// Whole days from `at` to an expiry, 0 on the last day and from then on (D30).
#[must_use]
pub fn days_left(expires_at: Timestamp, at: Timestamp) -> i64 {
    let left = expires_at.as_micros().saturating_sub(at.as_micros());
    left.checked_div_euclid(DAY_MICROS).unwrap_or_default().max(0)
}

// === impl BalanceView ===

impl BalanceView {
    /// At most [`RED_PERCENT`] of what the open lots were granted is left (D52); so is a team without any.
    #[must_use]
    pub fn is_red(&self) -> bool {
        let left = i128::from(self.available.as_micros()).saturating_mul(100);
        left <= i128::from(self.granted_of_open.as_micros()).saturating_mul(RED_PERCENT.into())
    }
}

/// The whole UTC days that [`ForecastMethod::TrailingMean`] looks at, as `[from, to)`: the last before that of
/// `at`, not before that of the team's first charge. None where not one such day is over.
#[must_use]
pub fn trailing_days(first_window: Option<Timestamp>, at: Timestamp) -> Option<(Timestamp, Timestamp, u32)> {
    let day = |at: Timestamp| at.as_micros().div_euclid(DAY_MICROS);
    let today = day(at);
    let first = today.saturating_sub(TRAILING_DAYS_MAX.into()).max(day(first_window?));
    let days = u32::try_from(today.saturating_sub(first)).ok().filter(|days| *days > 0)?;
    let start = |day: i64| Timestamp::from_micros(day.saturating_mul(DAY_MICROS)).ok();
    Some((start(first)?, start(today)?, days))
}

/// A lot on its way.
struct Drawn {
    lot: Lot,
    left: i128,
    used: i128,
    empty_at: Option<Timestamp>,
}

impl Drawn {
    fn is_open(&self, from: Timestamp, to: Timestamp) -> bool {
        self.lot.starts_at <= from && to <= self.lot.expires_at
    }

    /// Gives what it can of `wanted`, and says how much.
    fn give(&mut self, wanted: i128) -> i128 {
        let given = self.left.min(wanted);
        self.left = self.left.saturating_sub(given);
        self.used = self.used.saturating_add(given);
        given
    }
}

/// The future of a team at a rate.
struct Course {
    at: Timestamp,
    rate: BurnRate,
    lots: Vec<Drawn>,
    /// Used since `at`, paid or not.
    demand: i128,
    debt: i128,
    runs_out_at: Option<Timestamp>,
}

// === impl Course ===

impl Course {
    /// Usage from one boundary to the next.
    fn run(&mut self, from: Timestamp, to: Timestamp) {
        let before = self.demand;
        self.demand = self.rate.used(self.at, to);
        let mut wanted = self.demand.saturating_sub(before);
        let mut reached = before;
        let mut empty_since = from;
        for drawn in self.lots.iter_mut().filter(|drawn| drawn.is_open(from, to) && drawn.left > 0) {
            let given = drawn.give(wanted);
            wanted = wanted.saturating_sub(given);
            reached = reached.saturating_add(given);
            if drawn.left == 0 {
                let empty_at = self.rate.reaches(self.at, reached).unwrap_or(to);
                drawn.empty_at = Some(empty_at);
                empty_since = empty_since.max(empty_at);
            }
        }
        let left = self.lots.iter().any(|drawn| drawn.is_open(from, to) && drawn.left > 0);
        if !left && empty_since < to {
            self.runs_out_at.get_or_insert(empty_since);
        }
        self.debt = self.debt.saturating_add(wanted);
    }

    /// Lots that start at a boundary pay what is owed (D42), unless they leave older debts (D57).
    fn net(&mut self, at: Timestamp) {
        let open = |drawn: &&mut Drawn| {
            let lot = &drawn.lot;
            lot.starts_at <= at && at < lot.expires_at && drawn.left > 0 && !lot.leaves_older_debts
        };
        for drawn in self.lots.iter_mut().filter(open) {
            let given = drawn.give(self.debt);
            self.debt = self.debt.saturating_sub(given);
            if drawn.left == 0 {
                drawn.empty_at = Some(at);
            }
        }
    }
}

/// What becomes of the lots of `team` from `at` on, if usage goes on at `rate`.
///
/// # Errors
/// [`ReadError::BeforeLastPosting`].
pub fn forecast(
    team: &Team,
    at: Timestamp,
    settled_until: Timestamp,
    rate: BurnRate,
    settings: &Settings,
) -> Result<Forecast, ReadError> {
    let view = balance_at(team, at, settled_until, settings)?;
    let lots = lots_at(team, at, settled_until, settings)?.into_iter();
    let lots =
        lots.filter(|view| matches!(view.state, LotState::Open | LotState::Scheduled)).map(|view| view.lot);
    let lots: Vec<Drawn> = lots
        .filter(|lot| lot.remaining > MicroTokens::ZERO)
        .map(|lot| Drawn { left: lot.remaining.as_micros().into(), lot, used: 0, empty_at: None })
        .collect();
    let mut boundaries: Vec<Timestamp> =
        lots.iter().flat_map(|drawn| [drawn.lot.starts_at, drawn.lot.expires_at]).collect();
    boundaries.retain(|boundary| *boundary > at);
    boundaries.sort_unstable();
    boundaries.dedup();
    let debt = i128::from(view.uncharged.as_micros());
    let mut course = Course { at, rate, lots, demand: 0, debt, runs_out_at: None };
    let mut from = at;
    for to in boundaries {
        course.run(from, to);
        course.net(to);
        from = to;
    }
    let amount = |micros: i128| MicroTokens::from_micros(i64::try_from(micros).unwrap_or(i64::MAX));
    let unused = course.lots.iter().fold(0_i128, |sum, drawn| sum.saturating_add(drawn.left));
    let lots = course.lots.iter().map(|drawn| LotForecast {
        lot_id: drawn.lot.lot_id,
        expires_at: drawn.lot.expires_at,
        remaining: drawn.lot.remaining,
        used: amount(drawn.used),
        unused: amount(drawn.left),
        empty_at: drawn.empty_at,
    });
    let runs_out_at = course.runs_out_at.unwrap_or(from);
    Ok(Forecast { at, rate, runs_out_at, lots: lots.collect(), unused: amount(unused) })
}
