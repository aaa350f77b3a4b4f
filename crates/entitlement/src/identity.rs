//! What entitlement knows of callers and owners, for its own gate; other services ask by `PrincipalService`.

use drawdown_service::identity::{Caller, GoodKey, KeyDigest, Keys, Named, Owner, Owners, Proof, Sources};
use drawdown_types::Timestamp;
use futures::future::BoxFuture;
use std::sync::Arc;

use crate::{Error, Parts, acts::Acts, store::PrincipalRecord};

/// From the tables.
#[derive(Clone)]
struct Own(Acts);

/// The sources of this service's gate.
pub(crate) fn sources(parts: &Parts) -> Sources {
    let own = Arc::new(Own(parts.acts()));
    Sources { keys: Arc::clone(&own) as Arc<dyn Keys>, owners: own }
}

/// Whose a key is, and when it ends; `None` where there is no such key, or it is no good. Takes as long for a key that
/// nobody knows.
pub(crate) async fn good_key(
    acts: &Acts,
    key: &KeyDigest,
) -> Result<Option<(PrincipalRecord, Option<Timestamp>)>, Error> {
    let stored = acts.store.stored_key(key.key_id).await?;
    let hmac = stored.as_ref().map(|stored| stored.hmac.as_slice());
    let right = acts.pepper.verify_key(key, hmac);
    let now = acts.now();
    let good = stored.filter(|stored| {
        let is_open = |end: Option<Timestamp>| end.is_none_or(|end| now < end);
        right && is_open(stored.ends_at) && is_open(stored.principal.ended_at)
    });
    acts.metrics.authenticated(good.is_some());
    Ok(good.map(|stored| (stored.principal, stored.ends_at)))
}

impl Keys for Own {
    fn look_up(&self, key: KeyDigest) -> BoxFuture<'_, anyhow::Result<Option<GoodKey>>> {
        Box::pin(async move {
            let good = good_key(&self.0, &key).await?;
            Ok(good.map(|(principal, until)| {
                let proof = Proof::Key { principal_id: principal.principal_id, key_id: key.key_id };
                let PrincipalRecord { roles, scope, user_id, .. } = principal;
                GoodKey { caller: Caller { proof, roles, scope, user_id, peer: None }, until }
            }))
        })
    }
}

impl Owners for Own {
    fn owners(&self, things: Vec<Named>) -> BoxFuture<'_, anyhow::Result<Vec<Vec<Owner>>>> {
        Box::pin(async move { Ok(self.0.store.owners(&things, self.0.now()).await?) })
    }
}
