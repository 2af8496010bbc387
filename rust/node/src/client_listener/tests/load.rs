//! Overload: rejection, backpressure, clients that do not read.

use super::*;

fn megabyte() -> Result<Response, Error> {
    Ok(Response::Metrics("x".repeat(1 << 20)))
}

#[tokio::test]
async fn overload_is_rejected_and_later_requests_are_admitted() {
    let mut served = serve(admitting(admission::Limits {
        requests: 2,
        ..admission::Limits::default()
    }))
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[1, 2, 3].map(|id| frame(id, Request::ListKeyspaces)))
        .await;
    let refused: ResponseFrame = client.next().await.unwrap();
    assert_eq!(refused.id, 3);
    assert!(matches!(refused.response, Err(Error::Overloaded(_))));
    assert_eq!(served.replies.refused(), 1);
    let (first, _) = served.request().await;
    served.replies.reply(first, listed());
    assert_eq!(client.next::<ResponseFrame>().await.unwrap().id, 1);
    client.send(&[frame(4, Request::ListKeyspaces)]).await;
    assert_eq!(served.request().await.1.id, 2);
    assert_eq!(served.request().await.1.id, 4);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let mut served = serve(Limits {
        unread_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let ids: Vec<RequestFrame> = (0..64).map(|id| frame(id, Request::ListKeyspaces)).collect();
    client.send(&ids).await;
    for _ in 0..64 {
        let (client, _) = served.request().await;
        served
            .replies
            .reply(client, Ok(Response::Metrics("x".repeat(1 << 20))));
    }
    let replies = served.replies.clone();
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.in_flight(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn no_requests_are_read_from_a_client_that_does_not_read() {
    let mut served = serve(Limits {
        unread_bytes: 64 << 20,
        ..Limits::default()
    })
    .await;
    let replies = served.replies.clone();
    let (mut lazy, _) = Client::connect(served.address, None).await;
    let (mut other, _) = Client::connect(served.address, None).await;
    lazy.send(&[frame(1, Request::ListKeyspaces)]).await;
    let (client, _) = served.request().await;
    // More than the sockets' buffers and a quarter of the limit.
    replies.reply(client, Ok(Response::Metrics("x".repeat(31 << 20))));
    lazy.send(&[frame(2, Request::ListKeyspaces)]).await;
    // The listener has time to read it.
    for id in 0..20 {
        other.send(&[frame(id, put(10))]).await;
        let (client, request) = served.request().await;
        assert!(
            matches!(request.request, Request::Put { .. }),
            "the request of a client with unread responses is not read"
        );
        replies.reply(client, listed());
        assert!(other.next::<ResponseFrame>().await.is_some());
    }
    assert!(lazy.next::<ResponseFrame>().await.is_some());
    assert_eq!(served.request().await.1.id, 2);
    assert_eq!(replies.shared.load.unread.used(), 0);
    served.listener.stop(None);
}

#[tokio::test]
async fn a_client_that_stops_reading_times_out() {
    let mut served = serve(Limits {
        stall: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let replies = served.replies.clone();
    let (mut client, _) = Client::connect(served.address, None).await;
    let ids: Vec<RequestFrame> = (0..16).map(|id| frame(id, Request::ListKeyspaces)).collect();
    client.send(&ids).await;
    for _ in 0..16 {
        let (client, _) = served.request().await;
        replies.reply(client, megabyte());
    }
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.shared.load.unread.used(), 0);
    served.listener.stop(None);
}
