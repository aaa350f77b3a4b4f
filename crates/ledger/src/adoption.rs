//! Usage of an app from before its first team is charged to that team (D49).
//!
//! An adoption is registered once, by who assigns the app; the work is a job's ([`crate::jobs::adopt`]), so it
//! survives a crash of either side, and usage of an earlier window that arrives later goes the same way. Each
//! chunk is a transaction like any other decision about unattributed usage: the team is locked, its lines are
//! charged in order of window at the prices and lots of their windows, whatever their age, and decided.

use drawdown_service::Code;
use drawdown_types::{AccountId, AppId, TeamId, Timestamp};
use sqlx::{Postgres, Transaction};

use crate::{
    directory::TeamFacts,
    error::Error,
    reason,
    review::{Charged, decide},
    service::{Ledger, connection},
    store::{
        adoption::{self, Adoption, Place, Registered},
        audit, catalog,
        review::Verdict,
    },
    tokens::{check_account, refuse},
};

/// Who decides, where nobody has to.
const BY: &str = "adoption";
const REASON: &str = "the app got its first team";

/// An app that got its first team, as decoded.
#[derive(Clone, Debug)]
pub(crate) struct AdoptionOrder {
    pub(crate) account_id: AccountId,
    pub(crate) team_id: TeamId,
    pub(crate) app_id: AppId,
    pub(crate) clients: Vec<String>,
    /// Since when there is that account.
    pub(crate) account_since: Timestamp,
    /// The edge from which the app has the team.
    pub(crate) assigned_from: Timestamp,
    pub(crate) request_id: String,
}

/// What a chunk came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    /// Lines that were charged.
    pub(crate) charged: usize,
    /// Lines that stay unattributed.
    pub(crate) left: usize,
    /// Where the next chunk goes on; nothing where this was the last.
    pub(crate) next: Option<Place>,
}

// === impl Ledger ===

impl Ledger {
    /// Registers the adoption of an app's usage, or more client ids of it.
    pub(crate) async fn adopt(
        &self,
        order: &AdoptionOrder,
    ) -> Result<(Transaction<'static, Postgres>, Adoption), Error> {
        check_account(self.team_facts(order.team_id).await?.account_id, order.account_id)?;
        let mut tx = self.begin().await?;
        let at = connection(&mut tx);
        catalog::hold_in_tx(at).await?;
        let now = self.clock.now();
        let wanted = self.adoption_of(order);
        let known = adoption::find_in_tx(at, order.app_id).await?;
        let same = |known: &Adoption| {
            let of = |a: &Adoption| (a.account_id, a.team_id, a.windows_to);
            of(known) == of(&wanted)
        };
        if known.as_ref().is_some_and(|known| !same(known)) {
            let why = "usage of the app was adopted by another team, or from another edge on";
            return Err(refuse(Code::FailedPrecondition, reason::APP_ADOPTED, "app_id", why));
        }
        let shows = |adopted: &Adoption| {
            serde_json::json!({ "adoption": {
                "app": adopted.app_id.to_string(), "team": adopted.team_id.to_string(),
                "from": adopted.windows_from.to_string(), "to": adopted.windows_to.to_string(),
            } })
        };
        let before = known.as_ref().map(shows);
        let adopted = known.unwrap_or(wanted);
        if adoption::register_in_tx(at, &adopted, &order.clients, now).await? == Registered::ClientTaken {
            let why = "one of them belongs to another app";
            return Err(refuse(Code::FailedPrecondition, reason::CLIENT_OF_OTHER_APP, "client_ids", why));
        }
        let line = audit::Line {
            action: "adoption.register",
            subject: adopted.app_id.to_string(),
            detail: serde_json::json!({ "clients": order.clients }),
            before,
            after: shows(&adopted),
        };
        audit::note_in_tx(at, now, line).await?;
        Ok((tx, adopted))
    }

    /// Usage since the account existed, and no older than the setting; a window in which the account was
    /// opened is its own.
    fn adoption_of(&self, order: &AdoptionOrder) -> Adoption {
        let size = self.settings.window_size;
        let oldest = order.assigned_from.checked_sub(self.limits.adoption_age).unwrap_or(Timestamp::MIN);
        let from = size.floor(order.account_since).max(size.ceil(oldest));
        Adoption {
            account_id: order.account_id,
            app_id: order.app_id,
            team_id: order.team_id,
            windows_from: from.min(order.assigned_from),
            windows_to: order.assigned_from,
            request_id: order.request_id.clone(),
        }
    }

    /// Adopts the lines after `place`, at most so many, in one transaction.
    pub(crate) async fn adopt_chunk(
        &self,
        adopted: &Adoption,
        facts: &TeamFacts,
        place: Option<&Place>,
        lines_max: u32,
    ) -> Result<Chunk, Error> {
        let Adoption { account_id, team_id, app_id, .. } = *adopted;
        let to = Charged { account_id, team_id, app_id };
        let mut direct = self.poster().begin_direct(account_id, team_id).await?;
        let clients = adoption::clients_in_tx(&mut direct.tx, adopted).await?;
        let names: Vec<String> = clients.iter().map(|(client, _)| client.clone()).collect();
        let lines = adoption::lines_in_tx(&mut direct.tx, adopted, &names, place, lines_max.into()).await?;
        let mut chunk = Chunk::default();
        if !lines.is_empty() {
            let (sorted, at) = self.charge_entries(&mut direct, &lines, &to, facts).await?;
            let request_id = &adopted.request_id;
            let verdict = Verdict { kind: "adopted", at, by: BY, reason: REASON, request_id };
            decide(&mut direct.tx, &verdict, &sorted.decided(&to)).await?;
            let line = sorted.line("adoption.charge", &to, (BY, REASON));
            audit::note_in_tx(connection(&mut direct.tx), at, line).await?;
            (chunk.charged, chunk.left) = (sorted.charged.len(), sorted.left.len());
        }
        let full = u32::try_from(lines.len()).unwrap_or(u32::MAX) >= lines_max;
        chunk.next = lines.last().filter(|_| full).map(|last| Place {
            window: last.window,
            meter: last.meter.to_string(),
            client_id: last.client_id.to_string(),
            entry: last.entry,
        });
        if chunk.next.is_none() {
            adoption::looked_in_tx(connection(&mut direct.tx), adopted, &clients).await?;
        }
        direct.tx.commit().await?;
        self.fresh.notify_one();
        Ok(chunk)
    }
}
