//! The id of the call in hand: the caller's `x-request-id` where it is a plain one, else a new one.

use std::{future::Future, sync::Arc};

use http::HeaderMap;

/// The header it travels in, both ways.
pub const HEADER: &str = "x-request-id";
const CHARS_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The id of the call in hand; `-` outside of one.
#[must_use]
pub fn current() -> Arc<str> {
    CURRENT.try_with(Clone::clone).unwrap_or_else(|_| "-".into())
}

/// Runs a future as part of a call.
pub async fn scope<F: Future>(id: Arc<str>, future: F) -> F::Output {
    CURRENT.scope(id, future).await
}

/// The caller's id where it can be logged as it is, else a new one.
pub(super) fn of(headers: &HeaderMap) -> Arc<str> {
    let plain = |text: &&str| {
        (1..=CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    match headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(plain) {
        Some(given) => given.into(),
        None => uuid::Uuid::now_v7().simple().to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        for (given, taken) in [("a-1_b.C", true), ("", false), ("a b", false), ("a\u{7f}", false)] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = given.parse() {
                headers.insert(HEADER, value);
            }
            assert_eq!(&*of(&headers) == given, taken, "{given}");
        }
    }
}
