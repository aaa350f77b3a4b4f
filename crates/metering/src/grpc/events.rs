//! The server of `RecordService`: as generated, but that events are counted before any of them is read.
//!
//! An event of two bytes takes two hundred when it is read, so a message within its limit could fill the memory of a
//! process with events that a call may not have at all.

use std::{
    convert::Infallible,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Buf as _;
use drawdown_metering_core::count_messages;
use drawdown_service::{Code, Refusal};
use prost::Message;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
};
use tonic_prost::ProstEncoder;
use tower::service_fn;

use super::{codec::unreadable, record::Record};
use crate::reason;

/// Where the events of a request are.
struct Events {
    /// The fields that lead to them.
    path: &'static [u32],
    /// As callers know it.
    field: &'static str,
}

const OF_RECORD_USAGE: Events = Events { path: &[1], field: "events" };
const OF_CLOUD_EVENTS: Events = Events { path: &[1, 1], field: "batch.events" };

impl Events {
    /// Whether a call may have as many as its message has.
    fn check(&self, message: &[u8], max: usize) -> Result<(), Refusal> {
        let Some(count) = count_messages(message, self.path) else {
            return Err(unreadable("is no request of the contract"));
        };
        if (1..=max).contains(&count) {
            return Ok(());
        }
        let why = format!("has {count} events, 1 to {max} are allowed");
        Err(Refusal::new(Code::InvalidArgument, reason::EVENTS_COUNT, why.clone()).violation(self.field, why))
    }
}

/// Reads requests with as many events as they may have, writes answers.
struct Counted<Read, Written> {
    events: &'static Events,
    events_max: usize,
    kinds: PhantomData<(Read, Written)>,
}

impl<Read, Written> Counted<Read, Written> {
    const fn new(events: &'static Events, events_max: usize) -> Self {
        Self { events, events_max, kinds: PhantomData }
    }
}

impl<Read, Written> Codec for Counted<Read, Written>
where
    Read: Message + Default + 'static,
    Written: Message + 'static,
{
    type Encode = Written;
    type Decode = Read;
    type Encoder = ProstEncoder<Written>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::new(self.events, self.events_max)
    }
}

impl<Read: Message + Default, Written> Decoder for Counted<Read, Written> {
    type Item = Read;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Read>, Status> {
        let message = buf.copy_to_bytes(buf.remaining());
        self.events.check(&message, self.events_max)?;
        Read::decode(message).map(Some).map_err(|_| unreadable("is no request of the contract").into())
    }
}

/// The service behind its paths.
#[derive(Clone)]
pub(crate) struct RecordServer {
    record: Arc<Record>,
    message_bytes_max: usize,
}

impl RecordServer {
    /// Takes messages of at most so many bytes.
    pub(crate) fn new(record: Record, message_bytes_max: usize) -> Self {
        Self { record: Arc::new(record), message_bytes_max }
    }

    fn grpc<C: Codec>(&self, codec: C) -> Grpc<C> {
        Grpc::new(codec).apply_max_message_size_config(Some(self.message_bytes_max), None)
    }
}

impl NamedService for RecordServer {
    const NAME: &'static str = "drawdown.metering.v1.RecordService";
}

impl Service<http::Request<Body>> for RecordServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (server, record) = (self.clone(), Arc::clone(&self.record));
        let events_max = record.events_max();
        match request.uri().path() {
            "/drawdown.metering.v1.RecordService/RecordUsage" => Box::pin(async move {
                let call = service_fn(|usage: Request<_>| {
                    let record = Arc::clone(&record);
                    async move { record.record_usage(usage.into_inner()).await.map(Response::new) }
                });
                Ok(server.grpc(Counted::new(&OF_RECORD_USAGE, events_max)).unary(call, request).await)
            }),
            "/drawdown.metering.v1.RecordService/RecordCloudEvents" => Box::pin(async move {
                let call = service_fn(|events: Request<_>| {
                    let record = Arc::clone(&record);
                    async move { record.record_cloud_events(events.into_inner()).await.map(Response::new) }
                });
                Ok(server.grpc(Counted::new(&OF_CLOUD_EVENTS, events_max)).unary(call, request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use drawdown_proto::{
        io::cloudevents::v1::{CloudEvent, CloudEventBatch},
        metering::v1 as wire,
    };

    use super::*;

    /// The reason, where a message is not taken.
    fn refused(events: &Events, message: &[u8]) -> Option<&'static str> {
        events.check(message, 3).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn events_are_counted_as_they_would_be_read() {
        let usage = |count| wire::RecordUsageRequest { events: vec![wire::UsageEvent::default(); count] };
        let batch = |count| wire::RecordCloudEventsRequest {
            batch: Some(CloudEventBatch { events: vec![CloudEvent::default(); count] }),
        };
        for (count, reason) in [(0, true), (1, false), (3, false), (4, true), (1 << 20, true)] {
            let reason = reason.then_some(reason::EVENTS_COUNT);
            assert_eq!(refused(&OF_RECORD_USAGE, &usage(count).encode_to_vec()), reason, "{count}");
            assert_eq!(refused(&OF_CLOUD_EVENTS, &batch(count).encode_to_vec()), reason, "{count}");
        }
        // A batch that comes twice is merged by whoever reads it.
        let twice = [batch(2).encode_to_vec(), batch(2).encode_to_vec()].concat();
        assert_eq!(wire::RecordCloudEventsRequest::decode(&*twice).unwrap().batch.unwrap().events.len(), 4);
        assert_eq!(refused(&OF_CLOUD_EVENTS, &twice), Some(reason::EVENTS_COUNT));
        assert_eq!(refused(&OF_RECORD_USAGE, &[0x0a, 9]), Some(reason::MESSAGE_MALFORMED));
    }
}
