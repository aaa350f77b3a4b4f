//! The server of `IngestService`: as generated, but that `Ingest` is read by a codec of its own.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use drawdown_proto::metering::v1 as wire;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{CompressionEncoding, EnabledCompressionEncodings},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{codec::IngestCodec, ingest::Ingest};

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
                let call = service_fn(|opening: Request<_>| {
                    let ingest = Arc::clone(&ingest);
                    async move { ingest.open_producer(opening.into_inner()).await.map(Response::new) }
                });
                Ok(server.grpc(ProstCodec::default()).unary(call, request).await)
            }),
            "/drawdown.metering.v1.IngestService/NameLost" => Box::pin(async move {
                let call = service_fn(|claims: Request<wire::NameLostRequest>| {
                    let ingest = Arc::clone(&ingest);
                    async move { ingest.name_lost(claims.get_ref()).await.map(Response::new) }
                });
                Ok(server.grpc(ProstCodec::default()).unary(call, request).await)
            }),
            "/drawdown.metering.v1.IngestService/Ingest" => Box::pin(async move {
                let call = service_fn(|frames: Request<_>| {
                    std::future::ready(ingest.ingest(frames.into_inner()).map(Response::new))
                });
                Ok(server.grpc(IngestCodec).streaming(call, request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) }),
        }
    }
}
