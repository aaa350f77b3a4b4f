//! Decisions about usage that no team could be charged for (D25).
//!
//! An entry is decided once and stays as it was settled. A charge by decision is an ordinary charge of its
//! window (D9): the same fold and statements as a batch, under the lock of the team, all entries of a call in
//! one transaction. The entries are read after the lock and the decisions written last, so of two who decide
//! about one entry the second finds it decided, or is refused by its key and charges nothing.

use drawdown_ledger_core::{Aggregation, Attribution, Balance, Charge, Line, Usage};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, AppId, Quantity, TeamId, Timestamp};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    catalogue::Catalogue,
    directory::TeamFacts,
    error::Error,
    posting::{Content, Direct, LineDetail},
    reason,
    service::{Ledger, connection},
    store::{
        audit,
        review::{self, ChargedAs, Entry, Verdict},
    },
    tokens::{check_account, refuse},
};

/// Why an entry stays unattributed though it was to be charged.
pub(crate) const METER_UNFIT: &str = "meter_unfit";

/// Which entries, and who decides why.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) entries: Vec<i64>,
    pub(crate) reason: String,
    pub(crate) decided_by: String,
    pub(crate) request_id: String,
}

/// Whose usage it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charged {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: TeamId,
    pub(crate) app_id: AppId,
}

/// An entry with its charge.
#[derive(Clone, Debug)]
pub(crate) struct ChargedEntry {
    pub(crate) entry: i64,
    pub(crate) seq: i64,
    pub(crate) charge: Charge,
}

/// What became of entries that were to be charged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sorted {
    /// In posting order.
    pub(crate) charged: Vec<ChargedEntry>,
    /// By entry, each with why not.
    pub(crate) left: Vec<(i64, &'static str)>,
    /// The team before and after; none before anything was tried.
    books: Option<Box<[Balance; 2]>>,
}

// === impl Ledger ===

impl Ledger {
    /// Charges entries to a team. The open transaction is given back with what was written, to be committed
    /// with the answer, or undone.
    pub(crate) async fn charge_unattributed(
        &self,
        decision: &Decision,
        to: &Charged,
    ) -> Result<(Transaction<'static, Postgres>, Sorted, Timestamp), Error> {
        let facts = self.team_facts(to.team_id).await?;
        check_account(facts.account_id, to.account_id)?;
        let mut direct = self.poster().begin_direct(to.account_id, to.team_id).await?;
        let entries = open_entries(&mut direct.tx, &decision.entries).await?;
        let (sorted, at) = self.charge_entries(&mut direct, &entries, to, &facts).await?;
        let verdict = Verdict {
            kind: "charged",
            at,
            by: &decision.decided_by,
            reason: &decision.reason,
            request_id: &decision.request_id,
        };
        decide(&mut direct.tx, &verdict, &sorted.decided(to)).await?;
        let why = (decision.decided_by.as_str(), decision.reason.as_str());
        let line = sorted.line("unattributed.charge", to, why);
        audit::note_in_tx(connection(&mut direct.tx), at, line).await?;
        Ok((direct.tx, sorted, at))
    }

    /// Charges open entries to the locked team, in order of window; nothing is decided yet.
    pub(crate) async fn charge_entries(
        &self,
        direct: &mut Direct,
        entries: &[Entry],
        to: &Charged,
        facts: &TeamFacts,
    ) -> Result<(Sorted, Timestamp), Error> {
        let mut sorted = Sorted::default();
        let mut named = Vec::with_capacity(entries.len());
        let mut lines = Vec::with_capacity(entries.len());
        let mut details = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(line) = line(entry, &direct.catalogue, to, facts) else {
                sorted.left.push((entry.entry, METER_UNFIT));
                continue;
            };
            named.push(entry.entry);
            lines.push(line);
            details.push(LineDetail { dimensions: entry.dimensions.clone() });
        }
        let content = Content { lines: &lines, details: &details, holds: &[], last_of_holds: &[] };
        let written = self.poster().charge_direct(direct, &content).await?;
        sorted.books = Some(written.books);
        let name = |line: usize| {
            named.get(line).copied().ok_or_else(|| Error::Broken("a line has no entry".to_owned()))
        };
        for (charge, seq) in written.plan.charges.iter().zip(written.seqs) {
            sorted.charged.push(ChargedEntry { entry: name(charge.line)?, seq, charge: charge.clone() });
        }
        for left in &written.plan.unattributed {
            sorted.left.push((name(left.line)?, left.reason.as_str()));
        }
        sorted.left.sort_unstable();
        Ok((sorted, written.plan.instant.unwrap_or(direct.now)))
    }

    /// Decides that entries are charged to nobody.
    pub(crate) async fn dismiss_unattributed(
        &self,
        decision: &Decision,
    ) -> Result<(Transaction<'static, Postgres>, Timestamp), Error> {
        let mut tx = self.begin().await?;
        open_entries(&mut tx, &decision.entries).await?;
        let now = self.clock.now();
        let verdict = Verdict {
            kind: "dismissed",
            at: now,
            by: &decision.decided_by,
            reason: &decision.reason,
            request_id: &decision.request_id,
        };
        let decided: Vec<_> = decision.entries.iter().map(|entry| (*entry, None)).collect();
        decide(&mut tx, &verdict, &decided).await?;
        let are = |state| {
            let entries = decision.entries.iter().map(|entry| in_state(*entry, state));
            json!({ "entries": entries.collect::<Vec<_>>() })
        };
        let line = audit::Line {
            action: "unattributed.dismiss",
            subject: format!("{} entries", decision.entries.len()),
            detail: json!({ "by": decision.decided_by, "reason": decision.reason }),
            before: Some(are("open")),
            after: are("dismissed"),
        };
        audit::note_in_tx(connection(&mut tx), now, line).await?;
        Ok((tx, now))
    }
}

// === impl Sorted ===

impl Sorted {
    /// The charged entries, as they are decided.
    pub(crate) fn decided(&self, to: &Charged) -> Vec<(i64, Option<ChargedAs>)> {
        let Charged { account_id, team_id, app_id } = *to;
        let charged = self.charged.iter().map(|charged| {
            let charge_id = charged.charge.charge_id;
            (charged.entry, Some(ChargedAs { account_id, team_id, app_id, charge_id, seq: charged.seq }))
        });
        charged.collect()
    }

    /// What is done to the entries that are charged, and to their team; those that are left stay open.
    pub(crate) fn line(&self, action: &'static str, to: &Charged, (by, why): (&str, &str)) -> audit::Line {
        let left: Vec<i64> = self.left.iter().map(|(entry, _)| *entry).collect();
        let books = |at: fn(&[Balance; 2]) -> &Balance| {
            self.books.iter().map(|books| audited::books(at(books))).collect::<Vec<_>>()
        };
        let was = self.charged.iter().map(|charged| in_state(charged.entry, "open"));
        let is = self.charged.iter().map(|charged| {
            json!({
                "entry": charged.entry,
                "state": "charged",
                "charge": charged.charge.charge_id.to_string(),
                "micros": charged.charge.amount.as_micros(),
            })
        });
        audit::Line {
            action,
            subject: to.team_id.to_string(),
            detail: json!({
                "by": by, "reason": why, "app": to.app_id.to_string(),
                "left": left, "micros": self.amount_micros(),
            }),
            before: Some(json!({ "teams": books(|[was, _]| was), "entries": was.collect::<Vec<_>>() })),
            after: json!({ "teams": books(|[_, is]| is), "entries": is.collect::<Vec<_>>() }),
        }
    }

    /// Σ price. The sums of one team fit (D53), and these are part of them.
    pub(crate) fn amount_micros(&self) -> i64 {
        let amounts = self.charged.iter().map(|charged| charged.charge.amount.as_micros());
        amounts.fold(0, i64::saturating_add)
    }

    /// What no lot covered of it.
    pub(crate) fn uncharged_micros(&self) -> i64 {
        let uncharged = self.charged.iter().map(|charged| charged.charge.uncharged.as_micros());
        uncharged.fold(0, i64::saturating_add)
    }
}

/// An entry in the audit log.
fn in_state(entry: i64, state: &'static str) -> Value {
    json!({ "entry": entry, "state": state })
}

/// The entries, all there and without a decision, in order of their names.
async fn open_entries(tx: &mut Transaction<'static, Postgres>, names: &[i64]) -> Result<Vec<Entry>, Error> {
    let entries = review::entries_in_tx(connection(tx), names).await?;
    let found = |name: &i64| entries.iter().find(|entry| entry.entry == *name);
    let fields = || (0_usize..).zip(names);
    let mut unknown = fields().filter(|(_, name)| found(name).is_none()).peekable();
    if unknown.peek().is_some() {
        let refusal = Refusal::new(Code::NotFound, reason::ENTRY_UNKNOWN, "there is no such entry");
        return Err(unknown.fold(refusal, |r, (at, name)| told(r, at, name, "is not known")).into());
    }
    let mut decided = fields().filter(|(_, name)| found(name).is_some_and(|entry| entry.decided)).peekable();
    if decided.peek().is_some() {
        return Err(decided.fold(decided_refusal(), |r, (at, name)| told(r, at, name, "is decided")).into());
    }
    Ok(entries)
}

fn told(refusal: Refusal, at: usize, name: &i64, why: &str) -> Refusal {
    refusal.violation(format!("entries[{at}]"), format!("{name} {why}"))
}

fn decided_refusal() -> Refusal {
    Refusal::new(Code::FailedPrecondition, reason::ENTRY_DECIDED, "an entry is decided already")
}

/// Writes decisions. Where somebody else decided meanwhile, the transaction is refused whole.
pub(crate) async fn decide(
    tx: &mut Transaction<'static, Postgres>,
    verdict: &Verdict<'_>,
    decided: &[(i64, Option<ChargedAs>)],
) -> Result<(), Error> {
    if review::decide_in_tx(connection(tx), verdict, decided).await? {
        return Ok(());
    }
    let why = "an entry was decided meanwhile";
    Err(refuse(Code::FailedPrecondition, reason::ENTRY_DECIDED, "entries", why))
}

/// The entry as a line of its payer, received in its own window; nothing where it was not added up as its
/// meter does.
fn line(entry: &Entry, catalogue: &Catalogue, to: &Charged, facts: &TeamFacts) -> Option<Line> {
    let quantity = Quantity::new(entry.quantity).ok()?;
    let usage = match (catalogue.meters.get(&entry.meter), &entry.values) {
        (Some(Aggregation::Count), None) => {
            if entry.events != entry.quantity {
                return None;
            }
            Usage::Count
        }
        (Some(Aggregation::Max(_)), None) => Usage::Max(quantity),
        (Some(Aggregation::Unique(_)) | None, Some(values)) => Usage::Unique(values.clone()),
        (Some(Aggregation::Sum) | None, None) => Usage::Sum(quantity),
        (Some(Aggregation::Unique(_)), None)
        | (Some(Aggregation::Sum | Aggregation::Count | Aggregation::Max(_)), Some(_)) => return None,
    };
    Some(Line {
        client_id: entry.client_id.clone(),
        meter: entry.meter.clone(),
        failed: entry.failed,
        series: entry.dimensions.clone().into_bytes(),
        window: entry.window,
        received_window: entry.window,
        events: u64::try_from(entry.events).ok()?,
        usage,
        hold_id: None,
        attribution: Attribution::Payer(facts.payer(to.team_id, to.app_id, entry.window)),
    })
}
