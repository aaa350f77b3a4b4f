//! From stored values to messages.

use drawdown_ledger_core::{
    Aggregation, BalanceView, CardVersion, ContractKind, LotState, Period, PoolKind, Terms,
};
use drawdown_proto::{ledger::v1, scalar::timestamp_to_proto};
use drawdown_types::{ChargeId, HoldId, LotId, MeterSlug, TeamId};

use crate::{
    earlier::BooksThen,
    lanes::ShardState,
    store::{catalog::Meter, reads::JournalRead, shards::Lane},
    tokens::NotedLot,
};

/// Stored numbers that are never below zero.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

pub(super) fn small(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

/// How a meter adds up, and by which period.
pub(super) const fn aggregation(aggregation: Aggregation) -> (v1::Aggregation, v1::AggregationPeriod) {
    let period = match aggregation.period() {
        Some(Period::Day) => v1::AggregationPeriod::Day,
        Some(Period::Month) => v1::AggregationPeriod::Month,
        None => v1::AggregationPeriod::Unspecified,
    };
    match aggregation {
        Aggregation::Sum => (v1::Aggregation::Sum, period),
        Aggregation::Count => (v1::Aggregation::Count, period),
        Aggregation::Max(_) => (v1::Aggregation::Max, period),
        Aggregation::Unique(_) => (v1::Aggregation::Unique, period),
    }
}

pub(super) fn meter(meter: &Meter) -> v1::Meter {
    let (aggregation, period) = self::aggregation(meter.aggregation);
    let limit = if meter.hard { v1::LimitKind::Hard } else { v1::LimitKind::Soft };
    v1::Meter {
        slug: meter.slug.to_string(),
        unit: meter.unit.clone(),
        aggregation: aggregation.into(),
        dimensions: meter.dimensions.clone(),
        limit: limit.into(),
        period: period.into(),
        unique_dimension: meter.unique_dimension.clone().unwrap_or_default(),
    }
}

/// The price of a meter.
pub(super) fn price(meter: &MeterSlug, terms: &Terms) -> v1::Price {
    let tier = |tier: &drawdown_ledger_core::Tier| v1::PriceTier { above: tier.above, micros: tier.micros };
    v1::Price {
        meter: meter.to_string(),
        micros: terms.micros(),
        per_units: terms.per_units(),
        failed_is_free: terms.failed_is_free(),
        tiers: terms.tiers().iter().map(tier).collect(),
        charged_unit: terms.charged_unit(),
        free_quota: terms.free_quota(),
        free_only: terms.free_only(),
    }
}

pub(super) fn card(card: &CardVersion) -> v1::RateCard {
    let kind = match card.contract_kind {
        ContractKind::Flex => v1::ContractKind::Flex,
        ContractKind::Enterprise => v1::ContractKind::Enterprise,
    };
    v1::RateCard {
        rate_card_id: card.rate_card_id.to_string(),
        name: card.name.to_string(),
        contract_kind: kind.into(),
        effective_from: Some(timestamp_to_proto(card.effective_from)),
        prices: card.prices.iter().map(|priced| price(&priced.meter, &priced.terms)).collect(),
    }
}

pub(super) const fn pool_kind(kind: PoolKind) -> v1::PoolKind {
    match kind {
        PoolKind::Free => v1::PoolKind::Free,
        PoolKind::Enterprise => v1::PoolKind::Enterprise,
        PoolKind::Credit => v1::PoolKind::Credit,
        PoolKind::Promotional => v1::PoolKind::Promotional,
        PoolKind::Flex => v1::PoolKind::Flex,
    }
}

pub(super) const fn lot_state(state: LotState) -> v1::LotState {
    match state {
        LotState::Scheduled => v1::LotState::Scheduled,
        LotState::Open => v1::LotState::Open,
        LotState::Closing => v1::LotState::Closing,
        LotState::Closed => v1::LotState::Closed,
        LotState::Moved => v1::LotState::Moved,
    }
}

pub(super) fn lot(noted: &NotedLot) -> v1::Lot {
    let lot = &noted.view.lot;
    v1::Lot {
        lot_id: lot.lot_id.to_string(),
        account_id: lot.account_id.to_string(),
        team_id: lot.team_id.to_string(),
        pool_kind: pool_kind(lot.pool_kind).into(),
        granted_micros: lot.granted.as_micros(),
        remaining_micros: lot.remaining.as_micros(),
        consumed_micros: lot.consumed.as_micros(),
        expired_micros: lot.expired.as_micros(),
        purchased_at: Some(timestamp_to_proto(lot.purchased_at)),
        starts_at: Some(timestamp_to_proto(lot.starts_at)),
        expires_at: Some(timestamp_to_proto(lot.expires_at)),
        closes_at: Some(timestamp_to_proto(lot.closes_at)),
        state: lot_state(noted.view.state).into(),
        note: noted.note.clone(),
        original_micros: lot.original.as_micros(),
        held_micros: lot.held.as_micros(),
        void_micros: lot.void.as_micros(),
        moved_micros: lot.moved.as_micros(),
        moved_to_team_id: lot.moved_to.map(|team| team.to_string()).unwrap_or_default(),
        valid_from: Some(timestamp_to_proto(lot.valid_from)),
        leaves_older_debts: lot.leaves_older_debts,
        days_left: lot.days_left_at(noted.at),
    }
}

/// A lot as of earlier instants: what it is only now is left out.
pub(super) fn lot_then(noted: &NotedLot) -> v1::Lot {
    v1::Lot { moved_to_team_id: String::new(), valid_from: None, ..lot(noted) }
}

pub(super) fn extent(then: &BooksThen) -> v1::AsOfExtent {
    v1::AsOfExtent {
        event: then.asked.event.map(timestamp_to_proto),
        recorded: Some(timestamp_to_proto(then.asked.recorded)),
        r#final: then.is_final,
    }
}

pub(super) fn balance(view: &BalanceView) -> v1::Balance {
    let row = &view.row;
    v1::Balance {
        team_id: row.team_id.to_string(),
        account_id: row.account_id.to_string(),
        balance_micros: view.balance.as_micros(),
        available_micros: view.available.as_micros(),
        closing_micros: view.closing.as_micros(),
        scheduled_micros: view.scheduled.as_micros(),
        held_micros: view.held.as_micros(),
        uncharged_micros: view.uncharged.as_micros(),
        used_micros: row.consumed.as_micros(),
        purchased_micros: row.issued.as_micros(),
        expired_micros: row.expired.as_micros(),
        void_micros: row.void.as_micros(),
        moved_in_micros: row.moved_in.as_micros(),
        moved_out_micros: row.moved_out.as_micros(),
        negative_since: row.negative_since.map(timestamp_to_proto),
        version: row.version,
        at: Some(timestamp_to_proto(view.at)),
        granted_of_open_micros: view.granted_of_open.as_micros(),
        red: view.is_red(),
    }
}

pub(super) fn journal_row(team: TeamId, read: JournalRead) -> v1::JournalRow {
    v1::JournalRow {
        team_id: team.to_string(),
        seq: read.seq,
        kind: read.kind,
        debit_book: read.debit_book,
        credit_book: read.credit_book,
        amount_micros: read.amount_micros,
        lot_id: read.lot_id.map(|id| LotId::from_uuid(id).to_string()).unwrap_or_default(),
        charge_id: read.charge_id.map(|id| ChargeId::from_uuid(id).to_string()).unwrap_or_default(),
        debt_from_micros: read.debt_from_micros,
        debt_to_micros: read.debt_to_micros,
        posted_at: Some(timestamp_to_proto(read.posted_at.0)),
        effective_at: Some(timestamp_to_proto(read.effective_at.0)),
        hold_id: read.hold_id.map(|id| HoldId::from_uuid(id).to_string()).unwrap_or_default(),
        reverses: read.reverses.unwrap_or_default(),
    }
}

pub(super) fn lane(lane: &Lane) -> v1::LaneState {
    v1::LaneState {
        producer_id: lane.key.producer_id.to_string(),
        map_version: small(lane.key.map_version),
        shard: small(lane.shard),
        epoch: unsigned(lane.epoch),
        settled_sequence: unsigned(lane.settled),
        settled_chain: lane.chain,
    }
}

pub(super) fn shard(state: &ShardState) -> v1::ShardCursor {
    v1::ShardCursor {
        shard: small(state.cursor.shard),
        generation: state.cursor.generation,
        last_batch: unsigned(state.cursor.last_batch),
        lanes: state.lanes.iter().map(lane).collect(),
    }
}
