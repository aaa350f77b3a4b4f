//! Page tokens: where the next page starts, sealed against typing errors and against use on another list.
//!
//! A token is opaque, not secret: version, checksum over list and cursor, the cursor as JSON; all in
//! hexadecimal digits. It says where to go on, never what may be seen.

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Code, Refusal, reason};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
/// The longest token that is read, in characters. The ledger's name a batch for each shard, of which there may be a
/// thousand; with sixteen a token has some hundred characters more for them.
pub const TOKEN_CHARS_MAX: usize = 32_768;

/// The token for a cursor of a list.
#[must_use]
pub fn encode<C: Serialize>(list: &str, cursor: &C) -> String {
    let body = serde_json::to_vec(cursor).unwrap_or_default();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&checksum(list, &body).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cursor in a token; `None` for the empty token of a first page.
///
/// # Errors
/// [`reason::PAGE_TOKEN_INVALID`] for anything that [`encode`] did not make for this list.
pub fn decode<C: DeserializeOwned>(list: &str, token: &str) -> Result<Option<C>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    unseal(list, token).map(Some).ok_or_else(|| {
        Refusal::new(Code::InvalidArgument, reason::PAGE_TOKEN_INVALID, "page token is not one of this list")
            .violation("page_token", "must be next_page_token of the answer before, or empty")
    })
}

/// The number of rows to answer with: `default` for 0, never above `max`.
#[must_use]
pub const fn size(requested: u32, default: u32, max: u32) -> u32 {
    if requested == 0 {
        default
    } else if requested > max {
        max
    } else {
        requested
    }
}

fn unseal<C: DeserializeOwned>(list: &str, token: &str) -> Option<C> {
    if token.len() > TOKEN_CHARS_MAX || !token.len().is_multiple_of(2) || !token.is_ascii() {
        return None;
    }
    let bytes = token
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let (version, sum) = header.split_first()?;
    let genuine = *version == VERSION && *sum == checksum(list, body).to_be_bytes();
    if genuine { serde_json::from_slice(body).ok() } else { None }
}

fn checksum(list: &str, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(list.as_bytes(), u64::from(VERSION)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cursor = (String, i64);

    #[test]
    fn a_token_leads_back_to_its_cursor() {
        let cursor: Cursor = ("2022-11 é".to_owned(), i64::MIN);
        let token = encode("teams", &cursor);
        assert_eq!(decode("teams", &token).map_err(|refusal| refusal.message), Ok(Some(cursor)));
        assert_eq!(decode::<Cursor>("teams", "").map_err(|refusal| refusal.message), Ok(None));
    }

    #[test]
    fn the_form_of_a_token_is_kept() {
        let token = "0198d57aebe19668ed5b22612c62222c375d";
        let read = decode::<Cursor>("teams", token);
        assert_eq!(read.ok(), Some(Some(("a,b".to_owned(), 7))), "now: {}", encode("teams", &("a,b", 7)));
    }

    #[test]
    fn a_foreign_or_damaged_token_is_refused() {
        let token = encode("teams", &("a", 1));
        let mut damaged = token.clone();
        damaged.replace_range(20..22, "00");
        for (list, token) in [
            ("apps", token.as_str()),
            ("teams", damaged.as_str()),
            ("teams", "zz"),
            ("teams", "0"),
            ("teams", "é"),
            ("teams", "01"),
            ("teams", &"00".repeat(TOKEN_CHARS_MAX)),
        ] {
            let refusal = decode::<Cursor>(list, token).unwrap_err();
            assert_eq!(refusal.reason, reason::PAGE_TOKEN_INVALID, "{token}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(
            [size(0, 1000, 10_000), size(5, 1000, 10_000), size(u32::MAX, 1000, 10_000)],
            [1000, 5, 10_000]
        );
    }
}
