//! Three processes, read and written through their real doors.

use crate::client::put;
use crate::process::Cluster;
use quorate_protocol::api::Response;
use quorate_protocol::level::Level;

#[test]
fn what_is_put_at_one_node_is_read_at_another_and_survives_a_restart() {
    let mut cluster = Cluster::start(3);
    let keyspace = cluster.nodes[1].client().create("users", 3);
    let answer = cluster.nodes[0]
        .client()
        .ask(put(keyspace.id, "user-1", "Ada", Level::Quorum, 1));
    let Ok(Response::Written(written)) = answer else {
        panic!("{answer:?}")
    };
    assert!(written.acked.len() >= 2, "{written:?}");
    assert_eq!(
        cluster.nodes[2]
            .client()
            .values(keyspace.id, "user-1", Level::All),
        ["Ada"]
    );
    for index in 0..3 {
        cluster.restart(index);
    }
    cluster.await_links();
    assert_eq!(
        cluster.nodes[1]
            .client()
            .values(keyspace.id, "user-1", Level::All),
        ["Ada"]
    );
}
