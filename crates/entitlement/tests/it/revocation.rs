//! Many credentials of one app: listed, replaced without a gap, revoked from an edge on.

use drawdown_entitlement_core::Rules;
use drawdown_proto::entitlement::v1::{
    Credential, ListAppsRequest, ListCredentialsRequest, RevokeCredentialRequest, RotateCredentialRequest,
    UnresolvedReason, VerifyCredentialRequest, credential_service_server::CredentialService as _,
    hierarchy_service_server::HierarchyService as _,
};
use drawdown_types::{AppId, CredentialId};
use tonic::Request;

use crate::world::{World, at, instant, ok, refused, wire};

impl World {
    async fn fits(&self, client_id: &str, client_secret: &str) -> bool {
        let (client_id, client_secret) = (client_id.to_owned(), client_secret.to_owned());
        let request = VerifyCredentialRequest { client_id, client_secret };
        ok(self.hierarchy.verify_credential(Request::new(request)).await).valid
    }

    fn revocation(credential_id: &str, at_text: Option<&str>) -> Request<RevokeCredentialRequest> {
        Request::new(RevokeCredentialRequest {
            credential_id: credential_id.to_owned(),
            at: at_text.and_then(|text| wire(at(text))),
            request_id: String::new(),
        })
    }

    pub(crate) async fn revoke(&self, credential_id: &str, at_text: Option<&str>) -> Credential {
        ok(self.credentials.revoke_credential(Self::revocation(credential_id, at_text)).await)
            .credential
            .unwrap()
    }

    async fn list_credentials(&self, app_id: &str) -> Vec<Credential> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListCredentialsRequest { app_id: app_id.to_owned(), page_size: 0, page_token };
            let answer = ok(self.credentials.list_credentials(Request::new(request)).await);
            all.extend(answer.credentials);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn d51_a_revoked_secret_stops_at_once_and_its_client_id_at_the_next_edge() {
    let world = World::new().await;
    let chain = world.chain().await;
    let made = world.credential(&chain.app_id, Some("2026-02-01T00:00:00Z")).await;
    let other = world.credential(&chain.app_id, None).await;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    world.clock.set(at("2026-03-01T12:30:56Z"));
    assert!(world.fits(&made.client_id, &made.client_secret).await);
    let revoked = world.revoke(&made.credential_id, None).await;
    let edge = at("2026-03-01T12:32:00Z");
    assert_eq!((revoked.revoked_at, revoked.unknown_from), (wire(world.now()), wire(edge)));
    assert!(!world.fits(&made.client_id, &made.client_secret).await);
    assert!(world.fits(&other.client_id, &other.client_secret).await);
    for (instant, team) in [
        ("2026-02-01T00:00:00Z", Ok(chain.team_id.clone())),
        ("2026-03-01T12:31:59.999999Z", Ok(chain.team_id.clone())),
        ("2026-03-01T12:32:00Z", Err(UnresolvedReason::UnknownClient)),
    ] {
        assert_eq!(world.team_at(&made.client_id, at(instant)).await, team, "{instant}");
    }
    assert_eq!(world.team_at(&other.client_id, edge).await, Ok(chain.team_id.clone()), "the app goes on");
    let before = world.dump().await;
    world.clock.set(at("2026-03-05T00:00:00Z"));
    assert_eq!(world.revoke(&made.credential_id, None).await, revoked, "the same again is no change");
    assert_eq!(world.revoke(&made.credential_id, Some("2026-04-01T00:00:00Z")).await, revoked);
    assert_eq!(world.dump().await, before);
    let listed = world.list_credentials(&chain.app_id).await;
    assert_eq!(listed[0], revoked);
    assert_eq!((&listed[1].credential_id, listed[1].revoked_at), (&other.credential_id, None));
    for account_id in [String::new(), chain.account_id.clone()] {
        let request = ListAppsRequest { account_id, ..ListAppsRequest::default() };
        let apps = ok(world.hierarchy.list_apps(Request::new(request)).await).apps;
        assert_eq!(
            apps[0].client_ids,
            std::slice::from_ref(&other.client_id),
            "the revoked one is no client id of it any more"
        );
    }
}

#[tokio::test]
async fn two_credentials_live_side_by_side_until_the_old_one_ends() {
    let world = World::new().await;
    let chain = world.chain().await;
    let old = world.credential(&chain.app_id, None).await;
    world.clock.set(at("2026-03-02T00:00:00Z"));
    let request = |request_id: &str, old_until: Option<&str>| {
        Request::new(RotateCredentialRequest {
            credential_id: old.credential_id.clone(),
            old_until: old_until.and_then(|text| wire(at(text))),
            request_id: request_id.to_owned(),
        })
    };
    let until = "2026-03-09T00:00:00.5Z";
    let rotated = ok(world.credentials.rotate_credential(request("turn", Some(until))).await);
    let retried = ok(world.credentials.rotate_credential(request("turn", Some(until))).await);
    let new = rotated.credential.clone().unwrap();
    assert!(retried.client_secret.is_empty() && retried.credential == rotated.credential);
    assert_eq!((&new.app_id, new.revoked_at), (&chain.app_id, None));
    let ended = rotated.old.unwrap();
    assert_eq!(instant(ended.unknown_from.as_ref()), at("2026-03-09T00:01:00Z"), "rounded up");
    let both = |now| {
        world.clock.set(at(now));
        async {
            let fits_old = world.fits(&old.client_id, &old.client_secret).await;
            (fits_old, world.fits(&new.client_id, &rotated.client_secret).await)
        }
    };
    assert_eq!(both("2026-03-02T00:00:00Z").await, (true, true));
    assert_eq!(both("2026-03-09T00:00:00.499999Z").await, (true, true));
    assert_eq!(both("2026-03-09T00:00:00.5Z").await, (false, true));
    let told = refused(world.credentials.rotate_credential(request("again", None)).await);
    assert_eq!(told, ("CREDENTIAL_REVOKED".to_owned(), vec!["credential_id".to_owned()]));
    assert_eq!(world.list_credentials(&chain.app_id).await.len(), 2, "nothing of the refused one stays");
}

#[tokio::test]
async fn a_scheduled_revocation_gives_way_to_another_and_both_are_kept() {
    let world = World::new().await;
    let chain = world.chain().await;
    let made = world.credential(&chain.app_id, None).await;
    world.revoke(&made.credential_id, Some("2026-03-08T00:00:00Z")).await;
    let later = world.revoke(&made.credential_id, Some("2026-03-10T00:00:00Z")).await;
    assert_eq!(later.unknown_from, wire(at("2026-03-10T00:00:00Z")));
    assert_eq!(world.revoke(&made.credential_id, Some("2026-03-10T00:00:00Z")).await, later);
    let now = world.revoke(&made.credential_id, None).await;
    assert_eq!(now.unknown_from, wire(at("2026-03-01T12:01:00Z")));
    let kept: Vec<bool> = sqlx::query_scalar(
        "SELECT voided_at IS NULL FROM entitlement.credential_revocation ORDER BY revocation_id",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    assert_eq!(kept, [false, false, true]);
}

#[tokio::test]
async fn a_revoked_credential_makes_room_for_another() {
    let world = World::with(Rules { credentials_per_app_max: 2, ..Rules::default() }).await;
    let chain = world.chain().await;
    let first = world.credential(&chain.app_id, None).await;
    world.credential(&chain.app_id, None).await;
    let rotate = || {
        let credential_id = first.credential_id.clone();
        let request = RotateCredentialRequest { credential_id, old_until: None, request_id: String::new() };
        world.credentials.rotate_credential(Request::new(request))
    };
    assert_eq!(refused(rotate().await).0, "CREDENTIALS_TOO_MANY");
    world.revoke(&first.credential_id, None).await;
    world.credential(&chain.app_id, None).await;
    assert_eq!(world.list_credentials(&chain.app_id).await.len(), 3);
}

#[tokio::test]
async fn of_many_that_revoke_one_instant_counts() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.warm().await;
    for _ in 0..5 {
        let id = world.credential(&chain.app_id, None).await.credential_id;
        let (a, b, c) =
            tokio::join!(world.revoke(&id, None), world.revoke(&id, None), world.revoke(&id, None));
        assert!(a == b && b == c);
    }
}

#[tokio::test]
async fn what_can_not_be_revoked_is_named() {
    let world = World::new().await;
    let chain = world.chain().await;
    let made = world.credential(&chain.app_id, None).await;
    let before = world.dump().await;
    let unknown = CredentialId::generate().to_string();
    for (credential_id, instant, reason, field) in [
        ("cred", None, "REQUEST_INVALID", "credential_id"),
        (unknown.as_str(), None, "CREDENTIAL_UNKNOWN", "credential_id"),
        (&made.credential_id, Some("2026-03-01T11:59:59.999999Z"), "INSTANT_IN_PAST", "at"),
        (&made.credential_id, Some("2027-12-01T00:00:00Z"), "CHANGE_TOO_FAR_AHEAD", "at"),
    ] {
        let told =
            refused(world.credentials.revoke_credential(World::revocation(credential_id, instant)).await);
        assert_eq!(told, (reason.to_owned(), vec![field.to_owned()]));
    }
    let rotate = RotateCredentialRequest { credential_id: unknown, ..Default::default() };
    assert_eq!(
        refused(world.credentials.rotate_credential(Request::new(rotate)).await).0,
        "CREDENTIAL_UNKNOWN"
    );
    let list = ListCredentialsRequest { app_id: AppId::generate().to_string(), ..Default::default() };
    assert_eq!(refused(world.credentials.list_credentials(Request::new(list)).await).0, "APP_UNKNOWN");
    assert_eq!(world.dump().await, before);
}
