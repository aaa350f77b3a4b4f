//! `PostingService`.

use std::{collections::BTreeMap, sync::Arc};

use drawdown_proto::{
    ledger::v1::{
        self, ListPostingsRequest, ListPostingsResponse, posting::Fact,
        posting_service_server::PostingService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::{Code, Refusal, page, refusal::Violations};
use drawdown_types::{AccountId, AppId, ChargeId, PriceId, TeamId};
use tonic::{Request, Response, Status};

use super::{decode::parsed, encode, status};
use crate::{
    error::Error,
    postings::{Place, Posting, PostingQuestion, Told},
    reason,
    service::Ledger,
};

const PAGE_ROWS_DEFAULT: u32 = 1000;
/// The name of the list in a cursor's seal.
const LIST: &str = "postings";

/// Whose they are, and the place.
type Body = (AccountId, Option<TeamId>, Place);

/// `PostingService` over a ledger.
#[derive(Clone)]
pub struct Postings(Arc<Ledger>);

/// Whose postings.
#[derive(Clone, Copy, Debug)]
struct Whose {
    account: AccountId,
    team: Option<TeamId>,
}

impl Postings {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    async fn list(&self, request: &ListPostingsRequest) -> Result<ListPostingsResponse, Error> {
        let whose = whose(request)?;
        if let Some(team) = whose.team {
            self.0.check_team_of(team, whose.account).await?;
        }
        let after = self.place("cursor", whose, &request.cursor).await?;
        let until = self.place("until", whose, &request.until).await?;
        if request.new_only {
            let cursor = seal(whose, self.0.last_place(whose.account).await?);
            return Ok(ListPostingsResponse { postings: Vec::new(), cursor, more: false });
        }
        let Whose { account, team } = whose;
        let asked = PostingQuestion { account, team, after: after.unwrap_or_default(), until };
        let rows = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max);
        let page = self.0.postings(&asked, usize::try_from(rows).unwrap_or(usize::MAX)).await?;
        let encoded = page.postings.into_iter().map(|(team, posting)| posting_of(account, team, posting));
        Ok(ListPostingsResponse {
            postings: encoded.collect::<Result<_, _>>()?,
            cursor: seal(whose, page.next),
            more: page.more,
        })
    }

    /// The place of a cursor; none for the empty one.
    async fn place(&self, field: &'static str, whose: Whose, token: &str) -> Result<Option<Place>, Error> {
        let body: Option<Body> = page::decode(LIST, token).map_err(|refusal| {
            Refusal::new(refusal.code, refusal.reason, refusal.message)
                .violation(field, "must be a cursor of an answer before, or empty")
        })?;
        let Some((account, team, place)) = body else { return Ok(None) };
        let foreign = |why: &str| {
            let what = "the cursor does not belong here";
            Refusal::new(Code::InvalidArgument, reason::CURSOR_FOREIGN, what).violation(field, why)
        };
        if (account, team) != (whose.account, whose.team) {
            return Err(foreign("was given out for another account or team").into());
        }
        if !self.0.has_place(account, place).await? {
            return Err(foreign("is of another installation, or the database was set back since").into());
        }
        Ok(Some(place))
    }
}

#[tonic::async_trait]
impl PostingService for Postings {
    async fn list_postings(
        &self,
        request: Request<ListPostingsRequest>,
    ) -> Result<Response<ListPostingsResponse>, Status> {
        let listed = self.list(request.get_ref()).await;
        listed.map(Response::new).map_err(|error| status::of(error, &self.0.metrics))
    }
}

fn whose(request: &ListPostingsRequest) -> Result<Whose, Refusal> {
    let mut v = Violations::new();
    let account = parsed(&mut v, "account_id", &request.account_id);
    let team = match request.team_id.as_str() {
        "" => None,
        team => parsed(&mut v, "team_id", team),
    };
    if request.new_only {
        for (field, cursor) in [("cursor", &request.cursor), ("until", &request.until)] {
            if !cursor.is_empty() {
                v.push(field, "must be empty beside new_only");
            }
        }
    }
    v.finish(reason::REQUEST_INVALID, account.map(|account| Whose { account, team }))
}

fn seal(whose: Whose, place: Place) -> String {
    page::encode::<Body>(LIST, &(whose.account, whose.team, place))
}

fn posting_of(account: AccountId, team: TeamId, posting: Posting) -> Result<v1::Posting, Error> {
    let fact = match posting {
        Posting::Charge(told) => Fact::Charge(charge_of(team, *told)?),
        Posting::Row(row) => Fact::Row(encode::journal_row(team, row)),
    };
    Ok(v1::Posting { account_id: account.to_string(), team_id: team.to_string(), fact: Some(fact) })
}

fn charge_of(team: TeamId, told: Told) -> Result<v1::PostedCharge, Error> {
    let Told { charge, rows, units } = told;
    let dimensions: Result<BTreeMap<String, String>, _> = serde_json::from_str(&charge.dimensions);
    let dimensions = dimensions.map_err(|e| Error::stored("dimensions of a charge")(e.into()))?;
    // By name and not as a map, whose order would be another one each time.
    let dimension = |(name, value)| v1::DimensionValue { name, value };
    Ok(v1::PostedCharge {
        charge_id: ChargeId::from_uuid(charge.charge_id).to_string(),
        seq: charge.seq,
        app_id: AppId::from_uuid(charge.app_id).to_string(),
        client_id: charge.client_id,
        meter: charge.meter,
        failed: charge.failed,
        dimensions: dimensions.into_iter().map(dimension).collect(),
        window_start: Some(timestamp_to_proto(charge.window_start.0)),
        posted_at: Some(timestamp_to_proto(charge.posted_at.0)),
        events: charge.events,
        quantity: charge.quantity,
        charged_units: units,
        amount_micros: charge.amount_micros,
        charged_micros: charge.amount_micros.saturating_sub(charge.uncharged_micros),
        uncharged_micros: charge.uncharged_micros,
        price_id: charge.price_id.map(|id| PriceId::from_uuid(id).to_string()).unwrap_or_default(),
        zero_rated: charge.zero_rated.unwrap_or_default(),
        corrects: charge.corrects.map(|id| ChargeId::from_uuid(id).to_string()).unwrap_or_default(),
        rows: rows.into_iter().map(|row| encode::journal_row(team, row)).collect(),
    })
}
