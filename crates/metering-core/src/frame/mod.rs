//! The frame: one to some thousand events in columns, the record that a log keeps and chains.
//!
//! Shape: on the wire it is the contract's `ColumnFrame`, written and read by hand, because a
//! generated decoder costs four to twenty times as much per event. [`FrameBuilder`] keeps the
//! columns encoded while it grows and allocates only the finished frame. [`FrameView`] borrows the
//! bytes, checks everything that can be checked without a dictionary, and then walks the columns
//! without allocation and without a way to fail, so that whoever adds events up never has to undo.
//! Fields that a later contract adds are skipped. Columns are written packed and in one piece.

mod build;
mod view;

pub use build::FrameBuilder;
pub use view::{Definition, FrameLimits, FrameView};

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
    pub(super) const LANE_MAP_VERSION: u32 = 1;
    pub(super) const LANE_SHARD: u32 = 2;
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
