//! Where the tokens of a purchase go (D37).

use drawdown_proto::entitlement::v1::{
    ListAuditRequest, ListRolesRequest, PreparePurchaseRequest, PreparePurchaseResponse, Role,
    account_service_server::AccountService as _, history_service_server::HistoryService as _,
    member_service_server::MemberService as _,
};
use tonic::{Request, Response, Status};

use crate::world::{World, ok, refused};

async fn prepare(
    world: &World,
    account_id: &str,
    change: impl FnOnce(&mut PreparePurchaseRequest),
) -> Result<Response<PreparePurchaseResponse>, Status> {
    let mut request =
        PreparePurchaseRequest { account_id: account_id.to_owned(), ..PreparePurchaseRequest::default() };
    change(&mut request);
    world.accounts.prepare_purchase(Request::new(request)).await
}

#[tokio::test]
async fn d37_the_first_purchase_creates_the_first_team_and_the_buyer_is_its_admin() {
    let world = World::new().await;
    let account_id = world.account(None, true).await;
    let buyer = world.user("buyer@example.org").await;
    let named = |request: &mut PreparePurchaseRequest| {
        request.by_user_id = buyer.clone();
        request.request_id = "first".to_owned();
    };
    let first = ok(prepare(&world, &account_id, named).await);
    let team = first.team.clone().unwrap();
    assert_eq!((team.name.as_str(), team.account_id.as_str()), ("Example", account_id.as_str()));
    assert!(first.created);
    assert_eq!(ok(prepare(&world, &account_id, named).await), first, "a retry");
    let again = ok(prepare(&world, &account_id, |_| {}).await);
    assert_eq!((again.team, again.created), (Some(team.clone()), false), "the second purchase");

    let request = ListRolesRequest { team_id: team.team_id.clone(), ..ListRolesRequest::default() };
    let roles = ok(world.members.list_roles(Request::new(request)).await).roles;
    let [role] = &roles[..] else { panic!("one role") };
    assert_eq!((role.user_id.as_str(), role.role()), (buyer.as_str(), Role::PrimaryAdmin));
    let request = ListAuditRequest { subject: team.team_id, ..ListAuditRequest::default() };
    let entries = ok(world.histories.list_audit(Request::new(request)).await).records;
    let [entry] = &entries[..] else { panic!("one entry") };
    assert_eq!((entry.method.as_str(), entry.actor.as_str()), ("PreparePurchase", buyer.as_str()));
}

#[tokio::test]
async fn d37_with_several_teams_the_buyer_names_one_of_the_account() {
    let world = World::new().await;
    let chain = world.chain().await;
    let only = ok(prepare(&world, &chain.account_id, |_| {}).await).team.unwrap();
    assert_eq!(only.team_id, chain.team_id);
    let second = world.team(&chain.account_id, None).await;
    let unnamed = refused(prepare(&world, &chain.account_id, |_| {}).await);
    assert_eq!(unnamed, ("TEAM_NOT_NAMED".to_owned(), vec!["team_id".to_owned()]));
    let named = prepare(&world, &chain.account_id, |request| request.team_id = second.clone()).await;
    assert_eq!(ok(named).team.unwrap().team_id, second);
    let other = world.chain().await.team_id;
    let foreign = refused(prepare(&world, &chain.account_id, |request| request.team_id = other).await);
    assert_eq!(foreign, ("TEAM_NOT_OF_ACCOUNT".to_owned(), vec!["team_id".to_owned()]));
}

#[tokio::test]
async fn d50_no_first_team_comes_of_a_purchase_in_a_trial() {
    let world = World::new().await;
    let account_id = world.account(None, false).await;
    let app_id = world.app(&account_id).await;
    world.credential(&app_id, None).await;
    let in_trial = refused(prepare(&world, &account_id, |_| {}).await);
    assert_eq!(in_trial, ("TRIAL_ACTIVE".to_owned(), vec!["account_id".to_owned()]));
    let before = world.account(None, false).await;
    assert!(ok(prepare(&world, &before, |_| {}).await).created, "its trial did not begin");
}

#[tokio::test]
async fn d37_two_first_purchases_at_once_make_one_team() {
    let world = World::new().await;
    world.warm().await;
    for _ in 0..10 {
        let account_id = world.account(None, true).await;
        let both =
            futures::future::join(prepare(&world, &account_id, |_| {}), prepare(&world, &account_id, |_| {}));
        let (one, other) = both.await;
        let (one, other) = (ok(one), ok(other));
        assert_eq!(one.team, other.team);
        assert!(one.created != other.created);
    }
}
