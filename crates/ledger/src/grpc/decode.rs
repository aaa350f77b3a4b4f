//! From messages to checked values: every field that is wrong is named, all at once.

use std::{fmt::Display, str::FromStr};

use drawdown_ledger_core::{
    Aggregation, ContractKind, Grant, LOT_MAX_TOKENS, NewVersion, Period, PoolKind, Settings, TIERS_MAX,
    Terms, TermsDraft, Tier,
};
use drawdown_proto::{ledger::v1, scalar::timestamp_from_proto};
use drawdown_service::{Refusal, Violations, identity};
use drawdown_types::{
    AccountId, ChargeId, DimensionName, LotId, MeterSlug, MicroTokens, ProducerId, RateCardId, Slug, TeamId,
    Timestamp,
};

use crate::{
    cards::Publication,
    earlier::{Earlier, When},
    lanes::LostClaim,
    reason,
    store::{catalog::Meter, shards::LaneKey},
    tokens::{GrantOrder, Of, PurchaseOrder},
};

/// Most bytes of a request id.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Most bytes of a note.
pub(super) const NOTE_BYTES_MAX: usize = 200;
/// Most bytes of a name that people choose.
const NAME_BYTES_MAX: usize = 200;
/// Most bytes of a meter's unit.
const UNIT_BYTES_MAX: usize = 64;
/// Most dimensions of a meter.
const DIMENSIONS_MAX: usize = 8;
/// Most prices of one version.
const PRICES_MAX: usize = 10_000;
/// Most shards of one question.
const SHARDS_MAX: usize = 1024;
/// Most producers of one question.
const PRODUCERS_MAX: usize = 16_384;
/// The highest shard there may be.
const SHARD_MAX: u32 = 65_535;
/// Most client ids of one question.
pub(super) const CLIENTS_MAX: usize = 1000;

/// A field that is parsed from its text.
pub(super) fn parsed<T>(v: &mut Violations, field: &str, text: &str) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    v.field(field, || text.parse())
}

pub(super) fn optional_instant(
    v: &mut Violations,
    field: &str,
    at: Option<&prost_types::Timestamp>,
) -> Option<Option<Timestamp>> {
    match at {
        None => Some(None),
        Some(at) => v.field(field, || timestamp_from_proto(at)).map(Some),
    }
}

pub(super) fn instant(
    v: &mut Violations,
    field: &str,
    at: Option<&prost_types::Timestamp>,
) -> Option<Timestamp> {
    v.require(field, at).and_then(|at| v.field(field, || timestamp_from_proto(at)))
}

pub(super) fn text(v: &mut Violations, field: &str, text: &str, min: usize, max: usize) -> Option<String> {
    let fits = (min..=max).contains(&text.len()) && !text.contains('\0');
    if !fits {
        v.push(field, format!("has {} bytes, must have {min} to {max} and no NUL", text.len()));
    }
    fits.then(|| text.to_owned())
}

pub(super) fn request_id(v: &mut Violations, id: &str) {
    let fits =
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        v.push("request_id", format!("must have 1 to {REQUEST_ID_BYTES_MAX} visible ASCII characters"));
    }
}

/// A number that is stored in 63 bits.
pub(super) fn stored(v: &mut Violations, field: &str, value: u64) -> Option<i64> {
    v.field(field, || i64::try_from(value).map_err(|_| format!("{value} is above {}", i64::MAX)))
}

pub(super) fn shard(v: &mut Violations, field: &str, value: u32) -> Option<i32> {
    let fits = || i32::try_from(value).ok().filter(|_| value <= SHARD_MAX);
    v.field(field, || fits().ok_or_else(|| format!("{value} is above {SHARD_MAX}")))
}

pub(super) fn map_version(v: &mut Violations, field: &str, value: u32) -> Option<i32> {
    v.field(field, || i32::try_from(value).map_err(|_| format!("{value} is above {}", i32::MAX)))
}

/// `flex` or `enterprise`.
pub(super) const fn contract_kind(kind: v1::ContractKind) -> Option<ContractKind> {
    match kind {
        v1::ContractKind::Flex => Some(ContractKind::Flex),
        v1::ContractKind::Enterprise => Some(ContractKind::Enterprise),
        v1::ContractKind::Unspecified => None,
    }
}

pub(super) fn contract_kind_field(v: &mut Violations, field: &str, value: i32) -> Option<ContractKind> {
    let kind = v1::ContractKind::try_from(value).ok().and_then(contract_kind);
    v.field(field, || kind.ok_or("must be flex or enterprise"))
}

// === catalogue ===

pub(super) fn meter(request: &v1::CreateMeterRequest) -> Result<Meter, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let meter = v.require("meter", request.meter.as_ref());
    let meter = meter.and_then(|meter| v.within("meter", |v| meter_fields(v, meter)));
    v.finish(reason::REQUEST_INVALID, meter)
}

fn meter_fields(v: &mut Violations, meter: &v1::Meter) -> Option<Meter> {
    let slug = parsed(v, "slug", &meter.slug);
    let unit = text(v, "unit", &meter.unit, 1, UNIT_BYTES_MAX);
    let aggregation = aggregation(v, meter);
    let hard = match v1::LimitKind::try_from(meter.limit) {
        Ok(v1::LimitKind::Unspecified | v1::LimitKind::Soft) => Some(false),
        Ok(v1::LimitKind::Hard) => Some(true),
        Err(_) => None,
    };
    let hard = v.field("limit", || hard.ok_or("must be soft or hard"));
    if meter.dimensions.len() > DIMENSIONS_MAX {
        v.push("dimensions", format!("are {}, at most {DIMENSIONS_MAX}", meter.dimensions.len()));
    }
    for (index, name) in meter.dimensions.iter().enumerate() {
        let field = format!("dimensions[{index}]");
        parsed::<DimensionName>(v, &field, name);
        if meter.dimensions.iter().take(index).any(|other| other == name) {
            v.push(&field, "is there twice");
        }
    }
    Some(Meter {
        slug: slug?,
        unit: unit?,
        aggregation: aggregation?,
        unique_dimension: Some(meter.unique_dimension.clone()).filter(|name| !name.is_empty()),
        dimensions: meter.dimensions.clone(),
        hard: hard?,
    })
}

/// The aggregation with its period and dimension, which only `max` and `unique` have.
fn aggregation(v: &mut Violations, meter: &v1::Meter) -> Option<Aggregation> {
    let kind = v1::Aggregation::try_from(meter.aggregation);
    let period = match v1::AggregationPeriod::try_from(meter.period) {
        Ok(v1::AggregationPeriod::Day) => Some(Period::Day),
        Ok(v1::AggregationPeriod::Month) => Some(Period::Month),
        Ok(v1::AggregationPeriod::Unspecified) | Err(_) => None,
    };
    let (by_period, unique) = match kind {
        Ok(v1::Aggregation::Max) => (true, false),
        Ok(v1::Aggregation::Unique) => (true, true),
        Ok(v1::Aggregation::Sum | v1::Aggregation::Count | v1::Aggregation::Unspecified) | Err(_) => {
            (false, false)
        }
    };
    if by_period && period.is_none() {
        v.push("period", "must be day or month for max and unique");
    } else if !by_period && meter.period != 0 {
        v.push("period", "is for max and unique only");
    }
    let dimension = &meter.unique_dimension;
    if unique && !meter.dimensions.contains(dimension) {
        v.push("unique_dimension", "must be one of the dimensions of a meter that counts distinct values");
    } else if !unique && !dimension.is_empty() {
        v.push("unique_dimension", "is for unique only");
    }
    match kind {
        Ok(v1::Aggregation::Sum) => Some(Aggregation::Sum),
        Ok(v1::Aggregation::Count) => Some(Aggregation::Count),
        Ok(v1::Aggregation::Max) => period.map(Aggregation::Max),
        Ok(v1::Aggregation::Unique) => period.map(Aggregation::Unique),
        Ok(v1::Aggregation::Unspecified) | Err(_) => {
            v.push("aggregation", "must be sum, count, max or unique");
            None
        }
    }
}

pub(super) fn publication(request: &v1::PublishRateCardRequest) -> Result<Publication, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let card = v.require("rate_card", request.rate_card.as_ref());
    let version = card.and_then(|card| v.within("rate_card", |v| card_fields(v, card, request.set_up)));
    let publication =
        version.map(|(version, at_once)| Publication { version, at_once, set_up: request.set_up });
    v.finish(reason::REQUEST_INVALID, publication)
}

fn card_fields(v: &mut Violations, card: &v1::RateCard, set_up: bool) -> Option<(NewVersion, bool)> {
    if !card.rate_card_id.is_empty() {
        v.push("rate_card_id", "is made by the ledger, must be empty");
    }
    let name: Option<Slug> = parsed(v, "name", &card.name);
    let contract_kind = contract_kind_field(v, "contract_kind", card.contract_kind);
    let from = optional_instant(v, "effective_from", card.effective_from.as_ref());
    if set_up && card.effective_from.is_none() {
        v.push("effective_from", "must be set in a set-up");
    }
    if card.prices.len() > PRICES_MAX {
        v.push("prices", format!("are {}, at most {PRICES_MAX}", card.prices.len()));
    }
    let prices = prices(v, &card.prices);
    let from = from?;
    let version = NewVersion {
        rate_card_id: RateCardId::generate(),
        name: name?,
        contract_kind: contract_kind?,
        effective_from: from.unwrap_or(Timestamp::EPOCH),
        prices,
    };
    Some((version, from.is_none()))
}

/// Prices of a card, each meter with its terms.
pub(super) fn prices(v: &mut Violations, prices: &[v1::Price]) -> Vec<(MeterSlug, Terms)> {
    let mut read = Vec::with_capacity(prices.len().min(PRICES_MAX));
    for (index, price) in prices.iter().enumerate().take(PRICES_MAX) {
        v.within(&format!("prices[{index}]"), |v| {
            let meter: Option<MeterSlug> = parsed(v, "meter", &price.meter);
            let terms = terms(v, price);
            read.extend(meter.zip(terms));
        });
    }
    read
}

fn terms(v: &mut Violations, price: &v1::Price) -> Option<Terms> {
    // One more than there may be is enough to be told that there are too many.
    let tiers = price.tiers.iter().take(TIERS_MAX.saturating_add(1));
    let draft = TermsDraft {
        micros: price.micros,
        per_units: price.per_units,
        tiers: tiers.map(|tier| Tier { above: tier.above, micros: tier.micros }).collect(),
        charged_unit: price.charged_unit,
        free_quota: price.free_quota,
        free_only: price.free_only,
        failed_is_free: price.failed_is_free,
    };
    match draft.check() {
        Ok(terms) => Some(terms),
        Err(faults) => {
            faults.iter().for_each(|fault| v.push(&fault.field(), fault));
            None
        }
    }
}

// === tokens ===

pub(super) fn purchase(
    request: &v1::PurchaseTokensRequest,
    settings: &Settings,
) -> Result<PurchaseOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let min = settings.purchase_min_tokens;
    if request.tokens < min {
        let why = format!("is {}, one purchase buys at least {min}", request.tokens);
        v.push_as(reason::PURCHASE_TOO_SMALL, "tokens", why);
    }
    if request.tokens > LOT_MAX_TOKENS {
        let why = format!("is {}, one lot holds at most {LOT_MAX_TOKENS}", request.tokens);
        v.push_as(reason::LOT_TOO_LARGE, "tokens", why);
    }
    let purchased_at = optional_instant(&mut v, "purchased_at", request.purchased_at.as_ref());
    let note = text(&mut v, "note", &request.note, 0, NOTE_BYTES_MAX);
    let order = account_id.zip(team_id).zip(purchased_at).zip(note);
    let order = order.map(|(((account_id, team_id), purchased_at), note)| PurchaseOrder {
        account_id,
        team_id,
        tokens: request.tokens,
        purchased_at,
        note,
    });
    v.finish(reason::REQUEST_INVALID, order)
}

pub(super) fn grant(request: &v1::GrantTokensRequest) -> Result<GrantOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    if request.micros < 1 {
        v.push("micros", format!("is {}, must be at least 1", request.micros));
    }
    let pool_kind = match v1::PoolKind::try_from(request.pool_kind) {
        Ok(v1::PoolKind::Free) => Some(PoolKind::Free),
        Ok(v1::PoolKind::Enterprise) => Some(PoolKind::Enterprise),
        Ok(v1::PoolKind::Credit) => Some(PoolKind::Credit),
        Ok(v1::PoolKind::Promotional) => Some(PoolKind::Promotional),
        Ok(v1::PoolKind::Flex | v1::PoolKind::Unspecified) | Err(_) => None,
    };
    let pool_kind = v.field("pool_kind", || {
        pool_kind.ok_or("must be free, enterprise, credit or promotional; flex is bought")
    });
    let starts_at = optional_instant(&mut v, "starts_at", request.starts_at.as_ref());
    let expires_at = instant(&mut v, "expires_at", request.expires_at.as_ref());
    let note = text(&mut v, "note", &request.note, 1, NOTE_BYTES_MAX);
    let order = (|| {
        let grant = Grant {
            lot_id: LotId::generate(),
            amount: MicroTokens::from_micros(request.micros),
            pool_kind: pool_kind?,
            starts_at: starts_at?,
            expires_at: expires_at?,
            set_up: false,
            leaves_older_debts: request.leaves_older_debts,
        };
        Some(GrantOrder { account_id: account_id?, team_id: team_id?, grant, note: note? })
    })();
    v.finish(reason::REQUEST_INVALID, order)
}

/// The account that asks: the one that is named, else the one that the caller is of, else none.
pub(super) fn asking(v: &mut Violations, account_id: &str) -> Option<Option<AccountId>> {
    match account_id {
        "" => Some(identity::current_account()),
        text => parsed(v, "account_id", text).map(Some),
    }
}

/// Whose rows and by whom: an account that asks, or an operator.
fn of(v: &mut Violations, account_id: &str, team_id: &str) -> Option<Of> {
    let account = asking(v, account_id);
    let team = parsed(v, "team_id", team_id);
    account.zip(team).map(|(account, team)| Of { account, team })
}

/// A team with an instant or none, or with earlier instants of its books.
pub(super) fn of_then(
    account_id: &str,
    team_id: &str,
    at: Option<&prost_types::Timestamp>,
    as_of: Option<&v1::AsOf>,
) -> Result<(Of, When), Refusal> {
    let mut v = Violations::new();
    let of = of(&mut v, account_id, team_id);
    let now = optional_instant(&mut v, "at", at);
    let Some(as_of) = as_of else {
        return v.finish(reason::REQUEST_INVALID, of.zip(now.map(When::At)));
    };
    if at.is_some() {
        v.push("as_of", "must be absent where `at` is set");
    }
    let earlier = v.within("as_of", |v| {
        let event = optional_instant(v, "event", as_of.event.as_ref());
        let recorded = optional_instant(v, "recorded", as_of.recorded.as_ref());
        event.zip(recorded).map(|(event, recorded)| Earlier { event, recorded })
    });
    v.finish(reason::REQUEST_INVALID, of.zip(earlier.map(When::Earlier)))
}

/// A charge of a team.
pub(super) fn of_charge(account_id: &str, team_id: &str, charge_id: &str) -> Result<(Of, ChargeId), Refusal> {
    let mut v = Violations::new();
    let of = of(&mut v, account_id, team_id);
    let charge = parsed(&mut v, "charge_id", charge_id);
    v.finish(reason::REQUEST_INVALID, of.zip(charge))
}

// === lanes and producers ===

pub(super) fn shards(request: &v1::GetShardsRequest) -> Result<(Vec<i32>, Vec<ProducerId>), Refusal> {
    let mut v = Violations::new();
    if !(1..=SHARDS_MAX).contains(&request.shards.len()) {
        v.push("shards", format!("are {}, must be 1 to {SHARDS_MAX}", request.shards.len()));
    }
    let shards: Vec<i32> = request
        .shards
        .iter()
        .take(SHARDS_MAX)
        .enumerate()
        .filter_map(|(index, value)| shard(&mut v, &format!("shards[{index}]"), *value))
        .collect();
    if request.producer_ids.len() > PRODUCERS_MAX {
        v.push("producer_ids", format!("are {}, at most {PRODUCERS_MAX}", request.producer_ids.len()));
    }
    let producers: Vec<ProducerId> = request
        .producer_ids
        .iter()
        .take(PRODUCERS_MAX)
        .enumerate()
        .filter_map(|(index, id)| parsed(&mut v, &format!("producer_ids[{index}]"), id))
        .collect();
    v.finish(reason::REQUEST_INVALID, Some((shards, producers)))
}

/// Why something is done, as it will be noted.
pub(super) fn cause(v: &mut Violations, cause: &str) -> Option<String> {
    text(v, "cause", cause, 0, NAME_BYTES_MAX)
}

pub(super) fn reset(request: &v1::BeginResetRequest) -> Result<(i32, u64, String), Refusal> {
    let mut v = Violations::new();
    let shard = shard(&mut v, "shard", request.shard);
    let cause = cause(&mut v, &request.cause);
    let reset = shard.zip(cause).map(|(shard, cause)| (shard, request.expected_generation, cause));
    v.finish(reason::REQUEST_INVALID, reset)
}

pub(super) fn new_producer(request: &v1::CreateProducerRequest) -> Result<String, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let name = text(&mut v, "name", &request.name, 1, NAME_BYTES_MAX);
    v.finish(reason::REQUEST_INVALID, name)
}

pub(super) fn opening(request: &v1::OpenProducerRequest) -> Result<(ProducerId, i64), Refusal> {
    let mut v = Violations::new();
    let id = parsed(&mut v, "producer_id", &request.producer_id);
    // One above the log's epoch has to fit too.
    let epoch = stored(&mut v, "log_epoch", request.log_epoch).filter(|epoch| *epoch < i64::MAX);
    if epoch.is_none() {
        v.push("log_epoch", "must leave room for one more");
    }
    v.finish(reason::REQUEST_INVALID, id.zip(epoch))
}

pub(super) fn lost_claim(request: &v1::NameLostRequest) -> Result<LostClaim, Refusal> {
    let mut v = Violations::new();
    let freed = stored(&mut v, "freed_sequence", request.freed_sequence);
    let lane = v.require("at_settled", request.at_settled.as_ref());
    let claim = lane.and_then(|lane| {
        v.within("at_settled", |v| {
            let producer_id: Option<ProducerId> = parsed(v, "producer_id", &lane.producer_id);
            let map_version = map_version(v, "map_version", lane.map_version);
            let shard = shard(v, "shard", lane.shard);
            let epoch = stored(v, "epoch", lane.epoch);
            let settled = stored(v, "settled_sequence", lane.settled_sequence);
            Some(LostClaim {
                shard: shard?,
                key: LaneKey { producer_id: producer_id?, map_version: map_version? },
                epoch: epoch?,
                settled: settled?,
                chain: lane.settled_chain,
                freed: freed?,
                freed_chain: request.freed_chain,
            })
        })
    });
    v.finish(reason::REQUEST_INVALID, claim)
}

/// Client ids, a team or none, and an instant.
pub(super) fn usage_question(
    request: &v1::HasSettledUsageRequest,
) -> Result<(Option<TeamId>, Timestamp), Refusal> {
    let mut v = Violations::new();
    if request.client_ids.len() > CLIENTS_MAX {
        v.push("client_ids", format!("are {}, at most {CLIENTS_MAX}", request.client_ids.len()));
    }
    if request.client_ids.is_empty() && request.team_id.is_empty() {
        v.push("client_ids", "must hold one, unless a team is asked for");
    }
    let team = match request.team_id.as_str() {
        "" => Some(None),
        text => parsed(&mut v, "team_id", text).map(Some),
    };
    let from = instant(&mut v, "from", request.from.as_ref());
    v.finish(reason::REQUEST_INVALID, team.zip(from))
}
