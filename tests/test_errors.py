"""The exception tree."""

import pickle

import pytest

import quorate
from quorate import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind):
    fields = dict.fromkeys(kind._fields, 3)
    if kind is errors.PartialFailure:
        fields = {"succeeded": {}, "failed": {"a": errors.Unavailable("no", required=2, alive=1)}}
    error = kind("what happened", **fields)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what happened"
    assert all(str(getattr(again, name)) == str(getattr(error, name)) for name in kind._fields)


def test_only_unknown_outcomes_are_not_definite():
    assert [kind.__name__ for kind in KINDS if kind.definite is False] == ["OutcomeUnknown", "SessionExpired"]


def test_a_batch_is_as_definite_as_its_failures():
    unknown = errors.OutcomeUnknown("late", acked=1, required=2)
    lost = errors.ConnectionLost("gone")
    assert errors.PartialFailure("x", succeeded={}, failed={"a": lost}).definite
    assert not errors.PartialFailure("x", succeeded={}, failed={"a": lost, "b": unknown}).definite


def test_errors_are_the_builtin_kinds_that_programs_catch():
    assert issubclass(quorate.OutcomeUnknown, TimeoutError)
    assert issubclass(quorate.ReadTimeout, TimeoutError)
    assert issubclass(quorate.ConnectionLost, ConnectionError)
    assert issubclass(quorate.InvalidArgument, ValueError)
    assert issubclass(quorate.NotFound, LookupError)


def test_an_error_converts_to_plain_data():
    error = quorate.Unavailable("2 replica(s) required", required=2, alive=1)
    assert error.to_dict() == {
        "error": "Unavailable",
        "message": "2 replica(s) required",
        "definite": True,
        "required": 2,
        "alive": 1,
    }


def test_an_unknown_field_is_rejected():
    with pytest.raises(TypeError, match="no field acked"):
        quorate.Unavailable("x", acked=1)
