//! A sealed batch as decoded, and which of its lines are charged to whom.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use drawdown_ledger_core::{Aggregation, Attribution, Line, Payer, Unattributable, Usage};
use drawdown_types::{AccountId, HoldId, MeterSlug, TeamId, Timestamp};

use crate::{
    catalogue::Catalogue,
    store::{
        settlement::{LaneRange, Split},
        shards::LaneKey,
        teams::StoredTeam,
    },
};

/// A sealed batch, merged and resolved by metering.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    /// The shard.
    pub shard: i32,
    /// The generation it was sealed under.
    pub generation: u64,
    /// Its number.
    pub number: i64,
    /// 128 bits over raw counters, lanes and chains.
    pub digest: Vec<u8>,
    /// The ranges it settles, each lane once.
    pub lanes: Vec<LaneRange>,
    /// Events in lines.
    pub events: i64,
    /// Events refused by metering, by reason.
    pub refused: Vec<(String, i64)>,
    /// What the lines of each meter add up to.
    pub totals: Vec<MeterTotal>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Beside each line: what the core does not look at.
    pub details: Vec<LineDetail>,
    /// What other cells have of it.
    pub elsewhere: Elsewhere,
}

/// What of a batch is in other cells, as the batch says.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// The cell that the batch is for.
    pub cell: u8,
    /// Events that are not in this cell.
    pub events: i64,
    /// The sums of the lines of others.
    pub totals: Vec<MeterTotal>,
    /// To the leading cell: what each of the others gets.
    pub parts: Vec<Part>,
    /// To another: ranges named as lost since its last batch.
    pub lost: Vec<LaneRange>,
}

/// What one other cell gets of a batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// The cell.
    pub cell: u8,
    /// Lines.
    pub lines: i64,
    /// Events in them.
    pub events: i64,
    /// Their sums, by meter.
    pub totals: Vec<MeterTotal>,
    /// The lines as they came.
    pub content: Vec<u8>,
    /// Each client id of them with its newest window.
    pub clients: Vec<(String, Timestamp)>,
}

/// The sum over one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterTotal {
    /// The meter.
    pub meter: MeterSlug,
    /// Events.
    pub events: u64,
    /// Σ quantity.
    pub quantity: i64,
}

/// Sums as a JSON object: events and quantity by meter.
pub fn by_meter(totals: &[MeterTotal]) -> serde_json::Value {
    let sums = totals.iter().map(|total| {
        let sums = serde_json::json!({ "events": total.events, "quantity": total.quantity });
        (total.meter.to_string(), sums)
    });
    serde_json::Value::Object(sums.collect())
}

/// What is kept of a line beside its usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineDetail {
    /// Dimensions as a JSON object.
    pub dimensions: String,
}

impl SealedBatch {
    /// Events refused by metering.
    #[must_use]
    pub fn refused(&self) -> i64 {
        self.refused.iter().fold(0, |sum, (_, events)| sum.saturating_add(*events))
    }

    /// How it is split, as the cell that it is for will have it.
    #[must_use]
    pub fn split(&self) -> Split {
        Split {
            lines: i64::try_from(self.lines.len()).unwrap_or(i64::MAX),
            events: self.events,
            elsewhere_events: self.elsewhere.events,
            elsewhere: by_meter(&self.elsewhere.totals),
        }
    }

    /// The lanes that it says something of, each once.
    #[must_use]
    pub fn lane_keys(&self) -> Vec<LaneKey> {
        let mut keys: Vec<_> = self.lanes.iter().chain(&self.elsewhere.lost).map(|range| range.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Every team that a line names.
    #[must_use]
    pub fn teams(&self) -> HashSet<TeamId> {
        self.lines.iter().filter_map(payer).map(|payer| payer.team_id).collect()
    }
}

/// Who pays for a line, if anybody.
pub(super) const fn payer(line: &Line) -> Option<&Payer> {
    match &line.attribution {
        Attribution::Payer(payer) => Some(payer),
        Attribution::Nobody(_) => None,
    }
}

/// The lines as they will be folded: a line that its meter does not fit, and lines of teams that can not
/// be posted to, are charged to nobody.
pub(super) fn charged_lines<'a>(
    batch: &'a SealedBatch,
    catalogue: &Catalogue,
    poisoned: &HashSet<TeamId>,
) -> Cow<'a, [Line]> {
    let fits = |line: &Line| match (catalogue.meters.get(&line.meter), &line.usage) {
        (None, _)
        | (Some(Aggregation::Sum), Usage::Sum(_))
        | (Some(Aggregation::Count), Usage::Count)
        | (Some(Aggregation::Max(_)), Usage::Max(_))
        | (Some(Aggregation::Unique(_)), Usage::Unique(_)) => true,
        (Some(Aggregation::Sum), _)
        | (Some(Aggregation::Count), _)
        | (Some(Aggregation::Max(_)), _)
        | (Some(Aggregation::Unique(_)), _) => false,
    };
    let mut lines = Cow::Borrowed(batch.lines.as_slice());
    set_apart(&mut lines, |line, payer| poisoned.contains(&payer.team_id) || !fits(line));
    lines
}

/// Charges to nobody what `is_poison` says of lines that somebody would pay. Hardly ever there is one, so
/// the lines are copied only then.
fn set_apart(lines: &mut Cow<'_, [Line]>, is_poison: impl Fn(&Line, &Payer) -> bool) {
    let poison = |line: &Line| payer(line).is_some_and(|payer| is_poison(line, payer));
    if !lines.iter().any(poison) {
        return;
    }
    for line in lines.to_mut() {
        if poison(line) {
            line.attribution = Attribution::Nobody(Unattributable::Poison);
        }
    }
}

/// The teams that pay, each once, by team id.
pub(super) fn payers(lines: &[Line]) -> Vec<(AccountId, TeamId)> {
    let mut payers: Vec<_> =
        lines.iter().filter_map(payer).map(|payer| (payer.account_id, payer.team_id)).collect();
    payers.sort_unstable_by_key(|(account, team)| (*team, *account));
    payers.dedup_by_key(|(_, team)| *team);
    payers
}

/// The holds that lines name, each once.
pub(super) fn holds(lines: &[Line]) -> Vec<HoldId> {
    let mut holds: Vec<_> = lines.iter().filter_map(|line| line.hold_id).collect();
    holds.sort_unstable();
    holds.dedup();
    holds
}

/// A team has one account for ever. A line that names another is not charged: it would put tokens of
/// one account to the use of another.
pub(super) fn set_apart_foreign(lines: &mut Cow<'_, [Line]>, stored: &[StoredTeam]) {
    let accounts: HashMap<TeamId, AccountId> =
        stored.iter().map(|stored| (stored.team.balance.team_id, stored.team.balance.account_id)).collect();
    set_apart(lines, |_, payer| accounts.get(&payer.team_id) != Some(&payer.account_id));
}
