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
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

# What moves entries and changes none; what makes entries that depend on nothing but shapes.
_MOVING = [
    "alias",
    "clone",
    "cat",
    "contiguous",
    "detach",
    "expand",
    "permute",
    "repeat",
    "reshape",
    "select",
    "slice",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
]
_MAKING = [
    "empty_like",
    "eye",
    "full",
    "full_like",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones_like",
    "scalar_tensor",
    "zeros",
    "zeros_like",
]
# Of masks.
_AND, _OR, _NOT = "{0} & {1}", "{0} | {1}", "{0} ^ ALL"
_LOGICAL = {
    "__and__": _AND,
    "bitwise_and": _AND,
    "logical_and": _AND,
    "__or__": _OR,
    "bitwise_or": _OR,
    "logical_or": _OR,
    "bitwise_not": _NOT,
    "logical_not": _NOT,
    "where": "V::blendv({2}, {1}, {0})",
}
_JOINING = {"all": _AND, "any": _OR}
_NUMBER = "V::blendv(V(T(0)), V(T(1)), {0})"
# Of numbers.
_METHODS = [
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "log",
    "log1p",
    "neg",
    "round",
    "sin",
    "sqrt",
    "tanh",
    "trunc",
]
_DIFFERENCE, _LEAST, _GREATEST = "{0} - {1}", "minimum({0}, {1})", "maximum({0}, {1})"
_NUMERIC = {name: f"{{0}}.{name}()" for name in _METHODS} | {
    "atan2": "{0}.atan2({1})",
    "div": "{0} / {1}",
    "eq": "{0} == {1}",
    "ge": "{0} >= {1}",
    "gelu": "{0} * V(T(0.5)) * (V(T(1)) + ({0} * V(T(0x1.6a09e667f3bcdp-1))).erf())",
    "gt": "{0} > {1}",
    "hypot": "{0}.hypot({1})",
    "isfinite": "{0} - {0} == V(T(0))",
    "isnan": "{0} != {0}",
    "le": "{0} <= {1}",
    "lt": "{0} < {1}",
    "maximum": _GREATEST,
    "minimum": _LEAST,
    "mul": "{0} * {1}",
    "ne": "{0} != {1}",
    "reciprocal": "V(T(1)) / {0}",
    "relu": "maximum({0}, V(T(0)))",
    "rsub": "{1} - {0}",
    "sigmoid": "V(T(1)) / (V(T(1)) + {0}.neg().exp())",
    "sign": "sign({0})",
    "silu": "{0} / (V(T(1)) + {0}.neg().exp())",
    "softplus": "maximum({0}, V(T(0))) + {0}.abs().neg().exp().log1p()",
    "square": "{0} * {0}",
}
_LOOPED = 16  # entries of an array from which on they are a loop
_SHORT = 4  # a whole power up to which products are cheaper
_WIDEST = 2**16  # weights of a layer: for more, products of whole matrices are the better way


def write_step(function: nn.Module, example: Sequence[Tensor]) -> str:
    """C++ of a function of tensors: `inline void apply(const V* in, V* out)`.

    Each entry of each tensor is one V, in order. V is a number, or a vector of which every lane belongs to
    another row; T is its type. Numbers of any dtype are T there, and truth values that leave it are 0 or 1.

    Args:
        function: takes and returns tensors of one row.
        example: what it may be called with.

    Raises:
        NotImplementedError: an operation without a translation, named.
    """
    program = torch.export.export(function, tuple(example), strict=False)
    constants = {**program.state_dict, **program.constants}
    writer = _Writer()
    place = itertools.count()
    inputs = []
    for spec, node in zip(program.graph_signature.input_specs, program.graph.nodes, strict=False):
        if spec.target is None:
            like = node.meta["val"]
            inputs.append(_shape((writer.number(f"in[{next(place)}]") for _ in range(like.numel())), like.shape))
        else:
            inputs.append(writer.literals(constants[spec.target]))
    place = itertools.count()
    for entry in _entries(writer.follow(program.graph_module, inputs, masks=False)):
        writer.say(f"out[{next(place)}] = {writer.texts[entry]};")
    return "\n".join([*writer.tables, "inline void apply(const V* in, V* out) {", *writer.lines, "}", ""])


class _Writer:
    """Follows a traced program and writes down what becomes of every entry of its tensors.

    A tensor of the program is a tensor of numbers here, which say what in C++ holds each of its entries.
    So torch itself does on these numbers what only moves entries: stack, select, expand.
    """

    def __init__(self) -> None:
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
            "clamp": self._clamp,
            "lerp": self._lerp,
            "linear": self._linear,
            "nan_to_num": self._nan_to_num,
            "pow": self._pow,
            "sub": self._sub,
        }

    def number(self, text: str) -> int:
        """Of what is called so in C++."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def say(self, line: str) -> None:
        self.lines.append(line)

    def literals(self, tensor: Tensor) -> Tensor:
        return _shape(map(self._literal, tensor.flatten().tolist()), tensor.shape)

    def follow(self, module: fx.GraphModule, inputs: Sequence[Tensor], *, masks: bool = True) -> list[Tensor]:
        """Write down a graph, given what holds its inputs; returns what holds its outputs.

        Args:
            masks: whether truth values leave it as such, or else as numbers.
        """
        known: dict[fx.Node, Any] = {}
        left = iter(inputs)

        def resolve(arguments: Any) -> Any:
            return fx.node.map_arg(arguments, known.__getitem__)

        for node in module.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(left)
            elif node.op == "get_attr":
                known[node] = getattr(module, str(node.target))
            elif node.op == "output":
                break
            elif not node.users:
                continue
            elif node.target is operator.getitem:
                of, index = resolve(node.args)
                known[node] = of[index]
            elif node.target is torch.ops.higher_order.while_loop:
                known[node] = self._loop(*resolve(node.args))
            else:
                known[node] = self._operation(node, resolve(node.args), resolve(node.kwargs))
        (results,) = node.args
        results = [results] if isinstance(results, fx.Node) else results
        return [resolve(one) if masks else self._as_number(one, resolve(one)) for one in results]

    def _operation(self, node: fx.Node, operands: Sequence[Any], options: dict[str, Any]) -> Any:
        target: Any = node.target
        name = target.overloadpacket.__name__
        if name in _MOVING:
            return target(*operands, **options)
        if name in _MAKING:
            # Of operands only the shape and dtype are looked at.
            like = [
                torch.zeros(one.shape, dtype=_dtype(of)) if _dtype(of) else one for of, one in _pairs(node, operands)
            ]
            return self.literals(target(*like, **options))
        if name in ("_to_copy", "to"):
            return self._rearrange(node, operands[0])
        if name in _JOINING and len(operands) == 1:
            # Within this row: a loop goes on for as long as one row wants it to.
            join = functools.partial(self._elementwise, _JOINING[name])
            return functools.reduce(join, operands[0].flatten().unbind())
        return self._compute(node, name, operands, options)

    def _compute(self, node: fx.Node, name: str, operands: Sequence[Any], options: dict[str, Any]) -> Tensor:
        if name in _LOGICAL:
            return self._elementwise(_LOGICAL[name], *operands)
        numbers = [self._as_number(of, one) for of, one in _pairs(node, operands)]
        if name in self._special:
            return self._special[name](*numbers, **options)
        if name not in _NUMERIC or options:
            raise NotImplementedError(f"{node.target} has no translation to C++")
        return self._elementwise(_NUMERIC[name], *numbers)

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

    def _as_number(self, argument: Any, operand: Any) -> Any:
        return self._elementwise(_NUMBER, operand) if _dtype(argument) == torch.bool else operand

    def _rearrange(self, node: fx.Node, operand: Tensor) -> Tensor:
        """Into another dtype."""
        before, after = _dtype(node.args[0]), node.meta["val"].dtype
        if after == torch.bool and before != torch.bool:
            return self._elementwise(_NUMERIC["ne"], operand, 0)
        if before == torch.bool and after != torch.bool:
            return self._elementwise(_NUMBER, operand)
        whole = before is not None and before.is_floating_point and not after.is_floating_point
        return self._elementwise(_NUMERIC["trunc"], operand) if whole else operand

    def _add(self, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
        return self._elementwise("{0} + {1}", a, self._times(b, alpha))

    def _sub(self, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
        return self._elementwise(_DIFFERENCE, a, self._times(b, alpha))

    def _addcmul(self, a: Any, b: Any, c: Any, *, value: float = 1) -> Tensor:
        return self._elementwise("fmadd({1}, {2}, {0})", a, self._times(b, value), c)

    def _times(self, operand: Any, factor: float) -> Any:
        return operand if factor == 1 else self._elementwise(_NUMERIC["mul"], operand, factor)

    def _lerp(self, start: Any, end: Any, share: Any) -> Tensor:
        # As torch does it: from the nearer end, so exact at both.
        way = self._elementwise(_DIFFERENCE, end, start)
        form = "V::blendv(fmadd({2} - V(T(1)), {3}, {1}), fmadd({2}, {3}, {0}), {2} < V(T(0.5)))"
        return self._elementwise(form, start, end, share, way)

    def _clamp(self, operand: Any, min: Any = None, max: Any = None) -> Any:
        if min is not None:
            operand = self._elementwise(_GREATEST, operand, min)
        return operand if max is None else self._elementwise(_LEAST, operand, max)

    def _nan_to_num(self, operand: Tensor, nan: float = 0.0) -> Tensor:
        finite = self._elementwise("V::blendv({0}, {1}, {0} != {0})", operand, nan)
        return self._elementwise("clamp({0}, V(-MOST), V(MOST))", finite)

    def _pow(self, operand: Any, exponent: Any) -> Tensor:
        if isinstance(exponent, int) and 0 < exponent <= _SHORT:
            return self._elementwise(" * ".join(["{0}"] * exponent), operand)
        return self._elementwise("{0}.pow({1})", operand, exponent)

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        outputs, width = weight.shape
        if weight.numel() > _WIDEST:
            raise NotImplementedError(f"a layer of {weight.numel()} weights is too wide")
        rows = [", ".join(write_number(self._values[entry]) for entry in row) for row in weight.tolist()]
        table = f"[{outputs}][{width}] = {{{', '.join(f'{{{row}}}' for row in rows)}}}"
        if table not in self._tables:
            self._tables[table] = f"v{next(self._names)}"
            self.tables.append(f"TABLE T {self._tables[table]}{table};")
        start = ["V(T(0))"] * outputs if bias is None else [self.texts[entry] for entry in _entries([bias])]
        results = []
        for row in self._read_rows(inputs.reshape(-1, width)):
            x, y = f"v{next(self._names)}", f"v{next(self._names)}"
            self.say(f"const V {x}[] = {{{', '.join(row)}}};")
            self.say(f"V {y}[] = {{{', '.join(start)}}};")
            self.say(f"linear({self._tables[table]}, {x}, {y});")
            results += [self.number(f"{y}[{index}]") for index in range(outputs)]
        return _shape(results, torch.Size((*inputs.shape[:-1], outputs)))

    def _loop(
        self, goes_on: fx.GraphModule, body: fx.GraphModule, carried: Sequence[Tensor], fixed: Sequence[Tensor]
    ) -> list[Tensor]:
        """As long as it goes on for one of the rows; the others are to keep their own values."""
        own = [
            _shape((self._declare("V", self.texts[entry]) for entry in _entries([part])), part.shape)
            for part in carried
        ]
        self.say("while (true) {")
        (asked,) = self.follow(goes_on, [*own, *fixed])
        self.say(f"if (!some({self.texts[int(asked)]})) break;")
        after = _entries(self.follow(body, [*own, *fixed]))
        new = [self._declare("const V", self.texts[entry]) for entry in after]
        for old, entry in zip(_entries(own), new, strict=True):
            self.say(f"{self.texts[old]} = {self.texts[entry]};")
        self.say("}")
        return own

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


def _entries(tensors: Sequence[Tensor]) -> list[int]:
    return [entry for tensor in tensors for entry in tensor.flatten().tolist()]


def _pairs(node: fx.Node, operands: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    """The arguments as the program names them, and what they are."""
    return zip(node.args, operands, strict=True)


def _dtype(argument: Any) -> torch.dtype | None:
    """None of what is no tensor."""
    like = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    return like.dtype if isinstance(like, Tensor) else None
