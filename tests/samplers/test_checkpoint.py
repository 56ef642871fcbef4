"""A state on disk: nothing is lost, nothing half is found, and what is not as it was written is refused."""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from cases import CASES, FLOW, VE, each_case, flow_line
from stepwise.samplers import AddressedNoise, State, checkpoint, run, start
from stepwise.samplers.checkpoint import check_state, dumps, fingerprint, load, loads, save, write
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules import karras

SIGMAS = {VE: karras(6), FLOW: flow_line(6, 3.0)}


def smooth(x, sigma):
    return x / (x * x + (1.0 + sigma * sigma))


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def a_state():
    return State({"x": drawn(2, 4, 5), "previous1": drawn(2, 4, 5, seed=1)}, 3, drawn(2, 4, 5, seed=1))


# What is written is what is read


@each_case()
def test_a_run_cut_at_any_model_call_and_gone_on_from_disk_is_equal_bit_for_bit(case, tmp_path, proved):
    plan, x, noise = case.plan(SIGMAS[case.path]), drawn(2, 4, 5, 7), AddressedNoise([5, 6])
    whole = run(plan, smooth, start(x), noise)
    for cut in range(len(plan.stages) + 1):
        save(tmp_path / "state", run(plan, smooth, start(x), noise, stop=cut), plan)
        again = case.plan(SIGMAS[case.path])
        assert torch.equal(run(again, smooth, load(tmp_path / "state", again), noise).x, whole.x), f"cut at {cut}"
        proved(1)


VALUES = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    0.1 + 0.2,
    5e-324,
    math.inf,
    -math.inf,
    "süß \"'\n\0 <tensor>",
    [],
    (),
    {},
    [(1, [2.0]), {"map": {"tensor": "x", "": None}}],
    FLOW,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_plain_value_comes_back_with_its_type(value):
    back = loads(dumps(value))
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)], ids=str)
def test_a_tensor_comes_back_bit_for_bit(dtype, shape):
    tensor = (100.0 * drawn(*shape)).to(dtype)
    back = loads(dumps({"a": tensor, "b": [tensor.clone()]}))
    for each in (back["a"], *back["b"]):
        assert each.dtype == tensor.dtype
        assert torch.equal(each, tensor)


def test_odd_bits_of_a_tensor_come_back():
    """Not a number, both zeros, infinities, denormals; views that are not contiguous, and views of one memory."""
    odd = torch.tensor([math.nan, -0.0, 0.0, math.inf, -math.inf, 1e-45])
    assert torch.equal(loads(dumps(odd)).view(torch.int32), odd.view(torch.int32))
    base = drawn(4, 6)
    back = loads(dumps([base.t(), base[1:, ::2], base[:2], base]))
    assert all(torch.equal(a, b) for a, b in zip(back, [base.t(), base[1:, ::2], base[:2], base], strict=True))


def test_what_is_shared_is_written_once_and_stays_shared():
    tensor = drawn(1000)
    once, twice = dumps([tensor]), dumps([tensor, tensor])
    assert len(twice) - len(once) < 100
    first, second = loads(twice)
    assert first is second


CLASHING = [
    {"a.b": 1, "a": {"b": 2}},
    {"a": {"b": 1}, "a.b": 2, "a.b~2": 3},
    {"a": [1, {"": 2}], "a.0": 3, "a.1.": 4},
    {"": 1, "value": 2, ".value": 3},
    {"__metadata__": 1, "__metadata__~2": 2},
    {"\ud800": 1, "\\ud800": 2, "\xe4": 3},
]


@pytest.mark.parametrize("names", CLASHING, ids=str)
def test_no_two_values_share_a_name_in_the_file(names):
    """Keys that lead to one name by two ways: each tensor comes back in its own place."""

    def filled(value):
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        return list(map(filled, value)) if isinstance(value, list) else torch.full((2,), float(value))

    def emptied(value):
        if isinstance(value, dict):
            return {key: emptied(each) for key, each in value.items()}
        return list(map(emptied, value)) if isinstance(value, list) else int(value[0])

    assert emptied(loads(dumps(filled(names)))) == names


def test_a_new_file_takes_the_place_of_none(tmp_path):
    write(tmp_path / "state", b"old")
    with pytest.raises(FileExistsError):
        write(tmp_path / "state", b"new", new=True)
    assert (tmp_path / "state").read_bytes() == b"old"
    write(tmp_path / "other", b"new", new=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "state"]
    assert (tmp_path / "other").read_bytes() == b"new"


@pytest.mark.parametrize("dtype", [d for d in vars(torch).values() if isinstance(d, torch.dtype)], ids=str)
def test_the_size_of_a_file_is_known_from_its_header_for_every_number_format(dtype):
    try:
        data = dumps(torch.zeros(3, dtype=dtype))
    except (KeyError, RuntimeError, TypeError, ValueError):
        return
    assert checkpoint.marks_of(data)


def test_a_field_that_an_older_file_lacks_has_its_default():
    assert loads(resealed(dumps(a_state()), '"index":3,', "")).index == 0


def test_what_cannot_be_written_is_named():
    with pytest.raises(TypeError, match=r"latent\.extra\.1 is of the type object, which cannot be written"):
        dumps({"latent": {"extra": [1, object()]}})
    with pytest.raises(TypeError, match="a has the key 1, which is not text"):
        dumps({"a": {1: 2}})


# What is not as it was written is refused


def resealed(data: bytes, old: str, new: str) -> bytes:
    """The file with another text and the digest that fits it, as someone would make it who knows how."""
    marks, tensors = checkpoint.marks_of(data), safetensors.torch.load(data)
    assert old in marks["state"]
    text = marks["state"].replace(old, new)
    return safetensors.torch.save(tensors, {**marks, "state": text, "digest": checkpoint.digest(text, tensors)})


def test_a_file_cut_short_anywhere_is_refused():
    data = dumps(a_state())
    for length in range(len(data)):
        with pytest.raises(InputError, match="file is"):
            loads(data[:length])


def test_no_changed_bit_goes_unnoticed():
    """Each byte of a file changed in one bit: it is refused, or (blanks that fill the header up) means the same."""
    data, value = dumps({"x": torch.arange(6.0), "n": 7}), {"x": torch.arange(6.0), "n": 7}
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                back = loads(bytes(changed))
            except InputError:
                continue
            assert back["n"] == value["n"]
            assert torch.equal(back["x"], value["x"])
            assert data[place] == ord(" ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file is not a safetensors file, or is cut short. Choose a file that was saved as a state."),
        (b"\x80\x04\x95pickle", "file is not a safetensors file"),
        (b"PK\x03\x04" + b"\0" * 100, "file is not a safetensors file"),
        ((10).to_bytes(8, "little") + b"[" * 10, "file is not a safetensors file"),
        ((99999).to_bytes(8, "little") + b"[" * 99999, "file is not a safetensors file"),
        (safetensors.torch.save({"x": torch.ones(2)}), "file is a safetensors file, but no state of Stepwise"),
        (safetensors.torch.save({"x": torch.ones(2)}, {"format": "pt"}), "file is a safetensors file, but no state"),
    ],
    ids=["empty", "pickle", "zip", "no header", "deep", "tensors", "a model"],
)
def test_another_file_is_refused(data, message):
    with pytest.raises(InputError) as caught:
        loads(data)
    assert str(caught.value).startswith(message)


def test_another_version_is_refused_and_named():
    data = dumps(a_state(), form=replace(checkpoint.STATE, version="3"))
    with pytest.raises(InputError, match=r"version 3, and this Stepwise reads versions 1 and 2\. Update Stepwise"):
        loads(data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"State":', '{"Stats":', "it holds a Stats, which is not known here"),
        ('"index":', '"indices":', "it has the field indices, which is not known here"),
        ('"registers":{"map":{', '"index":{"map":{', "it lacks the field registers"),
        ('{"tensor":"registers.x"}', '{"tensor":"registers.y"}', "the tensor registers.y is missing"),
    ],
)
def test_a_file_with_a_right_digest_and_an_unknown_content_is_refused(old, new, message):
    with pytest.raises(InputError, match=f"does not understand: {message}"):
        loads(resealed(dumps(a_state()), old, new))


def test_a_state_that_its_plan_cannot_go_on_from_is_refused():
    case = next(case for case in CASES if case.solver.id == "DPMpp2M" and case.path is VE)
    plan = case.plan(SIGMAS[VE])
    good = run(plan, smooth, start(drawn(1, 4)), stop=3)
    check_state(plan, good)
    wrong = {
        "state lacks the register previous1": {"x": good.x},
        "a register previous1 of 1x5 float32 beside x of 1x4 float32": {"x": good.x, "previous1": drawn(1, 5)},
        "a register previous1 of 1x4 float64": {"x": good.x, "previous1": good.registers["previous1"].double()},
        "a register x of 1x4 int64": {"x": good.x.long(), "previous1": good.registers["previous1"].long()},
        "lacks the register x": {"previous1": good.registers["previous1"]},
    }
    for message, registers in wrong.items():
        with pytest.raises(InputError, match=message):
            check_state(plan, replace(good, registers=registers))
    with pytest.raises(InputError, match="stands after model call 7, and the plan has 6"):
        check_state(plan, replace(good, index=7))


def test_a_state_of_another_plan_is_refused(tmp_path):
    case = next(case for case in CASES if case.solver.id == "DPMpp2M" and case.path is VE)
    plan = case.plan(SIGMAS[VE])
    save(tmp_path / "state", start(drawn(1, 4)), plan)
    with pytest.raises(InputError, match=r"plan is not the one that the state was made under\. Use the solver"):
        load(tmp_path / "state", case.plan(karras(7)))


def test_fingerprints_tell_plans_apart_and_forgive_the_last_bits():
    """Two plans have one fingerprint if and only if they take the same steps."""
    plans = [case.plan(SIGMAS[case.path]) for case in CASES] + [
        case.plan(karras(5)) for case in CASES if case.path is VE
    ]
    for one in plans:
        for other in plans:
            assert (fingerprint(one) == fingerprint(other)) == (one == other) or close(one, other)
    plan = plans[0]
    nudged = replace(plan, sigmas=tuple(sigma * (1.0 + 1e-15) for sigma in plan.sigmas))
    assert nudged != plan
    assert fingerprint(nudged) == fingerprint(plan)


@pytest.mark.parametrize(("share", "same"), [(1e-12, True), (1e-7, False)])
def test_fingerprints_have_nine_digits_of_every_coefficient(share, same):
    plan = next(case for case in CASES if case.solver.id == "EulerAncestral" and case.path is VE).plan(karras(5))
    stages = list(plan.stages)
    (last,) = stages[2].rows
    *others, (noise, value) = last.terms
    stages[2] = stages[2]._replace(rows=(last._replace(terms=(*others, (noise, value * (1.0 + share)))),))
    nudged = replace(plan, stages=tuple(stages))
    assert nudged != plan
    assert (fingerprint(nudged) == fingerprint(plan)) == same


def test_digests_tell_types_and_shapes_apart():
    """The same text and the same bytes."""
    zeros = torch.zeros(2, 3)
    others = (zeros.int(), zeros.reshape(3, 2), zeros.reshape(6))
    assert checkpoint.digest("", {"a": zeros}) == checkpoint.digest("", {"a": zeros.clone()})
    assert len({checkpoint.digest("", {"a": each}) for each in (zeros, *others)}) == 4


def close(one, other):
    """Equal on paper, and different in the last bits, as DDIM with eta 0 and Euler are."""
    rows = [[row for stage in plan.stages for row in (*stage.opening, *stage.rows)] for plan in (one, other)]
    if [row.target for row in rows[0]] != [row.target for row in rows[1]]:
        return False
    terms = [{operand: value for row in each for operand, value in row.terms} for each in rows]
    return terms[0].keys() == terms[1].keys() and all(
        math.isclose(value, terms[1][operand], rel_tol=1e-8) for operand, value in terms[0].items()
    )


# A file is whole or not there


@contextmanager
def no_room(size: int):
    """The system refuses files longer than this: a real failure in the middle of writing."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 4096, 99_999])
def test_without_room_the_file_that_was_there_stays_and_nothing_else(tmp_path, size):
    file = tmp_path / "state.safetensors"
    write(file, b"old")
    with no_room(size), pytest.raises(OSError, match="File too large"):
        write(file, b"n" * 100_000)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_whoever_looks_while_a_file_is_written_sees_the_old_one_whole(tmp_path, monkeypatch):
    file, seen = tmp_path / "state.safetensors", []
    write(file, b"old")
    for name in ("fsync", "replace"):
        real = getattr(checkpoint.os, name)
        monkeypatch.setattr(checkpoint.os, name, lambda *a, real=real: (seen.append(file.read_bytes()), real(*a))[1])
    write(file, b"new")
    assert seen == [b"old", b"old", b"new"]
    assert file.read_bytes() == b"new"


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "occupied").write_bytes(b"")
    with pytest.raises(OSError, match="occupied"):
        write(tmp_path / "occupied" / "state.safetensors", b"new")
