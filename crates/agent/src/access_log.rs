//! Lines of access logs: Apache and nginx "combined", and JSON lines.
//!
//! Shape: one line of bytes in, one borrowed [`Entry`] out, or why it is none. Nothing is guessed: a line
//! that breaks the format anywhere is malformed as a whole, because half a line is a cut line. Bytes that
//! are no UTF-8 are malformed where they are read as text, and harmless inside a quoted field's escape.

use std::borrow::Cow;

use drawdown_types::Timestamp;
use jiff::fmt::strtime;
use serde_json::{Map, Value};

/// The longest line that is read, in bytes; a longer one is malformed.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// One request of an access log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// When it was logged.
    pub at: Timestamp,
    /// Method, such as `GET`; empty where the request line is unreadable.
    pub method: Cow<'a, str>,
    /// Path without query.
    pub path: Cow<'a, str>,
    /// HTTP status.
    pub status: u16,
    /// Bytes sent; `-` is 0.
    pub bytes: u64,
    /// Virtual host, where the log has one.
    pub host: Option<Cow<'a, str>>,
    /// User agent, where the log has one.
    pub user_agent: Option<Cow<'a, str>>,
    /// All fields of a JSON line.
    pub fields: Option<Map<String, Value>>,
}

/// Why a line is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("has {0} bytes, at most {LINE_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("is not UTF-8 from byte {0} on")]
    NotText(usize),
    /// The line ends, or goes on, where it should not.
    #[error("is cut or malformed at {0}")]
    Malformed(&'static str),
    /// The instant is none.
    #[error("has no instant such as 17/May/2015:10:05:03 +0000 or 2015-05-17T10:05:03Z")]
    Instant,
    /// A JSON field is missing or of another type.
    #[error("JSON field {0} is missing or of another type")]
    Field(&'static str),
    /// Not a JSON object.
    #[error("is not one JSON object")]
    Json,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A line that begins with `{` is JSON, any other one is combined.
    #[default]
    Auto,
    /// Apache's and nginx's combined format.
    Combined,
    /// One JSON object a line, with the field names of [`JSON_FIELDS`].
    Json,
}

/// Names under which a JSON line's fields are looked for, first one found: instant, method, path, status,
/// bytes, host, user agent.
pub const JSON_FIELDS: [&[&str]; 7] = [
    &["time", "timestamp", "@timestamp", "time_iso8601", "start_time"],
    &["method", "request_method"],
    &["path", "uri", "request_uri"],
    &["status", "response_code"],
    &["bytes", "body_bytes_sent", "bytes_sent"],
    &["host", "authority"],
    &["user_agent", "http_user_agent"],
];

impl Format {
    /// Reads one line without its line end.
    ///
    /// # Errors
    /// [`LineError`]: the line is to be counted and passed over.
    pub fn read(self, line: &[u8]) -> Result<Entry<'_>, LineError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong(line.len()));
        }
        let text = std::str::from_utf8(line).map_err(|error| LineError::NotText(error.valid_up_to()))?;
        match self {
            Self::Json => json(text),
            Self::Combined => combined(text),
            Self::Auto if text.starts_with('{') => json(text),
            Self::Auto => combined(text),
        }
    }
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn word(&mut self, what: &'static str) -> Result<&'a str, LineError> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        if word.is_empty() {
            return Err(LineError::Malformed(what));
        }
        self.0 = rest;
        Ok(word)
    }

    fn skip(&mut self, mark: char, what: &'static str) -> Result<(), LineError> {
        self.0 = self.0.strip_prefix(mark).ok_or(LineError::Malformed(what))?;
        Ok(())
    }

    /// A quoted field; `\"` and `\\` inside it do not end it and are undone.
    fn quoted(&mut self, what: &'static str) -> Result<Cow<'a, str>, LineError> {
        self.skip('"', what)?;
        let mut escaped = false;
        let mut has_escape = false;
        for (at, c) in self.0.char_indices() {
            match c {
                '"' if !escaped => {
                    let (field, rest) = self.0.split_at(at);
                    self.0 = rest.get(1..).unwrap_or_default();
                    return Ok(if has_escape { Cow::Owned(unescape(field)) } else { Cow::Borrowed(field) });
                }
                '\\' if !escaped => {
                    escaped = true;
                    has_escape = true;
                }
                _ => escaped = false,
            }
        }
        Err(LineError::Malformed(what))
    }
}

fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some('"' | '\\') if c == '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

fn combined(line: &str) -> Result<Entry<'_>, LineError> {
    let mut rest = Rest(line);
    rest.word("the address")?;
    rest.word("the identity")?;
    rest.word("the user")?;
    rest.skip('[', "the instant")?;
    let (instant, after) = rest.0.split_once("] ").ok_or(LineError::Malformed("the instant"))?;
    let at = apache_instant(instant)?;
    rest.0 = after;
    let request = rest.quoted("the request")?;
    rest.skip(' ', "the request")?;
    let status = status(rest.word("the status")?).ok_or(LineError::Malformed("the status"))?;
    let bytes = match rest.word("the bytes")? {
        "-" => 0,
        digits => digits.parse().map_err(|_| LineError::Malformed("the bytes"))?,
    };
    rest.quoted("the referer")?;
    rest.skip(' ', "the referer")?;
    let user_agent = Some(rest.quoted("the user agent")?);
    if !(rest.0.is_empty() || rest.0.starts_with(' ')) {
        return Err(LineError::Malformed("the end"));
    }
    let (method, path) = method_and_path(request);
    Ok(Entry { at, method, path, status, bytes, host: None, user_agent, fields: None })
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (100..=599).contains(status))
}

/// A request line that is no request (a port scan, say) has neither method nor path; it is still a line.
fn method_and_path(request: Cow<'_, str>) -> (Cow<'_, str>, Cow<'_, str>) {
    let split = |request: &str| {
        let mut words = request.split(' ');
        let method = words.next().unwrap_or_default().len();
        let path = words.next().map_or(0, |path| path.split(['?', '#']).next().unwrap_or_default().len());
        (method, path)
    };
    let (method, path) = split(&request);
    let from = method.saturating_add(1);
    let to = from.saturating_add(path);
    match request {
        Cow::Borrowed(text) => {
            (text.get(..method).unwrap_or_default().into(), text.get(from..to).unwrap_or_default().into())
        }
        Cow::Owned(text) => (
            text.get(..method).unwrap_or_default().to_owned().into(),
            text.get(from..to).unwrap_or_default().to_owned().into(),
        ),
    }
}

fn apache_instant(text: &str) -> Result<Timestamp, LineError> {
    strtime::parse("%d/%b/%Y:%H:%M:%S %z", text)
        .and_then(|parsed| parsed.to_timestamp())
        .ok()
        .and_then(|at| Timestamp::from_micros(at.as_microsecond()).ok())
        .ok_or(LineError::Instant)
}

fn json(line: &str) -> Result<Entry<'_>, LineError> {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        return Err(LineError::Json);
    };
    let [time, method, path, status_names, bytes, host, agent] = JSON_FIELDS;
    let find = |names: &[&str]| names.iter().find_map(|name| fields.get(*name));
    let text = |names: &[&str]| find(names).and_then(Value::as_str).map(str::to_owned);
    let at = match find(time) {
        Some(Value::String(text)) => {
            text.parse().or_else(|_| apache_instant(text)).map_err(|_| LineError::Instant)?
        }
        _ => return Err(LineError::Field("time")),
    };
    let status = match find(status_names) {
        Some(Value::Number(number)) => status(&number.to_string()),
        Some(Value::String(text)) => status(text),
        _ => None,
    };
    let bytes = match find(bytes) {
        None | Some(Value::Null) => Some(0),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) if text == "-" => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let path = text(path).ok_or(LineError::Field("path"))?;
    let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    Ok(Entry {
        at,
        method: text(method).ok_or(LineError::Field("method"))?.into(),
        path: path.into(),
        status: status.ok_or(LineError::Field("status"))?,
        bytes: bytes.ok_or(LineError::Field("bytes"))?,
        host: text(host).map(Cow::Owned),
        user_agent: text(agent).map(Cow::Owned),
        fields: Some(fields),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str = r#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://r/" "Mozilla \"5\"""#;

    #[test]
    fn a_combined_line_is_read_whole() {
        let entry = Format::Auto.read(LINE.as_bytes()).unwrap();
        assert_eq!(entry.at.to_string(), "2015-05-17T10:05:03Z");
        assert_eq!((&*entry.method, &*entry.path), ("GET", "/a/b.png"));
        assert_eq!((entry.status, entry.bytes), (200, 203_023));
        assert_eq!(entry.user_agent.as_deref(), Some("Mozilla \"5\""));
    }

    #[test]
    fn a_json_line_is_read_under_known_names() {
        let line = br#"{"time":"2015-05-17T12:05:03+02:00","method":"GET","uri":"/a?b","status":"404","bytes":"-","tier":"gold"}"#;
        let entry = Format::Auto.read(line).unwrap();
        assert_eq!(entry.at.to_string(), "2015-05-17T10:05:03Z");
        assert_eq!((&*entry.path, entry.status, entry.bytes), ("/a", 404, 0));
        assert_eq!(entry.fields.unwrap()["tier"], "gold");
    }

    #[test]
    fn what_is_no_line_says_why() {
        let cut = LINE.trim_end_matches('"');
        let cases: [(&[u8], LineError); 8] = [
            (b"", LineError::Malformed("the address")),
            (cut.as_bytes(), LineError::Malformed("the user agent")),
            (b"a b c [17/Foo/2015:10:05:03 +0000] \"G / H\" 200 1 \"-\" \"-\"", LineError::Instant),
            (
                b"a b c [17/May/2015:10:05:03 +0000] \"G / H\" 99 1 \"-\" \"-\"",
                LineError::Malformed("the status"),
            ),
            (
                b"a b c [17/May/2015:10:05:03 +0000] \"G / H\" 200 -1 \"-\" \"-\"",
                LineError::Malformed("the bytes"),
            ),
            (b"{\"time\":\"2015-05-17T10:05:03Z\"}", LineError::Field("path")),
            (b"{]", LineError::Json),
            (b"a \xff", LineError::NotText(2)),
        ];
        for (line, error) in cases {
            assert_eq!(Format::Auto.read(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
        let long = vec![b'a'; LINE_BYTES_MAX + 1];
        assert_eq!(Format::Auto.read(&long), Err(LineError::TooLong(LINE_BYTES_MAX + 1)));
    }

    #[test]
    fn a_scan_is_a_line_without_method_and_path() {
        let line = b"a - - [17/May/2015:10:05:03 +0000] \"\" 400 0 \"-\" \"-\"";
        let entry = Format::Auto.read(line).unwrap();
        assert_eq!((&*entry.method, &*entry.path, entry.status), ("", "", 400));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Format::Auto.read(&line);
        }

        #[test]
        fn no_mutated_line_panics(at in 0..LINE.len(), byte in any::<u8>()) {
            let mut line = LINE.as_bytes().to_vec();
            line[at] = byte;
            let _ = Format::Auto.read(&line);
        }
    }
}
