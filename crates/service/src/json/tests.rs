use super::*;

#[test]
fn deadlines_are_told_from_other_texts() {
    for (text, expected) in [
        ("10S", true),
        ("99999999n", true),
        ("S", false),
        ("10", false),
        ("1s", false),
        ("123456789S", false),
    ] {
        assert_eq!(is_deadline(&HeaderValue::from_static(text)), expected, "{text}");
    }
}

#[test]
fn only_what_says_so_is_grpc() {
    for (kind, expected) in [
        (Some("application/grpc"), true),
        (Some("application/grpc+proto"), true),
        (Some("application/json"), false),
        (None, false),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        assert_eq!(Door::is_grpc(&headers), expected, "{kind:?}");
    }
}

#[test]
fn the_contracts_can_be_read() {
    assert!(contracts().get_extension_by_name("google.api.http").is_some());
}
