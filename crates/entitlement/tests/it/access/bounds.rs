//! How much may be asked at once, and by how many watchers.

use drawdown_proto::entitlement::v1::{
    BatchCheckAccessRequest, CheckAccessRequest, WatchAccessRequest,
    access_service_server::AccessService as _,
};
use futures::StreamExt as _;
use tonic::{Request, Status};

use super::gate::{Gate, PATIENCE, question};
use crate::world::{ok, reason, refused};

#[tokio::test]
async fn batches_and_watchers_are_bounded() {
    let gate = Gate::new().await;
    let batch = async |count: usize| {
        let questions = vec![question("client_x", "tile"); count];
        gate.access
            .batch_check_access(Request::new(BatchCheckAccessRequest { questions, with_billed_to: false }))
            .await
    };
    assert_eq!(ok(batch(3).await).answers.len(), 3);
    assert_eq!(refused(batch(4).await), ("BATCH_TOO_LARGE".to_owned(), vec!["questions".to_owned()]));
    assert_eq!(refused(batch(0).await), ("REQUEST_INVALID".to_owned(), vec!["questions".to_owned()]));
    let nothing = gate.access.check_access(Request::new(CheckAccessRequest::default())).await;
    assert_eq!(refused(nothing), ("REQUEST_INVALID".to_owned(), vec!["question".to_owned()]));
    let watch = async |count: usize| {
        let questions = vec![question("client_x", "tile"); count];
        let request = WatchAccessRequest { questions, with_billed_to: false, with_amounts: false };
        gate.access.watch_access(Request::new(request)).await.map(|answer| answer.into_inner())
    };
    let told = |status: Status| reason(&status);
    assert_eq!(watch(11).await.map_err(told).err().unwrap(), "BATCH_TOO_LARGE");
    assert_eq!(watch(0).await.map_err(told).err().unwrap(), "REQUEST_INVALID");
    let mut first = watch(7).await.unwrap();
    let second = watch(1).await.unwrap();
    assert_eq!(watch(1).await.map_err(told).err().unwrap(), "WATCHERS_EXHAUSTED");
    drop(second);
    drop(watch(1).await.unwrap());
    // three answers a message, and complete with the last of them
    let mut sizes = Vec::new();
    loop {
        let message = first.next().await.unwrap().unwrap();
        sizes.push((message.answers.len(), message.complete));
        if message.complete {
            break;
        }
    }
    assert_eq!(sizes, [(3, false), (3, false), (1, true)]);
    let alive = tokio::time::timeout(PATIENCE, first.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((alive.answers.len(), alive.complete, alive.ledger_age_ms), (0, true, Some(0)));
}
