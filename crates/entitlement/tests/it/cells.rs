//! The cell of an account: given once, told with every answer about who pays.

use std::{sync::Arc, time::Duration};

use drawdown_entitlement::{AdoptionConfig, Adoptions};
use drawdown_proto::entitlement::v1::{GetAccountRequest, hierarchy_service_server::HierarchyService as _};
use tonic::Request;

use crate::world::{World, ok, reason};

#[tokio::test]
async fn whoever_asks_who_pays_is_told_the_cell() {
    let world = World::new().await;
    let (here, there) = (world.chain().await, world.chain_in(2).await.unwrap());
    let mut asked = Vec::new();
    for chain in [&here, &there] {
        let client_id = world.credential(&chain.app_id, None).await.client_id;
        world.clock.set(world.assign(&chain.app_id, &chain.team_id, None).await);
        asked.push(client_id);
    }
    let now = world.now();
    let mut cells = Vec::new();
    for client_id in &asked {
        cells.push(world.who_pays(client_id, &[now]).await.remove(0).unwrap().cell);
    }
    assert_eq!(cells, [0, 2]);
    let request = GetAccountRequest { account_id: there.account_id.clone() };
    let account = ok(world.hierarchy.get_account(Request::new(request)).await).account.unwrap();
    assert_eq!(account.cell, 2);
}

#[tokio::test]
async fn no_account_is_opened_where_no_ledger_is() {
    let world = World::new().await;
    for (cell, expected) in [(3, "CELL_UNKNOWN"), (255, "CELL_UNKNOWN"), (256, "REQUEST_INVALID")] {
        assert_eq!(reason(&world.chain_in(cell).await.err().unwrap()), expected, "{cell}");
    }
}

#[tokio::test]
async fn the_leading_ledger_is_not_told_of_first_teams_of_other_cells() {
    let world = World::new().await;
    let (here, there) = (world.chain().await, world.chain_in(1).await.unwrap());
    for chain in [&there, &here] {
        world.credential(&chain.app_id, None).await;
        world.clock.set(world.assign(&chain.app_id, &chain.team_id, None).await);
    }
    let config = AdoptionConfig { interval: Duration::from_secs(1), rows_max: 1 };
    let job = Adoptions::new(&world.parts, Arc::clone(&world.ledger) as _, config);
    assert_eq!(job.look().await.unwrap(), 1);
    let told: Vec<String> =
        world.ledger.adopted.lock().unwrap().iter().map(|told| told.app_id.to_string()).collect();
    assert_eq!(told, [here.app_id]);
}
