//! One form for what benches and drills report:
//! `{"name", "commit", "build", "cores", "fsync_p50_us", "figures": {…}}`, figures a flat map of numbers whose
//! names end in their unit, or in `_ratio` for what was divided inside one run.

use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result};

/// What a bench or a drill found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figures {
    /// The bench or drill.
    pub name: String,
    /// The commit it ran on, with `-dirty` where the tree had changes.
    pub commit: String,
    /// `release`, or `development`: speeds of the latter say nothing.
    pub build: &'static str,
    /// Cores of the machine.
    pub cores: usize,
    /// Median of an 8 KiB append with fdatasync in the same run, in µs: the disk's own share.
    pub fsync_p50_us: u64,
    /// The figures.
    pub figures: BTreeMap<String, f64>,
}

const PROBE_ROUNDS: usize = 101;
const PROBE_BYTES: usize = 8192;
/// Some ten milliseconds of arithmetic.
const CPU_PROBE_DRAWS: u64 = 10_000_000;

impl Figures {
    /// Nothing found yet; probes the disk under `dir`.
    ///
    /// # Errors
    /// Where the disk cannot be written.
    pub fn new(name: &str, dir: &Path) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            commit: commit(),
            build: if cfg!(debug_assertions) { "development" } else { "release" },
            cores: std::thread::available_parallelism()?.get(),
            fsync_p50_us: fsync_p50_us(dir)?,
            figures: BTreeMap::new(),
        })
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }

    /// Writes them as JSON to `path`, where one is given.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: Option<&Path>) -> Result<()> {
        if let Some(path) = path {
            let text = serde_json::to_string_pretty(self)?;
            std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
        String::from_utf8(out.stdout).ok().map(|text| text.trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head}-dirty"),
    }
}

/// Time that a fixed piece of arithmetic takes, in ms: another machine, or a busy one, shows here.
#[must_use]
pub fn cpu_probe_ms() -> f64 {
    let start = Instant::now();
    let mut bits = crate::load::Bits(42);
    let sum = (0..CPU_PROBE_DRAWS).fold(0_u64, |sum, _| sum ^ bits.draw());
    std::hint::black_box(sum);
    start.elapsed().as_secs_f64() * 1000.0
}

/// Median of an 8 KiB append with fdatasync under `dir`, in µs.
///
/// # Errors
/// Where the disk cannot be written.
pub fn fsync_p50_us(dir: &Path) -> Result<u64> {
    let path = dir.join("fsync-probe");
    let mut file = File::create(&path)?;
    let block = [0x5a_u8; PROBE_BYTES];
    let mut rounds = Vec::with_capacity(PROBE_ROUNDS);
    for _ in 0..PROBE_ROUNDS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        rounds.push(u64::try_from(start.elapsed().as_micros())?);
    }
    std::fs::remove_file(&path)?;
    rounds.sort_unstable();
    rounds.get(PROBE_ROUNDS / 2).copied().context("no rounds")
}
