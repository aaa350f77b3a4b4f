//! Notices as messages.

use drawdown_ledger_core::{Fact, PoolKind};
use drawdown_proto::{
    ledger::v1::{self, notice::Fact as Wire},
    scalar::timestamp_to_proto,
};
use drawdown_types::Timestamp;

use crate::store::outbox::Placed;

pub(super) fn notice(placed: &Placed) -> v1::Notice {
    let (kind, fact) = fact(&placed.fact);
    v1::Notice {
        notice_id: placed.notice_id.to_string(),
        position: placed.position,
        account_id: placed.account_id.to_string(),
        team_id: placed.team_id.to_string(),
        kind: kind.into(),
        occurred_at: at(placed.occurred_at),
        noted_at: at(placed.noted_at),
        fact: Some(fact),
    }
}

fn at(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp_to_proto(at))
}

const fn pool_kind(pool: PoolKind) -> v1::PoolKind {
    match pool {
        PoolKind::Free => v1::PoolKind::Free,
        PoolKind::Enterprise => v1::PoolKind::Enterprise,
        PoolKind::Credit => v1::PoolKind::Credit,
        PoolKind::Promotional => v1::PoolKind::Promotional,
        PoolKind::Flex => v1::PoolKind::Flex,
    }
}

fn fact(fact: &Fact) -> (v1::NoticeKind, Wire) {
    match fact {
        Fact::LotAdded { lot_id, pool, amount, starts_at, expires_at, moved } => {
            let added = v1::LotAddedFact {
                lot_id: lot_id.to_string(),
                pool_kind: pool_kind(*pool).into(),
                amount_micros: amount.as_micros(),
                starts_at: at(*starts_at),
                expires_at: at(*expires_at),
                moved: *moved,
            };
            (v1::NoticeKind::LotAdded, Wire::LotAdded(added))
        }
        Fact::LotExpiring { lot_id, days, left, expires_at } => {
            let (lot_id, days, left_micros) = (lot_id.to_string(), u32::from(*days), left.as_micros());
            let expiring = v1::LotExpiringFact { lot_id, days, left_micros, expires_at: at(*expires_at) };
            (v1::NoticeKind::LotExpiring, Wire::LotExpiring(expiring))
        }
        Fact::LotExpired { lot_id, left, closes_at } => {
            let (lot_id, left_micros) = (lot_id.to_string(), left.as_micros());
            let expired = v1::LotExpiredFact { lot_id, left_micros, closes_at: at(*closes_at) };
            (v1::NoticeKind::LotExpired, Wire::LotExpired(expired))
        }
        Fact::LotClosed { lot_id, forfeited, expired_at } => {
            let (lot_id, forfeited_micros) = (lot_id.to_string(), forfeited.as_micros());
            let closed = v1::LotClosedFact { lot_id, forfeited_micros, expired_at: at(*expired_at) };
            (v1::NoticeKind::LotClosed, Wire::LotClosed(closed))
        }
        Fact::LevelReached { percent, available, granted } => {
            let (available_micros, granted_micros) = (available.as_micros(), granted.as_micros());
            let percent = u32::from(*percent);
            let level = v1::LevelReachedFact { percent, available_micros, granted_micros };
            (v1::NoticeKind::LevelReached, Wire::LevelReached(level))
        }
        Fact::BelowZero { lowest, balance, deadline } => {
            let (lowest_micros, balance_micros) = (lowest.as_micros(), balance.as_micros());
            let grace_deadline = deadline.and_then(at);
            let below = v1::BelowZeroFact { lowest_micros, balance_micros, grace_deadline };
            (v1::NoticeKind::BelowZero, Wire::BelowZero(below))
        }
        Fact::BackAtZero { balance, since } => {
            let back = v1::BackAtZeroFact { balance_micros: balance.as_micros(), negative_since: at(*since) };
            (v1::NoticeKind::BackAtZero, Wire::BackAtZero(back))
        }
        Fact::DebtNetted { lot_id, from, to, owed } => {
            let netted = v1::DebtNettedFact {
                lot_id: lot_id.to_string(),
                debt_from_micros: from.as_micros(),
                debt_to_micros: to.as_micros(),
                owed_micros: owed.as_micros(),
            };
            (v1::NoticeKind::DebtNetted, Wire::DebtNetted(netted))
        }
        Fact::BudgetReached { budget_id, app_id, month, percent, used, cap, hard, late } => {
            let reached = v1::BudgetReachedFact {
                budget_id: budget_id.to_string(),
                app_id: app_id.map(|id| id.to_string()).unwrap_or_default(),
                month: month_text(*month),
                percent: u32::from(*percent),
                used_micros: used.as_micros(),
                cap_micros: cap.as_micros(),
                hard: *hard,
                late: *late,
            };
            (v1::NoticeKind::BudgetReached, Wire::BudgetReached(reached))
        }
    }
}

/// The UTC month that begins at an instant, as `2026-03`.
pub(super) fn month_text(month: Timestamp) -> String {
    month.to_string().chars().take(7).collect()
}
