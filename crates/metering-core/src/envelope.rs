//! The message around a frame, read without copying the frame.
//!
//! A stream's hot messages are frames, its long ones definitions; for everything else the caller uses generated code. Stricter than
//! protobuf asks for: a message with two requests, or a frame with a field twice, is refused, because generated
//! decoders would merge or drop parts and nobody could tell which bytes are hashed.

use crate::wire::{Field, Reader};

/// Field numbers of the contract.
mod number {
    pub(super) const REQUEST_HELLO: u32 = 1;
    pub(super) const REQUEST_ATTACH: u32 = 2;
    pub(super) const REQUEST_DEFINE: u32 = 3;
    pub(super) const REQUEST_FRAME: u32 = 4;
    pub(super) const REQUEST_ROWS: u32 = 5;
    pub(super) const CHAIN_BEFORE: u32 = 1;
    pub(super) const FRAME: u32 = 2;
    pub(super) const CHAIN_AFTER: u32 = 3;
}

/// A frame as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// The lane's chain before the frame, as its producer has it.
    pub chain_before: u64,
    /// The frame's bytes, which are hashed.
    pub frame: &'a [u8],
    /// The lane's chain after the frame, as its producer has it.
    pub chain_after: Option<u64>,
}

/// What an `IngestRequest` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A `ColumnFrame`.
    Columns(Sent<'a>),
    /// A `RowFrame`.
    Rows(Sent<'a>),
    /// A `DefineSeries`.
    Define(&'a [u8]),
    /// Neither: a request that generated code reads, or none.
    Other,
}

impl<'a> Envelope<'a> {
    /// Looks into a serialized `IngestRequest`; `None` where the bytes are none, or carry two requests.
    #[must_use]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let mut found = None;
        let mut reader = Reader::new(message);
        while !reader.is_empty() {
            let envelope = match reader.field()? {
                (number::REQUEST_FRAME, Field::Bytes(bytes)) => Self::Columns(Sent::read(bytes)?),
                (number::REQUEST_ROWS, Field::Bytes(bytes)) => Self::Rows(Sent::read(bytes)?),
                (number::REQUEST_DEFINE, Field::Bytes(bytes)) => Self::Define(bytes),
                (number::REQUEST_HELLO..=number::REQUEST_ATTACH, Field::Bytes(_)) => Self::Other,
                (number::REQUEST_HELLO..=number::REQUEST_ROWS, _) => return None,
                _ => continue,
            };
            if found.replace(envelope).is_some() {
                return None;
            }
        }
        Some(found.unwrap_or(Self::Other))
    }
}

impl<'a> Sent<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut chain_before, mut frame, mut chain_after) = (None, None, None);
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let repeated = match reader.field()? {
                (number::CHAIN_BEFORE, Field::Fixed64(value)) => chain_before.replace(value).is_some(),
                (number::FRAME, Field::Bytes(bytes)) => frame.replace(bytes).is_some(),
                (number::CHAIN_AFTER, Field::Fixed64(value)) => chain_after.replace(value).is_some(),
                (number::CHAIN_BEFORE..=number::CHAIN_AFTER, _) => true,
                _ => false,
            };
            if repeated {
                return None;
            }
        }
        // What is empty is not written.
        Some(Self {
            chain_before: chain_before.unwrap_or_default(),
            frame: frame.unwrap_or_default(),
            chain_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use drawdown_proto::metering::v1::{self as proto, ingest_request::Request};
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;

    fn message(request: Request) -> Vec<u8> {
        proto::IngestRequest { request: Some(request) }.encode_to_vec()
    }

    fn columns(chain_before: u64, body: &[u8]) -> Vec<u8> {
        message(Request::Frame(proto::LaneFrame {
            chain_before,
            body: body.to_vec().into(),
            chain_after: Some(5),
        }))
    }

    #[test]
    fn frames_are_found_and_everything_else_is_left_to_generated_code() {
        let body = b"whatever it is".as_slice();
        let read = columns(7, body);
        let sent = Sent { chain_before: 7, frame: body, chain_after: Some(5) };
        assert_eq!(Envelope::read(&read), Some(Envelope::Columns(sent)));
        let frame = proto::RowFrame { first_sequence: 3, ..proto::RowFrame::default() };
        let serialized = frame.encode_to_vec();
        let read = message(Request::Rows(proto::LaneRows {
            chain_before: 9,
            frame: Some(frame),
            chain_after: None,
        }));
        let sent = Sent { chain_before: 9, frame: &serialized, chain_after: None };
        assert_eq!(Envelope::read(&read), Some(Envelope::Rows(sent)));
        let hello = proto::Hello { producer_id: "p".to_owned(), epoch: 1 };
        assert_eq!(Envelope::read(&message(Request::Hello(hello))), Some(Envelope::Other));
        assert_eq!(Envelope::read(&[]), Some(Envelope::Other));
        // A field that a later contract adds.
        assert_eq!(Envelope::read(&[0xb2, 6, 1, 7]), Some(Envelope::Other));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let (one, other) = (columns(1, b"a"), columns(2, b"b"));
        let hello = message(Request::Hello(proto::Hello::default()));
        for both in [[one.as_slice(), &other].concat(), [one.as_slice(), &hello].concat()] {
            assert_eq!(Envelope::read(&both), None);
        }
        // The body twice, another wire type, a length past the end.
        for bytes in [&[0x22, 4, 0x12, 0, 0x12, 0][..], &[0x22, 2, 0x10, 1], &[0x20, 1], &[0x22, 9, 1]] {
            assert_eq!(Envelope::read(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_generated_code_reads_alike(
            body in vec(any::<u8>(), 0..30),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = columns(0x0102_0304_0506_0708, &body);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let Some(Envelope::Columns(sent)) = Envelope::read(&bytes) else { return Ok(()) };
            let generated = proto::IngestRequest::decode(bytes.as_slice()).unwrap();
            let Some(Request::Frame(frame)) = generated.request else { panic!("{generated:?}") };
            prop_assert_eq!(
                (frame.chain_before, frame.body.as_ref(), frame.chain_after),
                (sent.chain_before, sent.frame, sent.chain_after)
            );
        }
    }
}
