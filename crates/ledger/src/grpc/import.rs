//! `ImportService`.

use std::sync::Arc;

use drawdown_ledger_core::JournalRow;
use drawdown_proto::{
    ledger::v1::{self, ImportTeamsRequest, ImportTeamsResponse, import_service_server::ImportService},
    scalar::timestamp_to_proto,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode_import, encode, status};
use crate::{
    error::Error,
    imports::ImportedTeam,
    service::{Ledger, Once},
    store::idempotency::RequestKey,
};

/// `ImportService` over a ledger.
#[derive(Clone)]
pub struct Imports(Arc<Ledger>);

impl Imports {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn import(&self, request: ImportTeamsRequest) -> Result<ImportTeamsResponse, Error> {
        let order = decode_import::import(&request, self.0.limits.import)?;
        if request.validate_only {
            let (tx, teams) = self.0.import(&order).await?;
            tx.rollback().await?;
            return Ok(response(&teams, false));
        }
        let key = RequestKey::new("ImportTeams", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let (tx, teams) = self.0.import(&order).await?;
        self.0.commit_once(tx, key, response(&teams, true), self.0.clock.now()).await
    }
}

#[tonic::async_trait]
impl ImportService for Imports {
    async fn import_teams(
        &self,
        request: Request<ImportTeamsRequest>,
    ) -> Result<Response<ImportTeamsResponse>, Status> {
        let answer = self.import(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| status::of(error, &self.0.metrics))
    }
}

fn response(teams: &[ImportedTeam], written: bool) -> ImportTeamsResponse {
    let team = |team: &ImportedTeam| v1::ImportedTeam {
        team_id: team.balance.row.team_id.to_string(),
        lots: team.lots.iter().map(encode::lot).collect(),
        rows: team.rows.iter().map(row).collect(),
        balance: Some(encode::balance(&team.balance)),
    };
    ImportTeamsResponse { teams: teams.iter().map(team).collect(), written }
}

fn row(row: &JournalRow) -> v1::JournalRow {
    let text = |id: Option<&dyn ToString>| id.map(ToString::to_string).unwrap_or_default();
    let debt = |end: fn(&drawdown_ledger_core::DebtInterval) -> i64| row.debt.as_ref().map_or(0, end);
    v1::JournalRow {
        team_id: row.team_id.to_string(),
        seq: row.seq,
        kind: row.kind.as_str().to_owned(),
        debit_book: row.debit.as_str().to_owned(),
        credit_book: row.credit.as_str().to_owned(),
        amount_micros: row.amount.as_micros(),
        lot_id: text(row.lot_id.as_ref().map(|id| id as &dyn ToString)),
        charge_id: text(row.charge_id.as_ref().map(|id| id as &dyn ToString)),
        debt_from_micros: debt(|debt| debt.from.as_micros()),
        debt_to_micros: debt(|debt| debt.to.as_micros()),
        posted_at: Some(timestamp_to_proto(row.posted_at)),
        effective_at: Some(timestamp_to_proto(row.effective_at)),
        hold_id: text(row.hold_id.as_ref().map(|id| id as &dyn ToString)),
        reverses: row.reverses.unwrap_or_default(),
    }
}
