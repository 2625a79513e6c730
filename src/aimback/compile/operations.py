"""The operations that have a translation of their own: what each of them is in C++."""

import re

# What moves entries and changes none.
MOVING = [
    "_reshape_alias",
    "_unsafe_view",
    "alias",
    "as_strided",
    "broadcast_in_dim",
    "cat",
    "clone",
    "detach",
    "diagonal",
    "expand",
    "flip",
    "lift_fresh",
    "permute",
    "repeat",
    "roll",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "stack",
    "t",
    "transpose",
    "unbind",
    "unfold",
    "unsqueeze",
    "view",
]
# What takes entries by indices that are the same for every row.
INDEXING = ["gather", "index", "index_select"]
# Of masks, elementwise or along dimensions.
_AND, _OR, _NOT = "{0} & {1}", "{0} | {1}", "{0} ^ ALL"
CHOICE = "V::blendv({2}, {1}, {0})"
LOGICAL = {
    "__and__": _AND,
    "__or__": _OR,
    "add": _OR,
    "all": _AND,
    "amax": _OR,
    "amin": _AND,
    "any": _OR,
    "bitwise_and": _AND,
    "bitwise_not": _NOT,
    "bitwise_or": _OR,
    "logical_and": _AND,
    "logical_not": _NOT,
    "logical_or": _OR,
    "max": _OR,
    "maximum": _OR,
    "min": _AND,
    "minimum": _AND,
    "mul": _AND,
}
NUMBER = "V::blendv(V(T(0)), V(T(1)), {0})"
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
SUM, DIFFERENCE, PRODUCT = "{0} + {1}", "{0} - {1}", "{0} * {1}"
LEAST, GREATEST = "minimum({0}, {1})", "maximum({0}, {1})"
NUMERIC = {name: f"{{0}}.{name}()" for name in _METHODS} | {
    "amax": GREATEST,
    "amin": LEAST,
    "asinh": "sign({0}) * ({0}.abs() + {0} * {0} / (V(T(1)) + ({0} * {0} + V(T(1))).sqrt())).log1p()",
    "atan2": "{0}.atan2({1})",
    "atanh": "({0}.log1p() - {0}.neg().log1p()) * V(T(0.5))",
    "cosh": "({0}.exp() + {0}.neg().exp()) * V(T(0.5))",
    "div": "{0} / {1}",
    "eq": "{0} == {1}",
    "exp2": "({0} * V(T(0x1.62e42fefa39efp-1))).exp()",
    "fmod": "{0} - {1} * ({0} / {1}).trunc()",
    "ge": "{0} >= {1}",
    "gelu": "{0} * V(T(0.5)) * (V(T(1)) + ({0} * V(T(0x1.6a09e667f3bcdp-1))).erf())",
    "gt": "{0} > {1}",
    "hypot": "{0}.hypot({1})",
    "isnan": "{0} != {0}",
    "le": "{0} <= {1}",
    "log10": "{0}.log() * V(T(0x1.bcb7b1526e50ep-2))",
    "log2": "{0}.log() * V(T(0x1.71547652b82fep+0))",
    "lt": "{0} < {1}",
    "max": GREATEST,
    "maximum": GREATEST,
    "min": LEAST,
    "minimum": LEAST,
    "mul": PRODUCT,
    "ne": "{0} != {1}",
    "prod": PRODUCT,
    "reciprocal": "V(T(1)) / {0}",
    "relu": "maximum({0}, V(T(0)))",
    "remainder": "{0} - {1} * ({0} / {1}).floor()",
    "rsqrt": "V(T(1)) / {0}.sqrt()",
    "rsub": "{1} - {0}",
    "sigmoid": "V(T(1)) / (V(T(1)) + {0}.neg().exp())",
    "sign": "sign({0})",
    "silu": "{0} / (V(T(1)) + {0}.neg().exp())",
    "sinh": "({0}.expm1() - {0}.neg().expm1()) * V(T(0.5))",
    "softplus": "maximum({0}, V(T(0))) + {0}.abs().neg().exp().log1p()",
    "sum": SUM,
    "tan": "{0}.sin() / {0}.cos()",
}
# Along dimensions, from the first entry to the last.
FOLDING = ["all", "amax", "amin", "any", "max", "min", "prod", "sum"]


def count_operands(form: str) -> int:
    return len(set(re.findall(r"\{\d\}", form)))
