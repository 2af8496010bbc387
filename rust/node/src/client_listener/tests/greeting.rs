//! The handshake: which clients are admitted, and how others are rejected.

use super::*;

#[tokio::test]
async fn a_client_of_another_cluster_or_version_is_rejected() {
    let served = serve(Limits::default()).await;
    let (mut client, hello) = Client::connect(served.address, Some(ClusterId(8))).await;
    assert!(matches!(hello, ServerHello::Refused(Error::Refused(reason)) if reason.contains("cluster")));
    assert!(
        client.next::<ResponseFrame>().await.is_none(),
        "closed after the rejection"
    );
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_without_the_secret_is_rejected() {
    let served = serve_with(Limits::default(), Some(Secret(b"sesame".to_vec()))).await;
    for wrong in [b"".as_slice(), b"sesam", b"sesame!", b"SESAME"] {
        let (mut client, hello) = Client::connect_with_secret(served.address, None, wrong).await;
        assert!(matches!(hello, ServerHello::Refused(Error::Refused(reason)) if reason.contains("secret")));
        assert!(
            client.next::<ResponseFrame>().await.is_none(),
            "closed after the rejection"
        );
    }
    let (_, hello) = Client::connect_with_secret(served.address, None, b"sesame").await;
    assert!(matches!(hello, ServerHello::Welcome { .. }));
    served.listener.stop(None);
}

#[tokio::test]
async fn a_malformed_frame_closes_only_its_connection() {
    let mut served = serve(Limits {
        hello: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let (mut good, _) = Client::connect(served.address, None).await;
    let endless = [CLIENT_MAGIC.as_slice(), &u32::MAX.to_le_bytes(), &[0; 64]].concat();
    let (mut late, _) = Client::connect(served.address, None).await;
    late.stream.write_all(&[0xff; 4096]).await.unwrap();
    assert!(
        late.next::<ResponseFrame>().await.is_none(),
        "garbage after the hello"
    );
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 4096],
        &endless,
        b"QR",
        b"",
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{bytes:?} is closed by the node");
        assert!(rest.is_empty());
    }
    good.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    served.replies.reply(client, listed());
    assert!(good.next::<ResponseFrame>().await.is_some());
    let replies = served.replies.clone();
    until("other connections are closed", || replies.connected() == 1).await;
    served.listener.stop(None);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_rejected() {
    let mut served = serve(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let (mut first, _) = Client::connect(served.address, None).await;
    let (mut second, hello) = Client::connect(served.address, None).await;
    assert!(
        matches!(&hello, ServerHello::Refused(Error::Overloaded(text)) if text.contains("n1 has 1 client connections")),
        "{hello:?}"
    );
    assert!(second.next::<ResponseFrame>().await.is_none());
    first.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    served.replies.reply(client, listed());
    assert!(first.next::<ResponseFrame>().await.is_some());
    drop(first);
    let replies = served.replies.clone();
    until("the connection is released", || replies.connected() == 0).await;
    let (_third, hello) = Client::connect(served.address, None).await;
    assert!(matches!(hello, ServerHello::Welcome { .. }));
    served.listener.stop(None);
}
