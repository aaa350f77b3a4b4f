//! Making hubs, and moving apps in and out of them (D29). It is access, so it acts at once.

use drawdown_entitlement_core::{is_archived, plan::Actor};
use drawdown_proto::{
    entitlement::v1::{CreateHubResponse, MoveAppResponse},
    scalar::timestamp_to_proto,
};
use drawdown_types::{AccountId, AppId, HubId};
use serde_json::json;

use super::{Act, Acts, Step, Told, existing};
use crate::{
    Error,
    error::Refused,
    grpc::encode,
    store::{self, AuditEntry, HubRecord, Lock, Place, Tx},
};

/// Makes a hub of an account.
#[derive(Clone, Debug)]
pub(crate) struct CreateHub {
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
}

/// Moves an app into a hub, or out of its hub.
#[derive(Clone, Debug)]
pub(crate) struct MoveApp {
    pub(crate) app_id: AppId,
    pub(crate) hub_id: Option<HubId>,
}

impl Act for CreateHub {
    type Reply = CreateHubResponse;

    const METHOD: &'static str = "CreateHub";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        existing::account(tx, self.account_id, Lock::No).await?;
        let hub = HubRecord {
            hub_id: HubId::generate(),
            account_id: self.account_id,
            name: self.name.clone(),
            created_at: acts.now(),
        };
        store::insert_hub_in_tx(tx, &hub).await?;
        let entry = AuditEntry {
            at: hub.created_at,
            actor: Actor::Operator,
            reason: None,
            subject: hub.hub_id.to_string(),
            account_id: Some(self.account_id),
            before: None,
            after: json!({ "name": self.name }),
        };
        Ok(Step::Done { reply: CreateHubResponse { hub: Some(encode::hub(hub)) }, entry: Some(entry) })
    }
}

impl Act for MoveApp {
    type Reply = MoveAppResponse;

    const METHOD: &'static str = "MoveApp";

    async fn perform(&self, tx: &mut Tx, acts: &Acts, _: &Told) -> Result<Step<Self::Reply>, Error> {
        let app = existing::app(tx, self.app_id, Lock::Held).await?;
        let place = store::place_in_tx(tx, self.app_id).await?;
        // an instant read before a lock was free may lie before the place that it waited for
        let now = acts.now();
        let at = place.map_or(now, |place| now.max(place.to.unwrap_or(place.from)));
        let account_id = app.owner_at(at).account_id;
        let hub_account = match self.hub_id {
            Some(hub_id) => {
                let of = existing::hub_account(tx, hub_id).await?;
                if of != account_id {
                    return Err(Refused::HubOfOtherAccount(hub_id).into());
                }
                Some(of)
            }
            None => None,
        };
        let reply = |from| MoveAppResponse {
            hub_id: self.hub_id.map(|hub_id| hub_id.to_string()).unwrap_or_default(),
            from,
            archived: is_archived(acts.limits.hub_mode, hub_account, account_id),
        };
        let present = place.filter(|place| place.to.is_none());
        if present.map(|place| place.hub_id) == self.hub_id {
            let since = place.map(|place: Place| timestamp_to_proto(place.to.unwrap_or(place.from)));
            return Ok(Step::Done { reply: reply(since), entry: None });
        }
        store::leave_hub_in_tx(tx, self.app_id, at).await?;
        if let Some(hub_id) = self.hub_id {
            store::enter_hub_in_tx(tx, self.app_id, hub_id, at).await?;
        }
        let entry = AuditEntry {
            at,
            actor: Actor::Operator,
            reason: None,
            subject: self.app_id.to_string(),
            account_id: Some(account_id),
            before: Some(json!({ "hub_id": present.map(|place| place.hub_id) })),
            after: json!({ "hub_id": self.hub_id, "from": at }),
        };
        Ok(Step::Done { reply: reply(Some(timestamp_to_proto(at))), entry: Some(entry) })
    }
}
