//! Credentials: shown once, kept as a hash, compared without a hint; and what they do to the trial.

use drawdown_entitlement_core::Rules;
use drawdown_proto::entitlement::v1::{
    CreateCredentialRequest, GetAccountRequest, VerifyCredentialRequest,
    hierarchy_service_server::HierarchyService as _,
};
use drawdown_types::ClientId;
use tonic::Request;

use crate::world::{Chain, World, at, instant, ok, refused, wire};

async fn valid(world: &World, client_id: &str, client_secret: &str) -> bool {
    let request =
        VerifyCredentialRequest { client_id: client_id.to_owned(), client_secret: client_secret.to_owned() };
    ok(world.hierarchy.verify_credential(Request::new(request)).await).valid
}

#[tokio::test]
async fn a_secret_fits_its_client_id_and_nothing_else_does() {
    let world = World::new().await;
    let chain = world.chain().await;
    let one = world.credential(&chain.app_id, None).await;
    let two = world.credential(&chain.app_id, None).await;
    assert!(ClientId::new(&one.client_id).is_ok() && one.client_id.len() == 33);
    assert_ne!(one.client_id, two.client_id);
    for (client_id, secret, fits) in [
        (one.client_id.as_str(), one.client_secret.as_str(), true),
        (&two.client_id, &two.client_secret, true),
        (&one.client_id, &two.client_secret, false),
        (&one.client_id, "", false),
        (&one.client_id, &format!("{} ", one.client_secret), false),
        (&one.client_id, &"x".repeat(100_000), false),
        ("client_00000000000000000000000000", &one.client_secret, false),
        ("", &one.client_secret, false),
        ("a\0b", "c\0d", false),
        (&"x".repeat(100_000), "y", false),
    ] {
        assert_eq!(valid(&world, client_id, secret).await, fits, "{client_id:.40} {secret:.80}");
    }
}

#[tokio::test]
async fn a_retry_gets_the_same_credential_without_its_secret() {
    let world = World::new().await;
    let chain = world.chain().await;
    let request = |created_at| {
        Request::new(CreateCredentialRequest {
            app_id: chain.app_id.clone(),
            created_at,
            request_id: "key-1".to_owned(),
        })
    };
    let first = ok(world.hierarchy.create_credential(request(None)).await);
    let before = world.dump().await;
    world.clock.set(at("2026-03-01T13:00:00Z"));
    let retry = ok(world.hierarchy.create_credential(request(None)).await);
    assert_eq!((&retry.credential_id, &retry.client_id), (&first.credential_id, &first.client_id));
    assert!(!first.client_secret.is_empty() && retry.client_secret.is_empty());
    assert!(valid(&world, &first.client_id, &first.client_secret).await);
    let other = refused(world.hierarchy.create_credential(request(wire(world.now()))).await);
    assert_eq!(other, ("REQUEST_ID_CONFLICT".to_owned(), vec!["request_id".to_owned()]));
    assert_eq!(world.dump().await, before);
}

#[tokio::test]
async fn no_secret_is_found_anywhere_in_the_database() {
    let world = World::new().await;
    let chain = world.chain().await;
    let mut secrets = Vec::new();
    for number in 0..4 {
        let request = CreateCredentialRequest {
            app_id: chain.app_id.clone(),
            created_at: None,
            request_id: format!("key-{number}"),
        };
        secrets.push(ok(world.hierarchy.create_credential(Request::new(request)).await).client_secret);
    }
    let dump = world.dump().await;
    for secret in secrets {
        let digits = secret.strip_prefix("secret_").unwrap();
        // bytea is shown in hexadecimal digits
        let as_bytea: String = digits[8..24].bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!dump.contains(&digits[8..24]) && !dump.contains(&as_bytea));
    }
    assert!(!dump.contains("secret_"), "not even a part");
}

#[tokio::test]
async fn a_credential_is_not_in_force_before_it_was_made() {
    let world = World::new().await;
    let chain = world.chain().await;
    let made = world.credential(&chain.app_id, None).await;
    world.clock.set(at("2026-03-01T11:59:59.999999Z"));
    assert!(!valid(&world, &made.client_id, &made.client_secret).await);
}

#[tokio::test]
async fn an_app_has_a_bounded_number_of_credentials() {
    let world = World::with(Rules { credentials_per_app_max: 2, ..Rules::default() }).await;
    let chain = world.chain().await;
    world.warm().await;
    for round in 0..10 {
        let app_id = world.app(&chain.account_id).await;
        let ask = || {
            let request = CreateCredentialRequest { app_id: app_id.clone(), ..Default::default() };
            world.hierarchy.create_credential(Request::new(request))
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        let refusals: Vec<_> = [a, b, c].into_iter().filter_map(Result::err).collect();
        let reasons: Vec<_> = refusals.iter().map(crate::world::reason).collect();
        assert_eq!(reasons, ["CREDENTIALS_TOO_MANY"], "round {round}");
    }
}

#[tokio::test]
async fn an_older_credential_moves_the_trial_where_nothing_is_settled() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    let (app, other) = (world.app(&account_id).await, world.app(&account_id).await);
    let started = || async {
        let request = GetAccountRequest { account_id: account_id.clone() };
        let account = ok(world.hierarchy.get_account(Request::new(request)).await).account.unwrap();
        (instant(account.trial_started_at.as_ref()), instant(account.trial_ends_at.as_ref()))
    };
    let client_id = world.credential(&app, Some("2026-02-10T00:00:00Z")).await.client_id;
    assert_eq!(started().await, (at("2026-02-10T00:00:00Z"), at("2026-05-11T00:00:00Z")));
    world.ledger.settle(&client_id, at("2026-02-20T00:00:00Z"));
    let older = |instant| CreateCredentialRequest {
        app_id: other.clone(),
        created_at: wire(at(instant)),
        request_id: String::new(),
    };
    let told = refused(world.hierarchy.create_credential(Request::new(older("2026-02-09T00:00:30Z"))).await);
    assert_eq!(told, ("WINDOW_SETTLED".to_owned(), vec!["created_at".to_owned()]));
    world.ledger.settle(&client_id, at("2026-02-08T23:59:00Z"));
    ok(world.hierarchy.create_credential(Request::new(older("2026-02-09T00:00:30Z"))).await);
    assert_eq!(started().await, (at("2026-02-09T00:00:30Z"), at("2026-05-10T00:01:00Z")));
    assert!(world.dump().await.contains("2026-02-10T00:00:00Z"), "the audit log has what was before");
}

#[tokio::test]
async fn the_ledger_is_asked_about_every_credential_of_an_account() {
    let world = World::new().await;
    let account_id = world.account(Some("2026-01-01T00:00:00Z"), false).await;
    let app_id = world.app(&account_id).await;
    let team_id = world.team(&account_id, Some("2026-01-01T00:00:00Z")).await;
    let first = world.credential(&app_id, Some("2026-02-10T00:00:00Z")).await.client_id;
    let chain = Chain { account_id, team_id, app_id };
    world.many_credentials(&chain, 2_100).await;
    let older = || {
        let (app_id, created_at) = (chain.app_id.clone(), wire(at("2026-02-01T00:00:00Z")));
        let request = CreateCredentialRequest { app_id, created_at, request_id: String::new() };
        world.hierarchy.create_credential(Request::new(request))
    };
    // client_999 sorts behind all the others: it is on the third page
    assert!(first.as_str() < "client_999");
    world.ledger.settle("client_999", at("2026-02-01T00:00:00Z"));
    assert_eq!(refused(older().await).0, "WINDOW_SETTLED");
    let pages: Vec<usize> = world.ledger.questions.lock().unwrap().iter().map(|(asked, _)| *asked).collect();
    assert_eq!(pages, [1_000, 1_000, 101]);
    world.ledger.settle("client_999", at("2026-01-31T23:59:00Z"));
    ok(older().await);
}
