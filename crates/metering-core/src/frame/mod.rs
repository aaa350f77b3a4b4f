//! The frame: one to some thousand events, the record that a log keeps and chains, in one of two forms.
//!
//! Shape: on the wire a frame is the contract's `ColumnFrame` or `RowFrame`, read by hand, because a
//! generated decoder costs four to twenty times as much per event. [`FrameBuilder`] keeps the
//! columns encoded while it grows and allocates only the finished frame. [`FrameView`] borrows the
//! bytes of columns, checks everything that can be checked without a dictionary, and then walks the columns
//! without allocation and without a way to fail, so that whoever adds events up never has to undo.
//! [`RowBook`] reads rows: a row's series is found by its bytes and gets a number of the stream, so that what
//! follows is the same for both forms, which is what [`Frame`] says.
//! Fields that a later contract adds are skipped. Columns are written packed and in one piece.

use std::ops::RangeInclusive;

mod build;
mod definition;
mod header;
mod rows;
mod view;

pub use build::FrameBuilder;
pub use definition::{Definition, read_definitions};
pub use header::FrameLimits;
pub use rows::{RowBook, RowFrame, RowView, SERIES_BYTES_MAX};
pub use view::FrameView;

/// A checked frame, whichever form its bytes have.
pub trait Frame {
    /// The map version of the lane it extends.
    fn map_version(&self) -> u32;
    /// The shard of the lane it extends.
    fn shard(&self) -> u32;
    /// Number of events, at least 1.
    fn events(&self) -> u32;
    /// Sequences of its events.
    fn sequences(&self) -> RangeInclusive<u64>;
    /// When the events became durable in the producer's log, in ms since the epoch.
    fn received_at_ms(&self) -> i64;
    /// The series that come with it for the first time on its stream, by number.
    fn definitions(&self) -> &[Definition];
    /// The lane's chain after this frame.
    fn chain_after(&self, chain_before: u64) -> u64;
    /// Visits the series number of each event.
    fn for_each_series(&self, visit: impl FnMut(u32));
    /// Visits quantity and event time, in ms since the epoch, of each event.
    fn for_each_measure(&self, visit: impl FnMut(u64, i64));
    /// Where a part of an event stands.
    fn path(&self, part: Part, at: u32) -> String;
    /// How a fault calls the series of this number: its producer has to know it again.
    fn series_text(&self, number: u32) -> String;
}

/// A part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it is aggregated into.
    Series,
    /// Its quantity.
    Quantity,
    /// Its time.
    Time,
}

/// Field numbers of the contract, used by both halves.
mod number {
    pub(super) const FRAME_LANE: u32 = 1;
    pub(super) const FRAME_FIRST_SEQUENCE: u32 = 2;
    pub(super) const FRAME_EVENT_COUNT: u32 = 3;
    pub(super) const FRAME_RECEIVED_AT: u32 = 4;
    pub(super) const FRAME_DEFINITIONS: u32 = 5;
    pub(super) const FRAME_BASE_TIME: u32 = 6;
    pub(super) const FRAME_SERIES: u32 = 7;
    pub(super) const FRAME_QUANTITIES: u32 = 8;
    pub(super) const FRAME_TIME_DELTAS: u32 = 9;
    pub(super) const ROWS_RECEIVED_AT: u32 = 3;
    pub(super) const ROWS_ROWS: u32 = 4;
    pub(super) const ROW_SERIES: u32 = 1;
    pub(super) const ROW_QUANTITY: u32 = 2;
    pub(super) const ROW_TIME: u32 = 3;
    pub(super) const LANE_MAP_VERSION: u32 = 1;
    pub(super) const LANE_SHARD: u32 = 2;
    pub(super) const DEFINE_DEFINITIONS: u32 = 1;
    pub(super) const DEFINITION_NUMBER: u32 = 1;
    pub(super) const DEFINITION_SERIES: u32 = 2;
    pub(super) const SERIES_CLIENT_ID: u32 = 1;
    pub(super) const SERIES_METER: u32 = 2;
    pub(super) const SERIES_OUTCOME: u32 = 3;
    pub(super) const SERIES_DIMENSIONS: u32 = 4;
    pub(super) const SERIES_HOLD_ID: u32 = 5;
    pub(super) const DIMENSION_NAME: u32 = 1;
    pub(super) const DIMENSION_VALUE: u32 = 2;
}

#[cfg(test)]
mod tests;
