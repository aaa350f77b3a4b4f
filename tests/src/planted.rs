//! Secrets that are planted in a real system and then looked for everywhere they must not be.
//!
//! A secret is looked for as it is, in hexadecimal digits and in base64, in each of its alignments; one that is written in
//! hexadecimal digits also as the bytes that these stand for. Beside secrets there are
//! witnesses: texts that are no secret and have to be found in a place, so that a search that sees nothing does not pass.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use redis::AsyncCommands as _;
use regex::bytes::{Regex, RegexBuilder};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A shorter text may be found by chance.
const CHARS_MIN: usize = 12;
/// What a compiled search may take, in bytes.
const SEARCH_BYTES_MAX: usize = 64 << 20;

/// What is looked for.
#[derive(Debug, Default)]
pub struct Planted {
    secrets: BTreeMap<String, Vec<u8>>,
}

/// A search over all of it, and what it found.
#[derive(Debug)]
pub struct Search {
    secrets: Vec<(String, Regex)>,
    witnesses: Vec<(String, Regex, bool)>,
    found: Vec<String>,
}

impl Planted {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more secret. Returns it, so that it can be planted where it is named.
    ///
    /// # Errors
    /// Where it is so short that it may be found by chance.
    pub fn secret(&mut self, name: &str, value: impl Into<String>) -> Result<String> {
        let value = value.into();
        ensure!(value.len() >= CHARS_MIN, "{name} is shorter than {CHARS_MIN} characters");
        self.secrets.insert(name.to_owned(), value.clone().into_bytes());
        Ok(value)
    }

    /// The lines of a private key in PEM, each of them.
    ///
    /// # Errors
    /// Where the file can not be read or is no key.
    pub fn key(&mut self, path: &Path) -> Result<()> {
        let pem = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        ensure!(pem.contains("PRIVATE KEY"), "{} is no key", path.display());
        let lines = pem.lines().filter(|line| !line.starts_with('-')).enumerate();
        // the first line of all keys of a kind is the same up to its end: it says which kind it is
        for (at, line) in lines.filter(|(at, line)| *at > 0 && line.len() >= CHARS_MIN) {
            self.secret(&format!("{} line {at}", path.display()), line)?;
        }
        Ok(())
    }

    /// A search for all of them, and for witnesses: a part of the name of a place, and what has to be found there.
    ///
    /// # Errors
    /// Where nothing was planted, or too much.
    pub fn search(&self, witnesses: &[(&str, &str)]) -> Result<Search> {
        ensure!(!self.secrets.is_empty(), "nothing was planted");
        let secrets = self.secrets.iter().map(|(name, value)| Ok((name.clone(), pattern(value)?)));
        let witness =
            |(place, text): &(&str, &str)| Ok(((*place).to_owned(), pattern(text.as_bytes())?, false));
        Ok(Search {
            secrets: secrets.collect::<Result<_>>()?,
            witnesses: witnesses.iter().map(witness).collect::<Result<_>>()?,
            found: Vec::new(),
        })
    }
}

impl Search {
    /// Looks through some bytes.
    pub fn bytes(&mut self, place: &str, bytes: &[u8]) {
        for (name, pattern) in &self.secrets {
            if pattern.is_match(bytes) {
                self.found.push(format!("{name} in {place}"));
            }
        }
        for (of, pattern, seen) in &mut self.witnesses {
            *seen |= place.contains(of.as_str()) && pattern.is_match(bytes);
        }
    }

    /// Looks through all files under a folder, but for those that are there to hold secrets.
    ///
    /// # Errors
    /// Where one can not be read.
    pub fn files(&mut self, dir: &Path, holders: &[PathBuf]) -> Result<()> {
        let mut folders = vec![dir.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                if holders.contains(&path) {
                    continue;
                }
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
                    self.bytes(&path.display().to_string(), &bytes);
                }
            }
        }
        Ok(())
    }

    /// Looks through every row of every table, as text, and what the database knows of its users' settings.
    ///
    /// # Errors
    /// Where the database can not be read.
    pub async fn database(&mut self, url: &str) -> Result<()> {
        let mut session = PgConnection::connect(url).await?;
        let tables: Vec<(String, String)> = sqlx::query_as(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')",
        )
        .fetch_all(&mut session)
        .await?;
        ensure!(!tables.is_empty(), "the database is empty");
        for (schema, table) in tables {
            let select = format!("select row::text from \"{schema}\".\"{table}\" as row");
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&mut session).await?;
            for row in rows {
                self.bytes(&format!("table {schema}.{table}"), row.as_bytes());
            }
        }
        Ok(session.close().await?)
    }

    /// Looks through every key and value of Redis.
    ///
    /// # Errors
    /// Where it can not be read, or has a kind of value that is not known here.
    pub async fn redis(&mut self, url: &str) -> Result<()> {
        let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let keys: Vec<Vec<u8>> = redis.keys("*").await?;
        for key in keys {
            let place = format!("redis key {}", String::from_utf8_lossy(&key));
            self.bytes(&place, &key);
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await?;
            let read: Vec<Vec<u8>> = match kind.as_str() {
                "string" => vec![redis.get(&key).await?],
                "list" => redis.lrange(&key, 0, -1).await?,
                "set" => redis.smembers(&key).await?,
                "hash" => redis.hgetall(&key).await?,
                "zset" => redis.zrange(&key, 0, -1).await?,
                // gone since
                "none" => continue,
                other => anyhow::bail!("{place} is a {other}"),
            };
            for value in read {
                self.bytes(&place, &value);
            }
        }
        Ok(())
    }

    /// Nothing was found, and each place was really looked through: its witness was seen there.
    ///
    /// # Errors
    /// Every secret that was found with its place, and the places where the witness was not seen.
    pub fn finish(self) -> Result<()> {
        let unseen = self.witnesses.iter().filter(|(.., seen)| !seen).map(|(place, ..)| place);
        let unseen: Vec<_> = unseen.collect();
        ensure!(
            self.found.is_empty() && unseen.is_empty(),
            "found: {:#?}; not seen in {unseen:?}",
            self.found
        );
        Ok(())
    }
}

/// A text in all the ways that it is written.
fn pattern(value: &[u8]) -> Result<Regex> {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let literal = |bytes: &[u8]| bytes.iter().map(|byte| format!(r"\x{byte:02x}")).collect::<String>();
    let mut ways = vec![literal(value), format!("(?i:{hex})")];
    ways.extend(bytes_of_hex(value).as_deref().map(literal));
    ways.extend((0..3).map(|shift| regex::escape(&base64(value, shift))));
    let pattern = format!("(?-u:{})", ways.join("|"));
    let regex = RegexBuilder::new(&pattern).size_limit(SEARCH_BYTES_MAX).build();
    regex.context("the search can not be made")
}

/// What a text in hexadecimal digits stands for.
fn bytes_of_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.chunks(2).map(pair).collect()
}

/// The part of a base64 text that does not depend on what stands before and after, `shift` bytes into a group of three.
fn base64(value: &[u8], shift: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = value.get((3 - shift) % 3..).unwrap_or_default().chunks_exact(3);
    whole
        .flat_map(|group| {
            let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
            [18, 12, 6, 0].map(|by| char::from(DIGITS.get((bits >> by) & 63).copied().unwrap_or(b'=')))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "planted-secret-0123456789";

    fn searched(text: &str) -> Result<()> {
        let mut planted = Planted::new();
        planted.secret("it", SECRET)?;
        let mut search = planted.search(&[("there", "a witness is here")])?;
        search.bytes("in there", text.as_bytes());
        search.finish()
    }

    #[test]
    fn a_secret_is_found_in_every_way_it_is_written() {
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02X}")).collect();
        // of "planted-secret-0123456789" behind nothing, one and two bytes
        let base64 = [
            "cGxhbnRlZC1zZWNyZXQtMDEyMzQ1Njc4OQ==",
            "LXBsYW50ZWQtc2VjcmV0LTAxMjM0NTY3ODk=",
            "LS1wbGFudGVkLXNlY3JldC0wMTIzNDU2Nzg5",
        ];
        for written in [SECRET, &hex].into_iter().chain(base64) {
            let found = searched(&format!("a witness is here: {written}.")).unwrap_err();
            assert!(found.to_string().contains("it in in there"), "{written}");
        }
    }

    #[test]
    fn bytes_behind_digits_are_found() {
        let mut planted = Planted::new();
        planted.secret("key", "00ff10203040").unwrap();
        let mut search = planted.search(&[]).unwrap();
        search.bytes("there", b"\x01\x00\xff\x10\x20\x30\x40");
        assert!(search.finish().is_err());
    }

    #[test]
    fn a_place_without_the_witness_was_not_looked_through() {
        assert!(searched("a witness is here").is_ok());
        assert!(searched("nothing is here").unwrap_err().to_string().contains("not seen in [\"there\"]"));
        assert!(Planted::new().search(&[]).is_err());
        assert!(Planted::new().secret("short", "abc").is_err());
    }
}
