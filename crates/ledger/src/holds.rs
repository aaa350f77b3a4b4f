//! Holds: reserved, extended, captured, released, read (D45). Each act is a command of one transaction.

use std::time::Duration;

use drawdown_ledger_core::{
    Hold, HoldEnd, HoldError, Plan, Reservation, Team, extend_hold, release_hold, reserve,
};
use drawdown_service::Code;
use drawdown_types::{
    AccountId, AppId, ClientId, HoldId, MeterSlug, MicroTokens, Quantity, TeamId, Timestamp,
};
use sqlx::{Postgres, Transaction};

use crate::{
    audited,
    commands::{Act, Command, Touched},
    error::Error,
    posting::{Capture, Captured},
    reason,
    service::{Ledger, connection},
    store::{audit, holds, write::LotNote},
    tokens::{check_account, only, refuse},
};

/// Tokens to set aside, as decoded.
#[derive(Clone, Debug)]
pub(crate) struct ReserveOrder {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: TeamId,
    pub(crate) app_id: Option<AppId>,
    pub(crate) amount: MicroTokens,
    pub(crate) at_least: Option<MicroTokens>,
    pub(crate) lasts: Duration,
    pub(crate) note: String,
}

/// Usage of a hold, as decoded.
#[derive(Clone, Debug)]
pub(crate) struct CaptureOrder {
    pub(crate) team_id: TeamId,
    pub(crate) hold_id: HoldId,
    pub(crate) app_id: Option<AppId>,
    pub(crate) client_id: ClientId,
    pub(crate) meter: MeterSlug,
    pub(crate) quantity: Quantity,
    pub(crate) failed: bool,
    pub(crate) last: bool,
}

/// What became of an act: the open transaction and the hold afterwards.
pub(crate) struct Held {
    pub(crate) tx: Transaction<'static, Postgres>,
    pub(crate) hold: Hold,
    /// What the act gave back or took.
    pub(crate) amount: MicroTokens,
}

// === impl Ledger ===

impl Ledger {
    /// Sets tokens aside.
    pub(crate) async fn reserve(&self, order: &ReserveOrder) -> Result<Held, Error> {
        check_account(self.team_facts(order.team_id).await?.account_id, order.account_id)?;
        let command = self.begin_command(order.account_id, &[order.team_id], &[]).await?;
        let hold_id = HoldId::generate();
        let wish = Reservation {
            hold_id,
            app_id: order.app_id,
            amount: order.amount,
            at_least: order.at_least,
            expires_at: command.now.checked_add(order.lasts).unwrap_or(Timestamp::MAX),
        };
        let note = LotNote { note: order.note.clone(), ..LotNote::default() };
        let what = ("hold.reserve", serde_json::json!({ "note": order.note }));
        self.act(command, hold_id, what, &note, |team, now, until| {
            reserve(team, &wish, now, until, &self.settings)
        })
        .await
    }

    /// Lets a hold last longer.
    pub(crate) async fn extend(
        &self,
        team: TeamId,
        hold_id: HoldId,
        lasts: Duration,
        more: MicroTokens,
    ) -> Result<Held, Error> {
        let account = self.team_facts(team).await?.account_id;
        let command = self.begin_command(account, &[team], &[]).await?;
        let expires_at = command.now.checked_add(lasts).unwrap_or(Timestamp::MAX);
        let what = ("hold.extend", serde_json::json!({ "more_micros": more.as_micros() }));
        self.act(command, hold_id, what, &LotNote::default(), |team, now, until| {
            extend_hold(team, hold_id, expires_at, more, now, until, &self.settings)
        })
        .await
    }

    /// Ends a hold.
    pub(crate) async fn release(&self, team: TeamId, hold_id: HoldId) -> Result<Held, Error> {
        let account = self.team_facts(team).await?.account_id;
        let command = self.begin_command(account, &[team], &[]).await?;
        let what = ("hold.release", serde_json::json!({}));
        self.act(command, hold_id, what, &LotNote::default(), |team, now, until| {
            release_hold(team, hold_id, now, until, &self.settings)
        })
        .await
    }

    async fn act(
        &self,
        mut command: Command,
        hold_id: HoldId,
        (action, detail): (&'static str, serde_json::Value),
        note: &LotNote,
        plan: impl FnOnce(&mut Team, Timestamp, Timestamp) -> Result<Plan, HoldError>,
    ) -> Result<Held, Error> {
        let (now, until) = (command.now, self.settled_until(command.now));
        let before = only(&mut command)?.team.clone();
        let mut team = before.clone();
        let plan = match plan(&mut team, now, until) {
            Ok(plan) => plan,
            // Open holds are loaded; one that ended before is not, and is named with its end.
            Err(HoldError::Unknown(_)) => {
                let ended =
                    holds::read(connection(&mut command.tx), before.balance.team_id, Some(hold_id), None, 1);
                return Err(over(hold_id, ended.await?.pop()));
            }
            Err(error) => return Err(hold_refusal(&error)),
        };
        let held = |team: &Team| team.holds.iter().find(|hold| hold.hold_id == hold_id).cloned();
        let (was, hold) = (held(&before), held(&team));
        let hold = hold.ok_or_else(|| Error::Broken("a hold is not there".to_owned()))?;
        let act = audited::by_known_operator().then(|| {
            let touched = Touched::Hold(hold_id);
            Act { action, subject: hold_id.to_string(), detail, touched }
        });
        self.write_command(&mut command, vec![team], &plan, note, act).await?;
        let (was, is) = (was.map_or(MicroTokens::ZERO, |hold| hold.remaining()), hold.remaining());
        let amount = was.checked_sub(is).unwrap_or_default();
        Ok(Held { tx: command.tx, hold, amount })
    }

    /// Charges usage of a hold at once.
    pub(crate) async fn capture(&self, order: &CaptureOrder) -> Result<(Hold, Captured), Error> {
        let facts = self.team_facts(order.team_id).await?;
        let hold = self.hold(order.team_id, order.hold_id).await?;
        let Some(app_id) = order.app_id.or(hold.app_id) else {
            let why = "must name the app, since the hold names none";
            return Err(refuse(Code::InvalidArgument, reason::REQUEST_INVALID, "app_id", why));
        };
        let capture = Capture {
            hold_id: order.hold_id,
            facts,
            team_id: order.team_id,
            app_id,
            client_id: order.client_id.clone(),
            meter: order.meter.clone(),
            quantity: order.quantity,
            failed: order.failed,
            last: order.last,
        };
        let mut captured = self.poster().capture(&capture).await?;
        let Captured::Charged { tx, charge_id, amount, before, books, at, .. } = &mut captured else {
            return Err(capture_refusal(&captured, order));
        };
        let after = holds::read(connection(tx), order.team_id, Some(order.hold_id), None, 1).await?.pop();
        let after = after.ok_or_else(|| Error::Broken("a hold is not there".to_owned()))?;
        if audited::by_known_operator() {
            let [was, is] = books.each_ref().map(|books| vec![audited::books(books)]);
            let line = audit::Line {
                action: "hold.capture",
                subject: order.hold_id.to_string(),
                detail: serde_json::json!({
                    "app": app_id.to_string(), "charge": charge_id.to_string(), "micros": *amount,
                }),
                before: Some(audited::teams_with_hold(was, Some(before))),
                after: audited::teams_with_hold(is, Some(&after)),
            };
            audit::note_in_tx(connection(tx), *at, line).await?;
        }
        Ok((after, captured))
    }

    /// One hold, whatever became of it.
    pub(crate) async fn hold(&self, team: TeamId, hold_id: HoldId) -> Result<Hold, Error> {
        let mut reader = self.pool.read().await?;
        let hold = holds::read(&mut reader, team, Some(hold_id), None, 1).await?.pop();
        hold.ok_or_else(|| hold_refusal(&HoldError::Unknown(hold_id)))
    }

    /// Holds of a team that are not ended, by id after `after`.
    pub(crate) async fn holds(
        &self,
        team: TeamId,
        after: Option<HoldId>,
        limit: i64,
    ) -> Result<Vec<Hold>, Error> {
        let mut reader = self.pool.read().await?;
        holds::read(&mut reader, team, None, after, limit).await
    }
}

fn over(hold_id: HoldId, hold: Option<Hold>) -> Error {
    let ended = hold.and_then(|hold| hold.ended);
    hold_refusal(&match ended {
        Some((at, end)) => HoldError::Over { hold_id, at, end },
        None => HoldError::Unknown(hold_id),
    })
}

fn hold_refusal(error: &HoldError) -> Error {
    let (code, reason, field) = match error {
        HoldError::NotPositive(_) => (Code::InvalidArgument, reason::REQUEST_INVALID, "micros"),
        HoldError::LeastOutOfRange { .. } => {
            (Code::InvalidArgument, reason::REQUEST_INVALID, "at_least_micros")
        }
        HoldError::Insufficient { .. } => (Code::FailedPrecondition, reason::HOLD_INSUFFICIENT, "micros"),
        HoldError::TooEarly { .. } | HoldError::TooLate { .. } => {
            (Code::InvalidArgument, reason::HOLD_TIME_OUT_OF_RANGE, "lasts_ms")
        }
        HoldError::Unknown(_) => (Code::NotFound, reason::HOLD_UNKNOWN, "hold_id"),
        HoldError::Over { .. } => (Code::FailedPrecondition, reason::HOLD_OVER, "hold_id"),
    };
    refuse(code, reason, field, error)
}

fn capture_refusal(captured: &Captured, order: &CaptureOrder) -> Error {
    let hold_id = order.hold_id;
    match captured {
        Captured::Charged { .. } => Error::Broken("a capture was charged and refused".to_owned()),
        Captured::HoldUnknown => hold_refusal(&HoldError::Unknown(hold_id)),
        Captured::HoldOver(at, end) => hold_refusal(&HoldError::Over { hold_id, at: *at, end: *end }),
        Captured::OtherApp => {
            let why = "the hold is for another app";
            refuse(Code::FailedPrecondition, reason::HOLD_OF_OTHER_APP, "app_id", why)
        }
        Captured::MeterUnfit => {
            let why = format!("there is no meter {} that sums or counts", order.meter);
            refuse(Code::InvalidArgument, reason::METER_UNKNOWN, "meter", why)
        }
        Captured::Overflow => {
            let why = "the sums of the team would not fit";
            refuse(Code::FailedPrecondition, reason::BALANCE_OVERFLOW, "quantity", why)
        }
    }
}

/// What a hold is at an instant, whether or not any job ended it.
pub(crate) fn end_at(hold: &Hold, now: Timestamp) -> Option<(Timestamp, HoldEnd)> {
    hold.ended.or_else(|| (hold.expires_at <= now).then_some((hold.expires_at, HoldEnd::TimedOut)))
}
