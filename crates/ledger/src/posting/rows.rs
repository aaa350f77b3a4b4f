//! From the core's plan to rows: what the plan does not repeat from its lines is put beside it, and the
//! sums of the receipt are made.

use drawdown_ledger_core::{Attribution, Balance, DistinctValues, Line, Payer, Plan, Rated, Usage};
use drawdown_types::{AccountId, BatchId, MicroTokens, TeamId, Timestamp};
use rustc_hash::FxHashMap;

use super::{
    Summary,
    batch::{MeterTotal, SealedBatch, by_meter},
    clients::SettledClients,
};
use crate::{
    error::Error,
    store::{
        periods::ChargeValues,
        settlement::{SettledRows, UnattributedRow},
        teams::StoredTeam,
        write::{ChargeRow, TeamUsage},
    },
};

/// The rows of one post.
pub(super) struct Rows<'a> {
    batch: &'a SealedBatch,
    lines: &'a [Line],
    plan: &'a Plan,
    posted_at: Timestamp,
    charges: Vec<ChargeRow<'a>>,
    unattributed: Vec<UnattributedRow<'a>>,
    clients: Vec<(&'a str, Timestamp)>,
    usage: FxHashMap<TeamId, Used>,
    refused_by_reason: String,
    totals: String,
    elsewhere: String,
    amount_micros: i64,
    uncharged_micros: i64,
}

/// Usage of a team after its charges.
#[derive(Clone, Copy, Default)]
struct Used {
    charges: i64,
    last_window: Option<Timestamp>,
}

fn broken(what: &'static str) -> Error {
    Error::Broken(what.to_owned())
}

/// Events fit: the gate has compared their sum with one that does.
fn events_of(line: &Line) -> Result<i64, Error> {
    i64::try_from(line.events).map_err(|_| broken("events of a line do not fit"))
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        batch: &'a SealedBatch,
        lines: &'a [Line],
        plan: &'a Plan,
        stored: &[StoredTeam],
        now: Timestamp,
    ) -> Result<Self, Error> {
        let usage = stored.iter().map(|stored| {
            (stored.team.balance.team_id, Used { charges: stored.charges, last_window: stored.last_window })
        });
        let mut rows = Self {
            batch,
            lines,
            plan,
            posted_at: plan.instant.unwrap_or(now),
            charges: Vec::with_capacity(plan.charges.len()),
            unattributed: Vec::with_capacity(plan.unattributed.len()),
            clients: Vec::new(),
            usage: usage.collect(),
            refused_by_reason: refused_by_reason(batch),
            totals: totals(&batch.totals),
            elsewhere: totals(&batch.elsewhere.totals),
            amount_micros: 0,
            uncharged_micros: 0,
        };
        rows.charge_all(lines)?;
        rows.leave_all(lines)?;
        Ok(rows)
    }

    /// Finds the client ids whose newest window is not known to be noted.
    pub(super) fn note_clients(&mut self, known: Option<&SettledClients>) {
        self.clients = self.newest_windows();
        if let Some(known) = known {
            known.retain_new(&mut self.clients);
        }
    }

    fn charge_all(&mut self, lines: &'a [Line]) -> Result<(), Error> {
        for charge in &self.plan.charges {
            let line = lines.get(charge.line).ok_or_else(|| broken("a charge has no line"))?;
            let detail = self.batch.details.get(charge.line).ok_or_else(|| broken("a line has no detail"))?;
            let Attribution::Payer(Payer { account_id, app_id, .. }) = line.attribution else {
                return Err(broken("a charge has no payer"));
            };
            let usage = self.usage.entry(charge.team_id).or_default();
            usage.charges = usage.charges.saturating_add(1);
            usage.last_window = usage.last_window.max(Some(charge.window));
            // The sums of each team fit (D53); those of all teams of a batch are only told, so they may
            // stop at the end of their range rather than stop the batch.
            let sum = |sum: i64, part: MicroTokens| sum.saturating_add(part.as_micros());
            self.amount_micros = sum(self.amount_micros, charge.amount);
            self.uncharged_micros = sum(self.uncharged_micros, charge.uncharged);
            self.charges.push(ChargeRow {
                charge,
                taken_back: false,
                corrects: None,
                account_id,
                seq: usage.charges,
                app_id,
                client_id: line.client_id.as_str(),
                meter: line.meter.as_str(),
                failed: line.failed,
                dimensions: &detail.dimensions,
                hold_id: line.hold_id,
                events: events_of(line)?,
            });
        }
        Ok(())
    }

    fn leave_all(&mut self, lines: &'a [Line]) -> Result<(), Error> {
        for left in &self.plan.unattributed {
            let line = lines.get(left.line).ok_or_else(|| broken("an unattributed line is not there"))?;
            let detail = self.batch.details.get(left.line).ok_or_else(|| broken("a line has no detail"))?;
            // The batch's own line still names the payer that was set aside.
            let payer = match self.batch.lines.get(left.line).map(|line| line.attribution) {
                Some(Attribution::Payer(payer)) => Some((payer.account_id, payer.team_id, payer.app_id)),
                Some(Attribution::Nobody(_)) | None => None,
            };
            self.unattributed.push(UnattributedRow {
                client_id: line.client_id.as_str(),
                meter: line.meter.as_str(),
                failed: line.failed,
                window: line.window,
                received_window: line.received_window,
                dimensions: &detail.dimensions,
                events: events_of(line)?,
                quantity: line.quantity().map_or(i64::MAX, |quantity| quantity.as_units()),
                reason: left.reason,
                values: distinct_values(line),
                payer,
            });
        }
        Ok(())
    }

    /// The newest window of each client id, by client id.
    fn newest_windows(&self) -> Vec<(&'a str, Timestamp)> {
        let charged = self.charges.iter().map(|row| (row.client_id, row.charge.window));
        let left = self.unattributed.iter().map(|row| (row.client_id, row.window));
        // The leading cell is asked about the client ids of all cells (D61).
        let parts = self.batch.elsewhere.parts.iter().flat_map(|part| &part.clients);
        let parts = parts.map(|(client_id, window)| (client_id.as_str(), *window));
        // Callers choose client ids, so they are hashed with a key.
        let mut newest: std::collections::HashMap<&str, Timestamp> = std::collections::HashMap::new();
        for (client_id, window) in charged.chain(left).chain(parts) {
            let known = newest.entry(client_id).or_insert(window);
            *known = window.max(*known);
        }
        let mut newest: Vec<_> = newest.into_iter().collect();
        newest.sort_unstable();
        newest
    }

    /// What they are of.
    pub(super) const fn of(&self) -> (&'a SealedBatch, &'a [Line], &'a Plan) {
        (self.batch, self.lines, self.plan)
    }

    /// The instant of their transaction.
    pub(super) const fn posted_at(&self) -> Timestamp {
        self.posted_at
    }

    /// Client ids whose newest window is noted with this batch, by client id.
    pub(super) fn clients(&self) -> &[(&'a str, Timestamp)] {
        &self.clients
    }

    pub(super) fn charges(&self) -> &[ChargeRow<'a>] {
        &self.charges
    }

    /// The account of each team that has charges.
    pub(super) fn accounts(&self) -> FxHashMap<TeamId, AccountId> {
        self.charges.iter().map(|row| (row.charge.team_id, row.account_id)).collect()
    }

    /// The values of charges of unique meters, priced or not.
    pub(super) fn values(&self) -> Vec<ChargeValues<'a>> {
        let values = self.charges.iter().filter_map(|row| {
            Some(ChargeValues {
                account_id: row.account_id,
                team_id: row.charge.team_id,
                seq: row.seq,
                posted_at: row.charge.posted_at,
                values: distinct_values(self.lines.get(row.charge.line)?)?,
            })
        });
        values.collect()
    }

    /// Every team of the batch as it is afterwards: usage that costs nothing changes no book, but it
    /// counts.
    pub(super) fn usage<'t>(&self, stored: &'t [StoredTeam]) -> Vec<(&'t Balance, TeamUsage)> {
        let usage = |stored: &'t StoredTeam| {
            let balance = &stored.team.balance;
            let Used { charges, last_window } = self.usage.get(&balance.team_id).copied().unwrap_or_default();
            (balance, TeamUsage { charges, last_window, watch: stored.watch })
        };
        stored.iter().map(usage).collect()
    }

    pub(super) fn settled(&self) -> SettledRows<'_> {
        SettledRows {
            batch_id: BatchId::generate(),
            shard: self.batch.shard,
            number: self.batch.number,
            generation: self.batch.generation,
            digest: &self.batch.digest,
            posted_at: self.posted_at,
            lanes: &self.batch.lanes,
            lines: count(self.batch.lines.len()),
            events: self.batch.events,
            refused: self.batch.refused(),
            refused_by_reason: &self.refused_by_reason,
            totals: &self.totals,
            elsewhere_events: self.batch.elsewhere.events,
            elsewhere: &self.elsewhere,
            charges: count(self.charges.len()),
            amount_micros: self.amount_micros,
            uncharged_micros: self.uncharged_micros,
            unattributed: &self.unattributed,
            clients: &self.clients,
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let unpriced = self.plan.charges.iter().filter(|charge| charge.rated == Rated::Unpriced).count();
        let (closed_lots, expired_micros) = closed(self.plan);
        Summary {
            posted_at: self.posted_at,
            charges: count(self.charges.len()),
            unattributed: count(self.unattributed.len()),
            amount_micros: self.amount_micros,
            uncharged_micros: self.uncharged_micros,
            unpriced: u64::try_from(unpriced).unwrap_or(u64::MAX),
            poisoned_teams: 0,
            closed_lots,
            expired_micros,
            notices: 0,
            teams_loaded: 0,
            teams_known: 0,
        }
    }
}

fn distinct_values(line: &Line) -> Option<&DistinctValues> {
    match &line.usage {
        Usage::Unique(values) => Some(values),
        Usage::Sum(_) | Usage::Count | Usage::Max(_) => None,
    }
}

/// Lots that a plan closes, and what they forfeit.
pub(crate) fn closed(plan: &Plan) -> (u64, i64) {
    let closed = plan.lots.iter().filter(|lot| lot.closed_at.is_some());
    closed.fold((0, 0), |(lots, micros): (u64, i64), lot| {
        (lots.saturating_add(1), micros.saturating_add(lot.expired.as_micros()))
    })
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn refused_by_reason(batch: &SealedBatch) -> String {
    let by_reason: serde_json::Map<_, _> =
        batch.refused.iter().map(|(reason, events)| (reason.clone(), (*events).into())).collect();
    serde_json::Value::Object(by_reason).to_string()
}

fn totals(totals: &[MeterTotal]) -> String {
    by_meter(totals).to_string()
}
