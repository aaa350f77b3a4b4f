//! `lock` and `meta`: who owns the directory, and who the producer is.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use drawdown_metering_core::shard::ShardMap;
use drawdown_types::ProducerId;
use nix::fcntl::{Flock, FlockArg};

use super::LogError;

const FORMAT: u32 = 1;
const META: &str = "meta";
const META_NEXT: &str = "meta.next";
const LOCK: &str = "lock";

/// Held while the log is open; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: Flock<File>,
}

impl DirectoryLock {
    /// Makes the directory where it is missing and takes it, or says that somebody else has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, LogError> {
        std::fs::create_dir_all(dir).map_err(LogError::io("create directory", dir))?;
        let path = dir.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(LogError::io("open lock", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LogError::InUse { dir: dir.to_owned() }),
            Err((_, errno)) => Err(LogError::io("lock", path)(errno.into())),
        }
    }
}

/// What the directory is about. The log's owner replaces it as a whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    format: u32,
    /// Whose log this is.
    pub(crate) producer_id: ProducerId,
    /// The last epoch that OpenProducer gave.
    pub(crate) epoch: u64,
    /// The map that new events are placed by.
    pub(crate) map_version: u32,
    /// Its number of shards.
    pub(crate) shard_count: NonZeroU32,
    /// Most bytes of one frame's body.
    pub(crate) frame_bytes_max: u32,
    /// Most events of one frame.
    pub(crate) frame_events_max: u32,
    /// Most series that one stream may define.
    pub(crate) series_max: u32,
}

impl Meta {
    /// For a log that has just been registered.
    pub(crate) const fn new(
        producer_id: ProducerId,
        epoch: u64,
        map: ShardMap,
        limits: StreamLimits,
    ) -> Self {
        Self {
            format: FORMAT,
            producer_id,
            epoch,
            map_version: map.version,
            shard_count: map.shard_count,
            frame_bytes_max: limits.frame_bytes_max,
            frame_events_max: limits.frame_events_max,
            series_max: limits.series_max,
        }
    }

    pub(crate) const fn map(&self) -> ShardMap {
        ShardMap { version: self.map_version, shard_count: self.shard_count }
    }

    pub(crate) const fn limits(&self) -> StreamLimits {
        StreamLimits {
            frame_bytes_max: self.frame_bytes_max,
            frame_events_max: self.frame_events_max,
            series_max: self.series_max,
        }
    }

    /// What stands in the directory; `None` for a new one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(META);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("read", path)(error)),
        };
        Self::parse(&text, &path).map(Some)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, LogError> {
        let corrupt = |problem: &str| LogError::corrupt(path, 0, problem);
        let (sum, json) = text.split_at_checked(9).ok_or_else(|| corrupt("too short"))?;
        let written = std::str::from_utf8(sum)
            .ok()
            .and_then(|sum| u32::from_str_radix(sum.trim_end(), 16).ok())
            .ok_or_else(|| corrupt("does not start with a checksum"))?;
        if written != crc32fast::hash(json) {
            return Err(corrupt("checksum does not match"));
        }
        let meta: Self = serde_json::from_slice(json).map_err(|error| corrupt(&error.to_string()))?;
        if meta.format != FORMAT {
            return Err(corrupt(&format!("format {} is not {FORMAT}", meta.format)));
        }
        Ok(meta)
    }

    /// Replaces what stands there: written aside, made durable, renamed, and the name made durable.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), LogError> {
        let (next, path) = (dir.join(META_NEXT), dir.join(META));
        let json = serde_json::to_vec(self)
            .map_err(|error| LogError::io("encode", &path)(std::io::Error::other(error)))?;
        let mut file = File::create(&next).map_err(LogError::io("create", &next))?;
        let write = |file: &mut File| {
            writeln!(file, "{:08x}", crc32fast::hash(&json))?;
            file.write_all(&json)?;
            file.sync_all()
        };
        write(&mut file).map_err(LogError::io("write", &next))?;
        std::fs::rename(&next, &path).map_err(LogError::io("rename", &path))?;
        sync_directory(dir)
    }
}

/// What metering allows of one frame and one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    pub(crate) frame_bytes_max: u32,
    pub(crate) frame_events_max: u32,
    pub(crate) series_max: u32,
}

/// Makes names in the directory durable: those of files made, renamed or deleted.
pub(super) fn sync_directory(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(LogError::io("sync directory", PathBuf::from(dir)))
}
