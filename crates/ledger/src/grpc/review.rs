//! `ReviewService`.

use std::sync::Arc;

use drawdown_proto::{
    ledger::v1::{
        self, AdoptUsageRequest, AdoptUsageResponse, ChargeUnattributedRequest, ChargeUnattributedResponse,
        DecisionKind, DismissUnattributedRequest, DismissUnattributedResponse, LeftEntry,
        ListLostRangesRequest, ListLostRangesResponse, ReviewDecision, review_service_server::ReviewService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::page;
use drawdown_types::{AccountId, AppId, ChargeId, TeamId};
use prost::Message as _;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{decode_review, encode, status};
use crate::{
    error::Error,
    review::{ChargedEntry, Sorted},
    service::{Ledger, Once},
    store::{
        idempotency::RequestKey,
        review::UnattributedRead,
        shards::{self, LostPlace, LostRead},
        write::zero_rated,
    },
};

const PAGE_ROWS_DEFAULT: u32 = 1000;

/// `ReviewService` over a ledger.
#[derive(Clone)]
pub struct Review(Arc<Ledger>);

/// Whether what was done stays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    DryRun,
    Real,
}

impl Mode {
    const fn of(validate_only: bool) -> Self {
        if validate_only { Self::DryRun } else { Self::Real }
    }
}

impl Review {
    /// Serves this ledger.
    #[must_use]
    pub const fn new(ledger: Arc<Ledger>) -> Self {
        Self(ledger)
    }

    fn failed(&self) -> impl Fn(Error) -> Status {
        |error| status::of(error, &self.0.metrics)
    }

    async fn charge(&self, request: ChargeUnattributedRequest) -> Result<ChargeUnattributedResponse, Error> {
        let (decision, to) = decode_review::charge(&request, self.0.limits.review_entries_max)?;
        let key = RequestKey::new("ChargeUnattributed", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let mode = Mode::of(request.validate_only);
        let (tx, sorted, at) = self.0.charge_unattributed(&decision, &to).await?;
        let response = ChargeUnattributedResponse {
            posted_at: Some(timestamp_to_proto(at)),
            amount_micros: sorted.amount_micros(),
            uncharged_micros: sorted.uncharged_micros(),
            left: left(&sorted),
            charged: sorted.charged.iter().map(|entry| charged(entry, mode)).collect(),
        };
        match mode {
            Mode::DryRun => {
                tx.rollback().await?;
                Ok(response)
            }
            Mode::Real => self.0.commit_once(tx, key, response, self.0.clock.now()).await,
        }
    }

    async fn dismiss(
        &self,
        request: DismissUnattributedRequest,
    ) -> Result<DismissUnattributedResponse, Error> {
        let decision = decode_review::dismiss(&request, self.0.limits.review_entries_max)?;
        let key = RequestKey::new("DismissUnattributed", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let (tx, at) = self.0.dismiss_unattributed(&decision).await?;
        let response = DismissUnattributedResponse {
            dismissed: i64::try_from(decision.entries.len()).unwrap_or(i64::MAX),
            decided_at: Some(timestamp_to_proto(at)),
        };
        match Mode::of(request.validate_only) {
            Mode::DryRun => {
                tx.rollback().await?;
                Ok(response)
            }
            Mode::Real => self.0.commit_once(tx, key, response, self.0.clock.now()).await,
        }
    }

    async fn adopt(&self, request: AdoptUsageRequest) -> Result<AdoptUsageResponse, Error> {
        let order = decode_review::adopt(&request, self.0.settings.window_size)?;
        let key = RequestKey::new("AdoptUsage", &request.request_id, &request.encode_to_vec());
        let key = match self.0.once(key).await? {
            Once::Answered(response) => return Ok(response),
            Once::New(key) => key,
        };
        let (tx, adopted) = self.0.adopt(&order).await?;
        let response = AdoptUsageResponse {
            windows_from: Some(timestamp_to_proto(adopted.windows_from)),
            windows_to: Some(timestamp_to_proto(adopted.windows_to)),
        };
        let response = self.0.commit_once(tx, key, response, self.0.clock.now()).await?;
        self.0.adopted.notify_one();
        Ok(response)
    }

    async fn lost(&self, request: &ListLostRangesRequest) -> Result<ListLostRangesResponse, Error> {
        let producer = decode_review::lost(request)?;
        let list = format!("lost/{}", request.producer_id);
        let after: Option<LostPlace> = page::decode(&list, &request.page_token)?;
        let rows: i64 = page::size(request.page_size, PAGE_ROWS_DEFAULT, self.0.limits.page_rows_max).into();
        let mut reader = self.0.pool.read().await?;
        let read = shards::lost_ranges(&mut reader, producer, after, rows).await?;
        let full = i64::try_from(read.len()).unwrap_or(i64::MAX) >= rows;
        let next = read.last().filter(|_| full).map(|last| {
            let place: LostPlace = (last.key.producer_id, last.key.map_version, last.shard, last.from);
            page::encode(&list, &place)
        });
        Ok(ListLostRangesResponse {
            lost: read.iter().map(lost_range).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }
}

fn lost_range(read: &LostRead) -> v1::LostRange {
    v1::LostRange {
        producer_id: read.key.producer_id.to_string(),
        map_version: encode::small(read.key.map_version),
        shard: encode::small(read.shard),
        from_sequence: encode::unsigned(read.from),
        to_sequence: encode::unsigned(read.to),
        named_at: Some(timestamp_to_proto(read.named_at.0)),
    }
}

fn charged(entry: &ChargedEntry, mode: Mode) -> v1::ChargedEntry {
    let ChargedEntry { entry, seq, charge } = entry;
    v1::ChargedEntry {
        entry: *entry,
        // The charge of a dry run never was.
        charge_id: if mode == Mode::Real { charge.charge_id.to_string() } else { String::new() },
        charge_seq: *seq,
        window_start: Some(timestamp_to_proto(charge.window)),
        amount_micros: charge.amount.as_micros(),
        uncharged_micros: charge.uncharged.as_micros(),
        zero_rated: zero_rated(charge.rated).unwrap_or_default().to_owned(),
    }
}

fn left(sorted: &Sorted) -> Vec<LeftEntry> {
    let left = sorted.left.iter();
    left.map(|(entry, reason)| LeftEntry { entry: *entry, reason: (*reason).to_owned() }).collect()
}

/// Unattributed usage with its decision.
pub(super) fn unattributed(read: UnattributedRead) -> Result<v1::UnattributedUsage, Error> {
    let decision = decision(&read)?;
    let dimensions = serde_json::from_str(&read.dimensions);
    Ok(v1::UnattributedUsage {
        entry: read.entry,
        client_id: read.client_id,
        meter: read.meter,
        failed: read.failed,
        window_start: Some(timestamp_to_proto(read.window_start.0)),
        received_window_start: Some(timestamp_to_proto(read.received_window_start.0)),
        dimensions: dimensions.map_err(|e| Error::stored("dimensions of usage")(e.into()))?,
        reason: read.reason,
        events: read.events,
        quantity: read.quantity,
        posted_at: Some(timestamp_to_proto(read.posted_at.0)),
        account_id: id(read.account_id, |id| AccountId::from_uuid(id).to_string()),
        team_id: id(read.team_id, |id| TeamId::from_uuid(id).to_string()),
        app_id: id(read.app_id, |id| AppId::from_uuid(id).to_string()),
        decision,
    })
}

fn decision(read: &UnattributedRead) -> Result<Option<ReviewDecision>, Error> {
    let Some(kind) = &read.decision else { return Ok(None) };
    let kind = match kind.as_str() {
        "charged" => DecisionKind::Charged,
        "dismissed" => DecisionKind::Dismissed,
        "adopted" => DecisionKind::Adopted,
        other => return Err(Error::Broken(format!("a decision of kind {other}"))),
    };
    Ok(Some(ReviewDecision {
        kind: kind.into(),
        decided_at: read.decided_at.map(|at| timestamp_to_proto(at.0)),
        decided_by: read.decided_by.clone().unwrap_or_default(),
        reason: read.why.clone().unwrap_or_default(),
        request_id: read.request_id.clone().unwrap_or_default(),
        account_id: id(read.charged_account, |id| AccountId::from_uuid(id).to_string()),
        team_id: id(read.charged_team, |id| TeamId::from_uuid(id).to_string()),
        app_id: id(read.charged_app, |id| AppId::from_uuid(id).to_string()),
        charge_id: id(read.charge_id, |id| ChargeId::from_uuid(id).to_string()),
        charge_seq: read.charge_seq.unwrap_or_default(),
    }))
}

fn id(stored: Option<Uuid>, text: impl FnOnce(Uuid) -> String) -> String {
    stored.map(text).unwrap_or_default()
}

#[tonic::async_trait]
impl ReviewService for Review {
    async fn charge_unattributed(
        &self,
        request: Request<ChargeUnattributedRequest>,
    ) -> Result<Response<ChargeUnattributedResponse>, Status> {
        self.charge(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn dismiss_unattributed(
        &self,
        request: Request<DismissUnattributedRequest>,
    ) -> Result<Response<DismissUnattributedResponse>, Status> {
        self.dismiss(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn adopt_usage(
        &self,
        request: Request<AdoptUsageRequest>,
    ) -> Result<Response<AdoptUsageResponse>, Status> {
        self.adopt(request.into_inner()).await.map(Response::new).map_err(self.failed())
    }

    async fn list_lost_ranges(
        &self,
        request: Request<ListLostRangesRequest>,
    ) -> Result<Response<ListLostRangesResponse>, Status> {
        self.lost(request.get_ref()).await.map(Response::new).map_err(self.failed())
    }
}
