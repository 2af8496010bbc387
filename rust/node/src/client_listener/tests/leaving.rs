//! Disconnected clients, requests without a response, and the graceful stop of the listener.

use super::*;

#[tokio::test]
async fn requests_of_a_closed_connection_count_until_they_are_answered() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client
        .send(&[frame(1, Request::ListKeyspaces), frame(2, Request::ListKeyspaces)])
        .await;
    let (first, _) = served.request().await;
    let (second, _) = served.request().await;
    drop(client);
    let replies = served.replies.clone();
    until("the connection is closed", || replies.connected() == 0).await;
    assert_eq!(replies.in_flight(), 2, "they are still being executed");
    replies.reply_all(vec![(first, listed()), (second, listed())]);
    assert_eq!(replies.in_flight(), 0);
    until("the connection is removed", || {
        replies.shared.table.read().unwrap().is_empty()
    })
    .await;
    replies.reply(second, listed());
    served.listener.stop(None);
}

#[tokio::test]
async fn overdue_requests_are_answered_by_the_listener() {
    let mut served = serve(admitting(admission::Limits {
        overdue: Duration::from_millis(10),
        ..admission::Limits::default()
    }))
    .await;
    let (mut client, _) = Client::connect(served.address, None).await;
    let (mut write, mut read) = (frame(1, put(10)), frame(2, Request::ListKeyspaces));
    (write.deadline_ms, read.deadline_ms) = (20, 20);
    client.send(&[write, read]).await;
    let mut answers: Vec<ResponseFrame> = vec![client.next().await.unwrap(), client.next().await.unwrap()];
    answers.sort_by_key(|answer| answer.id);
    assert!(
        matches!(
            answers[0].response,
            Err(Error::OutcomeUnknown {
                acked: 0,
                required: 2,
                reason: None,
            })
        ),
        "the level's requirement: {answers:?}"
    );
    assert!(matches!(
        answers[1].response,
        Err(Error::ReadTimeout {
            answered: 0,
            required: 1
        })
    ));
    assert_eq!(served.replies.in_flight(), 0);
    let (late, _) = served.request().await;
    served.replies.reply(late, listed());
    served.listener.stop(None);
}

#[tokio::test]
async fn a_stopping_listener_rejects_new_requests_and_drains_admitted_ones() {
    let mut served = serve(Limits::default()).await;
    let (mut client, _) = Client::connect(served.address, None).await;
    client.send(&[frame(1, put(10))]).await;
    let (first, _) = served.request().await;
    let listener = served.listener.clone();
    let stopping = tokio::spawn(async move { listener.stop_and_wait(None, None).await });
    let replies = served.replies.clone();
    until("it is stopping", || replies.shared.is_closing()).await;
    client.send(&[frame(2, put(10))]).await;
    let refused: ResponseFrame = client.next().await.unwrap();
    assert_eq!(refused.id, 2);
    assert!(matches!(refused.response, Err(Error::Closed(_))));
    served.replies.reply(first, listed());
    let answer: ResponseFrame = client.next().await.unwrap();
    assert_eq!((answer.id, answer.response.is_ok()), (1, true));
    assert!(client.next::<ResponseFrame>().await.is_none());
    stopping.await.unwrap().unwrap();
    assert_eq!(replies.connected(), 0);
}

#[tokio::test]
async fn a_stopping_listener_does_not_wait_for_idle_connections() {
    let served = serve(Limits::default()).await;
    let (_idle, hello) = Client::connect(served.address, None).await;
    assert!(matches!(hello, ServerHello::Welcome { .. }));
    let _silent = TcpStream::connect(served.address).await.unwrap();
    let replies = served.replies.clone();
    until("both are connected", || replies.connected() == 2).await;
    let started = std::time::Instant::now();
    served.listener.stop_and_wait(None, None).await.unwrap();
    assert!(started.elapsed() < DRAIN, "{:?}", started.elapsed());
    assert_eq!(replies.connected(), 0);
}
