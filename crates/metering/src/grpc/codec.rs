//! The codec of `Ingest`: frames come as slices of the message they were sent in, everything else as generated
//! code reads it.
//!
//! Shape: a message costs no copy and a frame of rows no string; what a frame holds is read later, by whoever
//! knows its stream. What can not be read is refused here with a reason, which ends the stream: nothing says which
//! lane it would have been of.

use bytes::{Buf as _, Bytes};
use drawdown_metering_core::{
    chain,
    envelope::{Envelope, Sent},
};
use drawdown_proto::metering::v1::{self as wire, ingest_request::Request};
use drawdown_service::{Code, Refusal};
use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::reason;

/// A message of a producer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// A frame.
    Frame(LaneFrame),
    /// A serialized `DefineSeries`: generated code would make two hundred bytes of two.
    Define(Bytes),
    /// Anything else.
    Request(Request),
    /// Nothing that this version knows.
    Empty,
}

/// A frame on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneFrame {
    pub(super) form: Form,
    pub(super) chain_before: u64,
    /// As hashed: inside the message it came in.
    pub(super) body: Bytes,
    /// As its producer has it.
    pub(super) chain_after: Option<u64>,
}

impl LaneFrame {
    /// The chain after it; `None` where its producer has another one, so that it was changed on its way.
    pub(super) fn intact_chain(&self) -> Option<u64> {
        let found = chain::next(self.chain_before, &self.body);
        self.chain_after.is_none_or(|after| after == found).then_some(found)
    }
}

/// How a frame's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Columns,
    Rows,
}

/// Reads [`Message`]s, writes answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IngestCodec;

impl Codec for IngestCodec {
    type Encode = wire::IngestResponse;
    type Decode = Message;
    type Encoder = ProstEncoder<wire::IngestResponse>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        *self
    }
}

impl Decoder for IngestCodec {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        let message = buf.copy_to_bytes(buf.remaining());
        read(&message).map(Some).ok_or_else(|| unreadable("is no single request of the contract").into())
    }
}

fn read(message: &Bytes) -> Option<Message> {
    let frame = |form, sent: Sent<'_>| {
        let Sent { chain_before, frame, chain_after } = sent;
        Some(Message::Frame(LaneFrame { form, chain_before, body: message.slice_ref(frame), chain_after }))
    };
    match Envelope::read(message)? {
        Envelope::Columns(sent) => frame(Form::Columns, sent),
        Envelope::Rows(sent) => frame(Form::Rows, sent),
        Envelope::Define(list) => Some(Message::Define(message.slice_ref(list))),
        Envelope::Other => {
            let request = wire::IngestRequest::decode(message.clone()).ok()?.request;
            Some(request.map_or(Message::Empty, Message::Request))
        }
    }
}

pub(super) fn unreadable(why: &str) -> Refusal {
    Refusal::new(Code::InvalidArgument, reason::MESSAGE_MALFORMED, format!("a message {why}"))
        .violation("request", why)
}

/// Why a stream can not be read on: what the transport says of a message gets a reason of ours.
pub(super) fn refused(status: Status, message_bytes_max: usize) -> Status {
    match status.code() {
        // Longer than the limit as sent, or when decompressed: it was not decompressed further than that.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            let why = format!("has more than {message_bytes_max} bytes, compressed or not");
            Refusal::new(Code::InvalidArgument, reason::MESSAGE_TOO_LARGE, format!("a message {why}"))
                .violation("request", why)
                .into()
        }
        // It was cut, has a wrong flag, or can not be decompressed.
        tonic::Code::Internal => unreadable("can not be read from its transport").into(),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(request: Request) -> Bytes {
        wire::IngestRequest { request: Some(request) }.encode_to_vec().into()
    }

    #[test]
    fn frames_are_slices_of_their_message() {
        let body = b"columns".as_slice().into();
        let columns = bytes(Request::Frame(wire::LaneFrame { chain_before: 3, body, chain_after: Some(9) }));
        let row_frame = wire::RowFrame { first_sequence: 5, ..wire::RowFrame::default() };
        let serialized = row_frame.encode_to_vec();
        let rows = bytes(Request::Rows(wire::LaneRows {
            chain_before: 4,
            frame: Some(row_frame),
            chain_after: Some(9),
        }));
        let cases = [
            (columns, Form::Columns, 3, b"columns".as_slice()),
            (rows, Form::Rows, 4, serialized.as_slice()),
        ];
        for (message, form, chain_before, body) in cases {
            let Some(Message::Frame(frame)) = read(&message) else { panic!("{form:?}") };
            assert_eq!((frame.form, frame.chain_before, frame.body.as_ref()), (form, chain_before, body));
            assert_eq!(frame.chain_after, Some(9));
            assert!(message.as_ptr_range().contains(&frame.body.as_ptr()), "{form:?} was copied");
        }
    }

    #[test]
    fn other_requests_are_read_by_generated_code() {
        let hello = Request::Hello(wire::Hello { producer_id: "p".to_owned(), epoch: 7 });
        assert_eq!(read(&bytes(hello.clone())), Some(Message::Request(hello)));
        assert_eq!(read(&Bytes::new()), Some(Message::Empty));
        // A hello whose id is no UTF-8, two requests, no protobuf.
        for broken in [&[0x0a, 3, 0x0a, 1, 0xff][..], &[0x0a, 0, 0x0a, 0], &[0xff]] {
            assert_eq!(read(&Bytes::copy_from_slice(broken)), None, "{broken:?}");
        }
    }
}
