//! Handing an app to another owner: invite → accept → choose team → confirm (D26).
//!
//! One transfer of an app is open at a time, and it expires as a whole. The giving side invites and may withdraw, the
//! person invited accepts, chooses, confirms, and may decline at any of these. Both sides have to be at full access
//! when it is confirmed: not suspended, out of trial, at a balance of zero or more. What is known here (suspension,
//! trial) is looked at in every step, so that nobody walks a way that is closed; the balance is the ledger's and asked
//! for once, at the confirmation. The app gets its team and its owner at the first edge that a change may take (D51),
//! so use before it stays where it was; nothing else moves.

use drawdown_types::{AccountId, TeamId, Timestamp, UserId};

use super::{Actor, Standing};
use crate::{Change, History, Rules, TrialTerms};

/// How far an open or closed transfer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Somebody is invited.
    Invited,
    /// They accepted.
    Accepted,
    /// They chose a team.
    TeamChosen,
    /// They confirmed: it is done.
    Confirmed,
    /// The giving side took it back.
    Withdrawn,
    /// The person invited does not want it.
    Declined,
    /// Nobody did anything in time.
    Expired,
}

/// What is known of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferState {
    /// How far it came; open ones past their time are not told apart here.
    pub stage: Stage,
    /// Who is invited.
    pub to: UserId,
    /// When it expires, where it is open.
    pub expires_at: Timestamp,
    /// The team chosen.
    pub team_id: Option<TeamId>,
    /// The edge at which a confirmed one takes effect.
    pub effective_from: Option<Timestamp>,
}

/// Which side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the app is.
    Giving,
    /// Where it goes.
    Receiving,
}

/// What is known of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// The account.
    pub account_id: AccountId,
    /// The team; an app may be without, and is not transferred then.
    pub team_id: Option<TeamId>,
    /// Account or team are suspended.
    pub suspended: bool,
    /// What decides about the trial of the account.
    pub trial: TrialTerms,
    /// The cell of the account.
    pub cell: u8,
    /// The ledger of that cell can be asked.
    pub ledger_known: bool,
}

/// What a person does to an open transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferAct {
    /// The person invited accepts.
    Accept,
    /// They choose a team.
    Choose,
    /// They confirm.
    Confirm,
    /// The giving side takes it back.
    Withdraw,
    /// The person invited does not want it.
    Decline,
}

/// Who acts, and what the act needs to know of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acting {
    /// Who.
    pub actor: Actor,
    /// They own the app, manage its account's contract, or are an admin of its team.
    pub for_giving_side: bool,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    /// The actor has no say in it.
    #[error("{0} may not do this")]
    NotPermitted(UserId),
    /// Another one is open.
    #[error("another transfer of the app is open until {until}")]
    Open {
        /// When it expires.
        until: Timestamp,
    },
    /// The person invited owns the app.
    #[error("{0} owns the app")]
    OwnsApp(UserId),
    /// It is over.
    #[error("the transfer is over: {0:?}")]
    Over(Stage),
    /// The act does not follow what was done so far.
    #[error("the transfer came as far as {0:?}")]
    OutOfOrder(Stage),
    /// The app is assigned to the team chosen.
    #[error("the app is assigned to this team")]
    SameTeam,
    /// The person invited could not use the team's tokens (D27).
    #[error("{0} is no admin of the team and has no product assignment of it")]
    NoProduct(UserId),
    /// The app has no team: what it used is nobody's yet (D49), and would become the new owner's.
    #[error("the app has no team")]
    NoTeam,
    /// A side is suspended.
    #[error("the {0:?} side is suspended")]
    Suspended(Side),
    /// A side is not out of its trial.
    #[error("the {0:?} side is not out of its trial")]
    InTrial(Side),
    /// A side is below zero.
    #[error("the balance of the {0:?} side is below zero")]
    BelowZero(Side),
    /// The ledger of a side can not be asked for its balance.
    #[error("the {0:?} side lives in cell {1}, whose ledger is not known here")]
    OtherCell(Side, u8),
    /// A change of the app begins at or after the edge.
    #[error("the app has a change that begins at {begins_at}, not before the edge {edge}")]
    Overlap {
        /// The edge of the transfer.
        edge: Timestamp,
        /// Where the other change begins.
        begins_at: Timestamp,
    },
}

/// A new invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// When it expires.
    pub expires_at: Timestamp,
    /// One that expired has to be closed first.
    pub closes_expired: bool,
}

/// What to do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferPlan {
    /// Nothing: it was done before.
    Unchanged,
    /// Write it.
    Go,
}

/// What to do with a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfirmPlan {
    /// Nothing: it is confirmed, from this edge on.
    Unchanged {
        /// The edge.
        from: Timestamp,
    },
    /// Ask for these balances, each the ledger of the cell beside it, then plan again.
    AskBalances(Vec<(u8, TeamId)>),
    /// The app changes its team and its owner at this edge.
    Transfer {
        /// The edge.
        from: Timestamp,
    },
}

/// What a confirmation needs to know, read under the locks of both accounts and the app.
#[derive(Clone, Copy, Debug)]
pub struct ConfirmFacts<'a> {
    /// The present instant.
    pub now: Timestamp,
    /// The transfer.
    pub transfer: TransferState,
    /// Who acts.
    pub acting: Acting,
    /// What the person invited is to the team chosen.
    pub standing: Standing,
    /// Where the app is.
    pub giving: Party,
    /// Where it goes.
    pub receiving: Party,
    /// The teams of the app.
    pub teams: &'a History<TeamId>,
    /// Balances in micro-tokens that the ledger told.
    pub balances: &'a [(TeamId, i64)],
}

// === impl Stage ===

impl Stage {
    /// Something can still be done.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Invited | Self::Accepted | Self::TeamChosen)
    }
}

// === impl TransferState ===

impl TransferState {
    /// How far it came at `now`, with the expiry.
    #[must_use]
    pub fn stage_at(&self, now: Timestamp) -> Stage {
        if self.stage.is_open() && self.expires_at <= now { Stage::Expired } else { self.stage }
    }
}

// === impl Party ===

impl Party {
    /// What can be known of full access without the ledger.
    fn check(&self, side: Side, now: Timestamp) -> Result<(), TransferRefusal> {
        if self.suspended {
            return Err(TransferRefusal::Suspended(side));
        }
        if !self.trial.is_over_at(now) {
            return Err(TransferRefusal::InTrial(side));
        }
        if self.team_id.is_none() {
            return Err(TransferRefusal::NoTeam);
        }
        if !self.ledger_known {
            return Err(TransferRefusal::OtherCell(side, self.cell));
        }
        Ok(())
    }
}

impl Acting {
    /// Refuses people without a say for the giving side.
    ///
    /// # Errors
    /// [`TransferRefusal::NotPermitted`].
    pub const fn must_be_giving(&self) -> Result<(), TransferRefusal> {
        match self.actor {
            Actor::User(user_id) if !self.for_giving_side => Err(TransferRefusal::NotPermitted(user_id)),
            Actor::User(_) | Actor::Operator => Ok(()),
        }
    }

    fn must_be(&self, invited: UserId) -> Result<(), TransferRefusal> {
        match self.actor {
            Actor::User(user_id) if user_id != invited => Err(TransferRefusal::NotPermitted(user_id)),
            Actor::User(_) | Actor::Operator => Ok(()),
        }
    }
}

/// Plans an invitation of `to`, where `open` is the transfer of the app that nobody closed.
///
/// # Errors
/// [`TransferRefusal`].
pub fn plan_invitation(
    now: Timestamp,
    acting: Acting,
    (owner, to): (Option<UserId>, UserId),
    open: Option<TransferState>,
    giving: Party,
    rules: &Rules,
) -> Result<Invitation, TransferRefusal> {
    acting.must_be_giving()?;
    if owner == Some(to) {
        return Err(TransferRefusal::OwnsApp(to));
    }
    if let Some(open) = open.filter(|open| open.stage_at(now).is_open()) {
        return Err(TransferRefusal::Open { until: open.expires_at });
    }
    giving.check(Side::Giving, now)?;
    let expires_at = now.checked_add(rules.invitation).unwrap_or(Timestamp::MAX);
    Ok(Invitation { expires_at, closes_expired: open.is_some() })
}

/// Plans that somebody accepts, withdraws or declines. A step that was done before changes nothing.
///
/// # Errors
/// [`TransferRefusal`].
pub fn plan_transfer_step(
    now: Timestamp,
    transfer: TransferState,
    act: TransferAct,
    acting: Acting,
    giving: Party,
) -> Result<TransferPlan, TransferRefusal> {
    match act {
        TransferAct::Withdraw => acting.must_be_giving()?,
        TransferAct::Accept | TransferAct::Choose | TransferAct::Confirm | TransferAct::Decline => {
            acting.must_be(transfer.to)?;
        }
    }
    let stage = transfer.stage_at(now);
    match (act, stage) {
        (TransferAct::Withdraw, Stage::Withdrawn)
        | (TransferAct::Decline, Stage::Declined)
        | (TransferAct::Accept, Stage::Accepted | Stage::TeamChosen) => Ok(TransferPlan::Unchanged),
        (_, Stage::Confirmed | Stage::Withdrawn | Stage::Declined | Stage::Expired) => {
            Err(TransferRefusal::Over(stage))
        }
        (TransferAct::Withdraw | TransferAct::Decline, _) => Ok(TransferPlan::Go),
        (TransferAct::Accept, Stage::Invited)
        | (TransferAct::Choose, Stage::Accepted | Stage::TeamChosen)
        | (TransferAct::Confirm, Stage::TeamChosen) => {
            giving.check(Side::Giving, now)?;
            Ok(TransferPlan::Go)
        }
        (TransferAct::Choose | TransferAct::Confirm, Stage::Invited)
        | (TransferAct::Confirm, Stage::Accepted) => Err(TransferRefusal::OutOfOrder(stage)),
    }
}

/// Plans that the person invited chooses the team of `receiving`.
///
/// # Errors
/// [`TransferRefusal`].
pub fn plan_team_choice(
    now: Timestamp,
    transfer: TransferState,
    acting: Acting,
    standing: Standing,
    (giving, receiving): (Party, Party),
) -> Result<TransferPlan, TransferRefusal> {
    plan_transfer_step(now, transfer, TransferAct::Choose, acting, giving)?;
    check_receiving(now, transfer.to, standing, giving, receiving)?;
    let same = transfer.stage == Stage::TeamChosen && transfer.team_id == receiving.team_id;
    Ok(if same { TransferPlan::Unchanged } else { TransferPlan::Go })
}

fn check_receiving(
    now: Timestamp,
    invited: UserId,
    standing: Standing,
    giving: Party,
    receiving: Party,
) -> Result<(), TransferRefusal> {
    if giving.team_id == receiving.team_id {
        return Err(TransferRefusal::SameTeam);
    }
    if !standing.may_use_tokens() {
        return Err(TransferRefusal::NoProduct(invited));
    }
    receiving.check(Side::Receiving, now)
}

/// Plans the confirmation: every guard again, the balances of both teams, and the edge.
///
/// # Errors
/// [`TransferRefusal`].
pub fn plan_confirmation(facts: &ConfirmFacts<'_>, rules: &Rules) -> Result<ConfirmPlan, TransferRefusal> {
    let ConfirmFacts { now, transfer, acting, giving, receiving, .. } = *facts;
    if let (Stage::Confirmed, Some(from)) = (transfer.stage, transfer.effective_from) {
        acting.must_be(transfer.to)?;
        return Ok(ConfirmPlan::Unchanged { from });
    }
    plan_transfer_step(now, transfer, TransferAct::Confirm, acting, giving)?;
    check_receiving(now, transfer.to, facts.standing, giving, receiving)?;
    let edge = rules.first_edge_after(now);
    if let Some(Change { from, .. }) = facts.teams.last().filter(|last| last.from >= edge) {
        return Err(TransferRefusal::Overlap { edge, begins_at: *from });
    }
    let sides = [(Side::Giving, giving), (Side::Receiving, receiving)];
    let told =
        |team_id: TeamId| facts.balances.iter().find(|(of, _)| *of == team_id).map(|(_, balance)| *balance);
    let unknown = |(_, party): &(Side, Party)| {
        let team_id = party.team_id.filter(|team_id| told(*team_id).is_none());
        team_id.map(|team_id| (party.cell, team_id))
    };
    let unknown: Vec<(u8, TeamId)> = sides.iter().filter_map(unknown).collect();
    if !unknown.is_empty() {
        return Ok(ConfirmPlan::AskBalances(unknown));
    }
    let below = |(_, party): &&(Side, Party)| party.team_id.and_then(told).is_some_and(|balance| balance < 0);
    match sides.iter().find(below) {
        Some((side, _)) => Err(TransferRefusal::BelowZero(*side)),
        None => Ok(ConfirmPlan::Transfer { from: edge }),
    }
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
