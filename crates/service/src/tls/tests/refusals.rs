//! Who does not come in, and what is counted for it.

use super::*;

#[tokio::test]
async fn a_certificate_that_is_not_right_makes_no_connection() {
    let rig = Rig::new().await;
    let others = Authority::new("others").unwrap();
    // the same name and another key: trust is in the key
    let imitated = Authority::new("ours").unwrap();
    let day = 86_400;
    let cases = [
        ("no_certificate", rig.nobody()),
        ("unknown_issuer", rig.client(&others, &Profile::client("other"))),
        (
            "expired",
            rig.client(
                &rig.authority,
                &Profile { begins_secs: -2 * day, days: -1, ..Profile::client("old") },
            ),
        ),
        (
            "not_yet_valid",
            rig.client(&rig.authority, &Profile { begins_secs: day, ..Profile::client("young") }),
        ),
        (
            "nameless",
            rig.client(&rig.authority, &Profile { uris: Vec::new(), ..Profile::client("nameless") }),
        ),
        (
            "nameless",
            rig.client(
                &rig.authority,
                &Profile {
                    uris: vec!["drawdown://a".into(), "drawdown://b".into()],
                    ..Profile::client("two")
                },
            ),
        ),
        (
            "nameless",
            rig.client(
                &rig.authority,
                &Profile { uris: vec!["https://metering".into()], ..Profile::client("foreign") },
            ),
        ),
    ];
    let mut before = rig_counts(&rig);
    for (reason, files) in cases {
        rig.call(files).await.unwrap_err();
        *before.entry(reason).or_default() += 1.0;
        until(|| rig_counts(&rig) == before).await;
    }
    rig.call(rig.client(&imitated, &Profile::client("imitated"))).await.unwrap_err();
    // by its name it is trusted, by its signature it is not
    until(|| rig.failed("bad_certificate") + rig.failed("unknown_issuer") > 1.5).await;
    let metering = rig.client(&rig.authority, &Profile::client("metering"));
    assert_eq!(rig.call(metering).await.unwrap(), "metering");
}

fn rig_counts(rig: &Rig) -> std::collections::BTreeMap<&'static str, f64> {
    super::super::handshake::Failure::ALL
        .iter()
        .map(|failure| (failure.word(), rig.failed(failure.word())))
        .filter(|(_, times)| *times > 0.0)
        .collect()
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_not_right() {
    let rig = Rig::new().await;
    let metering = rig.client(&rig.authority, &Profile::client("metering"));
    let others = Authority::new("others").unwrap();
    let bundle = rig.dir.path().join("others.pem");
    std::fs::write(&bundle, others.certificate_pem()).unwrap();
    let distrusting = Files { trust_bundle: Some(bundle), ..metering.clone() };
    rig.call(distrusting).await.unwrap_err();
    rig.counts("refused", 1.0).await;
    // another host than the certificate is for
    let elsewhere = rig.channel(connector(metering.clone(), "ledger.example")).await;
    elsewhere.unwrap_err();
    rig.counts("refused", 2.0).await;
    // the host is right, and the service is another one than was meant
    let meant = |name: &str| {
        let name = Some(Name::new(name).unwrap());
        Connector::new(metering.clone(), "localhost".try_into().unwrap(), name, &[ALPN_HTTP2]).unwrap()
    };
    let error = rig.channel(meant("entitlement")).await.unwrap_err();
    assert!(error.message().contains("the peer is ledger, not entitlement"), "{error}");
    assert_eq!(who(rig.channel(meant("ledger")).await.unwrap()).await.unwrap(), "metering");
}

#[tokio::test]
async fn what_is_no_handshake_is_closed_and_named() {
    let rig = Rig::new().await;
    let cases: [(&str, &[u8]); 3] = [
        ("not_tls", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("not_tls", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
        // a record that says it is longer than what comes
        ("truncated", &[0x16, 3, 1, 0x01, 0, 1, 0, 0, 0xfc, 3, 3]),
    ];
    let mut counted = std::collections::BTreeMap::<&str, f64>::new();
    for (reason, bytes) in cases {
        let mut stream = TcpStream::connect(rig.addresses.grpc).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        ended(stream).await;
        *counted.entry(reason).or_default() += 1.0;
        until(|| rig_counts(&rig) == counted).await;
    }
}

/// A hello that offers TLS 1.2 with what every client of that version had, and no later version.
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions: &[&[u8]] = &[
        &[0, 10, 0, 4, 0, 2, 0, 0x17],       // groups: P-256
        &[0, 11, 0, 2, 1, 0],                // points: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],    // signatures: ECDSA and RSA-PSS with SHA-256
        &[0, 23, 0, 0],                      // extended master secret
        &[0, 16, 0, 5, 0, 3, 2, b'h', b'2'], // ALPN
    ];
    let extensions = extensions.concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]); // no session, ECDHE with AES-128-GCM, no compression
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = vec![0x16, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let rig = Rig::new().await;
    let mut stream = TcpStream::connect(rig.addresses.grpc).await.unwrap();
    stream.write_all(&hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // a fatal alert: protocol_version
    assert_eq!((answer[0], &answer[5..]), (0x15, &[2, 70][..]), "{answer:?}");
    rig.counts("incompatible", 1.0).await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_and_holds_nobody_up() {
    let rig = Rig::with(|options| {
        options.handshake_time_max_ms = Millis::from_millis(300);
        options.handshakes_max = Count::of(2);
    })
    .await;
    let silent = TcpStream::connect(rig.addresses.grpc).await.unwrap();
    let metering = rig.client(&rig.authority, &Profile::client("metering"));
    assert_eq!(rig.call(metering.clone()).await.unwrap(), "metering");
    let also_silent = TcpStream::connect(rig.addresses.grpc).await.unwrap();
    // as many as may be: the next one is closed at once, and the port stays open
    let one_too_many = TcpStream::connect(rig.addresses.grpc).await.unwrap();
    ended(one_too_many).await;
    until(|| rig.failed("too_many") > 0.5).await;
    ended(silent).await;
    ended(also_silent).await;
    until(|| rig.failed("timed_out") > 1.5).await;
    assert_eq!(rig.call(metering).await.unwrap(), "metering");
}

/// Connections that nobody says anything by: those that may be are left alone, the next one is closed.
#[tokio::test]
async fn connections_are_bounded_and_a_place_is_free_when_one_ends() {
    let rig = Rig::of(|options| options.connections_max = Count::of(2)).await;
    let metering = rig.client(&rig.authority, &Profile::client("metering"));
    let channel = rig.channel(connector(metering.clone(), "127.0.0.1")).await.unwrap();
    assert_eq!(who(channel.clone()).await.unwrap(), "metering");
    let silent = TcpStream::connect(rig.addresses.grpc).await.unwrap();
    ended(TcpStream::connect(rig.addresses.grpc).await.unwrap()).await;
    assert!(rig.call(metering.clone()).await.is_err(), "there is no place for another one");
    assert_eq!(who(channel).await.unwrap(), "metering", "who is there goes on");
    let refused = rig.telemetry.scrape().unwrap();
    let refused =
        refused.lines().find(|line| line.starts_with("drawdown_rpc_server_connections_refused_total"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
    drop(silent);
    let again = async { while rig.call(metering.clone()).await.is_err() {} };
    tokio::time::timeout(LIMIT, again).await.unwrap();
}

/// Waits until the other side has closed.
async fn ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // closed with bytes unread is a reset, which is closed as well
    drop(tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it stays open"));
}
