//! Which notices somebody asks for.

use drawdown_ledger_core::Fact;
use drawdown_proto::ledger::v1::{NoticeFilter, NoticeKind};
use drawdown_service::{Refusal, Violations};

use super::decode::parsed;
use crate::{reason, store::outbox::Choice};

/// Most kinds of one filter: each once.
const KINDS_MAX: usize = Fact::KINDS.len();

pub(super) fn choice(filter: Option<&NoticeFilter>) -> Result<Choice, Refusal> {
    let Some(filter) = filter else { return Ok(Choice::default()) };
    let mut v = Violations::new();
    let choice = v.within("filter", |v| {
        let account = optional(v, "account_id", &filter.account_id);
        let team = optional(v, "team_id", &filter.team_id);
        if filter.kinds.len() > KINDS_MAX {
            v.push("kinds", format!("are {}, at most {KINDS_MAX}", filter.kinds.len()));
        }
        let mut kinds = Vec::new();
        for (index, kind) in filter.kinds.iter().enumerate().take(KINDS_MAX) {
            let kind = NoticeKind::try_from(*kind).ok().and_then(name);
            kinds.extend(v.field(&format!("kinds[{index}]"), || kind.ok_or("must be a kind of notice")));
        }
        Some(Choice { account: account?, team: team?, kinds })
    });
    v.finish(reason::REQUEST_INVALID, choice)
}

fn optional<T>(v: &mut Violations, field: &str, text: &str) -> Option<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Some(None) } else { parsed(v, field, text).map(Some) }
}

/// The stored name of a kind.
const fn name(kind: NoticeKind) -> Option<&'static str> {
    let [added, level, expiring, expired, closed, below, back, netted, budget] = Fact::KINDS;
    Some(match kind {
        NoticeKind::LotAdded => added,
        NoticeKind::LevelReached => level,
        NoticeKind::LotExpiring => expiring,
        NoticeKind::LotExpired => expired,
        NoticeKind::LotClosed => closed,
        NoticeKind::BelowZero => below,
        NoticeKind::BackAtZero => back,
        NoticeKind::DebtNetted => netted,
        NoticeKind::BudgetReached => budget,
        NoticeKind::Unspecified => return None,
    })
}
