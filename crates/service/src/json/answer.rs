//! From the answer of a method to JSON: one object for a unary method, a line for each message of a stream.
//!
//! Fields without presence are always there, also where they are 0 or empty: a reader in any language may take the sum of a
//! field without asking whether it exists. Everything else is proto3 JSON: 64-bit integers as text, enums by name, instants
//! as RFC 3339, bytes in base64.
//!
//! A line is `{"result": …}`. What fails after the first line can not change the HTTP code any more, so it is a last line
//! `{"error": …}` with a `google.rpc.Status`. A body that is cut before its end shows in HTTP itself.

use std::{convert::Infallible, future::Future};

use axum::body::Body as JsonBody;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::{Code, Status, body::Body};

use super::status::{Refusals, internal};

/// A flag and the length of a message in front of it.
const PREFIX_BYTES: usize = 5;
/// Longer messages are turned on a thread that may take its time, so that other calls of the process are not held up.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// A message as a gRPC body has it.
pub(crate) fn framed(message: &DynamicMessage) -> Bytes {
    use prost::Message as _;
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(PREFIX_BYTES + encoded.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.into()
}

/// As proto3 JSON, with defaults.
pub(crate) fn text_of(message: &DynamicMessage) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// The answer of a unary method, or why there is none.
pub(crate) async fn unary(
    output: MessageDescriptor,
    refusals: &Refusals,
    response: Response<Body>,
) -> Response<JsonBody> {
    let (head, body) = response.into_parts();
    let told = match refused(&head.headers) {
        Some(status) => Err(status),
        None => whole(body, output).await,
    };
    let response = match told {
        Ok(text) => of_kind(super::JSON, JsonBody::from(text)),
        Err(status) => refusals.response(&status),
    };
    with_headers(response, &head.headers)
}

/// The answers of a stream, or why it did not begin.
pub(crate) fn stream(
    output: MessageDescriptor,
    refusals: Refusals,
    response: Response<Body>,
) -> Response<JsonBody> {
    let (head, body) = response.into_parts();
    let response = match refused(&head.headers) {
        Some(status) => refusals.response(&status),
        None => {
            let lines = Lines { body, output, refusals, buffer: BytesMut::new(), ended: false };
            let lines = futures::stream::unfold(lines, |mut lines| async move {
                lines.next().await.map(|line| (Ok::<_, Infallible>(line), lines))
            });
            of_kind(super::LINES, JsonBody::from_stream(lines))
        }
    };
    with_headers(response, &head.headers)
}

fn of_kind(kind: &'static str, body: JsonBody) -> Response<JsonBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What the layers and the handler said in the head, but for what belongs to gRPC.
fn with_headers(mut response: Response<JsonBody>, inner: &HeaderMap) -> Response<JsonBody> {
    for (name, value) in inner {
        if *name != header::CONTENT_TYPE && !name.as_str().starts_with("grpc-") {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    response
}

/// The status in a head or in trailers, where it is not OK.
pub(crate) fn refused(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

async fn whole(body: Body, output: MessageDescriptor) -> Result<String, Status> {
    let collected = body.collect().await?;
    match collected.trailers().map(Status::from_header_map) {
        Some(Some(status)) if status.code() == Code::Ok => {}
        Some(Some(status)) => return Err(status),
        Some(None) | None => return Err(internal("a method ended without a status")),
    }
    let mut buffer = BytesMut::from(collected.to_bytes());
    let message = take_message(&mut buffer).filter(|_| buffer.is_empty());
    json(message.ok_or_else(|| internal("a unary method has not answered once"))?, output).await
}

/// The next message, where all of it is there.
fn take_message(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..PREFIX_BYTES)?.try_into().ok().map(u32::from_be_bytes)?;
    let length = usize::try_from(length).ok()?;
    if buffer.len() - PREFIX_BYTES < length {
        return None;
    }
    buffer.advance(PREFIX_BYTES);
    Some(buffer.split_to(length).freeze())
}

fn json(message: Bytes, output: MessageDescriptor) -> impl Future<Output = Result<String, Status>> {
    let turn = move |message: Bytes| {
        let message = DynamicMessage::decode(output, message).map_err(crate::refusal::internal)?;
        text_of(&message).map_err(crate::refusal::internal)
    };
    async move {
        if message.len() <= INLINE_BYTES_MAX {
            return turn(message);
        }
        tokio::task::spawn_blocking(move || turn(message)).await.map_err(crate::refusal::internal)?
    }
}

/// A stream that is turned line by line: no faster than its reader takes them.
struct Lines {
    body: Body,
    output: MessageDescriptor,
    refusals: Refusals,
    buffer: BytesMut,
    ended: bool,
}

// === impl Lines ===

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let line = match self.message().await {
            Ok(Some(message)) => json(message, self.output.clone()).await,
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        let line = match line {
            Ok(text) => format!("{{\"result\":{text}}}\n"),
            Err(status) => {
                self.ended = true;
                format!("{{\"error\":{}}}\n", self.refusals.json(&status))
            }
        };
        Some(line.into())
    }

    /// The next message; `None` where the stream has ended well.
    async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = take_message(&mut self.buffer) {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Err(internal("a stream ended without a status"));
            };
            match frame?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => match frame.trailers_ref().and_then(Status::from_header_map) {
                    Some(status) if status.code() == Code::Ok => return Ok(None),
                    Some(status) => return Err(status),
                    None => return Err(internal("a stream ended without a status")),
                },
            }
        }
    }
}
