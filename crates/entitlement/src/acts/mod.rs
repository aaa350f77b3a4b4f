//! Admin acts: each is one transaction that holds its effect, its line in the audit log and, under a
//! request id, its answer.
//!
//! Shape: claim the request id → lock and load → the core plans → write → audit → keep the answer →
//! commit. A plan that needs the ledger's word (D61) ends the transaction first: a call to another
//! service must not be made under row locks. The act then begins anew with the answer, and plans on
//! facts read again.
//!
//! Every instant is read from the clock after the locks are held: an act that waited for another one
//! is later than it.

mod accounts;
mod apps;
mod credentials;
mod existing;
mod history;
mod hubs;
mod import;
mod members;
mod parties;
mod people;
mod principals;
mod purchase;
mod revocation;
mod terms;
mod transfers;

use std::{future::Future, sync::Arc};

use drawdown_entitlement_core::{
    Rules,
    plan::{UsageAnswer, UsageQuestion},
};
use drawdown_service::identity::{self, Role};
use drawdown_types::{Clock, TeamId, Timestamp};
use prost::Message;

pub(crate) use accounts::{CreateAccount, CreateTeam};
pub(crate) use apps::{AssignApp, CreateApp};
pub(crate) use credentials::CreateCredential;
pub(crate) use history::{CancelScheduledChange, CorrectAssignment};
pub(crate) use hubs::{CreateHub, MoveApp};
pub(crate) use import::ImportAccounts;
pub(crate) use members::{AssignProduct, EndProduct, EndRole, Product};
pub(crate) use people::{CreateUser, SetRole};
pub(crate) use principals::{CreateKey, CreatePrincipal, EndPrincipal, RevokeKey, RotateKey};
pub(crate) use purchase::PreparePurchase;
pub(crate) use revocation::{RevokeCredential, RotateCredential};
pub(crate) use terms::{ChangeContract, EndTrial, LiftSuspension, Suspend};
pub(crate) use transfers::{
    AcceptTransfer, ChooseTransferTeam, ConfirmTransfer, DeclineTransfer, InviteTransfer, OnTransfer,
    RemoveEditor, WithdrawTransfer,
};

use crate::{
    Error, LedgerFacts, Limits, Pepper,
    error::Refused,
    ledger::CLIENT_IDS_MAX,
    memory::Memory,
    metrics::Metrics,
    store::{self, AuditEntry, Claim, RequestKey, Store, Tx},
};

/// One kind of admin act.
pub(crate) trait Act: Send + Sync {
    /// What its caller gets.
    type Reply: Message + Default + Clone;

    /// Its name on the wire, under which request ids are kept.
    const METHOD: &'static str;

    /// Locks, loads, plans and writes, in the transaction given.
    fn perform(
        &self,
        tx: &mut Tx,
        acts: &Acts,
        told: &Told,
    ) -> impl Future<Output = Result<Step<Self::Reply>, Error>> + Send;

    /// The answer that a retry gets.
    fn kept(reply: &Self::Reply) -> Self::Reply {
        reply.clone()
    }
}

/// What comes of one attempt.
pub(crate) enum Step<R> {
    /// All is written.
    Done {
        /// The answer.
        reply: R,
        /// The line for the audit log; none where nothing changed.
        entry: Option<AuditEntry>,
    },
    /// The ledger has to be asked first whether usage is settled.
    Ask(UsageQuestion),
    /// The ledger has to be asked first, of each list, whether usage of one of these client ids is settled in windows from
    /// the edge on.
    AskEach(Vec<(Vec<String>, Timestamp)>),
    /// The balances of these teams have to be asked for first, each of the ledger of the cell beside it.
    AskBalances(Vec<(u8, TeamId)>),
    /// All could be written, and nothing is: the answer of a dry run.
    Validated(R),
    /// Time passed over the edge that was planned: plan again.
    Again,
}

/// What the ledger told for an act, since the act began.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) usage: Option<UsageAnswer>,
    /// Of each list that was asked about.
    pub(crate) settled: Option<Vec<bool>>,
    /// In micro-tokens.
    pub(crate) balances: Vec<(TeamId, i64)>,
}

/// Refuses callers who do not run the platform. Callers without an identity are the local operator.
fn only_operator(what: &'static str, field: &'static str) -> Result<(), Refused> {
    if identity::current().roles.has(Role::Operator) {
        Ok(())
    } else {
        Err(Refused::OperatorNeeded { what, field })
    }
}

/// A past is entered by operators only (D61): who pays for it must not change what was used before.
fn only_operator_enters(past: bool, field: &'static str) -> Result<(), Refused> {
    if past { only_operator("enter a past", field) } else { Ok(()) }
}

/// What acts need.
#[derive(Clone)]
pub(crate) struct Acts {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    pub(crate) pepper: Pepper,
    pub(crate) ledger: Arc<dyn LedgerFacts>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) metrics: Metrics,
}

impl Acts {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether time passed so far that a change could not take effect at `edge` any more: writing takes time, and the
    /// edge has to be far enough from the commit, not from the plan (D51).
    pub(crate) fn came_too_near(&self, edge: Timestamp) -> bool {
        self.rules.first_edge_after(self.now()) > edge
    }

    /// Runs an act to its end.
    pub(crate) async fn run<A: Act>(&self, act: &A, key: &RequestKey) -> Result<A::Reply, Error> {
        let result = self.attempts(act, key).await;
        let outcome = match &result {
            Ok(_) => "done",
            Err(Error::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        self.metrics.acted(A::METHOD, outcome);
        if result.is_ok() {
            self.memory.catch_up_soon().await;
        }
        result
    }

    async fn attempts<A: Act>(&self, act: &A, key: &RequestKey) -> Result<A::Reply, Error> {
        let mut told = Told::default();
        for _ in 0..self.limits.act_attempts_max {
            let mut tx = self.store.begin().await?;
            match store::claim_in_tx(&mut tx, key, self.now()).await? {
                Claim::Ours => {}
                Claim::Reused => return Err(Refused::RequestIdReused.into()),
                Claim::Answered(kept) => {
                    return A::Reply::decode(kept.as_slice()).map_err(|error| Error::stored("answer", error));
                }
            }
            match act.perform(&mut tx, self, &told).await? {
                Step::Done { reply, entry } => {
                    if let Some(entry) = entry {
                        store::append_audit_in_tx(&mut tx, A::METHOD, &entry).await?;
                    }
                    store::keep_answer_in_tx(&mut tx, key, &A::kept(&reply).encode_to_vec()).await?;
                    tx.commit().await?;
                    return Ok(reply);
                }
                Step::Ask(question) => {
                    tx.rollback().await?;
                    told.usage = Some(UsageAnswer { question, settled: self.ask(question).await? });
                }
                Step::Validated(reply) => {
                    tx.rollback().await?;
                    return Ok(reply);
                }
                Step::AskEach(questions) => {
                    tx.rollback().await?;
                    let mut settled = Vec::with_capacity(questions.len());
                    for (client_ids, from) in questions {
                        settled.push(self.ask_all(client_ids, from).await?);
                    }
                    told.settled = Some(settled);
                }
                Step::AskBalances(teams) => {
                    tx.rollback().await?;
                    for (cell, team_id) in teams {
                        let balance = self.ledger.balance(cell, team_id).await;
                        let balance = balance.map_err(|status| Error::Ledger(Box::new(status)))?;
                        told.balances.push((team_id, balance));
                    }
                }
                Step::Again => tx.rollback().await?,
            }
        }
        Err(Error::Overtaken { attempts: self.limits.act_attempts_max })
    }

    /// Asks the ledger, a page of client ids at a time, until it says yes or there are no more.
    async fn ask(&self, question: UsageQuestion) -> Result<bool, Error> {
        let rows = i64::try_from(CLIENT_IDS_MAX).unwrap_or(i64::MAX);
        let mut after = String::new();
        loop {
            let page = self.store.client_ids(question.scope, &after, rows).await?;
            let Some(last) = page.last().cloned() else { return Ok(false) };
            let whole = page.len() == CLIENT_IDS_MAX;
            if self.ask_all(page, question.from).await? {
                return Ok(true);
            }
            if !whole {
                return Ok(false);
            }
            after = last;
        }
    }

    /// Asks the ledger about client ids that are known here, or not yet.
    async fn ask_all(&self, client_ids: Vec<String>, from: Timestamp) -> Result<bool, Error> {
        for page in client_ids.chunks(CLIENT_IDS_MAX) {
            let settled = self.ledger.has_settled(page.to_vec(), from).await;
            if settled.map_err(|status| Error::Ledger(Box::new(status)))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
