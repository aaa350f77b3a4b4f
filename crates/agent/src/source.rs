//! Where lines come from: a file or standard input, plain or gzip, and which source it is.
//!
//! **Which source.** A log moves: it is renamed, copied, rotated, compressed. So a source is not known by
//! its path or its inode but by its beginning: the hash of its first whole line (of the decompressed
//! text), or the name that the operator gives. A renamed, copied or compressed log is the same source
//! and goes on where it was left. Two logs that begin with the same line would be taken for one; that is
//! caught where it matters, because a position also holds a hash of the line before it: if the text there
//! is another, the replay refuses to go on instead of skipping lines in silence.
//!
//! **Identity is position.** A line is known by its byte offset in the decompressed text and by nothing
//! in it: lines that repeat are usage every time.
//!
//! Memory: a line is kept up to [`LINE_BYTES_MAX`] (what is longer is counted, not read), and at most
//! `BATCHES_MAX` batches wait for whoever maps them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::access_log::LINE_BYTES_MAX;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of lines handed over at once.
const BATCH_BYTES: usize = 128 << 10;
/// Batches that wait to be mapped.
const BATCHES_MAX: usize = 4;
/// The longest name of a source that an operator may give, in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 128;

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// Why a source can not be read, or not be continued.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It can not be opened.
    #[error("{} can not be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It can not be read to its end. What was read before is kept.
    #[error("reading failed after byte {offset}")]
    Read {
        /// Where in the decompressed text.
        offset: u64,
        /// What the system, or the decompressor, said.
        #[source]
        source: io::Error,
    },
    /// It has no whole first line to know it by.
    #[error("the source has no whole first line to know it by; give it a name with --source")]
    Unidentified,
    /// The name is empty or too long.
    #[error("a source's name has 1 to {SOURCE_NAME_BYTES_MAX} bytes, this one has {0}")]
    Name(usize),
    /// The text before the position is not what was counted there.
    #[error(
        "the source does not hold what was counted up to byte {offset} (line {line}); \
         it is another log: give it a name with --source, or count it with --from-start"
    )]
    Changed {
        /// The position.
        offset: u64,
        /// Its line.
        line: u64,
    },
}

/// A line, or the start of one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Without its line end; at most one byte more than may be read.
    pub(crate) text: &'a [u8],
    /// Where the next line begins.
    pub(crate) end: u64,
    /// It ends with a line feed.
    pub(crate) terminated: bool,
}

impl Line<'_> {
    /// What a position remembers of the line before it.
    pub(crate) fn hash(&self) -> u64 {
        xxh3_64(self.text)
    }
}

/// Lines from a reader, with offsets.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    offset: u64,
    text: Vec<u8>,
}

impl Lines {
    fn over(raw: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(READ_BUFFER_BYTES, raw);
        // The buffer is filled by one read, which may bring a single byte; a pipe is asked again.
        let mut magic = Vec::new();
        while magic.len() < GZIP_MAGIC.len() && GZIP_MAGIC.starts_with(&magic) {
            let mut byte = [0];
            if raw.read(&mut byte)? == 0 {
                break;
            }
            magic.extend_from_slice(&byte);
        }
        let gzip = magic == GZIP_MAGIC;
        let whole = io::Cursor::new(magic).chain(raw);
        let reader: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, MultiGzDecoder::new(whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { reader, offset: 0, text: Vec::new() })
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<Line<'_>>, SourceError> {
        self.text.clear();
        let start = self.offset;
        let mut terminated = false;
        while !terminated {
            let chunk = match self.reader.fill_buf() {
                Ok([]) => break,
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(SourceError::Read { offset: self.offset, source }),
            };
            let feed = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..feed.unwrap_or(chunk.len())).unwrap_or_default();
            // One byte more than a line may have shows that it has more.
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.text.len());
            self.text.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
            let used = part.len() + usize::from(feed.is_some());
            terminated = feed.is_some();
            self.reader.consume(used);
            self.offset = self.offset.saturating_add(u64::try_from(used).unwrap_or(u64::MAX));
        }
        if self.offset == start {
            return Ok(None);
        }
        let text = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        Ok(Some(Line { text, end: self.offset, terminated }))
    }
}

/// Lines that are handed over together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    text: Vec<u8>,
    lines: Vec<(usize, u64, bool)>,
}

impl Batch {
    fn push(&mut self, line: &Line<'_>) {
        self.text.extend_from_slice(line.text);
        self.lines.push((self.text.len(), line.end, line.terminated));
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let starts = std::iter::once(0).chain(self.lines.iter().map(|(to, _, _)| *to));
        starts.zip(&self.lines).map(|(from, (to, end, terminated))| Line {
            text: self.text.get(from..*to).unwrap_or_default(),
            end: *end,
            terminated: *terminated,
        })
    }
}

/// Where a source was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) offset: u64,
    pub(crate) line: u64,
    /// Of the line before the offset; 0 at the start.
    pub(crate) line_hash: u64,
    pub(crate) terminated: bool,
}

/// A source that is open at its start. Everything here blocks.
pub(crate) struct Source {
    lines: Lines,
    first: Batch,
    /// Who it is; `None` for a source without a line.
    pub(crate) identity: Option<Vec<u8>>,
    /// Bytes in all, where that is known before reading: a plain file.
    pub(crate) bytes: Option<u64>,
}

impl Source {
    pub(crate) fn open(input: &Input, name: Option<&str>) -> Result<Self, SourceError> {
        let (raw, bytes): (Box<dyn Read + Send>, _) = match input {
            Input::Stdin => (Box::new(io::stdin()), None),
            Input::File(path) => {
                let file = open_file(path)?;
                let bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
                (Box::new(file), bytes)
            }
        };
        Self::over(raw, name, bytes)
    }

    fn over(raw: Box<dyn Read + Send>, name: Option<&str>, bytes: Option<u64>) -> Result<Self, SourceError> {
        if let Some(name) = name
            && !(1..=SOURCE_NAME_BYTES_MAX).contains(&name.len())
        {
            return Err(SourceError::Name(name.len()));
        }
        let read = |source| SourceError::Read { offset: 0, source };
        let mut lines = Lines::over(raw).map_err(read)?;
        let mut first = Batch::default();
        let mut identity = None;
        if let Some(line) = lines.next()? {
            identity = Some(match name {
                Some(name) => format!("name:{name}").into_bytes(),
                // A line that is still being written will be another line later.
                None if !line.terminated => return Err(SourceError::Unidentified),
                None => format!("head:{:032x}", xxh3_128(line.text)).into_bytes(),
            });
            first.push(&line);
        }
        Ok(Self { lines, first, identity, bytes })
    }

    /// Passes over what was counted, if it is still what was counted. Answers whether the last counted
    /// line has grown since: it had no end then.
    pub(crate) fn skip(&mut self, left: Left) -> Result<bool, SourceError> {
        let changed = SourceError::Changed { offset: left.offset, line: left.line };
        if left.offset == 0 {
            return Ok(false);
        }
        let first = std::mem::take(&mut self.first);
        let mut at = first.lines().next().map(|line| (line.end, line.hash(), line.text.len()));
        let mut number = 1_u64;
        while at.is_some_and(|(end, _, _)| end < left.offset) {
            at = self.lines.next()?.map(|line| (line.end, line.hash(), line.text.len()));
            number = number.saturating_add(1);
        }
        let Some((end, hash, _)) = at else { return Err(changed) };
        if number != left.line {
            return Err(changed);
        }
        if end == left.offset && hash == left.line_hash {
            return Ok(false);
        }
        // The last line was counted before its line end was written.
        if !left.terminated && end > left.offset {
            Ok(end > left.offset.saturating_add(1))
        } else {
            Err(changed)
        }
    }

    /// Reads on, batch after batch, until the end or until nobody takes them.
    pub(crate) fn into_batches(self) -> mpsc::Receiver<Result<Batch, SourceError>> {
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        tokio::task::spawn_blocking(move || {
            let Self { mut lines, first: mut batch, .. } = self;
            loop {
                let last = match lines.next() {
                    Ok(Some(line)) => {
                        batch.push(&line);
                        false
                    }
                    Ok(None) => true,
                    Err(error) => {
                        // What was read before the fault counts.
                        let _ = sender.blocking_send(Ok(batch));
                        let _ = sender.blocking_send(Err(error));
                        return;
                    }
                };
                let full = batch.text.len() >= BATCH_BYTES || batch.lines.len() >= BATCH_BYTES / 32;
                if (full || last) && !batch.lines.is_empty() {
                    let full = std::mem::take(&mut batch);
                    if sender.blocking_send(Ok(full)).is_err() {
                        return;
                    }
                }
                if last {
                    return;
                }
            }
        });
        receiver
    }

    /// Visits every line of a file, before anything is counted.
    pub(crate) fn scan(path: &Path, mut visit: impl FnMut(&Line<'_>)) -> Result<(), SourceError> {
        let read = |source| SourceError::Read { offset: 0, source };
        let mut lines = Lines::over(Box::new(open_file(path)?)).map_err(read)?;
        while let Some(line) = lines.next()? {
            visit(&line);
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> Result<File, SourceError> {
    File::open(path).map_err(|source| SourceError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn source(text: &[u8], name: Option<&str>) -> Result<Source, SourceError> {
        Source::over(Box::new(io::Cursor::new(text.to_vec())), name, None)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(text: &[u8]) -> Vec<(Vec<u8>, u64, bool)> {
        let mut lines = Lines::over(Box::new(io::Cursor::new(text.to_vec()))).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.text.to_vec(), line.end, line.terminated));
        }
        all
    }

    #[test]
    fn lines_have_their_offsets_whatever_ends_them() {
        let line = |text: &[u8], end, terminated| (text.to_vec(), end, terminated);
        assert_eq!(
            read(b"a\nbc\r\n\nd"),
            [line(b"a", 2, true), line(b"bc", 6, true), line(b"", 7, true), line(b"d", 8, false)]
        );
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\x1f"), [line(b"\x1f", 1, false)]);
        assert_eq!(read(&gzip(b"a\nbc\n")), [line(b"a", 2, true), line(b"bc", 5, true)]);
        let two = [gzip(b"a\n"), gzip(b"b\n")].concat();
        assert_eq!(read(&two), [line(b"a", 2, true), line(b"b", 4, true)]);
    }

    #[test]
    fn an_endless_line_is_cut_in_memory_and_passed_over() {
        let mut text = vec![b'x'; 3 * LINE_BYTES_MAX];
        text.extend_from_slice(b"\nnext\n");
        let lines = read(&text);
        assert_eq!(lines[0].0.len(), LINE_BYTES_MAX + 1);
        assert_eq!(lines[1].0, b"next");
    }

    #[test]
    fn a_cut_gzip_file_says_where_it_ends() {
        let text: Vec<u8> = (0..5_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let mut bytes = gzip(&text);
        bytes.truncate(bytes.len() / 2);
        let mut lines = Lines::over(Box::new(io::Cursor::new(bytes))).unwrap();
        let outcome = loop {
            match lines.next() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        assert!(matches!(outcome, Some(SourceError::Read { offset, .. }) if offset > 0));
    }

    #[test]
    fn a_source_is_its_first_line_or_its_name() {
        let identity = |text: &[u8], name| source(text, name).unwrap().identity;
        let plain = identity(b"first\nsecond\n", None);
        assert_eq!(plain, identity(b"first\nother\n", None));
        assert_eq!(plain, identity(&gzip(b"first\n"), None));
        assert_ne!(plain, identity(b"another\n", None));
        assert_eq!(identity(b"x", Some("edge")), Some(b"name:edge".to_vec()));
        assert_eq!(identity(b"", None), None);
        assert!(matches!(source(b"first", None), Err(SourceError::Unidentified)));
        assert!(matches!(source(b"first\n", Some("")), Err(SourceError::Name(0))));
    }

    fn left(text: &[u8], lines: usize) -> Left {
        let all = read(text);
        let (last, end, terminated) = &all[lines - 1];
        let line_hash = xxh3_64(last);
        Left { offset: *end, line: u64::try_from(lines).unwrap(), line_hash, terminated: *terminated }
    }

    #[test]
    fn a_source_goes_on_only_where_its_text_is_the_same() {
        let text = b"a\nbb\nccc\n";
        for lines in 1..=3 {
            assert!(!source(text, None).unwrap().skip(left(text, lines)).unwrap());
        }
        let after = |other: &[u8]| source(other, None).unwrap().skip(left(text, 2));
        assert!(after(b"a\nbb\n").is_ok(), "nothing new");
        assert!(after(b"a\nbb\nmore\n").is_ok());
        for other in [&b"a\n"[..], b"a\nxx\nccc\n", b"a\nb\nbb\n", b"abb\n\n"] {
            assert!(matches!(after(other), Err(SourceError::Changed { offset: 5, line: 2 })));
        }
    }

    #[test]
    fn a_last_line_without_an_end_is_not_counted_again() {
        let half = left(b"a\nbb", 2);
        let skip = |text: &[u8]| source(text, None).unwrap().skip(half);
        assert!(!skip(b"a\nbb").unwrap());
        assert!(!skip(b"a\nbb\n").unwrap(), "only its end was missing");
        assert!(skip(b"a\nbbb\nc\n").unwrap(), "it has grown");
    }

    proptest! {
        #[test]
        fn offsets_add_up(text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200)) {
            prop_assume!(!text.starts_with(&GZIP_MAGIC));
            let lines = read(&text);
            let ends: Vec<usize> = (1..=text.len()).filter(|at| text[at - 1] == b'\n').collect();
            let terminated = lines.iter().filter(|(_, _, terminated)| *terminated);
            let found: Vec<usize> = terminated.map(|(_, end, _)| usize::try_from(*end).unwrap()).collect();
            prop_assert_eq!(found, ends);
            prop_assert_eq!(lines.last().map_or(0, |(_, end, _)| *end), u64::try_from(text.len()).unwrap());
        }
    }
}
