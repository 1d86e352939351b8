"""Python source for an interface: classes and aliases for its types, and a protocol for its methods.

The way back from `python`. A client's author generates it from a `.did` and imports it; `python.type_of` of
what it defines gives types of the same structure as the interface's own.
"""

from __future__ import annotations

import json
import keyword
import re
from typing import TypeGuard

from cannery.candid import types as ct
from cannery.candid.did import Interface
from cannery.candid.errors import CandidError

_WORDS: dict[type, str] = {
    ct.Null: "None",
    ct.Bool: "bool",
    ct.Nat: "nat",
    ct.Int: "int",
    ct.Nat8: "nat8",
    ct.Nat16: "nat16",
    ct.Nat32: "nat32",
    ct.Nat64: "nat64",
    ct.Int8: "int8",
    ct.Int16: "int16",
    ct.Int32: "int32",
    ct.Int64: "int64",
    ct.Float32: "float32",
    ct.Float64: "float",
    ct.Text: "str",
    ct.Reserved: "reserved",
    ct.Empty: "empty",
    ct.PrincipalType: "Principal",
}
_EXPORTED = [
    *(set(_WORDS.values()) - {"None", "bool", "int", "float", "str"}),
    "Case",
    "FuncRef",
    "Principal",
    "Results",
    "ServiceRef",
    "Some",
    "Variant",
    "case",
]
_EXPORTED += ["field", "func_of", "record", "service_of", "variant"]
_TAKEN = {*_EXPORTED, "Annotated", "Protocol", "bool", "int", "float", "str", "bytes", "list", "tuple"}
_HEAD = '''"""Types and methods of a canister, generated from its Candid interface."""

from __future__ import annotations

from typing import Annotated, Protocol

from cannery.candid.python import (
{imports}
)
'''


def hints_source(interface: Interface, service_name: str = "Service") -> str:
    """Return a Python module with a class or alias for each type, and a protocol for the service.

    A type that is recursive without any record or variant, such as `type t = vec t`, has no hint:
    `CandidError`.
    """
    return _Writer(interface, service_name).module()


class _Writer:
    """Writes the classes first, then the aliases, which may refer to them."""

    def __init__(self, interface: Interface, service_name: str) -> None:
        self.interface = interface
        self.service_name = service_name
        self.taken = {*_TAKEN, *keyword.kwlist, service_name}
        self.names = {name: self.fresh(_identifier(name)) for name in interface.names}
        self.classes: list[str] = []
        self.needs: set[str] = set()

    def module(self) -> str:
        """Return the source."""
        aliases: dict[str, tuple[str, set[str]]] = {}
        for name, t in self.interface.definitions.definitions:
            if _is_class(t) or (isinstance(t, ct.Record) and self.is_recursive(name)):
                self.write_class(self.names[name], t)
            else:
                self.needs = set()
                hint = self.hint(t, self.names[name], self.is_recursive(name))
                aliases[self.names[name]] = (hint, set(self.needs))
        protocol = self.protocol()
        parts = [*self.classes, "\n".join(_ordered(aliases)), protocol]
        text = "\n\n\n".join(part for part in parts if part) + "\n"
        used = sorted(word for word in set(_EXPORTED) if re.search(rf"\b{word}\b", text))
        head = _HEAD.format(imports="\n".join(f"    {word}," for word in used or ["Principal"]))
        return f"{head}\n\n{text}"

    def fresh(self, wanted: str) -> str:
        """Return an unused name like the wanted one."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name

    def is_recursive(self, name: str) -> bool:
        """Tell whether a definition refers to itself, through whatever others."""
        seen: set[str] = set()
        todo = [self.interface.definitions[name]]
        while todo:
            t = todo.pop()
            if isinstance(t, ct.Ref):
                if t.name == name:
                    return True
                if t.name not in seen:
                    seen.add(t.name)
                    todo.append(self.interface.definitions[t.name])
            todo.extend(ct.children(t))
        return False

    def write_class(self, name: str, t: ct.Record | ct.Variant) -> None:
        """Write the class of a record or variant; classes inside it come before it."""
        is_record = isinstance(t, ct.Record)
        taken: set[str] = set()
        lines = ["@record" if is_record else "@variant", f"class {name}{'' if is_record else '(Variant)'}:"]
        if not t.fields:
            lines.append(f'    """A {"record without fields" if is_record else "variant without cases"}."""')
        for f in t.fields:
            attribute = self.attribute(f.label, taken, is_record)
            hint = self.hint(f.type, f"{name}{_identifier(f.label, camel=True)}", False)
            given = (
                ""
                if attribute == f.label
                else f" = {'field' if is_record else 'case'}(name={_quoted(f.label)})"
            )
            lines.append(f"    {attribute}: {hint if is_record else f'Case[{hint}]'}{given}")
        self.classes.append("\n".join(lines))

    def attribute(self, label: str, taken: set[str], is_record: bool) -> str:
        """Return the Python name of a field or case."""
        name = _identifier(label)
        if name.startswith("__"):
            name = "f" + name
        while name in taken or name in self.taken or (not is_record and name in ("tag", "value")):
            name += "_"
        taken.add(name)
        return name

    def hint(self, t: ct.Type, path: str, is_recursive: bool) -> str:
        """Return the hint of a type; records and variants inside get a class named after their path."""
        match t:
            case ct.Ref():
                name = self.names[t.name]
                self.needs.add(name)
                return name
            case ct.Opt():
                inner = self.hint(t.inner, path, is_recursive)
                is_nullable = isinstance(self.interface.look_up(t.inner), (ct.Null, ct.Opt, ct.Reserved))
                return f"Some[{inner}] | None" if is_nullable else f"{inner} | None"
            case ct.Vec():
                if self.interface.look_up(t.inner) == ct.Nat8():
                    return "bytes"
                return f"list[{self.hint(t.inner, path + 'Item', is_recursive)}]"
            case ct.Record() if t.is_tuple and not is_recursive:
                inner = ", ".join(self.hint(f.type, f"{path}{f.id}", False) for f in t.fields)
                return f"tuple[{inner}]"
            case ct.Record() | ct.Variant():
                name = self.fresh(path)
                needs, self.needs = self.needs, set()
                self.write_class(name, t)
                self.needs = needs
                return name
            case ct.Func():
                return f"Annotated[FuncRef, {self.func(t, path)}]"
            case ct.Service():
                return f"Annotated[ServiceRef, {self.service(t, path)}]"
            case _:
                return _WORDS[type(t)]

    def func_type(self, t: ct.Type) -> ct.Func:
        found = self.interface.look_up(t)
        assert isinstance(found, ct.Func)  # parse_did sees to it
        return found

    def func(self, t: ct.Func, path: str) -> str:
        args = _tuple([self.hint(a, f"{path}Arg{i}", False) for i, a in enumerate(t.args)])
        results = _tuple([self.hint(r, f"{path}Result{i}", False) for i, r in enumerate(t.results)])
        modes = "".join(f", {_quoted(mode)}" for mode in t.modes)
        return f"func_of({args}, {results}{modes})"

    def service(self, t: ct.Service, path: str) -> str:
        methods = []
        for name, method in t.methods:
            func = self.func(self.func_type(method), path + _identifier(name, camel=True))
            methods.append(f"{_quoted(name)}: {func}")
        return f"service_of({{{', '.join(methods)}}})"

    def protocol(self) -> str:
        """Return the protocol of the service; classes that only its methods need join the others."""
        if self.interface.open_service is None:
            return ""
        service = self.interface.look_up(self.interface.open_service)
        assert isinstance(service, ct.Service)  # parse_did sees to it
        lines = [f"class {self.service_name}(Protocol):", '    """The methods of the canister."""']
        for name, method in service.methods:
            lines += self.method(name, self.func_type(method))
        return "\n".join(lines)

    def method(self, name: str, t: ct.Func) -> list[str]:
        """Return a method of the protocol; one whose name is no identifier is only mentioned."""
        path = _identifier(name, camel=True)
        taken: set[str] = {"self"}
        args = []
        for place, arg in enumerate(t.args):
            given = t.arg_names[place] if place < len(t.arg_names) else None
            word = self.attribute(given or f"arg{place}", taken, True)
            args.append(f", {word}: {self.hint(arg, f'{path}Arg{place}', False)}")
        results = [self.hint(r, f"{path}Result{i}", False) for i, r in enumerate(t.results)]
        is_plain = len(results) == 1 and self.interface.look_up(t.results[0]) != ct.Null()
        result = results[0] if is_plain else f"Results[tuple[{', '.join(results)}]]"
        head = f"def {name}(self{''.join(args)}) -> {result if results else 'None'}: ..."
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            return ["", f"    # method {name!r}, which Python cannot name"]
        return ["", f"    # {' '.join(t.modes) or 'update'}", f"    {head}"]


def _is_class(t: ct.Type) -> TypeGuard[ct.Record | ct.Variant]:
    return isinstance(t, ct.Variant) or (isinstance(t, ct.Record) and not t.is_tuple)


def _identifier(name: str, *, camel: bool = False) -> str:
    """Return a Python identifier like the name."""
    words = re.sub(r"\W", "_", name)
    if camel:
        return "".join(word[:1].upper() + word[1:] for word in words.split("_"))
    return words if words.isidentifier() else f"f_{words}"


def _tuple(items: list[str]) -> str:
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _ordered(aliases: dict[str, tuple[str, set[str]]]) -> list[str]:
    """Return the lines of aliases, each after those that it needs."""
    lines: list[str] = []
    left = dict(aliases)
    while left:
        ready = [name for name, (_, needs) in left.items() if not needs & left.keys()]
        if not ready:
            raise CandidError(f"types {', '.join(left)} are recursive without a record or variant: no hints")
        for name in ready:
            lines.append(f"{name} = {left.pop(name)[0]}")
    return lines
