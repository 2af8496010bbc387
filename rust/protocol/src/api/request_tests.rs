use super::*;
use crate::api::Stamp;
use crate::api::request_samples::{encoded_len, every_kind};

/// The parts of fixed size of a request on the wire.
const FIXED: usize = 128;

#[test]
fn no_request_exceeds_its_reported_size() {
    for request in every_kind() {
        let (says, has) = (request.bytes() + FIXED, encoded_len(&request));
        assert!(
            has <= says,
            "{}: {has} bytes, says {says}",
            request.operation_name()
        );
    }
}

#[test]
fn the_properties_of_a_request_are_consistent() {
    for request in every_kind() {
        let name = request.operation_name();
        let group = request.group();
        assert_eq!(request.raft_span().is_some(), group.is_some(), "{name}");
        assert_eq!(
            matches!(request.target(), Target::Group(..)),
            group.is_some(),
            "{name}"
        );
        assert!(
            !request.is_read() || request.is_repeatable(),
            "{name}: a read does no harm"
        );
        assert!(
            request.read_level().is_none() || request.is_read() && group.is_some(),
            "{name}"
        );
        assert!(request.level().is_none() || group.is_none(), "{name}");
        assert!(
            request.keyspace().is_some() || request.key().is_none(),
            "{name}: a key is some keyspace's"
        );
        if let Some(operation) = request.operation() {
            assert!(
                request.keyspace().is_some(),
                "{name} is counted as {}",
                operation.name()
            );
        }
        assert_eq!(request.validate(), Ok(()), "{name}");
    }
}

#[test]
fn a_command_is_idempotent_in_a_session() {
    let propose = |session| Request::Propose {
        keyspace: KeyspaceId(1),
        group: GroupId(2),
        command: Command::Append {
            source: String::new(),
            data: Bytes::new(),
        },
        session,
    };
    assert!(!propose(None).is_repeatable());
    let stamp = Stamp {
        session: 1,
        sequence: 1,
        acknowledged: 0,
    };
    assert!(propose(Some(stamp)).is_repeatable());
}
