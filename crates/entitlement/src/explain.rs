//! Why somebody pays: the chain of links at a window, each with its dates and who made it.
//!
//! Read in one snapshot beside the answer, so the two can not differ. The rule that picks a link is the one of
//! `drawdown-entitlement-core`: the histories here hold the makings at the same edges.

use drawdown_entitlement_core::{Change, History, Resolution};
use drawdown_types::{AccountId, AppId, ClientId, Timestamp, Window};

use crate::{
    Error,
    acts::Acts,
    store::{self, AccountRecord, CredentialLink, Lock, MadeRecord, TeamRow, Tx},
};

/// What a link of the chain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Credential,
    Owner,
    Team,
    Account,
    Contract,
    Trial,
}

/// One link of the chain.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    pub(crate) kind: LinkKind,
    pub(crate) subject: String,
    pub(crate) object: String,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
    pub(crate) made: Option<MadeRecord>,
    pub(crate) end: Option<MadeRecord>,
    pub(crate) voided_at: Option<Timestamp>,
}

/// The answer, and why.
#[derive(Debug)]
pub(crate) struct Explanation {
    pub(crate) resolution: Resolution,
    pub(crate) links: Vec<Explained>,
    pub(crate) voided: Vec<Explained>,
}

fn link(kind: LinkKind, subject: impl ToString, object: impl ToString) -> Explained {
    Explained {
        kind,
        subject: subject.to_string(),
        object: object.to_string(),
        from: None,
        to: None,
        made: None,
        end: None,
        voided_at: None,
    }
}

/// Explains who pays for a client id in a window.
pub(crate) async fn explain(acts: &Acts, client_id: &ClientId, window: Window) -> Result<Explanation, Error> {
    let mut tx = acts.store.snapshot().await?;
    let directory = store::directory_in_tx(&mut tx, &[client_id.to_string()]).await?;
    let resolution = directory.resolve(client_id, window, &acts.rules);
    let mut explanation = Explanation { resolution, links: Vec::new(), voided: Vec::new() };
    if let Some(credential) = store::credential_link_in_tx(&mut tx, client_id.as_str()).await? {
        chain(&mut tx, client_id, credential, window.start(), &mut explanation).await?;
    }
    tx.rollback().await?;
    Ok(explanation)
}

async fn chain(
    tx: &mut Tx,
    client_id: &ClientId,
    credential: CredentialLink,
    at: Timestamp,
    explanation: &mut Explanation,
) -> Result<(), Error> {
    let app_id = credential.app_id;
    let end = credential.end;
    explanation.links.push(Explained {
        from: Some(credential.known_from),
        to: end.as_ref().map(|(end, _)| end.unknown_from),
        made: Some(credential.made),
        end: end.map(|(_, made)| made),
        ..link(LinkKind::Credential, client_id, app_id)
    });
    if explanation.resolution == Resolution::UnknownClient {
        return Ok(());
    }
    explanation.links.extend(owner(tx, app_id, at).await?);
    let rows = store::team_rows_in_tx(tx, app_id).await?;
    let team = team_link(app_id, &rows, at)?;
    explanation.voided = voided(app_id, &rows, at);
    let Some((team, row)) = team else { return Ok(()) };
    let team_id = row.team_id;
    explanation.links.push(team);
    let Some(record) = store::team_in_tx(tx, team_id, Lock::No).await? else { return Ok(()) };
    explanation.links.push(Explained {
        from: Some(record.created_at),
        made: making(tx, team_id, &["CreateTeam", "PreparePurchase"], record.account_id).await?,
        ..link(LinkKind::Account, team_id, record.account_id)
    });
    let Some(account) = store::account_in_tx(tx, record.account_id, Lock::No).await? else { return Ok(()) };
    explanation.links.extend(contract(tx, &account, at).await?);
    if let Resolution::BilledTo(billed) = explanation.resolution
        && billed.in_trial
    {
        explanation.links.push(trial(tx, &account).await?);
    }
    Ok(())
}

/// Who made a team or an app: by an act of its own, else with all of its account by an import.
async fn making(
    tx: &mut Tx,
    subject: impl ToString,
    methods: &[&str],
    account_id: AccountId,
) -> Result<Option<MadeRecord>, Error> {
    match store::making_in_tx(tx, &subject.to_string(), methods).await? {
        Some(made) => Ok(Some(made)),
        None => store::making_in_tx(tx, &account_id.to_string(), &["ImportAccounts"]).await,
    }
}

async fn owner(tx: &mut Tx, app_id: AppId, at: Timestamp) -> Result<Option<Explained>, Error> {
    let Some(app) = store::app_in_tx(tx, app_id, Lock::No).await? else { return Ok(None) };
    let makings = store::owner_makings_in_tx(tx, app_id).await?;
    let account: AccountId = app.owner_at(at).account_id;
    let first_ends = app.later.links().next().map(|link| link.from);
    let explained = match (app.later.link_at(at), makings.at(at)) {
        (Some(later), made) => Explained {
            from: Some(later.from),
            to: later.to,
            made: made.cloned(),
            ..link(LinkKind::Owner, app_id, account)
        },
        (None, _) => Explained {
            to: first_ends,
            made: making(tx, app_id, &["CreateApp"], account).await?,
            ..link(LinkKind::Owner, app_id, account)
        },
    };
    Ok(Some(explained))
}

/// The assignment that holds at an edge.
fn team_link(app_id: AppId, rows: &[TeamRow], at: Timestamp) -> Result<Option<(Explained, TeamRow)>, Error> {
    let in_force = rows.iter().filter(|row| row.voided_at.is_none());
    let history = History::from_changes(in_force.map(|row| Change { from: row.from, value: row.clone() }));
    let history = history.map_err(|conflict| Error::stored("assignments", conflict))?;
    Ok(history.link_at(at).map(|found| {
        let row = found.value.clone();
        let explained = Explained {
            from: Some(found.from),
            to: found.to,
            made: Some(row.made.clone()),
            ..link(LinkKind::Team, app_id, row.team_id)
        };
        (explained, row)
    }))
}

/// Assignments that were corrected or taken back, and would have counted at an edge.
fn voided(app_id: AppId, rows: &[TeamRow], at: Timestamp) -> Vec<Explained> {
    let gone = rows.iter().filter(|row| row.voided_at.is_some() && row.from <= at);
    gone.map(|row| Explained {
        from: Some(row.from),
        made: Some(row.made.clone()),
        voided_at: row.voided_at,
        ..link(LinkKind::Team, app_id, row.team_id)
    })
    .collect()
}

async fn contract(tx: &mut Tx, account: &AccountRecord, at: Timestamp) -> Result<Option<Explained>, Error> {
    let makings = store::contract_makings_in_tx(tx, account.account_id).await?;
    let found = account.contract.link_at(at).or_else(|| account.contract.links().next());
    Ok(found.map(|found| Explained {
        from: Some(found.from),
        to: found.to,
        made: makings.at(found.from).cloned(),
        ..link(LinkKind::Contract, account.account_id, store::kind_text(*found.value))
    }))
}

async fn trial(tx: &mut Tx, account: &AccountRecord) -> Result<Explained, Error> {
    let subject = account.account_id.to_string();
    let ended_early = account.trial.trial.map(|trial| trial.ends_at) != account.trial.ends_at();
    let end = if ended_early {
        store::making_in_tx(tx, &subject, &["EndTrial", "ImportAccounts"]).await?
    } else {
        None
    };
    Ok(Explained {
        from: account.trial.trial.map(|trial| trial.started_at),
        to: account.trial.ends_at(),
        end,
        ..link(LinkKind::Trial, subject, "")
    })
}
