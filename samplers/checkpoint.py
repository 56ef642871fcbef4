"""Runs on disk: a value as a safetensors file, which holds numbers and text and nothing that could be executed.

A file is written whole or not at all, says what it is and which version of the format it has, and carries a digest of
all that it holds. Whatever is not as it was written, or not understood, is refused.
"""

import hashlib
import itertools
import json
import math
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path as FilePath
from typing import Any, BinaryIO, cast

import safetensors
import safetensors.torch
from torch import Tensor, empty, uint8

from .parameters import InputError
from .path import Path
from .plan import Pace, Plan, Row, State

FORMAT = "stepwise state"
# A header holds the graph and the schedule, not the pictures. None that is longer is read, or written.
HEADER_LIMIT = 16 * 2**20


@dataclass(frozen=True)
class Form:
    """A format: what its files say they are, the version that is written, and those that are read."""

    format: str
    version: str
    known: tuple[str, ...]
    called: str

    @property
    def damaged(self) -> str:
        """What helps where a file of it is not as it was written."""
        return f"load another copy, or make the {self.called} again"


# Version 2 may hold a fitted plan, which is no solver of version 1. What version 1 can hold is written as that, so that
# older Stepwise goes on reading it.
STATE = Form(FORMAT, "1", ("1", "2"), "state")
STATE_WITH_PLAN = Form(FORMAT, "2", STATE.known, "state")
RECIPE = Form("stepwise recipe", "1", ("1",), "recipe")
DAMAGED = STATE.damaged


@dataclass(frozen=True)
class Kind:
    """How values of a type are written: `apart` takes one to pieces, `whole` puts it together again."""

    type: type
    apart: Callable[[Any], Any]
    whole: Callable[[Any], Any]


def kind_of(made: type) -> Kind:
    """The kind of a dataclass: its fields by name. A field that a file lacks has its default."""

    def apart(value: Any) -> dict[str, Any]:
        return {each.name: getattr(value, each.name) for each in fields(made)}

    def whole(values: Mapping[str, Any]) -> Any:
        known = {each.name: each for each in fields(made)}
        needed = {name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"it has the field {unknown[0]}, which is not known here")
        if missing := sorted(needed - set(values)):
            raise ValueError(f"it lacks the field {missing[0]}")
        return made(**values)

    return Kind(made, apart, whole)


KINDS: Mapping[str, Kind] = {
    "Path": Kind(Path, lambda path: path.value, Path),
    "State": kind_of(State),
    "Pace": kind_of(Pace),
}


def dumps(
    value: Any, kinds: Mapping[str, Kind] = KINDS, about: Mapping[str, str] | None = None, form: Form = STATE
) -> bytes:
    """`value` as the bytes of a safetensors file of a form.

    Plain values, tensors, lists, tuples and mappings by string, of these and of `kinds`. A tensor that occurs twice is
    written once. `about` is text for other readers; it is not read back.

    Raises:
        TypeError: something in it is of another type; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_Writer(kinds, tensors).plain(value, ""), separators=(",", ":"), allow_nan=False)
    marks = {"format": form.format, "version": form.version, "state": text, "digest": digest(text, tensors)}
    data = safetensors.torch.save(tensors, {**(about or {}), **marks})
    # A graph with pictures in it is not worth a state that nobody can read.
    return safetensors.torch.save(tensors, marks) if about and _length(data) > HEADER_LIMIT else data


def loads(data: bytes, kinds: Mapping[str, Kind] = KINDS, name: str = "file", form: Form = STATE) -> Any:
    """What `dumps` wrote. Raises InputError, on the input `name`, for anything else."""
    marks = marks_of(data, name, form=form)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(name, f"is damaged or cut short ({error})", form.damaged) from None
    text = marks["state"]
    if digest(text, tensors) != marks["digest"]:
        raise InputError(name, "is damaged: its content is not what was written", form.damaged)
    try:
        return _value(json.loads(text), tensors, kinds)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = f"holds what this version of Stepwise does not understand: {error}"
        raise InputError(name, problem, "load it with the version that made it") from None


def marks_of(data: bytes, name: str = "file", size: int | None = None, form: Form = STATE) -> dict[str, str]:
    """The text that a state's file carries, from its first bytes on, if the file has `size` bytes (as many as `data`
    by default). Raises InputError unless it is a state, or what another form says, that can be read here."""
    size = len(data) if size is None else size
    length, another = _length(data), f"choose a file that was saved as a {form.called}"
    if HEADER_LIMIT < length <= size - 8:
        raise InputError(
            name, f"has a header of {length / 2**20:.0f} MiB, and no {form.called} has one of that size", another
        )
    # Most files in a folder are no states: their headers are not taken to pieces.
    if data[8:9] == b"{" and 0 < length <= len(data) - 8 and form.format.encode() not in data[: 8 + length]:
        raise InputError(name, f"is a safetensors file, but no {form.called} of Stepwise", another)
    header = _header(data)
    if header is None:
        raise InputError(name, "is not a safetensors file, or is cut short", another)
    marks = cast(dict[str, str], found) if isinstance(found := header.pop("__metadata__", {}), dict) else {}
    if marks.get("format") != form.format:
        raise InputError(name, f"is a safetensors file, but no {form.called} of Stepwise", another)
    if marks.get("version") not in form.known:
        read = f"version {form.known[0]}" if len(form.known) == 1 else f"versions {' and '.join(form.known)}"
        problem = f"has the format version {marks.get('version')}, and this Stepwise reads {read}"
        raise InputError(name, problem, "update Stepwise, or load it with the version that made it")
    if not all(isinstance(marks.get(mark), str) for mark in ("state", "digest")):
        raise InputError(name, "is damaged: its header says nothing of its content", form.damaged)
    if size != 8 + _length(data) + _content(header):
        raise InputError(name, "is damaged or cut short: its header tells of another size", form.damaged)
    return marks


def peek(file: FilePath, name: str = "file", form: Form = STATE) -> dict[str, str]:
    """`marks_of` without reading the tensors. Raises OSError too."""
    with _opened(file, name, form) as opened:
        return _looked_at(opened, name, form)


def read(file: FilePath, name: str = "file", form: Form = STATE) -> bytes:
    """The bytes of a file that looks like a state. Raises InputError before it reads more than the header of any other,
    and OSError."""
    with _opened(file, name, form) as opened:
        _looked_at(opened, name, form)
        opened.seek(0)
        return opened.read()


def outline(file: FilePath, kinds: Mapping[str, Kind] = KINDS, name: str = "file") -> Any:
    """The value in a file, with tensors that have their shape but no numbers: only the header is read, and the digest
    is not checked. Raises InputError for what is no state, and OSError."""
    with _opened(file, name) as opened:
        text = _looked_at(opened, name)["state"]
        opened.seek(0)
        start = opened.read(8)
        header = _header(start + opened.read(_length(start))) or {}
    try:
        tensors = {each: _hollow(told) for each, told in header.items() if each != "__metadata__"}
        return _value(json.loads(text), tensors, kinds)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise InputError(name, f"holds what this version of Stepwise does not understand: {error}", DAMAGED) from None


def _hollow(told: Mapping[str, Any]) -> Tensor:
    """A tensor as a header describes it, without memory for its numbers."""
    return empty([int(size) for size in told["shape"]], device="meta")


def _opened(file: FilePath, name: str, form: Form = STATE) -> BinaryIO:
    """A regular file: to open another thing, such as a pipe, may take for ever."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise InputError(name, "is no regular file", f"choose a file that was saved as a {form.called}")
    return file.open("rb")


def _looked_at(opened: BinaryIO, name: str, form: Form = STATE) -> dict[str, str]:
    start = opened.read(8)
    if _length(start) <= HEADER_LIMIT:
        start += opened.read(_length(start))
    return marks_of(start, name, os.fstat(opened.fileno()).st_size, form)


def _length(data: bytes) -> int:
    """A safetensors file begins with the length of its JSON header: 8 bytes, little endian."""
    return int.from_bytes(data[:8], "little")


def _header(data: bytes) -> dict[str, Any] | None:
    """The header, if there is a whole one."""
    length = _length(data)
    try:
        header = json.loads(data[8 : 8 + length]) if 0 < length <= len(data) - 8 else None
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], header) if isinstance(header, dict) else None


def _content(tensors: Mapping[str, Any]) -> int:
    """How many bytes the tensors of a header take; -1 where it is not told."""
    try:
        return max((int(each["data_offsets"][1]) for each in tensors.values()), default=0)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return -1


def digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b of the text and of every tensor's name, type, shape and bytes."""
    made = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        made.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        made.update(tensor.reshape(-1).view(uint8).numpy().data)
    return made.hexdigest()


class _Writer:
    """Takes a value apart: into JSON, and tensors by name."""

    def __init__(self, kinds: Mapping[str, Kind], tensors: dict[str, Tensor]):
        self.kinds, self.tensors = kinds, tensors
        # The tensors themselves are held, since an id is only unique among objects that live.
        self.seen: dict[int, tuple[str, Tensor]] = {}

    def plain(self, value: Any, at: str) -> Any:
        if type(value) is float and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self.named(value, at)}
        if isinstance(value, list):
            return [self.plain(each, f"{at}.{i}") for i, each in enumerate(cast(list[Any], value))]
        if isinstance(value, tuple):
            return {"tuple": [self.plain(each, f"{at}.{i}") for i, each in enumerate(cast(tuple[Any, ...], value))]}
        for name, kind in self.kinds.items():
            if isinstance(value, kind.type):
                return {name: self.plain(kind.apart(value), at)}
        if isinstance(value, Mapping):
            return {"map": dict(self.items(cast(Mapping[Any, Any], value), at))}
        raise TypeError(f"{at.lstrip('.') or 'value'} is of the type {type(value).__name__}, which cannot be written")

    def items(self, values: Mapping[Any, Any], at: str) -> Iterator[tuple[str, Any]]:
        for name, each in values.items():
            if not isinstance(name, str):
                raise TypeError(f"{at.lstrip('.') or 'value'} has the key {name!r}, which is not text")
            yield name, self.plain(each, f"{at}.{name}")

    def named(self, tensor: Tensor, at: str) -> str:
        if id(tensor) not in self.seen:
            name = self.free(at.lstrip(".") or "value")
            # A copy: safetensors refuses two views of one memory.
            self.tensors[name] = tensor.detach().cpu().contiguous().clone()
            self.seen[id(tensor)] = name, tensor
        return self.seen[id(tensor)][0]

    def free(self, name: str) -> str:
        """`name`, with a number where it is taken: a key "a.b" and one "b" of "a" lead to the same."""
        name = name.encode("ascii", "backslashreplace").decode()
        numbered = (f"{name}~{number}" for number in itertools.count(2))
        return next(each for each in itertools.chain([name], numbered) if each not in (*self.tensors, "__metadata__"))


def _value(plain: Any, tensors: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> Any:
    """The value that `_Writer` took apart."""
    if isinstance(plain, list):
        return [_value(each, tensors, kinds) for each in cast(list[Any], plain)]
    if not isinstance(plain, dict):
        return plain
    ((name, content),) = cast(dict[str, Any], plain).items()
    if name == "tensor":
        if content not in tensors:
            raise ValueError(f"the tensor {content} is missing")
        return tensors[content]
    if name == "map":
        return {key: _value(each, tensors, kinds) for key, each in content.items()}
    if name == "tuple":
        if not isinstance(content, list):
            raise ValueError("a tuple is no list of values")
        return tuple(_value(each, tensors, kinds) for each in cast(list[Any], content))
    if name == "float":
        return float(content)
    if name not in kinds:
        raise ValueError(f"it holds a {name}, which is not known here")
    return kinds[name].whole(_value(content, tensors, kinds))


def write(file: FilePath, data: bytes, new: bool = False) -> None:
    """Writes a file whole or not at all: beside its name, through to the disk, and then moved there.

    Raises OSError where there is no room or no permission; what was there before stays. A `new` file takes the place of
    none: FileExistsError.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with beside.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if new:
            _move_to_free(beside, file)
        else:
            os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    # The new name, too, is to survive a power cut; not every system can do that to a folder.
    with suppress(OSError):
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _move_to_free(beside: FilePath, file: FilePath) -> None:
    """Moves a file to a name that nothing has; of several processes only one can take it."""
    try:
        os.link(beside, file)
    except FileExistsError:
        raise
    except OSError:
        # A disk without links: an empty file takes the name.
        file.open("xb").close()
        os.replace(beside, file)
    else:
        beside.unlink()


def fingerprint(plan: Plan) -> str:
    """A digest of what a plan does, from the coefficients at nine digits: enough to tell two plans apart, and the same
    on every machine, whatever the last bits of its logarithms."""
    lines = [f"{plan.path.value} {' '.join(f'{sigma:.9g}' for sigma in plan.sigmas)}"]
    for stage in plan.stages:
        rows = " / ".join(_row_text(each) for each in (*stage.opening, *stage.rows))
        lines.append(f"{stage.step} {stage.sigma:.9g} {rows} {' '.join(stage.keeps)}")
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _row_text(each: Row) -> str:
    return f"{each.target} = " + " ".join(f"{value:.9g} {operand}" for operand, value in each.terms)


def check_state(plan: Plan, state: State, name: str = "state") -> None:
    """Raises InputError unless a run of `plan` can go on from `state`: its place, its registers and their shapes."""
    if not 0 <= state.index <= len(plan.stages):
        problem = f"stands after model call {state.index}, and the plan has {len(plan.stages)}"
        raise InputError(name, problem, "resume it with the schedule that it was made on")
    needed = set(plan.stages[state.index - 1].keeps) if state.index else {"x"}
    if missing := sorted(needed - set(state.registers)):
        raise InputError(name, f"lacks the register {missing[0]}", DAMAGED)
    for register, tensor in state.registers.items():
        if not tensor.is_floating_point() or (tensor.shape, tensor.dtype) != (state.x.shape, state.x.dtype):
            problem = f"has a register {register} of {_form(tensor)} beside x of {_form(state.x)}"
            raise InputError(name, problem, DAMAGED)


def _form(tensor: Tensor) -> str:
    return f"{'x'.join(map(str, tensor.shape))} {str(tensor.dtype).removeprefix('torch.')}"


def save(file: FilePath | str, state: State, plan: Plan) -> None:
    """Writes a state, to be resumed by `load` under the same plan. Raises OSError where the file cannot be written."""
    write(FilePath(file), dumps({"state": state, "plan": fingerprint(plan)}))


def load(file: FilePath | str, plan: Plan) -> State:
    """The state that `save` wrote: a run of `plan` goes on from it as if it had not been cut.

    Raises InputError for a file that is no state, is damaged, or belongs to another plan.
    """
    held = loads(read(FilePath(file)))
    if not isinstance(held, dict) or not isinstance(state := cast(dict[str, Any], held).get("state"), State):
        raise InputError("file", "was saved by a node", "load it with StepwiseLoadState")
    if cast(dict[str, Any], held).get("plan") != fingerprint(plan):
        cure = "use the solver, the parameters and the schedule that the state was made with"
        raise InputError("plan", "is not the one that the state was made under", cure)
    check_state(plan, state)
    return state


__all__: Sequence[str] = ("check_state", "dumps", "fingerprint", "load", "loads", "save")
