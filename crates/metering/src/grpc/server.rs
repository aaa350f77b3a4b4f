//! The server of `IngestService`: as generated, but that `Ingest` is read by a codec of its own.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use drawdown_proto::metering::v1 as wire;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{CompressionEncoding, EnabledCompressionEncodings},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

use super::{
    codec::{IngestCodec, Message},
    ingest::{Answers, Ingest},
};

/// The service behind its paths.
#[derive(Clone)]
pub(crate) struct IngestServer {
    ingest: Arc<Ingest>,
    message_bytes_max: usize,
}

impl IngestServer {
    /// Takes messages of at most so many bytes, compressed or not.
    pub(crate) fn new(ingest: Ingest, message_bytes_max: usize) -> Self {
        Self { ingest: Arc::new(ingest), message_bytes_max }
    }

    fn grpc<C: tonic::codec::Codec>(&self, codec: C) -> Grpc<C> {
        let mut accepted = EnabledCompressionEncodings::default();
        accepted.enable(CompressionEncoding::Zstd);
        accepted.enable(CompressionEncoding::Gzip);
        Grpc::new(codec)
            .apply_compression_config(accepted, EnabledCompressionEncodings::default())
            .apply_max_message_size_config(Some(self.message_bytes_max), None)
    }
}

impl NamedService for IngestServer {
    const NAME: &'static str = "drawdown.metering.v1.IngestService";
}

struct OpenProducer(Arc<Ingest>);

impl UnaryService<wire::OpenProducerRequest> for OpenProducer {
    type Response = wire::OpenProducerResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<wire::OpenProducerRequest>) -> Self::Future {
        let ingest = Arc::clone(&self.0);
        Box::pin(async move { ingest.open_producer(request.into_inner()).await.map(Response::new) })
    }
}

struct NameLost(Arc<Ingest>);

impl UnaryService<wire::NameLostRequest> for NameLost {
    type Response = wire::NameLostResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<wire::NameLostRequest>) -> Self::Future {
        let ingest = Arc::clone(&self.0);
        Box::pin(async move { ingest.name_lost(&request.into_inner()).await.map(Response::new) })
    }
}

struct Stream(Arc<Ingest>);

impl StreamingService<Message> for Stream {
    type Response = wire::IngestResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        let ingest = Arc::clone(&self.0);
        Box::pin(async move { ingest.ingest(request.into_inner()).map(Response::new) })
    }
}

impl Service<http::Request<Body>> for IngestServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (server, ingest) = (self.clone(), Arc::clone(&self.ingest));
        match request.uri().path() {
            "/drawdown.metering.v1.IngestService/OpenProducer" => Box::pin(async move {
                Ok(server.grpc(ProstCodec::default()).unary(OpenProducer(ingest), request).await)
            }),
            "/drawdown.metering.v1.IngestService/NameLost" => Box::pin(async move {
                Ok(server.grpc(ProstCodec::default()).unary(NameLost(ingest), request).await)
            }),
            "/drawdown.metering.v1.IngestService/Ingest" => {
                Box::pin(async move { Ok(server.grpc(IngestCodec).streaming(Stream(ingest), request).await) })
            }
            _ => Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) }),
        }
    }
}
