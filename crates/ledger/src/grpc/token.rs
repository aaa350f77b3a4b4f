//! `TokenService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        GetBalanceRequest, GetBalanceResponse, GrantTokensRequest, GrantTokensResponse, InvariantResult,
        ListChargesRequest, ListChargesResponse, ListJournalRequest, ListJournalResponse, ListLotsRequest,
        ListLotsResponse, ListUnattributedRequest, ListUnattributedResponse, PurchaseTokensRequest,
        PurchaseTokensResponse, VerifyLedgerRequest, VerifyLedgerResponse,
        token_service_server::TokenService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::page;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{decode, decode_report, decode_review, encode, encode_report, status};
use crate::{
    earlier::When,
    error::Error,
    service::{Ledger, Once},
    store::{idempotency::RequestKey, review},
    verify::{Scope, UNSEEN},
};

const PAGE_ROWS_DEFAULT: u32 = 1000;

/// `TokenService` over a ledger.
#[derive(Clone)]
pub struct Tokens(Arc<Ledger>);

impl Tokens {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    fn rows(&self, page_size: u32) -> i64 {
        page::size(page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max).into()
    }

    async fn purchase(&self, request: PurchaseTokensRequest) -> Result<PurchaseTokensResponse, Error> {
        let order = decode::purchase(&request, &self.0.settings)?;
        let key = RequestKey::new("PurchaseTokens", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let (tx, lot, order_id) = self.0.purchase(&order).await?;
                let lot = encode::lot(&lot);
                let granted = lot.granted_micros;
                let response = PurchaseTokensResponse { lot: Some(lot), order_id: order_id.to_string() };
                let response = self.0.commit_once(tx, key, response, self.0.clock.now()).await?;
                self.0.metrics.issued("purchase", granted);
                Ok(response)
            }
        }
    }

    async fn grant(&self, request: GrantTokensRequest) -> Result<GrantTokensResponse, Error> {
        let order = decode::grant(&request)?;
        let key = RequestKey::new("GrantTokens", &request.request_id, &request.encode_to_vec());
        match self.0.once(key).await? {
            Once::Answered(response) => Ok(response),
            Once::New(key) => {
                let (tx, lot) = self.0.grant(&order).await?;
                let response = GrantTokensResponse { lot: Some(encode::lot(&lot)) };
                let response = self.0.commit_once(tx, key, response, self.0.clock.now()).await?;
                self.0.metrics.issued("grant", request.micros);
                Ok(response)
            }
        }
    }

    async fn lots(&self, request: &ListLotsRequest) -> Result<ListLotsResponse, Error> {
        let (at, as_of) = (request.at.as_ref(), request.as_of.as_ref());
        let (of, when) = decode::of_then(&request.account_id, &request.team_id, at, as_of)?;
        match when {
            When::At(at) => {
                let (lots, at, reach) = self.0.lots(of, at).await?;
                let lots = lots.iter().map(encode::lot).collect();
                let (at, completeness) = (timestamp_to_proto(at), encode_report::completeness(&reach));
                Ok(ListLotsResponse { lots, at: Some(at), as_of: None, completeness: Some(completeness) })
            }
            When::Earlier(earlier) => {
                let then = self.0.books_then(of, earlier).await?;
                let lots = then.lots.iter().map(encode::lot_then).collect();
                let at = Some(timestamp_to_proto(then.balance.at));
                Ok(ListLotsResponse { lots, at, as_of: Some(encode::extent(&then)), completeness: None })
            }
        }
    }

    async fn balance(&self, request: &GetBalanceRequest) -> Result<GetBalanceResponse, Error> {
        let (at, as_of) = (request.at.as_ref(), request.as_of.as_ref());
        let (of, when) = decode::of_then(&request.account_id, &request.team_id, at, as_of)?;
        match when {
            When::At(at) => {
                let (view, reach) = self.0.balance(of, at).await?;
                let completeness = Some(encode_report::completeness(&reach));
                Ok(GetBalanceResponse { balance: Some(encode::balance(&view)), as_of: None, completeness })
            }
            When::Earlier(earlier) => {
                let then = self.0.books_then(of, earlier).await?;
                let balance = Some(encode::balance(&then.balance));
                Ok(GetBalanceResponse { balance, as_of: Some(encode::extent(&then)), completeness: None })
            }
        }
    }

    async fn charges(&self, request: &ListChargesRequest) -> Result<ListChargesResponse, Error> {
        let asked = decode_report::charge_list(request)?;
        // The whole question is the list's name: a token of another one leads nowhere here.
        let list = format!("charges/{}/{}", asked.of.team, serde_json::json!(asked.filter));
        let begin = match page::decode(&list, &request.page_token)? {
            Some(cursor) => {
                // The team may have been named with another account than on the page before.
                self.0.stored_team(asked.of).await?;
                cursor
            }
            None => self.0.charges_begin(&asked).await?,
        };
        let reach = self.0.charges_reach(&begin);
        let part = self.0.charges_part(&asked, begin, self.rows(request.page_size)).await?;
        Ok(ListChargesResponse {
            charges: encode_report::charges(asked.of.team, part.charges)?,
            next_page_token: part.next.map(|next| page::encode(&list, &next)).unwrap_or_default(),
            completeness: Some(encode_report::completeness(&reach)),
        })
    }

    async fn journal(&self, request: &ListJournalRequest) -> Result<ListJournalResponse, Error> {
        let asked = decode_report::journal_list(request)?;
        let list = format!("journal/{}", asked.name());
        let begin = match page::decode(&list, &request.page_token)? {
            Some(cursor) => {
                self.0.stored_team(asked.of).await?;
                cursor
            }
            None => self.0.journal_begin(&asked).await?,
        };
        let reach = self.0.journal_reach(&begin);
        let (read, next) = self.0.journal_part(&asked, begin, self.rows(request.page_size)).await?;
        Ok(ListJournalResponse {
            rows: read.into_iter().map(|row| encode::journal_row(asked.of.team, row)).collect(),
            next_page_token: next.map(|next| page::encode(&list, &next)).unwrap_or_default(),
            completeness: Some(encode_report::completeness(&reach)),
        })
    }

    async fn unattributed(
        &self,
        request: &ListUnattributedRequest,
    ) -> Result<ListUnattributedResponse, Error> {
        let filter = decode_review::filter(request)?;
        let list = format!("unattributed/{}", serde_json::json!(filter));
        let after: Option<i64> = page::decode(&list, &request.page_token)?;
        let rows = self.rows(request.page_size);
        let mut reader = self.0.pool.read().await?;
        let read = review::list(&mut reader, &filter, after.unwrap_or_default(), rows).await?;
        let next_page_token =
            read.last().filter(|_| is_full(read.len(), rows)).map(|last| page::encode(&list, &last.entry));
        let usage = read.into_iter().map(super::review::unattributed).collect::<Result<_, _>>()?;
        Ok(ListUnattributedResponse { usage, next_page_token: next_page_token.unwrap_or_default() })
    }

    async fn verify(&self, request: VerifyLedgerRequest) -> Result<VerifyLedgerResponse, Error> {
        let scope = if request.incremental { Scope::Incremental } else { Scope::Full };
        let verified = self.0.verify(scope).await?;
        let unseen = verified.since.map_or("", |_| UNSEEN).to_owned();
        let invariants = verified.verdicts.into_iter().map(|verdict| InvariantResult {
            name: verdict.name.to_owned(),
            statement: verdict.statement,
            violations: verdict.violations,
            examples: verdict.examples,
        });
        Ok(VerifyLedgerResponse {
            invariants: invariants.collect(),
            since: verified.since.unwrap_or_default(),
            point: verified.point.unwrap_or_default(),
            teams: verified.effort.teams,
            journal_rows: verified.effort.journal_rows,
            batches: verified.effort.batches,
            unseen,
        })
    }
}

/// A page that is not full is the last; after a full one there may be more.
fn is_full(read: usize, rows: i64) -> bool {
    i64::try_from(read).unwrap_or(i64::MAX) >= rows
}

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn purchase_tokens(
        &self,
        request: Request<PurchaseTokensRequest>,
    ) -> Result<Response<PurchaseTokensResponse>, Status> {
        self.purchase(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn grant_tokens(
        &self,
        request: Request<GrantTokensRequest>,
    ) -> Result<Response<GrantTokensResponse>, Status> {
        self.grant(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_lots(
        &self,
        request: Request<ListLotsRequest>,
    ) -> Result<Response<ListLotsResponse>, Status> {
        self.lots(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        self.balance(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_charges(
        &self,
        request: Request<ListChargesRequest>,
    ) -> Result<Response<ListChargesResponse>, Status> {
        self.charges(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_journal(
        &self,
        request: Request<ListJournalRequest>,
    ) -> Result<Response<ListJournalResponse>, Status> {
        self.journal(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_unattributed(
        &self,
        request: Request<ListUnattributedRequest>,
    ) -> Result<Response<ListUnattributedResponse>, Status> {
        self.unattributed(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }

    async fn verify_ledger(
        &self,
        request: Request<VerifyLedgerRequest>,
    ) -> Result<Response<VerifyLedgerResponse>, Status> {
        self.verify(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }
}
