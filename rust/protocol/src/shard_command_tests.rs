use super::*;

fn key(name: &str) -> Key {
    Key::try_from(name).unwrap()
}

fn write(name: &str, value: &'static [u8], condition: Condition) -> Write {
    Write {
        key: key(name),
        value: Some(Bytes::from_static(value)),
        condition,
    }
}

fn hex(bytes: &Bytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The encoding in existing logs.
#[test]
fn commands_and_outcomes_keep_their_encoding() {
    let batch = Command::Write(vec![
        write("k", b"v", Condition::Version(300)),
        Write {
            key: key("l"),
            value: None,
            condition: Condition::Absent,
        },
    ]);
    assert_eq!(
        hex(&format::encode_inner(&batch)),
        "0002016b00010176".to_owned() + "02ac02" + "016c000001"
    );
    let append = Command::Append {
        source: "web".to_owned(),
        data: Bytes::from_static(b"line"),
    };
    assert_eq!(hex(&format::encode_inner(&append)), "0103776562046c696e65");
    for command in [batch, append] {
        let bytes = format::encode_inner(&command);
        assert_eq!(format::decode_inner("command", &bytes), Ok(command));
    }
    let done = Outcome::Done { index: 7, term: 2 };
    assert_eq!(hex(&done.to_bytes()), "000702");
    let failed = Outcome::ConditionFailed {
        write: 1,
        current: Some(5),
    };
    assert_eq!(hex(&failed.to_bytes()), "01010105");
    for outcome in [done, failed] {
        assert_eq!(Outcome::from_bytes(&outcome.to_bytes()), outcome);
    }
}

#[test]
fn a_batch_is_not_empty_and_writes_each_key_once() {
    let reason = |writes| Command::Write(writes).validate().unwrap_err().to_string();
    assert!(reason(vec![]).contains("at least one"));
    let twice = vec![write("k", b"1", Condition::Any), write("k", b"2", Condition::Any)];
    assert!(reason(twice).contains("twice"));
    assert_eq!(
        Command::Write(vec![write("k", b"1", Condition::Any)]).validate(),
        Ok(())
    );
}

#[test]
fn a_command_that_is_too_large_is_not_logged() {
    let of_size = |size: usize| Write {
        key: key("k"),
        value: Some(vec![0; size].into()),
        condition: Condition::Any,
    };
    assert_eq!(Command::Write(vec![of_size(MAX_VALUE_BYTES)]).validate(), Ok(()));
    let too_large = Command::Write(vec![of_size(MAX_VALUE_BYTES + 1)]);
    assert!(matches!(too_large.validate(), Err(Error::LimitExceeded { .. })));
    let halves = ["a", "b"].map(|name| Write {
        key: key(name),
        ..of_size(MAX_COMMAND_BYTES / 2)
    });
    assert!(matches!(
        Command::Write(halves.to_vec()).validate(),
        Err(Error::LimitExceeded { .. })
    ));
    let append = Command::Append {
        source: "s".repeat(MAX_SOURCE + 1),
        data: Bytes::new(),
    };
    assert!(matches!(append.validate(), Err(Error::LimitExceeded { .. })));
}
