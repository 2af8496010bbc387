//! Single requests: order, size, deadline.

use super::*;
use quorate_core::key::MAX_VALUE_BYTES;

#[tokio::test]
async fn requests_are_answered_in_any_order() {
    let mut served = serve(Limits::default()).await;
    let (mut client, hello) = Client::connect(served.address, None).await;
    assert!(matches!(
        hello,
        ServerHello::Welcome {
            node: NodeId(1),
            boot: BootId(9),
            ..
        }
    ));
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(2, put(10))])
        .await;
    let (first, _) = served.request().await;
    let (second, _) = served.request().await;
    assert_eq!(served.replies.in_flight(), 2);
    served.replies.reply_all(vec![
        (second, Err(Error::Closed("2".to_owned()))),
        (first, listed()),
    ]);
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_err()), (2, true));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_ok()), (1, true));
    assert_eq!(served.replies.in_flight(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_value_beyond_the_limit_is_rejected_and_the_connection_stays_open() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, put(MAX_VALUE_BYTES + 1)), frame(2, put(MAX_VALUE_BYTES))])
        .await;
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!(answer.id, 1);
    assert!(
        matches!(answer.response, Err(Error::LimitExceeded { size, .. }) if size == MAX_VALUE_BYTES as u64 + 1)
    );
    assert_eq!(served.request().await.1.id, 2);
    served.listener.stop(None);
}

#[tokio::test]
async fn expired_requests_are_not_dispatched() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let (mut write, mut read) = (frame(1, put(10)), frame(2, Request::ListKeyspaces));
    (write.deadline_ms, read.deadline_ms) = (0, 0);
    client
        .send(&[write, read, frame(3, Request::ListKeyspaces)])
        .await;
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::Overloaded(text)) if text.contains("deadline")));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::ReadTimeout { .. })));
    assert_eq!(served.request().await.1.id, 3);
    served.listener.stop(None);
}

#[tokio::test]
async fn large_requests_wait_for_room() {
    let mut served = serve(Limits {
        partial_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let (mut slow, _) = Client::connect(served.address, None).await;
    let (mut other, _) = Client::connect(served.address, None).await;
    let mut bytes = BytesMut::new();
    encode(&frame(1, put(900_000)), MAX_CLIENT_FRAME, &mut bytes).unwrap();
    slow.stream.write_all(&bytes[..500_000]).await.unwrap();
    let replies = served.replies.clone();
    until("it has its room", || replies.shared.load.partial.used() > 0).await;
    other.send(&[frame(7, Request::ListKeyspaces)]).await;
    assert_eq!(served.request().await.1.id, 7, "small requests do not wait");
    let sending = tokio::spawn(async move {
        other.send(&[frame(8, put(800_000))]).await;
        other
    });
    // The other request waits while this one is partial; both are read once it is complete.
    until("the other waits", || {
        replies.shared.load.partial.used() <= 1 << 20
    })
    .await;
    assert!(served.requests.try_recv().is_err());
    slow.stream.write_all(&bytes[500_000..]).await.unwrap();
    assert_eq!(served.request().await.1.id, 1);
    assert_eq!(served.request().await.1.id, 8);
    drop(sending.await.unwrap());
    until("all room is released", || replies.shared.load.partial.used() == 0).await;
    served.listener.stop(None);
}

#[tokio::test]
async fn a_partial_request_times_out() {
    let served = serve(Limits {
        frame: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.stream.write_all(&[100, 0, 0, 0, 1]).await.unwrap();
    assert!(client.next::<ResponseFrame>().await.is_none());
    served.listener.stop(None);
}

#[tokio::test]
async fn a_response_beyond_the_frame_limit_becomes_an_error() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (asked, _) = served.request().await;
    served
        .replies
        .reply(asked, Ok(Response::Metrics("x".repeat(MAX_CLIENT_FRAME + 1))));
    let answer: ResponseFrame = client.next().await.unwrap();
    assert!(matches!(answer.response, Err(Error::LimitExceeded { .. })));
    served.listener.stop(None);
}

#[tokio::test]
async fn a_duplicate_request_id_closes_the_connection() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(1, Request::ListKeyspaces)])
        .await;
    assert!(client.next::<ResponseFrame>().await.is_none());
    let replies = served.replies.clone();
    until("the load is released", || replies.in_flight() == 0).await;
    assert!(served.requests.try_recv().is_err(), "neither was dispatched");
    served.listener.stop(None);
}

#[tokio::test]
async fn a_request_beyond_the_frame_limit_is_rejected_and_the_connection_stays_open() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[
            frame(1 << 40, put(3 << 20)),
            frame(2, put(31 << 20)),
            frame(3, put(10)),
        ])
        .await;
    for id in [1 << 40, 2] {
        let answer: ResponseFrame = client.next().await.unwrap();
        assert_eq!(answer.id, id);
        assert!(
            matches!(answer.response, Err(Error::LimitExceeded { limit, size, .. }) if size > limit),
            "{:?}",
            answer.response
        );
    }
    let (asked, request) = served.request().await;
    assert_eq!(request.id, 3);
    served.replies.reply(asked, listed());
    assert_eq!(client.next::<ResponseFrame>().await.unwrap().id, 3);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_frame_beyond_the_protocol_limit_closes_the_connection() {
    let served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let length = u32::try_from(MAX_CLIENT_FRAME + 1).unwrap().to_le_bytes();
    client.stream.write_all(&length).await.unwrap();
    assert!(client.next::<ResponseFrame>().await.is_none());
    served.listener.stop(None);
}
