"""A function of one row, traced by torch and written out in C++, whatever machine is to run it.

Compilers of tensor programs turn every few operations into a loop over all rows, and all that is
computed goes through memory. What is solved here has no operation that joins rows, so the loop over
rows can stand outside: a row stays in registers from its first operation to its last, and the loops of
the function itself, such as the steps of a flight, are loops inside. What `V` is, and who carries rows
through the text, is said by a frame: `lanes.cpp` for a CPU core, `threads.cu` for a GPU.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from aimback.compile.operations import (
    CHOICE,
    DIFFERENCE,
    FOLDING,
    GREATEST,
    INDEXING,
    LEAST,
    LOGICAL,
    MOVING,
    NUMBER,
    NUMERIC,
    PRODUCT,
    SUM,
    count_operands,
)
from aimback.core.tracing import trace_for

_LOOPED = 16  # entries of an array from which on they are a loop
_SHORT = 4  # a whole power up to which products are cheaper
_LONGEST = 20_000  # lines: C++ compilers take minutes over more, as of a loop of Python's over a thousand steps
_WIDEST = 2**16  # weights of a layer: for more, products of whole matrices are the better way


def write_step(function: Callable[..., Sequence[Tensor]], example: Sequence[Tensor]) -> str:
    """C++ of a function of tensors: `inline void apply(const V* in, V* out)`.

    Each entry of each tensor is one V, in order. V is a number, or a vector of which every lane belongs to
    another row; T is its type. Numbers of any dtype are T there, and truth values that leave it are 0 or 1.

    Args:
        function: takes and returns tensors of one row.
        example: what it may be called with.

    Raises:
        NotImplementedError: an operation without a translation, named.
    """
    writer = _Writer()
    place = itertools.count()
    row = [
        _Written(_shape((writer.number(f"in[{next(place)}]") for _ in range(part.numel())), part.shape), part)
        for part in example
    ]
    with torch.no_grad(), trace_for(writer), writer:
        results = function(*row)
    for index, entry in enumerate(_list_entries([writer.read(result, torch.float64) for result in results])):
        writer.say(f"out[{index}] = {writer.texts[entry]};")
    return "\n".join([*writer.tables, "inline void apply(const V* in, V* out) {", *_prune(writer.lines), "}", ""])


class _Written(Tensor):
    """Stands for a tensor of a row. It holds no numbers, but says what in C++ holds each of them.

    Args:
        entries: int64, places in the writer's `texts`. What only moves the numbers of a tensor is done to these, by
            torch itself, and what changes some of them in place too.
        like: has its dtype and its device.
    """

    entries: Tensor

    @staticmethod
    def __new__(cls, entries: Tensor, like: Tensor) -> "_Written":
        made: _Written = Tensor._make_wrapper_subclass(
            cls,
            entries.shape,
            strides=entries.stride(),
            storage_offset=entries.storage_offset(),
            dtype=like.dtype,
            device=like.device,
        )
        made.entries = entries
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch's own do

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise NotImplementedError(f"{function}: code of others has kept a tensor of a traced row")


class _Writer(TorchDispatchMode):
    """Is told of every operation while a function runs, and writes down what becomes of every entry of its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own are not annotated
        self.lines: list[str] = []
        self.texts: list[str] = []
        self.tables: list[str] = []  # of weights, which all rows share
        self._numbers: dict[str, int] = {}
        self._values: dict[int, float] = {}  # of literals
        self._tables: dict[str, str] = {}  # their names
        self._names = itertools.count()
        self._special: dict[str, Callable[..., Tensor]] = {
            "add": self._add,
            "addcmul": self._addcmul,
            "addmm": self._addmm,
            "bmm": self._multiply,
            "clamp": self._clamp,
            "clamp_max": lambda operand, most: self._clamp(operand, max=most),
            "clamp_min": self._clamp,
            "constant_pad_nd": lambda entries, wide, value=0.0: torch.ops.aten.constant_pad_nd(
                entries, wide, self._literal(float(value))
            ),
            "dot": lambda a, b: self._multiply(a[None], b[:, None])[0, 0],
            "lerp": self._lerp,
            "mean": self._mean,
            "mm": self._multiply,
            "mv": lambda a, b: self._multiply(a, b[:, None])[:, 0],
            "nan_to_num": self._nan_to_num,
            "pow": self._pow,
            "sub": self._sub,
            "var": self._var,
        }
        self._moves: dict[str, Callable[..., Any]] = {
            "_local_scalar_dense": self._tell,
            "index_put": self._put,
            **dict.fromkeys(INDEXING, self._index),
            **dict.fromkeys(MOVING, self._move),
        }
        for name in ("diagonal", "select", "slice"):
            self._special[f"{name}_backward"] = functools.partial(self._place, getattr(torch.ops.aten, name))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare the import of torch's own compiler, a second: it is to be kept from tracing this, and never does."""
        return False

    def number(self, text: str) -> int:
        """Of what is called so in C++."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def say(self, line: str) -> None:
        if len(self.lines) == _LONGEST:
            raise NotImplementedError(f"written out it is longer than {_LONGEST:,} operations")
        self.lines.append(line)

    def read(self, operand: Any, dtype: torch.dtype) -> Tensor:
        """Return the entries of a tensor or number, as masks if the dtype is that of truth values, else as numbers."""
        if not isinstance(operand, Tensor):
            operand = torch.tensor(operand, dtype=torch.bool if isinstance(operand, bool) else torch.float64)
        written = self._write(operand)
        if dtype == torch.bool and written.dtype != torch.bool:
            return self._elementwise(NUMERIC["ne"], written.entries, 0)
        if dtype != torch.bool and written.dtype == torch.bool:
            return self._elementwise(NUMBER, written.entries)
        return written.entries

    def _write(self, tensor: Tensor) -> _Written:
        """Write down the numbers of a tensor that is the same for every row."""
        if isinstance(tensor, _Written):
            return tensor
        return _Written(_shape(map(self._literal, tensor.flatten().tolist()), tensor.shape), tensor)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, options = function.overloadpacket.__name__, kwargs or {}
        if torch.Tag.nondeterministic_seeded in function.tags:
            raise NotImplementedError(f"{function} is random")
        if name in self._moves:
            return self._moves[name](function, args, options)
        if name.endswith("_") and not name.endswith("__"):
            return self._change(function, args, options)
        # Of the numbers of the row it knows nothing, but it still tells the dtype of what it makes.
        like = function(*trees.tree_map_only(Tensor, _forget, args), **options)
        if isinstance(like, Tensor) and like.is_complex():
            raise NotImplementedError(f"{function} makes complex numbers")
        tensors = [one for one in trees.tree_leaves((args, options)) if isinstance(one, Tensor)]
        if not tensors or name.endswith("_like") or name.startswith(("new_", "_new_")):
            # Some are empty, or noughts without memory, as torch's forward mode has them.
            return self._write(_forget(like) if "empty" in name or like._is_zerotensor() else like)
        if not isinstance(like, Tensor) or not self._knows(name, like.dtype, args, options):
            return self._decompose(function, args, options)
        if not like.is_floating_point() and self._are_literals(self._write(one).entries for one in tensors):
            # Whole numbers that are the same for every row may become indices.
            return self._write(function(*trees.tree_map_only(Tensor, self._recall, args), **options))
        return _Written(self._compute(function, like.dtype, args, options), like.to(tensors[0].device))

    def _are_literals(self, tensors: Iterable[Tensor]) -> bool:
        return self._values.keys() >= set(_list_entries(tensors))

    def _tell(self, _: Any, args: Sequence[Any], __: Any) -> Any:
        """Return a number that is the same for every row."""
        return self._recall(args[0]).item()

    def _recall(self, tensor: Tensor) -> Tensor:
        """Return a tensor that is the same for every row."""
        numbers = [self._values.get(entry) for entry in _list_entries([self._write(tensor).entries])]
        if None in numbers:
            raise NotImplementedError("what it does hangs on a number of the row (data-dependent)")
        return torch.tensor(numbers, dtype=tensor.dtype).reshape(tensor.shape)

    def _change(self, function: Any, args: Sequence[Any], options: dict[str, Any]) -> Tensor:
        """Write down what changes a tensor in place."""
        name, changed = function.overloadpacket.__name__[:-1], args[0]
        if not isinstance(changed, _Written):
            raise NotImplementedError(f"{function} changes what is not the row's own")
        if name in ("copy", "fill", "zero"):
            (source,) = args[1:2] or [0]
        else:
            unchanging = getattr(getattr(torch.ops.aten, name), function._overloadname)
            source = self.__torch_dispatch__(unchanging, (), args, options)
        changed.entries.copy_(self.read(source, changed.dtype))
        return changed

    def _move(self, function: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Do to entries what is done to the tensors that they are of."""
        args = trees.tree_map_only(Tensor, self._write, args)
        written = [one for one in trees.tree_leaves(args) if isinstance(one, _Written)]
        like = next((one for one in written if one.dtype != torch.bool), written[0])
        moved = function(*trees.tree_map_only(_Written, lambda one: self.read(one, like.dtype), args), **options)
        return trees.tree_map_only(Tensor, lambda entries: _Written(entries, like), moved)

    def _index(self, function: Any, args: Sequence[Any], _: Any) -> Tensor:
        """Take entries by indices."""
        indexed = self._write(args[0])
        where = trees.tree_map_only(Tensor, self._recall, args[1:])
        return _Written(function(indexed.entries, *where), indexed)

    def _put(self, _: Any, args: Sequence[Any], __: Any) -> Tensor:
        """Put numbers into a copy, by indices or where a mask holds."""
        (changed, where, source), adds = (self._write(args[0]), *args[1:3]), args[3:] == (True,)
        given, entries = self.read(source, changed.dtype), changed.entries.clone()
        mask = where[0]
        if mask is not None and mask.dtype == torch.bool and mask.shape == changed.shape and given.numel() == 1:
            return _Written(self._elementwise(CHOICE, self.read(mask, torch.bool), given, entries), changed)
        places = torch.arange(entries.numel()).reshape(entries.shape)
        places = torch.ops.aten.index(places, [one if one is None else self._recall(one) for one in where])
        flat = entries.view(-1)
        for place, entry in zip(_list_entries([places]), _list_entries([given.expand(places.shape)]), strict=True):
            here = torch.tensor(entry)
            flat[place] = self._add(flat[place], here) if adds else here
        return _Written(entries, changed)

    def _compute(self, function: Any, dtype: torch.dtype, args: Sequence[Any], options: dict[str, Any]) -> Tensor:
        """Write an operation that makes new numbers or, of that dtype, truth values."""
        name = function.overloadpacket.__name__
        if name == "_to_copy":
            return self._convert(args[0], dtype)
        if name in ("where", "masked_fill"):
            condition, chosen, otherwise = args if name == "where" else (args[1], args[2], args[0])
            parts = self.read(condition, torch.bool), self.read(chosen, dtype), self.read(otherwise, dtype)
            return self._elementwise(CHOICE, *parts)
        if name in self._special:
            numbers = [self.read(one, torch.float64) if isinstance(one, Tensor) else one for one in args]
            return self._special[name](*numbers, **options)
        form, kind = _find_form(name, dtype)
        if name in FOLDING:
            return self._fold(form, self.read(args[0], kind), *args[1:])
        return self._elementwise(form, *(self.read(one, kind) for one in args))

    def _knows(self, name: str, dtype: torch.dtype, args: Sequence[Any], options: dict[str, Any]) -> bool:
        """Whether an operation that makes that dtype has a translation of its own, with all that it is given."""
        if name in ("_to_copy", "masked_fill", "where") or name in self._special:
            return True
        form, _ = _find_form(name, dtype)
        return bool(form) and not options and (name in FOLDING or count_operands(form) == len(args))

    def _decompose(self, function: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Write down what torch itself makes an operation of, such as the backward pass of another one."""
        from torch._decomp import decomposition_table  # it takes a second

        with self:
            made = decomposition_table.get(function, function.decompose)(*args, **options)
        if made is NotImplemented:
            raise NotImplementedError(f"{function} has no translation to C++")
        return made

    def _elementwise(self, form: str, *operands: Any) -> Tensor:
        """A new entry for each of the operands', which are broadcast."""
        tensors = [one if isinstance(one, Tensor) else torch.tensor(self._literal(one)) for one in operands]
        tensors = list(torch.broadcast_tensors(*tensors))
        shape = tensors[0].shape
        matrix = math.prod(shape[:-1]), math.prod(shape[-1:])
        rows = zip(*(self._read_rows(tensor.reshape(matrix)) for tensor in tensors), strict=True)
        return _shape((entry for columns in rows for entry in self._write_row(form, columns)), shape)

    def _read_rows(self, tensor: Tensor) -> list[list[str]]:
        """Return what in C++ holds each entry of a matrix."""
        return [[self.texts[entry] for entry in row] for row in tensor.tolist()]

    def _write_row(self, form: str, columns: Sequence[list[str]]) -> list[int]:
        """Write a new entry for each of the columns', of a layer of a network as a loop over its neurons."""
        length = len(columns[0])
        looped = [_find_run(texts) or (texts[0] if len(set(texts)) == 1 else None) for texts in columns]
        if length < _LOOPED or None in looped or not any(map(_find_run, columns)):
            return [self._declare("const V", form.format(*texts)) for texts in zip(*columns, strict=True)]
        name = f"v{next(self._names)}"
        self.say(f"V {name}[{length}];")
        self.say(f"ROLLED for (int i = 0; i < {length}; i++) {name}[i] = {form.format(*looped)};")
        return [self.number(f"{name}[{index}]") for index in range(length)]

    def _convert(self, operand: Tensor, dtype: torch.dtype) -> Tensor:
        """Into another dtype."""
        entries = self.read(operand, dtype)
        whole = operand.is_floating_point() and not dtype.is_floating_point and dtype != torch.bool
        return self._elementwise(NUMERIC["trunc"], entries) if whole else entries

    def _fold(self, form: str, entries: Tensor, dims: Any = None, keepdim: bool = False) -> Tensor:
        """Join the entries along dimensions, or all of them."""
        asked = [dims] if isinstance(dims, int) else dims or range(entries.ndim)
        places = sorted(dim % entries.ndim for dim in asked)
        for dim in reversed(places):
            entries = functools.reduce(functools.partial(self._elementwise, form), entries.unbind(dim))
        for dim in places if keepdim else ():
            entries = entries.unsqueeze(dim)
        return entries

    def _mean(self, entries: Tensor, dims: Any = None, keepdim: bool = False) -> Tensor:
        total = self._fold(SUM, entries, dims, keepdim)
        return self._elementwise(NUMERIC["div"], total, entries.numel() // total.numel())

    def _add(self, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
        return self._elementwise(SUM, a, self._times(b, alpha))

    def _sub(self, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
        return self._elementwise(DIFFERENCE, a, self._times(b, alpha))

    def _addcmul(self, a: Any, b: Any, c: Any, *, value: float = 1) -> Tensor:
        return self._elementwise("fmadd({1}, {2}, {0})", a, self._times(b, value), c)

    def _times(self, operand: Any, factor: float) -> Any:
        return operand if factor == 1 else self._elementwise(NUMERIC["mul"], operand, factor)

    def _lerp(self, start: Any, end: Any, share: Any) -> Tensor:
        # As torch does it: from the nearer end, so exact at both.
        way = self._elementwise(DIFFERENCE, end, start)
        form = "V::blendv(fmadd({2} - V(T(1)), {3}, {1}), fmadd({2}, {3}, {0}), {2} < V(T(0.5)))"
        return self._elementwise(form, start, end, share, way)

    def _clamp(self, operand: Any, min: Any = None, max: Any = None) -> Any:
        if min is not None:
            operand = self._elementwise(GREATEST, operand, min)
        return operand if max is None else self._elementwise(LEAST, operand, max)

    def _nan_to_num(self, operand: Tensor, nan: float = 0.0) -> Tensor:
        finite = self._elementwise("V::blendv({0}, {1}, {0} != {0})", operand, nan)
        return self._elementwise("clamp({0}, V(-MOST), V(MOST))", finite)

    def _pow(self, operand: Any, exponent: Any) -> Tensor:
        if isinstance(exponent, int) and 0 < exponent <= _SHORT:
            return self._elementwise(" * ".join(["{0}"] * exponent), operand)
        return self._elementwise("{0}.pow({1})", operand, exponent)

    def _addmm(self, sums: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if self._are_literals([b]):
            return self._apply_weights(b.T, a, sums)
        return self._add(sums, self._multiply(a, b))

    def _var(self, entries: Tensor, dims: Any = None, correction: float = 1, keepdim: bool = False) -> Tensor:
        away = self._elementwise(DIFFERENCE, entries, self._mean(entries, dims, True))
        squares = self._fold(SUM, self._elementwise(PRODUCT, away, away), dims, keepdim)
        return self._elementwise(NUMERIC["div"], squares, entries.numel() // squares.numel() - correction)

    def _place(self, view: Callable[..., Tensor], entries: Tensor, shape: Sequence[int], *where: int) -> Tensor:
        """Put entries where a view of a tensor of that shape has them, among noughts."""
        whole = torch.full(shape, self._literal(0.0))
        view(whole, *where).copy_(entries)
        return whole

    def _multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """The products of matrices, `(..., n, k)` and `(..., k, m)`."""
        if b.ndim == 2 and self._are_literals([b]):
            return self._apply_weights(b.T, a, torch.tensor(self._literal(0.0)))
        products = self._elementwise(PRODUCT, a[..., None], b[..., None, :, :])
        return functools.reduce(self._add, products.unbind(-2))

    def _apply_weights(self, weight: Tensor, inputs: Tensor, sums: Tensor) -> Tensor:
        """Add products with a matrix of literals, `(outputs, width)`, to sums."""
        outputs, width = weight.shape
        if weight.numel() > _WIDEST:
            raise NotImplementedError(f"a layer of {weight.numel()} weights is too wide")
        rows = [", ".join(write_number(self._values[entry]) for entry in row) for row in weight.tolist()]
        table = f"[{outputs}][{width}] = {{{', '.join(f'{{{row}}}' for row in rows)}}}"
        if table not in self._tables:
            self._tables[table] = f"v{next(self._names)}"
            self.tables.append(f"TABLE T {self._tables[table]}{table};")
        results = []
        starts = self._read_rows(sums.expand(len(inputs), outputs))
        for row, start in zip(self._read_rows(inputs), starts, strict=True):
            x, y = f"v{next(self._names)}", f"v{next(self._names)}"
            self.say(f"const V {x}[] = {{{', '.join(row)}}};")
            self.say(f"V {y}[] = {{{', '.join(start)}}};")
            self.say(f"linear({self._tables[table]}, {x}, {y});")
            results += [self.number(f"{y}[{index}]") for index in range(outputs)]
        return _shape(results, torch.Size((len(inputs), outputs)))

    def write_loop(
        self, goes_on: Callable[..., Tensor], body: Callable[..., Sequence[Tensor]], carried: Sequence[Tensor]
    ) -> list[Tensor]:
        """As long as it goes on for one of the rows; the others are to keep their own values."""
        own = self._hold("V", carried, carried)
        self.say("while (true) {")
        asked = goes_on(*self._lend(own))
        with _disable_current_modes():
            (entry,) = _list_entries([self.read(asked, torch.bool)])
        self.say(f"if (!some({self.texts[entry]})) break;")
        new = self._hold("const V", body(*self._lend(own)), own)
        with _disable_current_modes():
            pairs = zip(*(_list_entries([part.entries for part in parts]) for parts in (own, new)), strict=True)
        for old, entry in pairs:
            self.say(f"{self.texts[old]} = {self.texts[entry]};")
        self.say("}")
        return list(own)

    def _hold(self, kind: str, tensors: Sequence[Tensor], like: Sequence[Tensor]) -> list[_Written]:
        """Declare variables of the entries of some tensors, of the dtypes of others."""
        with _disable_current_modes():
            held = []
            for tensor, one in zip(tensors, like, strict=True):
                texts = [self.texts[entry] for entry in _list_entries([self.read(tensor, one.dtype)])]
                held.append(_Written(_shape((self._declare(kind, text) for text in texts), tensor.shape), one))
            return held

    def _lend(self, own: Sequence[_Written]) -> list[_Written]:
        """Make tensors that a loop may change in place."""
        with _disable_current_modes():
            return [_Written(one.entries.clone(), one) for one in own]

    def _declare(self, kind: str, value: str) -> int:
        name = f"v{next(self._names)}"
        self.say(f"{kind} {name} = {value};")
        return self.number(name)

    def _literal(self, value: float) -> int:
        text = ("ALL" if value else "NONE") if isinstance(value, bool) else f"V({write_number(value)})"
        number = self.number(text)
        self._values[number] = value
        return number


def _find_run(texts: list[str]) -> str | None:
    """Return the entry `i` of an array that these are, one after the other; None where they are something else."""
    if texts and (match := re.fullmatch(r"(v\d+)\[(\d+)\]", texts[0])):
        name, first = match[1], int(match[2])
        if texts == [f"{name}[{first + index}]" for index in range(len(texts))]:
            return f"{name}[i + {first}]"
    return None


def write_number(value: float) -> str:
    """A number in C++, to its last bit."""
    if math.isnan(value):
        return "T(NAN)"
    if math.isinf(value):
        return "T(INFINITY)" if value > 0 else "-T(INFINITY)"
    return f"T({float(value).hex()})"


def _shape(numbers: Iterable[int], shape: torch.Size) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int64).reshape(shape)


def _list_entries(tensors: Iterable[Tensor]) -> list[int]:
    return [entry for tensor in tensors for entry in tensor.flatten().tolist()]


def _find_form(name: str, dtype: torch.dtype) -> tuple[str, torch.dtype]:
    """What an operation that makes that dtype is in C++, empty where it is unknown, and of what dtype its operands."""
    if dtype == torch.bool and name in LOGICAL:
        return LOGICAL[name], torch.bool
    return NUMERIC.get(name, ""), torch.float64


def _forget(tensor: Tensor) -> Tensor:
    """Make one of the same shape and dtype that is of no row."""
    return torch.zeros(tensor.shape, dtype=tensor.dtype)


def _prune(lines: Sequence[str]) -> list[str]:
    """Leave out the constants that nothing after them needs."""
    kept: list[str] = []
    needed: set[str] = set()
    for line in reversed(lines):
        constant = re.match(r"const V (v\d+) = ", line)
        if constant is None or constant[1] in needed:
            kept.append(line)
            needed.update(re.findall(r"v\d+", line))
    return kept[::-1]
