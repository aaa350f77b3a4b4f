use drawdown_proto::{
    entitlement::v1::{ListTransfersRequest, MoveAppRequest},
    ledger::v1::{ListNoticesRequest, MoveLotRequest, NoticeFilter},
    metering::v1::GetLiveUsageRequest,
};

use super::*;
use crate::identity::RULES;

fn names(method: &str) -> Names {
    let rule = RULES.iter().copied().flatten().find(|rule| rule.method.ends_with(method)).unwrap();
    Contracts::load().names(rule).unwrap()
}

fn read(method: &str, message: &[u8]) -> Result<Vec<(Kind, String)>, Unreadable> {
    names(method).read(message, 4).map(|found| found.named)
}

fn texts(named: &[(Kind, &str)]) -> Vec<(Kind, String)> {
    named.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect()
}

#[test]
fn texts_are_found_where_they_stand() {
    let request = MoveLotRequest {
        account_id: "a".to_owned(),
        lot_id: "inside".to_owned(),
        from_team_id: "f".to_owned(),
        to_team_id: "t".to_owned(),
        reason: "r".to_owned(),
        request_id: String::new(),
    };
    let found = read("LotService/MoveLot", &request.encode_to_vec());
    assert_eq!(found, Ok(texts(&[(Kind::Account, "a"), (Kind::Team, "f"), (Kind::Team, "t")])));
    let filter = Some(NoticeFilter { account_id: "a".to_owned(), ..NoticeFilter::default() });
    let request = ListNoticesRequest { filter, page_size: 7, ..ListNoticesRequest::default() };
    assert_eq!(read("ListNotices", &request.encode_to_vec()), Ok(texts(&[(Kind::Account, "a")])));
}

#[test]
fn repeated_texts_count_each_up_to_the_limit() {
    let client_ids: Vec<String> = ["x", "y", "z"].map(str::to_owned).to_vec();
    let mut request = GetLiveUsageRequest { client_ids, ..GetLiveUsageRequest::default() };
    request.app_ids = vec!["app".to_owned()];
    let found = texts(&[(Kind::Client, "x"), (Kind::Client, "y"), (Kind::Client, "z"), (Kind::App, "app")]);
    assert_eq!(read("GetLiveUsage", &request.encode_to_vec()), Ok(found));
    request.app_ids.push("one too many".to_owned());
    assert_eq!(read("GetLiveUsage", &request.encode_to_vec()), Err(Unreadable));
}

#[test]
fn nothing_named_is_nothing_found() {
    assert_eq!(read("MoveApp", &[]), Ok(Vec::new()));
    let empty = ListTransfersRequest { page_size: 1, ..ListTransfersRequest::default() };
    assert_eq!(read("ListTransfers", &empty.encode_to_vec()), Ok(Vec::new()));
}

#[test]
fn what_decoders_could_read_in_two_ways_is_refused() {
    let request = MoveAppRequest { app_id: "mine".to_owned(), ..MoveAppRequest::default() }.encode_to_vec();
    let others = MoveAppRequest { app_id: "others".to_owned(), ..MoveAppRequest::default() }.encode_to_vec();
    // the last one would count, and an empty one would take the first one back
    let twice = [request.clone(), others].concat();
    let taken_back = [request.clone(), vec![0x0a, 0x00]].concat();
    let as_number = [request.clone(), vec![0x08, 0x01]].concat();
    let group = [request.clone(), vec![0x0b, 0x0c]].concat();
    let no_utf8 = vec![0x0a, 0x01, 0xff];
    for message in [twice, taken_back, as_number, group, no_utf8] {
        assert_eq!(read("MoveApp", &message), Err(Unreadable), "{message:?}");
    }
    for cut in 1..request.len() {
        assert_eq!(read("MoveApp", &request[..cut]), Err(Unreadable), "{cut}");
    }
    let filter = |team: &str| {
        let filter = NoticeFilter { account_id: team.to_owned(), ..NoticeFilter::default() };
        ListNoticesRequest { filter: Some(filter), ..ListNoticesRequest::default() }.encode_to_vec()
    };
    assert_eq!(read("ListNotices", &[filter("a"), filter("b")].concat()), Err(Unreadable));
}
