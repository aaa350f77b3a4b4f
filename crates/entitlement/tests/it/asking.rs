//! The question to the ledger as it goes over the wire.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use drawdown_client::{ChannelOptions, connect};
use drawdown_entitlement::{CellLedgers, Ledger, LedgerFacts as _};
use drawdown_proto::ledger::v1::{
    BeginResetRequest, BeginResetResponse, CreateProducerRequest, CreateProducerResponse, GetCellPartRequest,
    GetCellPartResponse, GetShardsRequest, GetShardsResponse, HasSettledUsageRequest,
    HasSettledUsageResponse, NameLostRequest, NameLostResponse, OpenProducerRequest, OpenProducerResponse,
    PostBatchRequest, PostBatchResponse, ResetAllShardsRequest, ResetAllShardsResponse,
    settlement_service_server::{SettlementService, SettlementServiceServer},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::world::{at, wire};

#[derive(Clone, Default)]
struct Listening(Arc<Mutex<Vec<HasSettledUsageRequest>>>);

type Answer<T> = Result<Response<T>, Status>;

fn never<T>() -> Answer<T> {
    Err(Status::unimplemented("not asked here"))
}

#[tonic::async_trait]
impl SettlementService for Listening {
    async fn has_settled_usage(
        &self,
        request: Request<HasSettledUsageRequest>,
    ) -> Answer<HasSettledUsageResponse> {
        let request = request.into_inner();
        let settled = request.client_ids.iter().any(|id| id == "client_settled");
        self.0.lock().unwrap().push(request);
        Ok(Response::new(HasSettledUsageResponse { settled }))
    }

    async fn post_batch(&self, _: Request<PostBatchRequest>) -> Answer<PostBatchResponse> {
        never()
    }

    async fn get_cell_part(&self, _: Request<GetCellPartRequest>) -> Answer<GetCellPartResponse> {
        never()
    }

    async fn get_shards(&self, _: Request<GetShardsRequest>) -> Answer<GetShardsResponse> {
        never()
    }

    async fn begin_reset(&self, _: Request<BeginResetRequest>) -> Answer<BeginResetResponse> {
        never()
    }

    async fn reset_all_shards(&self, _: Request<ResetAllShardsRequest>) -> Answer<ResetAllShardsResponse> {
        never()
    }

    async fn create_producer(&self, _: Request<CreateProducerRequest>) -> Answer<CreateProducerResponse> {
        never()
    }

    async fn open_producer(&self, _: Request<OpenProducerRequest>) -> Answer<OpenProducerResponse> {
        never()
    }

    async fn name_lost(&self, _: Request<NameLostRequest>) -> Answer<NameLostResponse> {
        never()
    }
}

#[tokio::test]
async fn the_ledger_hears_the_client_ids_and_the_edge() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Listening::default();
    let server = tonic::transport::Server::builder()
        .add_service(SettlementServiceServer::new(heard.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let leading = Ledger::new(connect(&ChannelOptions::to(format!("http://{address}"))).unwrap());
    let ledger = CellLedgers { leading, others: BTreeMap::new() };
    let edge = at("2026-02-01T00:01:00Z");
    for (client_id, settled) in [("client_settled", true), ("client_new", false)] {
        let client_ids = vec!["client_a".to_owned(), client_id.to_owned()];
        assert_eq!(ledger.has_settled(client_ids.clone(), edge).await.unwrap(), settled);
        let expected = HasSettledUsageRequest { client_ids, team_id: String::new(), from: wire(edge) };
        assert_eq!(heard.0.lock().unwrap().pop(), Some(expected));
    }
    server.abort();
}
