//! Lots after they were made: moved, adjusted, refunded, charged back (D5, D44, D46). Each is a command of
//! one transaction over every team concerned, locked by team id, and is noted with its reason.

use drawdown_ledger_core::{
    LotChangeError, LotJournal, MoveError, Plan, Team, adjust_lot, charge_back, move_lot, refund_lot,
};
use drawdown_service::{Code, Refusal};
use drawdown_types::{AccountId, LotId, MicroTokens, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    commands::{Act, Command, Touched},
    error::Error,
    reason,
    reports::archived,
    service::{Ledger, connection},
    store::{lots, partitions, teams::Wanted, write::LotNote},
    tokens::{NotedLot, check_account, only, refuse},
};

/// A lot of an account, and why it is touched.
#[derive(Clone, Debug)]
pub(crate) struct LotOrder {
    pub(crate) account_id: AccountId,
    pub(crate) lot_id: LotId,
    pub(crate) reason: String,
}

/// What became of a command: the open transaction, and the lot as it is afterwards, once for each team.
pub(crate) struct Done {
    pub(crate) tx: Transaction<'static, Postgres>,
    pub(crate) lots: Vec<NotedLot>,
    pub(crate) amount: MicroTokens,
    pub(crate) posted_at: Timestamp,
}

/// What the core planned for a command, and the teams after it.
struct Outcome {
    command: Command,
    after: Vec<Team>,
    plan: Plan,
    amount: MicroTokens,
}

// === impl Ledger ===

impl Ledger {
    /// Moves a lot to another team of its account.
    pub(crate) async fn move_lot(&self, order: &LotOrder, from: TeamId, to: TeamId) -> Result<Done, Error> {
        for team in [from, to] {
            check_account(self.team_facts(team).await?.account_id, order.account_id)?;
        }
        if from == to {
            return Err(move_refusal(MoveError::SameTeam(to)));
        }
        let teams = [(order.account_id, from), (order.account_id, to)];
        let wanted = Wanted { lots: &[order.lot_id], items: true, ..Wanted::default() };
        let mut command = self.begin_command_of(&teams, &wanted).await?;
        let (note, until) = (self.note_of(&mut command, order).await?, self.settled_until(command.now));
        let mut after: Vec<Team> = command.stored.iter().map(|stored| stored.team.clone()).collect();
        let [left, right] = after.as_mut_slice() else {
            return Err(Error::Broken("a move has two teams".to_owned()));
        };
        let plan =
            move_lot(left, right, order.lot_id, command.now, until, &self.settings).map_err(move_refusal)?;
        let moved = plan.journal.iter().find(|row| row.kind == drawdown_ledger_core::Kind::MoveIn);
        let amount = moved.map_or(MicroTokens::ZERO, |row| row.amount);
        let detail = serde_json::json!({ "from": from.to_string(), "to": to.to_string(), "micros": amount.as_micros() });
        let mut done =
            self.finish(Outcome { command, after, plan, amount }, order, ("lot.move", detail), &note).await?;
        done.lots.retain(|noted| noted.view.lot.team_id == to);
        Ok(done)
    }

    /// Makes a lot larger or smaller.
    pub(crate) async fn adjust_lot(&self, order: &LotOrder, team: TeamId, delta: i64) -> Result<Done, Error> {
        let detail = serde_json::json!({ "team": team.to_string(), "delta_micros": delta });
        let amount = MicroTokens::from_micros(delta);
        self.change(order, team, ("lot.adjust", detail), amount, |team, now, until| {
            adjust_lot(team, order.lot_id, delta, now, until, &self.settings)
        })
        .await
    }

    /// Takes back what is left of a bought lot, or a part of it.
    pub(crate) async fn refund_lot(
        &self,
        order: &LotOrder,
        team: TeamId,
        amount: Option<MicroTokens>,
    ) -> Result<Done, Error> {
        let micros = amount.map(MicroTokens::as_micros);
        let detail = serde_json::json!({ "team": team.to_string(), "micros": micros });
        let asked = amount.unwrap_or(MicroTokens::ZERO);
        self.change(order, team, ("lot.refund", detail), asked, |team, now, until| {
            refund_lot(team, order.lot_id, amount, now, until, &self.settings)
        })
        .await
    }

    async fn change(
        &self,
        order: &LotOrder,
        team: TeamId,
        act: (&'static str, serde_json::Value),
        amount: MicroTokens,
        plan: impl FnOnce(&mut Team, Timestamp, Timestamp) -> Result<Plan, LotChangeError>,
    ) -> Result<Done, Error> {
        check_account(self.team_facts(team).await?.account_id, order.account_id)?;
        let mut command = self.begin_command(order.account_id, &[team], &[order.lot_id]).await?;
        let (note, until) = (self.note_of(&mut command, order).await?, self.settled_until(command.now));
        let (now, mut team) = (command.now, only(&mut command)?.team.clone());
        let plan = plan(&mut team, now, until).map_err(|error| change_refusal(&error))?;
        let void = plan.journal.iter().find(|row| row.kind == drawdown_ledger_core::Kind::Void);
        let amount = void.map_or(amount, |row| row.amount);
        self.finish(Outcome { command, after: vec![team], plan, amount }, order, act, &note).await
    }

    /// Takes back a whole bought lot, in every team it lived in.
    pub(crate) async fn charge_back_lot(&self, order: &LotOrder) -> Result<Done, Error> {
        let teams = {
            let mut reader = self.pool.read().await?;
            lots::teams_in_tx(&mut reader, order.account_id, order.lot_id).await?
        };
        if teams.is_empty() {
            return Err(change_refusal(&LotChangeError::LotUnknown(order.lot_id)));
        }
        let mut command = self.begin_command(order.account_id, &teams, &[order.lot_id]).await?;
        // A lot moves only under the locks of both teams, so what is read now is where it lived.
        if lots::teams_in_tx(connection(&mut command.tx), order.account_id, order.lot_id).await? != teams {
            let why = "the lot moved meanwhile: try again";
            return Err(refuse(Code::Unavailable, reason::LOT_MOVED, "lot_id", why));
        }
        let (note, until) = (self.note_of(&mut command, order).await?, self.settled_until(command.now));
        let mut parts: Vec<(Team, LotJournal)> = Vec::with_capacity(teams.len());
        for stored in &command.stored {
            let balance = &stored.team.balance;
            let journal = lots::journal_in_tx(connection(&mut command.tx), balance, order.lot_id).await?;
            parts.push((stored.team.clone(), journal));
        }
        let plan = charge_back(&mut parts, order.lot_id, command.now, until, &self.settings)
            .map_err(|error| change_refusal(&error));
        let plan = match plan {
            // What it paid is counted against its amounts: where rows are archived, some are missing.
            Err(Error::Broken(_)) if partitions::any_archived(connection(&mut command.tx)).await? => {
                return Err(archived(None));
            }
            plan => plan?,
        };
        let after = parts.into_iter().map(|(team, _)| team).collect();
        let owed = plan.journal.iter().filter(|row| row.kind == drawdown_ledger_core::Kind::Chargeback);
        let owed = owed.fold(0_i64, |sum, row| sum.saturating_add(row.amount.as_micros()));
        let detail = serde_json::json!({ "owed_again_micros": owed });
        let amount = MicroTokens::from_micros(owed);
        self.finish(Outcome { command, after, plan, amount }, order, ("lot.charge_back", detail), &note).await
    }

    /// What the lot was made with: rows that a move makes say the same.
    async fn note_of(&self, command: &mut Command, order: &LotOrder) -> Result<LotNote, Error> {
        lots::note_in_tx(connection(&mut command.tx), order.account_id, order.lot_id).await
    }

    async fn finish(
        &self,
        outcome: Outcome,
        order: &LotOrder,
        (action, mut detail): (&'static str, serde_json::Value),
        note: &LotNote,
    ) -> Result<Done, Error> {
        let Outcome { mut command, after, plan, amount } = outcome;
        if let Some(detail) = detail.as_object_mut() {
            detail.insert("reason".to_owned(), order.reason.clone().into());
        }
        let act =
            Act { action, subject: order.lot_id.to_string(), detail, touched: Touched::Lot(order.lot_id) };
        self.write_command(&mut command, after, &plan, note, Some(act)).await?;
        let lots = command.lots(order.lot_id, note);
        Ok(Done { lots, amount, posted_at: plan.instant.unwrap_or(command.now), tx: command.tx })
    }
}

fn move_refusal(error: MoveError) -> Error {
    let precondition = Code::FailedPrecondition;
    let (code, reason, field) = match &error {
        MoveError::SameTeam(_) => (Code::InvalidArgument, reason::REQUEST_INVALID, "to_team_id"),
        MoveError::OtherAccount => (precondition, reason::TEAM_NOT_OF_ACCOUNT, "to_team_id"),
        MoveError::LotUnknown { .. } => (Code::NotFound, reason::LOT_UNKNOWN, "lot_id"),
        MoveError::NotMovable { .. } => (precondition, reason::LOT_NOT_OPEN, "lot_id"),
        MoveError::Empty(_) => (precondition, reason::LOT_EMPTY, "lot_id"),
        MoveError::Held { .. } => (precondition, reason::LOT_HELD, "lot_id"),
        MoveError::Overflow => (precondition, reason::BALANCE_OVERFLOW, "to_team_id"),
    };
    refuse(code, reason, field, error)
}

fn change_refusal(error: &LotChangeError) -> Error {
    let precondition = Code::FailedPrecondition;
    let (code, reason, field) = match error {
        LotChangeError::LotUnknown(_) => (Code::NotFound, reason::LOT_UNKNOWN, "lot_id"),
        LotChangeError::NotChangeable { .. } => (precondition, reason::LOT_NOT_OPEN, "lot_id"),
        LotChangeError::NotBought(_) => (precondition, reason::LOT_NOT_BOUGHT, "lot_id"),
        LotChangeError::Nothing => (Code::InvalidArgument, reason::REQUEST_INVALID, "micros"),
        LotChangeError::MoreThanRemains { .. } => (precondition, reason::LOT_REMAINS_LESS, "micros"),
        LotChangeError::AboveLotMax { .. } => (Code::InvalidArgument, reason::LOT_TOO_LARGE, "micros"),
        LotChangeError::Overflow => (precondition, reason::BALANCE_OVERFLOW, "micros"),
        LotChangeError::PaymentsDiffer(_) => return Error::Broken(error.to_string()),
    };
    Refusal::new(code, reason, error.to_string()).violation(field, error).into()
}
