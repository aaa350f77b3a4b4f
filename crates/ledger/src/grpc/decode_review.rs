//! From messages about unattributed usage to checked values.

use std::collections::HashSet;

use drawdown_ledger_core::Unattributable;
use drawdown_proto::ledger::v1::{self, ReviewState};
use drawdown_service::{Refusal, Violations};
use drawdown_types::{ClientId, MeterSlug, ProducerId, Timestamp, WindowSize};

use super::{
    decode::{CLIENTS_MAX, NOTE_BYTES_MAX, instant, optional_instant, parsed, request_id, text},
    decode_report::list,
};
use crate::{
    adoption::AdoptionOrder,
    reason,
    review::{Charged, Decision},
    store::review::UnattributedFilter,
};

/// From an instant on, and before another.
type Bounds = (Option<Timestamp>, Option<Timestamp>);

fn bounds(
    v: &mut Violations,
    name: &str,
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Bounds {
    let from = optional_instant(v, &format!("{name}_from"), from).flatten();
    let to = optional_instant(v, &format!("{name}_to"), to).flatten();
    if let Some((from, to)) = from.zip(to).filter(|(from, to)| from >= to) {
        v.push(&format!("{name}_to"), format!("is {to}, must lie after {from}, where the range begins"));
    }
    (from, to)
}

/// Whose lost ranges; `None` for those of all producers.
pub(super) fn lost(request: &v1::ListLostRangesRequest) -> Result<Option<ProducerId>, Refusal> {
    let mut v = Violations::new();
    let producer = match request.producer_id.as_str() {
        "" => Some(None),
        text => parsed(&mut v, "producer_id", text).map(Some),
    };
    v.finish(reason::REQUEST_INVALID, producer)
}

pub(super) fn filter(request: &v1::ListUnattributedRequest) -> Result<UnattributedFilter, Refusal> {
    let mut v = Violations::new();
    let none = v1::UnattributedFilter::default();
    let filter = request.filter.as_ref().unwrap_or(&none);
    let filter = v.within("filter", |v| {
        let decided = match ReviewState::try_from(filter.state) {
            Ok(ReviewState::Unspecified) => None,
            Ok(ReviewState::Open) => Some(false),
            Ok(ReviewState::Decided) => Some(true),
            Err(_) => {
                v.push("state", "must be open, decided or nothing");
                None
            }
        };
        let reasons: Vec<Unattributable> = list(v, "reasons", &filter.reasons);
        let clients: Vec<ClientId> = list(v, "client_ids", &filter.client_ids);
        let meters: Vec<MeterSlug> = list(v, "meters", &filter.meters);
        UnattributedFilter {
            reasons: reasons.iter().map(|reason| reason.as_str().to_owned()).collect(),
            clients: clients.iter().map(ToString::to_string).collect(),
            meters: meters.iter().map(ToString::to_string).collect(),
            window: bounds(v, "window", filter.window_from.as_ref(), filter.window_to.as_ref()),
            received: bounds(v, "received", filter.received_from.as_ref(), filter.received_to.as_ref()),
            decided,
        }
    });
    v.finish(reason::REQUEST_INVALID, Some(filter))
}

fn entries(v: &mut Violations, entries: &[i64], entries_max: usize) -> Vec<i64> {
    if !(1..=entries_max).contains(&entries.len()) {
        v.push("entries", format!("are {}, must be 1 to {entries_max}", entries.len()));
    }
    let mut seen = HashSet::new();
    for (index, entry) in entries.iter().take(entries_max).enumerate() {
        if !seen.insert(*entry) {
            v.push(&format!("entries[{index}]"), format!("{entry} is there twice"));
        }
    }
    entries.to_vec()
}

pub(super) fn charge(
    request: &v1::ChargeUnattributedRequest,
    entries_max: usize,
) -> Result<(Decision, Charged), Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let entries = entries(&mut v, &request.entries, entries_max);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let app_id = parsed(&mut v, "app_id", &request.app_id);
    let reason = text(&mut v, "reason", &request.reason, 1, NOTE_BYTES_MAX);
    let decided_by = text(&mut v, "decided_by", &request.decided_by, 1, NOTE_BYTES_MAX);
    let decoded = (|| {
        let request_id = request.request_id.clone();
        let decision = Decision { entries, reason: reason?, decided_by: decided_by?, request_id };
        Some((decision, Charged { account_id: account_id?, team_id: team_id?, app_id: app_id? }))
    })();
    v.finish(reason::REQUEST_INVALID, decoded)
}

pub(super) fn dismiss(
    request: &v1::DismissUnattributedRequest,
    entries_max: usize,
) -> Result<Decision, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let entries = entries(&mut v, &request.entries, entries_max);
    let reason = text(&mut v, "reason", &request.reason, 1, NOTE_BYTES_MAX);
    let decided_by = text(&mut v, "decided_by", &request.decided_by, 1, NOTE_BYTES_MAX);
    let decoded = reason.zip(decided_by).map(|(reason, decided_by)| Decision {
        entries,
        reason,
        decided_by,
        request_id: request.request_id.clone(),
    });
    v.finish(reason::REQUEST_INVALID, decoded)
}

pub(super) fn adopt(request: &v1::AdoptUsageRequest, size: WindowSize) -> Result<AdoptionOrder, Refusal> {
    let mut v = Violations::new();
    request_id(&mut v, &request.request_id);
    let account_id = parsed(&mut v, "account_id", &request.account_id);
    let team_id = parsed(&mut v, "team_id", &request.team_id);
    let app_id = parsed(&mut v, "app_id", &request.app_id);
    if !(1..=CLIENTS_MAX).contains(&request.client_ids.len()) {
        v.push("client_ids", format!("are {}, must be 1 to {CLIENTS_MAX}", request.client_ids.len()));
    }
    let mut seen = HashSet::new();
    for (index, text) in request.client_ids.iter().take(CLIENTS_MAX).enumerate() {
        let field = format!("client_ids[{index}]");
        let client: Option<ClientId> = parsed(&mut v, &field, text);
        if client.is_some() && !seen.insert(text) {
            v.push(&field, "is there twice");
        }
    }
    let account_since = instant(&mut v, "account_since", request.account_since.as_ref());
    let assigned_from = instant(&mut v, "assigned_from", request.assigned_from.as_ref());
    if let Some(at) = assigned_from.filter(|at| size.floor(*at) != *at) {
        v.push("assigned_from", format!("is {at}, must be the edge of a window"));
    }
    let order = (|| {
        Some(AdoptionOrder {
            account_id: account_id?,
            team_id: team_id?,
            app_id: app_id?,
            clients: request.client_ids.clone(),
            account_since: account_since?,
            assigned_from: assigned_from?,
            request_id: request.request_id.clone(),
        })
    })();
    v.finish(reason::REQUEST_INVALID, order)
}
