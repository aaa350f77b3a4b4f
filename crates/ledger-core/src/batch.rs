//! Posting a settled batch: rating and paying, line by line.
//!
//! Lines of a team are worked off by window, app, meter, client id and series (D7); a team's lines
//! are one transaction at one instant. A line is never refused: what cannot be charged leaves the
//! batch as unattributed usage with a reason, beside it everything else is charged.

use std::cmp::Ordering;

use drawdown_types::{
    AccountId, AppId, ChargeId, ClientId, HoldId, MeterSlug, MicroTokens, PriceId, Quantity, TeamId,
    Timestamp,
};
use rustc_hash::FxHashMap;

use crate::{
    hold::HoldEnd,
    journal::UnknownName,
    meter::DistinctValues,
    plan::Plan,
    posting::{Cause, Charged, Posting},
    price::{ContractKind, PriceBook},
    rater::Rater,
    rating::{Periods, UsageState},
    roll::bring_forward,
    settings::Settings,
    team::Team,
};

/// The aggregated usage of a line; its kind is the meter's (D19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Of a meter that sums.
    Sum(Quantity),
    /// Of a meter that counts: the events are the quantity.
    Count,
    /// Of a meter that takes the largest value of a period.
    Max(Quantity),
    /// Of a meter that counts the distinct values of a period.
    Unique(DistinctValues),
}

/// Who pays for a line, resolved at its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The billed account.
    pub account_id: AccountId,
    /// The team.
    pub team_id: TeamId,
    /// The app.
    pub app_id: AppId,
    /// The contract kind of the account at the window.
    pub contract_kind: ContractKind,
    /// The account was in its trial at the window: recorded, and free (D20).
    pub in_trial: bool,
}

/// Who pays for a line, if anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// A team.
    Payer(Payer),
    /// Nobody.
    Nobody(Unattributable),
}

/// Why usage is charged to no team (D25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unattributable {
    /// The app had no team at the window.
    NoTeam,
    /// Nobody knows the client id.
    UnknownClient,
    /// Received later than the lateness limit (D9).
    Late,
    /// It broke the posting of its team and was set apart.
    Poison,
    /// Amounts or sums would not fit (D53).
    Overflow,
}

impl Unattributable {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::NoTeam, Self::UnknownClient, Self::Late, Self::Poison, Self::Overflow];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTeam => "no_team",
            Self::UnknownClient => "unknown_client",
            Self::Late => "late",
            Self::Poison => "poison",
            Self::Overflow => "overflow",
        }
    }
}

impl std::str::FromStr for Unattributable {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("reason of unattributed usage", text, &Self::ALL, Self::as_str)
    }
}

/// Usage of one series in one window, received in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The client id as metered.
    pub client_id: ClientId,
    /// The meter.
    pub meter: MeterSlug,
    /// The metered job failed (D18).
    pub failed: bool,
    /// The canonical bytes of what else tells series apart (dimensions, hold): only their order and
    /// equality matter here.
    pub series: Vec<u8>,
    /// Start of the window of event time; an edge.
    pub window: Timestamp,
    /// Start of the window in which it was received; an edge (D9, D55).
    pub received_window: Timestamp,
    /// Events.
    pub events: u64,
    /// What they add up to.
    pub usage: Usage,
    /// The hold whose tokens pay first, while it is open (D45).
    pub hold_id: Option<HoldId>,
    /// Who pays.
    pub attribution: Attribution,
}

/// What a line was charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rated {
    /// At this price.
    Priced(PriceId),
    /// At this price of a meter that is free-tier only: some of it lies above the quota, costs nothing
    /// all the same, and is recorded as such (D16).
    OverQuota(PriceId),
    /// Nothing: the account was in its trial (D20).
    Trial,
    /// Nothing: the job failed and the card says so (D18).
    FailedFree,
    /// Nothing: no price was in force at the window.
    Unpriced,
}

impl Rated {
    /// The price, where there is one.
    #[must_use]
    pub const fn price_id(self) -> Option<PriceId> {
        match self {
            Self::Priced(price_id) | Self::OverQuota(price_id) => Some(price_id),
            Self::Trial | Self::FailedFree | Self::Unpriced => None,
        }
    }
}

/// One charge: the rated usage of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Its name.
    pub charge_id: ChargeId,
    /// The line, as an index into the input.
    pub line: usize,
    /// The team that bears it.
    pub team_id: TeamId,
    /// Start of the window that decided about price and lots: the line's, or that of its hold.
    pub window: Timestamp,
    /// Why it costs what it costs.
    pub rated: Rated,
    /// What was used, in base units, as [`Line::quantity`].
    pub quantity: Quantity,
    /// What it costs, paid or not.
    pub amount: MicroTokens,
    /// What no lot valid at its window covered when it was posted: an item of the team's debt. What
    /// has been paid since follows from the journal.
    pub uncharged: MicroTokens,
    /// The first of its journal rows; absent where it has none.
    pub journal_seq: Option<i64>,
    /// The instant of its transaction.
    pub posted_at: Timestamp,
}

/// A line that no team is charged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unattributed {
    /// The line, as an index into the input.
    pub line: usize,
    /// Why.
    pub reason: Unattributable,
}

/// A batch, or a part of one, to post in one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The lines, in any order. Of a batch that is cut into several transactions the lines must be
    /// cut in [`Line::posting_order`] for the parts to follow D7 together.
    pub lines: &'a [Line],
    /// The stored states of [`crate::usage_keys`].
    pub states: &'a [UsageState],
    /// The stored states of [`crate::periods_wanted`].
    pub periods: &'a Periods,
    /// The rate cards.
    pub prices: &'a PriceBook,
    /// The settings.
    pub settings: &'a Settings,
    /// The clock, read after all locks are held (D40).
    pub now: Timestamp,
    /// Everything received before this instant is settled; a lot closes no sooner (D55).
    pub settled_until: Timestamp,
    /// Holds whose last usage this is: what is left of them goes back to their lots (D45).
    pub last_of_holds: &'a [HoldId],
}

/// What the caller forgot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A line is for a team that was not loaded.
    #[error("team {0} is not loaded")]
    TeamMissing(TeamId),
}

impl Line {
    /// The order in which lines of a team are posted (D7): window, app, meter, then client id and
    /// the rest of the series. Lines of several teams are kept apart by team id.
    #[must_use]
    pub fn posting_order(&self, other: &Self) -> Ordering {
        let payer = |line: &Self| match line.attribution {
            Attribution::Payer(payer) => Some(payer),
            Attribution::Nobody(_) => None,
        };
        let (mine, theirs) = (payer(self), payer(other));
        (mine.map(|payer| payer.team_id).cmp(&theirs.map(|payer| payer.team_id)))
            .then_with(|| self.window.cmp(&other.window))
            .then_with(|| mine.map(|payer| payer.app_id).cmp(&theirs.map(|payer| payer.app_id)))
            .then_with(|| self.meter.cmp(&other.meter))
            .then_with(|| self.client_id.cmp(&other.client_id))
            .then_with(|| (self.failed, &self.series).cmp(&(other.failed, &other.series)))
            .then_with(|| self.received_window.cmp(&other.received_window))
    }

    /// What was used, in base units: for `max` the largest value, for `unique` the number of distinct
    /// ones, both of this line alone; `None` where it does not fit.
    #[must_use]
    pub fn quantity(&self) -> Option<Quantity> {
        match &self.usage {
            Usage::Sum(quantity) | Usage::Max(quantity) => Some(*quantity),
            Usage::Unique(values) => {
                i64::try_from(values.as_slice().len()).ok().and_then(|len| Quantity::new(len).ok())
            }
            Usage::Count => i64::try_from(self.events).ok().and_then(|events| Quantity::new(events).ok()),
        }
    }

    /// Received later after its window's end than the limit allows (D9).
    #[must_use]
    pub fn is_late(&self, settings: &Settings) -> bool {
        let limit = (self.window.checked_add(settings.window_size.as_duration()))
            .and_then(|end| end.checked_add(settings.lateness_limit));
        limit.is_some_and(|limit| self.received_window > limit)
    }
}

/// Posts `batch` to `teams`, which must hold every payer of its lines, each once; they are left as
/// they are afterwards. Every team is first rolled forward to the instant of the transaction, which
/// is `now` or the last posting of any of them, if that is later.
///
/// # Errors
/// [`FoldError`], for a caller's mistake only; nothing of the plan must be written then.
pub fn fold_batch(
    teams: &mut [Team],
    batch: &Batch<'_>,
    mut new_charge_id: impl FnMut() -> ChargeId,
) -> Result<Plan, FoldError> {
    let at = teams.iter().filter_map(|team| team.balance.posted_at).fold(batch.now, Ord::max);
    let mut plan = Plan { instant: Some(at), ..Plan::default() };
    let order = sort_out(teams, batch, &mut plan.unattributed)?;
    let mut rater = Rater::new(batch);
    let mut groups = order.chunk_by(|a, b| a.team == b.team).peekable();
    for (index, team) in teams.iter_mut().enumerate() {
        let mut unfit = Vec::new();
        let mut charges = Vec::new();
        let mut posting = Posting::new(team, &mut plan, batch.settings);
        bring_forward(&mut posting, at, batch.settled_until);
        posting.begin(at);
        let group = groups.next_if(|group| group.first().is_some_and(|first| first.team == index));
        for place in group.unwrap_or_default() {
            match post_line(&mut posting, &mut rater, place, at, &mut new_charge_id) {
                Ok(charge) => charges.push(charge),
                Err(reason) => unfit.push(Unattributed { line: place.line, reason }),
            }
        }
        for hold_id in batch.last_of_holds {
            if posting.open_hold(*hold_id).is_some() {
                posting.end_hold(*hold_id, HoldEnd::Captured);
            }
        }
        posting.end();
        posting.finish();
        plan.charges.append(&mut charges);
        plan.unattributed.append(&mut unfit);
    }
    plan.unattributed.sort_by_key(|left| left.line);
    let rated = rater.into_changed();
    (plan.states, plan.new_states, plan.periods) = (rated.states, rated.new_states, rated.periods);
    Ok(plan)
}

/// A line that a team is charged for.
struct Place<'a> {
    team: usize,
    line: usize,
    content: &'a Line,
    payer: Payer,
}

/// Parts lines that nobody pays from lines of teams, and sorts these by team and posting order.
fn sort_out<'a>(
    teams: &[Team],
    batch: &Batch<'a>,
    unattributed: &mut Vec<Unattributed>,
) -> Result<Vec<Place<'a>>, FoldError> {
    let index: FxHashMap<TeamId, usize> =
        teams.iter().enumerate().map(|(index, team)| (team.balance.team_id, index)).collect();
    let mut places = Vec::with_capacity(batch.lines.len());
    for (line, content) in batch.lines.iter().enumerate() {
        let reason = match content.attribution {
            Attribution::Nobody(reason) => reason,
            Attribution::Payer(_) if content.is_late(batch.settings) => Unattributable::Late,
            Attribution::Payer(payer) => {
                let team = *index.get(&payer.team_id).ok_or(FoldError::TeamMissing(payer.team_id))?;
                places.push(Place { team, line, content, payer });
                continue;
            }
        };
        unattributed.push(Unattributed { line, reason });
    }
    places.sort_by(|a, b| {
        a.team.cmp(&b.team).then_with(|| a.content.posting_order(b.content)).then_with(|| a.line.cmp(&b.line))
    });
    Ok(places)
}

/// Rates and pays one line, or says why it can not be; nothing is changed then.
fn post_line(
    posting: &mut Posting<'_>,
    rater: &mut Rater<'_>,
    place: &Place<'_>,
    at: Timestamp,
    new_charge_id: &mut impl FnMut() -> ChargeId,
) -> Result<Charge, Unattributable> {
    let unfit = Unattributable::Overflow;
    i64::try_from(place.content.events).map_err(|_| unfit)?;
    let quantity = place.content.quantity().ok_or(unfit)?;
    let hold = own_hold(posting, place);
    let window = hold.map_or(place.content.window, |(_, window)| window);
    let rating = rater.rate(place.content, &place.payer, quantity, window)?;
    let (rated, amount) = (rating.rated, rating.amount);
    if !posting.can_consume(amount) {
        return Err(unfit);
    }
    rater.keep(rating, place.content);
    let charge_id = new_charge_id();
    let cause = |price_id| Cause { charge_id: Some(charge_id), price_id: Some(price_id), window };
    let charged = match rated.price_id() {
        Some(price_id) => posting.charge(cause(price_id), amount, hold.map(|(hold_id, _)| hold_id)),
        None => posting.record(),
    };
    let Charged { uncharged, first_seq } = charged;
    Ok(Charge {
        charge_id,
        line: place.line,
        team_id: place.payer.team_id,
        window,
        rated,
        quantity,
        amount,
        uncharged,
        journal_seq: first_seq,
        posted_at: at,
    })
}

/// The hold that a line names and its window, while it is open: after its time-out the same usage is
/// ordinary usage (D45).
fn own_hold(posting: &Posting<'_>, place: &Place<'_>) -> Option<(HoldId, Timestamp)> {
    let hold = posting.open_hold(place.content.hold_id?)?;
    let mine = hold.app_id.is_none_or(|app_id| app_id == place.payer.app_id);
    mine.then_some((hold.hold_id, hold.window))
}
