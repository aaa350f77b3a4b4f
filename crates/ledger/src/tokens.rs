//! Buying and granting tokens, and what a team looks like at an instant.
//!
//! A command is one transaction: lock the balance, take the instant, load, let the core plan, write. The
//! account of the team is asked for before the lock, so that nobody waits for a peer while holding it.

use std::collections::{HashMap, HashSet};

use drawdown_ledger_core::{
    BalanceView, Grant, GrantError, Lot, LotView, Plan, PurchaseError, ReadError, Team, Watch, balance_at,
    grant, lots_at, purchase,
};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, LotId, OrderId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    commands::{Act, Command, Touched},
    error::Error,
    reason,
    reports::Reach,
    service::{Ledger, unknown_team},
    store::{
        reads,
        teams::{self, StoredTeam, Wanted},
        watermarks::{self, Watermarks},
        write::LotNote,
    },
};

/// A purchase as decoded.
#[derive(Clone, Debug)]
pub(crate) struct PurchaseOrder {
    /// The buyer.
    pub(crate) account_id: AccountId,
    /// The lot's owner.
    pub(crate) team_id: TeamId,
    /// Whole tokens.
    pub(crate) tokens: i64,
    /// The original instant of a set-up.
    pub(crate) purchased_at: Option<Timestamp>,
    /// A note.
    pub(crate) note: String,
}

/// A grant as decoded.
#[derive(Clone, Debug)]
pub(crate) struct GrantOrder {
    /// The team's account.
    pub(crate) account_id: AccountId,
    /// The lot's owner.
    pub(crate) team_id: TeamId,
    /// What is granted; `lot_id` and `set_up` are decided here.
    pub(crate) grant: Grant,
    /// Why.
    pub(crate) note: String,
}

/// Whose rows are read, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    /// The account that asks, which sees only what is its own; none for an operator, who sees all.
    pub(crate) account: Option<AccountId>,
    /// Whose rows.
    pub(crate) team: TeamId,
}

/// A lot with its note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotedLot {
    /// The lot at an instant.
    pub(crate) view: LotView,
    /// That instant.
    pub(crate) at: Timestamp,
    /// Its note.
    pub(crate) note: String,
}

/// A refusal that names one field.
pub(crate) fn refuse(
    code: Code,
    reason: &'static str,
    field: &'static str,
    why: impl std::fmt::Display,
) -> Error {
    Refusal::new(code, reason, why.to_string()).violation(field, why).into()
}

// === impl Ledger ===

impl Ledger {
    /// Buys tokens (D1, D2). The open transaction is given back with the lot, to be committed with the
    /// answer.
    pub(crate) async fn purchase(
        &self,
        order: &PurchaseOrder,
    ) -> Result<(Transaction<'static, Postgres>, NotedLot, OrderId), Error> {
        let facts = self.team_facts(order.team_id).await?;
        check_account(facts.account_id, order.account_id)?;
        let instant = order.purchased_at.unwrap_or_else(|| self.clock.now());
        if facts.in_trial(instant) {
            let why = "the account is in its trial: end it before buying";
            return Err(refuse(Code::FailedPrecondition, reason::TRIAL_ACTIVE, "account_id", why));
        }
        let mut command = self.begin_command(order.account_id, &[order.team_id], &[]).await?;
        if let Some(original) = order.purchased_at {
            self.check_unsettled(&command, original, "purchased_at")?;
        }
        let (lot_id, order_id) = (LotId::generate(), OrderId::generate());
        let bought =
            drawdown_ledger_core::Purchase { lot_id, tokens: order.tokens, purchased_at: order.purchased_at };
        let until = self.settled_until(command.now);
        let (now, mut team) = (command.now, only(&mut command)?.team.clone());
        let plan = purchase(&mut team, &bought, now, until, &self.settings).map_err(purchase_refusal)?;
        let note = LotNote { order_id: Some(order_id), note: order.note.clone(), ..LotNote::default() };
        let action = if order.purchased_at.is_some() { "purchase.set_up" } else { "purchase" };
        let lot = self.write_lot(&mut command, team, &plan, lot_id, &note, action).await?;
        Ok((command.tx, lot, order_id))
    }

    /// Grants tokens (D5).
    pub(crate) async fn grant(
        &self,
        order: &GrantOrder,
    ) -> Result<(Transaction<'static, Postgres>, NotedLot), Error> {
        let facts = self.team_facts(order.team_id).await?;
        check_account(facts.account_id, order.account_id)?;
        let wanted = Wanted { items: order.grant.leaves_older_debts, ..Wanted::default() };
        let mut command = self.begin_command_of(&[(order.account_id, order.team_id)], &wanted).await?;
        let past = order.grant.starts_at.filter(|starts_at| *starts_at < command.now);
        if let Some(original) = past {
            self.check_unsettled(&command, original, "starts_at")?;
        }
        let granted = Grant { lot_id: LotId::generate(), set_up: past.is_some(), ..order.grant.clone() };
        let until = self.settled_until(command.now);
        let (now, mut team) = (command.now, only(&mut command)?.team.clone());
        let plan = grant(&mut team, &granted, now, until, &self.settings).map_err(grant_refusal)?;
        let note = LotNote { note: order.note.clone(), ..LotNote::default() };
        let action = if past.is_some() { "grant.set_up" } else { "grant" };
        let lot = self.write_lot(&mut command, team, &plan, granted.lot_id, &note, action).await?;
        Ok((command.tx, lot))
    }

    /// An original instant is taken only while no usage of its windows is settled (D61).
    fn check_unsettled(
        &self,
        command: &Command,
        original: Timestamp,
        field: &'static str,
    ) -> Result<(), Error> {
        if original > command.now {
            return Ok(());
        }
        let edge = self.settings.window_size.floor(original);
        if command.stored.iter().any(|stored| stored.last_window.is_some_and(|window| window >= edge)) {
            let why = format!("usage of the team from {edge} on is settled already");
            return Err(refuse(Code::FailedPrecondition, reason::WINDOW_SETTLED, field, why));
        }
        Ok(())
    }

    async fn write_lot(
        &self,
        command: &mut Command,
        after: Team,
        plan: &Plan,
        lot_id: LotId,
        note: &LotNote,
        action: &'static str,
    ) -> Result<NotedLot, Error> {
        let team = only(command)?.team.balance.team_id;
        let detail = serde_json::json!({ "lot": lot_id.to_string(), "note": note.note });
        let act = Act { action, subject: team.to_string(), detail, touched: Touched::Lot(lot_id) };
        self.write_command(command, vec![after], plan, note, Some(act)).await?;
        let lot = command.lots(lot_id, note).pop();
        lot.ok_or_else(|| Error::Broken("a new lot is not there".to_owned()))
    }

    /// The balance of a team at an instant, and how far its data reaches.
    pub(crate) async fn balance(&self, of: Of, at: Option<Timestamp>) -> Result<(BalanceView, Reach), Error> {
        let now = self.clock.now();
        let (StoredTeam { team: stored, last_window, .. }, settled) = self.settled_team(of).await?;
        let reach = self.reach(instant_of_read(&stored, now), last_window, settled);
        let at = at.unwrap_or(reach.at);
        let view = balance_at(&stored, at, self.settled_until(at), &self.settings).map_err(read_refusal)?;
        Ok((view, reach))
    }

    /// The lots of a team at an instant, in draw order, closed and moved ones last, with the instant and how far
    /// the data reaches.
    pub(crate) async fn lots(
        &self,
        of: Of,
        at: Option<Timestamp>,
    ) -> Result<(Vec<NotedLot>, Timestamp, Reach), Error> {
        let now = self.clock.now();
        let mut tx = self.pool.snapshot_of(of.account).await?;
        let loaded = teams::load(&mut tx, of.team).await?;
        let read = reads::lots(&mut tx, of.team).await?;
        let settled = watermarks::read_in_tx(&mut tx).await?;
        drop(tx);
        let (mut stored, newest) = match loaded {
            Some(stored) => (stored.team, stored.last_window),
            None => (self.untouched(of).await?, None),
        };
        let (lots, mut notes): (Vec<_>, HashMap<LotId, String>) = {
            let notes = read.iter().map(|(lot, note)| (lot.lot_id, note.clone())).collect();
            (read.into_iter().map(|(lot, _)| lot).collect(), notes)
        };
        // The live lots were read with the balance; only those that closed or moved away are added.
        let live: HashSet<LotId> = stored.lots.iter().map(|lot| lot.lot_id).collect();
        let gone = |lot: &Lot| !lot.is_live() && !live.contains(&lot.lot_id);
        stored.lots.extend(lots.into_iter().filter(gone));
        let reach = self.reach(instant_of_read(&stored, now), newest, settled);
        let at = at.unwrap_or(reach.at);
        let views = lots_at(&stored, at, self.settled_until(at), &self.settings).map_err(read_refusal)?;
        let noted = |view: LotView| {
            let note = notes.remove(&view.lot.lot_id).unwrap_or_default();
            NotedLot { view, at, note }
        };
        Ok((views.into_iter().map(noted).collect(), at, reach))
    }

    /// A team that nothing was ever posted to, if there is such a team.
    async fn untouched(&self, of: Of) -> Result<Team, Error> {
        let account_id = self.team_facts(of.team).await?.account_id;
        // Who asks for an account learns nothing about teams of others, not even that they exist.
        if of.account.is_some_and(|account| account != account_id) {
            return Err(unknown_team(of.team));
        }
        Ok(Team::new(account_id, of.team))
    }

    /// A team as stored, or as it is before anything was posted to it. Refuses a team that does not exist, or
    /// not for the account that asks.
    pub(crate) async fn stored_team(&self, of: Of) -> Result<StoredTeam, Error> {
        let read = teams::load(&mut *self.pool.read_of(of.account).await?, of.team).await?;
        self.or_untouched(of, read).await
    }

    /// The same, and what was settled in the state that it was read in.
    pub(crate) async fn settled_team(&self, of: Of) -> Result<(StoredTeam, Watermarks), Error> {
        let (read, settled) = {
            let mut reader = self.pool.probe_of(of.account).await?;
            (teams::load(&mut reader, of.team).await?, watermarks::read_in_tx(&mut reader).await?)
        };
        Ok((self.or_untouched(of, read).await?, settled))
    }

    async fn or_untouched(&self, of: Of, read: Option<StoredTeam>) -> Result<StoredTeam, Error> {
        Ok(match read {
            Some(stored) => stored,
            None => StoredTeam {
                team: self.untouched(of).await?,
                charges: 0,
                last_window: None,
                watch: Watch::default(),
                budgets: Vec::new(),
                has_budgets: false,
            },
        })
    }

    /// Refuses a team that does not exist, or not for that account.
    pub(crate) async fn check_team_of(&self, team: TeamId, account: AccountId) -> Result<(), Error> {
        self.stored_team(Of { account: Some(account), team }).await.map(drop)
    }
}

/// Now, or the last posting where another machine's clock is ahead of ours.
fn instant_of_read(team: &Team, now: Timestamp) -> Timestamp {
    team.balance.posted_at.map_or(now, |last| last.max(now))
}

/// The team of a command that has one.
pub(crate) fn only(command: &mut Command) -> Result<&mut StoredTeam, Error> {
    match command.stored.as_mut_slice() {
        [stored] => Ok(stored),
        _ => Err(Error::Broken("a command of one team has one".to_owned())),
    }
}

pub(crate) fn check_account(theirs: AccountId, asked: AccountId) -> Result<(), Error> {
    if theirs == asked {
        return Ok(());
    }
    let why = "the team belongs to another account";
    Err(refuse(Code::FailedPrecondition, reason::TEAM_NOT_OF_ACCOUNT, "team_id", why))
}

pub(crate) fn read_refusal(error: ReadError) -> Error {
    match &error {
        ReadError::BeforeLastPosting { .. } => {
            refuse(Code::FailedPrecondition, reason::INSTANT_BEFORE_POSTING, "at", error)
        }
    }
}

fn purchase_refusal(error: PurchaseError) -> Error {
    let (code, reason, field) = match &error {
        PurchaseError::BelowMinimum { .. } => (Code::InvalidArgument, reason::PURCHASE_TOO_SMALL, "tokens"),
        PurchaseError::AboveLotMax { .. } => (Code::InvalidArgument, reason::LOT_TOO_LARGE, "tokens"),
        PurchaseError::SetUpInFuture { .. } => {
            (Code::InvalidArgument, reason::INSTANT_IN_FUTURE, "purchased_at")
        }
        PurchaseError::CalendarEnd => (Code::InvalidArgument, reason::REQUEST_INVALID, "purchased_at"),
        PurchaseError::Overflow => (Code::FailedPrecondition, reason::BALANCE_OVERFLOW, "tokens"),
    };
    refuse(code, reason, field, error)
}

fn grant_refusal(error: GrantError) -> Error {
    let (code, reason, field) = match &error {
        GrantError::NotPositive(_) => (Code::InvalidArgument, reason::REQUEST_INVALID, "micros"),
        GrantError::AboveLotMax { .. } => (Code::InvalidArgument, reason::LOT_TOO_LARGE, "micros"),
        GrantError::Flex => (Code::InvalidArgument, reason::REQUEST_INVALID, "pool_kind"),
        GrantError::ExpiryNotAfterStart { .. } | GrantError::AlreadyExpired { .. } => {
            (Code::InvalidArgument, reason::REQUEST_INVALID, "expires_at")
        }
        GrantError::Overflow => (Code::FailedPrecondition, reason::BALANCE_OVERFLOW, "micros"),
    };
    refuse(code, reason, field, error)
}
