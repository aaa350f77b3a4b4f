//! What was freed: where the frames of deleted segments ended, and the chain there.
//!
//! Shape: before segments are deleted, one file `<number of the last of them>.freed` is written and made durable:
//! one record, in the form of all records of a log, with a lane's first sequence and for each frame its number of
//! events and its chain (12 bytes a frame). Nothing reads them but a producer whose ledger was restored to before what
//! it has freed: only with the chain of just that place can it prove which events are lost. Oldest files go first when
//! there are more bytes than may be; what is older is in doubt then, and not named.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use drawdown_metering_core::shard::{Lane, Position};
use drawdown_types::ProducerId;

use super::{
    LogError, Positions,
    codec::{Decoder, put_len, put_u32, put_u64},
    meta::sync_directory,
    record::{HEADER_LEN, KIND_FREED, seal, sound},
};

const SUFFIX: &str = "freed";
const SUFFIX_NEXT: &str = "freed-next";

/// Where frames of one lane ended, in order; the first one began after `before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreedFrames {
    pub(crate) lane: Lane,
    pub(crate) before: u64,
    pub(crate) ends: Vec<Position>,
}

fn encode(lanes: &[FreedFrames], number: u64) -> Option<Vec<u8>> {
    let mut out = vec![0; HEADER_LEN];
    out.push(KIND_FREED);
    put_len(&mut out, lanes.len())?;
    for lane in lanes {
        put_u32(&mut out, lane.lane.map_version);
        put_u32(&mut out, lane.lane.shard);
        put_u64(&mut out, lane.before);
        put_len(&mut out, lane.ends.len())?;
        let mut before = lane.before;
        for end in &lane.ends {
            put_u32(&mut out, u32::try_from(end.sequence.checked_sub(before)?).ok()?);
            put_u64(&mut out, end.chain);
            before = end.sequence;
        }
    }
    seal(&mut out, number)?;
    Some(out)
}

fn decode(bytes: &[u8], producer: ProducerId) -> Option<Vec<FreedFrames>> {
    let record = sound(bytes).filter(|record| record.len == bytes.len())?;
    let mut input = Decoder::new(record.payload);
    if input.u8()? != KIND_FREED {
        return None;
    }
    let mut lanes = Vec::new();
    for _ in 0..input.len()? {
        let lane = Lane { producer, map_version: input.u32()?, shard: input.u32()? };
        let before = input.u64()?;
        let mut sequence = before;
        let mut ends = Vec::new();
        for _ in 0..input.len()? {
            sequence = sequence.checked_add(input.u32()?.into())?;
            ends.push(Position { sequence, chain: input.u64()? });
        }
        lanes.push(FreedFrames { lane, before, ends });
    }
    (input.rest() == 0).then_some(lanes)
}

/// Writes down what the segments up to `number` held. Once this returns they may be deleted.
pub(super) fn write(dir: &Path, number: u64, lanes: &[FreedFrames]) -> Result<(), LogError> {
    let record = encode(lanes, number).ok_or(LogError::RecordTooLarge)?;
    let (next, path) = (path_of(dir, number, SUFFIX_NEXT), path_of(dir, number, SUFFIX));
    let mut file = File::create(&next).map_err(LogError::io("create", &next))?;
    file.write_all(&record).and_then(|()| file.sync_all()).map_err(LogError::io("write", &next))?;
    std::fs::rename(&next, &path).map_err(LogError::io("rename", &path))?;
    sync_directory(dir)
}

fn path_of(dir: &Path, number: u64, suffix: &str) -> PathBuf {
    dir.join(format!("{number:012}.{suffix}"))
}

/// The files, oldest first, with their sizes.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>, LogError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LogError::io("list", dir))? {
        let entry = entry.map_err(LogError::io("list", dir))?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            let bytes = entry.metadata().map_err(LogError::io("look at", &path))?.len();
            found.push((path, bytes));
        }
    }
    // Numbers have leading zeros, so names sort as they do.
    found.sort_unstable();
    Ok(found)
}

/// Deletes the oldest files until at most so many bytes are left.
pub(super) fn bound(dir: &Path, bytes_max: u64) -> Result<(), LogError> {
    let files = files(dir)?;
    let mut bytes = files.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
    for (path, size) in files {
        if bytes <= bytes_max {
            break;
        }
        std::fs::remove_file(&path).map_err(LogError::io("remove", path))?;
        bytes = bytes.saturating_sub(size);
    }
    Ok(())
}

/// Of freed places, those that are still known, with their chains.
///
/// # Errors
/// [`LogError::Corrupt`] where a file is not what was written; [`LogError::Io`].
pub(crate) fn find(
    dir: &Path,
    producer: ProducerId,
    wanted: &BTreeMap<Lane, u64>,
) -> Result<Positions, LogError> {
    let mut found = Positions::new();
    for (path, _) in files(dir)?.into_iter().rev() {
        if found.len() == wanted.len() {
            break;
        }
        let bytes = std::fs::read(&path).map_err(LogError::io("read", &path))?;
        let lanes = decode(&bytes, producer)
            .ok_or_else(|| LogError::corrupt(&path, 0, "the record of what was freed does not hold"))?;
        for FreedFrames { lane, ends, .. } in lanes {
            let Some(sequence) = wanted.get(&lane) else { continue };
            if let Ok(at) = ends.binary_search_by_key(sequence, |end| end.sequence)
                && let Some(end) = ends.get(at)
            {
                found.entry(lane).or_insert(*end);
            }
        }
    }
    Ok(found)
}
