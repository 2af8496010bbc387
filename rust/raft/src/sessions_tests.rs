//! The guarantees of sessions.

use super::*;
use crate::types::Term;

/// Counts executions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Counter(u64);

impl StateMachine for Counter {
    type Command = Bytes;

    fn decode(command: &Bytes) -> Result<Bytes, FormatError> {
        Ok(command.clone())
    }

    fn apply(&mut self, _position: LogPosition, _time: WallTime, _command: Bytes) -> Bytes {
        self.0 += 1;
        self.0.to_string().into()
    }
}

impl Machine for Counter {
    fn query(&self, _query: &Bytes) -> Bytes {
        self.0.to_string().into()
    }

    fn save(&self) -> Bytes {
        format::encode(&self.0)
    }

    fn load(bytes: &Bytes) -> Result<Self, FormatError> {
        format::decode("counter", bytes).map(Counter)
    }
}

/// A log whose entries are applied at once.
#[derive(Default)]
struct Bench {
    state: Sessions<Counter>,
    time: WallTime,
}

impl Bench {
    fn apply(&mut self, request: Request) -> Result<Answer, SessionError> {
        let position = LogPosition {
            term: Term(1),
            index: self.state.applied().next(),
        };
        let command = logged(self.time, request);
        self.state.apply(position, &command).expect("it can be read")
    }

    fn open(&mut self, idle_ms: u64) -> SessionId {
        match self.apply(Request::Open { idle_ms }) {
            Ok(Answer::Opened(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, session: SessionId, sequence: u64, acknowledged: u64) -> Result<String, SessionError> {
        let command = "count".into();
        let request = Request::InSession {
            session,
            sequence,
            acknowledged,
            command,
        };
        self.apply(request).map(|answer| match answer {
            Answer::Done(answer) => String::from_utf8(answer.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        })
    }

    fn wait(&mut self, ms: u64) {
        self.time.0 += ms * 1000;
    }
}

#[test]
fn commands_arrive_in_any_order_and_each_is_executed_once() {
    let mut bench = Bench::default();
    let session = bench.open(1000);
    for sequence in [2, 1, 2, 3, 1, 3, 2] {
        bench.call(session, sequence, 0).unwrap();
    }
    let answers: Vec<_> = (1..=3)
        .map(|sequence| bench.call(session, sequence, 0).unwrap())
        .collect();
    assert_eq!(answers, ["2", "1", "3"]);
}

#[test]
fn acknowledged_commands_are_dropped_and_never_executed_again() {
    let mut bench = Bench::default();
    let session = bench.open(1000);
    for sequence in 1..=5 {
        bench.call(session, sequence, 0).unwrap();
    }
    bench.call(session, 6, 4).unwrap();
    assert_eq!(bench.call(session, 4, 0), Err(SessionError::Forgotten));
    assert_eq!(bench.call(session, 5, 0).unwrap(), "5");
    assert_eq!(bench.state.machine().0, 6);
}

/// Such a stamp is now rejected, but may be in a log.
#[test]
fn an_acknowledgement_of_the_highest_number_is_harmless() {
    let mut bench = Bench::default();
    let session = bench.open(1000);
    assert_eq!(bench.call(session, 1, 0), Ok("1".to_owned()));
    assert_eq!(bench.call(session, 2, u64::MAX), Err(SessionError::Forgotten));
    assert_eq!(bench.call(session, u64::MAX, 0), Err(SessionError::Forgotten));
}

#[test]
fn the_oldest_answer_is_dropped_at_the_limit() {
    let mut bench = Bench::default();
    let session = bench.open(1000);
    let last = MAX_ANSWERS as u64 + 1;
    for sequence in 1..=last {
        bench.call(session, sequence, 0).unwrap();
    }
    assert_eq!(bench.call(session, 1, 0), Err(SessionError::Forgotten));
    assert_eq!(bench.call(session, 2, 0).unwrap(), "2");
    assert_eq!(bench.state.machine().0, last);
}

#[test]
fn sessions_are_kept_alive_by_use_and_expire() {
    let mut bench = Bench::default();
    let (used, idle) = (bench.open(100), bench.open(100));
    for sequence in 1..=4 {
        bench.wait(80);
        bench.call(used, sequence, 0).unwrap();
    }
    assert_eq!(bench.call(idle, 1, 0), Err(SessionError::Expired));
    bench.wait(101);
    assert_eq!(bench.call(used, 5, 0), Err(SessionError::Expired));
    assert_eq!((bench.state.machine().0, bench.state.open()), (4, 0));
}

#[test]
fn the_time_in_the_log_never_runs_backwards() {
    let mut bench = Bench::default();
    bench.wait(1000);
    let session = bench.open(100);
    bench.time = WallTime(0);
    bench.call(session, 1, 0).unwrap();
    bench.time = WallTime(1_100_001);
    assert_eq!(bench.call(session, 2, 0), Err(SessionError::Expired));
}

#[test]
fn at_the_limit_the_session_that_expires_first_is_closed() {
    let mut bench = Bench::default();
    let short = bench.open(10);
    let long = bench.open(1_000_000);
    for _ in 2..=MAX_SESSIONS {
        bench.open(1000);
    }
    assert_eq!(bench.state.open(), MAX_SESSIONS);
    assert_eq!(bench.call(short, 1, 0), Err(SessionError::Expired));
    bench.call(long, 1, 0).unwrap();
}

#[test]
fn a_snapshot_includes_everything() {
    let mut bench = Bench::default();
    let session = bench.open(1000);
    bench.call(session, 1, 0).unwrap();
    bench.call(session, 2, 1).unwrap();
    let saved = bench.state.save(false);
    assert_eq!(Sessions::load(&saved).unwrap(), bench.state);
    let without: Sessions<Counter> = Sessions::load(&bench.state.save(true)).unwrap();
    assert_ne!(without, bench.state);
    assert!(Sessions::<Counter>::load(&saved.slice(..saved.len() - 1)).is_err());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn stored_bytes_do_not_change() {
    let command = Bytes::from_static(b"x");
    let in_session = Request::InSession {
        session: SessionId(5),
        sequence: 2,
        acknowledged: 1,
        command: command.clone(),
    };
    let samples = [
        (Request::Plain(command), "e807000178"),
        (Request::Open { idle_ms: 1000 }, "e80701e807"),
        (Request::Close(SessionId(5)), "e8070205"),
        (in_session, "e807030502010178"),
    ];
    for (request, bytes) in samples {
        let stored = logged(WallTime(1000), request.clone());
        assert_eq!(hex(&stored), bytes);
        assert_eq!(
            Logged::<Bytes>::decode(&stored).map(|logged| logged.request),
            Ok(request)
        );
    }
    let mut bench = Bench::default();
    let session = bench.open(1000);
    bench.call(session, 1, 0).unwrap();
    assert_eq!(
        hex(&bench.state.save(false)),
        "0202000101e807c0843d0001010131020201"
    );
}
